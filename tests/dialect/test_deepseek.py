# SPDX-License-Identifier: Apache-2.0
"""DeepSeek's FP8 checkpoints: what another library decodes, and every misreading refused or named."""
import json

import ml_dtypes
import numpy as np
import pytest

import breccia_c as brc
import checkpoint_files as files
import golden_files

NAME = "layers.0.up.weight"


def config(block=(128, 128), **more):
    return {"quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                                    "weight_block_size": None if block is None else list(block), **more}}


def checkpoint(folder, arrays, settings=None):
    if settings is not None:
        (folder / "config.json").write_text(json.dumps(settings))
    return files.write(folder / "model.safetensors", arrays)


def pair(weight, scale, weight_type="F8_E4M3"):
    return {NAME: (weight_type, weight), NAME + "_scale_inv": scale}


def codes(*shape):
    return np.random.default_rng(5).integers(0, 0x7F, shape, dtype=np.uint8)


W = codes(140, 264)


def expand(scale, shape, block):
    return np.repeat(np.repeat(scale, block[0], axis=0), block[1], axis=1)[:shape[0], :shape[1]]


@pytest.mark.parametrize("settings", [config(), None], ids=["config", "shapes alone"])
@pytest.mark.parametrize("case", ["fp32", "ue8m0"])
def test_golden_values(golden, tmp_path, case, settings):
    g = golden_files.load(golden / "deepseek_block.safetensors")
    path = checkpoint(tmp_path, pair(g[f"{case}.weight"], g[f"{case}.weight_scale_inv"]), settings)
    with files.Checkpoint(path) as c:
        c.usable()
        golden_files.same(c[NAME].values(), g[f"{case}.deq"], case)
        assert "[2,3]" in c[NAME].evidence and "[140,264]" in c[NAME].evidence
        assert c[NAME].meaning == "value = element * scale; one scale for each 128x128 block"
        assert ("config.json" in c[NAME].evidence) == (settings is not None)


@pytest.mark.parametrize("word", ["F8_E8M0", "U8", "F32", "BF16", "F16"])
def test_scale_types(tmp_path, word):
    exponents = np.array([[120, 130, 127], [126, 121, 129]], np.uint8)
    numbers = np.exp2(exponents.astype(np.float32) - 127)
    scale = (word, exponents if word in ("F8_E8M0", "U8") else numbers.astype(files.NUMPY[word]))
    weight = codes(140, 264)
    with files.Checkpoint(checkpoint(tmp_path, pair(weight, scale), config(scale_fmt="ue8m0"))) as c:
        c.usable()
        assert not c.findings
        expected = weight.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * expand(numbers, weight.shape, (128, 128))
        np.testing.assert_array_equal(c[NAME].values(), expected)


def test_exponent_bytes_without_a_word_in_the_config_are_read_with_a_warning(tmp_path):
    with files.Checkpoint(checkpoint(tmp_path, pair(codes(128, 256), np.full((1, 2), 127, np.uint8)))) as c:
        c.usable()
        assert [(f.severity, f.tensor) for f in c.findings] == [("warning", NAME)]
        assert "2^(byte - 127)" in c.findings[0].text


@pytest.mark.parametrize("word, block, more, recipe", [
    ("F32", (128, 128), {}, "fp8-block128"), ("F32", (128, 128), {"scale_fmt": "ue8m0"}, "e4m3, f32 per 128x128 block"),
    ("F8_E8M0", (128, 128), {"scale_fmt": "ue8m0"}, "e4m3, e8m0 per 128x128 block"), ("BF16", (128, 128), {}, "e4m3, bf16 per 128x128 block"),
    ("F32", (128, 64), {}, "e4m3, f32 per 128x64 block")])
def test_the_recipe_is_named_where_the_numbers_are_its_own(tmp_path, word, block, more, recipe):
    scale = (word, np.ones((2, -(-264 // block[1])), files.NUMPY[word]))
    with files.Checkpoint(checkpoint(tmp_path, pair(codes(140, 264), scale), config(block, **more))) as c:
        c.usable()
        assert c[NAME].recipe == recipe


@pytest.mark.parametrize("fmt, findings", [("e5m2", 1), ("e4m3", 0), (7, 0)])
def test_a_format_in_the_config_that_is_not_that_of_the_codes(tmp_path, fmt, findings):
    arrays = {**pair(codes(140, 264), np.ones((2, 3), np.float32)), "o.weight": ("F8_E4M3", codes(1, 1)), "o.weight_scale_inv": np.ones((1, 1), np.float32)}
    with files.Checkpoint(checkpoint(tmp_path, arrays, config(fmt=fmt))) as c:
        c.usable()
        assert [(f.severity, f.tensor) for f in c.findings] == [("warning", "")] * findings
        assert all('fmt is "e5m2", but the codes are F8_E4M3' in f.text for f in c.findings)


@pytest.mark.parametrize("shape, block", [((100, 300), (64, 32)), ((3, 200, 130), (128, 128)), ((1, 1), (128, 128)), ((256, 64), (1, 64))])
def test_blocks_of_the_config_with_partial_edges(tmp_path, shape, block):
    weight = codes(*shape)
    counts = (*shape[:-2], -(-shape[-2] // block[0]), -(-shape[-1] // block[1]))
    scale = np.random.default_rng(1).random(counts, np.float32)
    with files.Checkpoint(checkpoint(tmp_path, pair(weight, scale), config(block))) as c:
        c.usable()
        flat = zip(weight.reshape(-1, *shape[-2:]), scale.reshape(-1, *counts[-2:]))
        expected = np.stack([w.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * expand(s, w.shape, block) for w, s in flat])
        np.testing.assert_array_equal(c[NAME].values(), expected.reshape(shape))


def expected_fp4(packed, exponents):
    """Even codes in the low bits; each 32 share 2^(byte - 127)."""
    nibbles = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
    values = nibbles.view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    return values * np.exp2(np.repeat(exponents, 32, axis=-1)[..., :values.shape[-1]].astype(np.float32) - 127)


@pytest.mark.parametrize("scale_word, name", [("F8_E8M0", "{}.weight_scale_inv"), ("U8", "{}.weight_scale_inv"), ("F8_E8M0", "{}.scale")])
@pytest.mark.parametrize("shape", [(6, 64), (2, 6, 48)], ids=str)
def test_experts_of_fp4_beside_blocks_of_fp8(tmp_path, shape, scale_word, name):
    rng = np.random.default_rng(2)
    expert, trunk = "layers.0.ffn.experts.3.w1", "layers.0.attn.wq_a"
    packed = rng.integers(0, 256, (*shape[:-1], shape[-1] // 2), dtype=np.uint8)
    exponents = rng.integers(110, 135, (*shape[:-1], -(-shape[-1] // 32)), dtype=np.uint8)
    blocks = rng.integers(110, 135, (2, 3), dtype=np.uint8)
    arrays = {expert + ".weight": ("I8", packed), name.format(expert): (scale_word, exponents),
              trunk + ".weight": ("F8_E4M3", W), name.format(trunk): (scale_word, blocks)}
    with files.Checkpoint(checkpoint(tmp_path, arrays, {"expert_dtype": "fp4", **config(scale_fmt="ue8m0")})) as c:
        c.usable()
        assert not c.findings and c.names() == [trunk + ".weight", expert + ".weight"]
        np.testing.assert_array_equal(c[expert + ".weight"].values(), expected_fp4(packed, exponents))
        scales = np.exp2(blocks.astype(np.float32) - 127)
        np.testing.assert_array_equal(c[trunk + ".weight"].values(), W.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * expand(scales, W.shape, (128, 128)))
        assert c[expert + ".weight"].recipe == "mxfp4" and "two codes a byte" in c[expert + ".weight"].evidence


def test_float_scales_of_experts_need_the_word_of_the_config(tmp_path):
    packed, scale = codes(4, 32), np.exp2(np.arange(8, dtype=np.float32) - 3).reshape(4, 2)
    with files.Checkpoint(checkpoint(tmp_path, pair(packed, scale, "I8"), {"expert_dtype": "fp4", **config()})) as c:
        c.usable()
        np.testing.assert_array_equal(c[NAME].values(), expected_fp4(packed, np.arange(8).reshape(4, 2) + 124))


@pytest.mark.parametrize("settings", [config(None), None])
@pytest.mark.parametrize("scale", [np.float32(0.25), np.array([0.25], np.float32)])
def test_one_scale_a_tensor(tmp_path, settings, scale):
    weight = codes(130, 40)
    with files.Checkpoint(checkpoint(tmp_path, pair(weight, scale), settings)) as c:
        c.usable()
        assert c[NAME].meaning.endswith("one scale for the tensor")
        np.testing.assert_array_equal(c[NAME].values(), weight.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * np.float32(0.25))


def ones(*shape):
    return np.ones(shape, np.float32)


MISREADINGS = {                       # arrays, config -> status, words
    "scale missing, config": ({NAME: ("F8_E4M3", W)}, config(), "MALFORMED", "_scale_inv is missing"),
    "scale missing, siblings": ({NAME: ("F8_E4M3", W), "o.weight": ("F8_E4M3", W), "o.weight_scale_inv": ones(2, 3)}, None, "MALFORMED",
                                "_scale_inv is missing"),
    "scale missing, no evidence": ({NAME: ("F8_E4M3", W)}, None, "AMBIGUOUS", "plain cast.*scale was lost"),
    "orphan scale": ({NAME + "_scale_inv": ones(2, 3)}, config(), "MALFORMED", "without its weight"),
    "weight is BF16": (pair(W[:, :132].reshape(140, 66, 2).view(np.uint16)[..., 0], ones(2, 1), "BF16"), config(), "FORMAT", "BF16"),
    "FP4 or integers": (pair(codes(128, 64).view(np.int8), ones(128, 4), "I8"), config(), "AMBIGUOUS", "two readings fit.*expert_dtype"),
    "FP4 of another shape": (pair(codes(128, 64).view(np.int8), np.full((128, 3), 127, np.uint8), "I8"), config(), "FORMAT", "neither"),
    "FP8 codes as bytes": (pair(codes(128, 64), ones(1, 1), "U8"), config(), "FORMAT", "neither"),
    "native scale transposed": ({"a.weight": ("F8_E4M3", W), "a.scale": ("F8_E8M0", np.full((3, 2), 127, np.uint8))}, config(), "SHAPE", "transposed"),
    "scale transposed": (pair(W, ones(3, 2)), config(), "SHAPE", r"transposed.*\[2,3\].*\[3,2\]"),
    "scale transposed, no config": (pair(W, ones(3, 2)), None, "SHAPE", r"transposed.*\[2,3\].*\[3,2\]"),
    "scale flat": (pair(W, ones(6)), config(), "SHAPE", r"\[6\].*\[140,264\]"),
    "scale of another tensor": (pair(W, ones(2, 40)), config(), "SHAPE", r"\[2,40\]"),
    "wrong block, config": (pair(W, ones(3, 5)), config(), "SHAPE", r"\[3,5\]"),
    "wrong block, no config": (pair(W, ones(3, 5)), None, "AMBIGUOUS", "weight_block_size"),
    "impossible count": (pair(W, ones(150, 3)), None, "SHAPE", r"\[150,3\]"),
    "config against shapes": (pair(W, ones(2, 3)), config((64, 64)), "AMBIGUOUS", r"64.*contradicts"),
    "config says blocks, one scale": (pair(W, np.float32(1)), config(), "AMBIGUOUS", "one scale for the tensor"),
    "config says one scale, blocks": (pair(W, ones(2, 3)), config(None), "AMBIGUOUS", "null"),
    "scale is I32": (pair(W, np.ones((2, 3), np.int32)), config(), "FORMAT", "I32"),
    "scale is I8": (pair(W, np.ones((2, 3), np.int8)), config(), "FORMAT", "I8"),
    "scale is F64": (pair(W, np.ones((2, 3))), config(), "FORMAT", "F64"),
    "scale is F8_E4M3": (pair(W, ("F8_E4M3", codes(2, 3))), config(), "FORMAT", "F8_E4M3"),
    "config's block is nonsense": (pair(W, ones(2, 3)), config((0, 128)), "MALFORMED", "weight_block_size"),
    "two scales, two systems": ({**pair(W, ones(2, 3)), NAME + "_scale": ones(140, 1)}, None, "AMBIGUOUS", "two readings fit.*deepseek.*compressed"),
    "config of another system": (pair(W, ones(2, 3)), {"quantization_config": {"quant_method": "modelopt"}}, "AMBIGUOUS", "modelopt"),
}


@pytest.mark.parametrize("misreading", MISREADINGS)
def test_no_misreading_passes(tmp_path, misreading):
    arrays, settings, status, words = MISREADINGS[misreading]
    with files.Checkpoint(checkpoint(tmp_path, arrays, settings)) as c:
        with pytest.raises(brc.Error, match=words) as stopped:
            c.usable()
        assert stopped.value.name == status
        name = NAME if any(n.startswith(NAME) for n in arrays) else "a.weight"
        assert any(f.tensor == name and f.severity in ("error", "ambiguity") for f in c.verify())
        with pytest.raises(brc.Error):
            c[name].tensor()
    for convert in (files.dequantize, lambda a, b: files.quantize(a, b, "fp8")):
        with pytest.raises(brc.Error):
            convert(tmp_path, tmp_path / "out.safetensors")
        assert not (tmp_path / "out.safetensors").exists()


def test_a_forced_dialect_decides(tmp_path):
    arrays = MISREADINGS["two scales, two systems"][0]
    path = checkpoint(tmp_path, arrays)
    with files.Checkpoint(path, "deepseek") as c:
        c.usable()
        assert c[NAME].scaled
        warning, = c.findings                     # the other scale is left behind: never without a word
        assert warning.severity == "warning" and warning.text == f"{NAME}_scale is not used: read as deepseek, as asked"
    with files.Checkpoint(path, "plain") as c:
        c.usable()
        assert not c[NAME].scaled and any("as asked" in f.text for f in c.findings)


def test_config_that_promises_what_is_not_there(tmp_path):
    with files.Checkpoint(checkpoint(tmp_path, {"w": np.zeros((2, 2), np.float32)}, config())) as c:
        assert [f.severity for f in c.findings] == ["warning"] and "quant_method" in c.findings[0].text


def test_config_with_what_json_libraries_refuse_is_still_understood(tmp_path):
    (tmp_path / "config.json").write_text('{"limit": [0.0, Infinity], "big": 1000000000000000019884624838656, "quantization_config": '
                                          '{"quant_method": "fp8", "weight_block_size": [64, 64]}, "text": "a \\" } ,"}')
    with files.Checkpoint(checkpoint(tmp_path, pair(codes(64, 128), ones(1, 2)))) as c:
        c.usable()
        assert "[64,64]" in c[NAME].evidence


@pytest.mark.parametrize("name, part", [("layers.0.up.activation_scale", "activation_scale"), ("layers.0.up.input_scale", "input_scale")])
def test_companions_stay_with_their_tensor(tmp_path, name, part):
    with files.Checkpoint(checkpoint(tmp_path, {**pair(W, ones(2, 3)), name: ones(1)}, config())) as c:
        c.usable()
        assert c[NAME].parts[part] == name and c.names() == [NAME]


# ------------------------------------------------------------------------------------------------- verify

SCALES = {
    "NaN": (np.array([[np.nan, 1, 1], [1, 1, 1]], np.float32), "error", "1 of 6 scales are NaN"),
    "infinite": (np.array([[np.inf, 1, 1], [1, 1, 1]], np.float32), "error", "1 of 6 scales are NaN or infinite"),
    "negative": (-ones(2, 3), "error", "6 of 6 scales are negative"),
    "zero": (0 * ones(2, 3), "error", "6 of 6 scales are zero"),
    "huge": (1e4 * ones(2, 3), "warning", "largest value is 4.48e\\+06"),
    "tiny": (1e-12 * ones(2, 3), "warning", "largest value is 4.48e-10"),
    "exponent NaN": (("F8_E8M0", np.full((2, 3), 255, np.uint8)), "error", "6 of 6 scales are NaN"),
}


@pytest.mark.parametrize("fault", SCALES)
def test_verify_reads_every_scale(tmp_path, fault):
    scale, severity, words = SCALES[fault]
    scale = scale if isinstance(scale, tuple) else scale.astype(np.float32)
    weight = W.copy()
    weight[0, 0] = 0x7E
    import re
    with files.Checkpoint(checkpoint(tmp_path, pair(weight, scale), config())) as c:
        c.usable()
        assert any(f.severity == severity and re.search(words, f.text) for f in c.verify()), c.verify()


def test_verify_finds_nothing_in_a_sound_tensor(tmp_path):
    with files.Checkpoint(checkpoint(tmp_path, pair(W, 1e-3 * ones(2, 3).astype(np.float32)), config())) as c:
        assert not c.verify()


def test_verify_finds_float_scales_that_are_no_powers_of_two(tmp_path):
    with files.Checkpoint(checkpoint(tmp_path, pair(W, np.float32(0.003) * ones(2, 3)), config(scale_fmt="ue8m0"))) as c:
        assert any("no powers of two" in f.text for f in c.verify())
