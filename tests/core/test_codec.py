# SPDX-License-Identifier: Apache-2.0
"""The generic codec against ml_dtypes, torch and NumPy: every code decoded, floats encoded, rows packed."""
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import ml_dtypes
import numpy as np
import pytest
import torch
from core.codes import (BITS, CODEBOOKS, ELEMENTS, FLOATS, INTEGERS, NAN_CODES, SMALL_INTEGERS, code_type, decode, encode, pack, unpack,
                        values_of)

EVERY = [*BITS]
TORCH = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2, "e4m3fnuz": torch.float8_e4m3fnuz, "e5m2fnuz": torch.float8_e5m2fnuz,
         "e8m0": torch.float8_e8m0fnu, "f16": torch.float16, "bf16": torch.bfloat16, "f64": torch.float64}


def same_floats(got, want, what):
    """The same float32 numbers, zeros with their signs; any NaN is a NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        want = want.astype(np.float32)
    equal = (got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))
    assert equal.all(), f"{what}: {int((~equal).sum())} differ, first code {int(np.argmax(~equal)):#x}: " \
                        f"{got[np.argmax(~equal)]!r}, expected {want[np.argmax(~equal)]!r}"


def same_codes(format, got, x, want, other):
    wrong = np.flatnonzero(got != want)
    assert wrong.size == 0, f"{format} against {other}: {wrong.size} of {x.size} differ, first {x[wrong[0]]!r} " \
                            f"({x.view(np.uint32)[wrong[0]]:#010x}): {got[wrong[0]]:#x}, expected {want[wrong[0]]:#x}"


def torch_codes(format, x):
    """torch's own conversion, clamped first where breccia saturates; its NaN made breccia's."""
    t = torch.from_numpy(x)
    if format == "e8m0":                                        # breccia drops the sign and has no NaN for large numbers
        t = t.abs().clamp(max=2.0**127)
    elif format not in ("f16", "bf16", "f64"):
        largest = torch.finfo(TORCH[format]).max
        t = t.clamp(-largest, largest)
    codes = t.to(TORCH[format]).view({1: torch.uint8, 2: torch.int16, 8: torch.int64}[BITS[format] // 8]).numpy()
    return np.where(np.isnan(x), np.array(NAN_CODES[format]).astype(code_type(format)), codes.view(code_type(format)))


# ------------------------------------------------------------------------------------------------------- decode

@pytest.mark.parametrize("format", [f for f in EVERY if BITS[f] <= 16])
def test_decode_every_code(brc, format):
    codes = np.arange(1 << BITS[format]).astype(code_type(format))
    same_floats(brc.decode(format, pack(format, codes), codes.size), decode(format), format)


@pytest.mark.parametrize("format", [f for f in EVERY if BITS[f] > 16])
def test_decode_wide(brc, format):
    """Every exponent and end of f32 and f64, powers of two and their neighbours of wide integers; rounding to float32 is nearest even."""
    bits, rng = BITS[format], np.random.default_rng(1)
    powers = [1 << i for i in range(bits)]
    codes = {0, 1, (1 << bits) - 1, *powers, *(p - 1 for p in powers), *(p + 1 for p in powers), *(p + (p >> 24) for p in powers),
             *(p + (p >> 24) + 1 for p in powers), *(p + 3 * (p >> 24) for p in powers)}
    codes = np.array(sorted(c & ((1 << bits) - 1) for c in codes), np.uint64)
    codes = np.concatenate([codes, rng.integers(0, 1 << bits, 20000, np.uint64, endpoint=False) if bits < 64 else
                            rng.integers(0, (1 << 64) - 1, 20000, np.uint64)])
    if format in ("f64", "f32"):
        shift, top = (52, 11) if format == "f64" else (23, 8)
        exponents = np.arange(1 << (top + 1), dtype=np.uint64) << np.uint64(shift)
        codes = np.concatenate([codes, *(exponents | np.uint64(m) for m in (0, 1, (1 << shift) - 1, 1 << (shift - 1), 0x0FFFFFFF, 0x10000000,
                                                                            0x10000001, 0x30000000) if m < 1 << shift)])
    if format in INTEGERS:                                      # one rounding: int64 -> float32, not through double
        signed = codes.astype(code_type(format)).view(f"{'iu'[format[0] == 'u']}{bits // 8}")
        exact = signed.astype(np.float64)
        got = brc.decode(format, codes.astype(code_type(format)))
        want = signed.astype(np.float32)
        assert np.array_equal(got[exact == signed.astype(object)], want[exact == signed.astype(object)])
        assert np.abs(got.astype(object) - signed.astype(object)).max() <= 2 * np.abs(want.astype(object) - signed.astype(object)).max()
        return
    with np.errstate(over="ignore", invalid="ignore"):
        same_floats(brc.decode(format, codes.astype(code_type(format))), values_of(format, codes), format)


def test_facts_of_formats(brc):
    """The facts of brc_format_info against what the codes say."""
    assert {*brc.formats()} == {*EVERY, "bool", "complex64"}
    for format, info in brc.formats().items():
        if format in ("bool", "complex64"):
            continue
        assert info.bits == BITS[format]
        assert info.nan_code % (1 << 64) == NAN_CODES.get(format, -1) % (1 << 64)
        if BITS[format] > 16:
            continue
        values = decode(format)
        finite = np.isfinite(values)
        if format == "int8q6":
            finite[128] = False                                 # -128 is decoded but never written
        assert (info.max, info.min) == (values[finite].max(), values[finite].min()), format
        assert values[info.max_code] == info.max, format
        assert info.smallest == values[finite & (values > 0)].min(), format
        if format in FLOATS:
            assert info.smallest_normal == float(ml_dtypes.finfo(FLOATS[format]).smallest_normal), format
        elif format in ("f16", "bf16"):
            assert info.smallest_normal == float(ml_dtypes.finfo({"f16": np.float16, "bf16": ml_dtypes.bfloat16}[format]).smallest_normal)
    assert (brc.formats()["f64"].max, brc.formats()["f64"].smallest) == (np.finfo(np.float64).max, np.finfo(np.float64).smallest_subnormal)
    assert (brc.formats()["f32"].max, brc.formats()["f32"].smallest) == (np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal)


# ------------------------------------------------------------------------------------------------------- encode

def stratified(format):
    """Every sign and exponent with many mantissas; every code, the midpoints between codes, and two neighbours of each."""
    rng = np.random.default_rng(2)
    ends = [0, 1, 2, 0x3FFFFF, 0x400000, 0x400001, 0x7FFFFE, 0x7FFFFF]
    steps = [(k << (23 - bits)) + d for bits in range(1, 6) for k in range(1 << bits) for d in (-1, 0, 1)]
    mantissas = np.unique(np.array([*ends, *(s & 0x7FFFFF for s in steps), *rng.integers(0, 1 << 23, 60)], np.uint32))
    everywhere = (np.arange(512, dtype=np.uint32)[:, None] << np.uint32(23) | mantissas).ravel().view(np.float32)
    if BITS[format] > 16:
        return everywhere
    values = np.unique(decode(format)[np.isfinite(decode(format))])
    middles = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    last = np.float32(values[-1] + (values[-1] - values[-2]) / 2)
    x = np.concatenate([values.astype(np.float32), middles, [last, -last]]).astype(np.float32)
    near = [x]
    for direction in (-np.inf, np.inf):
        once = np.nextafter(x, np.float32(direction))
        near += [once, np.nextafter(once, np.float32(direction))]
    return np.concatenate([everywhere, *near]).astype(np.float32)


@pytest.mark.parametrize("format", EVERY)
def test_encode_stratified(brc, format):
    with np.errstate(over="ignore", invalid="ignore"):
        x = stratified(format)
    got = unpack(format, brc.encode(format, x), x.size)
    same_codes(format, got, x, encode(format, x), "ml_dtypes or numpy")
    if format in TORCH:
        same_codes(format, got, x, torch_codes(format, x), "torch")


def test_codebook_distances(brc):
    """Nearest in double, the lower code of two; far outside the nearest end."""
    for format, table in CODEBOOKS.items():
        x = np.concatenate([np.linspace(table[0] * 1.2, table[-1] * 1.2, 4001).astype(np.float32),
                            ((table[1:] + table[:-1]) / 2).astype(np.float32), table.astype(np.float32)])
        distance = np.abs(x.astype(np.float64)[:, None] - table)
        got = unpack(format, brc.encode(format, x), x.size)
        assert np.array_equal(got, distance.argmin(1))
        far = np.array([1e10, 1e20, 3e38, np.inf, -1e10, -1e20, -3e38, -np.inf], np.float32)
        assert unpack(format, brc.encode(format, far), 8).tolist() == [15] * 4 + [0] * 4


# --------------------------------------------------------------------------------------------------------- rows

@pytest.mark.parametrize("format", [*ELEMENTS, "e8m0", "f16", "f32"])
def test_rows_are_bit_streams(brc, format):
    """Element i at bit i*bits of a little-endian stream, padding 0, at every length; the row before and after is untouched."""
    bits, rng = BITS[format], np.random.default_rng(3)
    for n in range(71):
        codes = rng.integers(0, 1 << bits, n, np.uint64)
        if format == "int8q6":
            codes[codes == 0x80] = 0x81
        if format in NAN_CODES or format in ("e4m3fnuz", "e5m2fnuz"):
            codes = encode(format, rng.standard_normal(n).astype(np.float32)).astype(np.uint64)
        stream = (codes[:, None] >> np.arange(bits, dtype=np.uint64) & np.uint64(1)).astype(np.uint8).ravel()
        want = np.packbits(stream, bitorder="little")
        assert brc.lib.brc_row_bytes(brc.format_of(format), n) == want.size == (n * bits + 7) // 8
        assert np.array_equal(pack(format, codes.astype(code_type(format))), want)
        x = values_of(format, codes).astype(np.float32)
        room = np.full(want.size + 2, 0xA5, np.uint8)
        brc.call("brc_encode", brc.format_of(format), brc.ffi.from_buffer("float[]", x) if n else brc.ffi.NULL, n,
                 brc.ffi.from_buffer(room) + 1)
        assert np.array_equal(room[1:-1], want) and room[0] == room[-1] == 0xA5
        same_floats(brc.decode(format, want, n), x, format)


@pytest.mark.parametrize("name", ["none", "bool", "complex64"])
def test_not_numbers(brc, name):
    room = np.zeros(64, np.uint8)
    with pytest.raises(brc.Error, match="cannot be encoded or decoded"):
        brc.call("brc_decode", brc.format_of(name), brc.ffi.from_buffer(room), 1, brc.ffi.new("float[1]"))


def test_row_bytes_of_hostile_counts(brc):
    size = brc.lib.brc_row_bytes
    f32, e2m1, e3m2 = (brc.format_of(f) for f in ("f32", "e2m1", "e3m2"))
    assert size(f32, -1) == -1 and size(f32, (1 << 61)) == -1 and size(f32, (1 << 63) - 1) == -1
    assert size(f32, 1 << 60) == 1 << 62
    assert size(e2m1, (1 << 63) - 1) == 1 << 62 and size(e3m2, 1 << 62) == 3 << 60
    assert size(999, 5) == 0


# -------------------------------------------------------------------------------------------------- all 2^32 floats

CHUNK = 1 << 22


def sweep(format, first, last):
    """Differences of breccia's encoder to (ml_dtypes or NumPy, torch) over float32 bit patterns [first, last)."""
    import breccia_c as brc
    torch.set_num_threads(1)
    mine = other = 0
    for start in range(first, last, CHUNK):
        x = np.arange(start, start + CHUNK, dtype=np.uint32).view(np.float32)
        row = brc.encode(format, x)
        mine += int((row != pack(format, encode(format, x))).sum())
        if format in TORCH:
            other += int((row != torch_codes(format, x).view(np.uint8)).sum())
    return mine, other


# float32 itself and the wide formats are covered by the strata: their encoders are shifts.
@pytest.mark.exhaustive
@pytest.mark.parametrize("format", [*ELEMENTS, "e8m0", "f16", "bf16"])
def test_encode_every_float(format):
    """About one to three minutes a format and processor."""
    began, parts = time.monotonic(), 16
    edges = [(i << 32) // parts for i in range(parts + 1)]
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        found = np.array([*pool.map(sweep, [format] * parts, edges[:-1], edges[1:])]).sum(0)
    torch_too = f", {found[1]} from torch" if format in TORCH else ""
    print(f"{format}: 2^32 floats, {found[0]} differ from ml_dtypes or numpy{torch_too}, {time.monotonic() - began:.0f} s", file=sys.stderr)
    assert (found == 0).all()
