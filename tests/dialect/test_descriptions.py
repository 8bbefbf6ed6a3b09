# SPDX-License-Identifier: Apache-2.0
"""What a model's files say of its quantization: config.json, and the files beside it, where they contradict each other or the arrays."""
import json
import re
from pathlib import Path

import numpy as np
import pytest
from convert.matrix import SOURCES, write_source

import breccia_c as brc
import checkpoint_files as files

METHODS = dict(re.findall(r'^METHOD\("(\S+)",\s*(\w+)\)', (Path(__file__).parents[2] / "src/dialect/recognise.def").read_text(), re.M))
SHARED = ({"compressed-tensors", "modelopt", "fbgemm-fp8"}, {"gptq", "awq"})       # the same names: the config decides, where the shapes let it


BESIDE = {"hf_quant_config.json": "modelopt", "quantize_config.json": "gptq", "quant_config.json": "awq"}


def own_methods(dialect):
    return [m for m, d in METHODS.items() if brc.lib.brc_dialect_find(dialect.encode()) == getattr(brc.lib, f"BRC_DIALECT_{d}")]


def say(folder, file, what):
    (folder / file).write_text(json.dumps({"quantization_config": what} if file == "config.json" else what))


def warnings(path, dialect=None):
    with files.Checkpoint(path, dialect) as c:
        c.usable()
        return [f.text for f in c.findings if f.severity == "warning"]


def values(path, dialect=None):
    """Of its one scaled tensor."""
    with files.Checkpoint(path, dialect) as c:
        c.usable()
        name, = [n for n in c.names() if c[n].scaled]
        return c[name].values()


FIRST = {dialect: recipe for dialect, recipe in reversed(SOURCES)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A file of each dialect, of its first recipe; config.json is each test's own."""
    def make(dialect):
        if dialect not in paths:
            paths[dialect] = write_source(tmp_path_factory.mktemp("made") / "in", dialect, FIRST[dialect])
        return paths[dialect]
    paths = {}
    return make


@pytest.mark.parametrize("dialect, method", [(d, m) for d in FIRST for m in (*METHODS, "quark") if m not in own_methods(d)])
def test_a_config_of_another_system_is_never_passed_over(made, dialect, method):
    """Both readings are named, and the --from that decides. breccia's tensors are described in the file itself, and it is said; a GGUF file has
    no config. Where names are shared, the values are the same or the shapes do not fit."""
    path = made(dialect)
    folder = path if path.is_dir() else path.parent
    (folder / "config.json").write_text("{}")
    for file in BESIDE:
        (folder / file).unlink(missing_ok=True)
    try:
        want = values(path, dialect)
    except brc.Error:
        want = None                                              # its own config has to say more
    say(folder, "config.json", {"quant_method": method})
    if dialect == "gguf":
        np.testing.assert_array_equal(values(path), want)
        return
    if any(dialect in names and f'"{method}"' in map(json.dumps, sum(map(own_methods, names), [])) for names in SHARED):
        try:
            np.testing.assert_array_equal(values(path), want)
        except brc.Error as refused:
            assert refused.name in ("SHAPE", "AMBIGUOUS"), refused
        return
    with files.Checkpoint(path) as c:
        told = [f.text for f in c.findings if f'config.json\'s quant_method is "{method}"' in f.text]
        if dialect == "breccia":
            assert [f.severity for f in c.findings if f.severity != "note"] == ["warning"] and "breccia's" in told[0]
        else:
            with pytest.raises(brc.Error) as stopped:
                c.usable()
            if (dialect, method) == ("bitsandbytes", "modelopt"):
                assert "weight_scale is missing" in str(stopped.value)               # whose U8 codes these would be
                return
            assert stopped.value.name == "AMBIGUOUS" and any("--from" in t and dialect in t for t in told), c.findings
    if want is not None:
        np.testing.assert_array_equal(values(path, dialect), want)


# ----------------------------------------------------------------------------------------- two descriptions of one system

DIFFERENT = {                     # the dialect's recipe, what the file beside says where config.json says otherwise, and what is told of it
    "quant_algo": ("modelopt", "fp8:arith=div", lambda c: c["quantization"].update(quant_algo="NVFP4"), 'quant_algo "NVFP4", but config.json says "FP8"'),
    "quant_algo that its arrays fit": ("modelopt", "nvfp4:arith=modelopt", lambda c: c["quantization"].update(quant_algo="NVFP4_AWQ"),
                                       'quant_algo "NVFP4_AWQ", but config.json says "W4A16_NVFP4"'),
    "group_size": ("modelopt", "int4:arith=modelopt,scale=f32", lambda c: c["quantization"].update(group_size=64), "group_size 64, but config.json says 128"),
    "quantized_layers": ("modelopt", "mixed", lambda c: c["quantization"]["quantized_layers"].popitem(), "quantized_layers {"),
    "bits": ("gptq", "int4", lambda c: c.update(bits=8), "bits 8, but config.json says 4"),
    "checkpoint_format": ("gptq", "int4", lambda c: c.update(checkpoint_format="gptq_v2"), 'checkpoint_format "gptq_v2", but config.json says "gptq"'),
    "w_bit": ("awq", "int4", lambda c: (c.pop("bits", 0), c.update(w_bit=8)), "bits 8, but config.json says 4"),
    "q_group_size": ("awq", "int4", lambda c: (c.pop("group_size", 0), c.update(q_group_size=32)), "group_size 32, but config.json says 128"),
    "version": ("awq", "int4", lambda c: c.update(version="gemv"), 'version "gemv", but config.json says "gemm"'),
}


def two_descriptions(folder, dialect, recipe):
    """(path, name of the file beside, what it says): both say the same."""
    folder.mkdir(exist_ok=True)
    if recipe == "mixed":
        path = folder / "model"
        x = {f"l.{i}.weight": np.random.default_rng(i).standard_normal((128, 256)).astype(np.float32) for i in range(2)}
        path.mkdir()
        files.save(path, dialect, {name: brc.cast(a, r) for (name, a), r in zip(x.items(), ("fp8:arith=div", "nvfp4:arith=modelopt"))})
    else:
        path = write_source(folder / "in", dialect, recipe)
    file, = [f for f, method in BESIDE.items() if method == dialect]
    if not (path / file).exists():                               # as those who write it do
        (path / file).write_text(json.dumps(json.loads((path / "config.json").read_text())["quantization_config"]))
    return path, file, json.loads((path / file).read_text())


@pytest.mark.parametrize("case", DIFFERENT)
def test_two_descriptions_that_differ_are_both_told(tmp_path, case):
    dialect, recipe, change, told = DIFFERENT[case]
    path, file, said = two_descriptions(tmp_path, dialect, recipe)
    assert warnings(path) == []
    change(said)
    say(path, file, said)
    found = warnings(path)
    assert len(found) == 1 and found[0].startswith(f"{file} says {told}") and found[0].endswith("config.json is believed"), found
    heard = []
    files.conversion(path, tmp_path / "out", "breccia", warnings=heard)          # nor does convert pass it over
    assert any(told in text for _, _, text in heard) or found[0] in warnings(path)


def test_words_of_either_case_are_the_same(tmp_path):
    path, file, said = two_descriptions(tmp_path, "awq", "int4")
    say(path, file, {**said, "version": said["version"].upper()})
    assert warnings(path) == []


def test_what_config_json_is_silent_of_the_file_beside_may_say(tmp_path):
    """GPTQ's version, which is in no array; and quant_algo, which must agree with the arrays then as well."""
    path, file, said = two_descriptions(tmp_path / "a", "gptq", "int4")
    config = json.loads((path / "config.json").read_text())["quantization_config"]
    one = values(path)
    del config["checkpoint_format"]
    say(path, "config.json", config)
    say(path, file, {**said, "checkpoint_format": "gptq_v2"})
    with files.Checkpoint(path) as c:
        c.usable()
        assert [f.text for f in c.findings if f.tensor == ""] == ['quantize_config.json says checkpoint_format "gptq_v2", where config.json is silent']
    (path / "config.json").write_text("{}")
    two = values(path)
    assert not np.array_equal(one, two)
    say(path, "config.json", config)
    np.testing.assert_array_equal(values(path), two)

    path, file, said = two_descriptions(tmp_path / "b", "modelopt", "fp8:arith=div")
    say(path, "config.json", {"quant_method": "modelopt"})
    values(path)
    said["quantization"]["quant_algo"] = "NVFP4"
    say(path, file, said)
    with files.Checkpoint(path) as c, pytest.raises(brc.Error, match="the configuration says quant_algo NVFP4, but") as stopped:
        c.usable()
    assert stopped.value.name == "AMBIGUOUS"


@pytest.mark.parametrize("file, method", BESIDE.items())
def test_the_description_of_another_system_is_told(made, file, method):
    """Beside config.json, and beside another such file: the first of them counts."""
    path = made("deepseek")
    for other in BESIDE:
        (path / other).unlink(missing_ok=True)
    say(path, "config.json", {"quant_method": "fp8", "weight_block_size": [128, 128]})
    want = values(path)
    say(path, file, {"bits": 4})
    assert warnings(path) == [f"{file} is of {method}, but config.json says fp8; config.json is believed"]
    np.testing.assert_array_equal(values(path), want)
    (path / file).write_text("{")
    assert f"{file} cannot be read; it is not used" in warnings(path)
    (path / file).unlink()


def test_of_two_files_beside_each_other_the_first_counts(tmp_path):
    path, file, said = two_descriptions(tmp_path, "gptq", "int4")
    want = values(path)
    (path / "config.json").write_text("{}")
    say(path, "quant_config.json", {"w_bit": 4})
    assert warnings(path) == [f"quant_config.json is of awq, but {file} says gptq; {file} is believed"]
    np.testing.assert_array_equal(values(path), want)


# ----------------------------------------------------------------------------------------------- what no dialect stores

@pytest.mark.parametrize("arrays, dialects", [
    ({"m.weight": np.ones((160, 64), np.int8), "m.scale_weight": np.ones(1, np.float32)}, ["comfyui"]),
    ({"m.weight": np.ones((160, 64), np.int8), "m.weight_scale": np.ones(1, np.float64)}, ["compressed-tensors", "modelopt", "fbgemm-fp8", "comfyui"]),
    ({"m.weight": np.ones((160, 64), np.int8), "m.scales": np.ones((160, 2), np.float32)}, ["mlx"]),
    ({"m.qweight": np.ones((16, 64), np.int32), "m.scales": np.ones(3, np.float32)}, ["gptq", "awq"])])
def test_names_whose_arrays_no_dialect_stores(tmp_path, arrays, dialects):
    """What decides is --from plain; a dialect that is asked for says that it has no such array."""
    path = files.write(tmp_path / "m.safetensors", arrays)
    with files.Checkpoint(path) as c, pytest.raises(brc.Error) as stopped:
        c.usable()
    assert stopped.value.name == "AMBIGUOUS" and "--from" in str(stopped.value) and all(d in str(stopped.value) for d in dialects), stopped.value
    for dialect in dialects:
        with files.Checkpoint(path, dialect) as c, pytest.raises(brc.Error) as stopped:
            c.usable()
        assert f"not {dialect}" not in str(stopped.value), stopped.value
    with files.Checkpoint(path, "plain") as c:
        c.usable()
        assert sorted(c.names()) == sorted(arrays)
