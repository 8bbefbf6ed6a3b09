# SPDX-License-Identifier: Apache-2.0
"""From TransformerEngine to breccia: its recipes by name, its buffers as ScaledTensors, and proof that the bits are the same.

Where TransformerEngine and a GPU are there, tensors are quantized on the spot; elsewhere te_recorded.safetensors has what
TransformerEngine 2.20.2 wrote on an H200: "block[_rowwise_data]" is the attribute _rowwise_data of a block-scaled tensor.

    python examples/python/04_te_migration.py
"""
from pathlib import Path

import numpy as np
import torch

import breccia
from breccia.bridges import load_safetensors


def from_the_library():
    """The same tensors as the record, made now."""
    import transformer_engine.pytorch as te
    import transformer_engine_torch as tex
    x = torch.randn(64, 256, device="cuda", dtype=torch.bfloat16)
    current = te.Float8CurrentScalingQuantizer(tex.DType.kFloat8E4M3, device="cuda")(x)
    block = te.Float8BlockQuantizer(tex.DType.kFloat8E4M3, rowwise=True, columnwise=False, block_scaling_dim=1)(x)
    return {"input": x, "current[_data]": current._data, "current[_scale_inv]": current._scale_inv,
            "block[_rowwise_data]": block._rowwise_data, "block[_rowwise_scale_inv]": block._rowwise_scale_inv}


def recorded():
    tensors = load_safetensors(Path(__file__).with_name("te_recorded.safetensors"), "torch", plain=True)
    bits = tensors.pop("input_bf16")
    return {"input": bits.view(torch.bfloat16), **tensors}


try:
    tensors = {name: tensor.cpu() for name, tensor in from_the_library().items()}
    print("TransformerEngine quantizes here")
except (ImportError, OSError, RuntimeError) as missing:
    tensors = recorded()
    print(f"TransformerEngine is not usable here ({type(missing).__name__}); taking what it recorded")
x = tensors["input"]

# 1. Float8Tensor: _data are the codes, _scale_inv is the dequantization scale, as breccia has it.
current = breccia.from_buffer(tensors["current[_data]"], tensors["current[_scale_inv]"].reshape(()), breccia.Float8CurrentScaling(),
                              breccia.PerTensor())
assert current == breccia.cast(x, breccia.Float8CurrentScaling())
print("Float8CurrentScaling:", current)

# 2. Float8BlockwiseQTensor, 1x128: scales are stored transposed and padded, [blocks of K, rows up to a multiple of 4].
recipe = breccia.Float8BlockScaling(arith="te", power_of_two=True)
scale = tensors["block[_rowwise_scale_inv]"].T[:64, :2]
block = breccia.from_buffer(tensors["block[_rowwise_data]"], scale, recipe, breccia.PerBlockK(128))
assert block == breccia.cast(x, recipe)
print("Float8BlockScaling:  ", block)

# 3. MXFP8Tensor: scale bytes are padded to [128 rows, 4 columns].
if "mxfp8[_rowwise_data]" in tensors:
    scale = tensors["mxfp8[_rowwise_scale_inv]"][:64, :8]
    mx = breccia.from_buffer(tensors["mxfp8[_rowwise_data]"], scale, breccia.MXFP8BlockScaling(), breccia.PerBlockMN(1, 32))
    assert mx == breccia.cast(x, breccia.MXFP8BlockScaling())
    print("MXFP8BlockScaling:   ", mx)

# From here on it is a ScaledTensor like any other: multiply, or take it to a recipe TransformerEngine does not have.
y = breccia.matmul(block, x.float(), transpose_b=True)
print("product:", tuple(y.shape), "  as INT4:", breccia.requantize(block, breccia.INT4Scaling()))
assert np.isfinite(y.numpy()).all()
