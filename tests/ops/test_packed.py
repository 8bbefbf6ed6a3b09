# SPDX-License-Identifier: Apache-2.0
"""Packed weights: the same products as without packing, against NumPy in double."""
import ml_dtypes
import numpy as np
import pytest
from ops.test_matmul import OUTPUTS, PLAIN, RECIPES, bounded, operand

F = np.float32
RIGHT = [*RECIPES, "q4_0", "q4_1", "q8_0", "iq4_nl", "int4:format=nf4,group=64", "int4:rule=minmax,group=32", "nvfp4:levels=1", "mxfp8:format=e5m2", *PLAIN]
LEFT = [*PLAIN, "fp8", "mxfp8", "int4"]


@pytest.mark.parametrize("right", RIGHT)
def test_all_pairs(brc, right):
    rng = np.random.default_rng(1)
    for i, (m, n, k) in enumerate([(1, 5, 70), (2, 130, 64), (3, 17, 130), (4, 33, 300), (7, 16, 256), (16, 48, 512), (65, 31, 96), (130, 66, 70)]):
        left, dtype, transposed = LEFT[i % len(LEFT)], OUTPUTS[i % 3], i % 4 != 2
        x, y = rng.standard_normal((m, k)).astype(F), (rng.standard_normal((n, k) if transposed else (k, n)) * 3).astype(F)
        (a, a_values), (b, b_values) = operand(brc, x, left), operand(brc, y, right)
        b_values = b_values.T if transposed else b_values
        packed = brc.Packed(b, transposed, activations=left if left in PLAIN else "e4m3" if "fp8" in left else "int4")
        bounded(brc.matmul(a, packed, dtype=dtype), a_values, b_values, (left, right, m, n, k, packed.kind))
        bias, start = rng.standard_normal(n).astype(F), rng.standard_normal((m, n)).astype(dtype)
        out = start.copy()
        brc.matmul(a, packed, bias=bias, out=out, accumulate=True)
        bounded(out, a_values, b_values, "bias and accumulate", also=bias + start.astype(np.float64))


def test_batches(brc):
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((2, 3, 5, 40)).astype(F), rng.standard_normal((2, 3, 7, 40)).astype(F)
    for right in ("fp8", "mxfp8", "q4_0", "f32"):
        b, bv = operand(brc, y, right)
        bounded(brc.matmul(x, brc.Packed(b)), x, bv.swapaxes(-1, -2), right)
        one, ov = operand(brc, y[0, 0], right)
        bounded(brc.matmul(x, brc.Packed(one), shape=(2, 3, 5, 7)), x, ov.T, (right, "one b"))
        bounded(brc.matmul(x[0, 0], brc.Packed(b), shape=(2, 3, 5, 7)), x[0, 0], bv.swapaxes(-1, -2), (right, "one a"))


def test_strided_sides(brc):
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((9, 50)).astype(F), rng.standard_normal((11, 50)).astype(F)
    t, values = operand(brc, y, "fp8-row")
    room = np.full((20, 40), -7, F)
    out = room[1:19:2, 3:36:3]
    brc.matmul(x[::-1, ::-1], brc.Packed(t), out=out[::-1])
    bounded(out[::-1], x[::-1, ::-1], values.T, "reversed")
    out[...] = -7
    assert (room == -7).all()
    bounded(brc.matmul(x.T.copy(), brc.Packed(t), a_transposed=True), x, values.T, "a transposed")
    bounded(brc.matmul(x, brc.Packed(y[::-1, ::-1])), x, y[::-1, ::-1].T, "reversed weight")


def test_empty(brc):
    for m, n, k in [(0, 4, 5), (4, 0, 5), (0, 0, 0), (3, 4, 0)]:
        for right in ("f32", "fp8", "mxfp8", "q4_0" if k % 32 == 0 else "int4"):
            packed = brc.Packed(operand(brc, np.ones((n, k), F), right)[0])
            assert (brc.matmul(np.ones((m, k), F), packed) == np.zeros((m, n))).all()


def test_threads_change_nothing(brc):
    """Neither those that pack nor those that multiply."""
    rng = np.random.default_rng(8)
    for right in ("fp8", "mxfp4", "q4_0", "int8", "bf16"):
        y = operand(brc, rng.standard_normal((150, 320)).astype(F), right)[0]
        for m in (1, 3, 16, 200):
            x = rng.standard_normal((m, 320)).astype(F)
            one = brc.matmul(x, brc.Packed(y, threads=1), threads=1)
            for threads in (1, 2, 7, 64):
                assert np.array_equal(brc.matmul(x, brc.Packed(y, threads=threads), threads=threads).view(np.uint32), one.view(np.uint32))


def test_special_values(brc):
    """Infinity and NaN, on either side and in scales, as in float."""
    x = np.array([[1, np.inf], [np.nan, 1], [0, 0], [1e-45, 0]], F)
    want = np.array([[np.inf, np.nan], [np.nan, np.nan], [0, 0], [1e-45, 0]], F)
    assert np.array_equal(brc.matmul(x, brc.Packed(np.array([[1, 1], [0, 0]], F))), want, equal_nan=True)
    ones = np.full((1, 32), 0x38, np.uint8)
    for code in (0x7F, 0xFF):
        codes = ones.copy()
        codes[0, 3] = code
        t = brc.tensor("e4m3", (1, 32), codes, scale=(np.ones(1, F), "f32", (0, 0, 0)))
        assert np.isnan(brc.matmul(np.ones((2, 32), F), brc.Packed(t))).all() and np.isnan(brc.matmul(np.ones((2, 32), F), t, b_transposed=True)).all()
    for scale in (np.nan, np.inf, 0, -2, 1e-40, 3e38):
        t = brc.tensor("e4m3", (1, 32), ones, scale=(np.array([scale], F), "f32", (0, 0, 0)))
        for m in (1, 5, 20):
            x = np.arange(m * 32, dtype=F).reshape(m, 32) - 7
            with np.errstate(invalid="ignore", over="ignore"):
                exact = x.astype(np.float64) @ np.full((32, 1), F(scale), np.float64)
                want = exact.astype(F)
                plain = brc.matmul(x, t, b_transposed=True)
            got = brc.matmul(x, brc.Packed(t))
            assert np.array_equal(np.isfinite(got), np.isfinite(plain)) and np.array_equal(np.isnan(got), np.isnan(plain)), scale
            sure = np.isfinite(want)
            assert np.allclose(got[sure], want[sure], rtol=1e-5, atol=1e-43), scale


def test_bytes(brc):
    assert brc.Packed(np.ones((64, 64), F)).bytes >= 64 * 64 * 4
    assert brc.Packed(np.ones((64, 64), F)).kind == "f32"
    assert brc.lib.brc_packed_bytes(brc.ffi.NULL) == 0 and brc.lib.brc_packed_kind(brc.ffi.NULL) == brc.ffi.NULL
    brc.lib.brc_packed_free(brc.ffi.NULL)


def test_refusals(brc):
    ones = np.ones((4, 8), F)
    packed = brc.Packed(ones)

    def refused(match, name, call, *arguments, **more):
        with pytest.raises(brc.Error, match=match) as error:
            call(*arguments, **more)
        assert error.value.name == name, error.value

    refused("at least 2 dimensions", "SHAPE", brc.Packed, np.ones(3, F))
    refused("a format of numbers", "FORMAT", brc.Packed, ones, activations="bool")
    refused("f64, f32, f16 or bf16", "FORMAT", brc.Packed, ones.astype(np.int8))
    refused("shape mismatch", "SHAPE", brc.matmul, np.ones((2, 9), F), packed, shape=(2, 4))
    refused("shape mismatch", "SHAPE", brc.matmul, np.ones((2, 8), F), packed, shape=(2, 5))
    made = brc.ffi.new("brc_packed **", packed.c)
    refused("not both", "ARGUMENT", brc.call, "brc_pack_new", brc.ffi.new("brc_operand *"), brc.lib.BRC_F32, brc.ffi.NULL, made)
    assert made[0] == brc.ffi.NULL
    refused("packed is missing", "ARGUMENT", brc.call, "brc_pack_new", brc.ffi.new("brc_operand *"), brc.lib.BRC_F32, brc.ffi.NULL, brc.ffi.NULL)
    refused("weight is missing", "ARGUMENT", brc.call, "brc_pack_new", brc.ffi.NULL, brc.lib.BRC_F32, brc.ffi.NULL, made)
    x, out = brc.array(np.ones((2, 8), F)), brc.array(np.ones((2, 4), F))
    product = brc.new("brc_product", out=out, packed=packed.c)
    product.a, product.b = (brc.ffi.NULL, x, 0), (brc.ffi.NULL, x, 0)
    refused("b and a packed weight", "ARGUMENT", brc.call, "brc_matmul", product)
    for size in (0, brc.ffi.sizeof("brc_product") - 4):
        product.size = size
        refused("another version", "ARGUMENT", brc.call, "brc_matmul", product)


def test_older_structs(brc):
    """One that ends before `packed`: what lies behind it is not read."""
    x, w, out = np.ones((2, 8), F), np.ones((4, 8), F), np.zeros((2, 4), F)
    a, b, target = brc.array(x), brc.array(w), brc.array(out)
    product = brc.new("brc_product", out=target, packed=brc.ffi.cast("brc_packed *", 1))
    product.a, product.b, product.size = (brc.ffi.NULL, a, 0), (brc.ffi.NULL, b, 1), brc.ffi.offsetof("brc_product", "packed")
    brc.call("brc_matmul", product)
    assert (out == 8).all()


@pytest.mark.parametrize("odd", [np.inf, np.nan, 1e-30, 1e-44, 3e38])
def test_numbers_that_are_not_split(brc, odd):
    """Units for BF16 flush subnormals and have no sums for infinity: such rows are computed in F32."""
    rng = np.random.default_rng(9)
    x, y = rng.standard_normal((33, 96)).astype(F), rng.standard_normal((20, 96)).astype(F)
    x[7] *= 0
    x[7, 5] = odd
    for right in ("fp8", "mxfp4", "q8_0"):
        w, values = operand(brc, y, right)
        got = brc.matmul(x, brc.Packed(w))
        rest = np.arange(33) != 7
        bounded(got[rest], x[rest], values.T, (right, odd))
        with np.errstate(invalid="ignore", over="ignore"):
            exact = (x[7:8].astype(np.float64) @ values.T.astype(np.float64)).astype(F)
        finite = np.isfinite(exact)
        assert np.array_equal(np.isnan(exact), np.isnan(got[7:8])), (right, odd)
        assert np.allclose(got[7:8][finite], exact[finite], rtol=1e-5, atol=1e-44), (right, odd)


def test_many_rows(brc):
    """More than are packed at a time, added to what is there."""
    rng = np.random.default_rng(10)
    x, y = rng.standard_normal((1100, 64)).astype(F), rng.standard_normal((40, 64)).astype(F)
    w, values = operand(brc, y, "mxfp8")
    for a, a_values in (operand(brc, x, "mxfp8"), operand(brc, x, "bf16"), operand(brc, x, "f32")):
        out = np.ones((1100, 40), F)
        bounded(brc.matmul(a, brc.Packed(w), out=out, accumulate=True), a_values, values.T, "rounds", also=np.ones((1100, 40)))
