# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that ModelOpt exports of a tiny model made here: read as it meant them, converted together with the scales of their caches,
and dequantized with those of their inputs."""
import copy

import numpy as np
import pytest

import breccia_c as brc
import checkpoint_files as files

CACHES = {f"model.layers.{i}.self_attn.{x}_proj.{x}_scale" for i in range(2) for x in "kv"}


def export(model_path, folder, name, cache=False):
    """{weight: (its values as they are multiplied, the scale of their inputs or 1)} of ModelOpt's model, which is in `folder` then; NVFP4's and MXFP8's
    quantizers need a GPU to simulate theirs, and give the weights themselves."""
    import torch
    import transformers
    import modelopt.torch.quantization as mtq
    from modelopt.torch.export import export_hf_checkpoint
    from modelopt.torch.quantization.config import FP8_KV_CFG
    from modelopt.torch.quantization.utils import update_quant_cfg_with_kv_cache_quant
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    said = copy.deepcopy(getattr(mtq, name))
    if cache:
        said = update_quant_cfg_with_kv_cache_quant(said, FP8_KV_CFG["quant_cfg"])
    run = lambda m: m(torch.randint(0, 64, (2, 16)))
    mtq.quantize(model, said, None if "WEIGHT_ONLY" in name or "FP4" in name or "MX" in name else run)
    found = {}
    with torch.no_grad():
        for n, m in model.named_modules():
            if hasattr(m, "weight_quantizer") and m.weight_quantizer.is_enabled:
                simulated = m.weight if "FP4" in name or "MX" in name else m.weight_quantizer(m.weight)
                by = getattr(m.input_quantizer, "pre_quant_scale", None)
                found[f"{n}.weight"] = simulated.numpy().copy(), 1 if by is None else by.numpy().copy()
    export_hf_checkpoint(model, dtype=torch.float32, export_dir=folder)
    return found


def ratio(want, got):
    with np.errstate(divide="ignore"):
        return 10 * np.log10((want.astype(np.float64)**2).sum() / ((want.astype(np.float64) - got)**2).sum())


@pytest.mark.parametrize("name, cache, alone, fused", [("FP8_DEFAULT_CFG", True, 140, 30), ("INT8_WEIGHT_ONLY_CFG", False, 140, 140), ("NVFP4_DEFAULT_CFG", False, 20, 20),
                                                       ("MXFP8_DEFAULT_CFG", False, 31, 31)])
def test_an_export(tmp_path, plain_llama, name, cache, alone, fused):
    """The values that ModelOpt simulates (SQNR at least `alone`); projections that are fused share a scale then, which moves theirs (`fused`)."""
    found = export(plain_llama, tmp_path / "mo", name, cache)
    with files.Checkpoint(tmp_path / "mo") as c:
        c.usable()
        assert not [f for f in c.findings if f.severity != "note"] and not [f for f in c.verify() if f.severity != "note"]
        assert {n for n in c.names() if c[n].scaled} == set(found) and {c[n].dialect for n in found} == {"modelopt"}
        assert {n for n in c.names() if "cache" in c[n].meaning} == (CACHES if cache else set())
        for n, (want, _) in found.items():
            assert ratio(want, c[n].values()) > (alone if n.split(".")[-2] in ("o_proj", "down_proj") else fused), n
    outcomes = files.conversion(tmp_path / "mo", tmp_path / "ct", "compressed-tensors", require="one-ulp")
    assert sum(o.quantized for o in outcomes.values()) == len(found) == 14
    written, kept = (files.read(tmp_path / where / "model.safetensors")[0] for where in ("ct", "mo"))
    for n in CACHES if cache else ():
        assert written[n][1].tobytes() == kept[n][1].tobytes()


def test_scales_of_inputs_are_multiplied_into_plain_weights(tmp_path, plain_llama):
    """AWQ's, where they are not folded into the layer before: (x * s) W^T = x (W * s)^T."""
    found = export(plain_llama, tmp_path / "mo", "INT4_AWQ_CFG")
    heard = []
    files.dequantize(tmp_path / "mo", tmp_path / "dense", "f32", warnings=heard)
    dense = files.read(tmp_path / "dense" / "model.safetensors")[0]
    told = [tensor for tensor, _, text in heard if "pre_quant_scale" in text]
    assert told
    for n in told:
        want, by = found[n]
        assert ratio(want * by, dense[n][1]) > 120 and ratio(want, dense[n][1]) < 40, n
    with pytest.raises(brc.Error, match="no place for its pre_quant_scale, .* dequantize multiplies it into the weight"):
        files.conversion(tmp_path / "mo", tmp_path / "ct", "compressed-tensors")
