# SPDX-License-Identifier: Apache-2.0
"""breccia: low-precision tensors that keep their scales.

A tensor of FP8, MX, NVFP4 or INT4 numbers means nothing without its scale. A ``ScaledTensor`` holds both, with the recipe
that made them and the layout that says which elements share a scale, over arrays of NumPy, PyTorch, JAX, MLX or CuPy.

>>> import numpy as np, breccia
>>> x = np.linspace(-1, 1, 256, dtype=np.float32).reshape(2, 128)
>>> st = breccia.cast(x, breccia.MXFP8BlockScaling())
>>> st
breccia.ScaledTensor(shape=(2, 128), data_dtype=uint8, scale_shape=(2, 4), recipe=MXFP8BlockScaling, layout=PerBlockMN)
>>> float(abs(breccia.dequantize(st) - x).max()) < 2**-5
True
"""
from breccia import _c, _formats, _frameworks, bridges, kernels, layouts, recipes
from breccia._core import ScaledTensor, from_buffer
from breccia._ops import cast, dequantize, matmul, pack, requantize
from breccia._packed import PackedWeight
from breccia.bridges import open
from breccia.autograd import cast_ste, cast_ste_clipped
from breccia.layouts import Layout, PerBlockK, PerBlockMN, PerChannel, PerColumn, PerTensor
from breccia.recipes import (CustomScaling, DelayedScaling, DelayedState, Float8BlockScaling, Float8CurrentScaling,
                             Float8RowScaling, GGMLScaling, INT4Scaling, INT8Scaling, MXFP4BlockScaling, MXFP6BlockScaling,
                             MXFP8BlockScaling, MXINT8BlockScaling, NVFP4BlockScaling, ScalingRecipe)

__version__: str = _c.VERSION

__all__ = ["ScaledTensor", "from_buffer", "cast", "dequantize", "requantize", "matmul", "cast_ste", "cast_ste_clipped",
           "ScalingRecipe", "DelayedScaling", "Float8CurrentScaling", "Float8BlockScaling", "MXFP8BlockScaling",
           "NVFP4BlockScaling", "INT4Scaling", "Layout", "PerTensor", "PerBlockK", "PerChannel", "PerBlockMN", "PerColumn", "__version__",
           "DelayedState", "Float8RowScaling", "MXFP6BlockScaling", "MXFP4BlockScaling", "MXINT8BlockScaling", "INT8Scaling",
           "GGMLScaling", "CustomScaling", "open", "pack", "PackedWeight"]

_frameworks.register()
