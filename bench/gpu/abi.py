# SPDX-License-Identifier: Apache-2.0
"""The structs and numbers of breccia.h and breccia_cuda.h that the measurements and checks use, for ctypes."""
import ctypes

NONE, F64, F32, F16, BF16, E4M3, E5M2 = range(7)          # the first rows of formats.def
E2M1, E8M0, INT4 = 11, 12, 15
TENSOR, ROW, BLOCK, BLOCK_ROWS = range(4)                  # brc_cuda_scaling
ONE, BATCH, MASKED, RAGGED, INDEXED = range(5)             # brc_cuda_grouping
FAST, ACCUMULATE, B_UNCHANGED, NO_OVERLAP = 1, 2, 4, 8


class Error(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int), ("where", ctypes.c_uint64), ("text", ctypes.c_char * 480)]


class Plan(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32)] + [(n, ctypes.c_int32) for n in (
        "kernel", "grid", "cluster", "tile_m", "tile_n", "stages", "group", "group_n", "rows", "share", "shared_bytes")] + [("microseconds", ctypes.c_float)]


class Product(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("a_format", ctypes.c_uint8), ("b_format", ctypes.c_uint8),
                ("d_format", ctypes.c_uint8), ("bias_format", ctypes.c_uint8), ("scaling", ctypes.c_int32),
                ("m", ctypes.c_int64), ("n", ctypes.c_int64), ("k", ctypes.c_int64), ("a", ctypes.c_void_p), ("b", ctypes.c_void_p),
                ("a_pitch", ctypes.c_int64), ("b_pitch", ctypes.c_int64), ("d", ctypes.c_void_p), ("d_pitch", ctypes.c_int64),
                ("a_scale", ctypes.c_void_p), ("b_scale", ctypes.c_void_p), ("a_scale_pitch", ctypes.c_int64),
                ("b_scale_pitch", ctypes.c_int64), ("bias", ctypes.c_void_p), ("plan", ctypes.POINTER(Plan)),
                ("grouping", ctypes.c_int32), ("groups", ctypes.c_int32), ("group_rows", ctypes.c_void_p)] + [(n, ctypes.c_int64) for n in (
                    "expected_rows", "a_step", "b_step", "d_step", "a_scale_step", "b_scale_step")]


class Block(ctypes.Structure):
    _fields_ = [(n, ctypes.c_uint32) for n in ("batch", "rows", "cols")]


class Array(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("format", ctypes.c_uint8), ("rank", ctypes.c_uint8),
                ("shape", ctypes.c_int64 * 8), ("stride", ctypes.c_int64 * 8), ("data", ctypes.c_void_p)]


class Recipe(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32)] + [(n, ctypes.c_uint8) for n in (
        "id", "element", "scale", "zero", "levels", "layout", "rule", "arith", "pow2", "partial", "history", "reserved")] + [
        ("block", Block), ("margin", ctypes.c_int32), ("history_length", ctypes.c_uint32), ("epsilon", ctypes.c_float),
        ("zero_kind", ctypes.c_uint8), ("global_kind", ctypes.c_uint8), ("more_reserved", ctypes.c_uint8 * 2), ("global_constant", ctypes.c_float),
        ("global_block", Block)]


class Table(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("format", ctypes.c_uint8), ("kind", ctypes.c_uint8), ("constant", ctypes.c_float), ("block", Block)]


class Tensor(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("format", ctypes.c_uint8), ("rank", ctypes.c_uint8), ("layout", ctypes.c_uint8),
                ("reserved", ctypes.c_uint8), ("shape", ctypes.c_int64 * 8), ("data", ctypes.c_void_p), ("row_pitch", ctypes.c_int64),
                ("scale", Table), ("global_", Table), ("zero", Table), ("group_index", ctypes.c_void_p), ("recipe", Recipe)]


class Sizes(ctypes.Structure):
    _fields_ = [(n, ctypes.c_int64) for n in ("data", "scale", "global_", "zero", "total")]


class Delayed(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("scale", ctypes.c_float), ("amax", ctypes.c_float), ("reserved", ctypes.c_uint32),
                ("history", ctypes.c_void_p), ("length", ctypes.c_uint32)]


class Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("scales_by_column", ctypes.c_uint32), ("scale_pitch", ctypes.c_int64),
                ("delayed", ctypes.c_void_p), ("amax", ctypes.c_void_p), ("scratch", ctypes.c_void_p), ("transposed", ctypes.POINTER(Tensor))]


class Packed(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("format", ctypes.c_uint8), ("scale_format", ctypes.c_uint8), ("activations", ctypes.c_uint8),
                ("reserved", ctypes.c_uint8), ("n", ctypes.c_int64), ("k", ctypes.c_int64), ("bytes", ctypes.c_int64), ("data", ctypes.c_void_p)] + [
                (n, ctypes.c_int32) for n in ("kind", "group", "chunk_bytes", "scale_stride")]


class PackedPlan(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32)] + [(n, ctypes.c_int32) for n in (
        "kernel", "grid", "cluster", "share", "rows", "tokens", "stages", "shared_bytes")] + [("microseconds", ctypes.c_float)]


class PackedProduct(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("a_format", ctypes.c_uint8), ("d_format", ctypes.c_uint8),
                ("bias_format", ctypes.c_uint8), ("reserved", ctypes.c_uint8), ("m", ctypes.c_int64), ("a", ctypes.c_void_p),
                ("a_pitch", ctypes.c_int64), ("b", ctypes.POINTER(Packed)), ("d", ctypes.c_void_p), ("d_pitch", ctypes.c_int64),
                ("bias", ctypes.c_void_p), ("a_scale", ctypes.c_void_p), ("a_scaling", ctypes.c_int32), ("reserved2", ctypes.c_int32),
                ("plan", ctypes.POINTER(PackedPlan))]
