# SPDX-License-Identifier: Apache-2.0
"""Small checkpoints that the command line is tried on, written without breccia."""
import json
from pathlib import Path

import ml_dtypes
import numpy as np

import checkpoint_files

HOSTILE = {
    "escape": "\x1b[31mred\x1b[0m", "bell": "a\x07b", "line": "two\nlines", "return": "over\rwritten", "tab": "a\tb",
    "c1": "a\u009b31mb", "delete": "a\x7fb", "right-to-left": "a\u202eb", "zero width": "a\u200bb", "quote": 'a"b\\c',
    "unicode": "gewicht.ü.重み", "brackets": "{[<$(id)>]}", "space": " ",
}


def write(path, tensors, metadata=None):
    """A safetensors file of NumPy arrays, in the order given, in a folder that need not be there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return checkpoint_files.write(path, tensors, metadata)


def values(path):
    """The arrays of a safetensors file."""
    return {name: array for name, (_, array) in checkpoint_files.read(Path(path))[0].items()}


def weights(seed=0, rows=96, cols=160):
    """A layer of a model, with tensors that quantize must keep and one that it must not."""
    draw = np.random.default_rng(seed)
    def normal(*shape):
        return (draw.standard_normal(shape) * 0.05).astype(np.float32)
    return {
        "model.embed_tokens.weight": normal(40, 32),
        "model.layers.0.attn.q_proj.weight": normal(rows, cols),
        "model.layers.0.attn.q_proj.bias": normal(rows),
        "model.layers.0.input_layernorm.weight": normal(cols) + 1,
        "model.layers.2.mlp.up_proj.weight": normal(64, 48).astype(ml_dtypes.bfloat16),
        "model.layers.10.mlp.up_proj.weight": normal(32, 64).astype(np.float16),
        "model.position_ids": np.arange(8, dtype=np.int64),
    }


def deepseek(rows=140, cols=264, seed=1):
    """E4M3 codes with a multiplier for each 128x128 block, edge blocks partial, and the values by NumPy."""
    draw = np.random.default_rng(seed)
    codes = (draw.standard_normal((rows, cols)) * 64).astype(ml_dtypes.float8_e4m3fn)
    scale = (draw.random((-(-rows // 128), -(-cols // 128))) * 0.01 + 0.001).astype(np.float32)
    spread = scale.repeat(128, 0)[:rows].repeat(128, 1)[:, :cols]
    return {"layers.0.weight": codes, "layers.0.weight_scale_inv": scale}, codes.astype(np.float32) * spread


def make(folder):
    """All of them, into a folder."""
    folder = Path(folder)
    config = json.dumps({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})
    write(folder / "plain.safetensors", weights())
    scaled, _ = deepseek()
    write(folder / "deepseek" / "model.safetensors", scaled)
    (folder / "deepseek" / "config.json").write_text(config)
    write(folder / "hostile.safetensors", {name: np.full(2, i, np.float32) for i, name in enumerate(HOSTILE.values())})
    write(folder / "ambiguous" / "model.safetensors", scaled)
    (folder / "ambiguous" / "config.json").write_text(config.replace("fp8", "compressed-tensors"))
    write(folder / "foreign.safetensors", {"l.qweight": np.zeros((8, 16), np.int8), "l.scale": np.ones((8, 1), np.float32)})
    lost = dict(scaled)
    del lost["layers.0.weight_scale_inv"]
    write(folder / "lost" / "model.safetensors", lost)
    (folder / "lost" / "config.json").write_text(config)
    bad = {**scaled, "layers.0.weight_scale_inv": scaled["layers.0.weight_scale_inv"].copy()}
    bad["layers.0.weight_scale_inv"][1, 2] = np.nan
    write(folder / "nan_scale" / "model.safetensors", bad)
    (folder / "nan_scale" / "config.json").write_text(config)
    huge = {"layers.0.weight": scaled["layers.0.weight"], "layers.0.weight_scale_inv": np.full((2, 3), 3e38, np.float32)}
    write(folder / "huge_scale" / "model.safetensors", huge)
    (folder / "huge_scale" / "config.json").write_text(config)
    shards = {"model-00001-of-00002.safetensors": ["layers.0.weight"], "model-00002-of-00002.safetensors": ["layers.0.weight_scale_inv"]}
    for shard, names in shards.items():
        write(folder / "sharded" / shard, {n: scaled[n] for n in names})
    (folder / "sharded" / "config.json").write_text(config)
    (folder / "sharded" / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {n: s for s, names in shards.items() for n in names}}))
    infinite = weights()
    infinite["model.layers.0.attn.q_proj.weight"][3, 4] = np.inf
    write(folder / "infinite.safetensors", infinite)
    write(folder / "colliding.safetensors", {"l.weight": np.ones((64, 64), np.float32), "l.weight.scale": np.ones(64, np.float32)})
    reshaped = weights()
    reshaped["model.layers.0.attn.q_proj.weight"] = reshaped["model.layers.0.attn.q_proj.weight"].T.astype(np.float16)
    write(folder / "reshaped.safetensors", reshaped)
    for name, value in (("ones", 1.0), ("nans", np.nan), ("tiny", 1e-300), ("tinier", 5e-301)):
        write(folder / f"{name}.safetensors", {"a.weight": np.full((4, 4), value), "b.weight": np.zeros((0, 4), np.float32)})
    for pickle in ("pytorch_model.bin", "model.pt", "model.ckpt"):
        (folder / pickle).write_bytes(b"\x80\x02}q\x00.")
    (folder / "truncated.safetensors").write_bytes((folder / "plain.safetensors").read_bytes()[:-5])
    (folder / "text.safetensors").write_text("this is no checkpoint\n")
