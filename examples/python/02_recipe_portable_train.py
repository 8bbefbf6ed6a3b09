# SPDX-License-Identifier: Apache-2.0
"""Train a small language model with MXFP8 weights and activations, ship it in NVFP4: the same code for both recipes.

The model is a character-level network over the sources of Python's own standard library. Training runs through
straight-through estimators; shipping casts the trained weights once and multiplies with them as they are.

    python examples/python/02_recipe_portable_train.py [steps]
"""
import argparse
import inspect
import sys
import textwrap

import torch
from torch import nn
from torch.nn import functional

import breccia

CONTEXT, WIDTH, HIDDEN = 16, 32, 256


def text_of_the_standard_library():
    text = "".join(inspect.getsource(module) for module in (argparse, textwrap, inspect))
    return torch.tensor([min(ord(c), 127) for c in text])


class Linear(nn.Linear):
    """A linear layer whose weight and input pass through a recipe. With `shipped`, it multiplies with the codes."""

    recipe = None
    shipped = None

    def forward(self, x):
        if self.shipped is not None:
            return breccia.matmul(breccia.cast(x, self.recipe), self.shipped, transpose_b=True, bias=self.bias.detach())
        if self.recipe is None:
            return super().forward(x)
        return functional.linear(breccia.cast_ste(x, self.recipe), breccia.cast_ste(self.weight, self.recipe), self.bias)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(128, WIDTH)
        self.layers = nn.ModuleList([Linear(CONTEXT * WIDTH, HIDDEN), Linear(HIDDEN, HIDDEN), Linear(HIDDEN, 128)])

    def forward(self, codes):
        x = self.embedding(codes).flatten(1)
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        return self.layers[-1](x)


def use(model, recipe, ship=False):
    for layer in model.layers:
        layer.recipe = recipe
        layer.shipped = breccia.cast(layer.weight.detach(), recipe) if ship else None


def batch(text, size, generator):
    at = torch.randint(0, len(text) - CONTEXT - 1, (size,), generator=generator)
    windows = text.unfold(0, CONTEXT + 1, 1)[at]
    return windows[:, :-1], windows[:, -1]


def loss_of(model, text, batches=8):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        losses = [functional.cross_entropy(model(x), y) for x, y in (batch(text, 256, generator) for _ in range(batches))]
    return float(torch.stack(losses).mean())


def train(model, text, steps):
    optimizer, generator = torch.optim.Adam(model.parameters(), 2e-3), torch.Generator().manual_seed(0)
    for step in range(steps):
        x, y = batch(text, 64, generator)
        loss = functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"  step {step:4d}  loss {float(loss.detach()):.3f}")


def main(steps):
    torch.manual_seed(0)
    text, model = text_of_the_standard_library(), Model()
    use(model, breccia.MXFP8BlockScaling())
    before = loss_of(model, text)
    print(f"training with MXFP8 on {len(text)} characters:")
    train(model, text, steps)
    after = loss_of(model, text)
    print(f"loss {before:.3f} -> {after:.3f}")
    assert after < before - 0.5, "the loss did not fall"
    for recipe in (None, breccia.MXFP8BlockScaling(), breccia.NVFP4BlockScaling()):
        use(model, recipe, ship=recipe is not None)
        size = sum(p.numel() * 4 for p in model.parameters()) if recipe is None else sum(layer.shipped.nbytes for layer in model.layers)
        shipped = loss_of(model, text)
        print(f"shipped as {'float32' if recipe is None else type(recipe).__name__:18s} weights {size / 1024:7.1f} KiB  loss {shipped:.3f}")
        assert shipped < after + 0.5


main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
