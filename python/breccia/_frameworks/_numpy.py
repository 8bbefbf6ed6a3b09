# SPDX-License-Identifier: Apache-2.0
"""NumPy, with the types of ml_dtypes where that is there."""
from typing import Any

import numpy as np

from breccia import _c

# NumPy's type of each format it has; FP8 and the scales of MX and NVFP4 are uint8 codes, BF16 its bits.
_DTYPES = {"f64": np.dtype(np.float64), "f32": np.dtype(np.float32), "f16": np.dtype(np.float16), "bf16": np.dtype(np.uint16),
           "int8": np.dtype(np.int8), "int8q6": np.dtype(np.int8)}
_BYTES = np.dtype(np.uint8)
# Types that offer the buffer protocol; those of ml_dtypes offer neither it nor DLPack: their bits as another type instead.
_PLAIN = {np.dtype(code) for code in "?bBhHiIlLqQefdFD"}
_FOREIGN = {"bfloat16": (np.uint16, "bf16"), "float8_e4m3fn": (np.uint8, "e4m3"), "float8_e5m2": (np.uint8, "e5m2"),
            "float8_e4m3fnuz": (np.uint8, "e4m3fnuz"), "float8_e5m2fnuz": (np.uint8, "e5m2fnuz"),
            "float8_e8m0fnu": (np.uint8, "e8m0"), "float4_e2m1fn": (np.uint8, "uint8"), "float6_e2m3fn": (np.uint8, "uint8"),
            "float6_e3m2fn": (np.uint8, "uint8"), "uint4": (np.uint8, "uint8"), "int4": (np.int8, "int8")}


def read(x: Any) -> Any:
    if x.dtype in _PLAIN:
        return x
    foreign = _FOREIGN.get(x.dtype.name)
    if foreign is None:
        raise TypeError(f"arrays of {x.dtype} are not understood")
    return np.asarray(x).view(foreign[0]), foreign[1]


def empty(shape: Any, format: str) -> Any:
    return np.empty(shape, _DTYPES.get(format, _BYTES))


def write(memory: Any, format: str) -> Any:
    return (memory, format) if format == "bf16" else memory


def filled(memories: list[Any]) -> list[Any]:
    return memories


def finish(memory: Any, format: str) -> Any:
    return memory.view(_bfloat16()) if format == "bf16" else memory


def _bfloat16() -> Any:
    try:
        import ml_dtypes
    except ImportError:
        raise TypeError("NumPy has no bfloat16 of its own: pip install ml_dtypes") from None
    return ml_dtypes.bfloat16


def finish_scale(memory: Any, format: str) -> Any:
    """BF16 scales are float32 numbers: NumPy has no such type."""
    if format != "bf16":
        return memory
    numbers = np.empty(memory.shape, np.float32)
    _c.decode("bf16", (memory, "bf16"), numbers)
    return numbers


def device(x: Any) -> int | None:
    return None


def traced(x: Any) -> bool:
    return False


def recorded(arrays: Any) -> bool:
    return False


def export(x: Any) -> Any:
    """For another library: types of ml_dtypes as bytes, which all of them know."""
    seen = read(x)
    return seen[0] if isinstance(seen, tuple) else np.asarray(seen)


def capsule(x: Any) -> Any:
    seen = export(x)
    if seen.flags.writeable:
        return seen.__dlpack__()
    return _c.Buffer(seen.shape, _c.format_of(seen), seen).__dlpack__(max_version=(1, 0))    # NumPy 2.1 learned the flag


def adopt(x: Any, format: str | None) -> Any:
    """An array of another library over its memory. BF16, which NumPy does not have, becomes float32 numbers."""
    if _c.format_of(x) == "bf16":
        numbers = np.empty(tuple(x.shape), np.float32)
        _c.decode("bf16", x, numbers)
        return numbers
    return np.from_dlpack(x)
