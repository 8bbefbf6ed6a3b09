# SPDX-License-Identifier: Apache-2.0
"""PyTorch: tensors by DLPack, on CPUs and NVIDIA GPUs. While torch.compile or another tracer looks, registered operations take over."""
import sys
from types import ModuleType, SimpleNamespace
from typing import Any, List, Optional, Sequence

import torch
from torch.autograd.forward_ad import unpack_dual
from torch.utils import _pytree

from breccia import _ops
from breccia._core import ScaledTensor, _flatten, _make, _named, _parts, _unflatten
from breccia._gradients import of_product
from breccia.layouts import _of_number
from breccia.recipes import _fact, from_text

_THIS: ModuleType = sys.modules[__name__]
_DTYPES = {"f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "int8": torch.int8,
           "int8q6": torch.int8, "uint8": torch.uint8, "e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2,
           "e4m3fnuz": torch.float8_e4m3fnuz, "e5m2fnuz": torch.float8_e5m2fnuz}
TYPES = (torch.Tensor, torch.nn.Parameter)
_to_dlpack = torch.to_dlpack
_is_compiling = torch.compiler.is_compiling
# Recipes and tensors may be made inside a compiled function; what these find is no reason to compile again.
torch.compiler.assume_constant_result(_fact)
torch.compiler.assume_constant_result(_ops.frameworks.register)
_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_is_tracing = torch._C._is_tracing
_modes = torch._C._len_torch_dispatch_stack
_CPU = torch.device("cpu")             # said, since torch.set_default_device may name another


def _refused() -> dict[Any, str]:
    """The FP8 types that this PyTorch does not exchange (before 2.10): their bytes are, with the format's name."""
    refused = {}
    for format in ("e4m3", "e5m2", "e4m3fnuz", "e5m2fnuz"):
        try:
            _to_dlpack(torch.empty(1, dtype=_DTYPES[format]))
        except (RuntimeError, BufferError):
            refused[_DTYPES[format]] = format
    return refused


_REFUSED = _refused()


def _exchanged(x: Any) -> Any:
    format = _REFUSED.get(x.dtype)
    return _to_dlpack(x) if format is None else (_to_dlpack(x.view(torch.uint8)), format)


def read(x: Any) -> Any:
    if x.requires_grad:
        x = x.detach()
    if x.is_neg():                                                # a view whose numbers are the negatives of its memory's
        x = x.resolve_neg()
    try:
        return _exchanged(x)
    except (RuntimeError, BufferError) as refused:
        raise TypeError(f"this tensor ({x.layout}, {x.dtype}) cannot be read: {refused}") from refused


def empty(shape: Any, format: str) -> Any:
    return torch.empty(shape, dtype=_DTYPES[format], device=_CPU)


def write(memory: Any, format: str) -> Any:
    return _exchanged(memory)


def filled(memories: list[Any]) -> list[Any]:
    return [None if memory is None else _exchanged(memory) for memory in memories]


def finish(memory: Any, format: str) -> Any:
    return memory


finish_scale = finish


def traced(x: Any) -> bool:
    """torch.compile, torch.export, fake tensors, functorch: whatever is no plain tensor with memory; and where a dispatch mode looks
    on (make_fx), which would not see what C writes."""
    if _is_compiling():
        return True
    if _is_tracing():                  # nor would this one, and it has no other way
        raise NotImplementedError("torch.jit.trace cannot record breccia's operations; torch.export and torch.compile can")
    return type(x) not in TYPES or _is_wrapped(x) or x.is_meta or _modes() > 0


def recorded(arrays: Any) -> bool:
    return any(isinstance(x, torch.Tensor) and (x.requires_grad and torch.is_grad_enabled() or _has_tangent(x)) for x in arrays)


def _has_tangent(x: Any) -> bool:
    """Forward mode, which registered operations drop without a word."""
    return not _is_compiling() and x.is_floating_point() and unpack_dual(x).tangent is not None


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


# ------------------------------------------------------------------------------------------ GPUs: see breccia._gpu

def device(x: Any) -> int | None:
    return x.get_device() if x.is_cuda else None


def on(x: Any) -> Any:
    return torch.cuda.device(x.device)


def stream(x: Any) -> int:
    return torch.cuda.current_stream(x.device).cuda_stream


def empty_on(x: Any, shape: Any, format: str) -> Any:
    return torch.empty(shape, dtype=_DTYPES[format], device=x.device)


_scratch: dict[tuple[int, int], Any] = {}


def scratch(x: Any) -> Any:
    """Kernels leave it zero. A stream's own, so that no two calls use it at a time; a captured graph's own, for it may be
    replayed on any stream."""
    if torch.cuda.is_current_stream_capturing():
        return _fresh_scratch(x)
    key = x.get_device(), stream(x)
    found = _scratch.get(key)
    if found is None:
        found = _scratch[key] = _fresh_scratch(x)
    return found


def _fresh_scratch(x: Any) -> Any:
    return torch.zeros(4, dtype=torch.int32, device=x.device)


def number(x: Any, value: float, shape: Any) -> Any:
    return torch.full(shape, value, dtype=torch.float32, device=x.device)


def rows(x: Any) -> Any:
    if x.requires_grad:
        x = x.detach()
    if x.dtype == torch.float64:
        x = x.float()
    last = x.shape[-1]
    dense = x.stride(-1) == 1 or last <= 1
    for i in range(x.dim() - 2):
        dense = dense and (x.shape[i] <= 1 or x.stride(i) == x.stride(i + 1) * x.shape[i + 1])
    return x if dense and not x.is_neg() and x.numel() and (x.dim() < 2 or x.stride(-2) >= last) else x.contiguous().resolve_neg()


def by_column(scale: Any) -> Any:
    count, blocks = scale.shape
    turned = torch.empty((blocks, (count + 3) // 4 * 4), dtype=scale.dtype, device=scale.device)[:, :count]
    return turned.copy_(scale.t())


def wide(x: Any, format: str) -> Any:
    return x.to(_DTYPES[format])


def product(a: Any, b: Any, bias: Any, format: str) -> Any:
    out = torch.matmul(a, b)
    return (out if bias is None else out + bias.float()).to(_DTYPES[format])


def _flatten_with_keys(st: ScaledTensor) -> Any:
    leaves, rest = _flatten(st)
    return [(_pytree.GetAttrKey(name), leaf) for name, leaf in zip(_named(st), leaves)], rest


def register_pytree() -> None:
    _pytree.register_pytree_node(ScaledTensor, _flatten, lambda parts, rest: _unflatten(rest, parts),
                                 serialized_type_name="breccia.ScaledTensor", flatten_with_keys_fn=_flatten_with_keys)


# ------------------------------------------------------------------------------------------ registered operations
# torch.ops.breccia.*: tensors and plain values only. A scaled tensor is its five arrays and the words that say what they
# mean; a list of results is in the order of _ops._planned.

# Where torch.compile calls, memory may come from a graph's own pool, in which nothing is to be kept from one call to the next.
_CALLED: Any = SimpleNamespace(**{**globals(), "scratch": _fresh_scratch})


def _own(part: Any) -> Any:
    """An array as a tensor: those of another library over their memory."""
    return part if part is None or isinstance(part, torch.Tensor) else adopt(_ops.frameworks.of(part).export(part), None)


def _together(*arrays: Any) -> None:
    """What a fake implementation cannot see: it gives memory where the first array is."""
    devices = sorted({str(x.device) for x in arrays if isinstance(x, torch.Tensor)})
    if len(devices) > 1:
        raise ValueError(f"the arrays of one call must be on one device, not on {' and '.join(devices)}")


def _words(st: ScaledTensor) -> tuple[Any, ...]:
    _together(*_parts(st))
    return (_own(st.data), _own(st.scale), _own(st.global_scale), _own(st.zero_point), _own(st.group_index), st.recipe.text,
            list(st.shape), st.layout._number, list(st.layout._block))


def _tensor(data: Any, scale: Any, level: Any, zero: Any, index: Any, recipe: str, shape: Any, layout: int, block: Any) -> Any:
    return _make(data, scale, from_text(recipe), _of_number(layout, tuple(block), True), zero, level, index, tuple(shape), None)


@torch.library.custom_op("breccia::cast", mutates_args=())
def _cast(x: torch.Tensor, recipe: str, threads: int) -> List[torch.Tensor]:
    return _ops._listed(_ops._cast_now(_CALLED, x, from_text(recipe), None, threads))


@_cast.register_fake
def _(x: torch.Tensor, recipe: str, threads: int) -> List[torch.Tensor]:
    return [x.new_empty(shape, dtype=_DTYPES[format]) for shape, format in _ops._planned(from_text(recipe), x.shape)]


@torch.library.custom_op("breccia::dequantize", mutates_args=())
def _dequantize(data: torch.Tensor, scale: torch.Tensor, level: Optional[torch.Tensor], zero: Optional[torch.Tensor],
                index: Optional[torch.Tensor], recipe: str, shape: Sequence[int], layout: int, block: Sequence[int], format: str,
                threads: int) -> torch.Tensor:
    st = _tensor(data, scale, level, zero, index, recipe, shape, layout, block)
    return _ops._dequantize_now(_THIS, st, format, threads)


@_dequantize.register_fake
def _(data: Any, scale: Any, level: Any, zero: Any, index: Any, recipe: str, shape: Any, layout: int, block: Any, format: str,
      threads: int) -> torch.Tensor:
    return data.new_empty(shape, dtype=_DTYPES[format])


@torch.library.custom_op("breccia::requantize", mutates_args=())
def _requantize(data: torch.Tensor, scale: torch.Tensor, level: Optional[torch.Tensor], zero: Optional[torch.Tensor],
                index: Optional[torch.Tensor], recipe: str, shape: Sequence[int], layout: int, block: Sequence[int], to: str,
                threads: int) -> List[torch.Tensor]:
    st = _tensor(data, scale, level, zero, index, recipe, shape, layout, block)
    return _ops._listed(_ops._requantize_now(_CALLED, st, from_text(to), threads))


@_requantize.register_fake
def _(data: Any, scale: Any, level: Any, zero: Any, index: Any, recipe: str, shape: Any, layout: int, block: Any, to: str,
      threads: int) -> List[torch.Tensor]:
    return [data.new_empty(side, dtype=_DTYPES[format]) for side, format in _ops._planned(from_text(to), shape)]


@torch.library.custom_op("breccia::matmul", mutates_args=())
def _matmul(a: torch.Tensor, a_scale: Optional[torch.Tensor], a_level: Optional[torch.Tensor], a_zero: Optional[torch.Tensor],
            a_index: Optional[torch.Tensor], a_recipe: str, a_shape: Sequence[int], a_layout: int, a_block: Sequence[int],
            b: torch.Tensor, b_scale: Optional[torch.Tensor], b_level: Optional[torch.Tensor], b_zero: Optional[torch.Tensor],
            b_index: Optional[torch.Tensor], b_recipe: str, b_shape: Sequence[int], b_layout: int, b_block: Sequence[int],
            shape: Sequence[int], format: str, transpose_a: bool, transpose_b: bool, bias: Optional[torch.Tensor],
            threads: int) -> torch.Tensor:
    left = _side(a, a_scale, a_level, a_zero, a_index, a_recipe, a_shape, a_layout, a_block)
    right = _side(b, b_scale, b_level, b_zero, b_index, b_recipe, b_shape, b_layout, b_block)
    return _ops._matmul_now(_THIS, left, right, tuple(shape), format, transpose_a, transpose_b, bias, threads)


@_matmul.register_fake
def _(a: Any, *rest: Any) -> torch.Tensor:
    shape, format = rest[-6], rest[-5]
    return a.new_empty(shape, dtype=_DTYPES[format])


def _side(data: Any, scale: Any, *rest: Any) -> Any:
    """An operand of a product: plain where it has no scale."""
    return data if scale is None else _tensor(data, scale, *rest)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*(x if isinstance(x, torch.Tensor) else None for x in inputs))
    ctx.plain = [None if isinstance(x, torch.Tensor) else x for x in inputs]


def _backward(ctx: Any, gradient: Any) -> Any:
    """In the order of the operation's arguments: a and its eight words, b and its own, shape, format, transpose_a, .."""
    inputs = [plain if saved is None else saved for saved, plain in zip(ctx.saved_tensors, ctx.plain)]
    a, b, (_, _, transpose_a, transpose_b, bias, threads) = _side(*inputs[:9]), _side(*inputs[9:18]), inputs[18:]
    found: list[Any] = [None] * len(inputs)
    found[0], found[9], found[22] = of_product(a, b, bias, gradient, transpose_a, transpose_b, threads,
                                               [ctx.needs_input_grad[at] for at in (0, 9, 22)],
                                               lambda shape: torch.ones(shape, device=gradient.device), torch.Tensor.to)
    return tuple(found)


_matmul.register_autograd(_backward, setup_context=_keep)


def _one_by_one(operation: Any) -> None:
    """Under vmap: the elements of the batch one after the other."""
    def rule(info: Any, dims: Any, *inputs: Any) -> Any:
        def element(x: Any, at: Any, i: int) -> Any:
            if not isinstance(at, int):
                return x
            return x.select(at, i) if info.batch_size else x.new_zeros((*x.shape[:at], *x.shape[at + 1:]))

        # Of an empty batch one element of zeros, for the shapes of the results.
        results = [operation(*(element(x, at, i) for x, at in zip(inputs, dims))) for i in range(info.batch_size or 1)]
        if isinstance(results[0], torch.Tensor):
            return torch.stack(results)[:info.batch_size], 0
        return [torch.stack(column)[:info.batch_size] for column in zip(*results)], [0] * len(results[0])

    operation.register_vmap(rule)


for _operation in (_cast, _dequantize, _requantize, _matmul):
    _one_by_one(_operation)


# What the operations of _ops call while tracing.

def cast(x: Any, recipe: Any, threads: int) -> ScaledTensor:
    return _ops._from_list(torch.ops.breccia.cast(x, recipe.text, threads), recipe, x.shape)


def dequantize(st: ScaledTensor, format: str, threads: int) -> Any:
    return torch.ops.breccia.dequantize(*_words(st), format, threads)


def requantize(st: ScaledTensor, recipe: Any, threads: int) -> ScaledTensor:
    return _ops._from_list(torch.ops.breccia.requantize(*_words(st), recipe.text, threads), recipe, st.shape)


def matmul(a: Any, b: Any, shape: Any, format: str, transpose_a: bool, transpose_b: bool, bias: Any, threads: int) -> Any:
    plain = [x for x in (a, b, bias) if isinstance(x, torch.Tensor)]
    if any(_has_tangent(x) for x in plain):
        raise NotImplementedError("matmul is differentiated in reverse mode, not in forward mode (torch.func.jvp, dual tensors)")
    _together(*plain, *(side.data for side in (a, b) if isinstance(side, ScaledTensor)))
    sides = [_words(side) if isinstance(side, ScaledTensor) else (_own(side), None, None, None, None, "", list(side.shape), 0, [0, 0, 0])
             for side in (a, b)]
    bias = None if bias is None else _own(bias)
    return torch.ops.breccia.matmul(*sides[0], *sides[1], list(shape), format, transpose_a, transpose_b, bias, threads)


# ------------------------------------------------------------------------------------------ straight-through estimator

class _Estimator(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Any, recipe: Any, low: Any, high: Any) -> Any:               # type: ignore[override]
        return _ops.dequantize(_ops.cast(x, recipe), x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, _, ctx.low, ctx.high = inputs
        if ctx.low is not None:
            ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:                               # type: ignore[override]
        if ctx.low is None:
            return gradient, None, None, None
        x, = ctx.saved_tensors
        return torch.where((x >= ctx.low) & (x <= ctx.high), gradient, 0), None, None, None


def cast_ste(x: Any, recipe: Any, low: float | None, high: float | None) -> Any:
    return _Estimator.apply(x, recipe, low, high)
