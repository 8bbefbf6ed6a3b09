# SPDX-License-Identifier: Apache-2.0
"""Where tensors are loaded from: a file, an index with its shards, a folder; what is no scaled tensor stays where it is."""
import json
import subprocess
import sys

import breccia
import pytest
from breccia.bridges import load_safetensors, save_safetensors


@pytest.fixture
def split(torch, tmp_path):
    """(value, folder): a tensor whose codes lie in one shard and whose scales in another, beside a tensor of somebody else, by the safetensors library."""
    from safetensors import safe_open
    from safetensors.torch import save_file
    value = breccia.cast(torch.randn(64, 128, generator=torch.Generator().manual_seed(2)), breccia.NVFP4BlockScaling())
    save_safetensors({"w": value}, tmp_path / "whole.safetensors")
    with safe_open(tmp_path / "whole.safetensors", "pt") as file:
        arrays, metadata = {n: file.get_tensor(n) for n in file.keys()}, file.metadata()
    folder = tmp_path / "model"
    folder.mkdir()
    shards = {"model-00001-of-00002.safetensors": {"w.data": arrays.pop("w.data")}, "model-00002-of-00002.safetensors": arrays | {"stranger": torch.ones(3)}}
    for name, held in shards.items():
        save_file(held, folder / name, metadata)
    weight_map = {n: name for name, held in shards.items() for n in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return value, folder


@pytest.mark.parametrize("path", [".", "model.safetensors.index.json"])
def test_a_folder_and_its_index(split, path):
    value, folder = split
    loaded = load_safetensors(folder / path, framework="torch")
    assert list(loaded) == ["w"] and loaded["w"] == value                # the stranger is ignored
    assert set(load_safetensors(folder / path, plain=True)) == {"w", "stranger"}
    model = breccia.open(folder / path, framework="torch")
    assert sorted(model) == ["stranger", "w"] and model["w"] == value


def test_one_shard_alone_is_not_half_a_tensor(split):
    _, folder = split
    with pytest.raises(ValueError, match="w"):
        load_safetensors(folder / "model-00001-of-00002.safetensors")


@pytest.mark.parametrize("framework", ["torch", "jax", "mlx"])
@pytest.mark.parametrize("call", ["from_dlpack(st, {0!r})", "load_safetensors('x', {0!r})"])
def test_a_library_that_is_not_installed(framework, call):
    """Imported inside the call: the one that is missing is named, with the line that installs it."""
    program = f"""
import sys
import numpy as np, breccia
sys.modules[{framework!r}] = None
st = breccia.cast(np.ones((2, 4), np.float32), breccia.Float8CurrentScaling())
breccia.bridges.{call.format(framework)}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == f"ImportError: arrays of {framework} need it: pip install {framework}", done.stderr
