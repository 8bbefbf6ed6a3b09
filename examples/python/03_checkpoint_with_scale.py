# SPDX-License-Identifier: Apache-2.0
"""A checkpoint whose tensors keep their scales: written from PyTorch, read by NumPy and by the command line.

    python examples/python/03_checkpoint_with_scale.py
"""
import subprocess
import tempfile
from pathlib import Path
from shutil import which

import numpy as np
import torch

import breccia
from breccia.bridges import load_safetensors, save_safetensors

torch.manual_seed(0)
weights = {"layers.0.weight": torch.randn(256, 512), "layers.1.weight": torch.randn(128, 256), "norm.weight": torch.ones(256)}
recipes = {"layers.0.weight": breccia.MXFP8BlockScaling(), "layers.1.weight": breccia.NVFP4BlockScaling()}

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "model.safetensors")
    tensors = {name: breccia.cast(w, recipes[name]) if name in recipes else w for name, w in weights.items()}
    save_safetensors(tensors, path, {"trained on": "random numbers"})
    print(f"{path.name}: {path.stat().st_size} bytes, {sum(w.numel() * 4 for w in weights.values())} as float32")

    again = load_safetensors(path)                         # NumPy arrays; "torch", "jax", "mlx" for the others
    for name, value in again.items():
        print(f"  {name:16s} {value if isinstance(value, breccia.ScaledTensor) else value.dtype}")
        if name in recipes:
            assert value.recipe == recipes[name] and value == tensors[name]
            assert np.array_equal(breccia.dequantize(value), breccia.dequantize(tensors[name]).numpy())

    # A scale that was lost is an error, not a model that is silently wrong.
    try:
        breccia.ScaledTensor(again["layers.0.weight"].data, None, recipes["layers.0.weight"], breccia.PerBlockMN(1, 32))
    except TypeError as error:
        print("without its scale:", error)
    try:
        breccia.ScaledTensor(again["layers.0.weight"].data, again["layers.0.weight"].scale.T, recipes["layers.0.weight"],
                             breccia.PerBlockMN(1, 32))
    except ValueError as error:
        print("with a transposed scale:", error)

    if which("breccia"):
        print(subprocess.run(["breccia", "inspect", path], capture_output=True, text=True, check=True).stdout)
