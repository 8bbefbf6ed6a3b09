# SPDX-License-Identifier: Apache-2.0
"""Training through a cast: straight-through estimators (Bengio et al. 2013, arXiv 1308.3432).

Forward is ``dequantize(cast(x))``; backward passes the gradient as if the cast were the identity.
"""
from typing import Any

from breccia import _c
from breccia import _frameworks as frameworks
from breccia._ops import _castable, cast, dequantize

__all__ = ["cast_ste", "cast_ste_clipped"]


def _round_trip(x: Any, recipe: Any) -> Any:
    """``dequantize(cast(x))`` in the type of x."""
    return dequantize(cast(x, recipe), x.dtype)


def cast_ste(x: Any, recipe: Any) -> Any:
    """The numbers of ``x`` as the recipe can hold them, with the gradient of the identity.

    Parameters
    ----------
    x
        float array (..., M, K) of PyTorch or JAX; of NumPy and MLX too, where it is a plain round trip.
    recipe
        One of ``breccia.recipes``.

    Returns
    -------
    array
        Same library, shape and dtype as ``x``. Raises as ``cast`` does.

    >>> import numpy as np, breccia
    >>> breccia.cast_ste(np.array([[0.3, 7.0]], np.float32), breccia.Float8CurrentScaling())
    array([[0.3125, 7.    ]], dtype=float32)
    """
    library = frameworks.of(x)
    _castable(recipe)
    estimator = getattr(library, "cast_ste", None)
    return _round_trip(x, recipe) if estimator is None else estimator(x, recipe, None, None)


def cast_ste_clipped(x: Any, recipe: Any, clip_min: float | None = None, clip_max: float | None = None) -> Any:
    """``cast_ste`` whose gradient is zero where ``x`` lies outside [clip_min, clip_max].

    Parameters
    ----------
    x, recipe
        As in ``cast_ste``.
    clip_min, clip_max
        In units of ``x``. Default: the smallest and largest number of the recipe's element format (-448 and 448 for E4M3).
        The forward values are not clipped.

    Returns
    -------
    array
        As ``cast_ste``. Raises as ``cast`` does.

    >>> import numpy as np, breccia
    >>> breccia.cast_ste_clipped(np.array([[0.3, 7.0]], np.float32), breccia.Float8CurrentScaling(), clip_max=1.0)
    array([[0.3125, 7.    ]], dtype=float32)
    """
    library = frameworks.of(x)
    _castable(recipe)
    facts = _c.FORMATS[recipe._element]
    low = facts["min"] if clip_min is None else clip_min
    high = facts["max"] if clip_max is None else clip_max
    estimator = getattr(library, "cast_ste", None)
    return _round_trip(x, recipe) if estimator is None else estimator(x, recipe, float(low), float(high))
