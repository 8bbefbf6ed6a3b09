# SPDX-License-Identifier: Apache-2.0
"""MLX's quantized layers: what the library dequantizes, files that it opens, every misreading refused."""
import json

import ml_dtypes
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

import breccia_c as brc
import checkpoint_files as files
import golden_files


LAYER = "layers.0.up"
NAME = f"{LAYER}.weight"
DTYPES = {"f32": mx.float32, "bf16": mx.bfloat16, "f16": mx.float16}
FP = {"mxfp4": (32, 4), "mxfp8": (32, 8), "nvfp4": (16, 4)}
AFFINE = [(g, b) for g in (32, 64, 128) for b in (2, 3, 4, 5, 6, 8)]


def weight(*shape, seed=3):
    r = np.random.default_rng(seed)
    x = r.standard_normal(shape).astype(np.float32) * np.exp2(r.integers(-6, 6, (*shape[:-1], 1))).astype(np.float32)
    x[..., 0, :] = 0
    x[..., 1, :] = np.abs(x[..., 1, :])
    x[..., 2, :] = -np.abs(x[..., 2, :])
    return x


def quantized(x, mode="affine", group=None, bits=None, dtype="f32"):
    """{name: mlx array}."""
    parts = mx.quantize(mx.array(x).astype(DTYPES[dtype]), mode=mode, group_size=group, bits=bits)
    return dict(zip((NAME, f"{LAYER}.scales", f"{LAYER}.biases"), parts))


def settings(mode="affine", group=64, bits=4, **layers):
    return {"group_size": group, "bits": bits, "mode": mode, **layers}


def checkpoint(folder, arrays, quantization=None, both=True):
    """As mlx-lm writes it."""
    if quantization is not None:
        config = {"model_type": "llama", "quantization": quantization, **({"quantization_config": quantization} if both else {})}
        (folder / "config.json").write_text(json.dumps(config))
    path = folder / "model.safetensors"
    if all(isinstance(a, mx.array) for a in arrays.values()):
        mx.save_safetensors(str(path), arrays, {"format": "mlx"})
        return path
    return files.write(path, arrays)


def numpy(a):
    return np.array(a.view(mx.uint16)).view(ml_dtypes.bfloat16) if a.dtype == mx.bfloat16 else np.array(a)


def dequantized(arrays, mode, group, bits):
    """MLX's own F32 values: it computes in the type of the scales."""
    scales = arrays[f"{LAYER}.scales"]
    more = {}
    if mode == "affine":
        scales, more = scales.astype(mx.float32), {"biases": arrays[f"{LAYER}.biases"].astype(mx.float32)}
    return np.array(mx.dequantize(arrays[NAME], scales, group_size=group, bits=bits, mode=mode, dtype=mx.float32, **more))


LIVE = {**{m: (m, g, b, "f32") for m, (g, b) in FP.items()},
        **{f"affine {b} bits in {g}, {d}": ("affine", g, b, d) for g, b in AFFINE for d in DTYPES}}


@pytest.mark.parametrize("case", LIVE)
def test_what_mlx_stores_has_the_values_that_mlx_gives(tmp_path, case):
    mode, group, bits, dtype = LIVE[case]
    arrays = quantized(weight(8, 384), mode, group, bits, dtype)
    path = checkpoint(tmp_path, {**arrays, "norm.weight": mx.ones(4)}, settings(mode, group, bits))
    with files.Checkpoint(path) as c:
        c.usable()
        assert not c.findings and c.names() == [NAME, "norm.weight"]
        e = c[NAME]
        assert e.dialect == "mlx" and f"MLX's {mode}, {bits} bits in groups of {group}, as the config says" in e.evidence
        golden_files.same(e.values() + np.float32(0), dequantized(arrays, mode, group, bits) + np.float32(0), case)   # the sign of a zero is not MLX's
        assert not [f for f in c.verify() if f.severity == "error"]


def test_golden_values(golden, tmp_path):
    g = golden_files.load(golden / "mlx.safetensors")
    for tag in ("mxfp4", "mxfp8", "nvfp4", "affine4_g32", "affine3_g64", "affine8_g64"):
        mode, group, bits = (tag, *FP[tag]) if tag in FP else ("affine", int(tag.split("_g")[1]), int(tag[6]))
        parts = {NAME: ("U32", g[tag + ".data"]), f"{LAYER}.scales": g[tag + ".scale"]}
        parts |= {f"{LAYER}.biases": g[tag + ".bias"]} if mode == "affine" else {}
        with files.Checkpoint(checkpoint(tmp_path, parts, settings(mode, group, bits))) as c:
            c.usable()
            golden_files.same(c[NAME].values() + np.float32(0), g[tag + ".deq"] + np.float32(0), tag)


def test_a_model_of_mlx_with_layers_of_their_own(tmp_path):
    """mlx.nn.quantize with a predicate, saved as mlx-lm saves it."""
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = nn.Linear(128, 8), nn.Linear(128, 8), nn.Linear(128, 8), nn.Embedding(16, 128)

    model = Model()
    own = {"b": {"group_size": 32, "bits": 8, "mode": "affine"}, "c": False, "d": {"group_size": 32, "bits": 4, "mode": "mxfp4"}}
    nn.quantize(model, 64, 4, class_predicate=lambda path, module: own.get(path, True))
    path = checkpoint(tmp_path, dict(tree_flatten(model.parameters())), {"group_size": 64, "bits": 4, "mode": "affine", **own})
    with files.Checkpoint(path) as c:
        c.usable()
        assert not c.findings
        assert {n: c[n].scaled for n in c.names() if n.endswith(".weight")} == {"a.weight": True, "b.weight": True, "c.weight": False, "d.weight": True}
        for name, module in (("a", model.a), ("b", model.b), ("d", model.d)):
            want = mx.dequantize(module.weight, module.scales, module.get("biases"), module.group_size, module.bits, module.mode, dtype=mx.float32)
            golden_files.same(c[f"{name}.weight"].values() + np.float32(0), np.array(want) + np.float32(0), name)


@pytest.mark.parametrize("mode", FP)
def test_modes_with_scales_of_one_byte_need_no_config(tmp_path, mode):
    arrays = quantized(weight(8, 384), mode)
    with files.Checkpoint(checkpoint(tmp_path, arrays)) as c:
        c.usable()
        assert f"MLX's {mode}" in c[NAME].evidence and "as the config" not in c[NAME].evidence
        golden_files.same(c[NAME].values() + np.float32(0), dequantized(arrays, mode, *FP[mode]) + np.float32(0))


@pytest.mark.parametrize("mode", FP)
def test_an_older_config_without_a_mode(tmp_path, mode):
    group, bits = FP[mode]
    with files.Checkpoint(checkpoint(tmp_path, quantized(weight(8, 384), mode), {"group_size": group, "bits": bits})) as c:
        c.usable()
        assert f"MLX's {mode}" in c[NAME].evidence


def test_quantization_config_alone_is_read_too(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": settings(bits=8)}))
    with files.Checkpoint(checkpoint(tmp_path, quantized(weight(8, 384), bits=8))) as c:
        c.usable()
        assert not c.findings and "8 bits in groups of 64, as the config says" in c[NAME].evidence


@pytest.mark.parametrize("group, bits", AFFINE)
def test_without_a_config_affine_is_read_only_where_one_reading_fits(tmp_path, group, bits):
    fit = [(g, b) for g, b in AFFINE if g * b == group * bits]
    with files.Checkpoint(checkpoint(tmp_path, quantized(weight(8, 384 * 5), "affine", group, bits))) as c:
        if len(fit) == 1:
            c.usable()
            assert f"{bits} bits in groups of {group}" in c[NAME].evidence
            return
        with pytest.raises(brc.Error) as refused:
            c.usable()
        assert refused.value.name == "AMBIGUOUS"
        assert all(f"{b} bits in groups of {g}" in refused.value.text for g, b in fit if 384 * 5 * bits // b % g == 0)


# ------------------------------------------------------------------------------------------------------ writing

@pytest.mark.parametrize("case", LIVE)
def test_read_and_written_is_the_same(tmp_path, case):
    mode, group, bits, dtype = LIVE[case]
    (tmp_path / "a").mkdir()
    path = checkpoint(tmp_path / "a", {**quantized(weight(8, 384), mode, group, bits, dtype), "norm.weight": mx.ones(4)}, settings(mode, group, bits))
    assert files.convert(tmp_path / "a", tmp_path / "b", "mlx")[NAME][0] == "bit-exact"
    files.same_arrays(files.read(path)[0], files.read(tmp_path / "b" / "model.safetensors")[0])
    assert (tmp_path / "a" / "config.json").read_text() == (tmp_path / "b" / "config.json").read_text()
    before, after = files.stored_again(tmp_path / "a", tmp_path / "c")          # the value alone
    files.same_arrays(before, after)
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    assert config["quantization"] == config["quantization_config"] == settings(mode, group, bits)


def written(folder, x, recipe, include=("*up*",)):
    (folder / "s").mkdir()
    files.write(folder / "s" / "model.safetensors", {NAME: x, "norm.weight": np.ones(4, np.float32)})
    (folder / "s" / "config.json").write_text('{"model_type":"llama"}')
    files.quantize(folder / "s", folder / "t", recipe, dialect="mlx", include=list(include))
    arrays = mx.load(str(folder / "t" / "model.safetensors"))
    config = json.loads((folder / "t" / "config.json").read_text())
    assert config["quantization"] == config["quantization_config"] and config["model_type"] == "llama"
    return arrays, config["quantization"]


@pytest.mark.parametrize("recipe", ["mxfp4", "mxfp8", "mxfp8:rule=floor", "nvfp4:levels=1", "int4:group=32", "int4:group=64,scale=bf16", "int8:group=128,scale=f16",
                                    "int4:format=int3,group=32,scale=bf16", "int4:format=int6,group=64,scale=f16", "int4:format=int2,group=128"])
def test_mlx_opens_what_is_written_and_has_the_same_values(tmp_path, recipe):
    x = weight(8, 384)
    arrays, config = written(tmp_path, x, recipe)
    layer = nn.QuantizedLinear(384, 8, bias=False, **config)
    layer.load_weights([(n.removeprefix(LAYER + "."), a) for n, a in arrays.items() if n.startswith(LAYER)], strict=True)
    with files.Checkpoint(tmp_path / "t") as c:
        c.usable()
        assert not c.findings
        golden_files.same(c[NAME].values() + np.float32(0), dequantized(arrays, config["mode"], config["group_size"], config["bits"]) + np.float32(0), recipe)
        values = c[NAME].values()
    got = np.array(layer(mx.array(np.eye(384, dtype=np.float32)))).T        # the layer's own product
    assert np.abs(got - values).max() <= 2e-2 * np.abs(values).max()
    if recipe.startswith("int"):        # symmetric codes less an offset: the same values, where the type of the scales holds them
        golden_files.same(values, brc.dequantize(brc.cast(x, recipe)), recipe)


MADE = {"mxfp4": "mxfp4:arith=mlx", "mxfp8": "mxfp8:arith=mlx", "nvfp4": "nvfp4:levels=1,arith=mlx"}


@pytest.mark.parametrize("case", LIVE)
def test_quantized_as_mlx_itself_does(tmp_path, case):
    mode, group, bits, dtype = LIVE[case]
    x = weight(8, 384)
    recipe = MADE.get(mode) or f"int4:format=uint{bits},group={group},scale={dtype},rule=minmax,arith=mlx"
    source = np.array(mx.array(x).astype(DTYPES[dtype]).astype(mx.float32))
    arrays, config = written(tmp_path, source, recipe)
    assert config == settings(mode, group, bits)
    for name, own in quantized(x, mode, group, bits, dtype).items():
        assert arrays[name].dtype == own.dtype and mx.array_equal(arrays[name], own), name


def test_what_others_store_becomes_mlx_s_default_where_nothing_keeps_it(tmp_path):
    source = files.write(tmp_path / "s.safetensors", {NAME: weight(8, 384)})
    files.quantize(source, tmp_path / "f", "fp8-row", include=["*"])
    cls, sqnr = files.convert(tmp_path / "f", tmp_path / "t", "mlx")[NAME]
    assert cls == "lossy" and 12 < sqnr < 30
    assert json.loads((tmp_path / "t" / "config.json").read_text())["quantization"] == settings()


@pytest.mark.parametrize("recipe", ["int4:format=uint4,group=32,scale=bf16,rule=minmax", "int8:rule=minmax,group=64,scale=f16", "int4:rule=minmax,group=64,scale=f32"])
def test_integer_zero_points_become_biases(tmp_path, recipe):
    """bias = -(zero + 2^(bits - 1) for signed codes) * scale, rounded to the type of the scales: as NumPy does it."""
    x = weight(8, 384)
    arrays, config = written(tmp_path, x, recipe)
    t = brc.cast(x, recipe)
    scale, zero = t.scale.reshape(8, -1), t.zero.reshape(8, -1).astype(np.float64)
    zero = zero + (2 ** (config["bits"] - 1) if brc.format_name(t.c.format).startswith("int") else 0)
    golden_files.same(numpy(arrays[f"{LAYER}.biases"]), (-zero * scale.astype(np.float64)).astype(np.float32).astype(scale.dtype), recipe)
    golden_files.same(numpy(arrays[f"{LAYER}.scales"]), scale)


def test_layers_of_their_own_are_written(tmp_path):
    x = weight(8, 384)
    (tmp_path / "a").mkdir()
    arrays = {f"{n}.{part}": a for n, m in (("p", "mxfp4"), ("q", "mxfp4"), ("r", "mxfp8")) for part, a in zip(("weight", "scales"), mx.quantize(mx.array(x), mode=m))}
    checkpoint(tmp_path / "a", arrays)
    files.convert(tmp_path / "a", tmp_path / "b", "breccia")
    files.convert(tmp_path / "b", tmp_path / "c", "mlx", require="BIT_EXACT")
    files.same_arrays(files.read(tmp_path / "a" / "model.safetensors")[0], files.read(tmp_path / "c" / "model.safetensors")[0])
    assert json.loads((tmp_path / "c" / "config.json").read_text())["quantization"] == {
        "group_size": 32, "bits": 4, "mode": "mxfp4", "r": {"group_size": 32, "bits": 8, "mode": "mxfp8"}}


def test_a_single_file_says_its_modes_in_the_metadata(tmp_path):
    source = files.write(tmp_path / "s.safetensors", {NAME: weight(8, 384)})
    files.quantize(source, tmp_path / "t.safetensors", "int4:group=64", dialect="mlx", include=["*"])
    with files.Checkpoint(tmp_path / "t.safetensors") as c:
        c.usable()
        assert "4 bits in groups of 64" in c[NAME].evidence
    files.dequantize(tmp_path / "t.safetensors", tmp_path / "d.safetensors", "f32")
    assert "quantization" not in files.read(tmp_path / "d.safetensors")[1]


def test_what_mlx_says_goes_with_its_layers(tmp_path):
    (tmp_path / "a").mkdir()
    checkpoint(tmp_path / "a", quantized(weight(8, 384), bits=8), settings(bits=8))
    files.dequantize(tmp_path / "a", tmp_path / "b", "f32")
    assert json.loads((tmp_path / "b" / "config.json").read_text()) == {"model_type": "llama"}


@pytest.mark.parametrize("recipe, shape", [("nvfp4", (4, 64)), ("fp8-row", (4, 64)), ("mxfp4", (4, 48)), ("int4:group=16", (4, 64)), ("int8", (4, 64)), ("mxfp6-e3m2", (4, 64))])
def test_what_has_no_place(tmp_path, recipe, shape):
    source = files.write(tmp_path / "s.safetensors", {NAME: np.ones(shape, np.float32)})
    with pytest.raises(brc.Error, match="mlx stores weights") as refused:
        files.quantize(source, tmp_path / "t", recipe, dialect="mlx", include=["*"])
    assert refused.value.name == "UNSUPPORTED"


# -------------------------------------------------------------------------------------------------- misreadings

def parts(mode="affine", group=64, bits=4, dtype="f32"):
    """{name: (dtype word, array)} without MLX's types."""
    return {n: (files.WORD[numpy(a).dtype], numpy(a)) if a.dtype != mx.uint32 else ("U32", np.array(a)) for n, a in quantized(weight(8, 384), mode, group, bits, dtype).items()}


W, S, B = NAME, f"{LAYER}.scales", f"{LAYER}.biases"


def changed(base, name, change, word=None):
    arrays = dict(base)
    arrays[name] = (word or base[name][0], np.ascontiguousarray(change(base[name][1])))
    return arrays


def without(base, name):
    return {n: a for n, a in base.items() if n != name}


A, M, N = parts(), parts("mxfp8", 32, 8), parts("nvfp4", 16, 4)
MISREADINGS = {             # arrays, quantization -> status, words
    "another group": (A, settings(group=128), "SHAPE", "group_size 128"),
    "another width": (A, settings(bits=8), "SHAPE", "bits 8"),
    "another mode": (A, settings("mxfp4", 32, 4), "FORMAT", "mode mxfp4"),
    "exponents said to be affine": (M, settings("affine", 64, 4), "FORMAT", "mode affine"),
    "nvfp4 said to be mxfp4": (N, settings("mxfp4", 32, 4), "SHAPE", "other groups"),
    "mxfp8 said to be nvfp4": (M, settings("nvfp4", 16, 4), "SHAPE", "other groups"),
    "no such mode": (A, settings("mxfp9", 32, 4), "MALFORMED", "no such mode"),
    "no such width of a mode": (M, settings("mxfp8", 32, 6), "MALFORMED", "no such mode"),
    "a group of words": (A, settings(group="64"), "MALFORMED", "no such mode"),
    "a negative group": (A, settings(group=-64), "MALFORMED", "no such mode"),
    "no bits": (A, {"group_size": 64}, "MALFORMED", "no such mode"),
    "one bit": (parts("affine", 64, 1), settings(bits=1), "UNSUPPORTED", "1 bits in groups of 64 are not read"),
    "a layer that contradicts": (A, settings(**{LAYER: {"group_size": 32, "bits": 4}}), "SHAPE", f"group_size 32, bits 4 of {LAYER}"),
    "scales transposed": (changed(A, S, np.transpose), settings(), "SHAPE", "not the rows"),
    "scales of another tensor": (changed(changed(A, S, lambda a: a[:, :5]), B, lambda a: a[:, :5]), settings(), "SHAPE", "other groups"),
    "scales of other rows": (changed(A, S, lambda a: a[:7]), settings(), "SHAPE", "not the rows"),
    "exponents as numbers": (changed(M, S, lambda a: a.astype(np.float32), "F32"), settings("mxfp8", 32, 8), "MALFORMED", "needs biases"),
    "exponents as numbers, no config": (changed(M, S, lambda a: a.astype(np.float32), "F32"), None, "MALFORMED", "needs biases"),
    "biases missing": (without(A, B), settings(), "MALFORMED", "biases is missing"),
    "biases too many": ({**M, B: A[B]}, settings("mxfp8", 32, 8), "FORMAT", "modes without biases"),
    "biases of another type": (changed(A, B, lambda a: a.astype(np.float16), "F16"), settings(), "FORMAT", "is F16, but"),
    "biases of another shape": (changed(A, B, lambda a: a[:, :3]), settings(), "SHAPE", "has not the shape"),
    "scales of integers": (changed(A, S, lambda a: a.astype(np.int32), "I32"), settings(), "FORMAT", "MLX has F32"),
    "scales missing": (without(without(A, S), B), settings(), "MALFORMED", "scales is missing"),
    "words missing": (without(A, W), settings(), "MALFORMED", "weight is missing"),
    "scales of no mode": (changed(M, S, lambda a: a[:, :5]), None, "SHAPE", "of no mode"),
    "words flat": (changed(A, W, np.ravel), settings(), "SHAPE", "not the rows"),
}


@pytest.mark.parametrize("case", MISREADINGS)
def test_misreadings_are_refused(tmp_path, case):
    arrays, quantization, status, words = MISREADINGS[case]
    with files.Checkpoint(checkpoint(tmp_path, arrays, quantization)) as c, pytest.raises(brc.Error, match=words) as refused:
        c.usable()
    assert refused.value.name == status


@pytest.mark.parametrize("text", ['[1, 2]', '"x"', '{"group_size": 64, "group_size": 32, "bits": 4}', '{"group_size": 64, "bits": ' + "[" * 3000 + "]" * 3000 + "}", "null"])
def test_a_config_that_is_none_is_not_used(tmp_path, text):
    (tmp_path / "config.json").write_text('{"quantization": ' + text + "}")
    with files.Checkpoint(checkpoint(tmp_path, A)) as c, pytest.raises(brc.Error) as refused:
        c.usable()
    assert refused.value.name in ("AMBIGUOUS", "MALFORMED")


def test_asked_for_as_another_dialect(tmp_path):
    with files.Checkpoint(checkpoint(tmp_path, A, settings()), "deepseek") as c, pytest.raises(brc.Error, match="this is mlx"):
        c.usable()
