# SPDX-License-Identifier: Apache-2.0
"""Whole checkpoints quantized and brought back: what lies in the file, what travels, what is refused."""
import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

import breccia_c as brc
import checkpoint_files as files

F8, E5M2 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
RECIPES = ["fp8", "fp8:format=e5m2", "fp8:pow2=1", "fp8:arith=deepgemm", "fp8:epsilon=0.001", "fp8-delayed", "fp8-delayed:length=1024,margin=3,history=most_recent", "fp8-row",
           "fp8-block", "fp8-block:block=1x64", "fp8-block:block=4x32", "fp8-block:arith=te,pow2=1", "fp8-block128", "fp8-block128:scale=e8m0,rule=rceil", "mxfp8",
           "mxfp8:rule=floor", "mxfp8:format=e5m2", "mxfp6-e3m2", "mxfp6-e2m3", "mxfp4", "mxfp4:rule=even", "mxint8", "nvfp4", "nvfp4:levels=1",
           "nvfp4:block=16x16", "nvfp4:arith=div", "int8", "int8:block=tensor", "int8:group=32", "int4", "int4:group=64,scale=bf16", "int4:format=uint4,rule=minmax",
           "int4:rule=noclip", "int4:format=int3", "int4:format=int7,scale=f32", "fp8:format=e4m3fnuz", "fp8:format=e5m2fnuz",
           "custom:format=e4m3,scale=bf16,block=4x32,rule=amax,arith=div", "custom:format=e2m1,scale=f16,block=row", "custom:format=nf4,scale=f32,group=64",
           "custom:format=int5,scale=f16,block=8x8,rule=minmax"]


def weights(rng, *shape, dtype=np.float32):
    return (rng.standard_normal(shape) * 0.1).astype(dtype)


@pytest.fixture
def model(tmp_path):
    """A small checkpoint with what quantize keeps, in one file."""
    rng = np.random.default_rng(11)
    arrays = {"model.embed_tokens.weight": weights(rng, 20, 8), "layers.0.q_proj.weight": weights(rng, 128, 256), "layers.0.q_proj.bias": weights(rng, 128),
              "layers.0.norm.weight": weights(rng, 256, dtype=ml_dtypes.bfloat16), "layers.10.up.weight": weights(rng, 3, 7, dtype=np.float16),
              "layers.2.up.weight": weights(rng, 140, 264, dtype=ml_dtypes.bfloat16), "layers.2.conv.weight": weights(rng, 4, 2, 3),
              "layers.2.double": weights(rng, 5, 40, dtype=np.float64), "lm_head.weight": weights(rng, 20, 8), "ids": np.arange(6).reshape(2, 3),
              "layers.0.mlp.gate.weight": weights(rng, 4, 8), "empty.weight": np.zeros((0, 16), np.float32), "scalar": np.float32(2)}
    path = files.write(tmp_path / "source.safetensors", arrays, {"format": "pt", "note": "ü"})
    return path, arrays


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_written_is_what_a_cast_gives_and_the_recipe_comes_back(tmp_path, recipe):
    rng = np.random.default_rng(2)
    arrays = {"whole": weights(rng, 128, 256), "ragged": weights(rng, 33, 75)}
    outcomes = files.quantize(files.write(tmp_path / "a.safetensors", arrays), tmp_path / "b.safetensors", recipe)
    with files.Checkpoint(tmp_path / "b.safetensors") as c:
        c.usable()
        assert not c.findings
        for name, x in arrays.items():
            given, entry = brc.recipe(recipe), c[name]
            block = given.block
            ragged = name == "ragged" and any(side and n % side for n, side in zip(x.shape, (block.rows, block.cols)))
            given.partial = max(given.partial, int(ragged))
            want, got = brc.cast(x, given), entry.tensor()
            assert entry.recipe == brc.recipe_text(given) and entry.dialect == "breccia"
            assert bytes(brc.ffi.buffer(brc.ffi.addressof(got.c, "recipe"))) == bytes(brc.ffi.buffer(given))
            equal = brc.ffi.new("int *")
            brc.call("brc_tensor_equal", want.c, got.c, equal)
            assert equal[0] == 1
            stored = [p.array for p in (entry.c.parts[i] for i in range(entry.c.n_parts))]
            assert outcomes[name].after == sum(a.bytes for a in stored) and outcomes[name].before == x.nbytes
    with safe_open(tmp_path / "b.safetensors", "np") as f:              # the library accepts what was written
        assert set(f.metadata()) == {"whole.config", "ragged.config"}


def test_the_bytes_of_each_format_are_where_the_documentation_says(tmp_path):
    rng = np.random.default_rng(4)
    x = weights(rng, 6, 64)
    source = files.write(tmp_path / "a.safetensors", {"w": x})
    expect = {        # recipe -> data, scale (and global scale): type and shape
        "fp8": ("F8_E4M3", (6, 64), "F32", ()), "fp8:format=e5m2": ("F8_E5M2", (6, 64), "F32", ()), "fp8-row": ("F8_E4M3", (6, 64), "F32", (6, 1)),
        "fp8-block:block=1x32": ("F8_E4M3", (6, 64), "F32", (6, 2)), "fp8-block128": ("F8_E4M3", (6, 64), "F32", (1, 1)),
        "mxfp8": ("F8_E4M3", (6, 64), "U8", (6, 2)), "mxfp6-e2m3": ("U8", (6, 48), "U8", (6, 2)), "mxfp4": ("U8", (6, 32), "U8", (6, 2)),
        "mxint8": ("I8", (6, 64), "U8", (6, 2)), "nvfp4": ("U8", (6, 32), "F8_E4M3", (6, 4)), "int8": ("I8", (6, 64), "F32", (6, 1)),
        "int4:group=32": ("U8", (6, 32), "F16", (6, 2)),
    }
    for recipe, (data, data_shape, scale, scale_shape) in expect.items():
        files.quantize(source, tmp_path / "b.safetensors", recipe, overwrite=True)
        arrays, metadata = files.read(tmp_path / "b.safetensors")
        assert (arrays["w.data"][0], arrays["w.data"][1].shape) == (data, data_shape), recipe
        assert (arrays["w.scale"][0], arrays["w.scale"][1].shape) == (scale, scale_shape), recipe
        config = json.loads(metadata["w.config"])
        assert config["version"] == 2 and config["shape"] == [6, 64]
        assert ("w.global_scale" in arrays) == (recipe == "nvfp4")
        if recipe == "nvfp4":          # value = e * (s * g), nibbles low first, decoded here
            nibbles = np.stack([arrays["w.data"][1] & 15, arrays["w.data"][1] >> 4], -1).reshape(6, 64)
            elements = np.array([0, .5, 1, 1.5, 2, 3, 4, 6], np.float32)[nibbles & 7] * np.where(nibbles & 8, -1, 1).astype(np.float32)
            multiplier = arrays["w.scale"][1].astype(np.float32) * arrays["w.global_scale"][1]
            with files.Checkpoint(tmp_path / "b.safetensors") as c:
                np.testing.assert_array_equal(c["w"].values(), elements * np.repeat(multiplier, 16, 1))
        if recipe == "fp8-row":
            s = np.abs(x).max(1, keepdims=True) / np.float32(448)
            np.testing.assert_array_equal(arrays["w.scale"][1], s)
            np.testing.assert_array_equal(arrays["w.data"][1].astype(np.float32), (x / s).astype(F8).astype(np.float32))


KEPT = {"model.embed_tokens.weight": "embedding", "layers.0.q_proj.bias": "1-D", "layers.0.norm.weight": "1-D", "layers.2.conv.weight": "3-D",
        "lm_head.weight": "head", "ids": "I64", "layers.0.mlp.gate.weight": "router of experts", "empty.weight": "empty", "scalar": "scalar"}
DONE = ["layers.0.q_proj.weight", "layers.2.double", "layers.2.up.weight", "layers.10.up.weight"]


def test_weights_are_quantized_and_the_rest_travels_byte_for_byte(tmp_path, model):
    path, arrays = model
    outcomes = files.quantize(path, tmp_path / "b.safetensors", "fp8-block128")
    assert [n for n, o in outcomes.items() if o.quantized] == DONE
    assert {n: o.why for n, o in outcomes.items() if not o.quantized} == KEPT
    assert list(outcomes) == sorted(arrays, key=list(outcomes).index) and sum(o.before for o in outcomes.values()) == sum(np.asarray(a).nbytes for a in arrays.values())
    written, metadata = files.read(tmp_path / "b.safetensors")
    for name in KEPT:
        assert written[name][0] == files.WORD[np.asarray(arrays[name]).dtype]
        assert written[name][1].tobytes() == np.asarray(arrays[name]).tobytes() and written[name][1].shape == np.shape(arrays[name])
    assert metadata["format"] == "pt" and metadata["note"] == "ü"
    assert set(written) == set(KEPT) | {f"{n}.{p}" for n in DONE for p in ("data", "scale")}
    with files.Checkpoint(tmp_path / "b.safetensors") as c:
        assert c["layers.2.up.weight"].recipe == "fp8-block128:partial=1" and c["layers.0.q_proj.weight"].recipe == "fp8-block128"
        assert not c.verify()


@pytest.mark.parametrize("include, exclude, quantized", [
    (["layers.0.*"], [], ["layers.0.mlp.gate.weight", "layers.0.q_proj.weight"]), (["*embed*", "*conv*"], [], ["layers.2.conv.weight", "model.embed_tokens.weight"]),
    ([], ["layers.2.*", "*q_proj*"], ["layers.10.up.weight"]), (["layers.*.up.weight"], ["layers.10.*"], ["layers.2.up.weight"]),
])
def test_globs_choose(tmp_path, model, include, exclude, quantized):
    outcomes = files.quantize(model[0], tmp_path / "b.safetensors", "int8", include=include, exclude=exclude)
    assert sorted(n for n, o in outcomes.items() if o.quantized) == sorted(quantized)


def test_an_include_that_matches_nothing_is_an_error(tmp_path, model):
    with pytest.raises(brc.Error, match="no weight matches"):
        files.quantize(model[0], tmp_path / "b.safetensors", "int8", include=["layer.0.*"])
    assert not (tmp_path / "b.safetensors").exists()


def test_the_default_excludes_mind_no_case(tmp_path):
    names = ["Model.Token_Embedding.Kernel", "H.0.LN_1.Weight", "LM_Head.weight", "plain.Weight"]
    source = files.write(tmp_path / "a.safetensors", {n: np.ones((4, 32), np.float32) for n in names})
    outcomes = files.quantize(source, tmp_path / "b.safetensors", "int8")
    assert {n: outcomes[n].why for n in names} == dict(zip(names, ("embedding", "norm", "head", None)))


def test_the_default_excludes_each_have_a_reason():
    why = brc.ffi.new("const char **")
    rows = []
    while (glob := brc.lib.brc_exclude_get(len(rows), why)) != brc.ffi.NULL:
        rows.append((brc.ffi.string(glob).decode(), brc.ffi.string(why[0]).decode()))
    assert len(rows) == len(set(rows)) > 10 and {"norm", "embedding", "head", "bias"} <= {w for _, w in rows}
    names = {"model.layers.3.mlp.gate_proj.weight": None, "encoder.layer.1.attention.output.dense.weight": None, "transformer.h.0.mlp.c_fc.weight": None,
             "model.norm.weight": "norm", "bert.embeddings.LayerNorm.weight": "norm", "h.0.ln_1.weight": "norm", "transformer.wte.weight": "embedding",
             "decoder.relative_attention_bias.weight": "bias", "lm_head.weight": "head", "head.weight": "head", "head.out_proj.weight": None,
             "core.scale.to_gb.weight": None, "normalizer.weight": None, "pooler.dense.weight": None, "abnormal_proj.weight": None}
    from fnmatch import fnmatchcase
    for name, reason in names.items():
        got = next((w for g, w in rows if fnmatchcase(name.lower(), g.lower())), None)
        assert got == reason, name


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_name(tmp_path, value):
    x = np.ones((4, 32), np.float32)
    x[2, 3] = value
    source = files.write(tmp_path / "a.safetensors", {"good.weight": np.ones((4, 32), np.float32), "layers.3.bad.weight": x})
    with pytest.raises(brc.Error, match="layers.3.bad.weight: .*1 ") as stopped:
        files.quantize(source, tmp_path / "b.safetensors", "fp8")
    assert stopped.value.name == "NONFINITE" and os.listdir(tmp_path) == ["a.safetensors"]
    files.quantize(source, tmp_path / "b.safetensors", "mxfp8", saturate=True)
    with files.Checkpoint(tmp_path / "b.safetensors") as c:
        assert np.isfinite(c["layers.3.bad.weight"].values()[[0, 1, 3]]).all()


def test_a_quantized_source_is_refused_by_name(tmp_path, model):
    files.quantize(model[0], tmp_path / "b.safetensors", "fp8")
    with pytest.raises(brc.Error, match="layers.0.q_proj.weight: it is quantized already.*dequantize") as stopped:
        files.quantize(tmp_path / "b.safetensors", tmp_path / "c.safetensors", "int8")
    assert stopped.value.name == "UNSUPPORTED" and not (tmp_path / "c.safetensors").exists()


def test_an_existing_destination_is_kept_unless_told(tmp_path, model):
    target = tmp_path / "b.safetensors"
    target.write_text("mine")
    with pytest.raises(brc.Error) as stopped:
        files.quantize(model[0], target, "fp8")
    assert stopped.value.name == "EXISTS" and target.read_text() == "mine"
    files.quantize(model[0], target, "fp8", overwrite=True)
    with files.Checkpoint(target) as c:
        assert c["layers.0.q_proj.weight"].scaled


@pytest.mark.parametrize("at", ["first", "last"])
def test_cancelling_leaves_nothing(tmp_path, model, at):
    calls = []

    def stop(done, total, name):
        calls.append((done, total, name))
        return at == "first" or done == total

    with pytest.raises(brc.Error) as stopped:
        files.quantize(model[0], tmp_path / "b.safetensors", "fp8", progress=stop)
    assert stopped.value.name == "CANCELLED" and os.listdir(tmp_path) == ["source.safetensors"]
    total = sum(np.asarray(a).nbytes for a in model[1].values())
    assert calls[-1][1] == total and (at == "first") == (len(calls) == 1)
    with pytest.raises(brc.Error):
        files.dequantize(model[0], tmp_path / "b.safetensors", progress=stop)
    assert os.listdir(tmp_path) == ["source.safetensors"]


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_do_not_change_a_byte(tmp_path, model, threads):
    files.quantize(model[0], tmp_path / "one.safetensors", "nvfp4", threads=1)
    files.quantize(model[0], tmp_path / "more.safetensors", "nvfp4", threads=threads)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "more.safetensors").read_bytes()


# --------------------------------------------------------------------------------------------- folders and shards

def sharded(folder, config):
    """Three shards; the last holds nothing but a norm. Files that belong to a model, and some that do not."""
    rng = np.random.default_rng(21)
    shards = {"model-00001-of-00003.safetensors": {"a.weight": weights(rng, 130, 140), "a.bias": weights(rng, 130)},
              "model-00002-of-00003.safetensors": {"b.weight": weights(rng, 128, 128, dtype=ml_dtypes.bfloat16), "lm_head.weight": weights(rng, 16, 8)},
              "model-00003-of-00003.safetensors": {"norm.weight": weights(rng, 8)}}
    for name, arrays in shards.items():
        files.write(folder / name, arrays, {"format": "pt"})
    total = sum(x.nbytes for arrays in shards.values() for x in arrays.values())
    index = {"metadata": {"total_size": total}, "weight_map": {n: s for s, arrays in shards.items() for n in arrays}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(config)
    for name in ("tokenizer.json", "merges.txt", "spiece.model", "generation_config.json", "README.md", DESCRIBES):
        (folder / name).write_bytes(name.encode() + b"\x00\xff")
    for name in ("pytorch_model.bin", "training_args.bin", "x.pt", "other.safetensors.bak", ".hidden.json"):
        (folder / name).write_bytes(b"no")
    (folder / "sub.json").mkdir()
    with open(folder / "immense.json", "wb") as f:      # sparse
        f.truncate((256 << 20) + 1)
    return shards


CONFIG = '{"model_type": "llama",\n  "eps": 1e-12, "limit": Infinity,\n  "tail": [1, {"a": "}"}]}\n'
DESCRIBES = "quantize_config.json"          # says how weights are quantized: it goes when they change
CARRIED = {"config.json", "tokenizer.json", "merges.txt", "spiece.model", "generation_config.json", "README.md"}


@pytest.mark.parametrize("dialect, recipe", [("breccia", "mxfp8"), ("deepseek", "fp8-block128")])
def test_a_folder_keeps_its_shards_and_its_other_files(tmp_path, dialect, recipe):
    source, target, back = tmp_path / "source", tmp_path / "target", tmp_path / "back"
    source.mkdir()
    shards = sharded(source, CONFIG)
    files.quantize(source, target, recipe, dialect)
    assert set(os.listdir(target)) == set(shards) | CARRIED | {"model.safetensors.index.json"}
    for name in CARRIED - {"config.json"}:
        assert (target / name).read_bytes() == (source / name).read_bytes()
    for shard, arrays in shards.items():
        held = set(files.read(target / shard)[0])
        for name in arrays:
            assert name in held or f"{name}.data" in held
    with files.Checkpoint(target) as c:
        c.usable()
        assert [n for n in c.names() if c[n].scaled] == ["a.weight", "b.weight"] and not c.findings and not c.verify()
    files.dequantize(target, back, "f32")
    assert set(os.listdir(back)) == set(shards) | CARRIED | {"model.safetensors.index.json"}
    assert (back / "config.json").read_text() == CONFIG
    with_older_name = (target / "config.json").read_text().replace("quantization_config", "compression_config")
    (target / "config.json").write_text(with_older_name)
    files.dequantize(target, back, "f32", overwrite=True)
    assert (back / "config.json").read_text() == CONFIG
    for shard, arrays in shards.items():
        written, metadata = files.read(back / shard)
        assert set(written) == set(arrays) and metadata == {"format": "pt"}
        assert all(np.array_equal(written[n][1], x) for n, x in arrays.items() if n not in ("a.weight", "b.weight"))
    differences, missing, _ = files.compare(source, back)
    assert not missing and 28 < differences["a.weight"].sqnr < 36 and 28 < differences["b.weight"].sqnr < 36


def test_shards_that_held_only_scales_vanish_when_dequantized(tmp_path):
    name = "up.weight"
    files.write(tmp_path / "a.safetensors", {"first": np.ones(2, np.float32)})
    files.write(tmp_path / "b.safetensors", {name + "_scale_inv": np.ones((1, 1), np.float32)})
    files.write(tmp_path / "c.safetensors", {name: ("F8_E4M3", np.full((4, 4), 0x38, np.uint8))})
    places = {"first": "a.safetensors", name + "_scale_inv": "b.safetensors", name: "c.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    files.dequantize(tmp_path, tmp_path / "out", "f16")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {"first": "model-00001-of-00002.safetensors", name: "model-00002-of-00002.safetensors"}
    np.testing.assert_array_equal(files.read(tmp_path / "out" / "model-00002-of-00002.safetensors")[0][name][1], np.ones((4, 4), np.float16))


def test_shards_become_one_file_when_a_file_is_named(tmp_path):
    sharded(tmp_path, CONFIG)
    files.quantize(tmp_path, tmp_path / "all.safetensors", "int8")
    with files.Checkpoint(tmp_path / "all.safetensors") as c:
        assert c.names() == ["a.bias", "a.weight", "b.weight", "lm_head.weight", "norm.weight"]


def test_a_lone_file_takes_no_strangers_along(tmp_path):
    (tmp_path / "stranger.json").write_text("{}")
    source = files.write(tmp_path / "a.safetensors", {"w": np.ones((2, 32), np.float32)})
    files.quantize(source, tmp_path / "out", "int8")
    assert os.listdir(tmp_path / "out") == ["model.safetensors"]


# ------------------------------------------------------------------------------------------------------ deepseek

@pytest.mark.parametrize("recipe, word, fmt", [("fp8-block128", "F32", None), ("fp8-block128:pow2=1", "F32", "ue8m0"),
                                               ("fp8-block128:scale=e8m0,rule=rceil", "F8_E8M0", "ue8m0"), ("fp8-block128:arith=deepgemm", "F32", None)])
def test_deepseek_is_written_as_its_readers_expect(tmp_path, recipe, word, fmt):
    rng = np.random.default_rng(8)
    x = weights(rng, 200, 300)
    (tmp_path / "config.json").write_text('{"model_type": "deepseek_v3"}')
    files.write(tmp_path / "model.safetensors", {"a.weight": x, "lm_head.weight": weights(rng, 8, 8), "queries": weights(rng, 128, 128)})
    files.quantize(tmp_path, tmp_path / "out", recipe, "deepseek")
    arrays, metadata = files.read(tmp_path / "out" / "model.safetensors")
    assert set(arrays) == {"a.weight", "a.weight_scale_inv", "lm_head.weight", "queries", "queries_scale_inv"} and not metadata
    assert arrays["a.weight"][0] == "F8_E4M3" and (arrays["a.weight_scale_inv"][0], arrays["a.weight_scale_inv"][1].shape) == (word, (2, 3))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    expected = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]}
    assert config == {"model_type": "deepseek_v3", "quantization_config": expected | ({"scale_fmt": fmt} if fmt else {})}
    scale = arrays["a.weight_scale_inv"][1].astype(np.float32)
    values = arrays["a.weight"][1].astype(np.float32) * np.repeat(np.repeat(scale, 128, 0), 128, 1)[:200, :300]
    with files.Checkpoint(tmp_path / "out") as c:
        c.usable()
        assert not c.findings
        np.testing.assert_array_equal(c["a.weight"].values(), values)
    assert 10 * np.log10((x ** 2).sum() / ((x - values) ** 2).sum()) > 28


@pytest.mark.parametrize("recipe", ["mxfp8", "fp8", "fp8-block", "fp8-block128:format=e5m2", "fp8-block128:scale=bf16", "int4"])
def test_deepseek_refuses_what_it_cannot_say(tmp_path, model, recipe):
    with pytest.raises(brc.Error, match="deepseek stores e4m3 in 128x128 blocks") as stopped:
        files.quantize(model[0], tmp_path / "b.safetensors", recipe, "deepseek")
    assert stopped.value.name == "UNSUPPORTED" and not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize("dialect", ["bitsandbytes"])
def test_a_dialect_that_is_not_written_says_so(tmp_path, model, dialect):
    with pytest.raises(brc.Error, match=f"{dialect} is not written yet"):
        files.quantize(model[0], tmp_path / "b.safetensors", "fp8", dialect)


# ---------------------------------------------------------------------------------------------------- dequantize

@pytest.mark.parametrize("format, dtype", [("f32", np.float32), ("f16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_values_come_back_in_the_format_asked_for(tmp_path, model, format, dtype):
    files.quantize(model[0], tmp_path / "b.safetensors", "mxfp8")
    outcomes, overflowed = files.dequantize(tmp_path / "b.safetensors", tmp_path / "c.safetensors", format)
    written, metadata = files.read(tmp_path / "c.safetensors")
    with files.Checkpoint(tmp_path / "b.safetensors") as c:
        for name in DONE:
            np.testing.assert_array_equal(written[name][1], c[name].values().astype(dtype))
            assert written[name][1].dtype == dtype and outcomes[name].after == written[name][1].nbytes
    assert metadata == {"format": "pt", "note": "ü"} and overflowed == 0
    assert set(written) == set(model[1])


def test_elements_that_overflow_the_narrower_format_are_counted(tmp_path):
    codes = np.array([[0x38, 0x7E, 0xFE, 0x00]], np.uint8)                # 1, 448, -448, 0
    files.write(tmp_path / "model.safetensors", {"w.weight": ("F8_E4M3", codes), "w.weight_scale_inv": np.array([[1000]], np.float32)})
    for format, count in (("f16", 2), ("bf16", 0), ("f32", 0)):
        _, overflowed = files.dequantize(tmp_path / "model.safetensors", tmp_path / "out.safetensors", format, overwrite=True)
        assert overflowed == count
    files.dequantize(tmp_path / "model.safetensors", tmp_path / "out.safetensors", "f16", overwrite=True)
    np.testing.assert_array_equal(files.read(tmp_path / "out.safetensors")[0]["w.weight"][1], np.array([[1000, np.inf, -np.inf, 0]], np.float16))


def test_elements_beyond_f32_are_counted_and_infinite_codes_are_not(tmp_path):
    codes = np.array([[0x3C, 0x7B, 0x7C, 0xFC]], np.uint8)                # of E5M2: 1, 57344, infinity, -infinity
    files.quantize(files.write(tmp_path / "a.safetensors", {"w": np.ones((1, 4), np.float32)}), tmp_path / "model.safetensors", "fp8:format=e5m2")
    arrays, metadata = files.read(tmp_path / "model.safetensors")
    scale = np.full_like(arrays["w.scale"][1], 1e38)
    files.write(tmp_path / "model.safetensors", {"w.data": ("F8_E5M2", codes), "w.scale": scale}, metadata)
    for format in ("f16", "bf16", "f32"):
        _, overflowed = files.dequantize(tmp_path / "model.safetensors", tmp_path / "out.safetensors", format, overwrite=True)
        assert overflowed == (2 if format == "f16" else 1)


def test_options_of_another_version_and_globs_that_are_not_there_are_refused(tmp_path, model):
    with files.Checkpoint(model[0]) as c:
        target = os.fsencode(tmp_path / "out.safetensors")
        for change in (dict(size=8), dict(n_include=3), dict(n_exclude=1)):
            options = brc.new("brc_quantize_options", recipe=brc.recipe("int8"), dialect=brc.lib.BRC_DIALECT_BRECCIA)
            for field, value in change.items():
                setattr(options, field, value)
            with pytest.raises(brc.Error, match="^ARGUMENT"):
                brc.call("brc_quantize_checkpoint", c.c, target, options)
        options = brc.new("brc_dequantize_options")
        options.size -= 1
        with pytest.raises(brc.Error, match="^ARGUMENT"):
            brc.call("brc_dequantize_checkpoint", c.c, target, options)
    assert not (tmp_path / "out.safetensors").exists()


def test_memory_is_bounded_by_the_largest_tensor_not_by_the_checkpoint(tmp_path):
    arrays = {f"layers.{i}.weight": np.full((1024, 2048), 0.5, np.float32) for i in range(40)}                # 8 MiB each, 320 MiB in all
    source = files.write(tmp_path / "a.safetensors", arrays)
    script = f"""
import resource, sys
sys.path.insert(0, {str(Path(files.__file__).parent)!r})
import checkpoint_files as files
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + (64 << 20),) * 2)
files.quantize({str(source)!r}, {str(tmp_path / 'b.safetensors')!r}, "fp8", threads=1)
files.dequantize({str(tmp_path / 'b.safetensors')!r}, {str(tmp_path / 'c.safetensors')!r}, "f32", threads=1)
_, _, total = files.compare({str(source)!r}, {str(tmp_path / 'c.safetensors')!r}, threads=1)
assert total.noise == 0
"""
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("case, recipe", [("fp32", "fp8-block128:arith=deepgemm"), ("ue8m0", "fp8-block128:arith=deepgemm,pow2=1")])
def test_deepseek_golden_codes_and_scales(golden, tmp_path, case, recipe):
    import golden_files
    g = golden_files.load(golden / "deepseek_block.safetensors")
    source = files.write(tmp_path / "a.safetensors", {"up.weight": g["w"]})
    files.quantize(source, tmp_path / "b.safetensors", recipe, "deepseek")
    arrays, _ = files.read(tmp_path / "b.safetensors")
    golden_files.same(arrays["up.weight"][1].view(np.uint8), g[f"{case}.weight"], case)
    golden_files.same(arrays["up.weight_scale_inv"][1], g[f"{case}.weight_scale_inv"], case)


def quantized_folder(folder):
    """A checkpoint of fp8 codes with their scales, and one weight that is not quantized."""
    folder.mkdir()
    files.write(folder / "model.safetensors", {"a.weight": ("F8_E4M3", np.full((256, 256), 0x38, np.uint8)), "a.weight_scale_inv": np.full((2, 2), 0.5, np.float32),
                                               "b.weight": np.full((32, 32), 0.25, np.float32), "c.data": ("U8", np.zeros((2, 32), np.uint8)),
                                               "c.scale": np.ones((2, 2), np.float32), "d.weight": np.ones((4, 4), np.float32), "d.scale": np.ones((4, 4), np.float32)})
    (folder / "config.json").write_text('{"model_type": "m", "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}')
    return folder


def test_scales_read_as_plain_are_never_quantized(tmp_path):
    source = quantized_folder(tmp_path / "a")
    outcomes = files.quantize(source, tmp_path / "b", "int8", read_as="plain")
    assert [name for name, o in outcomes.items() if o.quantized] == ["b.weight", "d.scale", "d.weight"]      # a scale of no codes is a weight
    assert outcomes["a.weight_scale_inv"].why == outcomes["c.scale"].why == "a scale"
    written, before = files.read(tmp_path / "b" / "model.safetensors")[0], files.read(source / "model.safetensors")[0]
    for name in ("a.weight_scale_inv", "c.scale", "c.data"):
        np.testing.assert_array_equal(written[name][1], before[name][1])
    assert (tmp_path / "b" / "config.json").read_bytes() == (source / "config.json").read_bytes()            # it describes a.weight as before


def test_what_was_not_dequantized_stays_described(tmp_path):
    source = quantized_folder(tmp_path / "a")
    (source / "hf_quant_config.json").write_text("{}")
    files.dequantize(source, tmp_path / "b", dialect="plain")
    for name in ("config.json", "hf_quant_config.json", "model.safetensors"):
        assert (tmp_path / "b" / name).exists(), name
    assert (tmp_path / "b" / "config.json").read_bytes() == (source / "config.json").read_bytes()


def test_a_quantization_that_nothing_bears_is_dropped(tmp_path):
    (tmp_path / "a").mkdir()
    files.write(tmp_path / "a" / "model.safetensors", {"w.weight": np.ones((4, 32), np.float32)})
    (tmp_path / "a" / "config.json").write_text('{"model_type": "m", "quantization_config": {"quant_method": "fp8"}}')
    files.quantize(tmp_path / "a", tmp_path / "b", "int8")
    assert json.loads((tmp_path / "b" / "config.json").read_text()) == {"model_type": "m"}


@pytest.mark.parametrize("back", [False, True])
def test_the_config_of_replaced_weights_no_longer_describes_them(tmp_path, back):
    target = quantized_folder(tmp_path / "b")
    files.write(tmp_path / "a.safetensors", {"w.weight": np.ones((4, 32), np.float32)})
    if back:
        files.dequantize(tmp_path / "a.safetensors", target, overwrite=True)
    else:
        files.quantize(tmp_path / "a.safetensors", target, "mxfp8", overwrite=True)
    assert json.loads((target / "config.json").read_text()) == {"model_type": "m"}
    with files.Checkpoint(target) as c:
        c.usable()
        assert c.findings == []


@pytest.mark.parametrize("name", ["hf_quant_config.json", "quantize_config.json", "quant_config.json"])
def test_what_describes_replaced_weights_goes_with_them(tmp_path, name):
    """Else the new ones would be read as the old ones were made."""
    source, target = tmp_path / "a.safetensors", tmp_path / "b"
    files.write(tmp_path / "plain.safetensors", {"w.weight": np.ones((128, 128), np.float32)})
    files.quantize(tmp_path / "plain.safetensors", source, "fp8-block128", "deepseek")
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    for change in (lambda **more: files.conversion(source, target, "deepseek", **more), lambda **more: files.dequantize(source, target, **more),
                   lambda **more: files.save(target, "breccia", {"w.weight": np.ones((4, 32), np.float32)}, **more)):
        for made in ("model.safetensors", "config.json"):
            (target / made).unlink(missing_ok=True)
        (target / name).write_text('{"quantization": {"quant_algo": "NVFP4"}, "quant_method": "gptq"}')
        before = {p.name: p.read_bytes() for p in target.iterdir()}
        with pytest.raises(brc.Error, match="it exists already"):
            change()
        assert {p.name: p.read_bytes() for p in target.iterdir()} == before
        change(overwrite=True)
        assert not (target / name).exists() and (target / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("config, stays", [
    ('{"model_type": "m", "quantization_config": {"quant_method": "gptq", "bits": 4}}', None), ('{"quantization": {"bits": 4}, "model_type": "m"}', None),
    ('{"model_type": "m", "compression_config": {}}', None), ('{"model_type": "m"}', True), ("{}", True), ("no JSON", True)])
def test_a_config_of_other_weights_in_the_destination(tmp_path, config, stays):
    """A lone file becomes the weights of a folder whose config.json speaks of others: refused, and with leave to replace less what it says of
    them; one that says nothing of quantization is somebody's, and stays."""
    source = files.write(tmp_path / "a.safetensors", {"w.weight": np.ones((128, 128), np.float32)})
    files.quantize(source, tmp_path / "q.safetensors", "fp8-block128", "deepseek")
    for i, change in enumerate((lambda to, **more: files.quantize(source, to, "mxfp8", **more), lambda to, **more: files.dequantize(tmp_path / "q.safetensors", to, **more),
                                lambda to, **more: files.conversion(tmp_path / "q.safetensors", to, "breccia", **more))):
        target = tmp_path / f"b{i}"
        target.mkdir()
        (target / "config.json").write_text(config)
        if not stays:
            with pytest.raises(brc.Error, match="config.json: it exists already") as refused:
                change(target)
            assert refused.value.name == "EXISTS" and [p.name for p in target.iterdir()] == ["config.json"]
            assert (target / "config.json").read_text() == config
        change(target, overwrite=not stays)
        assert (target / "config.json").read_text() == config if stays else json.loads((target / "config.json").read_text()) == {"model_type": "m"}


def test_files_that_do_not_go_along_are_told(tmp_path):
    source = tmp_path / "a"
    (source / "1_Pooling").mkdir(parents=True)
    files.write(source / "model.safetensors", {"w.weight": np.ones((4, 32), np.float32)})
    files.write(source / "adapter.safetensors", {"w": np.ones(1, np.float32)})
    for name in ("config.json", "tokenizer.json", "quantize_config.json", "pytorch_model.bin.index.json", "picture.png", ".hidden"):
        (source / name).write_text("{}")
    (source / "gone.txt").symlink_to("nowhere")
    left = {}
    files.quantize(source, tmp_path / "b", "int8", left=left)
    assert list(left.items()) == [("1_Pooling", "a folder"), ("adapter.safetensors", "not of a kind that goes along"), ("gone.txt", "cannot be read"),
                                  ("picture.png", "not of a kind that goes along"), ("pytorch_model.bin.index.json", "index of other weights"),
                                  ("quantize_config.json", "describes the quantization")]
    assert set(os.listdir(tmp_path / "b")) == {"model.safetensors", "config.json", "tokenizer.json"}
    left.clear()
    (tmp_path / "b" / "quantize_config.json").write_text("{}")
    files.dequantize(tmp_path / "b", tmp_path / "c", left=left)
    assert left == {"quantize_config.json": "describes the quantization"}


@pytest.mark.parametrize("numbers, words", [([1e300, 1], "1 values are beyond F32"), ([np.nan, 1], "1 NaN and 0 infinite values"),
                                            ([np.inf, -1e300], "0 NaN and 1 infinite values, and 1 beyond F32")])
def test_doubles_beyond_f32_are_told_from_infinity(tmp_path, numbers, words):
    source = files.write(tmp_path / "a.safetensors", {"w": np.array([numbers], np.float64)})
    with pytest.raises(brc.Error) as refused:
        files.quantize(source, tmp_path / "b.safetensors", "int8")
    assert refused.value.text == f"a.safetensors: w: {words}"


def test_a_config_made_from_nothing_has_no_empty_lines(tmp_path):
    source = files.write(tmp_path / "a.safetensors", {"w.weight": np.ones((128, 128), np.float32)})
    files.quantize(source, tmp_path / "b", "fp8-block128", "deepseek")
    lines = (tmp_path / "b" / "config.json").read_text().split("\n")
    assert lines[0] == "{" and lines[-2:] == ["}", ""] and all(line.strip() for line in lines[:-1])
