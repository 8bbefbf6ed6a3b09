# SPDX-License-Identifier: Apache-2.0
"""NVFP4 is torchao's bytes, with one and with two levels."""
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
