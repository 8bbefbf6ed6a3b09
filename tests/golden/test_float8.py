# SPDX-License-Identifier: Apache-2.0
"""FP8 with F32 scales: torchao's Float8Tensor, DeepSeek's blocks, compressed-tensors'."""
import numpy as np
import pytest
from golden_files import load, one_nan, same

GRANULARITY = {"tensor": "fp8:arith=div", "row": "fp8-row", "group128": "fp8-block", "block128": "fp8-block128",
               "group32": "fp8-block:group=32"}


@pytest.mark.parametrize("tag, element", [*((tag, "e4m3") for tag in GRANULARITY), ("tensor", "e5m2"), ("row", "e5m2")])
def test_against_torchao(brc, golden, tag, element):
    file = load(golden / "float8_torchao.safetensors")
    key = f"{element}.{tag}"
    x = file["x"]
    name = GRANULARITY[tag]
    t = brc.cast(x, f"{name}{',' if ':' in name else ':'}format={element}")
    want = file[key + ".scale"]
    got = t.scale.reshape(want.shape)
    zero = want == 0        # named exception: a block of zeros has scale 0 and NaN codes in torchao, scale 1 and zeros here
    assert (got[zero] == 1).all()
    same(got[~zero], want[~zero], "scale")
    rows, cols = x.shape[0] // want.shape[0], x.shape[1] // want.shape[1]
    ordinary = ~np.repeat(np.repeat(zero, rows, 0), cols, 1)
    same(one_nan(t.data, element)[ordinary], one_nan(file[key + ".data"], element)[ordinary], "data")
    assert (t.data.view(np.uint8)[~ordinary] == 0).all()
    if key + ".deq" in file:
        same(brc.dequantize(t)[ordinary], file[key + ".deq"][ordinary], "dequantized")
        theirs = brc.tensor(element, x.shape, file[key + ".data"], scale=(want, "f32", (1, rows, cols if cols < x.shape[1] else 0)),
                            layout="per_channel" if cols == x.shape[1] else "per_block_mn")
        same(brc.dequantize(theirs), file[key + ".deq"], "their bytes")


def test_per_column_scales_decode(brc, golden):
    """A scale for each column (torchao PerRow(0), Llama-4 experts) is a block of {1, all rows, 1}: composed, not a row."""
    file = load(golden / "float8_torchao.safetensors")
    x = file["x"]
    t = brc.cast(np.ascontiguousarray(x.T), "fp8-row")
    zero = file["e4m3.col.scale"].reshape(-1) == 0
    same(t.scale.reshape(-1)[~zero], file["e4m3.col.scale"].reshape(-1)[~zero], "scale")
    same(t.data.T[:, ~zero], file["e4m3.col.data"][:, ~zero], "data")


@pytest.mark.parametrize("kind", ["fp32", "ue8m0"])
def test_deepseek(brc, golden, kind):
    file = load(golden / "deepseek_block.safetensors")
    weight, scale = file[kind + ".weight"], file[kind + ".weight_scale_inv"]
    t = brc.tensor("e4m3", weight.shape, weight, scale=(scale, "f32", (1, 128, 128)), layout="per_block_mn")
    same(brc.dequantize(t), file[kind + ".deq"], "dequantized")


@pytest.mark.parametrize("tag, recipe", [("fp8_tensor", "fp8:arith=div"), ("fp8_channel", "fp8-row")])
def test_compressed_tensors(brc, golden, tag, recipe):
    file = load(golden / "compressed_tensors.safetensors")
    t = brc.cast(file["w"], recipe)
    want = file[tag + ".weight_scale"]
    got = t.scale.reshape(want.shape)
    zero = np.abs(file["w"]).max(1, keepdims=True) == 0 if tag == "fp8_channel" else np.zeros(1, bool)
    same(got[~zero], want[~zero], "scale")          # zero rows: theirs 2^-23, breccia 1; the codes are zeros in both
    same(t.data, file[tag + ".weight"], "data")
    same(brc.dequantize(t), file[tag + ".decompressed"], "dequantized")
