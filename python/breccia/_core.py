# SPDX-License-Identifier: Apache-2.0
"""ScaledTensor: data and scale in one value, with the recipe and the layout that say what they mean."""
from dataclasses import dataclass
from typing import Any

import numpy as np

from breccia import _c, _frameworks
from breccia._frameworks import _is_jax, _is_mlx, _is_torch

__all__ = ["ScaledTensor", "from_buffer", "_is_torch", "_is_mlx", "_is_jax"]


def _array_like(value: Any, name: str) -> None:
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        raise TypeError(f"{name} must be array-like (with .shape and .dtype), got {type(value).__name__}")


def _default_shape(data: Any, recipe: Any) -> tuple[int, ...]:
    """The logical shape of packed rows: the last axis holds bytes, or elements of a byte each."""
    shape = tuple(data.shape)
    bits = getattr(recipe, "_bits", 8)
    return shape if bits >= 8 or not shape else (*shape[:-1], shape[-1] * 8 // bits)


@dataclass(frozen=True, eq=False, repr=False)
class ScaledTensor:
    """Low-precision numbers with the scale that gives them their meaning. A frozen value.

    Parameters
    ----------
    data
        Codes of the recipe's element format, an array of rank >= 1 of NumPy, PyTorch, JAX, MLX or CuPy. FP8: the framework's
        float8 type, or bytes (uint8, int8). 4-bit: uint8, two codes a byte, the first in the low bits.
    scale
        One number for each block of ``layout``, in units of the values for each unit of a code; dequantization multiplies by
        it. float32, float16, bfloat16; MX and NVFP4: uint8 codes (E8M0, E4M3). Other integers are no scales.
    recipe
        How the numbers were made; a ``ScalingRecipe``, or any value with a ``name``.
    layout
        Which elements share a scale; a ``Layout``, or any value. ``layout.validate(data, scale)`` is called if it has one.
    zero_point
        For asymmetric integers: one number for each block, in code units; same shape as ``scale``.
    global_scale
        NVFP4's second level: one float32 number; absent means 1.
    group_index
        int32 ``[K]``: which column of ``scale`` each column of ``data`` uses (GPTQ's act-order).
    shape
        The logical shape. Default: ``data.shape``, with the last axis twice as long for packed 4-bit data; 4-bit data with
        one code a byte passes ``shape=data.shape``.
    origin
        What a lossless way back to a file needs, as the reader left it; takes no part in ``==``.

    Raises TypeError for what is no array, ValueError for what does not fit together. ``==`` compares recipe, layout, shape and
    bytes; TypeError for traced or device arrays, which have none to compare. Source: docs/python.md, docs/numerics.md.

    >>> import numpy as np, breccia
    >>> st = breccia.ScaledTensor(np.array([[0x38, 0x40]], np.uint8), np.float32(2), breccia.Float8CurrentScaling(),
    ...                           breccia.PerTensor())
    >>> st
    breccia.ScaledTensor(shape=(1, 2), data_dtype=uint8, scale_shape=(), recipe=Float8CurrentScaling, layout=PerTensor)
    >>> breccia.dequantize(st)
    array([[2., 4.]], dtype=float32)
    """

    data: Any
    scale: Any
    recipe: Any
    layout: Any
    zero_point: Any = None
    global_scale: Any = None
    group_index: Any = None
    shape: Any = None
    origin: Any = None
    __array_ufunc__ = None                # NumPy's operators leave a ScaledTensor alone: x == st is False, not an array

    def __post_init__(self) -> None:
        data, scale = self.data, self.scale
        _array_like(data, "data")
        _array_like(scale, "scale")
        for name in ("zero_point", "global_scale", "group_index"):
            if getattr(self, name) is not None:
                _array_like(getattr(self, name), name)
        storage = tuple(data.shape)
        if not storage:
            raise ValueError("data must be at least 1-D, got 0-D")
        if self.recipe is None:
            raise ValueError("recipe is required (breccia.recipes)")
        if self.layout is None:
            raise ValueError("layout is required (breccia.layouts)")
        if self.zero_point is not None and tuple(self.zero_point.shape) != tuple(scale.shape):
            raise ValueError(f"zero_point.shape {tuple(self.zero_point.shape)} must match scale.shape {tuple(scale.shape)}")
        default = _default_shape(data, self.recipe)
        shape = default if self.shape is None else _given_shape(self.shape)
        if shape != default and shape != storage:
            _check_packing(shape, storage, self.recipe)
        self.__dict__["shape"] = shape
        validate = getattr(self.layout, "validate", None)
        if validate is not None:
            validate(data, scale) if shape == storage else validate(data, scale, shape=shape)
        if _frameworks.unregistered:
            _frameworks.register()

    @property
    def storage_shape(self) -> tuple[int, ...]:
        """Shape of ``data``: for packed elements the last axis counts bytes."""
        return tuple(self.data.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def data_dtype(self) -> Any:
        """The framework's dtype of ``data``."""
        return self.data.dtype

    @property
    def scale_dtype(self) -> Any:
        """The framework's dtype of ``scale``."""
        return self.scale.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays: data, scale, zero_point, global_scale, group_index."""
        return sum(int(part.nbytes) for part in _parts(self) if part is not None)

    def __repr__(self) -> str:
        # Leaves of a pytree may be anything: what has no dtype or no shape is shown as it is.
        scale = getattr(self.scale, "shape", None)
        return (f"breccia.ScaledTensor(shape={self.shape}, data_dtype={getattr(self.data, 'dtype', self.data)}, "
                f"scale_shape={self.scale if scale is None else tuple(scale)}, recipe={type(self.recipe).__name__}, "
                f"layout={type(self.layout).__name__})")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScaledTensor):
            return NotImplemented
        if self is other:
            return True
        return (self.recipe == other.recipe and self.layout == other.layout and self.shape == other.shape
                and _bytes(self) == _bytes(other))

    def __hash__(self) -> int:
        return hash((self.recipe, self.layout, self.shape, _bytes(self)))


def _given_shape(shape: Any) -> tuple[int, ...]:
    sides = tuple(shape) if hasattr(shape, "__iter__") else None
    if sides is None or not all(hasattr(n, "__index__") for n in sides):
        raise TypeError(f"shape must be a sequence of whole numbers, got {shape!r}")
    return tuple(int(n) if isinstance(n, np.integer) else n for n in sides)


def _check_packing(shape: tuple[int, ...], storage: tuple[int, ...], recipe: Any) -> None:
    bits = getattr(recipe, "_bits", 8)
    if shape[:-1] != storage[:-1] or (shape[-1] * bits + 7) // 8 != storage[-1]:
        raise ValueError(f"shape {shape} does not fit data.shape {storage} with {bits}-bit elements")


_PARTS = ("data", "scale", "zero_point", "global_scale", "group_index")


def _parts(st: ScaledTensor) -> tuple[Any, ...]:
    return st.data, st.scale, st.zero_point, st.global_scale, st.group_index


def _content(part: Any) -> bytes | None:
    if part is None:
        return None
    library = _frameworks.of(part)
    if library.traced(part):
        raise TypeError("a ScaledTensor of traced arrays has no bytes to compare or hash")
    return _c.bytes_of(library.read(part))


def _bytes(st: ScaledTensor) -> tuple[bytes | None, ...]:
    return tuple(map(_content, _parts(st)))


def _make(data: Any, scale: Any, recipe: Any, layout: Any, zero_point: Any, global_scale: Any, group_index: Any, shape: Any,
          origin: Any) -> ScaledTensor:
    """A ScaledTensor of parts that are known to fit: what C has written, or leaves of a pytree."""
    st = object.__new__(ScaledTensor)
    fields = st.__dict__
    fields["data"], fields["scale"], fields["recipe"], fields["layout"] = data, scale, recipe, layout
    fields["zero_point"], fields["global_scale"], fields["group_index"] = zero_point, global_scale, group_index
    fields["shape"], fields["origin"] = shape, origin
    return st


def _flatten(st: ScaledTensor) -> tuple[list[Any], tuple[Any, ...]]:
    """The arrays that are there, and the rest, for pytrees. The shape follows the arrays where it is the default, so that
    vmap may change it. Leaves may be anything while a library looks at the structure."""
    shape = st.shape if hasattr(st.data, "shape") and st.shape != _default_shape(st.data, st.recipe) else None
    parts = _parts(st)
    return [part for part in parts if part is not None], (st.recipe, st.layout, shape, tuple(part is not None for part in parts))


def _named(st: ScaledTensor) -> list[str]:
    """The names of what `_flatten` finds, in its order."""
    return [name for name, part in zip(_PARTS, _parts(st)) if part is not None]


def _unflatten(rest: tuple[Any, ...], parts: Any) -> ScaledTensor:
    recipe, layout, shape, there = rest
    left = list(parts)
    data, scale, zero_point, global_scale, group_index = (left.pop(0) if present else None for present in there)
    if shape is None and hasattr(data, "shape"):
        shape = _default_shape(data, recipe)
    return _make(data, scale, recipe, layout, zero_point, global_scale, group_index, shape, None)


def from_buffer(data: Any, scale: Any, recipe: Any, layout: Any, zero_point: Any = None, global_scale: Any = None,
                group_index: Any = None, shape: Any = None, origin: Any = None) -> ScaledTensor:
    """A ScaledTensor over existing arrays, without a copy and without quantizing again.

    Arguments, shapes, dtypes and units are those of ``ScaledTensor``. Raises TypeError and ValueError as it does. Source:
    docs/python.md.

    >>> import numpy as np, breccia
    >>> codes = np.array([[56, 64]], np.uint8)
    >>> st = breccia.from_buffer(codes, np.float32(0.5), breccia.Float8CurrentScaling(), breccia.PerTensor())
    >>> st.data is codes, breccia.dequantize(st)
    (True, array([[0.5, 1. ]], dtype=float32))
    """
    return ScaledTensor(data, scale, recipe, layout, zero_point, global_scale, group_index, shape, origin)
