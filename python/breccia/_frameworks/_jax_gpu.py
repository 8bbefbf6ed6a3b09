# SPDX-License-Identifier: Apache-2.0
"""JAX on NVIDIA GPUs: libbreccia's kernels as XLA's foreign functions (ext/xla_cuda.c), on XLA's stream and in its memory, the same
traced and not. What there is no kernel for is done on the CPU, through a callback, and said once.

`casting`, `dequantizing`, .. give a function of the arrays, for _jax where it traces; None if there is no kernel. `cast`,
`dequantize`, .. are the operations on arrays that are there."""
import sys
import warnings
from functools import lru_cache
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from breccia import _c, _gpu, _ops
from breccia._core import ScaledTensor, _flatten, _unflatten
from breccia._frameworks import _jax
from breccia.recipes import DelayedState

_THIS: ModuleType = sys.modules[__name__]
_FP8 = {"e4m3": jnp.float8_e4m3fn, "e5m2": jnp.float8_e5m2}
_SCRATCH = 4                       # numbers of int32: BRC_CUDA_SCRATCH


@lru_cache(maxsize=None)
def _why_not() -> str | None:
    """Why nothing of this can be used; None if it can."""
    if not _c.cuda_devices()[0]:
        return _c.cuda_devices()[1]
    try:
        for name, handler in _c.xla_handlers(True).items():
            jax.ffi.register_ffi_target(name, handler, platform="CUDA")
    except Exception as refused:                                                 # whatever jaxlib raises: the callback serves
        return f"XLA does not take breccia's handlers ({refused})"
    return None


@lru_cache(maxsize=None)
def _told(what: str, instead: str) -> None:
    warnings.warn(f"{what}; {instead}", RuntimeWarning, stacklevel=5)


def _can(lacks: Any, *arguments: Any) -> bool:
    """Whether there is a kernel: `lacks` says why not. Said once."""
    reason = _why_not() or lacks(*arguments)
    if reason is not None:
        _told(reason, "JAX arrays on the GPU go to the CPU and back instead")
    return reason is None


@lru_cache(maxsize=4096)
def _lacks_cast(recipe: Any, shape: tuple[int, ...], format: str) -> str | None:
    return _c.cuda_lacks_cast(recipe._native, shape, format)


def _lacks_dequantize(st: ScaledTensor, format: str) -> str | None:
    if not _jax._plain(st):
        return "on the GPU, codes are packed and each block has its scale"
    scale = _ops._format_of(st.scale.dtype) or st.recipe._native.scale
    return _c.cuda_lacks_dequantize((st.recipe._native, tuple(st.shape), st.layout._number, st.layout._block, scale, st.global_scale is not None,
                                     st.zero_point is not None or st.group_index is not None), format)


def _call(name: str, shapes: Any, *arrays: Any, aliases: dict[int, int] | None = None, **attributes: Any) -> Any:
    return jax.ffi.ffi_call(f"breccia_cuda_{name}", shapes, vmap_method="sequential", input_output_aliases=aliases)(*arrays, **attributes)


# ----------------------------------------------------------------------------------------------- functions of arrays

def empty_on(x: Any, shape: Any, format: str) -> Any:
    return jnp.zeros(shape, _jax._DTYPES[format])


def number(x: Any, value: float, shape: Any) -> Any:
    return jnp.full(shape, value, jnp.float32)


def _float(x: Any) -> Any:
    return x.astype(jnp.float32) if x.dtype == jnp.float64 else x


def _cast(x: Any, recipe: Any, state: DelayedState | None = None) -> tuple[list[Any], Any]:
    """The arrays of a cast in the order of `_ops._planned`, and the largest magnitude where there is a state."""
    plan = _ops._planned(recipe, x.shape)
    if 0 in x.shape:
        parts = _gpu._nothing(_THIS, x, recipe, _ops._plan(recipe, tuple(x.shape)), state)
        return [part for part in parts if part is not None], jnp.float32(0)
    x = _float(x)
    # One scale for the tensor, found first: numbers that the kernel's blocks share, zero before and after.
    found = state is None and (recipe._layout._block == (0, 0, 0) or recipe._levels == 2)
    arrays, shapes, aliases = [x], [_jax._struct(*row) for row in plan], {}
    if found:
        aliases[len(arrays)] = len(shapes)
        arrays.append(jnp.zeros(_SCRATCH, jnp.int32))
        shapes.append(jax.ShapeDtypeStruct((_SCRATCH,), jnp.int32))
    if state is not None:
        aliases[len(arrays) + 1] = len(shapes)
        arrays += [jnp.float32(state.scale), jnp.float32(0)]
        shapes.append(jax.ShapeDtypeStruct((), jnp.float32))
    results = _call("cast", shapes, *arrays, aliases=aliases, recipe=recipe.text, numbers=_jax._integers(found, state is not None))
    return results[:len(plan)], results[-1]


def casting(recipe: Any, shape: Any, dtype: Any) -> Any:
    format = _ops._format_of(dtype)
    if not _can(_lacks_cast, recipe, tuple(shape), "f32" if format == "f64" else format):
        return None
    return lambda x: _cast(x, recipe)[0]


def _dequantize(st: ScaledTensor, format: str) -> Any:
    direct = "f32" if format == "f64" else format
    leaves, _ = _flatten(st)
    out = _call("dequantize", _jax._struct(st.shape, direct), *leaves, recipe=st.recipe.text, numbers=_jax._words(st, 0))
    return out if direct == format else out.astype(_jax._DTYPES[format])


def dequantizing(st: ScaledTensor, format: str) -> Any:
    if not _can(_lacks_dequantize, st, "f32" if format == "f64" else format):
        return None
    _, rest = _flatten(st)
    return lambda *parts: _dequantize(_unflatten(rest, parts), format)


def requantizing(st: ScaledTensor, recipe: Any) -> Any:
    """Always through float32."""
    back, again = dequantizing(st, "f32"), casting(recipe, st.shape, jnp.float32)
    return None if back is None or again is None else lambda *parts: again(back(*parts))


def _directly(a: Any, b: Any, shape: Any, transpose_a: bool, transpose_b: bool) -> bool:
    """Whether a product is one in FP8, of codes as they are."""
    if not (isinstance(a, ScaledTensor) and isinstance(b, ScaledTensor) and transpose_b and not transpose_a and len(shape) == 2
            and all((*a.shape, *b.shape))):
        return False
    for st in (a, b):
        others = (st.global_scale, st.zero_point, st.group_index)
        if st.recipe._element not in _FP8 or _ops._format_of(st.scale.dtype) != "f32" or any(part is not None for part in others):
            return False
    if _c.cuda_scaling(a.layout._block, b.layout._block) is None:
        return False
    lacks = _c.cuda_lacks_products()
    if lacks is not None:
        _told(lacks, "multiplied in float32 instead")
    return lacks is None


def _by_column(scale: Any) -> Any:
    """[rows, blocks] as [blocks, rows], each row on 16 bytes."""
    return jnp.pad(scale.T, ((0, 0), (0, -scale.shape[0] % 4)))


def _fp8(a: ScaledTensor, b: ScaledTensor, bias: Any, shape: Any, format: str) -> Any:
    scaling: Any = _c.cuda_scaling(a.layout._block, b.layout._block)
    turned = _gpu._BY_COLUMN.get(scaling, (False, False))
    arrays = [*_flatten(a)[0], *_flatten(b)[0], *(_by_column(side.scale) for side, turn in zip((a, b), turned) if turn)]
    attributes = {"a": a.recipe.text, "a_numbers": _jax._words(a, 0), "b": b.recipe.text, "b_numbers": _jax._words(b, 0),
                  "numbers": _jax._integers(bias is not None)}
    return _call("matmul", _jax._struct(shape, format), *arrays, *(() if bias is None else (_float(bias),)), **attributes)


def multiplying(a: Any, b: Any, bias: Any, shape: Any, format: str, transpose_a: bool, transpose_b: bool) -> Any:
    """FP8 sides whose K lies along rows are multiplied as they are (bounds: breccia_cuda.h), others are dequantized and multiplied
    in float32."""
    if not all(_can(_lacks_dequantize, side, "f32") for side in (a, b) if isinstance(side, ScaledTensor)):
        return None
    direct = _directly(a, b, shape, transpose_a, transpose_b)
    tree = jax.tree_util.tree_structure((a, b, bias))

    def multiply(*parts: Any) -> Any:
        a, b, bias = jax.tree_util.tree_unflatten(tree, parts)
        if direct:
            return _fp8(a, b, bias, shape, format)
        left, right = (_dequantize(side, "f32") if isinstance(side, ScaledTensor) else side.astype(jnp.float32) for side in (a, b))
        left, right = (side.swapaxes(-1, -2) if turn else side for side, turn in ((left, transpose_a), (right, transpose_b)))
        out = jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
        return (out if bias is None else out + bias.astype(jnp.float32)).astype(_jax._DTYPES[format])

    return multiply


# ---------------------------------------------------------------------------------------------- arrays that are there

def cast(library: Any, x: Any, recipe: Any, state: DelayedState | None) -> ScaledTensor:
    """`breccia.cast`. A delayed state is the host's: with one, the call waits for the largest magnitude."""
    _ops._source("x", x)
    if casting(recipe, x.shape, x.dtype) is None:
        if state is not None:
            raise NotImplementedError(f"no cast of JAX's arrays under a DelayedState here: {_why_not()}")
        return _jax.cast(x, recipe, 0)
    numbers = None if state is None else _ops._state(state, recipe)
    parts, largest = _cast(x, recipe, state)
    if numbers is not None:
        state.amax = float(largest)                                              # type: ignore[union-attr]
    return _ops._from_list(parts, recipe, x.shape)


def dequantize(library: Any, st: ScaledTensor, format: str) -> Any:
    """`breccia.dequantize`."""
    _gpu._together(_ops._arrays(st))
    format = "f32" if format == "f64" and not jax.config.jax_enable_x64 else format   # type: ignore[attr-defined]
    return _jax.dequantize(st, format, 0) if dequantizing(st, format) is None else _dequantize(st, format)


def requantize(library: Any, st: ScaledTensor, recipe: Any) -> ScaledTensor:
    """`breccia.requantize`, always through float32."""
    _gpu._together(_ops._arrays(st))
    run = requantizing(st, recipe)
    return _jax.requantize(st, recipe, 0) if run is None else _ops._from_list(run(*_flatten(st)[0]), recipe, st.shape)


def matmul(library: Any, a: Any, b: Any, shape: Any, format: str, transpose_a: bool, transpose_b: bool, bias: Any) -> Any:
    """`breccia.matmul`."""
    _gpu._together(_ops._arrays(a, b, bias))
    run = multiplying(a, b, bias, shape, format, transpose_a, transpose_b)
    if run is None:
        return _jax.matmul(a, b, shape, format, transpose_a, transpose_b, bias, 0)
    return run(*jax.tree_util.tree_leaves((a, b, bias)))
