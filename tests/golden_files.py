# SPDX-License-Identifier: Apache-2.0
"""Reading the golden vectors: the safetensors library's bytes, as NumPy arrays."""
import json

import ml_dtypes
import numpy as np
from safetensors import safe_open

TYPES = {"U8": np.uint8, "I8": np.int8, "I16": np.int16, "U16": np.uint16, "U32": np.uint32, "I32": np.int32, "I64": np.int64, "F16": np.float16,
         "F32": np.float32, "F64": np.float64, "BF16": ml_dtypes.bfloat16}


def load(path):
    """{name: array} of a golden file; plain types only."""
    raw = path.read_bytes()
    with safe_open(path, "np") as checked:          # the library accepts the file; its own BF16 needs another framework
        names = set(checked.keys())
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + size])
    out = {}
    for name in names:
        entry = header[name]
        first, last = entry["data_offsets"]
        out[name] = np.frombuffer(raw[8 + size + first:8 + size + last], TYPES[entry["dtype"]]).reshape(entry["shape"])
    return out


def same(got, want, what=""):
    """Bit for bit; any NaN equals any NaN of the same type."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"{what}: {got.shape}, {want.shape}"
    equal = got == want
    if want.dtype.kind in "fV" or want.dtype == ml_dtypes.bfloat16:
        bits = f"u{want.dtype.itemsize}"
        equal = (got.view(bits) == want.view(bits)) | (np.isnan(got) & np.isnan(want))
    assert equal.all(), f"{what}: {int((~equal).sum())} of {equal.size} differ, first at {np.argwhere(~equal)[0]}: " \
                        f"{got[tuple(np.argwhere(~equal)[0])]!r}, expected {want[tuple(np.argwhere(~equal)[0])]!r}"


def one_nan(codes, format):
    """Codes with every NaN code made 0x7F: sign and payload of a NaN are unspecified."""
    codes = np.asarray(codes).view(np.uint8)
    nan = {"e4m3": (codes & 0x7F) == 0x7F, "e5m2": (codes & 0x7F) > 0x7C}.get(format)
    return codes if nan is None else np.where(nan, np.uint8(0x7F), codes)


def unpack6(packed, n):
    """fp6 codes, one a byte, of packed rows (element i at bit 6i, low bits first)."""
    bits = np.unpackbits(packed, axis=-1, bitorder="little")[..., :6 * n]
    return np.packbits(bits.reshape(*packed.shape[:-1], n, 6), axis=-1, bitorder="little")[..., 0]
