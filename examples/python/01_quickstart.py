# SPDX-License-Identifier: Apache-2.0
"""Quantize an array, look at what it became, multiply with it, and take it to another recipe. NumPy alone.

    python examples/python/01_quickstart.py
"""
import numpy as np

import breccia

rng = np.random.default_rng(0)
weight = rng.standard_normal((256, 512)).astype(np.float32)
x = rng.standard_normal((4, 512)).astype(np.float32)

recipes = [breccia.Float8CurrentScaling(), breccia.Float8BlockScaling(), breccia.MXFP8BlockScaling(), breccia.MXFP6BlockScaling(),
           breccia.NVFP4BlockScaling(), breccia.INT4Scaling()]

print(f"{'recipe':22s} {'layout':16s} {'data':12s} {'scale':20s} {'bits':>6s} {'SQNR dB':>8s}")
for recipe in recipes:
    w = breccia.cast(weight, recipe)                       # codes and scales, bound together
    error = breccia.dequantize(w) - weight
    sqnr = 10 * np.log10((weight ** 2).sum() / (error ** 2).sum())
    print(f"{type(recipe).__name__:22s} {type(w.layout).__name__:16s} {str(w.storage_shape):12s} "
          f"{str(w.scale_dtype) + ' ' + str(w.scale.shape):20s} {8 * w.nbytes / weight.size:6.2f} {sqnr:8.2f}")
    assert sqnr > 15

# A product with the weight as it is: y = x W^T, the scales folded in.
w = breccia.cast(weight, breccia.MXFP8BlockScaling())
y = breccia.matmul(x, w, transpose_b=True)
print("\nlargest error of the product:", float(np.abs(y - x @ weight.T).max()), "of", float(np.abs(y).max()))

# Another recipe: directly where every value can be kept, else through float32.
smaller = breccia.requantize(w, breccia.NVFP4BlockScaling())
print("requantized:", smaller)
assert smaller == breccia.cast(breccia.dequantize(w), breccia.NVFP4BlockScaling())
