# SPDX-License-Identifier: Apache-2.0
"""ScaledTensors in safetensors files, in the dialect of any system (docs/dialects.md), by libbreccia_file."""
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from breccia import _c
from breccia import _frameworks as frameworks
from breccia._core import ScaledTensor
from breccia._ops import _castable, _description
from breccia.bridges import _checkpoint

__all__ = ["save_safetensors", "load_safetensors"]


def _narrow(numbers: Any, shape: Any) -> tuple[Any, str]:
    """BF16 bits of the float32 numbers that NumPy and MLX hold in their place."""
    bits, again = np.empty(shape, np.uint16), np.empty(shape, np.float32)
    _c.encode("bf16", numbers, (bits, "bf16"))
    _c.decode("bf16", (bits, "bf16"), again)
    if _c.bytes_of(again) != _c.bytes_of(numbers):
        raise ValueError("scale holds float32 numbers that BF16, the recipe's scale type, does not have")
    return bits, "bf16"


def _stored(st: ScaledTensor) -> Any:
    """A ScaledTensor as libbreccia_file takes it, its tables in the formats that its recipe names."""
    _castable(st.recipe)
    words = list(_description(st))
    for at, own in ((5, st.recipe._scale), (7, st.recipe._zero)):
        if own == "bf16" and words[at] is not None and _c.format_of(words[at]) == "f32":
            words[at] = _narrow(words[at], (st.scale if at == 5 else st.zero_point).shape)
    return _c.tensor(tuple(words))


def _rows(tensors: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    if not isinstance(tensors, Mapping):
        raise TypeError(f"a mapping from names to ScaledTensors and arrays is needed, got {type(tensors).__name__}")
    for name in tensors:
        if not isinstance(name, str):
            raise TypeError(f"names must be text, got {name!r}")
    return [(name, _stored(value), value.origin) if isinstance(value, ScaledTensor)
            else (name, frameworks.of(value).read(value), None) for name, value in tensors.items()]


def save_safetensors(scaled_tensors: Mapping[str, Any], path: str | os.PathLike[str],
                     extra_metadata: Mapping[str, str] | None = None, *, dialect: str = "breccia", config: str | None = None,
                     overwrite: bool = True) -> None:
    """Writes ScaledTensors (and plain arrays beside them) as a safetensors file, or as a model's folder.

    Parameters
    ----------
    scaled_tensors
        name -> ScaledTensor with one of breccia's recipes, or an array of NumPy, PyTorch, JAX or MLX.
    path
        A name ending in ``.safetensors``, or a folder, which also gets the config.json that the dialect's loaders look for. It
        appears whole or not at all.
    extra_metadata
        Text pairs for the file's ``__metadata__``.
    dialect
        How the scales are stored (``breccia inspect`` names them). Nothing is cast: ValueError for a recipe that the dialect has
        no place for. The global scale of NVFP4 is turned into the dialect's direction.
    config
        Text of a config.json for the folder; what the dialect needs is added.
    overwrite
        False: FileExistsError if it is there.

    Raises TypeError for other values, OSError if writing fails. Source: docs/dialects.md.

    >>> import numpy as np, breccia, os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.safetensors")
    ...     breccia.bridges.save_safetensors({"w": breccia.cast(np.ones((2, 32), np.float32), breccia.MXFP8BlockScaling())}, path)
    ...     breccia.bridges.load_safetensors(path)["w"].recipe
    MXFP8BlockScaling(fp8_format='E4M3', block_size=32, scale_rule='rceil', partial=False)
    """
    from breccia import _file
    _file.save(path, dialect, _rows(scaled_tensors), dict(extra_metadata or {}), config, overwrite)


def load_safetensors(path: str | os.PathLike[str], framework: str = "numpy", *, dialect: str | None = None,
                     plain: bool = False) -> dict[str, Any]:
    """The ScaledTensors of a checkpoint: a safetensors or GGUF file, an index with its shards, or a folder.

    Parameters
    ----------
    path
        What ``save_safetensors``, the command line, breccia 0.1 or another system wrote.
    framework
        "numpy", "torch", "jax" or "mlx". BF16 becomes float32 in NumPy.
    dialect
        Read as this one; None = by the evidence. ValueError where two readings fit.
    plain
        True: the plain arrays too. By default they are left out; ``breccia.open`` reads either when asked for.

    Raises ValueError if the file is malformed, a scale is missing or its meaning is ambiguous, OSError if it cannot be read.
    Source: docs/dialects.md.

    >>> breccia = __import__("breccia")
    >>> breccia.bridges.load_safetensors("no/such.safetensors")
    Traceback (most recent call last):
    OSError: no/such.safetensors: No such file or directory
    """
    checkpoint = _checkpoint.Checkpoint(path, dialect, framework)
    checkpoint.check()
    return {name: checkpoint[name] for name in checkpoint if plain or checkpoint.entry(name).scaled}
