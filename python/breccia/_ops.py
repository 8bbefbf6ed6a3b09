# SPDX-License-Identifier: Apache-2.0
"""cast, dequantize, requantize, matmul: the same four functions for the arrays of every library.

What is done here is to find memory and to name formats; the numbers are libbreccia's.
"""
from typing import Any

import numpy as np

from breccia import _c
from breccia import _frameworks as frameworks
from breccia._core import ScaledTensor, _make
from breccia.layouts import Layout
from breccia.recipes import DelayedState, ScalingRecipe

__all__ = ["cast", "dequantize", "requantize", "matmul"]

_OUTPUT = {"f32": "f32", "f16": "f16", "bf16": "bf16", "f64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16",
           "float64": "f64", "fp32": "f32", "fp16": "f16"}


def _castable(recipe: Any) -> None:
    if not isinstance(recipe, ScalingRecipe) or not hasattr(recipe, "text"):
        raise TypeError(f"unsupported recipe: {type(recipe).__name__}; one of breccia.recipes is needed")


def _shapes(recipe: Any, shape: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of data and scale that a cast of this shape gives; ValueError if the recipe cannot be cast to it."""
    if recipe._layout._block != (0, 0, 0) and len(shape) < 2:
        raise ValueError(f"{type(recipe).__name__} requires x.ndim >= 2, got {len(shape)}")
    if not shape:
        raise ValueError("x must be at least 1-D, got 0-D")
    bits = recipe._bits
    data = tuple(shape) if bits == 8 else (*shape[:-1], (shape[-1] * bits + 7) // 8)
    return data, recipe._layout._scale_shape(shape)


def _storage(recipe: Any) -> str:
    """Format in which a library holds the codes: their own where they are whole bytes, else bytes."""
    return recipe._element if recipe._bits == 8 else "uint8"


def _numbers(format: str) -> str:
    """Format in which a library holds scales: 8-bit ones are codes."""
    return "uint8" if format in ("e8m0", "e4m3") else format


def _planned(recipe: Any, shape: Any) -> list[tuple[Any, str]]:
    """Shape and format of data, scale, and of the global scale and the zero point where the recipe has them."""
    data, scale = _shapes(recipe, shape)
    plan: list[tuple[Any, str]] = [(data, _storage(recipe)), (scale, _numbers(recipe._scale))]
    if recipe._levels == 2:
        plan.append(((), "f32"))
    if recipe._zero is not None:
        plan.append((scale, recipe._zero))
    return plan


def _outputs(library: Any, recipe: Any, shape: Any) -> list[Any]:
    """Memory for data, scale, global scale, zero point; None for what the recipe does not have."""
    data, scale = _shapes(recipe, shape)
    return [library.empty(data, _storage(recipe)), library.empty(scale, _numbers(recipe._scale)),
            library.empty((), "f32") if recipe._levels == 2 else None,
            None if recipe._zero is None else library.empty(scale, recipe._zero)]


def _finish(library: Any, recipe: Any, shape: Any, outputs: list[Any]) -> ScaledTensor:
    data, scale, level, zero = outputs
    return _make(library.finish(data, _storage(recipe)), library.finish_scale(scale, _numbers(recipe._scale)), recipe,
                 recipe._layout, None if zero is None else library.finish(zero, recipe._zero),
                 None if level is None else library.finish(level, "f32"), None, tuple(shape), None)


def _written(library: Any, outputs: list[Any]) -> list[Any]:
    """What a cast fills: its formats are the recipe's."""
    return [None if memory is None else library.write(memory, "") for memory in outputs]


def _listed(st: ScaledTensor) -> list[Any]:
    """The arrays of a cast's result in the order of `_planned`."""
    return [part for part in (st.data, st.scale, st.global_scale, st.zero_point) if part is not None]


def _from_list(parts: Any, recipe: Any, shape: Any) -> ScaledTensor:
    left = list(parts)
    data, scale = left.pop(0), left.pop(0)
    level = left.pop(0) if recipe._levels == 2 else None
    return _make(data, scale, recipe, recipe._layout, left.pop(0) if left else None, level, None, tuple(shape), None)


def _cast_into(library: Any, x: Any, recipe: Any, state: DelayedState | None, threads: int) -> list[Any]:
    outputs = _outputs(library, recipe, x.shape)
    numbers = None if state is None else (state._numbers, state.history)
    data, scale, level, zero = _written(library, outputs)
    _c.cast(recipe._native, library.read(x), data, scale, level, zero, numbers, threads)
    return outputs


def _cast_now(library: Any, x: Any, recipe: Any, state: DelayedState | None, threads: int) -> ScaledTensor:
    return _finish(library, recipe, x.shape, _cast_into(library, x, recipe, state, threads))


def cast(x: Any, recipe: ScalingRecipe, state: DelayedState | None = None, *, threads: int = 0) -> ScaledTensor:
    """Quantizes an array under a recipe.

    Parameters
    ----------
    x
        float64, float32, float16 or bfloat16 array (..., M, K) of NumPy, PyTorch, JAX or MLX, any strides; float64 is
        rounded to float32 first. Block recipes need rank >= 2 and axes that the block divides (or ``partial=True``).
    recipe
        One of ``breccia.recipes``.
    state
        Only with ``DelayedScaling``: its scale is used and its amax is written.
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
        The shape does not fit the recipe.

    The numbers are defined in docs/numerics.md: OCP Microscaling Formats 1.0, and the libraries each recipe names.

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
        return library.cast(x, recipe, threads)
    return _cast_now(library, x, recipe, state, threads)


def _scaled(st: Any) -> None:
    if not isinstance(st, ScaledTensor):
        raise TypeError(f"a ScaledTensor is needed, got {type(st).__name__}")
    _castable(st.recipe)
    if not isinstance(st.layout, Layout):
        raise TypeError(f"unsupported layout: {type(st.layout).__name__}; one of breccia.layouts is needed")


def _packed(library: Any, st: ScaledTensor) -> Any:
    """The codes as the extension reads them; those that lie one a byte are packed first."""
    bits = st.recipe._bits
    if bits == 8 or st.storage_shape != st.shape or st.shape[-1] * bits <= 8:
        return library.read(st.data)
    codes = np.frombuffer(_c.bytes_of(library.read(st.data)), np.uint8)
    # Each row starts on a byte; rows of whole bytes are one long row.
    codes = codes.reshape(1, -1) if st.shape[-1] * bits % 8 == 0 else codes.reshape(-1, st.shape[-1])
    numbers = np.empty(codes.shape, np.float32)
    packed = np.empty((len(codes), (codes.shape[-1] * bits + 7) // 8), np.uint8)
    # Two's complement in a byte keeps its meaning as int8; every other code is a plain number.
    signed = st.recipe._element.startswith("int") and _c.format_of(library.read(st.data)) == "int8"
    for row, wide, narrow in zip(codes, numbers, packed):
        _c.decode("int8" if signed else "uint8", row, wide)
        _c.encode(f"{'int' if signed else 'uint'}{bits}", wide, narrow)
    return packed.reshape(*st.shape[:-1], (st.shape[-1] * bits + 7) // 8)


def _description(st: ScaledTensor) -> tuple[Any, ...]:
    """A ScaledTensor as the extension takes it."""
    library = frameworks.of(st.data)
    read = library.read
    layout = st.layout
    return (st.recipe._native, st.shape, layout._number, layout._block, _packed(library, st),
            frameworks.of(st.scale).read(st.scale),
            None if st.global_scale is None else read(st.global_scale),
            None if st.zero_point is None else read(st.zero_point),
            None if st.group_index is None else read(st.group_index))


def _output(library: Any, dtype: Any) -> str:
    """Name of the format of an output type: a dtype of any library, or its name."""
    if dtype is None or dtype is np.float32:
        return "f32"
    if isinstance(dtype, str):
        format = _OUTPUT.get(dtype)
    elif isinstance(dtype, type):
        format = _OUTPUT.get(dtype.__name__)
    else:
        format = library.dtype_format(dtype)
    if format is None:
        raise TypeError(f"dtype must be float32, float16, bfloat16 or float64, got {dtype!r}")
    return format


def _dequantize_now(library: Any, st: ScaledTensor, format: str, threads: int) -> Any:
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
        Not a ScaledTensor, or a dtype that cannot hold the numbers.
    ValueError
        The parts do not fit together.

    >>> import numpy as np, breccia
    >>> breccia.dequantize(breccia.cast(np.array([[1.0, 2.0]], np.float32), breccia.Float8CurrentScaling()))
    array([[1., 2.]], dtype=float32)
    """
    _scaled(st)
    library = frameworks.of(st.data)
    format = _output(library, dtype)
    if library.traced(st.data):
        return library.dequantize(st, format, threads)
    return _dequantize_now(library, st, format, threads)


def _requantize_into(library: Any, st: ScaledTensor, recipe: Any, threads: int) -> list[Any]:
    outputs = _outputs(library, recipe, st.shape)
    data, scale, level, zero = _written(library, outputs)
    _c.requantize(_description(st), recipe._native, data, scale, level, zero, threads)
    return outputs


def _requantize_now(library: Any, st: ScaledTensor, recipe: Any, threads: int) -> ScaledTensor:
    return _finish(library, recipe, st.shape, _requantize_into(library, st, recipe, threads))


def requantize(st: ScaledTensor, recipe: ScalingRecipe, *, threads: int = 0) -> ScaledTensor:
    """A ScaledTensor under another recipe: directly where every value can be kept exactly, else through float32.

    The same recipe and layout give the same bits. Raises as ``cast`` and ``dequantize`` do.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.ones((2, 32), np.float32), breccia.MXFP8BlockScaling())
    >>> breccia.requantize(st, breccia.Float8CurrentScaling()).layout
    PerTensor()
    """
    _scaled(st)
    _castable(recipe)
    library = frameworks.of(st.data)
    if st.recipe == recipe and st.layout == recipe._layout:                     # type: ignore[attr-defined]
        return st
    if library.traced(st.data):
        return library.requantize(st, recipe, threads)
    return _requantize_now(library, st, recipe, threads)


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
        ScaledTensor or plain float array; at least one of them scaled. Any layout on either side.
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
        output, where exact uses the dequantized float32 values.

    Raises
    ------
    ValueError
        "shape mismatch ..." with both shapes.
    TypeError
        An operand or ``out_dtype`` of a kind that cannot be multiplied.

    >>> import numpy as np, breccia
    >>> a = breccia.cast(np.ones((2, 128), np.float32), breccia.Float8BlockScaling())
    >>> breccia.matmul(a, np.ones((128, 1), np.float32))
    array([[128.],
           [128.]], dtype=float32)
    """
    for side in (a, b):
        if isinstance(side, ScaledTensor):
            _scaled(side)
    left, right = (side.data if isinstance(side, ScaledTensor) else side for side in (a, b))
    library, other = frameworks.of(left), frameworks.of(right)
    traced = library.traced(left) or other.traced(right)
    if library is frameworks.numpy:
        library = other
    shape = _product_shape(a, b, transpose_a, transpose_b)
    format = _output(library, out_dtype)
    if traced:
        return library.matmul(a, b, shape, format, transpose_a, transpose_b, bias, threads)
    return _matmul_now(library, a, b, shape, format, transpose_a, transpose_b, bias, threads)


def _matmul_now(library: Any, a: Any, b: Any, shape: Any, format: str, transpose_a: bool, transpose_b: bool, bias: Any,
                threads: int) -> Any:
    out = library.empty(shape, format)
    left, right = (_description(side) if isinstance(side, ScaledTensor) else frameworks.of(side).read(side) for side in (a, b))
    _c.matmul(left, right, transpose_a, transpose_b, None if bias is None else frameworks.of(bias).read(bias), library.write(out, format),
              threads)
    return library.finish(out, format)
