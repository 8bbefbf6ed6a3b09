# SPDX-License-Identifier: Apache-2.0
"""The rows that the tests of conversion walk: every dialect in each of its recipes, as a file of one weight, a norm and a cache's scale; and what
no recipe of ours makes: columns in an order of their own (GPTQ's act-order, older compressed-tensors), and bitsandbytes, which is read only."""
import json

import numpy as np
from core.codes import values_of

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


# Rows that are made here: {(dialect, text): what makes its file}.
MADE = {}
SOURCES = [(d, r) for d in written() for r in recipes_of(d)]
DENSE = ("bf16", "f16", "f32")


def of_turn(rows, i):
    return rows[i % len(rows)]


def sample():
    """Cells {(source, target): recipes ..} that the ordinary run looks at, the same ones each time: every pair of dialects as the target's list
    decides (recipes ()), every source, and every recipe of every target."""
    cells, targets = {}, [*written(), *DENSE]
    for d, dialect in enumerate(dict(SOURCES)):
        rows = rows_of(dialect)
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


def rows_of(dialect):
    """The texts of a dialect's rows."""
    return [*(recipes_of(dialect) if dialect in written() else ()), *(r for d, r in MADE if d == dialect)]


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
    if (dialect, recipe) in MADE:
        return MADE[dialect, recipe](folder, smaller)
    plain, path = write_plain(folder / "plain", shape, smaller), place(folder, dialect)
    files.quantize(plain, path, recipe, dialect)
    return path


# ------------------------------------------------------------------------------------------------------ made here

def made(dialect, recipe):
    def add(make):
        MADE[dialect, recipe] = make
        SOURCES.append((dialect, recipe))
        return make
    return add


def with_index(folder, smaller, dialect, recipe, name, says):
    """A file in groups whose columns are dealt to them in an order of their own; `says` edits its config."""
    path = write_source(folder / "in order", dialect, recipe, smaller=smaller)
    arrays, metadata = files.read(path / "model.safetensors")
    arrays[name] = ("I32", np.random.default_rng(5).permutation(SHAPE[1]).astype(np.int32) // 128)
    files.write(path / "model.safetensors", arrays, metadata or None)
    for file in path.glob("*config.json"):
        config = json.loads(file.read_text())
        says(config.get("quantization_config", config))
        file.write_text(json.dumps(config))
    return path


@made("gptq", "int4 in act-order")
def gptq_in_act_order(folder, smaller):
    return with_index(folder, smaller, "gptq", "int4", W.replace("weight", "g_idx"), lambda config: config.update(desc_act=True))


@made("compressed-tensors", "int4 with weight_g_idx")
def compressed_with_index(folder, smaller):
    return with_index(folder, smaller, "compressed-tensors", "int4:scale=f32", W + "_g_idx",
                      lambda config: config["config_groups"]["group_0"]["weights"].update(actorder="group"))


def write_bnb(folder, arrays):
    arrays |= {NORM: np.linspace(0.5, 2, SHAPE[1], dtype=F), CACHE: np.array(0.25, F)}
    config = {"hidden_size": SHAPE[1], "quantization_config": {"quant_method": "bitsandbytes"}}
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps(config))
    files.write(folder / "model" / "model.safetensors", arrays)
    return folder / "model"


@made("bitsandbytes", "nf4, nested scales")
def bnb_nf4(folder, smaller):
    """Blocks of 64 of the flattened tensor, the first code of a pair in the high bits."""
    table = values_of("nf4", np.arange(16)).astype(F)
    blocks = numbers().reshape(-1, 64) * F(2.0**-smaller)
    codes_of_scales = np.linspace(-1, 1, 256).astype(F)
    absmax = np.abs(blocks).max(1)
    offset, nested = F(absmax.mean()), F(np.abs(absmax - absmax.mean()).max())
    eights = np.abs((absmax - offset)[:, None] / nested - codes_of_scales).argmin(1).astype(np.uint8)
    scales = codes_of_scales[eights] * nested + offset
    codes = np.abs(blocks[..., None] / np.maximum(np.abs(scales), 1e-9)[:, None, None] - table).argmin(-1).astype(np.uint8).reshape(-1)
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(SHAPE), "nested_blocksize": 4096, "nested_dtype": "float32",
             "nested_offset": float(offset)}
    return write_bnb(folder, {W: (codes[0::2] << 4 | codes[1::2]).reshape(-1, 1), W + ".absmax": eights, W + ".quant_map": table,
                              W + ".nested_absmax": np.array([nested]), W + ".nested_quant_map": codes_of_scales,
                              W + ".quant_state.bitsandbytes__nf4": np.frombuffer(json.dumps(state).encode(), np.uint8)})


@made("bitsandbytes", "int8")
def bnb_int8(folder, smaller):
    x = numbers() * F(2.0**-smaller)
    scb = np.abs(x).max(1)
    codes = np.rint(x * (127 / np.maximum(scb, F(1e-30)))[:, None]).astype(np.int8)
    module = W.removesuffix("weight")
    return write_bnb(folder, {W: codes, module + "SCB": scb, module + "weight_format": np.array(0, np.uint8)})
