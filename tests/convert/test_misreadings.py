# SPDX-License-Identifier: Apache-2.0
"""Files whose scales are not what they seem: every operator on every dialect, in each recipe that has what it works on. verify and convert
have to refuse or to warn; none may convert silently. `pytest -s` prints operator, dialect and verdict. The rows come from the tables: a
dialect that an operator does not reach fails, unless OUT_OF_REACH says why."""
import json
import shutil

import ml_dtypes
import numpy as np
import pytest
from convert.matrix import MADE, SOURCES, W, write_source

import breccia_c as brc
import checkpoint_files as files

F = np.float32
EXPONENTS = ("U8", "F8_E8M0")
GGUF = "scales lie inside GGUF's blocks: there is no array to mistake"
SCALAR, ONE_AXIS = "one number for the tensor: no axes, no blocks", "its scales have one axis"


class Case:
    """A file to spoil: its arrays, what its parts are called, and its config."""

    def __init__(self, path, dialect, recipe):
        self.dialect, self.recipe = dialect, recipe
        self.arrays, self.metadata = files.read(path / "model.safetensors")
        self.config = json.loads((path / "config.json").read_text())
        with files.Checkpoint(path) as c:
            self.parts = dict(c[W].parts)

    def __getitem__(self, role):
        return self.arrays[self.parts[role]]

    def put(self, role, word, array):
        self.arrays[self.parts[role]] = (word, np.ascontiguousarray(array))

    def exponents(self):
        return (self.dialect, self.recipe) not in MADE and brc.recipe(self.recipe).scale == brc.format_of("e8m0")


# Each gives 1 where it found something to spoil.

def divisor_as_multiplier(case):
    """The reciprocal of the scale that the dialect expects: of the global one where there are two levels."""
    role = "global_scale" if "global_scale" in case.parts else "scale"
    word, array = case[role]
    if case.dialect == "bitsandbytes" and role == "global_scale":
        return 0                                                 # a factor of the scales' own codes, of no usual size
    if case.exponents():
        case.put(role, word, (254 - array.view(np.uint8)).view(array.dtype))
    elif array.dtype.itemsize == 1:
        return 0                                                 # E4M3 scales of one level: their reciprocals are no such numbers
    else:
        with np.errstate(divide="ignore", over="ignore"):
            case.put(role, word, (1 / array.astype(F)).astype(array.dtype))
    return 1


def scale_transposed(case):
    word, array = case["scale"]
    if array.ndim < 2 or array.shape[-1] == array.shape[-2]:
        return 0
    case.put("scale", word, np.swapaxes(array, -1, -2))
    return 1


def exponents_as_numbers(case):
    """The bytes of E8M0 scales, taken for the numbers they are in decimal."""
    word, array = case["scale"]
    if not case.exponents() or word not in EXPONENTS:
        return 0
    case.put("scale", "F32", array.view(np.uint8).astype(F))
    return 1


def numbers_as_exponents(case):
    """Numbers rounded into bytes where numbers belong: U8 scales of a dialect that has none."""
    word, array = case["scale"]
    if case.exponents() or array.dtype.itemsize == 1:
        return 0
    case.put("scale", "U8", np.clip(np.rint(np.log2(np.maximum(array.astype(F), 1e-30))) + 127, 0, 254).astype(np.uint8))
    return 1


def scale_missing(case):
    del case.arrays[case.parts["scale"]]
    return 1


def scale_orphan(case):
    del case.arrays[case.parts["data"]]
    return 1


def scale_of_another_tensor(case):
    """One of a tensor with twice the rows."""
    word, array = case["scale"]
    if array.size == 1:
        return 0
    axis = 0 if array.shape[0] > 1 else -1
    case.put("scale", word, np.concatenate([array, array], axis))
    return 1


def wrong_block(case):
    """Scales of blocks that are half as wide."""
    word, array = case["scale"]
    if array.ndim < 2 or min(array.shape[-2:]) == 1:
        return 0
    case.put("scale", word, np.repeat(array, 2, -1))
    return 1


KEYS = ("weight_block_size", "group_size", "q_group_size", "bits", "num_bits", "block_structure")


def config_contradicts(case):
    """Twice the block, the group or the bits that the file has."""
    if (case.dialect, case.recipe) == ("deepseek", "mxfp4"):     # weight_block_size is not said of FP4
        return 0
    def double(node):
        found = 0
        for key, value in (node.items() if isinstance(node, dict) else enumerate(node)):
            if case.dialect == "modelopt" and key == "num_bits":  # its quant_algo names the type
                continue
            if key in KEYS and isinstance(value, int) and not isinstance(value, bool):
                node[key], found = 2 * value, 1
            elif key in KEYS and isinstance(value, list):
                node[key], found = [2 * v for v in value], 1
            elif isinstance(value, (dict, list)):
                found |= double(value)
        return found
    changed = 0
    state = case.parts.get("description") if case.dialect == "bitsandbytes" else None
    if state in case.arrays and case.arrays[state][1].ndim:      # its description is an array
        told = json.loads(case.arrays[state][1].tobytes())
        case.arrays[state] = ("U8", np.frombuffer(json.dumps({**told, "blocksize": 2 * told["blocksize"]}).encode(), np.uint8))
        return 1
    for key, value in case.metadata.items():                     # dialects that describe a tensor in the file itself
        if value.startswith("{") and ("block" in value or "group" in value):
            told = json.loads(value)
            if told.get("layout", {}).get("fields"):
                told["layout"]["fields"] = {k: 2 * v if isinstance(v, int) and not isinstance(v, bool) else v for k, v in told["layout"]["fields"].items()}
            elif isinstance(told.get("_data", {}).get("block_size"), list):
                told["_data"]["block_size"] = [1, max(1, told["_data"]["block_size"][-1] // 2)]
            elif isinstance(told.get("_data", {}).get("block_size"), int):
                told["_data"]["block_size"] *= 2
            else:
                continue
            case.metadata[key], changed = json.dumps(told), 1
    return changed or double(case.config)


OPERATORS = [divisor_as_multiplier, scale_transposed, exponents_as_numbers, numbers_as_exponents, scale_missing, scale_orphan, scale_of_another_tensor, wrong_block,
             config_contradicts]
OUT_OF_REACH = {
    **{(o.__name__, "gguf"): GGUF for o in OPERATORS},
    **{("exponents_as_numbers", d): "no E8M0 scales" for d in ("gptq", "awq", "fbgemm-fp8", "bitsandbytes")},
    ("numbers_as_exponents", "gpt-oss"): "E8M0 scales alone", ("numbers_as_exponents", "mlx"): "E8M0 and E4M3 scales alone in its recipes",
    ("wrong_block", "fbgemm-fp8"): SCALAR, ("wrong_block", "bitsandbytes"): ONE_AXIS, ("scale_transposed", "bitsandbytes"): ONE_AXIS,
    ("config_contradicts", "gpt-oss"): "its config names no block", ("config_contradicts", "fbgemm-fp8"): "its config names no block",
    ("config_contradicts", "comfyui"): "its files name no block"}


def verdict(path, dialect):
    """"refused", "warned", or "SILENT" of what verify says of a file, and convert into another dialect and into plain numbers; all have to
    speak. (A file converted into its own dialect is copied.)"""
    said = []
    with files.Checkpoint(path) as c:
        found = [f.severity for f in c.verify() if f.severity != "note"]
    said.append("refused" if {"error", "ambiguity"} & set(found) else "warned" if found else "SILENT")
    for target, format in (("breccia" if dialect != "breccia" else "compressed-tensors", None), ("dense", "f32")):
        out, warnings = path.parent / f"to-{target}", []
        try:
            with files.Checkpoint(path) as c:
                warnings += [f for f in c.findings if f.severity == "warning"]
            files.conversion(path, out, target, format=format, warnings=warnings)
            said.append("warned" if warnings else "SILENT")
        except brc.Error as refused:
            assert refused.name in ("MALFORMED", "SHAPE", "FORMAT", "AMBIGUOUS", "UNSUPPORTED", "NONFINITE", "NOT_FOUND"), refused
            assert not out.exists()
            said.append("refused")
    return said


def rows():
    return [pytest.param(o, d, id=f"{o.__name__}-{d}") for o in OPERATORS for d in files.dialects("reads") if d != "plain"]


@pytest.mark.parametrize("operator, dialect", rows())
def test_no_misreading_is_silent(tmp_path, operator, dialect):
    reason = OUT_OF_REACH.get((operator.__name__, dialect))
    if reason is not None:
        print(f"{operator.__name__:24} {dialect:20} -  {reason}")
        return
    cases = 0
    for i, (_, recipe) in enumerate(s for s in SOURCES if s[0] == dialect):
        path = write_source(tmp_path / str(i), dialect, recipe, smaller=4)       # as small as weights are
        case = Case(path, dialect, recipe)
        if not operator(case):
            continue
        cases += 1
        files.write(path / "model.safetensors", case.arrays, case.metadata or None)
        (path / "config.json").write_text(json.dumps(case.config))
        said = verdict(path, dialect)
        print(f"{operator.__name__:24} {dialect:20} {recipe:36} verify {said[0]}, convert {said[1]}, {said[2]}")
        assert "SILENT" not in said, (operator.__name__, dialect, recipe, said)
        shutil.rmtree(path)
    assert cases > 0, f"{operator.__name__}: no case for {dialect}; write one, or say in OUT_OF_REACH why there is none"
