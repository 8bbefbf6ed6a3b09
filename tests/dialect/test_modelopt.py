# SPDX-License-Identifier: Apache-2.0
"""ModelOpt's checkpoints: its own quantizers' arrays and configurations, there and back; every misreading refused."""
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


def checkpoint(folder, arrays, algo=None, beside=False, **more):
    """quant_algo in config.json, or in hf_quant_config.json beside it."""
    folder.mkdir(exist_ok=True)
    if algo is not None and beside:
        text = {"producer": {"name": "modelopt", "version": "0.47.0"}, "quantization": {"quant_algo": algo, "kv_cache_quant_algo": None, **more}}
        (folder / "hf_quant_config.json").write_text(json.dumps(text))
    elif algo is not None:
        (folder / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "modelopt", "quant_algo": algo, **more}}))
    return files.write(folder / "model.safetensors", arrays)


def numbers(rows=32, cols=256):
    return np.random.default_rng(4).standard_normal((rows, cols)).astype(np.float32)


def spread(table, shape):
    for axis, n in enumerate(shape):
        table = np.repeat(table, -(-n // table.shape[axis]), axis)
    return table[tuple(slice(n) for n in shape)]


def codes(x, scale):
    return (x / spread(scale, x.shape)).astype(F8)


def fp8(scale, x=None, shape=None):
    """Codes under scales of a plain shape, which are stored in another."""
    x = numbers() if x is None else x
    q = codes(x, scale)
    return {NAME: q, NAME + "_scale": scale.reshape(scale.shape if shape is None else shape)}, q.astype(np.float32) * spread(scale, x.shape)


def nvfp4():
    import torch
    from modelopt.torch.quantization.qtensor import NVFP4QTensor
    q, s, g = NVFP4QTensor.quantize(torch.from_numpy(numbers()), 16)
    want = q.dequantize(torch.float32, scale=s, double_scale=g, block_sizes={-1: 16}).numpy()
    return {NAME: q._quantized_data.numpy(), NAME + "_scale": ("F8_E4M3", s.view(torch.uint8).numpy()), NAME + "_scale_2": g.numpy()}, want


def mx(kind):
    import torch
    import modelopt.torch.quantization.qtensor as qtensor
    x = torch.from_numpy(numbers())
    q, s = getattr(qtensor, kind).quantize(x, *((32,) if kind == "MXFP4QTensor" else ()))
    s = s.reshape(32, -1)
    want = q.dequantize(torch.float32, scale=s, block_sizes={-1: 32}).numpy()
    data = q._quantized_data.view(torch.uint8).numpy()
    return {NAME: ("F8_E4M3", data) if kind == "MXFP8QTensor" else data, NAME + "_scale": s.numpy()}, want


def int4(dtype=np.float32):
    import torch
    from modelopt.torch.export.quant_utils import pack_int4_in_uint8
    x = numbers()
    scale = (np.abs(x).reshape(32, -1, 64).max(-1) / 7).astype(dtype).astype(np.float32)
    q = np.clip(np.rint(x / spread(scale, x.shape)), -8, 7)
    packed = pack_int4_in_uint8(torch.from_numpy(x), torch.from_numpy(scale), 64).numpy()
    return {NAME: packed, NAME + "_scale": scale.astype(dtype)}, q * spread(scale, x.shape)


def int8():
    x = numbers()
    scale = np.abs(x).max(1) / np.float32(127)
    q = np.clip(np.rint(x / scale[:, None]), -128, 127).astype(np.int8)
    return {NAME: q, NAME + "_scale": scale}, q.astype(np.float32) * scale[:, None]


def rows(x=None):
    x = numbers() if x is None else x
    return np.abs(x).max(1, keepdims=True) / np.float32(448)


def blocks(x):
    return np.abs(x).reshape(x.shape[0] // 128, 128, x.shape[1] // 128, 128).max((1, 3)) / np.float32(448)


SQUARE = numbers(256, 384)
CASES = {     # quant_algo and what goes with it -> arrays, values
    "FP8": ("FP8", {}, lambda: fp8(np.full((1, 1), 0.01, np.float32), shape=())),
    "FP8_PER_CHANNEL_PER_TOKEN": ("FP8_PER_CHANNEL_PER_TOKEN", {}, lambda: fp8(rows(), shape=(32,))),
    "fp8_pb_wo": ("fp8_pb_wo", {}, lambda: fp8(blocks(SQUARE), SQUARE, (2, 1, 3, 1))),
    "fp8_pb_wo, flat": ("fp8_pb_wo", {}, lambda: fp8(blocks(SQUARE), SQUARE)),
    "NVFP4": ("NVFP4", {"group_size": 16}, nvfp4), "MXFP8": ("MXFP8", {"group_size": 32}, lambda: mx("MXFP8QTensor")),
    "mxfp4": ("mxfp4", {}, lambda: mx("MXFP4QTensor")), "W4A16_AWQ": ("W4A16_AWQ", {"group_size": 64}, int4),
    "W4A16_AWQ, bf16": ("W4A16_AWQ", {"group_size": 64}, lambda: int4(BF16)), "W8A16": ("W8A16", {}, int8)}


@pytest.mark.parametrize("beside", [False, True], ids=["config.json", "hf_quant_config.json"])
@pytest.mark.parametrize("case", CASES)
def test_values(tmp_path, case, beside):
    algo, more, make = CASES[case]
    arrays, want = make()
    with files.Checkpoint(checkpoint(tmp_path, arrays, algo, beside, **more)) as c:
        c.usable()
        assert not c.findings, c.findings
        np.testing.assert_array_equal(c[NAME].values(), want)
        assert c[NAME].dialect == "modelopt" and f"quant_algo says: {algo}" in c[NAME].evidence and set(c[NAME].parts.values()) == set(arrays)
    # the arrays alone, when asked
    with files.Checkpoint(files.write(tmp_path / "alone.safetensors", arrays), "modelopt") as c:
        c.usable()
        np.testing.assert_array_equal(c[NAME].values(), want)


@pytest.mark.parametrize("case", CASES)
def test_written_back_the_same(tmp_path, case):
    """With what the source says, and from the values alone (but for a shape of scales that others do not write)."""
    algo, more, make = CASES[case]
    arrays, _ = make()
    checkpoint(tmp_path / "in", arrays, algo, **more)
    assert files.convert(tmp_path / "in", tmp_path / "out", "modelopt")[NAME][0] == "bit-exact"
    files.same_arrays(files.read(tmp_path / "in" / "model.safetensors")[0], files.read(tmp_path / "out" / "model.safetensors")[0])
    assert (tmp_path / "out" / "config.json").read_bytes() == (tmp_path / "in" / "config.json").read_bytes()
    if "flat" not in case:
        files.stored_again(tmp_path / "in", tmp_path / "again")
        files.same_arrays(files.read(tmp_path / "in" / "model.safetensors")[0], files.read(tmp_path / "again" / "model.safetensors")[0])


def test_a_second_scale_of_int4_is_no_factor(tmp_path):
    """W4A8_AWQ: weight_scale_2 is the scale of FP8 numbers within a kernel."""
    arrays, want = int4()
    arrays |= {NAME + "_scale_2": np.float32(0.25), STEM + "pre_quant_scale": np.ones(256, BF16), STEM + "input_scale": np.float32(0.5)}
    with files.Checkpoint(checkpoint(tmp_path, arrays, "W4A8_AWQ", group_size=64)) as c:
        c.usable()
        np.testing.assert_array_equal(c[NAME].values(), want)
        assert c[NAME].parts == {"data": NAME, "scale": NAME + "_scale", "inner_scale": NAME + "_scale_2", "input_scale": STEM + "input_scale",
                                 "pre_quant_scale": STEM + "pre_quant_scale"}


def test_stacks_of_experts(tmp_path):
    x = numbers(48, 64).reshape(3, 16, 64)
    scale = np.array([0.01, 0.02, 0.03], np.float32)
    q = (x / scale[:, None, None]).astype(F8)
    with files.Checkpoint(checkpoint(tmp_path, {NAME: q, NAME + "_scale": scale}, "FP8")) as c:
        c.usable()
        np.testing.assert_array_equal(c[NAME].values(), q.astype(np.float32) * scale[:, None, None])


def test_mixed_precision(tmp_path):
    eight, want8 = fp8(rows(), shape=(32,))
    four, want4 = nvfp4()
    other = {k.replace("up", "down"): v for k, v in four.items()}
    layers = {"layers.0.up": {"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"}, "layers.0.down": {"quant_algo": "NVFP4", "group_size": 16}}
    checkpoint(tmp_path / "in", {**eight, **other}, "MIXED_PRECISION", quantized_layers=layers)
    with files.Checkpoint(tmp_path / "in") as c:
        c.usable()
        np.testing.assert_array_equal(c[NAME].values(), want8)
        np.testing.assert_array_equal(c["layers.0.down.weight"].values(), want4)
    files.convert(tmp_path / "in", tmp_path / "ct", "compressed-tensors")
    files.convert(tmp_path / "ct", tmp_path / "out", "modelopt")
    layers["layers.0.down"]["quant_algo"] = "W4A16_NVFP4"        # there is no input_scale
    assert json.loads((tmp_path / "out" / "hf_quant_config.json").read_text())["quantization"]["quantized_layers"] == layers
    layers["layers.0.down"]["quant_algo"] = "FP8"
    checkpoint(tmp_path / "in", {**eight, **other}, "MIXED_PRECISION", quantized_layers=layers)
    with files.Checkpoint(tmp_path / "in") as c, pytest.raises(brc.Error, match="quant_algo FP8, but"):
        c.usable()


# ------------------------------------------------------------------------------------------------ configuration

def test_both_texts_agree_by_modelopts_own_rule(tmp_path):
    """convert_hf_quant_config_format makes config.json's form of the other file."""
    from modelopt.torch.export.convert_hf_config import convert_hf_quant_config_format
    four, _ = nvfp4()
    eight, _ = fp8(np.full((1, 1), 0.01, np.float32), shape=())
    scaled = {STEM + "input_scale": np.float32(0.5)}
    down = lambda arrays: {k.replace("up", "down"): v for k, v in arrays.items()}
    embed = {"embed.weight": np.ones((8, 8), np.float32)}
    for i, arrays in enumerate(({**four, **scaled, **embed}, {**eight, **scaled}, {**four, **scaled, **down({**eight, **scaled})})):
        checkpoint(tmp_path / f"in{i}", arrays, "NVFP4" if i != 1 else "FP8") if i < 2 else files.write(
            (tmp_path / "in2").mkdir() or tmp_path / "in2" / "model.safetensors", arrays)
        files.convert(tmp_path / f"in{i}", tmp_path / f"ct{i}", "compressed-tensors", read_as="modelopt")
        files.convert(tmp_path / f"ct{i}", tmp_path / f"out{i}", "modelopt")
        member = json.loads((tmp_path / f"out{i}" / "config.json").read_text())["quantization_config"]
        theirs = convert_hf_quant_config_format(json.loads((tmp_path / f"out{i}" / "hf_quant_config.json").read_text()))
        order = lambda groups: sorted(json.dumps(g, sort_keys=True) for g in groups.values())
        assert order(member.pop("config_groups")) == order(theirs.pop("config_groups")) and member == theirs
        assert "lm_head" in member["ignore"] and ("embed" in member["ignore"]) == (i == 0)


@pytest.mark.parametrize("recipe, algo", [("fp8:arith=div", "FP8"), ("fp8-row", "FP8_PER_CHANNEL_PER_TOKEN"), ("fp8-block128", "fp8_pb_wo"), ("mxfp8", "MXFP8"),
                                          ("nvfp4:arith=modelopt", "W4A16_NVFP4"), ("mxfp4:arith=modelopt", "mxfp4"), ("int8:arith=modelopt", "W8A16"),
                                          ("int4:arith=modelopt,scale=f32", "W4A16_AWQ"), ("nvfp4:levels=1", "W4A16_NVFP4")])
def test_quantized_to_modelopt(tmp_path, recipe, algo):
    (tmp_path / "in").mkdir()
    files.write(tmp_path / "in" / "model.safetensors", {NAME: SQUARE, "norm.weight": SQUARE[0]})
    files.quantize(tmp_path / "in", tmp_path / "out", recipe, "modelopt")
    with files.Checkpoint(tmp_path / "out") as c:
        c.usable()
        assert not c.findings and f"quant_algo says: {algo}" in c[NAME].evidence
        assert np.corrcoef(c[NAME].values().ravel(), SQUARE.ravel())[0, 1] > 0.98


def test_scales_of_a_cache_are_named_and_kept(tmp_path):
    arrays, _ = fp8(np.full((1, 1), 0.01, np.float32), shape=())
    arrays |= {"layers.0.attn.k_proj.k_scale": np.float32(0.5), "layers.0.attn.v_proj.v_scale": np.float32(0.25)}
    checkpoint(tmp_path / "in", arrays, "FP8", kv_cache_scheme={"dynamic": False, "num_bits": 8, "type": "float"})
    with files.Checkpoint(tmp_path / "in") as c:
        c.usable()
        assert [f.severity for f in c.findings] == ["note", "note"] and all("key/value cache" in f.text for f in c.findings)
    for dialect in ("modelopt", "compressed-tensors"):
        files.convert(tmp_path / "in", tmp_path / dialect, dialect)
        kept = files.read(tmp_path / dialect / "model.safetensors")[0]
        assert all(kept[n][1] == arrays[n] for n in arrays if n.endswith(("k_scale", "v_scale")))
    files.convert(tmp_path / "in", tmp_path / "rows", "modelopt", ["fp8-row"])          # the weights change, the cache does not
    beside = json.loads((tmp_path / "rows" / "hf_quant_config.json").read_text())["quantization"]
    assert beside["kv_cache_quant_algo"] == "FP8" and beside["quant_algo"] == "FP8_PER_CHANNEL_PER_TOKEN"
    member = json.loads((tmp_path / "rows" / "config.json").read_text())["quantization_config"]
    assert member["kv_cache_scheme"] == {"dynamic": False, "num_bits": 8, "type": "float"}


# ------------------------------------------------------------------------------------------ compressed-tensors

def test_nvfp4_to_compressed_tensors_and_back(tmp_path):
    """The global scale is inverted there: every value moves by less than a few units in its last place, and the class says so."""
    arrays, want = nvfp4()
    arrays[STEM + "input_scale"] = np.float32(0.003)
    checkpoint(tmp_path / "in", arrays, "NVFP4", group_size=16)
    assert files.convert(tmp_path / "in", tmp_path / "ct", "compressed-tensors")[NAME][0] in ("one-ulp", "value-exact")
    made = files.read(tmp_path / "ct" / "model.safetensors")[0]
    golden_files.same(made[NAME + "_packed"][1], arrays[NAME])
    assert made[NAME + "_global_scale"][1] == np.float32(1) / arrays[NAME + "_scale_2"] and made[NAME + "_global_scale"][1].shape == (1,)
    assert made[STEM + "input_global_scale"][1] == np.float32(1) / np.float32(0.003)
    group = json.loads((tmp_path / "ct" / "config.json").read_text())["quantization_config"]["config_groups"]["group_0"]
    assert group["input_activations"]["dynamic"] == "local" and group["weights"]["strategy"] == "tensor_group"
    with files.Checkpoint(tmp_path / "ct") as c:
        np.testing.assert_allclose(c[NAME].values(), want, rtol=5 * 2.0**-24)
    files.convert(tmp_path / "ct", tmp_path / "back", "modelopt")
    back = files.read(tmp_path / "back" / "model.safetensors")[0]
    assert set(back) == set(arrays) and json.loads((tmp_path / "back" / "hf_quant_config.json").read_text())["quantization"]["quant_algo"] == "NVFP4"


@pytest.mark.parametrize("case", ["FP8", "FP8_PER_CHANNEL_PER_TOKEN", "fp8_pb_wo", "MXFP8", "mxfp4", "W4A16_AWQ", "W8A16"])
def test_the_others_to_compressed_tensors_bit_for_bit(tmp_path, case):
    algo, more, make = CASES[case]
    arrays, want = make()
    checkpoint(tmp_path / "in", arrays, algo, **more)
    assert files.convert(tmp_path / "in", tmp_path / "out", "compressed-tensors")[NAME][0] == "bit-exact"
    with files.Checkpoint(tmp_path / "out") as c:
        c.usable()
        np.testing.assert_array_equal(c[NAME].values(), want)


def test_a_scale_before_the_weight_is_not_lost(tmp_path):
    arrays, _ = int4()
    checkpoint(tmp_path / "in", {**arrays, STEM + "pre_quant_scale": np.full(256, 2, np.float32)}, "W4A16_AWQ", group_size=64)
    with pytest.raises(brc.Error, match="pre_quant_scale"):
        files.convert(tmp_path / "in", tmp_path / "out", "compressed-tensors")
    assert not (tmp_path / "out").exists()
    files.convert(tmp_path / "in", tmp_path / "same", "modelopt")
    assert STEM + "pre_quant_scale" in files.read(tmp_path / "same" / "model.safetensors")[0]
    with files.Checkpoint(tmp_path / "in") as c, pytest.raises(brc.Error, match="pre_quant_scale"):
        files.save(tmp_path / "saved", "compressed-tensors", {NAME: c[NAME].tensor()}, origins={NAME: c[NAME]})
    with pytest.raises(brc.Error, match="dequantize multiplies it"):
        files.convert(tmp_path / "in", tmp_path / "out", "dense")


@pytest.mark.parametrize("word, number", [("F32", np.float32), ("BF16", BF16), ("F16", np.float16)])
def test_a_scale_before_the_weight_is_multiplied_into_plain_numbers(tmp_path, word, number):
    """The layer computes (x * s) W^T: the same as x (W * s)^T."""
    arrays, want = int4()
    r = np.random.default_rng(3)
    s = np.exp2(r.standard_normal(256)).astype(number)
    checkpoint(tmp_path / "in", {**arrays, STEM + "pre_quant_scale": s}, "W4A16_AWQ", group_size=64)
    warned = []
    files.dequantize(tmp_path / "in", tmp_path / "f32", "f32", warnings=warned)
    assert [(t, what) for t, what, _ in warned] == [(NAME, "pre_quant_scale")]
    got = files.read(tmp_path / "f32" / "model.safetensors")[0]
    assert STEM + "pre_quant_scale" not in got
    np.testing.assert_array_equal(got[NAME][1], want * s.astype(np.float32))
    x = r.standard_normal((4, 256))
    np.testing.assert_allclose(x @ got[NAME][1].astype(np.float64).T, (x * s.astype(np.float64)) @ want.astype(np.float64).T, rtol=1e-5)
    differences, _, _ = files.compare(tmp_path / "f32", tmp_path / "in")                      # compare counts it, too
    assert differences[NAME].noise == 0 and differences[NAME].quantized and files.compare(tmp_path / "in", tmp_path / "f32")[0][NAME].noise == 0
    files.dequantize(tmp_path / "in", tmp_path / "bf16", "bf16")
    np.testing.assert_array_equal(files.read(tmp_path / "bf16" / "model.safetensors")[0][NAME][1], (want * s.astype(np.float32)).astype(BF16))


@pytest.mark.parametrize("scale, words", [(np.ones(128, np.float32), "256 columns"), (np.ones((256, 1), np.float32), "256 columns"),
                                          (np.ones(256, np.uint8), "is U8"), (np.full(256, np.nan, np.float32), "NaN")])
def test_a_scale_that_does_not_fit_the_columns_stops(tmp_path, scale, words):
    arrays, _ = int4()
    checkpoint(tmp_path / "in", {**arrays, STEM + "pre_quant_scale": scale}, "W4A16_AWQ", group_size=64)
    with pytest.raises(brc.Error, match=words):
        files.dequantize(tmp_path / "in", tmp_path / "out", "f32")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------- misreadings

def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def eight(scale, **more):
    return {NAME: ("F8_E4M3", np.full((140, 256), 0x30, np.uint8)), NAME + "_scale": scale, **more}


def four(**more):
    return {NAME: np.zeros((8, 32), np.uint8), NAME + "_scale": ones(8, 4, dtype=F8), NAME + "_scale_2": ones()[()], **more}


MISREADINGS = {      # arrays, quant_algo and more -> status, words
    "scale missing": ({NAME: ("F8_E4M3", np.zeros((8, 8), np.uint8))}, ("FP8", {}), "MALFORMED", "scale"),
    "scale missing, int8": ({NAME: np.zeros((8, 64), np.int8)}, ("W8A16", {}), "MALFORMED", "weight_scale is missing"),
    "second scale missing": ({k: v for k, v in four().items() if not k.endswith("_2")}, ("NVFP4", {}), "MALFORMED", "weight_scale_2 is missing"),
    "second scale of several": (four(**{NAME + "_scale_2": ones(2)}), ("NVFP4", {}), "SHAPE", "must be one F32"),
    "second scale that divides": ({**{k: v for k, v in four().items() if not k.endswith("_2")}, NAME + "_global_scale": ones(1)}, ("NVFP4", {}),
                                  "MALFORMED|AMBIGUOUS", "weight_scale_2 is missing|two readings"),
    "second scale where none belongs": (eight(ones()[()], **{NAME + "_scale_2": ones()[()]}), ("FP8", {}), "MALFORMED", "has no place"),
    "exponents of another block": ({NAME: np.zeros((8, 64), np.uint8), NAME + "_scale": np.full((8, 8), 127, np.uint8)}, ("mxfp4", {}), "AMBIGUOUS|SHAPE", "scale"),
    "exponents as numbers": (eight(np.full((140,), 127, np.uint8)), ("FP8_PER_CHANNEL_PER_TOKEN", {}), "FORMAT|SHAPE", "scale"),
    "numbers as exponents": (eight(ones(140, 8)), ("MXFP8", {}), "FORMAT|SHAPE|AMBIGUOUS", "scale"),
    "scale transposed, blocks": (eight(ones(3, 2), **{NAME: ("F8_E4M3", np.zeros((256, 384), np.uint8))}), ("fp8_pb_wo", {}), "SHAPE", "transposed"),
    "scale transposed, groups": ({**int4()[0], NAME + "_scale": ones(4, 32)}, ("W4A16_AWQ", {"group_size": 64}), "SHAPE", "transposed"),
    "scale of another tensor": (eight(ones(141)), ("FP8_PER_CHANNEL_PER_TOKEN", {}), "SHAPE", "does not belong"),
    "config says one, rows are there": (eight(ones(140)), ("FP8", {}), "AMBIGUOUS", "quant_algo FP8, but"),
    "config says rows, one is there": (eight(ones()[()]), ("FP8_PER_CHANNEL_PER_TOKEN", {}), "AMBIGUOUS", "PER_CHANNEL"),
    "config says NVFP4, FP8 is there": (eight(ones()[()]), ("NVFP4", {}), "AMBIGUOUS", "quant_algo NVFP4"),
    "wrong group in the config": (int4()[0], ("W4A16_AWQ", {"group_size": 32}), "AMBIGUOUS", "W4A16_AWQ|group"),
    "an algorithm that is not known": (eight(ones()[()]), ("FP9", {}), "AMBIGUOUS", "FP9, which is not known"),
    "a residual": (four(**{STEM + "svdquant_lora_a": ones(4, 64)}), ("NVFP4_SVD", {}), "UNSUPPORTED", "SVDQuant"),
    "orphan scale": ({NAME + "_scale_2": ones()[()]}, ("NVFP4", {}), "MALFORMED", "whose weight is missing"),
    "no config, several systems": (eight(ones(140, 1)), None, "AMBIGUOUS", "two readings fit"),
    "config of another system": (four(), ("gptq", None), "AMBIGUOUS", "gptq"),
}


@pytest.mark.parametrize("misreading", MISREADINGS)
def test_no_misreading_passes(tmp_path, misreading):
    arrays, said, status, words = MISREADINGS[misreading]
    if said is not None and said[1] is None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": said[0]}}))
        said = None
    with files.Checkpoint(checkpoint(tmp_path / "in", arrays, *(said[:1] if said else ()), **(said[1] if said else {}))) as c:
        with pytest.raises(brc.Error, match=words) as stopped:
            c.usable()
        assert stopped.value.name in status.split("|"), stopped.value
        assert any(f.tensor.startswith(NAME) and f.severity in ("error", "ambiguity") for f in c.verify())
    for convert in (files.dequantize, lambda a, b: files.quantize(a, b, "fp8")):
        with pytest.raises(brc.Error):
            convert(tmp_path / "in", tmp_path / "out.safetensors")
        assert not (tmp_path / "out.safetensors").exists()


def test_without_a_config_what_only_modelopt_stores_is_read(tmp_path):
    for case in ("FP8", "NVFP4", "mxfp4", "W4A16_AWQ", "fp8_pb_wo"):
        arrays, want = CASES[case][2]()
        with files.Checkpoint(files.write(tmp_path / "m.safetensors", arrays)) as c:
            c.usable()
            assert c[NAME].dialect == "modelopt"
            np.testing.assert_array_equal(c[NAME].values(), want)
