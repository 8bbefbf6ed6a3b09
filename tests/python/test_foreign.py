# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of torchao, MLX, bitsandbytes and gpt-oss from Python: the values of the library itself, and back."""
import json

import bitsandbytes.functional as bnbf
import breccia
import mlx.core as mx
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
from torchao.quantization import Float8Tensor, PerRow

NAME = "layers.0.up.weight"


@pytest.fixture
def x():
    return np.random.default_rng(2).standard_normal((8, 128)).astype(np.float32)


def opened(path):
    return np.asarray(breccia.dequantize(breccia.open(path)[NAME]))


@pytest.mark.parametrize("dim", [-1, 0])
def test_torchao(tmp_path, x, dim):
    t = Float8Tensor.from_hp(torch.from_numpy(x), granularity=PerRow(dim))
    arrays, metadata = flatten_tensor_state_dict({NAME: t})
    save_file(arrays, tmp_path / "m.safetensors", metadata=metadata)
    assert np.array_equal(opened(tmp_path / "m.safetensors"), t.dequantize(torch.float32).numpy())
    layout = breccia.open(tmp_path / "m.safetensors")[NAME].layout
    assert layout == (breccia.PerColumn() if dim == 0 else breccia.PerChannel())


@pytest.mark.parametrize("mode, group, bits", [("affine", 64, 4), ("affine", 32, 3), ("mxfp4", 32, 4), ("nvfp4", 16, 4)])
def test_mlx(tmp_path, x, mode, group, bits):
    parts = mx.quantize(mx.array(x), group_size=group, bits=bits, mode=mode)
    names = (NAME, "layers.0.up.scales", "layers.0.up.biases")
    mx.save_safetensors(str(tmp_path / "model.safetensors"), dict(zip(names, parts)))
    (tmp_path / "config.json").write_text(json.dumps({"quantization": {"group_size": group, "bits": bits, "mode": mode}}))
    assert np.array_equal(opened(tmp_path), np.array(mx.dequantize(*parts, group_size=group, bits=bits, mode=mode, dtype=mx.float32)))


def test_bitsandbytes(tmp_path, x):
    codes, state = bnbf.quantize_4bit(torch.from_numpy(x), quant_type="nf4", blocksize=64, compress_statistics=True)
    save_file({NAME: codes, **{f"{NAME}.{k}": v for k, v in state.as_dict(packed=True).items()}}, tmp_path / "m.safetensors")
    assert np.array_equal(opened(tmp_path / "m.safetensors"), bnbf.dequantize_4bit(codes, state).numpy())


@pytest.mark.parametrize("dialect", ["torchao", "gpt-oss", "mlx"])
def test_saved_and_opened(tmp_path, x, dialect):
    t = breccia.cast(x, breccia.recipes.MXFP4BlockScaling())
    breccia.bridges.save_safetensors({NAME: t}, tmp_path / "m.safetensors", dialect=dialect)
    assert np.array_equal(opened(tmp_path / "m.safetensors"), np.asarray(breccia.dequantize(t)))
