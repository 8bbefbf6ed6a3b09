# SPDX-License-Identifier: Apache-2.0
"""ScaledTensors in safetensors files: breccia's own dialect (docs/dialects.md), read and written with libbreccia_file.

    name.data, name.scale [, name.zero_point, name.global_scale, name.group_index]
    __metadata__["name.config"] = {"version": 2, "recipe": {..}, "layout": {..}, "shape": [..]}
"""
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from breccia import _c, layouts
from breccia import _frameworks as frameworks
from breccia._core import ScaledTensor
from breccia._ops import _castable, _packed
from breccia.recipes import _CLASSES, from_text

__all__ = ["save_safetensors", "load_safetensors"]

_PARTS = ("data", "scale", "zero_point", "global_scale", "group_index")
_CONFIG = ".config"
_LAYOUTS = {kind.name: kind for kind in (layouts.PerTensor, layouts.PerChannel, layouts.PerBlockK, layouts.PerBlockMN, layouts.PerColumn)}
_SIDES = {"per_block_k": ("block_size",), "per_block_mn": ("block_m", "block_n")}
_DTYPES = {"f64": "f8", "f32": "f4", "f16": "f2", "int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8", "uint16": "u2",
           "uint32": "u4", "uint64": "u8", "bool": "?"}


def _config(st: ScaledTensor) -> str:
    native = st.recipe._native
    recipe = {"row": native.name, "format": native.element, "scale": native.scale, "rule": native.rule, "arith": native.arith,
              "levels": native.levels, "pow2": native.pow2, "partial": native.partial or int(getattr(st.layout, "partial", False)),
              "margin": native.margin, "history": native.history, "length": native.history_length, "epsilon": native.epsilon}
    layout = {side: getattr(st.layout, side) for side in _SIDES.get(st.layout.name, ())}
    return json.dumps({"version": 2, "recipe": {"name": native.file_name, "fields": recipe},
                       "layout": {"name": st.layout.name, "fields": layout}, "shape": list(st.shape)})


def _stored(st: ScaledTensor, role: str) -> Any:
    """A part as the file has it: FP8 codes under their own type, codes below 8 bits packed, exponents as bytes."""
    part = getattr(st, role)
    library = frameworks.of(part)
    if role == "data" and st.recipe._bits < 8:
        return _packed(library, st)
    own = {"data": st.recipe._element, "scale": st.recipe._scale}.get(role)
    if own in ("e4m3", "e5m2"):
        return library.export(part), own
    if own == "bf16" and _c.format_of(library.read(part)) == "f32":
        return _narrow(library.read(part), part.shape), "bf16"
    return library.read(part)


def _narrow(numbers: Any, shape: Any) -> np.ndarray:
    """BF16 bits of the float32 numbers that NumPy and MLX hold in their place."""
    bits, again = np.empty(shape, np.uint16), np.empty(shape, np.float32)
    _c.encode("bf16", numbers, (bits, "bf16"))
    _c.decode("bf16", (bits, "bf16"), again)
    if _c.bytes_of(again) != _c.bytes_of(numbers):
        raise ValueError("scale holds float32 numbers that BF16, the recipe's scale type, does not have")
    return bits


def save_safetensors(scaled_tensors: Mapping[str, Any], path: str | os.PathLike[str],
                     extra_metadata: Mapping[str, str] | None = None, *, overwrite: bool = True) -> None:
    """Writes ScaledTensors (and plain arrays beside them) as one safetensors file.

    Parameters
    ----------
    scaled_tensors
        name -> ScaledTensor with one of breccia's recipes, or an array of NumPy, PyTorch, JAX or MLX.
    path
        The file, ending in ``.safetensors``. It appears whole or not at all.
    extra_metadata
        Text pairs for the file's ``__metadata__``.
    overwrite
        False: FileExistsError if it is there.

    Raises TypeError for other values, OSError if writing fails. Source: docs/dialects.md, breccia.

    >>> import numpy as np, breccia, os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.safetensors")
    ...     breccia.bridges.save_safetensors({"w": breccia.cast(np.ones((2, 32), np.float32), breccia.MXFP8BlockScaling())}, path)
    ...     breccia.bridges.load_safetensors(path)["w"].recipe
    MXFP8BlockScaling(fp8_format='E4M3', block_size=32, scale_rule='rceil', partial=False)
    """
    from breccia import _file
    arrays, metadata = [], dict(extra_metadata or {})
    for name, value in scaled_tensors.items():
        if not isinstance(value, ScaledTensor):
            arrays.append((name, frameworks.of(value).read(value)))
            continue
        _castable(value.recipe)
        arrays += [(f"{name}.{role}", _stored(value, role)) for role in _PARTS if getattr(value, role) is not None]
        metadata[name + _CONFIG] = _config(value)
    _file.write(path, arrays, metadata, overwrite)


def _array(entry: tuple[str, tuple[int, ...], bytearray]) -> np.ndarray:
    format, shape, memory = entry
    if format == "bf16":
        return frameworks.numpy.finish_scale(np.frombuffer(memory, np.uint16).reshape(shape), "bf16")
    bytes = np.frombuffer(memory, _DTYPES.get(format, "u1"))
    return bytes.reshape(shape if format in _DTYPES or bytes.size == _count(shape) else -1)


def _count(shape: tuple[int, ...]) -> int:
    n = 1
    for side in shape:
        n *= side
    return n


def _meaning(text: str, data: np.ndarray) -> tuple[Any, Any, Any]:
    """Recipe, layout and logical shape of a config; files of breccia 0.1 have no version, and 4-bit codes one a byte."""
    config = json.loads(text)
    fields, sides = config["recipe"]["fields"], config["layout"]["fields"]
    if config.get("version") is None:
        recipe = {kind.name: kind for kind in _CLASSES.values()}[config["recipe"]["name"]](**fields)
        return recipe, _LAYOUTS[config["layout"]["name"]](**sides), data.shape
    if config["version"] != 2:
        raise ValueError(f"version {config['version']} of breccia's files is not known; 2 is")
    partial = bool(fields["partial"])
    layout = _LAYOUTS[config["layout"]["name"]](**sides, **({"partial": partial} if sides else {}))
    batch, rows, cols = layout._block
    block = "tensor" if (rows, cols) == (0, 0) else "row" if cols == 0 else f"{rows}x{cols}"
    words = [f"{key}={value}" for key, value in fields.items() if key != "row"]
    recipe = from_text(f"{fields['row']}:" + ",".join([*words, f"block={block}"]))
    return recipe, layout, tuple(config["shape"])


def load_safetensors(path: str | os.PathLike[str], framework: str = "numpy") -> dict[str, Any]:
    """The ScaledTensors and plain arrays of a safetensors file, an index or a folder.

    Parameters
    ----------
    path
        What ``save_safetensors``, the command line or breccia 0.1 wrote. Other systems' files: their arrays as they are.
    framework
        "numpy", "torch", "jax" or "mlx". BF16 becomes float32 in NumPy.

    Raises ValueError if the file is malformed or a description is not understood, OSError if it cannot be read. Source:
    docs/dialects.md, breccia.

    >>> breccia = __import__("breccia")
    >>> breccia.bridges.load_safetensors("no/such.safetensors")
    Traceback (most recent call last):
    OSError: no/such.safetensors: No such file or directory
    """
    from breccia import _file
    from breccia.bridges._dlpack import from_dlpack
    entries, metadata = _file.read(path)
    arrays = {name: _array(entry) for name, entry in entries.items()}
    out: dict[str, Any] = {}
    for key, text in metadata.items():
        name = key.removesuffix(_CONFIG)
        if key == name or f"{name}.data" not in arrays:
            continue
        parts: dict[str, Any] = {role: arrays.pop(f"{name}.{role}", None) for role in _PARTS}
        try:
            recipe, layout, shape = _meaning(text, parts["data"])
            st = ScaledTensor(parts["data"], parts["scale"], recipe, layout, parts["zero_point"], parts["global_scale"],
                              parts["group_index"], shape)
        except (KeyError, TypeError, ValueError) as wrong:
            raise ValueError(f"{os.fspath(path)}: {name}: its description is not understood: {wrong}") from wrong
        out[name] = from_dlpack(st, framework)
    library = frameworks.named(framework)
    out.update((name, array if library is frameworks.numpy else library.adopt(array, None)) for name, array in arrays.items())
    return out
