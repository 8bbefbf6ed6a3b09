# SPDX-License-Identifier: Apache-2.0
"""Gradients of a product C = op(A) op(B) + bias with respect to its plain operands: products again, by libbreccia.

Codes and scales have none. A sum over what an operand was repeated over (the rows for the bias, the batch for a shared
matrix) is a product with ones.
"""
from typing import Any, Callable

from breccia import _ops
from breccia._core import ScaledTensor


def of_product(a: Any, b: Any, bias: Any, gradient: Any, transpose_a: bool, transpose_b: bool, threads: int, wanted: Any,
               ones: Callable[[Any], Any], typed: Callable[[Any, Any], Any]) -> list[Any]:
    """The gradients of a, b and bias where `wanted` says so, else None.

    ``ones(shape)`` makes a float32 array of the library, ``typed(x, dtype)`` changes the type of one.
    """
    def matching(operand: Any, left: Any, right: Any, transpose_left: bool, transpose_right: bool) -> Any:
        product = _ops.matmul(left, right, transpose_a=transpose_left, transpose_b=transpose_right, threads=threads)
        return summed(product, operand)

    def summed(x: Any, operand: Any) -> Any:
        count = _count(operand.shape)
        times = _count(x.shape) // count if count else 1
        if times != 1:
            x = _ops.matmul(ones((1, times)), x.reshape(times, count), threads=threads)
        return typed(x.reshape(operand.shape), operand.dtype)

    of_a = of_b = of_bias = None
    if wanted[0] and not isinstance(a, ScaledTensor):
        of_a = matching(a, b, gradient, transpose_b, True) if transpose_a else matching(a, gradient, b, False, not transpose_b)
    if wanted[1] and not isinstance(b, ScaledTensor):
        of_b = matching(b, gradient, a, True, transpose_a) if transpose_b else matching(b, a, gradient, not transpose_a, False)
    if wanted[2] and bias is not None:
        of_bias = summed(gradient, bias)
    return [of_a, of_b, of_bias]


def _count(shape: Any) -> int:
    n = 1
    for side in shape:
        n *= side
    return n
