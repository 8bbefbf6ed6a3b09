# SPDX-License-Identifier: Apache-2.0
"""fbgemm_fp8 checkpoints of transformers: rows of linear layers, columns of Llama 4's experts."""
import json

import breccia_c as brc
import checkpoint_files as files
import ml_dtypes
import numpy as np
import pytest

NAME = "layers.0.up.weight"
UP, DOWN = "layers.0.experts.gate_up_proj", "layers.0.experts.down_proj"
F8 = ml_dtypes.float8_e4m3fn
SETTINGS = {"quantization_config": {"quant_method": "fbgemm_fp8", "activation_scale_ub": 900.0, "modules_to_not_convert": ["lm_head"]}}


def checkpoint(folder, arrays, settings=SETTINGS):
    folder.mkdir(exist_ok=True)
    if settings is not None:
        (folder / "config.json").write_text(json.dumps(settings))
    return files.write(folder / "model.safetensors", arrays)


def codes(*shape):
    return np.random.default_rng(6).standard_normal(shape).astype(F8)


def linear():
    q, s = codes(24, 40), np.random.default_rng(7).random((24, 1), np.float32)
    return {NAME: q, NAME + "_scale": s}, {NAME: q.astype(np.float32) * s}


def experts(h=16, i=24):
    """As transformers' FbgemmFp8Llama4TextExperts lays them out: x @ gate_up_proj[e], a scale for each output."""
    r = np.random.default_rng(8)
    up, down = codes(3, h, 2 * i), codes(3, i, h)
    s, t = r.random((3, 1, 2 * i), np.float32), r.random((3, h, 1), np.float32)
    return ({UP: up, UP + "_scale": s, DOWN: down, DOWN + "_scale": t},
            {UP: up.astype(np.float32) * s, DOWN: down.astype(np.float32) * t.reshape(3, 1, h)})


@pytest.mark.parametrize("make", [linear, experts, lambda: experts(24, 24)], ids=["linear", "experts", "experts as wide as high"])
def test_values_and_back(tmp_path, make):
    arrays, want = make()
    checkpoint(tmp_path / "in", arrays)
    with files.Checkpoint(tmp_path / "in") as c:
        c.usable()
        assert not c.findings and set(c.names()) == set(want)
        for name, values in want.items():
            np.testing.assert_array_equal(c[name].values(), values)
            assert c[name].dialect == "fbgemm-fp8"
        assert all(("column" if name in (UP, DOWN) else "row") in c[name].meaning for name in want)
    assert {k for k, _ in files.convert(tmp_path / "in", tmp_path / "out", "fbgemm-fp8").values()} == {"bit-exact"}
    files.same_arrays(files.read(tmp_path / "in" / "model.safetensors")[0], files.read(tmp_path / "out" / "model.safetensors")[0])
    files.same_arrays(*files.stored_again(tmp_path / "in", tmp_path / "again"))


def test_transformers_quantizer_says_the_same(tmp_path):
    """The shapes that FbgemmFp8Quantize gives, by its own reshapes of a plain quantization per row."""
    x = np.random.default_rng(1).standard_normal((3, 24, 16)).astype(np.float32)         # down_proj: [E, I, H]
    rows = x.transpose(0, 2, 1).reshape(-1, 24)
    scale = np.abs(rows).max(1) / np.float32(448)
    q = (rows / scale[:, None]).astype(F8).reshape(3, 16, 24).transpose(0, 2, 1)
    arrays = {DOWN: np.ascontiguousarray(q), DOWN + "_scale": scale.reshape(3, 16, 1)}
    with files.Checkpoint(checkpoint(tmp_path, arrays)) as c:
        c.usable()
        assert np.corrcoef(c[DOWN].values().ravel(), x.ravel())[0, 1] > 0.999


def test_quantized_to_it(tmp_path):
    w = np.random.default_rng(2).standard_normal((32, 48)).astype(np.float32)
    (tmp_path / "in").mkdir()
    files.write(tmp_path / "in" / "model.safetensors", {NAME: w, "embed.weight": w})
    files.quantize(tmp_path / "in", tmp_path / "out", "fp8-row", "fbgemm-fp8")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config == {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["embed"]}
    with files.Checkpoint(tmp_path / "out") as c:
        c.usable()
        np.testing.assert_array_equal(c[NAME].values(), brc.dequantize(brc.cast(w, "fp8-row")))
    import transformers
    transformers.FbgemmFp8Config.from_dict(config)
    assert files.convert(tmp_path / "out", tmp_path / "ct", "compressed-tensors")[NAME][0] == "bit-exact"
    with pytest.raises(brc.Error, match="fbgemm-fp8 stores"):
        files.quantize(tmp_path / "in", tmp_path / "other", "mxfp8", "fbgemm-fp8")


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


MISREADINGS = {
    "scale transposed": ({NAME: codes(24, 40), NAME + "_scale": ones(1, 24)}, "SHAPE", "transposed"),
    "scale of the columns": ({NAME: codes(24, 40), NAME + "_scale": ones(1, 40)}, "SHAPE", "does not belong"),
    "scale flat": ({NAME: codes(24, 40), NAME + "_scale": ones(24)}, "SHAPE", "does not belong"),
    "one scale": ({NAME: codes(24, 40), NAME + "_scale": ones(1)}, "AMBIGUOUS", "one scale for each tensor|fbgemm_fp8"),
    "scale of experts' rows": ({UP: codes(3, 16, 48), UP + "_scale": ones(3, 16, 1)}, "SHAPE|AMBIGUOUS", "each column"),
    "scale in BF16": ({NAME: codes(24, 40), NAME + "_scale": ones(24, 1, dtype=ml_dtypes.bfloat16)}, "FORMAT", "F32"),
    "scale missing": ({NAME: codes(24, 40)}, "MALFORMED", "missing"),
    "orphan scale": ({NAME + "_scale": ones(24, 1)}, "MALFORMED", "whose weight is missing"),
    "exponents as numbers": ({NAME: codes(24, 32), NAME + "_scale": np.full((24, 1), 127, np.uint8)}, "FORMAT", "U8"),
    "other floats": ({NAME: ("F8_E5M2", np.zeros((24, 40), np.uint8)), NAME + "_scale": ones(24, 1)}, "FORMAT", "F8_E5M2"),
}


@pytest.mark.parametrize("misreading", MISREADINGS)
def test_no_misreading_passes(tmp_path, misreading):
    arrays, status, words = MISREADINGS[misreading]
    with files.Checkpoint(checkpoint(tmp_path / "in", arrays)) as c, pytest.raises(brc.Error, match=words) as stopped:
        c.usable()
    assert stopped.value.name in status.split("|"), stopped.value
    with pytest.raises(brc.Error):
        files.dequantize(tmp_path / "in", tmp_path / "out.safetensors")


def test_without_a_config_columns_of_experts_are_its_own_and_rows_are_not(tmp_path):
    arrays, want = experts()
    with files.Checkpoint(checkpoint(tmp_path / "a", arrays, None)) as c:
        c.usable()
        np.testing.assert_array_equal(c[UP].values(), want[UP])
    with files.Checkpoint(checkpoint(tmp_path / "b", linear()[0], None)) as c, pytest.raises(brc.Error, match="two readings fit"):
        c.usable()
    with files.Checkpoint(tmp_path / "b", "fbgemm-fp8") as c:
        c.usable()
