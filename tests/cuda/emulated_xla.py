# SPDX-License-Identifier: Apache-2.0
"""JAX on a GPU where there is none: the handlers for GPUs registered for CPUs, whose memory the emulated driver's kernels take, under an
XLA that has a stream to give (the null one)."""
import ctypes
from functools import partial

import jax

from breccia import _c
from breccia._frameworks import _jax, _jax_gpu

# python/ext/xla_ffi.h: where the frame has the API, the API its stream_get, and that one's arguments the stream.
API, STREAM_GET, STREAM = 16, 80, 24
HANDLER = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
ctypes.pythonapi.PyCapsule_GetPointer.restype = ctypes.c_void_p
ctypes.pythonapi.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
ctypes.pythonapi.PyCapsule_New.restype = ctypes.py_object
ctypes.pythonapi.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
keep, calls = [], []


@HANDLER
def null_stream(arguments):
    ctypes.c_void_p.from_address(arguments + STREAM).value = None
    return None


def with_stream(name, handler, frame):
    place = ctypes.c_void_p.from_address(frame + API)
    api = place.value
    if api:
        copy = (ctypes.c_char * ctypes.c_size_t.from_address(api).value).from_buffer_copy(ctypes.string_at(api, ctypes.c_size_t.from_address(api).value))
        ctypes.c_void_p.from_buffer(copy, STREAM_GET).value = ctypes.cast(null_stream, ctypes.c_void_p).value
        place.value = ctypes.addressof(copy)
    calls.append(name)
    result = handler(frame)
    place.value = api
    return result


def pretend():
    """From now on, this process's JAX arrays count as a GPU's."""
    for name, capsule in _c.xla_handlers(True).items():
        handler = HANDLER(ctypes.pythonapi.PyCapsule_GetPointer(capsule, b"xla._CUSTOM_CALL_TARGET"))
        keep.append(HANDLER(partial(with_stream, name, handler)))
        address = ctypes.cast(keep[-1], ctypes.c_void_p).value
        jax.ffi.register_ffi_target(name, ctypes.pythonapi.PyCapsule_New(address, b"xla._CUSTOM_CALL_TARGET", None), platform="cpu")
    _jax.gpus = lambda: True
    _jax.device = lambda x: None if isinstance(x, jax.core.Tracer) else 0
    _jax_gpu._why_not = lambda: None
    jax.lax.platform_dependent = lambda *arrays, cuda, **others: cuda(*arrays)
