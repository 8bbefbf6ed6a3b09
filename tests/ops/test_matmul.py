# SPDX-License-Identifier: Apache-2.0
"""Products of any two tensors, scaled or plain, against NumPy in double."""
import itertools

import ml_dtypes
import numpy as np
import pytest
from core.codes import encode, pack, values_of

F = np.float32
RECIPES = ["fp8-delayed", "fp8", "fp8-row", "fp8-block", "fp8-block128", "mxfp8", "mxfp6-e3m2", "mxfp6-e2m3", "mxfp4", "mxint8", "nvfp4",
           "int8", "int4"]
PLAIN = {"f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
OUTPUTS = [np.float32, np.float16, ml_dtypes.bfloat16]


def operand(brc, x, kind):
    """The operand and its float32 values."""
    if kind in PLAIN:
        x = x.astype(PLAIN[kind])
        return x, x.astype(F)
    t = brc.cast(x, f"{kind}{',' if ':' in kind else ':'}partial=1")
    return t, brc.dequantize(t)


def half_ulp(value, dtype):
    """Of the output type, at the exact value's size."""
    info = ml_dtypes.finfo(dtype)
    _, exponent = np.frexp(np.maximum(np.abs(value), float(info.smallest_normal)))
    return 2.0 ** (exponent - 1.0 - info.nmant) / 2


def bounded(got, a, b, what, also=0.0):
    """|c - exact| <= K*2^-24 * sum(|a||b|) + half an ulp of the output; `also` = bias and what was accumulated on."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    exact = a @ b + also
    most = a.shape[-1] * 2.0**-24 * (np.abs(a) @ np.abs(b) + np.abs(also)) + 2.0**-24 * np.abs(exact) * (got.dtype != F)
    allowed = most + half_ulp(exact, got.dtype)
    wrong = ~(np.abs(got.astype(np.float64) - exact) <= allowed)
    assert got.shape == exact.shape and not wrong.any(), (what, got[wrong][:3], exact[wrong][:3], allowed[wrong][:3])


@pytest.mark.parametrize("left", [*RECIPES, *PLAIN])
def test_all_pairs(brc, left):
    rng = np.random.default_rng(1)
    for i, right in enumerate([*RECIPES, *PLAIN]):
        m, n, k = [(7, 5, 70), (65, 3, 64), (2, 66, 130)][i % 3]
        a_transposed, b_transposed = i & 1, i >> 1 & 1
        x, y = rng.standard_normal((m, k)).astype(F), (rng.standard_normal((k, n)) * 3).astype(F)
        a, a_values = operand(brc, np.ascontiguousarray(x.T) if a_transposed else x, left)
        b, b_values = operand(brc, np.ascontiguousarray(y.T) if b_transposed else y, right)
        dtype = OUTPUTS[i % 3]
        got = brc.matmul(a, b, a_transposed, b_transposed, dtype=dtype)
        bounded(got, a_values.T if a_transposed else a_values, b_values.T if b_transposed else b_values, (left, right))


@pytest.mark.parametrize("a_transposed, b_transposed", list(itertools.product((False, True), repeat=2)))
@pytest.mark.parametrize("m, n, k", [(1, 1, 1), (1, 1, 1000), (64, 64, 64), (65, 63, 129), (3, 200, 17), (130, 1, 31), (1, 129, 257)])
def test_shapes(brc, m, n, k, a_transposed, b_transposed):
    rng = np.random.default_rng(m * n + k)
    x, y = rng.standard_normal((k, m) if a_transposed else (m, k)).astype(F), rng.standard_normal((n, k) if b_transposed else (k, n)).astype(F)
    for dtype in OUTPUTS:
        a, av = operand(brc, x, "mxfp8")
        b, bv = operand(brc, y, "nvfp4")
        av, bv = av.T if a_transposed else av, bv.T if b_transposed else bv
        bounded(brc.matmul(a, b, a_transposed, b_transposed, dtype=dtype), av, bv, (m, n, k))
        bias, start = rng.standard_normal(n).astype(F), rng.standard_normal((m, n)).astype(dtype)
        out = start.copy()
        brc.matmul(a, y, a_transposed, b_transposed, bias=bias, out=out, accumulate=True)
        yv = y.T if b_transposed else y
        bounded(out, av, yv, "bias and accumulate", also=bias + start.astype(np.float64))
        half_bias = bias.astype(ml_dtypes.bfloat16)
        bounded(brc.matmul(x, b, a_transposed, b_transposed, bias=half_bias, dtype=dtype), x.T if a_transposed else x, bv, "bias",
                also=half_bias.astype(np.float64))


def test_batches(brc):
    """Leading dimensions equal, or one matrix for all."""
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((2, 3, 5, 40)).astype(F), rng.standard_normal((2, 3, 40, 7)).astype(F)
    for left, right in (("fp8", "fp8"), ("mxfp8", "f32"), ("f16", "int4"), ("nvfp4", "fp8-block128"), ("fp8:block=expert", "fp8-row")):
        a, av = operand(brc, x, left)
        b, bv = operand(brc, y, right)
        bounded(brc.matmul(a, b), av, bv, (left, right))
        one_a, one_av = operand(brc, x[0, 0], left)
        one_b, one_bv = operand(brc, y[:1, :1], right)
        bounded(brc.matmul(one_a, b), one_av, bv, (left, right, "one a"))
        bounded(brc.matmul(a, one_b, shape=(2, 3, 5, 7)), av, one_bv, (left, right, "one b"))
        got = brc.matmul(one_a, one_b, shape=(4, 2, 5, 7))
        bounded(got, np.broadcast_to(one_av, (4, 2, 5, 40)), one_bv[0, 0], (left, right, "both one"))
    bounded(brc.matmul(x, y.swapaxes(-1, -2), b_transposed=True), x, y, "strided plain operands")


def test_strided_output_and_operands(brc):
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((9, 50)).astype(F), rng.standard_normal((50, 11)).astype(F)
    room = np.full((20, 40), -7, F)
    out = room[1:19:2, 3:36:3]
    brc.matmul(x[::-1, ::-1], y[::-1], out=out[::-1])
    bounded(out[::-1], x[::-1, ::-1], y[::-1], "reversed")
    out[...] = -7
    assert (room == -7).all()
    broadcast = brc.matmul(np.broadcast_to(x[0], (4, 50)), y)
    bounded(broadcast, np.repeat(x[:1], 4, 0), y, "broadcast")


def test_empty(brc):
    for m, n, k in [(0, 4, 5), (4, 0, 5), (0, 0, 0), (3, 4, 0)]:
        for left, right in (("f32", "f32"), ("fp8", "mxfp8"), ("int8", "f16"), ("nvfp4", "fp8-block128")):
            a, _ = operand(brc, np.ones((m, k), F), left)
            b, _ = operand(brc, np.ones((k, n), F), right)
            assert (brc.matmul(a, b) == np.zeros((m, n))).all()
            out = np.full((m, n), 2.5, F)
            brc.matmul(a, b, out=out, accumulate=True, bias=np.full(n, 0.25, F))
            assert (out == 2.75).all()
    assert brc.matmul(np.ones((0, 2, 3), F), np.ones((0, 3, 4), F)).shape == (0, 2, 4)


INTEGER_KINDS = {"e4m3": 16, "e5m2": 4, "e2m1": 4, "e3m2": 8, "e2m3": 4, "int4": 7, "int8": 20, "uint4": 15, "e4m3fnuz": 16}


@pytest.mark.parametrize("element", INTEGER_KINDS)
@pytest.mark.parametrize("m, n, k", [(5, 70, 33), (64, 64, 128), (129, 2, 257)])
def test_integers_are_exact(brc, element, m, n, k):
    """Partial sums below 2^12: bit-equal, tile edges too, with powers of two as scales."""
    rng, most = np.random.default_rng(k), INTEGER_KINDS[element]
    values = np.unique(values_of(element, encode(element, np.arange(-most, most + 1).astype(F))))
    values = values[values == np.rint(values)]
    small = values[np.abs(values) <= max(1, int(4095 / k / most))]
    x, y = rng.choice(values, (m, k)), rng.choice(small, (k, n))
    assert np.abs(x).max() * np.abs(y).max() * k < 4096 or np.cumsum(np.abs(x)[:, :, None] * np.abs(y)[None], 1).max() < 4096
    s = 2.0 ** rng.integers(-3, 3, (1, m, 1))
    a = brc.tensor(element, (m, k), pack(element, encode(element, x.astype(F))), scale=(s.astype(F), "f32", (1, 1, 0)), layout="per_channel")
    b = brc.tensor(element, (n, k), pack(element, encode(element, np.ascontiguousarray(y.T).astype(F))),
                   scale=(np.array([0.5], F), "f32", (0, 0, 0)))
    exact = (x * s[0]) @ y / 2
    for dtype in OUTPUTS:
        got = brc.matmul(a, b, b_transposed=True, dtype=dtype)
        assert np.array_equal(got.astype(np.float64), exact.astype(F).astype(dtype).astype(np.float64)), (element, dtype)


def test_same_bits_every_run(brc):
    """Any number of threads, every time."""
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((2, 200, 300)).astype(F), rng.standard_normal((300, 150)).astype(F)
    for left, right in (("fp8-block", "fp8-block128"), ("f32", "nvfp4"), ("f32", "f32")):
        a, b = operand(brc, x, left)[0], operand(brc, y, right)[0]
        one = brc.matmul(a, b, threads=1)
        for threads in (1, 2, 7, 64):
            assert np.array_equal(brc.matmul(a, b, threads=threads).view(np.uint32), one.view(np.uint32))


def test_special_values(brc):
    """Infinity and NaN go through as in float; overflow of the output is infinity; -0 and subnormals stay."""
    x, y = np.array([[1, np.inf], [np.nan, 1], [0, 0], [1e-45, 0]], F), np.array([[1, 0], [1, 0]], F)
    want = np.array([[np.inf, np.nan], [np.nan, np.nan], [0, 0], [1e-45, 0]], F)
    assert np.array_equal(brc.matmul(x, y), want, equal_nan=True)
    huge = np.full((1, 4), 3e38, F)
    assert brc.matmul(huge, huge, b_transposed=True) == np.inf
    assert brc.matmul(np.full((1, 1), 300, F), np.full((1, 1), 300, F), dtype=np.float16) == np.inf


def test_refusals(brc):
    def refused(match, *arguments, name="SHAPE", **more):
        with pytest.raises(brc.Error, match=match) as error:
            brc.matmul(*arguments, **more)
        assert error.value.name == name, error.value

    def ones(*shape):
        return np.ones(shape, F)

    refused("shape mismatch", ones(2, 3), ones(4, 5))
    refused("shape mismatch", ones(2, 3), ones(3, 5), shape=(2, 6))
    refused("shape mismatch", ones(2, 3), ones(3, 5), shape=(3, 5))
    refused("shape mismatch", ones(2, 3), ones(5, 3), shape=(2, 5))
    refused("shape mismatch", ones(2, 2, 3), ones(3, 3, 5), shape=(2, 2, 5))
    refused("shape mismatch", ones(2, 2, 3), ones(3, 5), shape=(2, 5))
    refused("shape mismatch: bias", ones(2, 3), ones(3, 5), bias=ones(4))
    refused("shape mismatch: bias", ones(2, 3), ones(3, 5), bias=ones(1, 5))
    refused("at least 2 dimensions", ones(3), ones(3, 5), shape=(1, 5))
    refused("f32, f16 or bf16 is needed", ones(2, 3), ones(3, 5), dtype=np.float64, name="FORMAT")
    refused("f64, f32, f16 or bf16", ones(2, 3).astype(np.int8), ones(3, 5), name="FORMAT")
    x, out = brc.array(ones(2, 2)), brc.array(ones(2, 2))
    product = brc.new("brc_product", out=out)
    with pytest.raises(brc.Error, match="a: a scaled tensor or a plain array"):
        brc.call("brc_matmul", product)
    product.a = (brc.cast(ones(2, 2), "fp8").c, x, 0)
    with pytest.raises(brc.Error, match="not both"):
        brc.call("brc_matmul", product)
    product.a, product.b, product.out = (brc.ffi.NULL, x, 0), (brc.ffi.NULL, x, 0), brc.ffi.NULL
    with pytest.raises(brc.Error, match="out is missing"):
        brc.call("brc_matmul", product)
    with pytest.raises(brc.Error, match="another version"):
        brc.call("brc_matmul", brc.ffi.NULL)


def test_what_is_added_rounds_with_the_sum(brc):
    """The bias and what was there before cancel, and the product is kept."""
    a, b = np.full((1, 1), 1.5 * 2.0**-25, F), np.ones((1, 1), F)
    got = brc.matmul(a, b, bias=np.ones(1, F), out=np.full((1, 1), -1, F), accumulate=True)
    assert got[0, 0] == F(1.5 * 2.0**-25)


@pytest.mark.parametrize("depth", [262_145, 2**40, 104_811_045_873_349_725])
def test_immense_depths(brc, depth):
    """Operands that repeat one number (strides 0): sizes of packed panels must not overflow or exceed what is promised."""
    one, shape = np.ones(1, F), [1, depth]
    if depth > 2**30:                                       # not computed: an empty result still resolves and checks
        out = np.zeros((0, 1), F)
        x = brc.new("brc_array", format=brc.format_of("f32"), rank=2, data=brc.ffi.cast("void *", one.__array_interface__["data"][0]))
        y = brc.new("brc_array", format=brc.format_of("f32"), rank=2, data=x.data)
        x.shape[0:2], y.shape[0:2] = [0, depth], shape
        target, product = brc.array(out), brc.new("brc_product")
        product.a.plain, product.b.plain, product.b.transposed, product.out = x, y, 1, target
        brc.call("brc_matmul", product)
        return
    a = np.lib.stride_tricks.as_strided(one, (2, depth), (0, 0))
    assert brc.matmul(a, a, b_transposed=True).tolist() == [[depth] * 2] * 2
