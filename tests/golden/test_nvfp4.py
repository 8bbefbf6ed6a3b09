# SPDX-License-Identifier: Apache-2.0
"""NVFP4 is torchao's bytes, with one and with two levels; compressed-tensors' with arith=div."""
import ml_dtypes
import numpy as np
import pytest
from golden_files import load, same


@pytest.mark.parametrize("tag, recipe", [("single", "nvfp4:levels=1"), ("two", "nvfp4")])
def test_against_torchao(brc, golden, tag, recipe):
    file = load(golden / "nvfp4_torchao.safetensors")
    t = brc.cast(file["x"], recipe)
    same(t.scale.reshape(t.scale.shape[-2:]), file[tag + ".scale"], "scale")
    same(t.data, file[tag + ".data"], "data")
    if tag == "two":
        same(t.globals.reshape(()), file["two.per_tensor_scale"], "global scale")
    else:
        assert t.globals is None
    same(brc.dequantize(t), file[tag + ".deq"], "dequantized")


def test_against_compressed_tensors(brc, golden):
    file = load(golden / "compressed_tensors.safetensors")
    t = brc.cast(file["w"], "nvfp4:arith=div")
    same(t.globals.reshape(1), file["nvfp4.weight_global_scale"], "global scale")
    want = file["nvfp4.weight_scale"]
    got = t.scale.reshape(want.shape)
    # Where the scale would round to 0 theirs stores 0.125 (0x20) and breccia 2^-6 (0x08). All others are equal.
    amax = np.abs(file["w"]).reshape(*want.shape, 16).max(-1)
    usual = amax / 6 * file["nvfp4.weight_global_scale"] > 2.0**-10
    same(got[usual], want[usual], "scale")
    assert (~usual).any() and (want[~usual] == 0x20).all() and (got[~usual] == 0x08).all()
    x = np.repeat(usual, 8, 1)
    same(t.data[x], file["nvfp4.weight_packed"][x], "data")
    theirs = brc.tensor("e2m1", file["w"].shape, file["nvfp4.weight_packed"], scale=(want, "e4m3", (1, 1, 16)),
                        globals=(file["nvfp4.weight_global_scale"], "f32", (0, 0, 0), "divisor"), layout="per_block_mn")
    same(brc.dequantize(theirs, ml_dtypes.bfloat16), file["nvfp4.decompressed_bf16"].view(ml_dtypes.bfloat16), "dequantized")
