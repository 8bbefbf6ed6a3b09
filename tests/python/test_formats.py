# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from breccia import _c, _formats
from breccia._formats import (decode_e2m1, decode_e4m3, decode_e5m2, decode_int4, encode_e2m1, encode_e4m3, encode_e5m2,
                              encode_int4, pack_nibbles, unpack_nibbles)

BYTES = np.arange(256, dtype=np.uint8)


def numbers():
    """Every float32 with 12 leading bits of mantissa around the formats' ranges, ties among them, and both infinities."""
    bits = np.arange(0x30000000, 0x49000000, 0x800, dtype=np.uint32)
    positive = np.concatenate([bits.view(np.float32), np.array([0, 1e-40, 3e38, np.inf], np.float32)])
    return np.concatenate([positive, -positive])


def test_decode_all(ml_dtypes):
    assert np.array_equal(decode_e4m3(BYTES), BYTES.view(ml_dtypes.float8_e4m3fn).astype(np.float32), equal_nan=True)
    assert np.array_equal(decode_e5m2(BYTES), BYTES.view(ml_dtypes.float8_e5m2).astype(np.float32), equal_nan=True)
    assert np.array_equal(decode_e2m1(BYTES[:16]), BYTES[:16].view(ml_dtypes.float4_e2m1fn).astype(np.float32))
    assert (decode_e2m1(BYTES) == np.tile(decode_e2m1(BYTES[:16]), 16)).all()
    assert (decode_int4(BYTES[:16]) == [0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1]).all()
    assert (decode_int4(BYTES, signed=False) == BYTES % 16).all()


def test_encode_saturates(ml_dtypes):
    """ml_dtypes after a clamp: overflow is where the libraries differ."""
    x = numbers()
    for encode, kind, largest in ((encode_e4m3, ml_dtypes.float8_e4m3fn, 448), (encode_e5m2, ml_dtypes.float8_e5m2, 57344),
                                  (encode_e2m1, ml_dtypes.float4_e2m1fn, 6)):
        want = np.clip(x, -largest, largest).astype(kind).view(np.uint8)
        assert (encode(x) == want).all(), kind
    assert (encode_int4(x) == (np.rint(np.clip(x, -8, 7)).astype(np.int8) & 15)).all()
    assert (encode_int4(x, signed=False) == np.rint(np.clip(x, 0, 15)).astype(np.uint8)).all()


def test_nan():
    nan = np.array([np.nan, -np.nan], np.float32)
    assert (encode_e4m3(nan) & 0x7F == 0x7F).all() and np.isnan(decode_e5m2(encode_e5m2(nan))).all()
    assert (encode_e2m1(nan) == 0).all() and (encode_int4(nan) == 0).all() and (encode_int4(nan, False) == 0).all()


def test_shapes_and_types():
    x = np.ones((2, 3, 5))
    for encode, decode in ((encode_e4m3, decode_e4m3), (encode_e5m2, decode_e5m2), (encode_e2m1, decode_e2m1), (encode_int4, decode_int4)):
        codes = encode(x)
        assert codes.shape == x.shape and codes.dtype == np.uint8
        assert decode(codes).shape == x.shape and decode(codes).dtype == np.float32 and (decode(codes) == 1).all()
        assert (encode(x[:, ::2, ::-1]) == codes[:, ::2, ::-1]).all() and encode(x[:0]).shape == (0, 3, 5)
        assert encode(np.float32(1)).shape == ()


def test_tables():
    assert (_formats.E4M3_MAX, _formats.E5M2_MAX, _formats.E2M1_MAX) == (448.0, 57344.0, 6.0)
    for table, size, decode in ((_formats._E4M3_LUT, 256, decode_e4m3), (_formats._E5M2_LUT, 256, decode_e5m2),
                                (_formats._E2M1_LUT, 16, decode_e2m1)):
        assert table.shape == (size,) and table.dtype == np.float32
        assert np.array_equal(table, decode(BYTES[:size]), equal_nan=True)


def test_nibbles():
    """The first code in the high bits, unlike ScaledTensor.data."""
    assert pack_nibbles(np.array([0, 1], np.uint8)).tolist() == [0x01]
    assert pack_nibbles(np.array([[10, 11], [12, 13]], np.uint8)).tolist() == [0xAB, 0xCD]
    assert pack_nibbles(np.array([0xF1, 0xF2], np.uint8)).tolist() == [0x12]
    codes = np.random.default_rng(0).integers(0, 16, 1000).astype(np.uint8)
    packed = pack_nibbles(codes)
    assert (packed == codes[0::2] * 16 + codes[1::2]).all() and packed.dtype == np.uint8
    assert (unpack_nibbles(packed, 1000) == codes).all() and (unpack_nibbles(packed, 7) == codes[:7]).all()
    assert pack_nibbles(codes[:0]).size == 0 and unpack_nibbles(packed, 0).size == 0


def test_nibble_errors():
    with pytest.raises(ValueError, match="even"):
        pack_nibbles(np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match="capacity"):
        unpack_nibbles(np.zeros(3, np.uint8), 7)
    assert "HIGH" in pack_nibbles.__doc__ and "ScaledTensor.data" in pack_nibbles.__doc__


def test_frozen_names():
    assert _formats.__all__ == ["E4M3_MAX", "E5M2_MAX", "E2M1_MAX", "encode_e4m3", "decode_e4m3", "encode_e5m2", "decode_e5m2",
                                "encode_e2m1", "decode_e2m1", "encode_int4", "decode_int4", "pack_nibbles", "unpack_nibbles",
                                "_E4M3_LUT", "_E5M2_LUT", "_E2M1_LUT"]


def test_extension_checks_sizes():
    with pytest.raises(ValueError, match="the row has 3"):
        _c.encode("e4m3", np.zeros(4, np.float32), np.zeros(3, np.uint8))
    with pytest.raises(TypeError, match="float32"):
        _c.encode("e4m3", np.zeros(4), np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        frozen = np.zeros(4, np.uint8)
        frozen.flags.writeable = False
        _c.encode("e4m3", np.zeros(4, np.float32), (frozen, "uint8"))
    with pytest.raises(ValueError, match="no format"):
        _c.encode("e9m9", np.zeros(4, np.float32), np.zeros(4, np.uint8))


@pytest.mark.parametrize("codes, kind", [(np.array([1.0]), TypeError), ([0.5], TypeError), (b"ab", TypeError), ("ab", TypeError),
                                         ([300], ValueError), ([-1], ValueError), (np.array([1], np.complex64), TypeError)])
def test_codes_are_bytes(codes, kind):
    """Numbers are no codes, and codes are not cut to a byte."""
    for decode in (_formats.decode_e4m3, _formats.decode_e5m2, _formats.decode_e2m1, _formats.decode_int4):
        with pytest.raises(kind):
            decode(codes)


def test_codes_of_any_type_of_a_byte(ml_dtypes):
    typed = np.array([1.0, -2.0], ml_dtypes.float8_e4m3fn)
    for codes in (typed, typed.view(np.uint8), typed.view(np.int8), typed.view(np.uint8).astype(np.int64), [56, 192]):
        assert (_formats.decode_e4m3(codes) == [1, -2]).all()
    assert _formats.decode_e4m3([]).shape == (0,) and _formats.decode_e4m3(56) == 1 and _formats.decode_e4m3(np.zeros((2, 0, 3), np.uint8)).shape == (2, 0, 3)
