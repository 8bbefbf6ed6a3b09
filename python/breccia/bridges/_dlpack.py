# SPDX-License-Identifier: Apache-2.0
"""ScaledTensors between array libraries, through DLPack."""
import warnings
from typing import Any

import numpy as np

from breccia import _frameworks as frameworks
from breccia._core import ScaledTensor, _make

__all__ = ["to_dlpack", "from_dlpack"]


class Capsules(tuple[Any, ...]):
    """DLPack capsules of a ScaledTensor: (data, scale), or all parts. The attributes lead to each by name; None = not there."""

    data: Any
    scale: Any
    zero_point: Any
    global_scale: Any
    group_index: Any


def to_dlpack(scaled: ScaledTensor, parts: str = "pair") -> Capsules:
    """DLPack capsules of data and scale; FP8 as uint8 codes where the array library has no such type.

    Parameters
    ----------
    scaled
        A ScaledTensor of any library, on a device that its library exports from.
    parts
        "pair": (data, scale); what else the value has is in the attributes ``zero_point``, ``global_scale`` and ``group_index``, and a
        UserWarning names it, since two arrays alone would not mean the same. "all": (data, scale, zero_point, global_scale,
        group_index), None for what is not there.

    Each capsule is for one consumer. TypeError for what is no ScaledTensor. Source: DLPack 1.3.

    >>> import numpy as np, breccia
    >>> data, scale = breccia.bridges.to_dlpack(breccia.cast(np.ones((2, 4), np.float32), breccia.Float8CurrentScaling()))
    >>> breccia._c.format_of(scale)
    'f32'
    """
    if not isinstance(scaled, ScaledTensor):
        raise TypeError(f"a ScaledTensor is needed, got {type(scaled).__name__}")
    if parts not in ("pair", "all"):
        raise ValueError(f"parts must be 'pair' or 'all', got {parts!r}")
    found = {name: getattr(scaled, name) for name in ("data", "scale", "zero_point", "global_scale", "group_index")}
    capsules = {name: None if part is None else frameworks.of(part).capsule(part) for name, part in found.items()}
    beyond = [name for name in ("zero_point", "global_scale", "group_index") if capsules[name] is not None]
    if beyond and parts == "pair":
        warnings.warn(f"the values also need {' and '.join(beyond)}, an attribute of the result; parts='all' returns every part",
                      stacklevel=2)
    made = Capsules(list(capsules.values())[:2 if parts == "pair" else None])
    made.__dict__.update(capsules)
    return made


def _writable(x: Any, library: Any) -> Any:
    """Only NumPy knows read-only memory; another library would write there."""
    return np.array(x) if library is not frameworks.numpy and isinstance(x, np.ndarray) and not x.flags.writeable else x


def from_dlpack(scaled: ScaledTensor, framework: str) -> ScaledTensor:
    """The same ScaledTensor over the arrays of another library: "numpy", "torch", "jax", "mlx" or "cupy".

    Memory is shared, but for MLX, which takes one copy, read-only arrays of NumPy (a checkpoint's), which no other library has, and
    what NumPy has no type for (BF16 scales become float32).
    FP8 data gets the library's own type where it has one. ValueError for another name, ImportError for a library that is not installed,
    TypeError for device arrays that the library does not take. Source: DLPack 1.3.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.ones((2, 4), np.float32), breccia.Float8CurrentScaling())
    >>> breccia.bridges.from_dlpack(st, "numpy") == st
    True
    """
    if not isinstance(scaled, ScaledTensor):
        raise TypeError(f"a ScaledTensor is needed, got {type(scaled).__name__}")
    library = frameworks.named(framework)

    def move(part: Any, format: str | None) -> Any:
        source = frameworks.of(part) if part is not None else library
        return part if source is library else library.adopt(_writable(source.export(part), library), format)

    native = scaled.recipe._native if hasattr(scaled.recipe, "_native") else None
    own = native.element if native is not None and native.bits == 8 else None
    parts = [move(scaled.data, own)] + [move(part, None) for part in (scaled.scale, scaled.zero_point, scaled.global_scale,
                                                                       scaled.group_index)]
    data, scale, zero_point, global_scale, group_index = parts
    return _make(data, scale, scaled.recipe, scaled.layout, zero_point, global_scale, group_index, scaled.shape, scaled.origin)
