# SPDX-License-Identifier: Apache-2.0
"""Linear layers over ScaledTensor in PyTorch and JAX: inference with stored codes, training by straight-through estimators,
traced by torch.compile and jax.jit.

    python examples/python/05_linear_layers.py [torch | jax]
"""
import sys

import numpy as np

import breccia

RECIPE = breccia.MXFP8BlockScaling()
rng = np.random.default_rng(0)
X, W, TARGET = (rng.standard_normal(shape).astype(np.float32) for shape in ((32, 64), (16, 64), (16, 64)))


def with_torch():
    import torch
    from torch import nn

    class ScaledLinear(nn.Module):
        """Inference: y = x W^T + b with W as codes and scales, kept as buffers."""

        def __init__(self, weight, bias, recipe):
            super().__init__()
            st = breccia.cast(weight, recipe)
            self.register_buffer("data", st.data)
            self.register_buffer("scale", st.scale)
            self.register_buffer("bias", bias)
            self.recipe, self.layout = st.recipe, st.layout

        def forward(self, x):
            weight = breccia.ScaledTensor(self.data, self.scale, self.recipe, self.layout)
            return breccia.matmul(x, weight, transpose_b=True, bias=self.bias)

    class TrainedLinear(nn.Linear):
        """Training: weight and input pass through the recipe, gradients as if they did not."""

        def forward(self, x):
            return nn.functional.linear(breccia.cast_ste(x, RECIPE), breccia.cast_ste(self.weight, RECIPE), self.bias)

    x, target = torch.from_numpy(X), torch.from_numpy(X @ TARGET.T)
    layer = ScaledLinear(torch.from_numpy(W), torch.zeros(16), RECIPE)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), layer(x))
    print("torch: compiled inference equals eager, largest error", float((layer(x) - x @ torch.from_numpy(W).T).abs().max()))

    torch.manual_seed(0)
    trained = TrainedLinear(64, 16)
    step = torch.compile(lambda x, y: nn.functional.mse_loss(trained(x), y), fullgraph=True, backend="aot_eager")
    optimizer = torch.optim.Adam(trained.parameters(), 0.05)
    losses = []
    for _ in range(60):
        loss = step(x, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    print(f"torch: loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    assert losses[-1] < losses[0] / 4


def with_jax():
    import jax
    import jax.numpy as jnp

    @jax.jit
    def scaled_linear(x, weight, bias):
        """Inference: `weight` is a ScaledTensor [N, K], a pytree."""
        return breccia.matmul(x, weight, transpose_b=True, bias=bias)

    def trained_linear(parameters, x):
        weight, bias = parameters
        return breccia.cast_ste(x, RECIPE) @ breccia.cast_ste(weight, RECIPE).T + bias

    @jax.jit
    def step(parameters, x, y):
        loss, gradients = jax.value_and_grad(lambda p: ((trained_linear(p, x) - y) ** 2).mean())(parameters)
        return loss, jax.tree_util.tree_map(lambda p, g: p - 0.5 * g, parameters, gradients)

    x, target = jnp.asarray(X), jnp.asarray(X @ TARGET.T)
    weight = breccia.cast(jnp.asarray(W), RECIPE)
    y = scaled_linear(x, weight, jnp.zeros(16))
    assert np.array_equal(y, breccia.matmul(X, breccia.cast(W, RECIPE), transpose_b=True))
    print("jax: jitted inference equals NumPy's, largest error", float(jnp.abs(y - X @ W.T).max()))

    parameters, losses = (jnp.zeros((16, 64)), jnp.zeros(16)), []
    for _ in range(60):
        loss, parameters = step(parameters, x, target)
        losses.append(float(loss))
    print(f"jax: loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    assert losses[-1] < losses[0] / 4


for name, run in (("torch", with_torch), ("jax", with_jax)):
    if name in (sys.argv[1:] or ["torch", "jax"]):
        run()
