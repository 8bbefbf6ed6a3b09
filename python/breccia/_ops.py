# SPDX-License-Identifier: Apache-2.0
"""cast, dequantize, requantize, pack, matmul: the same functions for the arrays of every library.

What is done here is to find memory and to name formats; the numbers are libbreccia's.
"""
from typing import Any

import numpy as np

from breccia import _c
from breccia import _frameworks as frameworks
from breccia._core import ScaledTensor, _make, _parts
from breccia._packed import PackedWeight
from breccia.layouts import Layout
from breccia.recipes import DelayedState, ScalingRecipe

__all__ = ["cast", "dequantize", "requantize", "matmul", "pack"]

# The high-precision formats by the names that dtypes have.
_HIGH = {"f32": "f32", "f16": "f16", "bf16": "bf16", "f64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16",
         "float64": "f64", "fp32": "f32", "fp16": "f16", "half": "f16", "double": "f64"}


def _castable(recipe: Any) -> None:
    if not isinstance(recipe, ScalingRecipe) or not hasattr(recipe, "text"):
        raise TypeError(f"unsupported recipe: {type(recipe).__name__}; one of breccia.recipes is needed")


def _format_of(dtype: Any) -> str | None:
    """The high-precision format of a dtype of any library, or of its name; None for any other."""
    if isinstance(dtype, str):
        name = dtype
    elif isinstance(dtype, type):
        name = dtype.__name__
    elif isinstance(dtype, np.dtype):
        name = dtype.name if dtype.isnative else ""
    else:
        name = str(dtype).rpartition(".")[2]                                     # torch.float16, mlx.core.float16
    return _HIGH.get(name)


def _output(dtype: Any, allowed: str = "float32, float16, bfloat16 or float64") -> str:
    """Format of an output type that `allowed` names."""
    if dtype is None or dtype is np.float32:
        return "f32"
    format = _format_of(dtype)
    if format is None or (format == "f64" and "float64" not in allowed):
        raise TypeError(f"dtype must be {allowed}, got {dtype!r}")
    return format


def _source(name: str, x: Any) -> None:
    """While tracing, C does not see the type until it runs."""
    if _format_of(x.dtype) is None:
        raise TypeError(f"{name} is {x.dtype}; float64, float32, float16 or bfloat16 is needed")


def _arrays(*values: Any) -> list[Any]:
    """The arrays of scaled tensors and plain arrays."""
    parts: list[Any] = []
    for value in values:
        parts += _parts(value) if isinstance(value, ScaledTensor) else (value,)
    return [part for part in parts if part is not None]


def _tracer(arrays: list[Any]) -> Any:
    """The library that is tracing one of the arrays; None if all have memory."""
    for array in arrays:
        library = frameworks.of(array)
        if library.traced(array):
            return library
    return None


def _packed_shape(recipe: Any, shape: Any) -> tuple[int, ...]:
    """Shape of the codes of a logical shape: each row starts on a byte."""
    bits = recipe._bits
    return shape if bits == 8 else (*shape[:-1], (shape[-1] * bits + 7) // 8)


def _plan(recipe: Any, shape: Any) -> tuple[Any, ...]:
    """Shape and format of data, scale, global scale and zero point of a cast to this shape; None for what the recipe does
    not have. ValueError if the recipe cannot be cast to it."""
    layout = recipe._layout
    if layout._block != (0, 0, 0) and len(shape) < 2:
        raise ValueError(f"{type(recipe).__name__} requires x.ndim >= 2, got {len(shape)}")
    if not shape:
        raise ValueError("x must be at least 1-D, got 0-D")
    scale = layout._scale_shape(shape)
    return ((_packed_shape(recipe, shape), recipe._stored), (scale, recipe._numbers), ((), "f32") if recipe._levels == 2 else None,
            None if recipe._zero is None else (scale, recipe._zero))


def _planned(recipe: Any, shape: Any) -> list[tuple[Any, str]]:
    """`_plan` without what is not there."""
    return [row for row in _plan(recipe, tuple(shape)) if row is not None]


def _memory(library: Any, plan: tuple[Any, ...]) -> list[Any]:
    """Memory for what a cast gives."""
    data, scale, level, zero = plan
    empty = library.empty
    return [empty(*data), empty(*scale), level and empty(*level), zero and empty(*zero)]


def _finish(library: Any, recipe: Any, shape: Any, memory: list[Any]) -> ScaledTensor:
    data, scale, level, zero = memory
    finish = library.finish
    if frameworks.unregistered:
        frameworks.register()
    return _make(finish(data, recipe._stored), library.finish_scale(scale, recipe._numbers), recipe, recipe._layout,
                 None if zero is None else finish(zero, recipe._zero), None if level is None else finish(level, "f32"), None, shape, None)


def _listed(st: ScaledTensor) -> list[Any]:
    """The arrays of a cast's result in the order of `_planned`."""
    return [part for part in (st.data, st.scale, st.global_scale, st.zero_point) if part is not None]


def _from_list(parts: Any, recipe: Any, shape: Any) -> ScaledTensor:
    left = list(parts)
    data, scale = left.pop(0), left.pop(0)
    level = left.pop(0) if recipe._levels == 2 else None
    return _make(data, scale, recipe, recipe._layout, left.pop(0) if left else None, level, None, tuple(shape), None)


def _state(state: Any, recipe: Any) -> tuple[Any, Any] | None:
    """The numbers of a delayed state as C takes them."""
    if state is None:
        return None
    if not isinstance(state, DelayedState):
        raise TypeError(f"state must be a DelayedState, got {type(state).__name__}")
    if state.recipe != recipe:
        raise ValueError(f"state belongs to {state.recipe}, the cast is {recipe}; a state is for delayed scaling of one recipe")
    return state._numbers, state.history


def _cast_into(library: Any, x: Any, recipe: Any, plan: tuple[Any, ...], state: DelayedState | None, threads: int) -> list[Any]:
    memory = _memory(library, plan)
    data, scale, level, zero = library.filled(memory)
    _c.cast(recipe._native, library.read(x), data, scale, level, zero, _state(state, recipe), threads)
    return memory


def _gpu(library: Any) -> Any:
    if hasattr(library, "on_gpu"):
        return library.on_gpu()
    from breccia import _gpu as gpu                                              # only where there is one
    return gpu


def _cast_now(library: Any, x: Any, recipe: Any, state: DelayedState | None, threads: int) -> ScaledTensor:
    if library.device(x) is not None:
        return _gpu(library).cast(library, x, recipe, state)
    shape = tuple(x.shape)
    plan = _plan(recipe, shape)
    return _finish(library, recipe, shape, _cast_into(library, x, recipe, plan, state, threads))


def cast(x: Any, recipe: ScalingRecipe, state: DelayedState | None = None, *, threads: int = 0) -> ScaledTensor:
    """Quantizes an array under a recipe.

    Parameters
    ----------
    x
        float64, float32, float16 or bfloat16 array (..., M, K) of NumPy, PyTorch, JAX, MLX or CuPy (also on an NVIDIA GPU), any strides; float64 is
        rounded to float32 first. Block recipes need rank >= 2 and axes that the block divides (or ``partial=True``).
    recipe
        One of ``breccia.recipes``.
    state
        Only with ``DelayedScaling``, made for the same recipe: its scale is used and its amax is written.
    threads
        0 = BRECCIA_THREADS if set, else all processors. The bits do not depend on it.

    Returns
    -------
    ScaledTensor
        Of the same library, with logical shape ``x.shape``. Values saturate; NaN stays NaN in FP8 and becomes 0 elsewhere;
        a block of zeros gives zeros and a finite positive scale.

    Raises
    ------
    TypeError
        ``x`` is no array of high precision, or the recipe none of breccia's.
    ValueError
        The shape does not fit the recipe, or the state is another recipe's.

    Source: docs/numerics.md; OCP Microscaling Formats 1.0, and the libraries each recipe names. Not differentiable: training goes
    through ``cast_ste``.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.array([[0.0, 1.0, -2.0, 448.0]], np.float32), breccia.Float8CurrentScaling())
    >>> st.data, st.scale
    (array([[  0,  56, 192, 126]], dtype=uint8), array(1., dtype=float32))
    """
    library = frameworks.of(x)
    _castable(recipe)
    if library.traced(x):
        if state is not None:
            raise TypeError("a DelayedState cannot be used while tracing: it changes with each call")
        _source("x", x)
        return library.cast(x, recipe, threads)
    return _cast_now(library, x, recipe, state, threads)


def _scaled(st: Any) -> None:
    if not isinstance(st, ScaledTensor):
        raise TypeError(f"a ScaledTensor is needed, got {type(st).__name__}")
    _castable(st.recipe)
    if not isinstance(st.layout, Layout) or not hasattr(st.layout, "_number"):
        raise TypeError(f"unsupported layout: {type(st.layout).__name__}; one of breccia.layouts is needed")


def _packed(library: Any, st: ScaledTensor) -> Any:
    """The codes as the extension reads them; those that lie one a byte are packed first."""
    bits = st.recipe._bits
    if bits == 8 or st.storage_shape != st.shape or st.shape[-1] * bits <= 8:
        return library.read(st.data)
    codes = np.frombuffer(_c.bytes_of(library.read(st.data)), np.uint8)
    # Each row starts on a byte; rows of whole bytes are one long row.
    codes = codes.reshape(1, -1) if st.shape[-1] * bits % 8 == 0 else codes.reshape(-1, st.shape[-1])
    numbers, again = np.empty(codes.shape, np.float32), np.empty(codes.shape[-1:], np.float32)
    packed = np.empty((len(codes), (codes.shape[-1] * bits + 7) // 8), np.uint8)
    # Two's complement in a byte keeps its meaning as int8; every other code is a plain number.
    signed = st.recipe._element.startswith("int") and _c.format_of(library.read(st.data)) == "int8"
    narrow = f"{'int' if signed else 'uint'}{bits}"
    for row, wide, into in zip(codes, numbers, packed):
        _c.decode("int8" if signed else "uint8", row, wide)
        _c.encode(narrow, wide, into)
        _c.decode(narrow, into, again)
        if _c.bytes_of(again) != _c.bytes_of(wide):
            raise ValueError(f"data holds codes of more than {bits} bits, one a byte")
    return packed.reshape(_packed_shape(st.recipe, st.shape))


def _read(part: Any) -> Any:
    return None if part is None else frameworks.of(part).read(part)


def _description(st: ScaledTensor) -> tuple[Any, ...]:
    """A ScaledTensor as the extension takes it. Its arrays may be of several libraries."""
    layout = st.layout
    return (st.recipe._native, st.shape, layout._number, layout._block, _packed(frameworks.of(st.data), st), _read(st.scale),
            _read(st.global_scale), _read(st.zero_point), _read(st.group_index))


def _dequantize_now(library: Any, st: ScaledTensor, format: str, threads: int) -> Any:
    if library.device(st.data) is not None:
        return _gpu(library).dequantize(library, st, format)
    out = library.empty(st.shape, format)
    _c.dequantize(_description(st), library.write(out, format), threads)
    return library.finish(out, format)


def dequantize(st: ScaledTensor, dtype: Any = None, *, threads: int = 0) -> Any:
    """The numbers of a ScaledTensor: each element times its scale.

    Parameters
    ----------
    st
        A ScaledTensor with one of breccia's recipes and layouts.
    dtype
        float32 (default), float16, bfloat16 or float64, as a dtype or its name. Computed in float32 and rounded once more
        for the others; beyond their largest number to infinity.
    threads
        As in ``cast``.

    Returns
    -------
    array
        Of the library of ``st.data``, shape ``st.shape``.

    Raises
    ------
    TypeError
        Not a ScaledTensor, a dtype that cannot hold the numbers, or a part of a type that is not the recipe's.
    ValueError
        The parts do not fit together.

    Source: docs/numerics.md, the value.

    >>> import numpy as np, breccia
    >>> breccia.dequantize(breccia.cast(np.array([[1.0, 2.0]], np.float32), breccia.Float8CurrentScaling()))
    array([[1., 2.]], dtype=float32)
    """
    _scaled(st)
    format = _output(dtype)
    tracer = _tracer(_arrays(st))
    if tracer is not None:
        return tracer.dequantize(st, format, threads)
    return _dequantize_now(frameworks.of(st.data), st, format, threads)


def _requantize_into(library: Any, st: ScaledTensor, recipe: Any, threads: int) -> list[Any]:
    memory = _memory(library, _plan(recipe, st.shape))
    data, scale, level, zero = library.filled(memory)
    _c.requantize(_description(st), recipe._native, data, scale, level, zero, threads)
    return memory


def _requantize_now(library: Any, st: ScaledTensor, recipe: Any, threads: int) -> ScaledTensor:
    if library.device(st.data) is not None:
        return _gpu(library).requantize(library, st, recipe)
    return _finish(library, recipe, st.shape, _requantize_into(library, st, recipe, threads))


def requantize(st: ScaledTensor, recipe: ScalingRecipe, *, threads: int = 0) -> ScaledTensor:
    """A ScaledTensor under another recipe: directly where every value can be kept exactly, else through float32.

    Parameters
    ----------
    st
        A ScaledTensor with one of breccia's recipes and layouts.
    recipe, threads
        As in ``cast``. The same recipe and layout give ``st`` itself.

    Returns
    -------
    ScaledTensor
        Of the same library and logical shape, in the dtypes and the layout of a cast under ``recipe``.

    Raises TypeError and ValueError as ``cast`` and ``dequantize`` do. Source: docs/numerics.md, requantize.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.ones((2, 32), np.float32), breccia.MXFP8BlockScaling())
    >>> breccia.requantize(st, breccia.Float8CurrentScaling()).layout
    PerTensor()
    """
    _scaled(st)
    _castable(recipe)
    if st.recipe == recipe and st.layout == recipe._layout:                     # type: ignore[attr-defined]
        return st
    tracer = _tracer(_arrays(st))
    if tracer is not None:
        return tracer.requantize(st, recipe, threads)
    return _requantize_now(frameworks.of(st.data), st, recipe, threads)


def _turned(shape: Any, turn: bool) -> tuple[int, ...]:
    return (*shape[:-2], shape[-1], shape[-2]) if turn else tuple(shape)


def _product_shape(a: Any, b: Any, transpose_a: bool, transpose_b: bool) -> tuple[int, ...]:
    if len(a.shape) < 2 or len(b.shape) < 2:
        raise ValueError(f"shape mismatch: a product needs at least 2 dimensions, got {tuple(a.shape)} and {tuple(b.shape)}")
    left, right = _turned(a.shape, transpose_a), _turned(b.shape, transpose_b)
    if left[-1] != right[-2]:
        raise ValueError(f"shape mismatch: a is {left}, b is {right}; {left[-1]} columns of a need as many rows of b, "
                         f"not {right[-2]}")
    batch = left[:-2] if len(left) >= len(right) else right[:-2]
    if len(left) == len(right) and all(side == 1 for side in batch):
        batch = right[:-2]
    for side in (left[:-2], right[:-2]):
        if side != batch and any(n != 1 for n in side):
            raise ValueError(f"shape mismatch: leading dimensions {left[:-2]} and {right[:-2]} must be equal or 1")
    return (*batch, left[-2], right[-1])


def matmul(a: Any, b: Any, out_dtype: Any = np.float32, *, transpose_a: bool = False, transpose_b: bool = False, bias: Any = None,
           threads: int = 0) -> Any:
    """The matrix product of scaled tensors as they are: (..., M, K) x (K, N), with equal or no leading dimensions.

    Parameters
    ----------
    a, b
        ScaledTensor or plain float array. Any layout on either side. ``b`` may be what ``pack`` made of a weight.
    out_dtype
        float32 (default), float16 or bfloat16.
    transpose_a, transpose_b
        Swap the last two axes of a side: a weight stored as [N, K] is ``transpose_b=True``.
    bias
        Plain array [N] added to each row before the rounding to ``out_dtype``.
    threads
        As in ``cast``.

    Returns
    -------
    array
        Of the library of the operands, shape (..., M, N). |out - exact| <= K * 2**-24 * sum(|a||b|) + half an ulp of the
        output, where exact uses the dequantized float32 values. PyTorch, JAX and MLX differentiate it (reverse mode) with
        respect to plain operands and the bias; codes and scales are constants.

    Raises
    ------
    ValueError
        "shape mismatch ..." with both shapes.
    TypeError
        An operand or ``out_dtype`` of a kind that cannot be multiplied.

    Source: docs/numerics.md, products.

    >>> import numpy as np, breccia
    >>> a = breccia.cast(np.ones((2, 128), np.float32), breccia.Float8BlockScaling())
    >>> breccia.matmul(a, np.ones((128, 1), np.float32))
    array([[128.],
           [128.]], dtype=float32)
    """
    for side in (a, b):
        if isinstance(side, ScaledTensor):
            _scaled(side)
    if isinstance(a, PackedWeight) or isinstance(b, PackedWeight):
        return _matmul_packed(a, b, out_dtype, transpose_a, transpose_b, bias, threads)
    left, right = (frameworks.of(side.data if isinstance(side, ScaledTensor) else side) for side in (a, b))
    library = right if left is frameworks.numpy else left
    shape = _product_shape(a, b, transpose_a, transpose_b)
    format = _output(out_dtype, "float32, float16 or bfloat16")
    arrays = _arrays(a, b, bias)
    tracer = _tracer(arrays) or (library if library.recorded(arrays) else None)
    if bias is not None and tuple(bias.shape) != shape[-1:]:
        raise ValueError(f"shape mismatch: bias must be {shape[-1:]}, got {tuple(bias.shape)}")
    if tracer is None:
        return _matmul_now(library, a, b, shape, format, transpose_a, transpose_b, bias, threads)
    for name, side in (("a", a), ("b", b), ("bias", bias)):
        if side is not None and not isinstance(side, ScaledTensor):
            _source(name, side)
    return tracer.matmul(a, b, shape, format, transpose_a, transpose_b, bias, threads)


def _unwatched(arrays: list[Any], *, what: str) -> None:
    """Refuses what packed weights are not for."""
    if _tracer(arrays) is not None:
        raise TypeError(f"{what} cannot be traced: a PackedWeight is no array")
    for array in arrays:
        if frameworks.of(array).device(array) is not None:
            raise TypeError(f"{what} is done on the CPU; an array lies on a GPU")


def pack(weight: Any, activations: Any = "float32", *, transpose: bool = False, threads: int = 0) -> PackedWeight:
    """Puts a weight once into the order in which the products of this processor read it, for any number of ``matmul(a, packed)``.

    Parameters
    ----------
    weight
        ScaledTensor of any recipe or plain float64, float32, float16 or bfloat16 array, shape (..., K, N), of NumPy, PyTorch, JAX or MLX on a CPU.
    activations
        What the left sides will be: the dtype of plain arrays (float32, float16, bfloat16, float64, or its name), or a recipe
        (``INT8Scaling()``), whose codes are then multiplied as integers where the weight's are. A product with others may be refused.
    transpose
        A weight stored as [N, K] is ``transpose=True``; then ``matmul`` is told nothing more.
    threads
        As in ``cast``.

    Returns
    -------
    PackedWeight
        Of shape (..., K, N), about as large as the weight's codes and scales. The products are those of the weight itself, within the
        bound of ``matmul``, not bit for bit the same. The left sides are of NumPy, PyTorch or JAX; not of MLX, which would take the
        gradient that they do not have for zero.

    Raises
    ------
    TypeError
        ``weight`` is no array or ScaledTensor, ``activations`` no dtype or recipe; or an array is traced or lies on a GPU.
    ValueError
        Fewer than 2 dimensions, or parts that do not fit together.

    ``matmul`` raises NotImplementedError where the left side is of a kind that the weight was not packed for. Source: docs/numerics.md,
    products.

    >>> import numpy as np, breccia
    >>> weight = breccia.cast(np.ones((64, 128), np.float32), breccia.Float8BlockScaling())       # [N, K], as layers keep it
    >>> packed = breccia.pack(weight, transpose=True)
    >>> breccia.matmul(np.ones((2, 128), np.float32), packed)[:, :3]
    array([[128., 128., 128.],
           [128., 128., 128.]], dtype=float32)
    """
    if isinstance(weight, ScaledTensor):
        _scaled(weight)
    if isinstance(activations, ScalingRecipe) and hasattr(activations, "text"):
        format = activations._element                                            # type: ignore[attr-defined]
    else:
        found = _format_of(activations)
        if found is None:
            raise TypeError(f"activations must be float32, float16, bfloat16, float64 or one of breccia's recipes, got {activations!r}")
        format = found
    _unwatched(_arrays(weight), what="packing")
    if not isinstance(weight, ScaledTensor):
        _source("weight", weight)
    if len(weight.shape) < 2:
        raise ValueError(f"a weight has at least 2 dimensions, got {tuple(weight.shape)}")
    return PackedWeight(_description(weight) if isinstance(weight, ScaledTensor) else _read(weight), bool(transpose), format, threads)


def _matmul_packed(a: Any, b: Any, out_dtype: Any, transpose_a: bool, transpose_b: bool, bias: Any, threads: int) -> Any:
    if isinstance(a, PackedWeight):
        raise TypeError("a PackedWeight is the right side of a product")
    if transpose_b:
        raise ValueError("transpose_b: a weight is turned when it is packed, pack(weight, transpose=True)")
    library = frameworks.of(a.data if isinstance(a, ScaledTensor) else a)
    shape, format = _product_shape(a, b, transpose_a, False), _output(out_dtype, "float32, float16 or bfloat16")
    arrays = _arrays(a, bias)
    _unwatched(arrays, what="a product with a PackedWeight")
    if library.recorded(arrays):                                                 # always of MLX, which does not tell
        raise TypeError("a product with a PackedWeight has no gradient, which may be wanted here: multiply with the weight itself, or without "
                        "grad (torch.no_grad)")
    if bias is not None and tuple(bias.shape) != shape[-1:]:
        raise ValueError(f"shape mismatch: bias must be {shape[-1:]}, got {tuple(bias.shape)}")
    out = library.empty(shape, format)
    left = _description(a) if isinstance(a, ScaledTensor) else _read(a)
    _c.matmul(left, b._native, transpose_a, False, _read(bias), library.write(out, format), threads)
    return library.finish(out, format)


def _matmul_now(library: Any, a: Any, b: Any, shape: Any, format: str, transpose_a: bool, transpose_b: bool, bias: Any,
                threads: int) -> Any:
    if any(frameworks.of(part).device(part) is not None for part in _arrays(a, b)):
        return _gpu(library).matmul(library, a, b, shape, format, transpose_a, transpose_b, bias)
    out = library.empty(shape, format)
    left, right = (_description(side) if isinstance(side, ScaledTensor) else _read(side) for side in (a, b))
    _c.matmul(left, right, transpose_a, transpose_b, _read(bias), library.write(out, format), threads)
    return library.finish(out, format)
