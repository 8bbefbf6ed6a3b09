# SPDX-License-Identifier: Apache-2.0
"""Straight-through estimators: forward is the round trip, backward the identity, or zero outside the bounds."""
import numpy as np
import pytest

import breccia
from breccia import Float8CurrentScaling, INT4Scaling, MXFP8BlockScaling, NVFP4BlockScaling, autograd
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


def gradients(torch, jax, mx, function, x):
    """The gradient of 3 * the sum of function(x), by each library that has them."""
    t = torch.from_numpy(x).requires_grad_()
    (function(t) * 3).sum().backward()
    return {"torch": t.grad.numpy(), "jax": jax.grad(lambda x: (function(x) * 3).sum())(jax.numpy.asarray(x)),
            "mlx": np.asarray(mx.grad(lambda x: (function(x) * 3).sum())(mx.array(x)))}


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (None, 0.5), (-0.5, None), (None, None)])
def test_clipped_gradient(torch, jax, mx, x, low, high):
    """Without bounds, the format's: +-6 for E2M1. With an upper one alone, the lower one is its negative (as in 0.1)."""
    recipe = NVFP4BlockScaling()
    upper = 6 if high is None else high
    inside = (x >= (-upper if low is None else low)) & (x <= upper)
    assert 0 < inside.sum() < x.size
    for name, gradient in gradients(torch, jax, mx, lambda x: autograd.cast_ste_clipped(x, recipe, low, high), x).items():
        assert np.array_equal(gradient, inside * np.float32(3)), name


@pytest.mark.parametrize("recipe, low, high", [
    (Float8CurrentScaling(), -448, 448), (Float8CurrentScaling("E5M2"), -57344, 57344), (INT4Scaling(), -7, 7),
    (INT4Scaling(signed=False), 0, 15), (INT4Scaling(signed=False, symmetric=False), -15, 15)])
def test_default_bounds(torch, jax, mx, recipe, low, high):
    """Those of 0.1, but for codes that hold no negative numbers: below 0 they saturate."""
    x = np.zeros((1, 128), np.float32)
    x[0, :6] = low, high, low - 1, high + 1, -0.5, 0.5
    want = np.full((1, 128), 3, np.float32)
    want[0, 2:4] = 0
    want[0, 4] = 0 if low == 0 else 3
    for name, gradient in gradients(torch, jax, mx, lambda x: autograd.cast_ste_clipped(x, recipe), x).items():
        assert np.array_equal(gradient, want), name


def test_torch_functions(torch, x):
    """torch.func's grad and vmap; a gradient of a gradient."""
    t, recipe = torch.from_numpy(x), MXFP8BlockScaling()
    want = 2 * round_trip(x, recipe)
    assert np.array_equal(torch.func.grad(lambda t: (autograd.cast_ste(t, recipe) ** 2).sum())(t), want)
    rows = torch.func.vmap(torch.func.grad(lambda t: (autograd.cast_ste_clipped(t, recipe, -1e9, 1e9) ** 2).sum()))(t.reshape(4, 2, 256))
    assert np.array_equal(rows.reshape(8, 256), want)
    t = t.clone().requires_grad_()
    first, = torch.autograd.grad((autograd.cast_ste(t, recipe) ** 2).sum(), t, create_graph=True)
    assert (torch.autograd.grad(first.sum(), t)[0] == 2).all()


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
