# SPDX-License-Identifier: Apache-2.0
"""PyTorch: CPU tensors by DLPack. While torch.compile or another tracer looks, registered operations take over."""
import sys
from types import ModuleType
from typing import Any, List, Optional, Sequence

import torch
from torch.utils import _pytree

from breccia import _ops
from breccia._core import ScaledTensor, _flatten, _make, _unflatten
from breccia.layouts import _of_number
from breccia.recipes import _fact, from_text

_THIS: ModuleType = sys.modules[__name__]
_DTYPES = {"f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "int8": torch.int8,
           "int8q6": torch.int8, "uint8": torch.uint8, "e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2,
           "e4m3fnuz": torch.float8_e4m3fnuz, "e5m2fnuz": torch.float8_e5m2fnuz}
_OUTPUTS = {torch.float64: "f64", torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
TYPES = (torch.Tensor, torch.nn.Parameter)
_to_dlpack = torch.to_dlpack
_is_compiling = torch.compiler.is_compiling
torch.compiler.assume_constant_result(_fact)                  # recipes may be made inside a compiled function
_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor


def read(x: Any) -> Any:
    return _to_dlpack(x.detach() if x.requires_grad else x)


def empty(shape: Any, format: str) -> Any:
    return torch.empty(shape, dtype=_DTYPES[format])


def write(memory: Any, format: str) -> Any:
    return _to_dlpack(memory)


def finish(memory: Any, format: str) -> Any:
    return memory


finish_scale = finish


def dtype_format(dtype: Any) -> str | None:
    return _OUTPUTS.get(dtype) if isinstance(dtype, torch.dtype) else _ops.frameworks.numpy.dtype_format(dtype)


def traced(x: Any) -> bool:
    """torch.compile, torch.export, fake tensors, functorch: whatever is no plain tensor with memory."""
    return _is_compiling() or type(x) not in TYPES or _is_wrapped(x) or x.is_meta


def export(x: Any) -> Any:
    """For another library: FP8 as uint8, which all of them know."""
    x = x.detach() if x.requires_grad else x
    return x.view(torch.uint8) if x.is_floating_point() and x.element_size() == 1 else x


def capsule(x: Any) -> Any:
    return export(x).__dlpack__()


def adopt(x: Any, format: str | None) -> Any:
    """An array of another library as a tensor over its memory; uint8 codes as the FP8 type of `format`."""
    tensor = torch.from_dlpack(x)
    return tensor.view(_DTYPES[format]) if format in ("e4m3", "e5m2") and tensor.dtype == torch.uint8 else tensor


def register_pytree() -> None:
    _pytree.register_pytree_node(ScaledTensor, _flatten, lambda parts, rest: _unflatten(rest, parts),
                                 serialized_type_name="breccia.ScaledTensor")


# ------------------------------------------------------------------------------------------ registered operations
# torch.ops.breccia.*: tensors and plain values only. A scaled tensor is its five arrays and the words that say what they
# mean; a list of results is in the order of _ops._planned.

def _words(st: ScaledTensor) -> tuple[Any, ...]:
    return (st.data, st.scale, st.global_scale, st.zero_point, st.group_index, st.recipe.text, list(st.shape), st.layout._number,
            list(st.layout._block))


def _tensor(data: Any, scale: Any, level: Any, zero: Any, index: Any, recipe: str, shape: Any, layout: int, block: Any) -> Any:
    return _make(data, scale, from_text(recipe), _of_number(layout, tuple(block), True), zero, level, index, tuple(shape), None)


@torch.library.custom_op("breccia::cast", mutates_args=(), device_types="cpu")
def _cast(x: torch.Tensor, recipe: str, threads: int) -> List[torch.Tensor]:
    return _ops._listed(_ops._cast_now(_THIS, x, from_text(recipe), None, threads))


@_cast.register_fake
def _(x: torch.Tensor, recipe: str, threads: int) -> List[torch.Tensor]:
    return [x.new_empty(shape, dtype=_DTYPES[format]) for shape, format in _ops._planned(from_text(recipe), x.shape)]


@torch.library.custom_op("breccia::dequantize", mutates_args=(), device_types="cpu")
def _dequantize(data: torch.Tensor, scale: torch.Tensor, level: Optional[torch.Tensor], zero: Optional[torch.Tensor],
                index: Optional[torch.Tensor], recipe: str, shape: Sequence[int], layout: int, block: Sequence[int], format: str,
                threads: int) -> torch.Tensor:
    st = _tensor(data, scale, level, zero, index, recipe, shape, layout, block)
    return _ops._dequantize_now(_THIS, st, format, threads)


@_dequantize.register_fake
def _(data: Any, scale: Any, level: Any, zero: Any, index: Any, recipe: str, shape: Any, layout: int, block: Any, format: str,
      threads: int) -> torch.Tensor:
    return data.new_empty(shape, dtype=_DTYPES[format])


@torch.library.custom_op("breccia::requantize", mutates_args=(), device_types="cpu")
def _requantize(data: torch.Tensor, scale: torch.Tensor, level: Optional[torch.Tensor], zero: Optional[torch.Tensor],
                index: Optional[torch.Tensor], recipe: str, shape: Sequence[int], layout: int, block: Sequence[int], to: str,
                threads: int) -> List[torch.Tensor]:
    st = _tensor(data, scale, level, zero, index, recipe, shape, layout, block)
    return _ops._listed(_ops._requantize_now(_THIS, st, from_text(to), threads))


@_requantize.register_fake
def _(data: Any, scale: Any, level: Any, zero: Any, index: Any, recipe: str, shape: Any, layout: int, block: Any, to: str,
      threads: int) -> List[torch.Tensor]:
    return [data.new_empty(side, dtype=_DTYPES[format]) for side, format in _ops._planned(from_text(to), shape)]


@torch.library.custom_op("breccia::matmul", mutates_args=(), device_types="cpu")
def _matmul(a: torch.Tensor, a_scale: Optional[torch.Tensor], a_level: Optional[torch.Tensor], a_zero: Optional[torch.Tensor],
            a_index: Optional[torch.Tensor], a_recipe: str, a_shape: Sequence[int], a_layout: int, a_block: Sequence[int],
            b: torch.Tensor, b_scale: Optional[torch.Tensor], b_level: Optional[torch.Tensor], b_zero: Optional[torch.Tensor],
            b_index: Optional[torch.Tensor], b_recipe: str, b_shape: Sequence[int], b_layout: int, b_block: Sequence[int],
            shape: Sequence[int], format: str, transpose_a: bool, transpose_b: bool, bias: Optional[torch.Tensor],
            threads: int) -> torch.Tensor:
    left = a if a_scale is None else _tensor(a, a_scale, a_level, a_zero, a_index, a_recipe, a_shape, a_layout, a_block)
    right = b if b_scale is None else _tensor(b, b_scale, b_level, b_zero, b_index, b_recipe, b_shape, b_layout, b_block)
    return _ops._matmul_now(_THIS, left, right, tuple(shape), format, transpose_a, transpose_b, bias, threads)


@_matmul.register_fake
def _(a: Any, *rest: Any) -> torch.Tensor:
    shape, format = rest[-6], rest[-5]
    return a.new_empty(shape, dtype=_DTYPES[format])


# What the operations of _ops call while tracing.

def cast(x: Any, recipe: Any, threads: int) -> ScaledTensor:
    return _ops._from_list(torch.ops.breccia.cast(x, recipe.text, threads), recipe, x.shape)


def dequantize(st: ScaledTensor, format: str, threads: int) -> Any:
    return torch.ops.breccia.dequantize(*_words(st), format, threads)


def requantize(st: ScaledTensor, recipe: Any, threads: int) -> ScaledTensor:
    return _ops._from_list(torch.ops.breccia.requantize(*_words(st), recipe.text, threads), recipe, st.shape)


def matmul(a: Any, b: Any, shape: Any, format: str, transpose_a: bool, transpose_b: bool, bias: Any, threads: int) -> Any:
    sides = [_words(side) if isinstance(side, ScaledTensor) else (side, None, None, None, None, "", list(side.shape), 0, [0, 0, 0])
             for side in (a, b)]
    return torch.ops.breccia.matmul(*sides[0], *sides[1], list(shape), format, transpose_a, transpose_b, bias, threads)


# ------------------------------------------------------------------------------------------ straight-through estimator

class _Estimator(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, recipe: Any, low: Any, high: Any) -> Any:
        ctx.low, ctx.high = low, high
        if low is not None:
            ctx.save_for_backward(x)
        return _ops.dequantize(_ops.cast(x, recipe), x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:                               # type: ignore[override]
        if ctx.low is None:
            return gradient, None, None, None
        x, = ctx.saved_tensors
        return torch.where((x >= ctx.low) & (x <= ctx.high), gradient, 0), None, None, None


def cast_ste(x: Any, recipe: Any, low: float | None, high: float | None) -> Any:
    return _Estimator.apply(x, recipe, low, high)
