# SPDX-License-Identifier: Apache-2.0
"""MLX: arrays are read in place by the buffer protocol; each result takes one copy, from NumPy's memory into MLX's."""
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np

from breccia import _ops

_NUMPY: ModuleType = _ops.frameworks.numpy
_OUTPUTS = {mx.float32: "f32", mx.float16: "f16", mx.bfloat16: "bf16"}

empty = _NUMPY.empty
write = _NUMPY.write


def read(x: Any) -> Any:
    """BF16 has no code in the buffer protocol: its bits as uint16."""
    return (memoryview(x.view(mx.uint16)), "bf16") if x.dtype == mx.bfloat16 else memoryview(x)


def finish(memory: Any, format: str) -> Any:
    return mx.array(memory).view(mx.bfloat16) if format == "bf16" else mx.array(memory)


def finish_scale(memory: Any, format: str) -> Any:
    return mx.array(_NUMPY.finish_scale(memory, format))


def dtype_format(dtype: Any) -> str | None:
    return _OUTPUTS.get(dtype) if isinstance(dtype, mx.Dtype) else _NUMPY.dtype_format(dtype)


def traced(x: Any) -> bool:
    return False


def export(x: Any) -> Any:
    """For another library: by the buffer protocol, since MLX's capsules name a GPU where it has one."""
    return x if x.dtype == mx.bfloat16 else np.asarray(memoryview(x))


def capsule(x: Any) -> Any:
    return x.__dlpack__()


def adopt(x: Any, format: str | None) -> Any:
    return mx.array(_NUMPY.adopt(x, format))
