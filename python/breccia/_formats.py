# SPDX-License-Identifier: Apache-2.0
"""Numbers without scales: codes of E4M3, E5M2, E2M1 and INT4, one a byte, and nibbles in pairs.

Encoders round to nearest even and saturate; NaN stays NaN in FP8 and becomes 0 in E2M1 and INT4. Shapes are kept. Sources:
OCP 8-bit Floating Point Specification 1.0; OCP Microscaling Formats 1.0, section 5.3.

>>> import numpy as np
>>> encode_e4m3(np.array([1.0, 448.0, 1e9], np.float32))
array([ 56, 126, 126], dtype=uint8)
>>> decode_e2m1(np.arange(8, dtype=np.uint8))
array([0. , 0.5, 1. , 1.5, 2. , 3. , 4. , 6. ], dtype=float32)
"""
from typing import Any

import numpy as np

from breccia import _c

__all__ = ["E4M3_MAX", "E5M2_MAX", "E2M1_MAX", "encode_e4m3", "decode_e4m3", "encode_e5m2", "decode_e5m2", "encode_e2m1",
           "decode_e2m1", "encode_int4", "decode_int4", "pack_nibbles", "unpack_nibbles", "_E4M3_LUT", "_E5M2_LUT", "_E2M1_LUT"]

E4M3_MAX: float = _c.FORMATS["e4m3"]["max"]
E5M2_MAX: float = _c.FORMATS["e5m2"]["max"]
E2M1_MAX: float = _c.FORMATS["e2m1"]["max"]


def _encode(format: str, x: Any) -> np.ndarray:
    """Codes, one a byte; a number narrower than a byte is a row of its own, so that it starts on one."""
    x = np.asarray(x, np.float32)
    numbers = np.ascontiguousarray(x).reshape(-1)
    codes = np.empty(numbers.size, np.uint8)
    if _c.FORMATS[format]["bits"] == 8:
        _c.encode(format, numbers, codes)
    else:
        packed = np.empty((numbers.size + 1) // 2, np.uint8)
        _c.encode(format, numbers, packed)
        _spread(packed, codes)
    return codes.reshape(x.shape)


def _spread(packed: np.ndarray, codes: np.ndarray) -> None:
    """Nibbles, low ones first, as one byte each."""
    numbers = np.empty(codes.size, np.float32)
    _c.decode("uint4", packed, numbers)
    _c.encode("uint8", numbers, codes)


def _gather(codes: np.ndarray) -> np.ndarray:
    """The low nibbles of bytes in pairs, the first in the low bits."""
    flat = np.ascontiguousarray(codes).reshape(-1)
    nibbles = np.empty((flat.size, 2), np.float32)
    _c.decode("uint4", flat, nibbles)
    packed = np.empty((flat.size + 1) // 2, np.uint8)
    _c.encode("uint4", np.ascontiguousarray(nibbles[:, 0]), packed)
    return packed


def _decode(format: str, b: Any) -> np.ndarray:
    codes = _bytes(b)
    shape, codes = codes.shape, np.ascontiguousarray(codes).reshape(-1)
    numbers = np.empty(codes.size, np.float32)
    if _c.FORMATS[format]["bits"] == 8:
        _c.decode(format, codes, numbers)
    else:
        _c.decode(format, _gather(codes), numbers)
    return numbers.reshape(shape)


def _bytes(b: Any) -> np.ndarray:
    """Codes as uint8: any type of one byte (those of ml_dtypes too), or whole numbers that fit."""
    b = np.asarray(b)
    if b.dtype.itemsize == 1 and b.dtype.kind not in "SU":
        return b.view(np.uint8)
    if b.size and b.dtype.kind not in "iu":
        raise TypeError(f"codes must be whole numbers or of one byte, got {b.dtype}")
    codes = b.astype(np.uint8)
    if not (codes == b).all():
        raise ValueError("codes must be from 0 to 255")
    return codes


def encode_e4m3(x: Any) -> np.ndarray:
    """E4M3 codes (uint8, shape of x) of numbers; beyond +-448 saturates, NaN is 0x7F.

    TypeError or ValueError for what float32 cannot hold. Source: OCP 8-bit Floating Point Specification 1.0.

    >>> encode_e4m3([1.0, -448.0, 1e9, float("nan")])
    array([ 56, 254, 126, 127], dtype=uint8)
    """
    return _encode("e4m3", x)


def decode_e4m3(b: Any) -> np.ndarray:
    """float32 numbers (shape of b) of E4M3 codes: uint8, another type of one byte, or whole numbers 0..255.

    TypeError for what holds no bytes, ValueError for numbers beyond 255. Source: OCP 8-bit Floating Point Specification 1.0.

    >>> decode_e4m3([56, 254, 127])
    array([   1., -448.,   nan], dtype=float32)
    """
    return _decode("e4m3", b)


def encode_e5m2(x: Any) -> np.ndarray:
    """E5M2 codes (uint8, shape of x) of numbers; beyond +-57344 saturates, infinity too, NaN is 0x7F.

    TypeError or ValueError for what float32 cannot hold. Source: OCP 8-bit Floating Point Specification 1.0.

    >>> encode_e5m2([1.0, -57344.0, float("inf"), float("nan")])
    array([ 60, 251, 123, 127], dtype=uint8)
    """
    return _encode("e5m2", x)


def decode_e5m2(b: Any) -> np.ndarray:
    """float32 numbers (shape of b) of E5M2 codes; 0x7C and 0xFC are infinities.

    TypeError for what holds no bytes, ValueError for numbers beyond 255. Source: OCP 8-bit Floating Point Specification 1.0.

    >>> decode_e5m2([60, 251, 124])
    array([ 1.0000e+00, -5.7344e+04,         inf], dtype=float32)
    """
    return _decode("e5m2", b)


def encode_e2m1(x: Any) -> np.ndarray:
    """E2M1 codes 0..15 (uint8, one a byte, shape of x) of numbers; beyond +-6 saturates, NaN is 0.

    TypeError or ValueError for what float32 cannot hold. Source: OCP Microscaling Formats 1.0, section 5.3.

    >>> encode_e2m1([0.5, -1.5, 100.0, float("nan")])
    array([ 1, 11,  7,  0], dtype=uint8)
    """
    return _encode("e2m1", x)


def decode_e2m1(b: Any) -> np.ndarray:
    """float32 numbers (shape of b) of E2M1 codes, one a byte; the high nibble is ignored.

    TypeError for what holds no bytes, ValueError for numbers beyond 255. Source: OCP Microscaling Formats 1.0, section 5.3.

    >>> decode_e2m1([1, 11, 7, 0xF7])
    array([ 0.5, -1.5,  6. ,  6. ], dtype=float32)
    """
    return _decode("e2m1", b)


def encode_int4(x: Any, signed: bool = True) -> np.ndarray:
    """4-bit integers (uint8, one a byte, shape of x), rounded to nearest even: -8..7 in two's complement, or 0..15.

    Beyond them saturates, NaN is 0. TypeError or ValueError for what float32 cannot hold. Source: docs/numerics.md.

    >>> encode_int4([2.5, -1.0, 100.0]), encode_int4([2.5, -1.0, 100.0], signed=False)
    (array([ 2, 15,  7], dtype=uint8), array([ 2,  0, 15], dtype=uint8))
    """
    return _encode("int4" if signed else "uint4", x)


def decode_int4(b: Any, signed: bool = True) -> np.ndarray:
    """float32 numbers (shape of b) of 4-bit integers, one a byte; the high nibble is ignored.

    TypeError for what holds no bytes, ValueError for numbers beyond 255. Source: docs/numerics.md.

    >>> decode_int4([2, 15, 7]), decode_int4([2, 15, 7], signed=False)
    (array([ 2., -1.,  7.], dtype=float32), array([ 2., 15.,  7.], dtype=float32))
    """
    return _decode("int4" if signed else "uint4", b)


def pack_nibbles(codes: Any) -> np.ndarray:
    """Pairs of 4-bit codes as bytes (uint8, flat), the first in the HIGH bits: codes 0, 1 become 0x01.

    This order is kept for users of breccia 0.1; ``ScaledTensor.data`` has the first code in the low bits. The array is
    flattened; the high nibble of each code is ignored. ValueError unless the count is even. Source: breccia 0.1.

    >>> [hex(byte) for byte in pack_nibbles([0, 1, 2, 15])]
    ['0x1', '0x2f']
    """
    flat = np.ascontiguousarray(np.asarray(codes, np.uint8)).reshape(-1)
    if flat.size % 2 != 0:
        raise ValueError(f"pack_nibbles requires an even number of codes, got {flat.size}")
    return _gather(flat.reshape(-1, 2)[:, ::-1])


def unpack_nibbles(packed: Any, n_values: int) -> np.ndarray:
    """The first ``n_values`` codes (uint8, flat) of bytes that ``pack_nibbles`` made: the first in the HIGH bits.

    ValueError if the bytes have no capacity for them. Source: breccia 0.1.

    >>> unpack_nibbles(pack_nibbles([0, 1, 2, 15]), 3)
    array([0, 1, 2], dtype=uint8)
    """
    flat = np.ascontiguousarray(np.asarray(packed, np.uint8)).reshape(-1)
    if not 0 <= n_values <= flat.size * 2:
        raise ValueError(f"unpack_nibbles: {n_values} codes exceed the capacity of {flat.size} bytes, {flat.size * 2}")
    codes = np.empty(flat.size * 2, np.uint8)
    _spread(flat, codes)
    return np.ascontiguousarray(codes.reshape(-1, 2)[:, ::-1]).reshape(-1)[:n_values]


_E4M3_LUT = _decode("e4m3", np.arange(256, dtype=np.uint8))
_E5M2_LUT = _decode("e5m2", np.arange(256, dtype=np.uint8))
_E2M1_LUT = _decode("e2m1", np.arange(16, dtype=np.uint8))
