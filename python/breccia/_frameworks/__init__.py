# SPDX-License-Identifier: Apache-2.0
"""The array libraries breccia works with, one module each, imported when the first of their arrays is met.

Each module has the same few functions:

    read(x)                what the extension reads: a buffer, a DLPack capsule, or (array, format name)
    empty(shape, format)   memory for a result, as `write` takes it
    write(memory, format)  what the extension fills; filled(memories): the same for a cast's, whose formats are the recipe's
    finish(memory, format) the array of the library; finish_scale: the same for scales
    traced(x)              True where x has no memory yet (jit, torch.compile); then the module's cast, dequantize,
                           requantize or matmul is called instead
    device(x)              number of the GPU that holds an array, None on a CPU; breccia._gpu says what else such a library has
    recorded(arrays)       True where the library keeps a record for gradients; then the module's matmul is called
    export(x), adopt(x, format), capsule(x)   an array for another library, from another library, as a DLPack capsule
"""
import sys
from importlib import import_module
from typing import Any

import numpy as np

from breccia._frameworks import _numpy as numpy

__all__ = ["of", "register", "unregistered"]

_by_type: dict[type, Any] = {np.ndarray: numpy}
# Libraries whose pytrees do not know ScaledTensor yet: {module to look for: module here}.
unregistered = {"jax": "_jax", "torch": "_torch"}
_modules_seen = 0


def _is_torch(x: Any) -> bool:
    """Whether x is a torch.Tensor; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and hasattr(torch, "Tensor") and isinstance(x, torch.Tensor)


def _is_mlx(x: Any) -> bool:
    """Whether x is an mlx.core.array; never imports mlx."""
    mlx = sys.modules.get("mlx.core")
    return mlx is not None and isinstance(x, mlx.array)


def _is_jax(x: Any) -> bool:
    """Whether x is a jax.Array or a traced one; never imports jax."""
    jax = sys.modules.get("jax")
    return jax is not None and hasattr(jax, "Array") and isinstance(x, jax.Array)


def _is_cupy(x: Any) -> bool:
    """Whether x is a cupy.ndarray; never imports cupy."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and hasattr(cupy, "ndarray") and isinstance(x, cupy.ndarray)


def of(x: Any) -> Any:
    """The module for an array; TypeError for what is no array of a known library."""
    module = _by_type.get(type(x))
    return _find(x) if module is None else module


def _find(x: Any) -> Any:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError("a masked array has no numbers under its mask: fill them first, or pass its .data")
    if _is_cupy(x):
        module = import_module("breccia._frameworks._cupy")
    elif isinstance(x, (np.ndarray, np.generic)):
        module = numpy
    elif _is_torch(x):
        module = import_module("breccia._frameworks._torch")
    elif _is_jax(x):
        module = import_module("breccia._frameworks._jax")
    elif _is_mlx(x):
        module = import_module("breccia._frameworks._mlx")
    else:
        raise TypeError(f"an array of NumPy, PyTorch, JAX, MLX or CuPy is needed, got {type(x).__name__}")
    _by_type[type(x)] = module
    return module


def register() -> None:
    """Makes ScaledTensor a pytree of the libraries that have been imported by now."""
    global _modules_seen
    if len(sys.modules) == _modules_seen:                  # nothing was imported since the last look
        return
    seen = len(sys.modules)
    for library, module in list(unregistered.items()):
        loaded = sys.modules.get(library)
        if loaded is None:
            continue
        if getattr(getattr(loaded, "__spec__", None), "_initializing", False):
            seen = 0                                       # look again
        elif unregistered.pop(library, None) is not None:  # else another thread does it
            known = import_module(f"breccia._frameworks.{module}")
            known.register_pytree()
            _by_type.update((kind, known) for kind in known.TYPES)
    _modules_seen = seen


def named(name: str) -> Any:
    """The module of a library by name; ValueError for a name that is none, ImportError where it is not installed."""
    if name not in ("numpy", "torch", "jax", "mlx", "cupy"):
        raise ValueError(f"framework must be 'numpy', 'torch', 'jax', 'mlx' or 'cupy', got {name!r}")
    try:
        module = import_module(f"breccia._frameworks._{name}")
    except ImportError as missing:
        raise ImportError(f"arrays of {name} need it: pip install {name}") from missing
    register()
    return module
