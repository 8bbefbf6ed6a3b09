# SPDX-License-Identifier: Apache-2.0
"""Weights that are packed once and multiplied often."""
from typing import Any, NoReturn

from breccia import _c

__all__ = ["PackedWeight"]


class PackedWeight:
    """A weight in the order in which the products of this processor read it: what ``pack`` returns, and ``matmul`` takes as ``b``.

    A frozen value, which any number of threads may use at one time; the weight it was made of is not needed afterwards. It is no array:
    its order is that of this processor and this version, so that it is neither saved nor pickled (TypeError), nor traced, nor
    differentiated. Its dtype is its own: codes stay as narrow as they were where a kernel reads them so, else they are float32.

    Source: docs/numerics.md, products; breccia.h, brc_pack_new.

    >>> import numpy as np, breccia
    >>> weight = breccia.cast(np.ones((64, 128), np.float32), breccia.NVFP4BlockScaling())
    >>> breccia.pack(weight, transpose=True).shape
    (128, 64)
    """

    __slots__ = ("_native",)
    _native: _c.Packed

    def __init__(self, weight: Any, transpose: bool, activations: str, threads: int) -> None:
        object.__setattr__(self, "_native", _c.Packed(weight, transpose, activations, threads))

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError("a PackedWeight is frozen")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a PackedWeight is of one processor: save the weight, and pack it again")

    @property
    def shape(self) -> tuple[int, ...]:
        """As the right side of a product: (..., K, N)."""
        return self._native.shape

    @property
    def ndim(self) -> int:
        """The length of ``shape``."""
        return len(self._native.shape)

    @property
    def kind(self) -> str:
        """In which order it is kept, for people: "f32" where there is no narrower one."""
        return self._native.kind

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        return self._native.nbytes

    def __repr__(self) -> str:
        return f"breccia.PackedWeight(shape={self.shape}, kind={self.kind!r}, nbytes={self.nbytes})"
