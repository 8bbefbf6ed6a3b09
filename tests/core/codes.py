# SPDX-License-Identifier: Apache-2.0
"""What the codes of every format mean, by other hands: ml_dtypes, NumPy, and the printed tables of the codebooks.

decode(format) gives the value of every code, encode(format, x) the code of every float32 by breccia's contract (nearest even,
saturating, NaN as the format has it) from those libraries' own conversions, after a clamp where they overflow differently.
"""
import ml_dtypes
import numpy as np

FLOATS = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2, "e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
          "e5m2fnuz": ml_dtypes.float8_e5m2fnuz, "e3m2": ml_dtypes.float6_e3m2fn, "e2m3": ml_dtypes.float6_e2m3fn,
          "e2m1": ml_dtypes.float4_e2m1fn}
HIGH = {"f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
NAN_CODES = {"e4m3": 0x7F, "e5m2": 0x7F, "e4m3fnuz": 0x80, "e5m2fnuz": 0x80, "e8m0": 0xFF, "f64": 0x7FF8000000000000,
             "f32": 0x7FC00000, "f16": 0x7E00, "bf16": 0x7FC0}
SMALL_INTEGERS = {f"{sign}int{bits}": (bits, sign == "") for sign in ("", "u") for bits in range(2, 9)}
INTEGERS = {**SMALL_INTEGERS, **{f"{sign}int{bits}": (bits, sign == "") for sign in ("", "u") for bits in (16, 32, 64)}}
CODEBOOKS = {
    "nf4": np.array([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
                     -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
                     0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]),
    "iq4_nl": np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], float)}
BITS = {"f64": 64, "f32": 32, "f16": 16, "bf16": 16, "e4m3": 8, "e5m2": 8, "e4m3fnuz": 8, "e5m2fnuz": 8, "e3m2": 6, "e2m3": 6,
        "e2m1": 4, "e8m0": 8, "int8q6": 8, "nf4": 4, "iq4_nl": 4, **{name: bits for name, (bits, _) in INTEGERS.items()}}
ELEMENTS = [*FLOATS, *SMALL_INTEGERS, "int8q6", *CODEBOOKS]


def code_type(format):
    return np.dtype(f"u{max(1, BITS[format] // 8)}")


def values_of(format, codes):
    """float64 values of codes."""
    codes = np.asarray(codes).astype(code_type(format))
    if format in FLOATS:
        return codes.view(FLOATS[format]).astype(np.float64)
    if format in HIGH:
        with np.errstate(invalid="ignore"):                     # NumPy warns of signalling NaNs
            return codes.view(HIGH[format]).astype(np.float64)
    if format == "e8m0":
        return codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float64)
    if format in CODEBOOKS:
        return CODEBOOKS[format][codes]
    if format == "int8q6":
        return codes.view(np.int8) / 64
    bits, signed = INTEGERS[format]
    if not signed:
        return codes.astype(np.float64)
    spare = codes.dtype.itemsize * 8 - bits
    return ((codes << spare).view(f"i{codes.dtype.itemsize}") >> spare).astype(np.float64)


def decode(format):
    """Values of all codes of a format of at most 16 bits."""
    return values_of(format, np.arange(1 << BITS[format]))


def limits(format):
    values = decode(format)
    finite = values[np.isfinite(values)]
    return (-127 / 64, 127 / 64) if format == "int8q6" else (finite.min(), finite.max())


def encode(format, x):
    """Codes of float32 numbers, one an item."""
    x = np.asarray(x, np.float32)
    nan = np.isnan(x)
    with np.errstate(all="ignore"):
        if format in FLOATS:
            largest = np.float32(ml_dtypes.finfo(FLOATS[format]).max)
            codes = np.clip(x, -largest, largest).astype(FLOATS[format]).view(np.uint8)
            return np.where(nan, np.uint8(NAN_CODES.get(format, 0)), codes)
        if format in HIGH:
            codes = x.astype(HIGH[format]).view(code_type(format))
            return np.where(nan, codes.dtype.type(NAN_CODES[format]), codes)
        if format == "e8m0":
            magnitude = np.minimum(np.abs(x), np.float32(2.0**127))
            codes = magnitude.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8)
            return np.where(x == 0, np.uint8(0), codes)         # ml_dtypes has no zero: NaN
        if format in CODEBOOKS:
            table = CODEBOOKS[format]
            # Between a and b exactly half way the lower code; the sums of two neighbours are exact in double.
            codes = np.searchsorted((table[1:] + table[:-1]) / 2, np.where(nan, np.float32(0), x), side="left")
            return codes.astype(np.uint8)
        if format == "int8q6":
            return np.clip(np.rint(np.where(nan, np.float32(0), x) * np.float32(64)), -127, 127).astype(np.int8).view(np.uint8)
        bits, signed = INTEGERS[format]
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        whole = np.rint(np.where(nan, np.float32(0), x))
        codes = np.clip(whole, low, high).astype(f"{'i' if signed else 'u'}{max(1, bits // 8)}")
        if bits >= 32:                                          # float32 has no `high` there
            codes = np.where(whole >= np.float32(high), codes.dtype.type(high), codes)
        codes = codes.view(code_type(format))
        return codes & codes.dtype.type((1 << bits) - 1) if bits < 8 else codes


def pack(format, codes):
    """The last axis as breccia's rows: element i at bit i*bits, low bits first; uint8."""
    bits, codes = BITS[format], np.ascontiguousarray(codes)
    if bits >= 8:
        return codes.view(np.uint8).reshape(*codes.shape[:-1], codes.shape[-1] * bits // 8)
    n = codes.shape[-1]
    codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], -n % 8), codes.dtype)], -1)
    eights = codes.reshape(*codes.shape[:-1], codes.shape[-1] // 8, 8).astype(np.uint64)
    words = np.bitwise_or.reduce(eights << (np.arange(8, dtype=np.uint64) * np.uint64(bits)), axis=-1).astype("<u8")
    packed = words[..., None].view(np.uint8)[..., :bits].reshape(*codes.shape[:-1], codes.shape[-1] // 8 * bits)
    return packed[..., :(n * bits + 7) // 8]


def unpack(format, rows, n):
    """Codes of packed rows, one an item."""
    bits = BITS[format]
    rows = np.ascontiguousarray(rows).view(np.uint8)
    if bits >= 8:
        return rows.view(code_type(format))
    stream = np.unpackbits(rows, axis=-1, bitorder="little")[..., :n * bits].reshape(*rows.shape[:-1], n, bits)
    return (stream << np.arange(bits, dtype=np.uint8)).sum(-1, dtype=np.uint8)
