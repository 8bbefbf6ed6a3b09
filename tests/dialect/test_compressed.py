# SPDX-License-Identifier: Apache-2.0
"""compressed-tensors' checkpoints: what the library recorded and decompressed, every misreading refused, its own configurations."""
import copy
import json

import breccia_c as brc
import checkpoint_files as files
import golden_files
import ml_dtypes
import numpy as np
import pytest

NAME = "layers.0.up.weight"
STEM = NAME.removesuffix("weight")
BF16, F8 = ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn
CASES = ["pack2_sym", "pack3_asym", "pack3_sym", "pack4_asym", "pack4_channel_ragged", "pack4_sym", "pack5_sym", "pack6_sym", "pack8_sym",
         "int8_channel", "fp8_tensor", "fp8_channel", "fp8_block_ragged", "nvfp4", "mxfp4", "mxfp6", "mxfp8"]


def checkpoint(folder, arrays, settings=None, key="quantization_config"):
    folder.mkdir(exist_ok=True)
    if settings is not None:
        (folder / "config.json").write_text(json.dumps({key: settings}))
    return files.write(folder / "model.safetensors", arrays)


def weights(**more):
    return {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32, "dynamic": False, **more}


def settings(format="pack-quantized", targets=("Linear",), more=None, **fields):
    """A quantization_config of one group."""
    return {"quant_method": "compressed-tensors", "format": format, "quantization_status": "compressed",
            "config_groups": {"group_0": {"targets": list(targets), "weights": weights(**fields)}}, **(more or {})}


@pytest.fixture(scope="module")
def recorded(golden):
    """(arrays of a case as its file has them, its config, what the library decompresses)."""
    g = golden_files.load(golden / "compressed_tensors.safetensors")
    configs = json.loads((golden / "compressed_tensors_config.json").read_text())

    def case(tag):
        arrays = {}
        for key in g:
            if key.startswith(tag + ".") and "decompressed" not in key:
                part = key.removeprefix(tag + ".")
                eight = g[key].dtype == np.uint8 and (part == "weight" or (tag == "nvfp4" and part == "weight_scale"))
                arrays[STEM + part] = ("F8_E4M3", g[key]) if eight else g[key]
        half = f"{tag}.decompressed_bf16"
        want = g[half].view(BF16) if half in g else g[f"{tag}.decompressed"]
        return arrays, copy.deepcopy(configs[tag]), want

    return case


@pytest.mark.parametrize("tag", CASES)
def test_recorded_values(recorded, tmp_path, tag):
    arrays, config, want = recorded(tag)
    with files.Checkpoint(checkpoint(tmp_path, arrays, config)) as c:
        c.usable()
        assert not c.findings, c.findings
        entry = c[NAME]
        golden_files.same(entry.values(want.dtype), want, tag)
        assert entry.dialect == "compressed-tensors" and config["format"] in entry.evidence and "group_0" in entry.evidence
        assert set(entry.parts.values()) == set(arrays)


@pytest.mark.parametrize("tag", CASES)
def test_recorded_values_without_a_config(recorded, tmp_path, tag):
    """The arrays alone tell, but for what several systems store alike and for 8 bits (as wide as 7 in the older words)."""
    arrays, _, want = recorded(tag)
    path = checkpoint(tmp_path, arrays)
    if tag == "pack8_sym":
        with files.Checkpoint(path, "compressed-tensors") as c, pytest.raises(brc.Error, match="must say num_bits"):
            c.usable()
        return
    with files.Checkpoint(path, "compressed-tensors") as c:
        c.usable()
        golden_files.same(c[NAME].values(want.dtype), want, tag)
    with files.Checkpoint(path) as c:
        if any("packed" in name or "zero_point" in name for name in arrays):
            c.usable()


def test_the_older_name_of_the_config_and_groups_of_their_own_format(recorded, tmp_path):
    arrays, config, want = recorded("nvfp4")
    config["config_groups"]["group_0"]["format"], config["format"] = config["format"], "mixed-precision"
    with files.Checkpoint(checkpoint(tmp_path, arrays, config, "compression_config")) as c:
        c.usable()
        assert "group_0" in c[NAME].evidence
        golden_files.same(c[NAME].values(BF16), want)


# --------------------------------------------------------------------------------------------------- packing

def pack_old(values, bits, axis):
    """Words of 32 // bits whole codes, as versions before 0.18 wrote them."""
    codes = np.moveaxis(values.astype(np.int64) + (1 << (bits - 1)), axis, -1)
    per = 32 // bits
    codes = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, -codes.shape[-1] % per)])
    words = (codes.reshape(*codes.shape[:-1], -1, per) << (np.arange(per) * bits)).sum(-1)
    return np.moveaxis(words.astype(np.uint32).view(np.int32), -1, axis)


def packed(bits, shape=(24, 96), group=32, old=False, zero=False, seed=0):
    """(arrays, values): codes, scales and zero points at random, packed by the library or the old way."""
    import torch
    from compressed_tensors.compressors.pack_quantized import pack_to_int32
    r = np.random.default_rng(seed + bits)
    ends = -(1 << (bits - 1)), 1 << (bits - 1)
    q = r.integers(*ends, shape).astype(np.int8)
    z = r.integers(*ends, (*shape[:-1], shape[-1] // group)).astype(np.int8)
    s = r.random(z.shape, np.float32)
    pack = (lambda v, axis: pack_old(v, bits, axis - 2)) if old else (lambda v, axis: pack_to_int32(torch.from_numpy(v), bits, packed_dim=axis).numpy())
    arrays = {NAME + "_packed": pack(q, 1), NAME + "_scale": s, NAME + "_shape": np.array(shape, np.int64)}
    if zero:
        arrays[NAME + "_zero_point"] = pack(z, 0)
    spread = lambda t: np.repeat(t, group, -1)
    return arrays, (q.astype(np.float32) - (spread(z).astype(np.float32) if zero else 0)) * spread(s)


@pytest.mark.parametrize("zero", [False, True], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("old", [False, True], ids=["stream", "whole codes"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_both_kinds_of_words(tmp_path, bits, old, zero):
    arrays, want = packed(bits, old=old, zero=zero)
    with files.Checkpoint(checkpoint(tmp_path, arrays, settings(num_bits=bits, symmetric=not zero))) as c:
        c.usable()
        np.testing.assert_array_equal(c[NAME].values(), want)
        assert ("whole codes" in c[NAME].evidence) == (old and 32 % bits != 0)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_the_width_alone_tells_the_bits(tmp_path, bits):
    arrays, want = packed(bits)
    with files.Checkpoint(checkpoint(tmp_path, arrays), "compressed-tensors") as c:
        if bits == 8:      # as wide as 7 bits in words of 4 whole codes
            with pytest.raises(brc.Error, match="7 bits in words of whole codes, 8 bits; config.json must say num_bits"):
                c.usable()
        else:
            c.usable()
            np.testing.assert_array_equal(c[NAME].values(), want)


def test_a_width_that_fits_both_kinds_of_words_needs_the_version(tmp_path):
    """20 codes of 3 bits: two words either way, but not the same bits."""
    for version, old in (("0.19.1", False), ("0.17.3", True), (None, False)):
        arrays, want = packed(3, (4, 20), 20, old=old)
        config = settings(num_bits=3, strategy="channel", group_size=None, more={"version": version} if version else {})
        arrays[NAME + "_scale"] = arrays[NAME + "_scale"].reshape(4, 1)
        with files.Checkpoint(checkpoint(tmp_path, arrays, config)) as c:
            if version is None:
                with pytest.raises(brc.Error, match="num_bits and version"):
                    c.usable()
            else:
                c.usable()
                np.testing.assert_array_equal(c[NAME].values(), want)


def test_experts_in_three_dimensions(tmp_path):
    arrays, want = packed(4, (3, 16, 64), zero=True)
    with files.Checkpoint(checkpoint(tmp_path, arrays, settings(symmetric=False))) as c:
        c.usable()
        np.testing.assert_array_equal(c[NAME].values(), want)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zero", [False, True], ids=["symmetric", "asymmetric"])
def test_integers_one_a_byte(tmp_path, bits, zero):
    r = np.random.default_rng(2)
    ends = -(1 << (bits - 1)), 1 << (bits - 1)
    q, z = (r.integers(*ends, s).astype(np.int8) for s in ((8, 64), (8, 2)))
    s = r.random((8, 2), np.float32).astype(BF16)
    arrays = {NAME: q, NAME + "_scale": s, **({NAME + "_zero_point": z} if zero else {})}
    for format in ("int-quantized", "naive-quantized"):
        with files.Checkpoint(checkpoint(tmp_path, arrays, settings(format, num_bits=bits, symmetric=not zero))) as c:
            c.usable()
            want = (q.astype(np.float32) - (np.repeat(z, 32, 1) if zero else 0)) * np.repeat(s.astype(np.float32), 32, 1)
            np.testing.assert_array_equal(c[NAME].values(), want)


def test_a_byte_that_is_no_code_of_the_width(tmp_path):
    arrays = {NAME: np.full((8, 64), 9, np.int8), NAME + "_scale": np.ones((8, 2), np.float32)}
    with files.Checkpoint(checkpoint(tmp_path, arrays, settings("int-quantized"))) as c:
        c.usable()
        with pytest.raises(brc.Error, match="is 9, which is no 4-bit code"):
            c[NAME].tensor()


def test_the_group_of_each_column_in_older_files(tmp_path):
    arrays, _ = packed(4, (8, 64), 32, zero=True)
    plain = {**arrays, NAME + "_g_idx": np.full(64, -1, np.int32)}
    with files.Checkpoint(checkpoint(tmp_path, arrays, settings(symmetric=False))) as c:
        in_order = c[NAME].values()
    with files.Checkpoint(checkpoint(tmp_path, plain, settings(symmetric=False))) as c:
        np.testing.assert_array_equal(c[NAME].values(), in_order)
    index = np.random.default_rng(1).integers(0, 2, 64).astype(np.int32)
    q = np.stack([arrays[NAME + "_packed"].view(np.uint8) & 15, arrays[NAME + "_packed"].view(np.uint8) >> 4], -1).reshape(8, 64).astype(np.float32)
    z = np.stack([(arrays[NAME + "_zero_point"].view(np.uint32) >> (4 * i)) & 15 for i in range(8)], 1).reshape(8, 2).astype(np.float32)
    want = (q - z[:, index]) * arrays[NAME + "_scale"][:, index]
    with files.Checkpoint(checkpoint(tmp_path, {**arrays, NAME + "_g_idx": index}, settings(symmetric=False, actorder="group"))) as c:
        c.usable()
        np.testing.assert_array_equal(c[NAME].values(), want)
    index[5] = 2
    with files.Checkpoint(checkpoint(tmp_path, {**arrays, NAME + "_g_idx": index}, settings(symmetric=False))) as c:
        with pytest.raises(brc.Error, match=r"group_index\[5\] is 2"):
            c[NAME].tensor()


# ------------------------------------------------------------------------------------------------ misreadings

def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def fp8(scale, **more):
    return {NAME: ("F8_E4M3", np.full((140, 256), 0x30, np.uint8)), NAME + "_scale": scale, **more}


def nvfp4(**more):
    return {NAME + "_packed": np.zeros((8, 32), np.uint8), NAME + "_scale": ones(8, 4, dtype=F8), NAME + "_global_scale": ones(1), **more}


def without(arrays, *ends):
    return {k: v for k, v in arrays.items() if not k.endswith(ends)}


BLOCKS = dict(format="float-quantized", num_bits=8, type="float", strategy="block", group_size=None, block_structure=[128, 128])
CHANNEL = dict(format="float-quantized", num_bits=8, type="float", strategy="channel", group_size=None)
TENSOR = dict(format="float-quantized", num_bits=8, type="float", strategy="tensor", group_size=None)
NV = dict(format="nvfp4-pack-quantized", type="float", strategy="tensor_group", group_size=16)
MX8 = dict(format="mxfp8-quantized", type="float", num_bits=8, group_size=32, scale_dtype="torch.uint8")
P4 = packed(4)[0]
P4A = packed(4, zero=True)[0]
MISREADINGS = {      # arrays, configuration -> status, words
    "scale missing": (without(P4, "_scale"), settings(), "MALFORMED", "weight_scale is missing"),
    "scale missing, fp8": (without(fp8(0), "_scale"), settings(**CHANNEL), "MALFORMED", "scale"),
    "scale missing, int8": ({NAME: np.zeros((8, 64), np.int8)}, settings("int-quantized", num_bits=8), "MALFORMED", "weight_scale is missing"),
    "shape missing": (without(P4, "_shape"), settings(), "MALFORMED", "weight_shape is missing"),
    "zero point missing": (P4, settings(symmetric=False), "MALFORMED", "weight_zero_point is missing"),
    "zero point that the config denies": (P4A, settings(), "AMBIGUOUS", "group_0 says symmetric true.*zero_point"),
    "zero point of another packing": ({**P4A, NAME + "_zero_point": np.zeros((24, 1), np.int32)}, settings(symmetric=False), "SHAPE", "zero_point"),
    "global scale missing": (without(nvfp4(), "_global_scale"), settings(**NV), "MALFORMED", "weight_global_scale is missing"),
    "global scale of another system": ({**without(nvfp4(), "_global_scale"), NAME + "_scale_2": np.float32(1)}, settings(**NV), "MALFORMED|AMBIGUOUS",
                                       "global_scale"),
    "global scale where none belongs": ({**P4, NAME + "_global_scale": ones(1)}, settings(), "MALFORMED", "has no place in pack-quantized"),
    "global scales, several": (nvfp4(**{NAME + "_global_scale": ones(2)}), settings(**NV), "SHAPE", "must be one F32"),
    "scale transposed, groups": ({**P4, NAME + "_scale": ones(3, 24)}, settings(), "SHAPE", r"transposed.*\[3,24\]"),
    "scale transposed, no config": ({**P4, NAME + "_scale": ones(3, 24)}, None, "SHAPE", r"transposed.*\[3,24\]"),
    "scale transposed, rows": (fp8(ones(1, 140)), settings(**CHANNEL), "SHAPE", "transposed"),
    "scale flat": (fp8(ones(140)), settings(**CHANNEL), "SHAPE", r"\[140\]"),
    "scale of another tensor": ({**P4, NAME + "_scale": ones(30, 3)}, settings(), "SHAPE", "does not belong"),
    "scale of another tensor, blocks": (fp8(ones(3, 9)), settings(**BLOCKS), "SHAPE", "does not belong"),
    "wrong group in the config": (P4, settings(group_size=16), "AMBIGUOUS", "32 columns|1x32.*group_0"),
    "wrong strategy in the config": (P4, settings(strategy="channel", group_size=None), "AMBIGUOUS", "group_0"),
    "wrong block in the config": (fp8(ones(2, 2)), settings(**{**BLOCKS, "block_structure": [64, 64]}), "AMBIGUOUS", "128x128.*64x64"),
    "config says tensor, rows are there": (fp8(ones(140, 1)), settings(**TENSOR), "AMBIGUOUS", "row.*tensor"),
    "config says rows, one is there": (fp8(ones(1)), settings(**CHANNEL), "AMBIGUOUS", "tensor.*row"),
    "wrong bits in the config": (P4, settings(num_bits=8), "AMBIGUOUS", "num_bits 8"),
    "float in the config, integers in the file": (P4, settings(type="float"), "AMBIGUOUS", "type float"),
    "another format in the config": (P4, settings("nvfp4-pack-quantized"), "AMBIGUOUS", "format nvfp4-pack-quantized"),
    "a format that is not read": (P4, settings("marlin-24"), "AMBIGUOUS", "format marlin-24"),
    "shape that contradicts the words, rows": ({**P4, NAME + "_shape": np.array([25, 96], np.int64)}, settings(), "SHAPE", "weight_shape says 25"),
    "shape that contradicts the words, columns": ({**P4, NAME + "_shape": np.array([24, 128], np.int64)}, settings(), "AMBIGUOUS", "num_bits 4"),
    "shape of three sides": ({**P4, NAME + "_shape": np.array([1, 24, 96], np.int64)}, settings(), "MALFORMED", "weight_shape"),
    "shape of nonsense": ({**P4, NAME + "_shape": np.array([24, -96], np.int64)}, settings(), "SHAPE", "says -96"),
    "width that is none": ({**P4, NAME + "_packed": np.zeros((24, 13), np.int32)}, None, "SHAPE", "no width for 96 columns"),
    "exponents as numbers": (fp8(np.ones((140, 8), np.uint8)), settings(**{**CHANNEL, "strategy": "group", "group_size": 32}), "AMBIGUOUS",
                             "format float-quantized"),
    "numbers as exponents": (fp8(ones(140, 8)), settings(**MX8), "AMBIGUOUS", "format mxfp8-quantized"),
    "exponents of another block": (fp8(np.full((140, 4), 127, np.uint8)), settings(**MX8), "AMBIGUOUS", "1x64.*1x32|64 columns.*32 columns"),
    "words that are bytes": ({**P4, NAME + "_packed": np.zeros((24, 48), np.uint8)}, settings(), "FORMAT", "no format of compressed-tensors"),
    "scale of integers": ({**P4, NAME + "_scale": np.ones((24, 3), np.int32)}, settings(), "FORMAT", "no format"),
    "scale in F64": ({**P4, NAME + "_scale": np.ones((24, 3))}, settings(), "FORMAT", "no format"),
    "group index of another length": ({**P4, NAME + "_g_idx": np.zeros(95, np.int32)}, settings(), "SHAPE", "g_idx"),
    "weight twice": ({**P4, NAME: ("F8_E4M3", np.zeros((24, 96), np.uint8))}, settings(), "MALFORMED", "scale"),
    "orphan scale": ({NAME + "_scale": ones(24, 3)}, settings(), "MALFORMED", "whose weight is missing"),
    "orphan shape": ({NAME + "_shape": np.array([24, 96])}, settings(), "MALFORMED", "whose weight is missing"),
    "odd bytes of six bits": ({NAME + "_packed": np.zeros((8, 25), np.uint8), NAME + "_scale": np.full((8, 1), 127, np.uint8)},
                              settings("mxfp6-pack-quantized", type="float", num_bits=6), "AMBIGUOUS|SHAPE", "packed"),
    "config of another system": (P4, {"quant_method": "gptq"}, "AMBIGUOUS", "gptq"),
    "two scales, two systems": (fp8(ones(2, 2), **{NAME + "_scale_inv": ones(2, 2)}), None, "AMBIGUOUS", "two readings fit"),
}


@pytest.mark.parametrize("misreading", MISREADINGS)
def test_no_misreading_passes(tmp_path, misreading):
    arrays, config, status, words = MISREADINGS[misreading]
    with files.Checkpoint(checkpoint(tmp_path / "in", arrays, config)) as c:
        with pytest.raises(brc.Error, match=words) as stopped:
            c.usable()
        assert stopped.value.name in status.split("|"), stopped.value
        assert any(f.tensor.startswith(NAME) and f.severity in ("error", "ambiguity") for f in c.verify())
    for convert in (files.dequantize, lambda a, b: files.quantize(a, b, "fp8")):
        with pytest.raises(brc.Error):
            convert(tmp_path / "in", tmp_path / "out.safetensors")
        assert not (tmp_path / "out.safetensors").exists()


# ---------------------------------------------------------------------------------------------------- writing

RECIPES = {"pack4_asym": "int4:group=32,scale=f32,rule=minmax", "pack3_asym": "int4:format=int3,group=32,scale=f32,rule=minmax",
           "pack4_channel_ragged": "int4:block=row,scale=f32", "int8_channel": "int8", "fp8_tensor": "fp8:arith=ct",
           "fp8_channel": "fp8-row:arith=ct", "nvfp4": "nvfp4:arith=ct", "mxfp4": "mxfp4:rule=even,arith=ct",
           "mxfp6": "mxfp6-e2m3:rule=even,arith=ct", "mxfp8": "mxfp8:rule=even,arith=ct",
           **{f"pack{b}_sym": f"int4:format=int{b},group=32,scale=f32" for b in (2, 3, 4, 5, 6, 8)}}
BY_CHOICE = ("dynamic", "observer", "group_size", "zp_dtype")        # what the library leaves out, or writes as null


def quantized(folder, arrays, recipe, include=(NAME,)):
    """(arrays, quantization_config) of the weights under a recipe, written as compressed-tensors."""
    source = folder / "dense"
    source.mkdir(parents=True)
    files.write(source / "model.safetensors", arrays)
    files.quantize(source, folder / "out", recipe, "compressed-tensors", include=include)
    return files.read(folder / "out" / "model.safetensors")[0], json.loads((folder / "out" / "config.json").read_text())["quantization_config"]


@pytest.mark.parametrize("tag", RECIPES)
def test_recorded_bytes_are_written(golden, recorded, tmp_path, tag):
    want, config, _ = recorded(tag)
    w = golden_files.load(golden / "compressed_tensors.safetensors")["w"]
    got, written = quantized(tmp_path, {NAME: w[:7, :37] if "ragged" in tag else w}, RECIPES[tag])
    assert set(got) == set(want)
    for name, array in want.items():
        word, data = array if isinstance(array, tuple) else (files.WORD[array.dtype], array)
        assert got[name][0] == word and got[name][1].shape == data.shape, name
        golden_files.same(got[name][1].view(np.uint8), data.view(np.uint8), name)
    assert written["format"] == config["format"] and written["quantization_status"] == "compressed" and written["ignore"] == ["lm_head"]
    (group,), (recorded_group,) = written["config_groups"].values(), config["config_groups"].values()
    assert group["targets"] == ["Linear"] and group["format"] == config["format"]
    a, b = ({k: v for k, v in g["weights"].items() if k not in BY_CHOICE} for g in (group, recorded_group))
    assert a == b and group["weights"]["group_size"] == recorded_group["weights"]["group_size"]


def scheme_of(config, group="group_0"):
    from compressed_tensors.quantization import QuantizationConfig
    return QuantizationConfig.model_validate(config).config_groups[group]


def decompressed(arrays, config, name=NAME, group="group_0"):
    """The weight as the library reads the arrays of a module by their configuration."""
    import torch
    from compressed_tensors.compressors import BaseCompressor
    scheme = scheme_of(config, group)
    state = {}
    for key, (word, array) in arrays.items():
        if key.startswith(name):
            t = torch.from_numpy(np.ascontiguousarray(array).view({1: np.uint8, 2: np.int16}.get(array.itemsize, array.dtype)).copy())
            state["weight" + key.removeprefix(name)] = t.view({"F8_E4M3": torch.float8_e4m3fn, "BF16": torch.bfloat16, "F16": torch.float16,
                                                              "I8": torch.int8}.get(word, t.dtype))
    w = BaseCompressor.get_value_from_registry(scheme.format).decompress(state, scheme)["weight"]
    return w.view(torch.int16).numpy().view(BF16) if w.dtype == torch.bfloat16 else w.numpy()


@pytest.mark.parametrize("recipe", [*RECIPES.values(), "fp8-block128", "fp8-block128:block=32x64", "fp8-block", "int4:group=64,scale=bf16", "int4:group=64",
                                    "int8:group=32,scale=bf16,rule=minmax", "int8:block=tensor", "int8:rule=minmax", "int4:format=int7,group=16,scale=f32",
                                    "int4:format=uint4,group=32,scale=f32,rule=minmax", "nvfp4:arith=ct,levels=1", "fp8-row:scale=bf16"])
def test_the_library_reads_what_is_written(tmp_path, recipe):
    w = np.random.default_rng(8).standard_normal((96, 256)).astype(np.float32)
    arrays, config = quantized(tmp_path, {NAME: w, "norm.weight": w[0]}, recipe)
    theirs = decompressed(arrays, config)
    with files.Checkpoint(tmp_path / "out") as c:
        c.usable()
        assert not c.findings
        golden_files.same(theirs, c[NAME].values(theirs.dtype), recipe)
    assert np.corrcoef(theirs.astype(np.float32).ravel(), w.ravel())[0, 1] > 0.8


def test_blocks_that_the_library_pads(tmp_path):
    w = np.random.default_rng(8).standard_normal((150, 200)).astype(np.float32)
    arrays, config = quantized(tmp_path, {NAME: w}, "fp8-block128")
    assert config["config_groups"]["group_0"]["weights"]["block_structure"] == [128, 128]
    with files.Checkpoint(tmp_path / "out") as c:
        golden_files.same(decompressed(arrays, config), c[NAME].values())


@pytest.mark.parametrize("recipe", ["fp8", "fp8-row:format=e5m2", "mxfp6-e3m2", "mxfp8:block=1x64", "nvfp4", "int4:group=64,scale=e8m0,rule=amax", "mxint8"])
def test_what_it_has_no_place_for(tmp_path, recipe):
    w = np.ones((4, 128), np.float32)
    if recipe == "fp8":      # one scale a tensor, whatever arithmetic made it
        quantized(tmp_path, {NAME: w}, recipe)
        return
    with pytest.raises(brc.Error, match="compressed-tensors stores"):
        quantized(tmp_path, {NAME: w}, recipe)
    assert not (tmp_path / "out").exists()


# ----------------------------------------------------------------------------------------------- transformers

@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A Llama of two layers, made here, saved by transformers."""
    import torch
    import transformers
    torch.manual_seed(0)
    shape = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=96)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, tie_word_embeddings=True, torch_dtype="float32"))
    path = tmp_path_factory.mktemp("llama")
    model.save_pretrained(path)
    return path


@pytest.mark.parametrize("recipe", ["fp8-row", "fp8:arith=ct", "fp8-block128", "int4:group=32,scale=f32", "int4:group=32,scale=f32,rule=minmax", "int8",
                                    "nvfp4:arith=ct", "mxfp4:rule=even,arith=ct", "mxfp6-e2m3:rule=even,arith=ct", "mxfp8:rule=even,arith=ct"])
def test_transformers_opens_a_model(llama, tmp_path, recipe):
    """The model that its loader makes of the result has the weights that breccia reads, and runs."""
    import torch
    import transformers
    files.quantize(llama, tmp_path / "out", recipe, "compressed-tensors")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", quantization_config=transformers.CompressedTensorsConfig(dequantize=True), dtype=torch.float32)
    state = loaded.state_dict()
    seen = 0
    with files.Checkpoint(tmp_path / "out") as c:
        for name in c.names():
            if c[name].scaled:
                seen += 1
                # 4- and 6-bit codes and exponents decode in BF16 there
                want = c[name].values(BF16).astype(np.float32) if "fp4" in recipe or recipe.startswith("mx") else c[name].values()
                np.testing.assert_array_equal(state[name].float().numpy(), want, err_msg=name)
    assert seen == 14
    with torch.no_grad():
        assert torch.isfinite(loaded(torch.arange(8)[None]).logits).all()


# ------------------------------------------------------------------------------------------------ there and back

@pytest.mark.parametrize("tag", CASES)
def test_recorded_files_are_written_back_the_same(recorded, tmp_path, tag):
    """With what the file says of itself, and from the values alone."""
    arrays, config, _ = recorded(tag)
    arrays |= {STEM + "input_scale": np.ones(1, np.float32)} if tag == "fp8_tensor" else {}
    source = tmp_path / "in"
    checkpoint(source, arrays, config)
    assert files.convert(source, tmp_path / "out", "compressed-tensors")[NAME][0] == "bit-exact"
    before, after = (files.read(tmp_path / f / "model.safetensors")[0] for f in ("in", "out"))
    files.same_arrays(before, after)
    assert (tmp_path / "out" / "config.json").read_bytes() == (source / "config.json").read_bytes()
    alone, again = files.stored_again(source, tmp_path / "again")
    files.same_arrays({n: a for n, a in alone.items() if not n.endswith("input_scale")}, again)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_packed_words_are_written_back_the_same(tmp_path, bits, old, zero):
    arrays, want = packed(bits, old=old, zero=zero)
    arrays["other.weight_packed"], arrays["other.weight_scale"], arrays["other.weight_shape"] = (packed(bits, old=old)[0][NAME + e] for e in ("_packed", "_scale", "_shape"))
    arrays = {k: v for k, v in arrays.items() if not k.startswith("other")} if zero else arrays
    checkpoint(tmp_path / "in", arrays, settings(num_bits=bits, symmetric=not zero))
    files.convert(tmp_path / "in", tmp_path / "out", "compressed-tensors")
    files.same_arrays(*(files.read(tmp_path / f / "model.safetensors")[0] for f in ("in", "out")))
    alone, again = files.stored_again(tmp_path / "in", tmp_path / "again")
    with files.Checkpoint(tmp_path / "again") as c:            # today's words, whatever the source's
        np.testing.assert_array_equal(c[NAME].values(), want)
    if not old or 32 % bits == 0:
        files.same_arrays(alone, again)


def test_the_order_of_groups_is_written_back(tmp_path):
    arrays, _ = packed(4, (8, 64), 32, zero=True)
    arrays[NAME + "_g_idx"] = np.random.default_rng(1).integers(0, 2, 64).astype(np.int32)
    checkpoint(tmp_path / "in", arrays, settings(symmetric=False, actorder="group"))
    files.same_arrays(*files.stored_again(tmp_path / "in", tmp_path / "again"))
    config = json.loads((tmp_path / "again" / "config.json").read_text())["quantization_config"]
    assert config["config_groups"]["group_0"]["weights"]["actorder"] == "group"


# ------------------------------------------------------------------------------------------------ configurations

def test_tensors_of_several_kinds_get_a_group_each(tmp_path):
    """The largest targets Linear, the others their names; and the library finds each module's."""
    from compressed_tensors.quantization import QuantizationConfig
    w = np.random.default_rng(8).standard_normal((64, 128)).astype(np.float32)
    made = {"a.weight": "int8", "b.weight": "int8", "c.weight": "nvfp4:arith=ct", "d.weight": "fp8-block128:partial=1", "e.weight": "int4:group=32,scale=f32,rule=minmax"}
    tensors = {name: brc.cast(w, recipe) for name, recipe in made.items()}
    files.save(tmp_path / "out", "compressed-tensors", {**tensors, "norm.weight": w[0], "embed.weight": w})
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    arrays = files.read(tmp_path / "out" / "model.safetensors")[0]
    assert config["format"] == "mixed-precision" and set(config["ignore"]) == {"embed", "lm_head"}
    groups = QuantizationConfig.model_validate(config).config_groups
    by_target = {target: name for name, group in groups.items() for target in group.targets}
    assert set(by_target) == {"Linear", "c", "d", "e"}
    with files.Checkpoint(tmp_path / "out") as c:
        c.usable()
        for name in made:
            group = by_target.get(name[0], by_target["Linear"])
            theirs = decompressed(arrays, config, name, group)
            golden_files.same(theirs, c[name].values(theirs.dtype), name)
            assert group in c[name].evidence


def test_what_the_source_says_beyond_the_weights_stays(tmp_path):
    """A tensor changes, so that the configuration is made anew: the scheme of the cache and unchanged groups are kept."""
    four, _ = packed(4)
    other = {k.replace("up", "down"): v for k, v in fp8(ones(140, 1)).items()}
    cache = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False, "symmetric": True}
    config = settings("mixed-precision", more={"kv_cache_scheme": cache})
    inputs = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True, "symmetric": True}
    config["config_groups"] = {
        "ints": {"targets": ["re:.*up$"], "weights": weights(), "format": "pack-quantized"},
        "floats": {"targets": ["re:.*\\.(?:down|o)$"], "weights": weights(num_bits=8, type="float", strategy="channel", group_size=None),
                   "input_activations": inputs, "format": "float-quantized"}}
    checkpoint(tmp_path / "in", {**four, **other, "layers.0.attn.k_scale": ones(1)}, config)
    with files.Checkpoint(tmp_path / "in") as c:
        c.usable()
        assert "ints" in c[NAME].evidence and "floats" in c["layers.0.down.weight"].evidence
        assert [(f.severity, f.tensor) for f in c.findings] == [("note", "layers.0.attn.k_scale")]
    found = files.convert(tmp_path / "in", tmp_path / "out", "compressed-tensors", ["int8"], include=[NAME])
    assert found["layers.0.down.weight"][0] == "bit-exact" and found["layers.0.attn.k_scale"][0] == "bit-exact"
    made = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert made["kv_cache_scheme"] == cache and "layers.0.attn.k_scale" in files.read(tmp_path / "out" / "model.safetensors")[0]
    by_format = {g["format"]: g for g in made["config_groups"].values()}
    assert set(by_format) == {"int-quantized", "float-quantized"} and by_format["float-quantized"]["input_activations"] == inputs


@pytest.mark.parametrize("targets, said", [(["re:.*up"], True), (["re:up"], False), (["re:layers\\.\\d+\\.(up|gate)$"], True), (["layers.0.up"], True),
                                           (["re:(?!layers).*"], False), (["layers.1.up"], False)])
def test_targets(tmp_path, targets, said):
    """Two groups, so that only a match decides; a pattern that is not known matches nothing, and the arrays decide."""
    arrays, want = packed(4)
    config = settings(targets=targets)
    config["config_groups"]["other"] = {"targets": ["layers.9.down"], "weights": weights(num_bits=8)}
    with files.Checkpoint(checkpoint(tmp_path, arrays, config)) as c:
        c.usable()
        assert ("group_0" in c[NAME].evidence) == said
        np.testing.assert_array_equal(c[NAME].values(), want)


@pytest.mark.parametrize("more, words", [({"ignore": ["re:.*up"]}, "says to ignore"), ({"transform_config": {"config_groups": {"u": {}}}}, "rotated basis"),
                                         ({"config_groups": {"W4A16": ["Linear"]}}, "does not say how weights are quantized")])
def test_what_a_reader_should_know(tmp_path, more, words):
    with files.Checkpoint(checkpoint(tmp_path, P4, {**settings(), **more})) as c:
        c.usable()
        assert [f.severity for f in c.findings] == ["warning"] and words in c.findings[0].text


@pytest.mark.parametrize("key, value", [("num_bits", 99), ("num_bits", -4), ("num_bits", "4"), ("group_size", 2**40), ("group_size", -7), ("strategy", "diagonal"),
                                        ("strategy", 3), ("block_structure", "128x"), ("symmetric", "yes"), ("type", None), ("targets", 5), ("config_groups", [1])])
def test_nonsense_in_the_config_is_survived(tmp_path, key, value):
    """Said or refused, never a crash; what is read has the right values."""
    config = settings(**({key: value} if key not in ("targets", "config_groups") else {}))
    if key == "targets":
        config["config_groups"]["group_0"]["targets"] = value
    elif key == "config_groups":
        config[key] = value
    arrays, want = packed(4)
    with files.Checkpoint(checkpoint(tmp_path, arrays, config)) as c:
        try:
            c.usable()
        except brc.Error:
            return
        np.testing.assert_array_equal(c[NAME].values(), want)
