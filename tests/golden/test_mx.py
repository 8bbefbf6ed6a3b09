# SPDX-License-Identifier: Apache-2.0
"""MX recipes are torchao's bytes, in all four scale rules and five element formats."""
import ml_dtypes
import numpy as np
import pytest
from golden_files import load, one_nan, same, unpack6

NAMES = {"e4m3": "mxfp8", "e5m2": "mxfp8:format=e5m2", "e2m3": "mxfp6-e2m3", "e3m2": "mxfp6-e3m2", "e2m1": "mxfp4"}
RULES = ("floor", "ceil", "even", "rceil")


def recipe(element, rule):
    name = NAMES[element]
    return f"{name}{',' if ':' in name else ':'}rule={rule}"


def codes(t, element, n):
    return unpack6(t.data, n) if element in ("e2m3", "e3m2") else t.data.view(np.uint8)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("element", NAMES)
def test_against_torchao(brc, golden, element, rule):
    file = load(golden / "mx_torchao.safetensors")
    x, key = file["x"], f"{element}.{rule}"
    t = brc.cast(x, recipe(element, rule))
    same(t.scale.reshape(x.shape[0], -1), file[key + ".scale"], "scale")
    want = file[key + ".data"]
    got = codes(t, element, x.shape[1])
    # rule=rceil: torchao flushes blocks of scale 0 (factor 1 in place of 2^127), a named exception; breccia keeps them.
    flushed = np.repeat(file[key + ".scale"] == 0, 32, 1) & (rule == "rceil")
    if element == "e2m1":
        got, want = np.stack([got & 15, got >> 4], -1).reshape(x.shape), np.stack([want & 15, want >> 4], -1).reshape(x.shape)
    same(one_nan(got, element)[~flushed], one_nan(want, element)[~flushed], "data")
    if flushed.any():
        exact = np.abs(brc.dequantize(t)[flushed] - x[flushed])
        assert (exact <= np.abs(x[flushed])).all()
    deq = brc.dequantize(t)
    same(deq[~flushed], file[key + ".deq"][~flushed], "dequantized")


@pytest.mark.parametrize("element", NAMES)
def test_bf16_input(brc, golden, element):
    file = load(golden / "mx_torchao.safetensors")
    x = file["x"].astype(ml_dtypes.bfloat16)
    t = brc.cast(x, recipe(element, "floor"))
    same(t.scale.reshape(x.shape[0], -1), file[element + ".bf16in.scale"], "scale")
    same(one_nan(codes(t, element, x.shape[1]), element), one_nan(file[element + ".bf16in.data"], element), "data")
    same(brc.dequantize(t, ml_dtypes.bfloat16), file[element + ".bf16in.deq_bf16"].view(ml_dtypes.bfloat16), "dequantized")


@pytest.mark.parametrize("rule", RULES)
def test_special_rows(brc, golden, rule):
    """NaN, infinity, tiny and huge rows. Named exceptions: torchao's NaN poisons its block and its infinity makes the scale NaN
    or flushes; breccia keeps the block and saturates. Decoding torchao's bytes is exact all the same."""
    file = load(golden / "mx_torchao.safetensors")
    x, key = file["special.x"], f"special.e4m3.{rule}"
    t = brc.cast(x, recipe("e4m3", rule))
    scale, data = t.scale.reshape(4), t.data.view(np.uint8)
    ones = np.ones((1, 32), np.float32)
    like_ones = brc.cast(ones, recipe("e4m3", rule))
    assert scale[0] == like_ones.scale.reshape(1)[0] and data[0, 3] == 0x7F
    same(np.delete(data[0], 3), np.delete(like_ones.data.view(np.uint8)[0], 3))
    assert scale[1] == 254 and data[1, 3] == 0x7E
    same(scale[2:], file[key + ".scale"][2:].reshape(2), "scale of tiny and huge rows")
    same(data[3], file[key + ".data"][3], "huge row")
    if rule != "rceil":
        same(data[2], file[key + ".data"][2], "tiny row")
    theirs = brc.tensor("e4m3", (4, 32), file[key + ".data"], scale=(file[key + ".scale"], "e8m0", (1, 1, 32)), layout="per_block_mn")
    same(brc.dequantize(theirs), file[key + ".deq"], "their bytes")
