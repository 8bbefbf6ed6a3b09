# SPDX-License-Identifier: Apache-2.0
"""The extension (python/ext/file): libbreccia_file's containers for Python objects."""
from os import PathLike
from typing import Any

def read(path: str | PathLike[str], /) -> tuple[dict[str, tuple[str, tuple[int, ...], bytearray]], dict[str, str]]: ...
def write(path: str | PathLike[str], arrays: list[tuple[str, Any]], metadata: dict[str, str], overwrite: bool, /) -> None: ...
