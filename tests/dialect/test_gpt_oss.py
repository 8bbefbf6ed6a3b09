# SPDX-License-Identifier: Apache-2.0
"""gpt-oss's MXFP4: what transformers decodes (golden), blocks written and read back, every misreading refused."""
import json

import ml_dtypes
import numpy as np
import pytest

import breccia_c as brc
import checkpoint_files as files
import golden_files

NAME = "model.layers.0.mlp.experts.gate_up_proj"
METHOD = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}


def checkpoint(folder, arrays, quantization=None):
    if quantization is not None:
        (folder / "config.json").write_text(json.dumps({"model_type": "gpt_oss", "quantization_config": quantization}))
    return files.write(folder / "model.safetensors", arrays)


def pair(blocks, scales, name=NAME, dot="_"):
    return {f"{name}{dot}blocks": blocks, f"{name}{dot}scales": scales, f"{name}_bias": np.ones((2, 6), ml_dtypes.bfloat16)}


def random(*shape, seed=7):
    r = np.random.default_rng(seed)
    return r.integers(0, 256, (*shape, 16), np.uint8), r.integers(100, 140, shape, np.uint8)


def decoded(blocks, scales):
    """OCP MX: E2M1 * 2^(S - 127)."""
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*blocks.shape[:-1], 32)
    with np.errstate(over="ignore"):
        values = codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32) * np.ldexp(np.float32(1), scales.astype(int) - 127)[..., None]
    return values.reshape(*blocks.shape[:-2], -1)


@pytest.mark.parametrize("quantization", [METHOD, None], ids=["config", "names alone"])
def test_golden_values_are_the_transpose_of_those_of_transformers(golden, tmp_path, quantization):
    g = golden_files.load(golden / "gpt_oss_mxfp4.safetensors")
    with files.Checkpoint(checkpoint(tmp_path, pair(g["blocks"], g["scales"]), quantization)) as c:
        c.usable()
        assert not c.findings and c.names() == [NAME, NAME + "_bias"]
        e = c[NAME]
        assert (e.dialect, e.recipe, set(e.parts)) == ("gpt-oss", "mxfp4", {"data", "scale"})
        assert "[2,6,3,16]" in e.evidence and "transpose" in e.meaning
        golden_files.same(e.values(), np.swapaxes(g["deq"], 1, 2))
        golden_files.same(e.values(ml_dtypes.bfloat16), np.swapaxes(g["deq_bf16"], 1, 2).view(ml_dtypes.bfloat16))


@pytest.mark.parametrize("shape", [(4, 2), (3, 5, 1), (2, 2, 3, 2)])
@pytest.mark.parametrize("dot", ["_", "."])
@pytest.mark.parametrize("word", ["U8", "F8_E8M0"])
def test_shapes_names_and_types(tmp_path, shape, dot, word):
    blocks, scales = random(*shape)
    with files.Checkpoint(checkpoint(tmp_path, pair(blocks, (word, scales), dot=dot), METHOD)) as c:
        c.usable()
        golden_files.same(c[NAME].values(), decoded(blocks, scales))


def test_every_code_and_every_exponent_but_255(tmp_path):
    blocks = np.broadcast_to(np.arange(16, dtype=np.uint8) * 17, (255, 1, 16)).copy()
    scales = np.arange(255, dtype=np.uint8)[:, None]
    with files.Checkpoint(checkpoint(tmp_path, pair(blocks, scales), METHOD)) as c:
        golden_files.same(c[NAME].values(), decoded(blocks, scales))


def test_an_exponent_of_255_is_told(tmp_path):
    """2^128 is beyond F32: what transformers makes of it is infinite, here it is NaN."""
    blocks, scales = random(4, 2)
    scales[2, 1] = 255
    path = checkpoint(tmp_path, pair(blocks, scales), METHOD)
    with files.Checkpoint(path) as c:
        assert np.isnan(c[NAME].values()[2, 32:]).all()
        assert any(f.severity == "error" for f in c.verify())
    with pytest.raises(brc.Error, match="NaN") as refused:
        files.dequantize(path, tmp_path / "d")
    assert refused.value.name == "NONFINITE"


# ------------------------------------------------------------------------------------------------------ writing

@pytest.mark.parametrize("dot", ["_", "."])
def test_read_and_written_is_the_same(tmp_path, dot):
    path = checkpoint(tmp_path, pair(*random(2, 6, 3), dot=dot), METHOD)
    assert files.convert(tmp_path, tmp_path / "t", "gpt-oss")[NAME][0] == "bit-exact"
    files.same_arrays(files.read(path)[0], files.read(tmp_path / "t" / "model.safetensors")[0])
    assert json.loads((tmp_path / "t" / "config.json").read_text()) == {"model_type": "gpt_oss", "quantization_config": METHOD}


def test_the_value_alone_gives_the_same_arrays(tmp_path):
    path = checkpoint(tmp_path, pair(*random(2, 6, 3)), METHOD)
    files.same_arrays(*files.stored_again(path, tmp_path / "again.safetensors"))


@pytest.mark.parametrize("other", ["breccia", "torchao"])
def test_there_and_back(tmp_path, other):
    arrays = pair(*random(2, 6, 3), name="experts.gate_up_proj")
    (tmp_path / "a").mkdir()
    checkpoint(tmp_path / "a", arrays, METHOD)
    assert files.convert(tmp_path / "a", tmp_path / "b", other, require="BIT_EXACT")["experts.gate_up_proj"][0] == "bit-exact"
    assert "quantization_config" not in json.loads((tmp_path / "b" / "config.json").read_text())
    assert files.convert(tmp_path / "b", tmp_path / "c", "gpt-oss", require="BIT_EXACT")["experts.gate_up_proj"][0] == "bit-exact"
    files.same_arrays(files.read(tmp_path / "a" / "model.safetensors")[0], files.read(tmp_path / "c" / "model.safetensors")[0])
    assert json.loads((tmp_path / "c" / "config.json").read_text())["quantization_config"]["quant_method"] == "mxfp4"


def test_quantized(tmp_path):
    x = np.random.default_rng(1).standard_normal((6, 96)).astype(np.float32)
    (tmp_path / "s").mkdir()
    files.write(tmp_path / "s" / "model.safetensors", {"up.weight": x, "lm_head.weight": x})
    (tmp_path / "s" / "config.json").write_text("{}")
    files.quantize(tmp_path / "s", tmp_path / "t", "mxfp4", dialect="gpt-oss", include=["up.weight"])
    arrays, _ = files.read(tmp_path / "t" / "model.safetensors")
    assert {n: (w, a.shape) for n, (w, a) in arrays.items()} == {
        "up.weight_blocks": ("U8", (6, 3, 16)), "up.weight_scales": ("U8", (6, 3)), "lm_head.weight": ("F32", (6, 96))}
    assert json.loads((tmp_path / "t" / "config.json").read_text())["quantization_config"] == {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    with files.Checkpoint(tmp_path / "t") as c:
        c.usable()
        golden_files.same(c["up.weight"].values(), decoded(arrays["up.weight_blocks"][1], arrays["up.weight_scales"][1]))


@pytest.mark.parametrize("recipe, shape", [("nvfp4", (4, 64)), ("mxfp8", (4, 64)), ("mxfp4", (4, 48)), ("int4", (4, 128))])
def test_what_has_no_place(tmp_path, recipe, shape):
    source = files.write(tmp_path / "s.safetensors", {"up.weight": np.ones(shape, np.float32)})
    with pytest.raises(brc.Error, match="use the recipe mxfp4") as refused:
        files.quantize(source, tmp_path / "t", recipe, dialect="gpt-oss", include=["*"])
    assert refused.value.name == "UNSUPPORTED"


# -------------------------------------------------------------------------------------------------- misreadings

B, S = random(2, 6, 3)
MISREADINGS = {          # arrays, config -> status, words
    "exponents as numbers": (pair(B, S.astype(np.float32)), METHOD, "FORMAT", "exponents there"),
    "exponents as numbers, no config": (pair(B, S.astype(np.float32)), None, "FORMAT", "exponents there"),
    "scales transposed": (pair(B, np.ascontiguousarray(S.swapaxes(1, 2))), METHOD, "SHAPE", "rows and groups exchanged"),
    "scales of another tensor": (pair(B, S[:, :5]), METHOD, "SHAPE", r"is \[2,6,3\]"),
    "scales of as many elements": (pair(B, S.reshape(2, 3, 6)), METHOD, "SHAPE", r"is \[2,6,3\]"),
    "blocks of 32 bytes": (pair(B.reshape(2, 3, 3, 32), S), METHOD, "SHAPE", "groups, 16"),
    "blocks flat": (pair(B.reshape(-1), S), METHOD, "SHAPE", "groups, 16"),
    "blocks of floats": (pair(B.astype(np.float32), S), METHOD, "FORMAT", "has U8"),
    "scales missing": ({NAME + "_blocks": B}, METHOD, "MALFORMED", "without its exponents"),
    "blocks missing": ({NAME + "_scales": S}, METHOD, "MALFORMED", "exponents of no codes"),
    "scales missing beside a whole tensor": ({**pair(B, S), "x_blocks": B}, None, "MALFORMED", "without its exponents"),
    "another method": (pair(B, S), {"quant_method": "fp8"}, "AMBIGUOUS", "quant_method is \"fp8\""),
}


@pytest.mark.parametrize("case", MISREADINGS)
def test_misreadings_are_refused(tmp_path, case):
    arrays, quantization, status, words = MISREADINGS[case]
    with files.Checkpoint(checkpoint(tmp_path, arrays, quantization)) as c, pytest.raises(brc.Error, match=words) as refused:
        c.usable()
    assert refused.value.name == status


@pytest.mark.parametrize("arrays", [{"a_blocks": np.ones((2, 3), np.float32), "a_scales": np.ones(2, np.float32)}, {"b_scales": np.ones((4, 4), np.uint8)}])
def test_ordinary_names_say_nothing(tmp_path, arrays):
    with files.Checkpoint(checkpoint(tmp_path, arrays)) as c:
        assert not c.findings and sorted(c.names()) == sorted(arrays)
