# SPDX-License-Identifier: Apache-2.0
"""MLX arrays: the bits of NumPy; one copy for each array of a result, none for what is read."""
import numpy as np
import pytest

import breccia
from breccia import INT4Scaling, MXFP8BlockScaling
from recipes_list import ALL, IDS


@pytest.mark.parametrize("recipe", ALL, ids=IDS)
def test_same_bits_as_numpy(mx, x, recipe):
    st, want = breccia.cast(mx.array(x), recipe), breccia.cast(x, recipe)
    assert isinstance(st.data, mx.array) and isinstance(st.scale, mx.array)
    assert np.array_equal(np.asarray(st.data), want.data) and np.array_equal(np.asarray(st.scale), want.scale)
    assert st == want and (st.shape, st.layout) == (want.shape, want.layout)
    assert st.data_dtype == (mx.int8 if want.data.dtype == np.int8 else mx.uint8)
    y = breccia.dequantize(st)
    assert isinstance(y, mx.array) and y.dtype == mx.float32 and np.array_equal(np.asarray(y), breccia.dequantize(want))
    w = np.random.default_rng(0).standard_normal((256, 8)).astype(np.float32)
    product = breccia.matmul(st, mx.array(w))
    assert isinstance(product, mx.array) and np.array_equal(np.asarray(product), breccia.matmul(want, w))
    assert breccia.requantize(st, MXFP8BlockScaling(scale_rule="even")) == breccia.requantize(want, MXFP8BlockScaling(scale_rule="even"))


def test_types(mx, x):
    assert breccia.cast(mx.array(x), INT4Scaling(scale_dtype="bf16")).scale_dtype == mx.float32
    half = mx.array(x).astype(mx.bfloat16)
    st = breccia.cast(half, MXFP8BlockScaling())
    assert st == breccia.cast(half.astype(mx.float32), MXFP8BlockScaling())
    y = breccia.dequantize(st, mx.bfloat16)
    assert y.dtype == mx.bfloat16 and mx.array_equal(y, breccia.dequantize(st).astype(mx.bfloat16))
    assert breccia.dequantize(st, "f16").dtype == mx.float16 and breccia.dequantize(st, "f64").dtype == mx.float64
    assert breccia.cast(mx.array(x, mx.float64), MXFP8BlockScaling()) == breccia.cast(x, MXFP8BlockScaling())
    with pytest.raises(TypeError):
        breccia.cast(mx.array([1, 2]), breccia.Float8CurrentScaling())


def test_lazy_and_strided(mx, x):
    lazy = (mx.array(x).T + 0).T
    assert breccia.cast(lazy, MXFP8BlockScaling()) == breccia.cast(x, MXFP8BlockScaling())


def test_copies_are_counted(mx, x, monkeypatch):
    """mx.array(...) is the one place that copies: once for each array of a result."""
    from breccia._frameworks import _mlx
    copies = []

    class Counting:
        def __getattr__(self, name):
            return getattr(mx, name)

        def array(self, memory):
            copies.append(memory.nbytes)
            return mx.array(memory)

    source = mx.array(x)
    monkeypatch.setattr(_mlx, "mx", Counting())
    st = breccia.cast(source, MXFP8BlockScaling())
    assert copies == [8 * 256, 8 * 8]
    copies.clear()
    breccia.dequantize(st)
    assert copies == [8 * 256 * 4]
    copies.clear()
    breccia.matmul(st, source, transpose_b=True)
    assert copies == [8 * 8 * 4]


def test_gradient(mx, x):
    """mx.grad through an estimator; a plain round trip would have none."""
    recipe = MXFP8BlockScaling()
    source = mx.array(x)
    assert np.array_equal(np.asarray(breccia.cast_ste(source, recipe)), breccia.dequantize(breccia.cast(x, recipe)))
    gradient = mx.grad(lambda x: (breccia.cast_ste(x, recipe) ** 2).sum())(source)
    assert np.array_equal(np.asarray(gradient), 2 * breccia.dequantize(breccia.cast(x, recipe)))


@pytest.mark.parametrize("transpose_a, transpose_b", [(False, False), (False, True), (True, False), (True, True)])
def test_gradient_of_products(mx, x, transpose_a, transpose_b):
    """mx.grad through matmul is that of MLX's own product of the dequantized numbers; constants would have none."""
    rng = np.random.default_rng(0)
    st = breccia.cast(x.T.copy() if transpose_b else x, breccia.Float8CurrentScaling())
    b, wide = mx.array(breccia.dequantize(st)), {False: (3, 8), True: (8, 3)}[transpose_a]
    a, bias = mx.array(rng.standard_normal((2, *wide)).astype(np.float32)), mx.array(rng.standard_normal(256).astype(np.float32))

    def own(a, b, bias):
        return ((a.swapaxes(-1, -2) if transpose_a else a) @ (b.T if transpose_b else b) + bias).square().sum()

    def ours(a, b, bias):
        return breccia.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b, bias=bias).square().sum()

    moved = breccia.bridges.from_dlpack(st, "mlx")
    for operand, which in ((b, (0, 1, 2)), (moved, (0, 2))):
        got, want = mx.grad(lambda *x: ours(*((x[0], operand, x[1]) if len(which) == 2 else x)), argnums=tuple(range(len(which))))(
            *([a, bias] if len(which) == 2 else [a, b, bias])), mx.grad(own, argnums=which)(a, b, bias)
        for one, other in zip(got, want):
            assert one.shape == other.shape and np.allclose(one, other, rtol=1e-4, atol=1e-3 * float(mx.abs(other).max()))
            assert float(mx.abs(one).max()) > 0
