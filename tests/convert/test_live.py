# SPDX-License-Identifier: Apache-2.0
"""What convert wrote, opened by the loaders that it was written for; and a real GGUF file, there and back."""
import json
import shutil

import gguf
import numpy as np
import pytest
from convert.decoders import DECODERS, File

import checkpoint_files as files


@pytest.fixture(scope="module")
def llama(plain_llama, tmp_path_factory):
    """The tiny model with its weights in DeepSeek's FP8."""
    folder = tmp_path_factory.mktemp("deepseek") / "llama"
    files.quantize(plain_llama, folder, "fp8-block128", "deepseek")
    return folder


def check_loaded(path, quantization):
    import torch
    import transformers
    loaded = transformers.AutoModelForCausalLM.from_pretrained(path, quantization_config=quantization, dtype=torch.float32)
    state, seen = loaded.state_dict(), 0
    dialect, file = ("deepseek" if "FineGrained" in type(quantization).__name__ else "compressed-tensors"), File(path)
    with files.Checkpoint(path) as c:
        scaled = [n for n in c.names() if c[n].scaled]
    for name in scaled:
        np.testing.assert_array_equal(state[name].float().numpy(), DECODERS[dialect](file, name).value, err_msg=name)
        seen += 1
    assert seen == 14
    with torch.no_grad():
        assert torch.isfinite(loaded(torch.arange(8)[None]).logits).all()


@pytest.mark.parametrize("recipes", [(), ("fp8-row",), ("int8",), ("int4:group=32,scale=f32",)], ids=str)
def test_transformers_opens_compressed_tensors(llama, tmp_path, recipes):
    import transformers
    outcomes = files.conversion(llama, tmp_path / "out", "compressed-tensors", recipes, require=None if recipes else "bit-exact")
    assert sum(o.quantized for o in outcomes.values()) == 14
    check_loaded(tmp_path / "out", transformers.CompressedTensorsConfig(dequantize=True))


def test_transformers_opens_deepseek(llama, tmp_path):
    """There and back: the same bytes, and the same model."""
    import transformers
    files.conversion(llama, tmp_path / "ct", "compressed-tensors", require="bit-exact")
    files.conversion(tmp_path / "ct", tmp_path / "out", "deepseek", require="bit-exact")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (llama / "model.safetensors").read_bytes()
    check_loaded(tmp_path / "out", transformers.FineGrainedFP8Config(dequantize=True))


def ratio(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return 10 * np.log10((a**2).sum() / ((a - b)**2).sum())

# --------------------------------------------------------------------------------------------- libraries of arrays

def load_torchao(path):
    """torchao's own classes."""
    from safetensors import safe_open
    from safetensors.torch import load_file
    from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict
    import torch
    with safe_open(path / "model.safetensors", "pt") as opened:
        tensors, left = unflatten_tensor_state_dict(load_file(path / "model.safetensors"), opened.metadata())
    assert not left
    plain = {n: t for n, t in tensors.items() if type(t) is torch.Tensor}
    values = {n: (t.dequantize() if "Intx" in type(t).__name__ else t.dequantize(torch.float32)).numpy() for n, t in tensors.items() if n not in plain}
    return values, {n: t.numpy() for n, t in plain.items()}


def load_mlx(path):
    """mlx.core.dequantize, by what config.json says to mlx.nn.quantize."""
    import mlx.core as mx
    said, arrays = json.loads((path / "config.json").read_text())["quantization"], mx.load(str(path / "model.safetensors"))
    values = {}
    for name in [n for n in arrays if n.endswith(".scales")]:
        module = name.removesuffix(".scales")
        mode = {**said, **said.get(module, {})}
        scales, biases = arrays.pop(name), arrays.pop(f"{module}.biases", None)
        if biases is not None:
            scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
        values[f"{module}.weight"] = np.array(mx.dequantize(arrays.pop(f"{module}.weight"), scales, biases, mode["group_size"], mode["bits"], mode["mode"],
                                                            dtype=mx.float32))
    return values, {n: np.array(a) for n, a in arrays.items()}


def load_gguf(path):
    values = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).reshape([int(n) for n in reversed(t.shape)]) for t in gguf.GGUFReader(path).tensors}
    plain = {t.name for t in gguf.GGUFReader(path).tensors if t.tensor_type.name == "F32"}
    return {n: a for n, a in values.items() if n not in plain}, {n: a for n, a in values.items() if n in plain}


LOADERS = {"torchao": load_torchao, "mlx": load_mlx, "gguf": load_gguf}


@pytest.mark.parametrize("dialect, recipes", [("torchao", ()), ("torchao", ("mxfp8",)), ("torchao", ("int4:group=32,scale=f32",)), ("torchao", ("nvfp4",)), ("mlx", ()),
                                              ("mlx", ("mxfp8:arith=mlx",)), ("gguf", ()), ("gguf", ("q4_0",))], ids=str)
def test_the_library_opens_what_convert_wrote(llama, tmp_path, dialect, recipes):
    """And finds the values that were converted, where convert says so."""
    path = tmp_path / ("model.gguf" if dialect == "gguf" else "out")
    outcomes = files.conversion(llama, path, dialect, recipes)
    values, plain = LOADERS[dialect](path)
    assert len(values) == 14 and set(plain) == {n for n, o in outcomes.items() if not o.quantized}
    with files.Checkpoint(path) as after, files.Checkpoint(llama) as before:
        for name, theirs in values.items():
            np.testing.assert_array_equal(theirs, after[name].values(), err_msg=name)
            if outcomes[name].exactness in ("bit-exact", "value-exact"):
                np.testing.assert_array_equal(theirs, before[name].values(), err_msg=name)
            else:
                assert abs(ratio(before[name].values(), theirs) - outcomes[name].sqnr) < 1e-3, name


def test_a_real_gguf_file(tmp_path, smollm2):
    """SmolLM2 (Q4_1, Q8_0) as FP8 of two dialects and on to plain numbers, against what gguf-py makes of every tenth tensor, which takes long: each of the
    nine kinds of a layer, in three layers."""
    made = {}
    for dialect in ("compressed-tensors", "deepseek"):
        outcomes = files.conversion(smollm2, tmp_path / dialect, dialect)
        assert len(outcomes) == 272 and sum(o.quantized for o in outcomes.values()) == 211
        files.conversion(tmp_path / dialect, tmp_path / f"{dialect}-dense", "dense", format="f32")
        made[dialect] = outcomes, File(tmp_path / f"{dialect}-dense")
    for t in gguf.GGUFReader(smollm2).tensors[::10]:
        want = gguf.quants.dequantize(t.data, t.tensor_type).reshape([int(n) for n in reversed(t.shape)])
        for dialect, (outcomes, dense) in made.items():
            got, outcome = dense[t.name].astype(np.float32), outcomes[t.name]
            if outcome.exactness in ("bit-exact", "value-exact"):
                np.testing.assert_array_equal(got, want, err_msg=f"{dialect} {t.name}")
            else:
                assert abs(ratio(want, got) - outcome.sqnr) < 1e-3 and outcome.sqnr > 30, (dialect, t.name)
    for dialect in made:
        shutil.rmtree(tmp_path / f"{dialect}-dense")
