# SPDX-License-Identifier: Apache-2.0
"""JAX: CPU arrays by DLPack. Under jit on CPUs, and always on NVIDIA GPUs (_jax_gpu), XLA calls libbreccia itself (its foreign function
interface); where that is not to be had (another version of it, another platform) the same happens in a callback."""
import logging
import sys
from functools import lru_cache
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from breccia import _c, _ops
from breccia._core import ScaledTensor, _flatten, _named, _unflatten
from breccia._gradients import of_product

_log = logging.getLogger("breccia")
TYPES = ()                     # the type of arrays is not public: found by isinstance
_NUMPY: ModuleType = _ops.frameworks.numpy
_THIS: ModuleType = sys.modules[__name__]
_DTYPES = {"f64": jnp.float64, "f32": jnp.float32, "f16": jnp.float16, "bf16": jnp.bfloat16, "int8": jnp.int8,
           "int8q6": jnp.int8, "uint8": jnp.uint8, "e4m3": jnp.float8_e4m3fn, "e5m2": jnp.float8_e5m2,
           "e4m3fnuz": jnp.float8_e4m3fnuz, "e5m2fnuz": jnp.float8_e5m2fnuz}
_STORED = {"int8q6": "int8"}   # formats that are exchanged as another one


def read(x: Any) -> Any:
    if isinstance(x, jax.core.Tracer):
        raise TypeError("a traced JAX array has no numbers yet; this works on concrete arrays only")
    try:
        return x.__dlpack__()
    except jax.errors.JaxRuntimeError as refused:
        raise TypeError(f"this array ({x.dtype}) cannot be read: {refused}") from refused


@lru_cache(maxsize=None)
def gpus() -> bool:
    """Whether JAX has GPUs. Asked only once there is a backend."""
    try:
        return len(jax.devices("cuda")) > 0
    except RuntimeError:
        return False


def device(x: Any) -> int | None:
    if isinstance(x, jax.core.Tracer) or not gpus():
        return None
    return next((place.id for place in x.devices() if place.platform == "gpu"), None)


def on_gpu() -> Any:
    from breccia._frameworks import _jax_gpu                                     # only where there is one
    return _jax_gpu


def empty(shape: Any, format: str) -> Any:
    return _c.Buffer(shape, _STORED.get(format, format))


def write(memory: Any, format: str) -> Any:
    return (memory, format) if format == "bf16" else memory


filled = _NUMPY.filled


def finish(memory: Any, format: str) -> Any:
    return jax.dlpack.from_dlpack(memory)


finish_scale = finish


def traced(x: Any) -> bool:
    return isinstance(x, jax.core.Tracer)


recorded = _NUMPY.recorded          # what JAX differentiates it traces


def export(x: Any) -> Any:
    """For another library: FP8 as uint8, which all of them know."""
    format = _c.format_of(read(x))
    return _c.Buffer(x.shape, "uint8", x.__dlpack__()) if format.startswith("e") else x


def capsule(x: Any) -> Any:
    return export(x).__dlpack__()


def adopt(x: Any, format: str | None) -> Any:
    """An array of another library as a JAX array over its memory; uint8 codes as the FP8 type of `format`."""
    if format in ("e4m3", "e5m2"):
        return jax.dlpack.from_dlpack(_c.Buffer(tuple(x.shape), format, x))
    return jax.dlpack.from_dlpack(x)


def _flatten_with_keys(st: ScaledTensor) -> Any:
    leaves, rest = _flatten(st)
    return [(jax.tree_util.GetAttrKey(name), leaf) for name, leaf in zip(_named(st), leaves)], rest


def register_pytree() -> None:
    jax.tree_util.register_pytree_with_keys(ScaledTensor, _flatten_with_keys, _unflatten, _flatten)


# ------------------------------------------------------------------------------------------------- while tracing

@lru_cache(maxsize=None)
def _handlers() -> bool:
    """Whether XLA takes the extension's handlers; it refuses those of another version of its interface. Asked only once there is a
    backend: before, the refusal would come when one starts, and stop it."""
    try:
        for name, handler in _c.xla_handlers(False).items():
            jax.ffi.register_ffi_target(name, handler, platform="cpu")
    except Exception as refused:                                               # whatever jaxlib raises: the callback serves
        _log.info("XLA does not take breccia's handlers (%s); jit goes through callbacks", refused)
        return False
    return True


def _call(name: str, function: Any, shapes: Any, arrays: Any, attributes: dict[str, Any], direct: bool = True, gpu: Any = None) -> Any:
    """The handler `breccia_<name>`, or `function` of NumPy arrays as a callback; under vmap once for each element. `gpu` is what
    is done on a GPU instead, if it can be."""
    def by_handler(*arrays: Any) -> Any:
        return jax.ffi.ffi_call(f"breccia_{name}", shapes, vmap_method="sequential")(*arrays, **attributes)

    def by_callback(*arrays: Any) -> Any:
        return jax.pure_callback(function, shapes, *arrays, vmap_method="sequential")

    on_cpu = by_handler if direct and _handlers() else by_callback
    if not gpus():
        return (on_cpu if jax.default_backend() == "cpu" else by_callback)(*arrays)
    # Under jit, for what is known only when it is compiled: where the arrays are.
    return jax.jit(lambda *arrays: jax.lax.platform_dependent(*arrays, cpu=on_cpu, cuda=gpu or by_callback, default=by_callback))(*arrays)


def _plain(*sides: Any) -> bool:
    """Whether XLA's buffers are what the handlers read: packed codes, and a scale for every block. What lies otherwise (codes one
    a byte, a scale that a batch shares) is packed and repeated on the way through a callback."""
    return all(st.storage_shape == _ops._packed_shape(st.recipe, st.shape) and tuple(st.scale.shape) == st.layout._scale_shape(st.shape)
               for st in sides if isinstance(st, ScaledTensor))


def _struct(shape: Any, format: str) -> Any:
    return jax.ShapeDtypeStruct(tuple(shape), _DTYPES[format])


def _as(array: Any, format: str) -> np.ndarray:
    """What a callback returns: NumPy's bytes under the type that JAX expects."""
    dtype = np.dtype(_DTYPES[format])
    return array if array.dtype == dtype else array.view(dtype)


def _host(arrays: Any) -> list[Any]:
    return [np.asarray(array) for array in arrays]


def _integers(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def _words(st: ScaledTensor, threads: int) -> np.ndarray:
    """What a handler must know beside the recipe (ext/xla.c)."""
    parts = (st.zero_point is not None) + 2 * (st.global_scale is not None) + 4 * (st.group_index is not None)
    return _integers(_c.threads(threads), st.layout._number, *st.layout._block, parts, *st.shape)


def _lists(name: str, recipe: Any, shape: Any, run: Any, arrays: Any, attributes: dict[str, Any], direct: bool = True,
           gpu: Any = None) -> ScaledTensor:
    plan = _ops._planned(recipe, shape)

    def callback(*arrays: Any) -> list[Any]:
        memory = [part for part in run(*_host(arrays)) if part is not None]
        return [_as(part, format) for part, (_, format) in zip(memory, plan)]

    return _ops._from_list(_call(name, callback, [_struct(*row) for row in plan], arrays, attributes, direct, gpu), recipe, shape)


def _alternative(name: str, *arguments: Any) -> Any:
    """What _jax_gpu does where the arrays turn out to be on a GPU, a function of them; None if it cannot."""
    return getattr(on_gpu(), name)(*arguments) if gpus() else None


def cast(x: Any, recipe: Any, threads: int) -> ScaledTensor:
    def run(x: Any) -> list[Any]:
        return _ops._cast_into(_NUMPY, x, recipe, _ops._plan(recipe, x.shape), None, threads)

    return _lists("cast", recipe, x.shape, run, [x], {"recipe": recipe.text, "numbers": _integers(_c.threads(threads))},
                  gpu=_alternative("casting", recipe, x.shape, x.dtype))


def requantize(st: ScaledTensor, recipe: Any, threads: int) -> ScaledTensor:
    leaves, rest = _flatten(st)

    def run(*parts: Any) -> list[Any]:
        return _ops._requantize_into(_NUMPY, _unflatten(rest, parts), recipe, threads)

    return _lists("requantize", recipe, st.shape, run, leaves,
                  {"recipe": st.recipe.text, "to": recipe.text, "numbers": _words(st, threads)}, _plain(st),
                  _alternative("requantizing", st, recipe))


def dequantize(st: ScaledTensor, format: str, threads: int) -> Any:
    leaves, rest = _flatten(st)
    format = "f32" if format == "f64" and not jax.config.jax_enable_x64 else format   # type: ignore[attr-defined]

    def callback(*parts: Any) -> Any:
        return _as(_ops._dequantize_now(_NUMPY, _unflatten(rest, _host(parts)), format, threads), format)

    return _call("dequantize", callback, _struct(st.shape, format), leaves, {"recipe": st.recipe.text, "numbers": _words(st, threads)},
                 _plain(st), _alternative("dequantizing", st, format))


def _multiply(a: Any, b: Any, bias: Any, shape: Any, format: str, transpose_a: bool, transpose_b: bool, threads: int) -> Any:
    arrays, tree = jax.tree_util.tree_flatten((a, b, bias))
    attributes: dict[str, Any] = {"numbers": _integers(_c.threads(threads), transpose_a, transpose_b, bias is not None)}
    for name, side in (("a", a), ("b", b)):
        if isinstance(side, ScaledTensor):
            attributes |= {name: side.recipe.text, f"{name}_numbers": _words(side, threads)}

    def callback(*parts: Any) -> Any:
        a, b, bias = jax.tree_util.tree_unflatten(tree, _host(parts))
        return _as(_ops._matmul_now(_NUMPY, a, b, shape, format, transpose_a, transpose_b, bias, threads), format)

    return _call("matmul", callback, _struct(shape, format), arrays, attributes, _plain(a, b),
                 _alternative("multiplying", a, b, bias, shape, format, transpose_a, transpose_b))


_product = jax.custom_vjp(_multiply, nondiff_argnums=(3, 4, 5, 6, 7))


def _product_forward(a: Any, b: Any, bias: Any, *rest: Any) -> Any:
    return _product(a, b, bias, *rest), (a, b, bias)


def _product_backward(shape: Any, format: str, transpose_a: bool, transpose_b: bool, threads: int, kept: Any, gradient: Any) -> Any:
    a, b, bias = kept
    return tuple(of_product(a, b, bias, gradient, transpose_a, transpose_b, threads, (True, True, True), jnp.ones,
                            lambda x, dtype: x.astype(dtype)))


_product.defvjp(_product_forward, _product_backward)


def matmul(a: Any, b: Any, shape: Any, format: str, transpose_a: bool, transpose_b: bool, bias: Any, threads: int) -> Any:
    return _product(a, b, bias, shape, format, bool(transpose_a), bool(transpose_b), threads)


# ------------------------------------------------------------------------------------------ straight-through estimator

def _round_trip(x: Any, recipe: Any, low: float | None, high: float | None) -> Any:
    return _ops.dequantize(_ops.cast(x, recipe), x.dtype)


_estimate = jax.custom_vjp(_round_trip, nondiff_argnums=(1, 2, 3))


def _forward(x: Any, recipe: Any, low: float | None, high: float | None) -> Any:
    return _estimate(x, recipe, low, high), None if low is None else x


def _backward(recipe: Any, low: float | None, high: float | None, x: Any, gradient: Any) -> Any:
    return (gradient if low is None else jnp.where((x >= low) & (x <= high), gradient, 0),)


_estimate.defvjp(_forward, _backward)


def cast_ste(x: Any, recipe: Any, low: float | None, high: float | None) -> Any:
    return _estimate(x, recipe, low, high)
