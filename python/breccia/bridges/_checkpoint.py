# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of any dialect that libbreccia_file reads, as a mapping that reads a tensor when it is asked for."""
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from breccia import _frameworks as frameworks
from breccia._core import ScaledTensor
from breccia.bridges._dlpack import from_dlpack
from breccia.layouts import PerBlockMN, _of_number
from breccia.recipes import from_text

if TYPE_CHECKING:
    from breccia import _file

__all__ = ["Checkpoint", "Entry", "Finding", "Part", "open"]

_DTYPES = {"f64": "f8", "f32": "f4", "f16": "f2", "bf16": "u2", "int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8",
           "int8q6": "i1", "uint16": "u2", "uint32": "u4", "uint64": "u8", "bool": "?", "complex64": "c8"}


class Part(NamedTuple):
    """An array of a tensor: what it is to it, and what the file says."""

    role: str
    tensor: str
    dtype: str
    shape: tuple[int, ...]


class Entry(NamedTuple):
    """What a checkpoint says about one tensor: the answers of ``breccia inspect``."""

    name: str
    dialect: str
    scaled: bool
    shape: tuple[int, ...]
    recipe: str
    meaning: str
    evidence: str
    parts: tuple[Part, ...]


class Finding(NamedTuple):
    """Something a reader should know; ``severity`` is "note", "warning", "ambiguity" or "error"."""

    severity: str
    file: str
    tensor: str
    text: str


def _array(format: str, shape: tuple[int, ...], memory: Any) -> np.ndarray:
    """Numbers of a file over its memory. BF16, which NumPy does not have, becomes float32; FP8 and smaller are bytes."""
    flat = np.frombuffer(memory, _DTYPES.get(format, "u1"))
    n = 1
    for side in shape:
        n *= side
    array = flat.reshape(shape if flat.size == n else -1)
    return frameworks.numpy.finish_scale(array, "bf16") if format == "bf16" else array


def _layout(number: int, block: tuple[int, int, int], shape: tuple[int, ...], partial: bool) -> Any:
    """One number for each matrix of a stack is PerTensor in C and has a scale of shape (.., 1, 1) here."""
    if block == (1, 0, 0) and len(shape) > 2:
        return PerBlockMN(shape[-2], shape[-1])
    return _of_number(number, block, partial)


class Checkpoint(Mapping[str, Any]):
    """An opened checkpoint: name -> ScaledTensor, or a plain array.

    A tensor is read when it is asked for. NumPy arrays are read-only views of the mapped file where it keeps the plain order;
    other libraries get a copy. ``ScaledTensor.origin`` leads back to the entry, so that ``save_safetensors`` in the same dialect
    writes the same bytes.

    Parameters
    ----------
    path
        A ``.safetensors`` or ``.gguf`` file, an index with its shards, or a folder.
    dialect
        Read as this one (``breccia inspect`` names them); None = by the evidence.
    framework
        "numpy", "torch", "jax" or "mlx".

    Raises OSError if it cannot be read, ValueError if it is malformed, ImportError for a library that is not installed. Source: docs/dialects.md.

    >>> import numpy as np, breccia, os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.safetensors")
    ...     breccia.bridges.save_safetensors({"w": breccia.cast(np.ones((2, 32), np.float32), breccia.MXFP8BlockScaling())}, path)
    ...     checkpoint = breccia.open(path)
    ...     checkpoint.entry("w").meaning, checkpoint["w"].shape
    ('value = element * scale; one scale for each 1x32 block; a scale byte b is 2^(b - 127)', (2, 32))
    """

    def __init__(self, path: str | os.PathLike[str], dialect: str | None = None, framework: str = "numpy") -> None:
        from breccia import _file
        self.path: str = os.fspath(path)
        self.framework: str = framework
        self._dialect = dialect
        frameworks.named(framework)
        self._file: _file.Checkpoint = _file.Checkpoint(path, dialect)
        self._entries = {row[0]: Entry(*row[:7], tuple(Part(*part) for part in row[7])) for row in self._file.entries()}

    def __getitem__(self, name: str) -> Any:
        entry = self._entries[name]
        if not entry.scaled:
            array = _array(*self._file.array(name))
            library = frameworks.named(self.framework)
            return array if library is frameworks.numpy else library.adopt(array.copy(), None)
        return self._scaled(name)

    def _scaled(self, name: str) -> ScaledTensor:
        loaded: tuple[Any, ...] = self._file.load(name)
        text, shape, number, block, data, scale, level, zero, index = loaded
        recipe = from_text(text)
        layout = _layout(number, block, shape, recipe._native.partial == 1)                 # type: ignore[attr-defined]

        def table(found: Any, sides: tuple[int, ...]) -> Any:
            return None if found is None else _array(found[0], sides, found[2])

        sides = layout._scale_shape(shape)
        packed = (*shape[:-1], (shape[-1] * recipe._bits + 7) // 8) if recipe._bits < 8 else shape        # type: ignore[attr-defined]
        level_shape = () if level is None or level[1] == (1, 1, 1) else level[1]
        st = ScaledTensor(_array("int8" if recipe._element.startswith("int8") else "", packed, data),     # type: ignore[attr-defined]
                          table(scale, sides), recipe, layout, table(zero, sides), table(level, level_shape),
                          None if index is None else np.frombuffer(index, "i4"), shape, (self._file, name))
        if self.framework == "numpy":
            return st
        copies = [None if part is None else np.array(part) for part in (st.data, st.scale, st.zero_point, st.global_scale, st.group_index)]
        data, scale, zero, level, index = copies
        return from_dlpack(ScaledTensor(data, scale, recipe, layout, zero, level, index, shape, st.origin), self.framework)

    def __reduce__(self) -> Any:
        """Pickled as its path: whoever reads it opens the file again."""
        return type(self), (self.path, self._dialect, self.framework)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"breccia.Checkpoint({self.path!r}, {len(self)} tensors, {sum(e.scaled for e in self._entries.values())} of them scaled)"

    def entry(self, name: str) -> Entry:
        """What the file says about a tensor, without reading it. KeyError for a name that is not there."""
        return self._entries[name]

    @property
    def findings(self) -> list[Finding]:
        """What is doubtful or wrong; ``check`` raises what must stop."""
        return [Finding(*row) for row in self._file.findings()]

    @property
    def metadata(self) -> dict[str, str]:
        """Pairs of text that the file carries (``__metadata__`` of safetensors)."""
        return self._file.metadata()

    def check(self) -> None:
        """Raises ValueError where a tensor cannot be read, or has more than one reading; the text names ``dialect=``'s choices."""
        self._file.check()


def open(path: str | os.PathLike[str], dialect: str | None = None, framework: str = "numpy") -> Checkpoint:
    """Opens a checkpoint: a mapping from names to ScaledTensors and plain arrays, each read when it is asked for.

    Arguments and errors are those of ``Checkpoint``. Source: docs/dialects.md.

    >>> import breccia
    >>> breccia.open("no/such.safetensors")
    Traceback (most recent call last):
    OSError: no/such.safetensors: No such file or directory
    """
    return Checkpoint(path, dialect, framework)
