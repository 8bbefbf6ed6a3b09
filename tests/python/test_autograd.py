# SPDX-License-Identifier: Apache-2.0
"""Straight-through estimators: forward is the round trip, backward the identity, or zero outside the bounds."""
import numpy as np
import pytest

import breccia
from breccia import Float8CurrentScaling, MXFP8BlockScaling, NVFP4BlockScaling, autograd
from recipes_list import ALL, IDS


def round_trip(x, recipe):
    return breccia.dequantize(breccia.cast(x, recipe))


@pytest.mark.parametrize("recipe", ALL, ids=IDS)
def test_forward(torch, jax, mx, x, recipe):
    want = round_trip(x, recipe)
    for array in (x, torch.from_numpy(x), jax.numpy.asarray(x), mx.array(x)):
        for y in (autograd.cast_ste(array, recipe), autograd.cast_ste_clipped(array, recipe, -1.0, 1.0)):
            assert type(y) is type(array) and np.array_equal(np.asarray(y), want)


def test_types_stay(torch, jax, x):
    assert autograd.cast_ste(torch.from_numpy(x).bfloat16(), MXFP8BlockScaling()).dtype == torch.bfloat16
    assert autograd.cast_ste(jax.numpy.asarray(x).astype("float16"), MXFP8BlockScaling()).dtype == np.float16
    assert autograd.cast_ste(x.astype(np.float64), MXFP8BlockScaling()).dtype == np.float64


def test_torch_gradient(torch, x):
    t = torch.from_numpy(x).requires_grad_()
    weight = torch.randn(8, 256)
    (autograd.cast_ste(t, NVFP4BlockScaling()) * weight).sum().backward()
    assert torch.equal(t.grad, weight)


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (None, 0.5), (-0.5, None), (None, None)])
def test_clipped_gradient(torch, jax, x, low, high):
    """Without a bound, the bound is the format's: +-6 for E2M1."""
    recipe = NVFP4BlockScaling()
    inside = (x >= (-6 if low is None else low)) & (x <= (6 if high is None else high))
    assert 0 < inside.sum() < x.size
    t = torch.from_numpy(x).requires_grad_()
    (autograd.cast_ste_clipped(t, recipe, low, high) * 3).sum().backward()
    assert np.array_equal(t.grad.numpy(), inside * np.float32(3))
    gradient = jax.grad(lambda x: (autograd.cast_ste_clipped(x, recipe, low, high) * 3).sum())(jax.numpy.asarray(x))
    assert np.array_equal(gradient, inside * np.float32(3))


def test_torch_compile(torch, x):
    torch._dynamo.reset()
    recipe = MXFP8BlockScaling()
    for function in (lambda x: (autograd.cast_ste(x, recipe) ** 2).sum(), lambda x: (autograd.cast_ste_clipped(x, recipe, -1.0, 1.0) ** 2).sum()):
        plain, compiled = (torch.from_numpy(x).clone().requires_grad_() for _ in range(2))
        function(plain).backward()
        torch.compile(function, fullgraph=True, backend="aot_eager")(compiled).backward()
        assert torch.equal(plain.grad, compiled.grad)


def test_jax_transformations(jax, x):
    jx, recipe = jax.numpy.asarray(x), MXFP8BlockScaling()

    def loss(x):
        return (autograd.cast_ste(x, recipe) ** 2).sum()

    want = 2 * round_trip(x, recipe)
    assert np.array_equal(jax.grad(loss)(jx), want) and np.array_equal(jax.jit(jax.grad(loss))(jx), want)
    rows = jax.vmap(jax.grad(loss))(jx.reshape(4, 2, 256))
    assert np.array_equal(rows.reshape(8, 256), want)
    assert np.array_equal(jax.jit(jax.vmap(lambda x: autograd.cast_ste(x, recipe)))(jx.reshape(4, 2, 256)).reshape(8, 256), want / 2)


def test_old_names():
    assert breccia.cast_ste is autograd.cast_ste and breccia.cast_ste_clipped is autograd.cast_ste_clipped
    with pytest.raises(TypeError, match="unsupported recipe"):
        autograd.cast_ste(np.ones((2, 32), np.float32), "mxfp8")
    assert (autograd.cast_ste(np.ones((2, 32), np.float32), Float8CurrentScaling()) == 1).all()
