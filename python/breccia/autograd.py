# SPDX-License-Identifier: Apache-2.0
"""Training through a cast: straight-through estimators (Bengio et al. 2013, arXiv 1308.3432).

Forward is ``dequantize(cast(x))``; backward passes the gradient as if the cast were the identity.
"""
from typing import Any

from breccia import _c
from breccia import _frameworks as frameworks
from breccia._ops import _castable, cast, dequantize

__all__ = ["cast_ste", "cast_ste_clipped"]


def _estimate(x: Any, recipe: Any, low: float | None, high: float | None) -> Any:
    library = frameworks.of(x)
    if library is frameworks.numpy:
        return dequantize(cast(x, recipe), x.dtype)
    return library.cast_ste(x, recipe, low, high)


def cast_ste(x: Any, recipe: Any) -> Any:
    """The numbers of ``x`` as the recipe can hold them, with the gradient of the identity.

    Parameters
    ----------
    x
        float array (..., M, K) of PyTorch, JAX or MLX; of NumPy too, where it is a plain round trip.
    recipe
        One of ``breccia.recipes``.

    Returns
    -------
    array
        Same library, shape, dtype and units as ``x``.

    Raises TypeError and ValueError as ``cast`` does. Source: Bengio et al. 2013, arXiv 1308.3432.

    >>> import numpy as np, breccia
    >>> breccia.cast_ste(np.array([[0.3, 7.0]], np.float32), breccia.Float8CurrentScaling())
    array([[0.3125, 7.    ]], dtype=float32)
    """
    _castable(recipe)
    return _estimate(x, recipe, None, None)


def cast_ste_clipped(x: Any, recipe: Any, clip_min: float | None = None, clip_max: float | None = None) -> Any:
    """``cast_ste`` whose gradient is zero where ``x`` lies outside [clip_min, clip_max].

    Parameters
    ----------
    x, recipe
        As in ``cast_ste``.
    clip_min, clip_max
        In units of ``x``. Default of clip_max: the largest number of the recipe's element format (448 for E4M3, 6 for E2M1,
        7 for signed INT4). Default of clip_min: ``-clip_max``; 0 for unsigned integers without a zero point, which hold no
        negative numbers. The forward values are not clipped.

    Returns
    -------
    array
        As ``cast_ste``: library, shape and dtype of ``x``.

    Raises TypeError and ValueError as ``cast`` does. Source: Bengio et al. 2013, arXiv 1308.3432; the bounds are breccia's.

    >>> import numpy as np, breccia
    >>> breccia.cast_ste_clipped(np.array([[0.3, 7.0]], np.float32), breccia.Float8CurrentScaling(), clip_max=1.0)
    array([[0.3125, 7.    ]], dtype=float32)
    """
    _castable(recipe)
    facts = _c.FORMATS[recipe._element]                                         # type: ignore[attr-defined]
    high = float(facts["max"] if clip_max is None else clip_max)
    if clip_min is None:
        clip_min = 0.0 if facts["min"] == 0 and recipe._zero is None else -high  # type: ignore[attr-defined]
    return _estimate(x, recipe, float(clip_min), high)
