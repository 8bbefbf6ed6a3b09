# SPDX-License-Identifier: Apache-2.0
"""Layouts: how many neighbouring elements share one scale.

A layout is geometry alone, frozen and hashable. ``validate(data, scale)`` says whether the two arrays fit it.

>>> from breccia import PerBlockK
>>> import numpy as np
>>> PerBlockK(128).validate(np.zeros((4, 256), np.uint8), np.ones((4, 2), np.float32))
"""
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from breccia import _c

__all__ = ["Layout", "PerTensor", "PerBlockK", "PerChannel", "PerBlockMN", "PerColumn"]

_NUMBERS = {name: row["number"] for name, row in _c.LAYOUTS.items()}


def _choice(field: str, value: Any, allowed: Any) -> None:
    if value not in tuple(allowed):
        raise ValueError(f"{field} must be {' or '.join(map(str, allowed))}, got {value!r}")


def _positive(field: str, value: Any) -> None:
    """Sides of blocks and lengths are 32-bit in C."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= 0x7FFFFFFF:
        raise ValueError(f"{field} must be a whole number from 1 to 2147483647, got {value!r}")


class Layout:
    """Base of the layouts: which shape a scale has for data of a shape, whatever their dtypes. Own layouts may have
    ``validate(data, scale)``, which raises ValueError for what does not fit. Source: docs/python.md.

    >>> issubclass(PerBlockK, Layout), PerBlockK.name
    (True, 'per_block_k')
    """

    name: ClassVar[str] = "layout"

    def validate(self, data: Any, scale: Any, shape: Any = None) -> None:
        """Raises ValueError unless ``scale`` fits ``data``.

        ``shape`` is the logical shape, given only where storage and logical shape differ (packed 4-bit data).
        """
        raise NotImplementedError(f"{type(self).__name__} has no validate")

    def _scale_shape(self, shape: Any) -> tuple[int, ...]:
        """Shape of the scale of a tensor of this logical shape; ValueError if there can be none."""
        raise NotImplementedError(f"{type(self).__name__} has no _scale_shape")

    def _expect(self, shape: Any, scale: Any) -> None:
        wanted = self._scale_shape(shape)
        if tuple(scale.shape) != wanted:
            raise ValueError(f"{type(self).__name__}: scale.shape must be {wanted}, got {tuple(scale.shape)}")


def _matrix(layout: Layout, shape: Any) -> None:
    if len(shape) < 2:
        raise ValueError(f"{type(layout).__name__} requires data.ndim >= 2, got ndim={len(shape)}")


def _along(layout: Any, shape: Any, axis: int, field: str) -> int:
    """Blocks along an axis."""
    n, block = shape[axis], getattr(layout, field)
    if not layout.partial and n % block != 0:
        raise ValueError(f"{type(layout).__name__}: data.shape[{axis}]={n} is not divisible by {field}={block}; "
                         "partial=True allows partial edge blocks")
    return (n + block - 1) // block


@dataclass(frozen=True)
class PerTensor(Layout):
    """One scale for the whole tensor: ``scale`` is a scalar, shape ``()``, of any floating-point dtype.

    ``validate`` raises ValueError for any other. Source: TransformerEngine's per-tensor scaling.

    >>> import numpy as np
    >>> PerTensor().validate(np.zeros((4, 8), np.uint8), np.ones(3, np.float32))
    Traceback (most recent call last):
    ValueError: PerTensor requires a scalar scale (ndim=0), got ndim=1 with scale.shape=(3,)
    """

    name: ClassVar[str] = "per_tensor"
    _number: ClassVar[int] = _NUMBERS["PerTensor"]
    _block: ClassVar[tuple[int, int, int]] = (0, 0, 0)

    def validate(self, data: Any, scale: Any, shape: Any = None) -> None:
        """Raises ValueError unless ``scale`` has no dimensions."""
        if len(scale.shape) != 0:
            raise ValueError(f"PerTensor requires a scalar scale (ndim=0), got ndim={len(scale.shape)} "
                             f"with scale.shape={tuple(scale.shape)}")

    def _scale_shape(self, shape: Any) -> tuple[int, ...]:
        return ()


@dataclass(frozen=True)
class PerChannel(Layout):
    """One scale for each row of K elements: ``scale`` has shape ``(..., M, 1)`` for data ``(..., M, K)``, or ``(M,)``, which
    every matrix of a batch shares. Of any floating-point dtype.

    ``validate`` raises ValueError for any other shape, or for data of rank 1. Source: torchao's ``PerRow``.

    >>> import numpy as np
    >>> PerChannel().validate(np.zeros((4, 8), np.uint8), np.ones((4, 1), np.float32))
    """

    name: ClassVar[str] = "per_channel"
    _number: ClassVar[int] = _NUMBERS["PerChannel"]
    _block: ClassVar[tuple[int, int, int]] = (1, 1, 0)

    def validate(self, data: Any, scale: Any, shape: Any = None) -> None:
        """Raises ValueError unless ``scale`` has one number for each row."""
        shape = tuple(data.shape) if shape is None else tuple(shape)
        _matrix(self, shape)
        allowed = [self._scale_shape(shape), shape[-2:-1]]
        if tuple(scale.shape) not in allowed:
            raise ValueError(f"PerChannel: scale.shape must be {' or '.join(map(str, allowed))}, got {tuple(scale.shape)}")

    def _scale_shape(self, shape: Any) -> tuple[int, ...]:
        _matrix(self, shape)
        return (*shape[:-1], 1)


@dataclass(frozen=True)
class PerBlockK(Layout):
    """One scale for each run of ``block_size`` elements of the last axis: ``scale`` has shape ``(..., K / block_size)``.

    The scale's dtype is the recipe's to say. ``partial=True`` allows a shorter last block (the count is ceil-divided); otherwise K
    must be divisible, or ValueError. Source: DeepSeek-V3's 1x128 blocks; GPTQ's groups.

    >>> import numpy as np
    >>> PerBlockK(32).validate(np.zeros((4, 48), np.uint8), np.ones((4, 2), np.float32))
    Traceback (most recent call last):
    ValueError: PerBlockK: data.shape[-1]=48 is not divisible by block_size=32; partial=True allows partial edge blocks
    """

    block_size: int = 128
    partial: bool = False
    name: ClassVar[str] = "per_block_k"
    _number: ClassVar[int] = _NUMBERS["PerBlockK"]

    def __post_init__(self) -> None:
        _positive("block_size", self.block_size)
        _choice("partial", self.partial, (True, False))

    def validate(self, data: Any, scale: Any, shape: Any = None) -> None:
        """Raises ValueError unless K is divisible and ``scale`` has one number for each block."""
        self._expect(data.shape if shape is None else shape, scale)

    def _scale_shape(self, shape: Any) -> tuple[int, ...]:
        _matrix(self, shape)
        return (*shape[:-1], _along(self, shape, -1, "block_size"))

    @property
    def _block(self) -> tuple[int, int, int]:
        return 1, 1, self.block_size


@dataclass(frozen=True)
class PerBlockMN(Layout):
    """One scale for each tile of ``block_m`` rows and ``block_n`` columns: ``scale`` has shape ``(..., M/block_m, N/block_n)``.

    The scale's dtype is the recipe's to say. ``partial=True`` allows partial edge tiles (the counts are ceil-divided); otherwise both
    axes must be divisible, or ValueError. Source: OCP Microscaling Formats 1.0 (1x32); DeepSeek-V3's 128x128 weights.

    >>> import numpy as np
    >>> PerBlockMN(128, 128).validate(np.zeros((256, 384), np.uint8), np.ones((2, 3), np.float32))
    """

    block_m: int = 1
    block_n: int = 32
    partial: bool = False
    name: ClassVar[str] = "per_block_mn"
    _number: ClassVar[int] = _NUMBERS["PerBlockMN"]

    def __post_init__(self) -> None:
        _positive("block_m", self.block_m)
        _positive("block_n", self.block_n)
        _choice("partial", self.partial, (True, False))

    def validate(self, data: Any, scale: Any, shape: Any = None) -> None:
        """Raises ValueError unless both axes are divisible and ``scale`` has one number for each tile."""
        self._expect(data.shape if shape is None else shape, scale)

    def _scale_shape(self, shape: Any) -> tuple[int, ...]:
        _matrix(self, shape)
        return (*shape[:-2], _along(self, shape, -2, "block_m"), _along(self, shape, -1, "block_n"))

    @property
    def _block(self) -> tuple[int, int, int]:
        return 1, self.block_m, self.block_n


@dataclass(frozen=True)
class PerColumn(Layout):
    """One scale for each column of a matrix, shared by its M rows: ``scale`` has shape ``(..., 1, K)`` for data ``(..., M, K)``
    (torchao's ``PerRow(dim=0)``, Llama 4's experts).

    Of any floating-point dtype. ``validate`` raises ValueError for any other shape, or for data of rank 1. Source: torchao.

    >>> import numpy as np
    >>> PerColumn().validate(np.zeros((4, 8), np.uint8), np.ones((1, 8), np.float32))
    """

    name: ClassVar[str] = "per_column"
    _number: ClassVar[int] = _NUMBERS["PerColumn"]
    _block: ClassVar[tuple[int, int, int]] = (1, 0, 1)

    def validate(self, data: Any, scale: Any, shape: Any = None) -> None:
        """Raises ValueError unless ``scale`` has one number for each column."""
        self._expect(data.shape if shape is None else shape, scale)

    def _scale_shape(self, shape: Any) -> tuple[int, ...]:
        _matrix(self, shape)
        return (*shape[:-2], 1, shape[-1])


def _of_number(number: int, block: tuple[int, int, int], partial: bool) -> Layout:
    """The layout of a number of the C table and a block."""
    if number == _NUMBERS["PerBlockK"]:
        return PerBlockK(block[2], partial)
    if number == _NUMBERS["PerBlockMN"]:
        return PerBlockMN(block[1], block[2], partial)
    return {_NUMBERS[kind.__name__]: kind() for kind in (PerTensor, PerChannel, PerColumn)}[number]
