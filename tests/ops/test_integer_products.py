# SPDX-License-Identifier: Apache-2.0
"""Products of integer codes: exact inside a scale block against NumPy's 64-bit integers, bounded across blocks, on every level."""
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from core.codes import pack
from cpu.test_levels import LEVELS, processor

F = np.float32
ACTIVATIONS = ["int8", "int8:group=32", "int8:block=tensor", "int8:group=128", "q8_0"][:2 if "BRECCIA_LEVEL_UNDER_TEST" in os.environ else 5]
WEIGHTS = ["int8", "int4", "int4:group=32", "int4:group=32,format=uint4,rule=minmax", "int4:block=row", "mxfp4", "nvfp4", "nvfp4:levels=1", "q4_0",
           "q8_0", "iq4_nl", "q5_0", "mxint8", "int4:group=48", "int8:block=4x32", "mxfp6-e2m3", "int4:format=int3,group=64"]


def cast(brc, x, text):
    return brc.cast(x, f"{text}{',' if ':' in text else ':'}partial=1")


def codes_of(brc, rng, element, shape, low, high):
    codes = rng.integers(low, high + 1, shape)
    bits = {"int8": 8, "int4": 4, "uint4": 4}[element]
    return codes, pack(element, (codes & ((1 << bits) - 1)).astype(np.uint8))


def integers(brc, rng, element, shape, low, high, scale=1.0, zero=None):
    """A tensor with one scale for all, and its numbers."""
    codes, data = codes_of(brc, rng, element, shape, low, high)
    zeros = None if zero is None else (np.array([zero], np.uint8), "uint8", (0, 0, 0))
    t = brc.tensor(element, shape, data, scale=(np.array([scale], F), "f32", (0, 0, 0)), zero=zeros)
    return t, codes - (zero or 0)


@pytest.mark.parametrize("m, n, k", [(1, 1, 16), (1, 33, 64), (5, 70, 100), (16, 32, 4096), (17, 31, 1000), (65, 97, 130), (3, 5, 70_000)])
@pytest.mark.parametrize("element, low, high, zero", [("int8", -128, 127, None), ("int4", -8, 7, None), ("uint4", 0, 15, 11)])
def test_exact_integers(brc, m, n, k, element, low, high, zero):
    """Sums far beyond 2^24 are the integer, rounded once: no float was added on the way."""
    rng = np.random.default_rng(m + n + k)
    a, x = integers(brc, rng, "int8", (m, k), -128, 127, 0.5)
    b, y = integers(brc, rng, element, (n, k), low, high, 4.0, zero)
    x, y = x.astype(np.int64), y.astype(np.int64)
    if k <= 65536:
        assert np.array_equal(brc.matmul(a, b, b_transposed=True), (x @ y.T * 2).astype(F))
        assert np.array_equal(brc.matmul(a, brc.Packed(b, activations="int8")), (x @ y.T * 2).astype(F))
    else:
        first = x[:, :65536] @ y[:, :65536].T, x[:, 65536:] @ y[:, 65536:].T          # two blocks: two roundings
        assert np.abs(brc.matmul(a, b, b_transposed=True) - 2.0 * (first[0] + first[1])).max() <= 4 * np.abs(x @ y.T).max() * 2.0**-24


@pytest.mark.parametrize("left, right", list(itertools.product((-128, 127), repeat=2)))
def test_extremes(brc, left, right):
    """The largest sums there are: a block of 65,536, each product 2^14."""
    for k in (64, 4096, 65536):
        a = brc.tensor("int8", (9, k), np.full((9, k), left, np.int8), scale=(np.ones(1, F), "f32", (0, 0, 0)))
        b = brc.tensor("int8", (40, k), np.full((40, k), right, np.int8), scale=(np.ones(1, F), "f32", (0, 0, 0)))
        assert (brc.matmul(a, b, b_transposed=True) == F(left * right * k)).all()


def bounded(got, a, b, block, what):
    """Tighter than promised: (blocks + 7) * 2^-24 * sum(|a||b|) and half an ulp."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    exact, most = a @ b.T, np.abs(a) @ np.abs(b).T
    allowed = (-(-a.shape[1] // block) + 7) * 2.0**-24 * most + np.spacing(np.abs(exact).astype(F)) / 2
    wrong = ~(np.abs(got - exact) <= allowed)
    assert got.shape == exact.shape and not wrong.any(), (what, got[wrong][:3], exact[wrong][:3], allowed[wrong][:3])


@pytest.mark.parametrize("right", WEIGHTS)
@pytest.mark.parametrize("left", ACTIVATIONS)
def test_scaled(brc, left, right):
    for m, n, k in ((4, 33, 256), (23, 70, 168), (1, 5, 640), (40, 32, 1088), (9, 34, 1104)):
        rng = np.random.default_rng(k)
        x = (rng.standard_normal((m, k)) * np.exp2(rng.integers(-9, 9, (m, 1)))).astype(F)
        y = (rng.standard_normal((n, k)) * np.exp2(rng.integers(-3, 3, (n, 1)))).astype(F)
        x[0, 32:64], y[1, 64:96], y[2] = 0, 0, 0
        a, b = cast(brc, x, left), cast(brc, y, right)
        got = brc.matmul(a, b, b_transposed=True)
        bounded(got, brc.dequantize(a), brc.dequantize(b), 16, (left, right, m, n, k))
        packed = brc.Packed(b, activations="int8")
        assert packed.kind == "integers", (right, packed.kind)
        from_packed = brc.matmul(a, packed)
        bounded(from_packed, brc.dequantize(a), brc.dequantize(b), 16, (left, right, "packed", m, n, k))
        for threads in (1, 2, 7):
            assert np.array_equal(brc.matmul(a, b, b_transposed=True, threads=threads), got)
            assert np.array_equal(brc.matmul(a, brc.Packed(b, activations="int8", threads=threads), threads=threads), from_packed)


def test_batches_bias_outputs(brc):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((2, 3, 5, 96)).astype(F), rng.standard_normal((2, 3, 40, 96)).astype(F)
    a, b, one = cast(brc, x, "int8:group=32"), cast(brc, y, "mxfp4"), cast(brc, y[:1, :1], "int4:group=32")
    av, bv, ov = brc.dequantize(a), brc.dequantize(b), brc.dequantize(one)
    got, shared = brc.matmul(a, b, b_transposed=True), brc.matmul(a, one, b_transposed=True, shape=(2, 3, 5, 40))
    for i, j in itertools.product(range(2), range(3)):
        bounded(got[i, j], av[i, j], bv[i, j], 16, "batch")
        bounded(shared[i, j], av[i, j], ov[0, 0], 16, "one b")
    bias, start = rng.standard_normal(40).astype(F), rng.standard_normal((2, 3, 5, 40)).astype(F)
    out = start.copy()
    brc.matmul(a, b, b_transposed=True, bias=bias, out=out, accumulate=True)
    assert np.allclose(out, got + bias + start, rtol=1e-6, atol=1e-5)
    half = brc.matmul(a, b, b_transposed=True, dtype=np.float16)
    assert np.array_equal(half, got.astype(np.float16))
    room = np.full((2, 3, 10, 120), 7, F)
    brc.matmul(a, b, b_transposed=True, out=room[:, :, ::2, ::3])
    assert np.array_equal(room[:, :, ::2, ::3], got) and (room[:, :, 1::2] == 7).all()


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**90, 0.0, np.inf, np.nan, -3.0])
def test_scales_out_of_range(brc, scale):
    """Scales whose products would leave F32, in some rows and blocks, beside ordinary ones."""
    rng = np.random.default_rng(3)
    sx, sy = np.ones((1, 6, 3), F), np.ones((1, 37, 3), F)
    sx[0, 4, 1], sy[0, 35, 2] = scale, scale
    x, y = rng.integers(-128, 128, (6, 96)).astype(np.int8), rng.integers(-8, 8, (37, 96))
    y[35, :64], x[4, 64:] = 0, 1
    a = brc.tensor("int8", (6, 96), x, scale=(sx, "f32", (1, 1, 32)), layout="per_block_k")
    b = brc.tensor("int4", (37, 96), pack("int4", (y & 15).astype(np.uint8)), scale=(sy, "f32", (1, 1, 32)), layout="per_block_k")
    with np.errstate(all="ignore"):
        av, bv = (c.astype(np.float64) * np.repeat(s[0], 32, 1) for c, s in ((x, sx), (y, sy)))
        want = (av @ bv.T)
        ordinary = brc.tensor("int4", (37, 96), pack("int4", (y & 15).astype(np.uint8)), scale=(np.ones(1, F), "f32", (0, 0, 0)))
        for got, expected in ((brc.matmul(a, b, b_transposed=True), want), (brc.matmul(a, brc.Packed(ordinary, activations="int8")), av @ y.T),
                              (brc.matmul(a, brc.Packed(b, activations="int8")) if scale in (0.0, -3.0) else want, want)):
            assert np.array_equal(np.isnan(got), np.isnan(expected))
            assert np.allclose(got, expected.astype(F), rtol=2e-6, atol=0, equal_nan=True)


def test_zero_blocks_of_tiny_scales(brc):
    """MX gives a block of zeros the scale 2^-127: its products stay exact zeros, and its row as fast as others."""
    x = np.zeros((3, 96), F)
    x[:, :32] = np.arange(96).reshape(3, 32)
    a, b = cast(brc, x, "int8:group=32"), cast(brc, x, "mxfp4")
    bounded(brc.matmul(a, b, b_transposed=True), brc.dequantize(a), brc.dequantize(b), 32, "zeros")


@pytest.mark.skipif("BRECCIA_LEVEL_UNDER_TEST" in os.environ, reason="runs inside test_levels")
@pytest.mark.parametrize("level", [level for level in LEVELS if Path(__file__).parents[2].joinpath("src/cpu", level, "integer.c").exists()])
def test_levels(level):
    """The same tests with each instruction set forced."""
    if not LEVELS[level] <= processor():
        pytest.skip(f"this processor has no {level}")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__], capture_output=True, text=True,
                          env={**os.environ, "BRECCIA_ISA": level, "BRECCIA_LEVEL_UNDER_TEST": level})
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.skipif("BRECCIA_LEVEL_UNDER_TEST" not in os.environ, reason="runs inside test_levels")
def test_level_is_the_one(brc):
    assert brc.ffi.string(brc.lib.brc_isa()).decode() == os.environ["BRECCIA_LEVEL_UNDER_TEST"]
