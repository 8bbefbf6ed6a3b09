# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

import breccia
from breccia import Float8BlockScaling, Float8CurrentScaling, MXFP8BlockScaling, NVFP4BlockScaling
from recipes_list import ALL, IDS

RNG = np.random.default_rng(11)


def within(got, a, b):
    """|got - exact| <= K * 2^-24 * sum(|a||b|) + half an ulp of the output, exact in float64 of the float32 values."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    exact, size = a @ b, np.abs(a) @ np.abs(b)
    ulp = np.spacing(np.abs(exact).astype(got.dtype)).astype(np.float64)
    assert (np.abs(got.astype(np.float64) - exact) <= a.shape[-1] * 2.0 ** -24 * size + ulp / 2).all()


@pytest.mark.parametrize("recipe", ALL, ids=IDS)
def test_scaled_by_plain_and_scaled(recipe):
    a = breccia.cast(RNG.standard_normal((8, 256)).astype(np.float32), recipe)
    w = RNG.standard_normal((256, 24)).astype(np.float32)
    left = breccia.dequantize(a)
    got = breccia.matmul(a, w)
    assert got.dtype == np.float32 and got.shape == (8, 24)
    within(got, left, w)
    b = breccia.cast(np.ascontiguousarray(RNG.standard_normal((256, 128)).astype(np.float32)), Float8BlockScaling())
    within(breccia.matmul(a, b), left, breccia.dequantize(b))
    within(breccia.matmul(w.T[:, :256], a, transpose_b=True), w.T[:, :256], left.T)


def test_transposed_weight():
    """y = x W^T with the weight stored [N, K], as linear layers keep it."""
    x = RNG.standard_normal((5, 128)).astype(np.float32)
    w = breccia.cast(RNG.standard_normal((7, 128)).astype(np.float32), MXFP8BlockScaling())
    bias = RNG.standard_normal(7).astype(np.float32)
    within(breccia.matmul(x, w, transpose_b=True), x, breccia.dequantize(w).T)
    got = breccia.matmul(breccia.cast(x, MXFP8BlockScaling()), w, transpose_b=True, bias=bias)
    plain = breccia.matmul(breccia.cast(x, MXFP8BlockScaling()), w, transpose_b=True)
    assert np.abs(got - (plain + bias)).max() < 1e-5
    assert (breccia.matmul(breccia.cast(np.ascontiguousarray(x.T), Float8CurrentScaling()), w, transpose_a=True, transpose_b=True).shape
            == (5, 7))


def test_integers_are_exact():
    a = RNG.integers(-8, 9, (17, 128)).astype(np.float32)
    b = RNG.integers(-8, 9, (128, 19)).astype(np.float32)
    for recipe in (MXFP8BlockScaling(), Float8BlockScaling(block_k=128, power_of_two=True, arith="te")):
        st = breccia.cast(a, recipe)
        assert (breccia.dequantize(st) == a).all()
        assert (breccia.matmul(st, b) == a @ b).all()


@pytest.mark.parametrize("left, right, out", [((3, 4, 128), (3, 128, 5), (3, 4, 5)), ((3, 4, 128), (128, 5), (3, 4, 5)),
                                              ((4, 128), (3, 128, 5), (3, 4, 5)), ((1, 4, 128), (3, 128, 5), (3, 4, 5)),
                                              ((2, 3, 4, 128), (2, 3, 128, 5), (2, 3, 4, 5)), ((2, 3, 4, 128), (128, 5), (2, 3, 4, 5))])
def test_batches(left, right, out):
    a, b = RNG.standard_normal(left).astype(np.float32), RNG.standard_normal(right).astype(np.float32)
    st = breccia.cast(a, MXFP8BlockScaling())
    got = breccia.matmul(st, b)
    assert got.shape == out
    within(got, np.broadcast_to(breccia.dequantize(st), (*out[:-2], *left[-2:])), b)


@pytest.mark.parametrize("left, right", [((4, 128), (64, 5)), ((128,), (128, 5)), ((4, 128), (128,)), ((2, 4, 128), (3, 128, 5)),
                                         ((2, 1, 4, 128), (1, 3, 128, 5))])
def test_shape_mismatch(left, right):
    a = breccia.cast(np.ones(left, np.float32), Float8CurrentScaling())
    with pytest.raises(ValueError, match="shape mismatch"):
        breccia.matmul(a, np.ones(right, np.float32))


@pytest.mark.parametrize("dtype", [np.float16, "bfloat16"])
def test_output_types(dtype, ml_dtypes):
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    a = breccia.cast(RNG.standard_normal((8, 64)).astype(np.float32), NVFP4BlockScaling())
    w = RNG.standard_normal((64, 8)).astype(np.float32)
    got = breccia.matmul(a, w, dtype)
    assert got.dtype == kind and (got == breccia.matmul(a, w).astype(kind)).all()
    with pytest.raises(TypeError):
        breccia.matmul(a, w, np.float64)
    with pytest.raises(TypeError, match="dtype must be"):
        breccia.matmul(a, w, np.int32)


def test_plain_by_plain_is_numpy():
    a, b = RNG.standard_normal((3, 50)).astype(np.float32), RNG.standard_normal((50, 4)).astype(np.float32)
    within(breccia.matmul(a, b), a, b)


def test_same_bits_on_any_number_of_threads():
    a = breccia.cast(RNG.standard_normal((64, 256)).astype(np.float32), MXFP8BlockScaling())
    b = RNG.standard_normal((256, 96)).astype(np.float32)
    one = breccia.matmul(a, b, threads=1)
    assert (breccia.matmul(a, b, threads=2) == one).all() and (breccia.matmul(a, b) == one).all()
