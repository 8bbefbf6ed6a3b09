# SPDX-License-Identifier: Apache-2.0
"""bitsandbytes' NF4 and int8: what the library dequantizes (on the CPU), every misreading refused."""
import json

import ml_dtypes
import numpy as np
import pytest
import torch
import torch._dynamo
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

with torch._dynamo.config.patch(disable=True):       # it would compile its loops anew for every shape
    import bitsandbytes as bnb
    import bitsandbytes.functional as bnbf
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute

import breccia_c as brc
import checkpoint_files as files
import golden_files

NAME = "layers.0.up.weight"
STATE = f"{NAME}.quant_state.bitsandbytes__nf4"


def weight(*shape, seed=3):
    r = np.random.default_rng(seed)
    return torch.from_numpy((r.standard_normal(shape) * np.exp2(r.integers(-6, 6, (*shape[:-1], 1)))).astype(np.float32))


def four_bits(x, block=64, nested=False, kind="nf4", storage=torch.uint8):
    """{name: tensor} as Params4bit saves it, and what the library makes of it."""
    codes, state = bnbf.quantize_4bit(x, blocksize=block, quant_type=kind, compress_statistics=nested, quant_storage=storage)
    arrays = {NAME: codes, **{f"{NAME}.{k}": v for k, v in state.as_dict(packed=True).items()}}
    absmax = state.absmax
    if nested:
        absmax = bnbf.dequantize_blockwise(absmax, state.state2) + state.offset
    # The generic implementation: the fast one for CPUs takes the wrong scales where a row ends within a block (0.50.2).
    return arrays, _dequantize_4bit_compute(codes.view(torch.uint8).reshape(-1), absmax, state.code, block, x.shape, torch.float32).numpy()


def save(path, arrays):
    save_file({n: a.contiguous() for n, a in arrays.items()}, path)
    return path


SHAPES = [(16, 192), (4, 64), (7, 100), (3, 33), (5, 7), (8, 32), (4, 8, 96), (130,), (2, 1), (1, 1), (64, 640)]


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
@pytest.mark.parametrize("block", [64, 128, 4096])
@pytest.mark.parametrize("shape", SHAPES)
def test_nf4_has_the_values_that_bitsandbytes_gives(tmp_path, shape, block, nested):
    arrays, want = four_bits(weight(*shape), block, nested)
    with files.Checkpoint(save(tmp_path / "m.safetensors", {**arrays, "norm.weight": torch.ones(4)})) as c:
        c.usable()
        assert not c.findings and c.names() == [NAME, "norm.weight"] and c[NAME].dialect == "bitsandbytes"
        golden_files.same(c[NAME].values(), want)
        t = c[NAME].tensor()
        run = int(np.gcd(shape[-1], block))
        assert t.c.scale.block.cols == run and f"blocks of {block} of the flattened tensor" in c[NAME].evidence
        assert ("scales repeated" in c[NAME].evidence) == (run != block) and ("scales nested" in c[NAME].evidence) == nested


@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float16, torch.float32])
def test_codes_in_another_storage_type(tmp_path, storage):
    arrays, want = four_bits(weight(16, 192), storage=storage)
    with files.Checkpoint(save(tmp_path / "m.safetensors", arrays)) as c:
        c.usable()
        golden_files.same(c[NAME].values(), want)


def test_a_layer_of_bitsandbytes(tmp_path):
    layer = bnb.nn.Linear4bit(192, 16, bias=True, quant_type="nf4", compute_dtype=torch.float32)
    layer.weight = bnb.nn.Params4bit(weight(16, 192), quant_type="nf4", requires_grad=False)
    layer = layer.to("cpu")
    with files.Checkpoint(save(tmp_path / "m.safetensors", {f"layers.0.up.{n}": a for n, a in layer.state_dict().items()})) as c:
        c.usable()
        assert c.names() == ["layers.0.up.bias", NAME]
        golden_files.same(c[NAME].values(), bnbf.dequantize_4bit(layer.weight.data, layer.weight.quant_state).numpy())


def test_int8_rows(tmp_path):
    """value = code * (SCB / 127), each operation rounded; bitsandbytes multiplies by SCB first and by 1/127 then."""
    layer = bnb.nn.Linear8bitLt(192, 16, bias=False, has_fp16_weights=False)
    layer.weight = bnb.nn.Int8Params(weight(16, 192).half(), requires_grad=False, has_fp16_weights=False)
    state = {f"layers.0.up.{n}": a for n, a in layer.to("cpu").state_dict().items()}
    codes, scb = state[NAME], state["layers.0.up.SCB"]
    assert codes.dtype == torch.int8
    with files.Checkpoint(save(tmp_path / "m.safetensors", state)) as c:
        c.usable()
        assert (c[NAME].recipe, set(c[NAME].parts)) == ("int8", {"data", "scale", "description"})
        got = c[NAME].values()
        golden_files.same(got, codes.numpy().astype(np.float32) * (scb.numpy() / np.float32(127))[:, None])
        np.testing.assert_array_max_ulp(got, bnbf.int8_vectorwise_dequant(codes, scb).numpy(), 3)


@pytest.mark.parametrize("nested", [False, True])
def test_dequantized(tmp_path, nested):
    arrays, want = four_bits(weight(7, 100), nested=nested)
    files.dequantize(save(tmp_path / "m.safetensors", arrays), tmp_path / "d.safetensors", "f32")
    found, _ = files.read(tmp_path / "d.safetensors")
    assert set(found) == {NAME}
    golden_files.same(found[NAME][1], want)


@pytest.mark.parametrize("shape, cls", [((16, 192), "bit-exact"), ((7, 100), "bit-exact")])
def test_kept_by_breccia(tmp_path, shape, cls):
    arrays, want = four_bits(weight(*shape), nested=True)
    path = save(tmp_path / "m.safetensors", arrays)
    assert files.convert(path, tmp_path / "b.safetensors", "breccia")[NAME][0] == cls
    with files.Checkpoint(tmp_path / "b.safetensors") as c:
        golden_files.same(c[NAME].values(), want)


def test_not_written(tmp_path):
    source = files.write(tmp_path / "s.safetensors", {NAME: np.ones((4, 64), np.float32)})
    with pytest.raises(brc.Error, match="not written"):
        files.quantize(source, tmp_path / "t", "mxfp4", dialect="bitsandbytes", include=["*"])


# -------------------------------------------------------------------------------------------------- misreadings

def plain(arrays):
    """{name: (dtype word, array)}"""
    return {n: (files.WORD[a.numpy().dtype], a.numpy()) for n, a in arrays.items()}


P, Q = plain(four_bits(weight(16, 192))[0]), plain(four_bits(weight(16, 192), nested=True)[0])
F = plain(four_bits(weight(16, 192), kind="fp4")[0])
INT8 = {NAME: ("I8", np.ones((16, 192), np.int8)), "layers.0.up.SCB": ("F32", np.ones(16, np.float32)), "layers.0.up.weight_format": ("U8", np.zeros((), np.uint8))}


def changed(base, name, change, word=None):
    arrays = dict(base)
    arrays[name] = (word or base[name][0], np.ascontiguousarray(change(base[name][1])))
    return arrays


def without(base, *names):
    return {n: a for n, a in base.items() if n not in names}


def state(base, **change):
    text = json.loads(base[STATE][1].tobytes())
    text = {k: v for k, v in {**text, **change}.items() if v is not ...}
    return {**base, STATE: ("U8", np.frombuffer(json.dumps(text).encode(), np.uint8))}


def text(value):
    return {**P, STATE: ("U8", np.frombuffer(value.encode(), np.uint8))}


MISREADINGS = {                # arrays -> status, words
    "fp4 taken as E2M1": (F, "UNSUPPORTED", "not E2M1"),
    "fp4 said to be nf4": ({n.replace("__fp4", "__nf4"): a for n, a in F.items()}, "MALFORMED", 'quant_type "fp4"'),
    "another table": (changed(P, f"{NAME}.quant_map", lambda a: np.round(a, 4)), "UNSUPPORTED", r"quant_map\[1\] is -0.6962"),
    "a table of 15": (changed(P, f"{NAME}.quant_map", lambda a: a[:15]), "SHAPE", "needs 16"),
    "the table missing": (without(P, f"{NAME}.quant_map"), "MALFORMED", "quant_map is missing"),
    "absmax missing": (without(P, f"{NAME}.absmax"), "MALFORMED", "absmax is missing"),
    "absmax of another tensor": (changed(P, f"{NAME}.absmax", lambda a: a[:47]), "SHAPE", "needs 48"),
    "nested absmax read as numbers": (state(Q, nested_blocksize=...), "FORMAT", "has F32 there"),
    "numbers read as nested absmax": (state(P, nested_blocksize=256, nested_offset=0.5), "FORMAT", "has U8 there"),
    "absmax as bf16": (changed(P, f"{NAME}.absmax", lambda a: a.astype(ml_dtypes.bfloat16), "BF16"), "FORMAT", "has F32 there"),
    "nested scales missing": (without(Q, f"{NAME}.nested_absmax"), "MALFORMED", "nested_absmax is missing"),
    "nested table missing": (without(Q, f"{NAME}.nested_quant_map"), "MALFORMED", "nested_quant_map is missing"),
    "nested scales too many": (changed(Q, f"{NAME}.nested_absmax", lambda a: np.repeat(a, 2)), "SHAPE", "needs 1"),
    "nested scales without a word": (without(state({**Q, f"{NAME}.absmax": P[f"{NAME}.absmax"]}, nested_blocksize=...)), "MALFORMED", "no nested_blocksize"),
    "no offset": (state(Q, nested_offset=...), "MALFORMED", "nested_offset"),
    "an offset of words": (state(Q, nested_offset="2"), "MALFORMED", "nested_offset"),
    "another block": (state(P, blocksize=128), "SHAPE", "needs 24"),
    "no block": (state(P, blocksize=...), "MALFORMED", "no blocksize"),
    "block of 0": (state(P, blocksize=0), "MALFORMED", "no blocksize"),
    "a huge block": (state(P, blocksize=2**40), "MALFORMED", "no blocksize"),
    "another shape": (state(P, shape=[16, 96]), "SHAPE", "3072|1536|768"),
    "no shape": (state(P, shape=[]), "MALFORMED", "1 to 8 dimensions"),
    "a shape of words": (state(P, shape=["a", 4]), "MALFORMED", "positive numbers"),
    "a negative shape": (state(P, shape=[-16, -192]), "MALFORMED", "positive numbers"),
    "a shape beyond 63 bits": (state(P, shape=[2**40, 2**40]), "MALFORMED", "positive numbers"),
    "codes missing": (without(P, NAME), "MALFORMED", "codes are missing"),
    "codes of another tensor": (changed(P, NAME, lambda a: a[:1000]), "SHAPE", "has 1536"),
    "description missing": (without(P, STATE), "MALFORMED", "bitsandbytes__nf4 is not"),
    "description of words": (changed(P, STATE, lambda a: a.astype(np.int32), "I32"), "MALFORMED", "no JSON object in U8"),
    "no JSON": (text('{"quant_type": "nf4", '), "MALFORMED", "no JSON object"),
    "a list": (text("[1]"), "MALFORMED", "no JSON object"),
    "duplicate keys": (text('{"quant_type": "nf4", "quant_type": "fp4"}'), "MALFORMED", "no JSON object"),
    "nothing": (text(""), "MALFORMED", "no JSON object"),
    "deep nesting": (text("[" * 20000), "MALFORMED", "no JSON object"),
    "over 64 KiB": (text(json.dumps({"quant_type": "nf4", "x": "y" * 70000})), "MALFORMED", "over 64 KiB"),
    "another kind": (state(P, quant_type="int8"), "MALFORMED", 'quant_type "int8"'),
    "SCB of other rows": (changed(INT8, "layers.0.up.SCB", lambda a: a[:15]), "SHAPE", "no number for each row"),
    "SCB of columns": (changed(INT8, "layers.0.up.SCB", lambda a: np.ones(192, np.float32)), "SHAPE", "no number for each row"),
    "SCB without codes": (without(INT8, NAME), "MALFORMED", "without its weight"),
    "SCB beside floats": (changed(INT8, NAME, lambda a: a.astype(np.float32), "F32"), "FORMAT", "I8 and F32"),
    "an order of a GPU": (changed(INT8, "layers.0.up.weight_format", lambda a: a + 1), "UNSUPPORTED", "order of some GPU"),
}


@pytest.mark.parametrize("case", MISREADINGS)
def test_misreadings_are_refused(tmp_path, case):
    arrays, status, words = MISREADINGS[case]
    with files.Checkpoint(files.write(tmp_path / "m.safetensors", arrays)) as c, pytest.raises(brc.Error, match=words) as refused:
        c.usable()
    assert refused.value.name == status


def test_asked_for_as_another_dialect(tmp_path):
    with files.Checkpoint(files.write(tmp_path / "m.safetensors", P), "deepseek") as c, pytest.raises(brc.Error, match="this is bitsandbytes"):
        c.usable()


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["shape", "blocksize", "nested_blocksize", "nested_offset", "quant_type"]),
       st.none() | st.booleans() | st.integers(-2**63, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4)
       | st.lists(st.integers(-2**40, 2**40), max_size=9))
def test_any_description_is_read_or_refused(tmp_path_factory, key, value):
    with files.Checkpoint(files.write(tmp_path_factory.getbasetemp() / "any.safetensors", state(Q, **{key: value}))) as c:
        try:
            c.usable()
        except brc.Error as refused:
            assert refused.name in ("SHAPE", "MALFORMED", "FORMAT", "UNSUPPORTED") and "\n" not in refused.text
            return
        assert c[NAME].values().size == 16 * 192
