# SPDX-License-Identifier: Apache-2.0
"""A real trained checkpoint through every recipe: the loss must be the one that independent implementations have."""
import math

import pytest

import checkpoint_files as files

# SQNR in dB over the 36 encoder linears (10*log10 of summed squares), by implementations that share no code with breccia.
FIGURES = {"fp8": 31.55, "fp8-row": 31.65, "fp8-block": 31.87, "fp8-block128": 31.57, "mxfp8:rule=rceil": 31.54, "mxfp8:rule=floor": 30.33,
           "mxfp4:rule=rceil": 18.45, "mxfp4:rule=floor": 18.60, "mxfp4:rule=ceil": 16.72, "nvfp4": 20.50, "nvfp4:levels=1": 20.33,
           "int4:group=128": 18.38}


@pytest.mark.parametrize("dialect, recipe", [("breccia", r) for r in FIGURES] + [("deepseek", "fp8-block128")])
def test_the_loss_is_the_known_one(minilm, tmp_path, dialect, recipe):
    low, back = tmp_path / "low.safetensors", tmp_path / "back.safetensors"
    outcomes = files.quantize(minilm, low, recipe, dialect)
    linears = [n for n, o in outcomes.items() if o.quantized and n.startswith("encoder.layer.")]
    assert len(linears) == 36 and sum(o.quantized for o in outcomes.values()) == 37        # and pooler.dense.weight
    _, overflowed = files.dequantize(low, back, "f32")
    assert overflowed == 0
    differences, missing, _ = files.compare(minilm, back)
    direct, _, _ = files.compare(minilm, low)
    assert not missing and set(differences) == set(outcomes)
    for name, outcome in outcomes.items():
        if not outcome.quantized:
            assert differences[name].noise == 0
        else:
            assert (differences[name].signal, differences[name].noise) == (direct[name].signal, direct[name].noise)
    signal, noise = (sum(getattr(differences[n], side) for n in linears) for side in ("signal", "noise"))
    assert 10 * math.log10(signal / noise) == pytest.approx(FIGURES[recipe], abs=0.05)
    with files.Checkpoint(low) as c:
        assert not c.findings and not [f for f in c.verify() if f.severity != "note"]


@pytest.mark.parametrize("recipe", ["fp8-block128", "nvfp4", "mxfp8", "int4"])
def test_odd_shapes_of_a_small_trained_model(fracast, tmp_path, recipe):
    low = tmp_path / "low.safetensors"
    outcomes = files.quantize(fracast, low, recipe)
    quantized = {n for n, o in outcomes.items() if o.quantized}
    assert {"core.in_proj.weight", "head.summary_proj.weight", "head.queries", "core.periodic.proj.weight"} <= quantized
    assert outcomes["core.block.dw_weight"].why == "3-D" and outcomes["core.norm.weight"].why == "1-D"
    differences, missing, total = files.compare(fracast, low)
    assert not missing and total.sqnr > {"fp8-block128": 30, "nvfp4": 19, "mxfp8": 30, "int4": 15}[recipe]
    assert all((differences[n].noise == 0) == (n not in quantized) for n in differences)
