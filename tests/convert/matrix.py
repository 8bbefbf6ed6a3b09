# SPDX-License-Identifier: Apache-2.0
"""The rows that the tests of conversion walk: every dialect in each of its recipes, as a file of one weight, a norm and a cache's scale."""
import numpy as np

import breccia_c as brc
import checkpoint_files as files

F = np.float32
W, NORM, CACHE = "model.layers.0.mlp.experts.up_proj.weight", "model.layers.0.input_layernorm.weight", "model.layers.0.self_attn.k_scale"
SHAPE = (256, 384)                              # 2 x 3 blocks of 128, no number of one axis fits the other


def written():
    return [d for d in files.dialects("writes") if d != "plain"]


def recipes_of(dialect):
    """Those that a dialect lists; of one that stores any, all rows."""
    return files.dialect_recipes(dialect) or [r for r in brc.recipes() if not brc.recipe(r).history_length]


SOURCES = [(d, r) for d in written() for r in recipes_of(d)]
DENSE = ("bf16", "f16", "f32")


def of_turn(rows, i):
    return rows[i % len(rows)]


def sample():
    """Cells {(source, target): recipes ..} that the ordinary run looks at, the same ones each time: every pair of dialects as the target's list
    decides (recipes ()), every source, and every recipe of every target."""
    cells, targets = {}, [*written(), *DENSE]
    for d, dialect in enumerate(written()):
        rows = recipes_of(dialect)
        for i in range(max(len(targets), len(rows))):
            cells.setdefault(((dialect, of_turn(rows, i)), of_turn(targets, i + d)), []).append(())
    for t, target in enumerate(written()):
        for i, recipe in enumerate(recipes_of(target)):
            cells.setdefault((of_turn(SOURCES, 7 * i + 5 * t), target), []).append((recipe,))
    return cells


def every():
    """All cells."""
    return {(source, target): [(), *((r,) for r in (recipes_of(target) if target not in DENSE else ()))]
            for source in SOURCES for target in (*written(), *DENSE)}


def place(folder, dialect):
    return folder / ("model.gguf" if dialect == "gguf" else "model")


def numbers(shape=SHAPE):
    rng = np.random.default_rng(7)
    x = rng.standard_normal(shape).astype(F) * np.exp2(rng.integers(-8, -2, (shape[0], 1))).astype(F)
    x[5], x[9, ::3], x[17, 64:96] = 0, 0, 0
    return x


def write_plain(folder, shape=SHAPE, smaller=0):
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": %d}' % shape[1])
    files.write(folder / "model.safetensors", {W: numbers(shape) * F(2.0**-smaller), NORM: np.linspace(0.5, 2, shape[1], dtype=F), CACHE: np.array(0.25, F)})
    return folder


def write_source(folder, dialect, recipe, shape=SHAPE, smaller=0):
    """A checkpoint of the dialect, made of write_plain's by quantize; its weights `smaller` binades smaller."""
    folder.mkdir()
    plain, path = write_plain(folder / "plain", shape, smaller), place(folder, dialect)
    files.quantize(plain, path, recipe, dialect)
    return path
