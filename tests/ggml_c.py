# SPDX-License-Identifier: Apache-2.0
"""ggml itself, the C library in the wheel libggml-python: its quantizers, its decoders and its GGUF reader."""
import ctypes
import glob
import os

import gguf
import libggml
import numpy as np

_folder = os.path.join(os.path.dirname(libggml.__file__), "lib*")
_lib = ctypes.CDLL(glob.glob(os.path.join(_folder, "libggml-base.so"))[0])
_lib.ggml_quantize_chunk.restype = ctypes.c_size_t
_lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
_lib.gguf_init_from_file.restype = ctypes.c_void_p
_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_silent = _LOG(lambda level, text, user: None)
_lib.ggml_log_set(_silent, None)


class _Parameters(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


_lib.gguf_init_from_file.argtypes = [ctypes.c_char_p, _Parameters]
SIZES = {**{t.name: size for t, size in gguf.GGML_QUANT_SIZES.items()}, "Q2_0": (64, 18)}
NUMBERS = {**{t.name: int(t) for t in gguf.GGMLQuantizationType}, "Q2_0": 42}


def quantize(x, word):
    """Rows of float32 as the bytes of their blocks (ggml_quantize_chunk without an importance matrix)."""
    x = np.ascontiguousarray(x, np.float32)
    numbers, size = SIZES[word]
    out = np.zeros((x.shape[0], x.shape[1] // numbers * size), np.uint8)
    written = _lib.ggml_quantize_chunk(NUMBERS[word], x.ctypes.data, out.ctypes.data, 0, x.shape[0], x.shape[1], None)
    assert written == out.nbytes
    return out


def dequantize(raw, word):
    """And back to float32 (dequantize_row_*)."""
    raw = np.ascontiguousarray(raw)
    numbers, size = SIZES[word]
    out = np.zeros((raw.shape[0], raw.shape[1] // size * numbers), np.float32)
    function = getattr(_lib, "dequantize_row_" + (word.lower().replace("_k", "_K")))
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    function.restype = None
    function(raw.ctypes.data, out.ctypes.data, out.size)
    return out


def opens(path):
    """Whether ggml's own reader takes a file. It ends the process on some: a child reads."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(0 if _lib.gguf_init_from_file(os.fsencode(path), _Parameters(True, None)) else 1)
    return os.waitpid(child, 0)[1] == 0
