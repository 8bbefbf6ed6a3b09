# SPDX-License-Identifier: Apache-2.0
"""Gradients of products with respect to their plain operands: those of PyTorch's own matmul over the dequantized numbers."""
import numpy as np
import pytest

import breccia
from breccia import INT4Scaling, MXFP8BlockScaling, NVFP4BlockScaling

RNG = np.random.default_rng(5)
RECIPE = MXFP8BlockScaling()


def turned(x, turn):
    return x.swapaxes(-1, -2) if turn else x


def expected(torch, a, b, bias, transpose_a, transpose_b, weight):
    """By PyTorch, in float64: gradients of sum(weight * (op(a) op(b) + bias))."""
    leaves = [None if x is None else torch.from_numpy(x).double().requires_grad_() for x in (a, b, bias)]
    y = turned(leaves[0], transpose_a) @ turned(leaves[1], transpose_b)
    y = y if bias is None else y + leaves[2]
    (y * torch.from_numpy(weight)).sum().backward()
    return [None if x is None else x.grad.numpy() for x in leaves]


def close(got, want, size):
    assert got.shape == want.shape and (np.abs(np.asarray(got, np.float64) - want) <= size * 1e-6).all()


# a, b, which of them is scaled, transposed
CASES = [((4, 128), (128, 32), "a", False, False), ((4, 128), (128, 32), "b", False, False), ((4, 128), (6, 128), "b", False, True),
         ((128, 4), (128, 32), "b", True, False), ((128, 32), (6, 128), "a", True, True), ((128, 4), (32, 128), "b", True, True),
         ((4, 128), (128, 6), "", False, False), ((3, 4, 128), (128, 32), "b", False, False), ((3, 4, 128), (128, 32), "a", False, False),
         ((4, 128), (3, 128, 32), "b", False, False), ((1, 4, 128), (3, 128, 32), "b", False, False), ((2, 3, 4, 128), (128, 6), "a", False, False),
         ((0, 128), (128, 32), "b", False, False), ((4, 128), (0, 128), "b", False, True), ((0, 4, 128), (128, 32), "a", False, False)]


@pytest.fixture(params=CASES, ids=[f"{a}x{b}-{s or 'plain'}{'-ta' * ta}{'-tb' * tb}" for a, b, s, ta, tb in CASES])
def case(request, torch):
    left, right, scaled, transpose_a, transpose_b = request.param
    a, b = (RNG.standard_normal(shape).astype(np.float32) for shape in (left, right))
    a = breccia.cast(a, RECIPE) if scaled == "a" else a
    b = breccia.cast(b, RECIPE) if scaled == "b" else b
    plain = [breccia.dequantize(x) if isinstance(x, breccia.ScaledTensor) else x for x in (a, b)]
    shape = np.broadcast_shapes(left[:-2], right[:-2]) + (turned(plain[0], transpose_a).shape[-2], turned(plain[1], transpose_b).shape[-1])
    bias, weight = RNG.standard_normal(shape[-1]).astype(np.float32), RNG.standard_normal(shape).astype(np.float32)
    return a, b, bias, transpose_a, transpose_b, weight, expected(torch, *plain, bias, transpose_a, transpose_b, weight)


def test_torch(torch, case):
    a, b, bias, transpose_a, transpose_b, weight, want = case

    def leaf(x):                                             # codes and scales: the same memory under another library
        return breccia.bridges.from_dlpack(x, "torch") if isinstance(x, breccia.ScaledTensor) else torch.from_numpy(x).requires_grad_()

    leaves = [leaf(x) for x in (a, b, bias)]
    y = breccia.matmul(leaves[0], leaves[1], transpose_a=transpose_a, transpose_b=transpose_b, bias=leaves[2])
    (y * torch.from_numpy(weight)).sum().backward()
    for x, gradient in zip(leaves, want):
        if isinstance(x, torch.Tensor):
            close(x.grad.numpy(), gradient, 128 * (1 + weight.size))
    with torch.no_grad():
        assert torch.equal(y, breccia.matmul(leaves[0], leaves[1], transpose_a=transpose_a, transpose_b=transpose_b, bias=leaves[2]))


@pytest.mark.parametrize("jit", [False, True])
def test_jax(jax, case, jit):
    a, b, bias, transpose_a, transpose_b, weight, want = case
    plain = [name for name, x in (("a", a), ("b", b), ("bias", bias)) if not isinstance(x, breccia.ScaledTensor)]
    fixed = {name: breccia.bridges.from_dlpack(x, "jax") for name, x in (("a", a), ("b", b)) if isinstance(x, breccia.ScaledTensor)}

    def loss(leaves):
        every = {**fixed, **leaves}
        y = breccia.matmul(every["a"], every["b"], transpose_a=transpose_a, transpose_b=transpose_b, bias=every["bias"])
        return (y * weight).sum()

    gradient = jax.jit(jax.grad(loss)) if jit else jax.grad(loss)
    got = gradient({name: jax.numpy.asarray(x) for name, x in (("a", a), ("b", b), ("bias", bias)) if name in plain})
    for name, found in zip(("a", "b", "bias"), want):
        if name in plain:
            close(np.asarray(got[name]), found, 128 * (1 + weight.size))


@pytest.mark.parametrize("recipe", [NVFP4BlockScaling(), INT4Scaling(signed=False, symmetric=False)])
def test_compiled(torch, recipe):
    """One graph forward and backward, the same numbers as without."""
    torch._dynamo.reset()
    x, bias = torch.randn(4, 128), torch.randn(6)
    w = breccia.cast(torch.randn(6, 128), recipe)

    def loss(x, w, bias):
        return (breccia.matmul(x, w, transpose_b=True, bias=bias) ** 2).sum()

    found = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        leaves = [x.clone().requires_grad_(), bias.clone().requires_grad_()]
        function(leaves[0], w, leaves[1]).backward()
        found.append([leaf.grad for leaf in leaves])
    assert all(torch.equal(p, q) and p.abs().sum() > 0 for p, q in zip(*found))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_types_stay(torch, dtype):
    """Each gradient has its operand's type, whatever the product's."""
    x = torch.randn(4, 128).to(getattr(torch, dtype)).requires_grad_()
    bias = torch.zeros(6).to(getattr(torch, dtype)).requires_grad_()
    w = breccia.cast(torch.randn(6, 128), RECIPE)
    breccia.matmul(x, w, torch.bfloat16, transpose_b=True, bias=bias).sum().backward()
    assert x.grad.dtype == x.dtype and bias.grad.dtype == bias.dtype
    want = breccia.dequantize(w).double().sum(0).expand(4, 128)
    assert (x.grad.double() - want).abs().max() <= 0.02 * want.abs().max() and (bias.grad == 4).all()


def test_gradient_of_the_gradient(torch):
    x = torch.randn(4, 128, requires_grad=True)
    w = breccia.cast(torch.randn(6, 128), RECIPE)
    first, = torch.autograd.grad((breccia.matmul(x, w, transpose_b=True) ** 2).sum(), x, create_graph=True)
    second, = torch.autograd.grad((first ** 2).sum(), x)
    wide = breccia.dequantize(w).double()
    want = 8 * x.detach().double() @ (wide.T @ wide) @ (wide.T @ wide)
    assert (second.double() - want).abs().max() <= 1e-4 * want.abs().max()


def test_a_mixed_product_is_recorded(torch):
    """A weight whose arrays are NumPy's."""
    x = torch.randn(4, 128, requires_grad=True)
    w = breccia.cast(RNG.standard_normal((6, 128)).astype(np.float32), RECIPE)
    breccia.matmul(x, w, transpose_b=True).sum().backward()
    assert torch.allclose(x.grad, torch.from_numpy(breccia.dequantize(w)).sum(0).expand(4, 128), atol=1e-4)


def test_what_needs_no_gradient_costs_none(torch, monkeypatch):
    """Without a recorded operand, or under no_grad, C is called at once."""
    from breccia._frameworks import _torch
    monkeypatch.setattr(_torch, "matmul", None)
    x, w = torch.randn(4, 128), breccia.cast(torch.randn(6, 128), RECIPE)
    assert not breccia.matmul(x, w, transpose_b=True).requires_grad
    with torch.no_grad():
        assert not breccia.matmul(x.requires_grad_(), w, transpose_b=True).requires_grad
