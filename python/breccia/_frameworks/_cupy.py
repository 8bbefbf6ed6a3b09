# SPDX-License-Identifier: Apache-2.0
"""CuPy: arrays of NVIDIA GPUs by DLPack, on CuPy's current stream. As NumPy, it has no types for FP8, whose codes are uint8, and
BF16 scales are float32 numbers; BF16 arrays are ml_dtypes', where CuPy takes those."""
from types import ModuleType
from typing import Any

import cupy

from breccia import _ops

_NUMPY: ModuleType = _ops.frameworks.numpy
_DTYPES: dict[str, Any] = {"f64": cupy.float64, "f32": cupy.float32, "f16": cupy.float16, "bf16": cupy.uint16, "int8": cupy.int8,
                           "int8q6": cupy.int8}

traced = _NUMPY.traced
recorded = _NUMPY.recorded
_NO_STREAM = -1                    # DLPack: nothing is to wait, for all of a call's work goes to the one current stream


def read(x: Any) -> Any:
    foreign = _NUMPY._FOREIGN.get(x.dtype.name)
    if foreign is not None:
        return x.view(foreign[0]).__dlpack__(stream=_NO_STREAM), foreign[1]
    try:
        return x.__dlpack__(stream=_NO_STREAM)
    except BufferError as refused:
        raise TypeError(f"arrays of {x.dtype} are not understood: {refused}") from refused


def write(memory: Any, format: str) -> Any:
    return (read(memory), format) if format == "bf16" else read(memory)


def finish(memory: Any, format: str) -> Any:
    return memory.view(_NUMPY._bfloat16()) if format == "bf16" else memory


def finish_scale(memory: Any, format: str) -> Any:
    return _bits_as_float32(memory) if format == "bf16" else memory


def _bits_as_float32(bits: Any) -> Any:
    """BF16 is the upper half of a float32, the second one in memory."""
    halves = cupy.zeros((*bits.shape, 2), cupy.uint16)
    halves[..., 1] = bits
    return halves.view(cupy.float32)[..., 0]


def export(x: Any) -> Any:
    """For another library: types of ml_dtypes of one byte as bytes, which all of them know."""
    return x.view(cupy.uint8) if x.dtype.itemsize == 1 and x.dtype.name in _NUMPY._FOREIGN else x


def capsule(x: Any) -> Any:
    return export(x).__dlpack__()


def adopt(x: Any, format: str | None) -> Any:
    return cupy.from_dlpack(x)


# ------------------------------------------------------------------------------------------ GPUs: see breccia._gpu

def device(x: Any) -> int | None:
    return x.device.id


def on(x: Any) -> Any:
    return x.device


def stream(x: Any) -> int:
    return cupy.cuda.get_current_stream().ptr


def empty_on(x: Any, shape: Any, format: str) -> Any:
    return cupy.empty(shape, _DTYPES.get(format, cupy.uint8))


_captured: list[Any] = []


def scratch(x: Any) -> Any:
    """A call's own: CuPy's pool gives it to others in the order of the stream. Not so what a graph uses each time that it is replayed: CuPy
    does not keep that for it."""
    fresh = cupy.zeros(4, cupy.int32)
    if cupy.cuda.get_current_stream().is_capturing():
        _captured.append(fresh)
    return fresh


def number(x: Any, value: float, shape: Any) -> Any:
    return cupy.full(shape, value, cupy.float32)


def rows(x: Any) -> Any:
    if x.dtype == cupy.float64:
        x = x.astype(cupy.float32)
    item = x.dtype.itemsize
    last = x.shape[-1]
    dense = x.size and (last <= 1 or x.strides[-1] == item)
    for i in range(x.ndim - 2):
        dense = dense and (x.shape[i] <= 1 or x.strides[i] == x.strides[i + 1] * x.shape[i + 1])
    return x if dense and (x.ndim < 2 or x.strides[-2] >= last * item) else cupy.ascontiguousarray(x)


def by_column(scale: Any) -> Any:
    count, blocks = scale.shape
    turned = cupy.empty((blocks, (count + 3) // 4 * 4), scale.dtype)[:, :count]
    turned[...] = scale.T
    return turned


def wide(x: Any, format: str) -> Any:
    if x.dtype.name == "bfloat16":
        x = _bits_as_float32(x.view(cupy.uint16))
    return x.astype(_DTYPES[format], copy=False)


def product(a: Any, b: Any, bias: Any, format: str) -> Any:
    out = cupy.matmul(a, b)
    out = out if bias is None else out + wide(bias, "f32")
    return out.astype(_NUMPY._bfloat16() if format == "bf16" else _DTYPES[format], copy=False)


def cast_ste(x: Any, recipe: Any, low: float | None, high: float | None) -> Any:
    """CuPy keeps no record for gradients: a plain round trip."""
    return _ops.dequantize(_ops.cast(x, recipe), x.dtype)
