# SPDX-License-Identifier: Apache-2.0
"""MLX: arrays are read in place by the buffer protocol; each result takes one copy, from NumPy's memory into MLX's."""
import sys
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np

from breccia import _ops
from breccia._gradients import of_product

_NUMPY: ModuleType = _ops.frameworks.numpy
_THIS: ModuleType = sys.modules[__name__]
_Array = mx.array

empty = _NUMPY.empty
write = _NUMPY.write
filled = _NUMPY.filled
device = _NUMPY.device             # unified memory: a CPU reads it too


def read(x: Any) -> Any:
    """BF16 has no code in the buffer protocol: its bits as uint16."""
    return (memoryview(x.view(mx.uint16)), "bf16") if x.dtype == mx.bfloat16 else memoryview(x)


def finish(memory: Any, format: str) -> Any:
    if format == "f64":                                                          # which mx.array narrows unless told not to
        return mx.array(memory, mx.float64)
    return mx.array(memory).view(mx.bfloat16) if format == "bf16" else mx.array(memory)


def finish_scale(memory: Any, format: str) -> Any:
    return mx.array(_NUMPY.finish_scale(memory, format))


def traced(x: Any) -> bool:
    return False


def recorded(arrays: Any) -> bool:
    """Whether mx.grad looks on cannot be told: each product has its rule."""
    return True


def export(x: Any) -> Any:
    """For another library: by the buffer protocol, since MLX's capsules name a GPU where it has one."""
    return x if x.dtype == mx.bfloat16 else np.asarray(memoryview(x))


def capsule(x: Any) -> Any:
    return x.__dlpack__()


def adopt(x: Any, format: str | None) -> Any:
    return mx.array(_NUMPY.adopt(x, format))


def cast_ste(x: Any, recipe: Any, low: float | None, high: float | None) -> Any:
    """Its own rule, since MLX takes a result that came from elsewhere for a constant."""
    @mx.custom_function
    def estimate(x: Any) -> Any:
        return _ops.dequantize(_ops.cast(x, recipe), x.dtype)

    @estimate.vjp
    def _(x: Any, gradient: Any, y: Any) -> Any:
        return gradient if low is None else mx.where((x >= low) & (x <= high), gradient, 0)

    return estimate(x)


def matmul(a: Any, b: Any, shape: Any, format: str, transpose_a: bool, transpose_b: bool, bias: Any, threads: int) -> Any:
    """A product with a rule for its plain operands, for the same reason."""
    sides = [a, b, bias]
    places = [i for i, side in enumerate(sides) if isinstance(side, _Array)]

    def multiply(*plain: Any) -> Any:
        known = dict(zip(places, plain))
        left, right, added = (known.get(i, side) for i, side in enumerate(sides))
        return _ops._matmul_now(_THIS, left, right, shape, format, transpose_a, transpose_b, added, threads)

    if not places:
        return multiply()
    product = mx.custom_function(multiply)

    @product.vjp
    def _(plain: Any, gradient: Any, y: Any) -> Any:
        found = of_product(a, b, bias, gradient, transpose_a, transpose_b, threads, [i in places for i in range(3)], mx.ones,
                           lambda x, dtype: x.astype(dtype))
        return tuple(found[i] for i in places)

    return product(*(sides[i] for i in places))
