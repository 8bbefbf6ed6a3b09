# SPDX-License-Identifier: Apache-2.0
"""Recipes with arith=modelopt, and those that agree with it anyway, are NVIDIA ModelOpt's bytes: the library itself, on the CPU."""
import importlib

import numpy as np
import pytest
from golden.test_compressed_tensors import numbers
from golden_files import same


def modelopt(module):
    return importlib.import_module("modelopt.torch." + module)


def test_nvfp4(brc):
    import torch
    x = numbers()
    x[[8, 10]] = x[[12, 13]]           # the global scale is one for all
    quantized, scale, whole = modelopt("quantization.qtensor").NVFP4QTensor.quantize(torch.from_numpy(x.copy()), 16)
    t = brc.cast(x, "nvfp4:arith=modelopt")
    same(t.globals.reshape(()), whole.numpy(), "global scale")
    same(t.scale.reshape(scale.shape), scale.view(torch.uint8).numpy(), "scale")
    same(t.data, quantized._quantized_data.numpy(), "data")
    theirs = quantized.dequantize(torch.float32, scale=scale, double_scale=whole, block_sizes={-1: 16}).numpy()
    np.testing.assert_array_equal(brc.dequantize(t), theirs)       # by value: theirs decodes the code of -0 as +0


@pytest.mark.parametrize("kind, recipe", [("MXFP4QTensor", "mxfp4:arith=modelopt"), ("MXFP8QTensor", "mxfp8")])
def test_mx(brc, kind, recipe):
    import torch
    x = numbers()
    arguments = (32,) if kind == "MXFP4QTensor" else ()
    quantized, scale = getattr(modelopt("quantization.qtensor"), kind).quantize(torch.from_numpy(x.copy()), *arguments)
    t = brc.cast(x, recipe)
    same(t.scale.reshape(scale.shape), scale.numpy(), "scale")
    same(t.data.view(np.uint8), quantized._quantized_data.view(torch.uint8).numpy(), "data")


def test_int4_weights(brc):
    """pack_int4_in_uint8, given the scales that its quantizer has: amax / 7 for each group."""
    import torch
    x = numbers(rows=24)
    x[[0, 11]] = x[[12, 13]]           # scales of 0 are refused there
    scale = np.abs(x).reshape(24, -1, 32).max(-1) / np.float32(7)
    t = brc.cast(x, "int4:arith=modelopt,scale=f32,group=32")
    same(t.scale.reshape(scale.shape), scale, "scale")
    packed = modelopt("export.quant_utils").pack_int4_in_uint8(torch.from_numpy(x), torch.from_numpy(scale), 32).numpy()
    nibbles = np.stack([packed & 15, packed >> 4], 1).reshape(24, -1)          # row 2i in the low, 2i + 1 in the high bits
    same(np.stack([t.data & 15, t.data >> 4], -1).reshape(x.shape), nibbles, "data")
