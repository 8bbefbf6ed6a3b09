# SPDX-License-Identifier: Apache-2.0
"""ComfyUI's single files: what comfy-kitchen makes and reads, descriptions in arrays, in the metadata and in names, every misreading refused."""
import hashlib
import json
import logging
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from convert.decoders import DECODERS, File

import breccia_c as brc
import checkpoint_files as files

GOLDEN = Path(__file__).with_name("comfyui.safetensors")
PAIR = "_quantization_metadata"
F8 = ml_dtypes.float8_e4m3fn
# In the golden file: recipe with comfy-kitchen's arithmetic, its layout and options.
LAYERS = {
    "fp8": ("fp8:arith=deepgemm", "float8_e4m3fn", "TensorCoreFP8Layout", {}),
    "e5m2": ("fp8:format=e5m2,arith=deepgemm", "float8_e5m2", "TensorCoreFP8Layout", {"dtype": "float8_e5m2"}),
    "int8": ("int8:arith=modelopt,block=tensor", "int8_tensorwise", "TensorWiseINT8Layout", {}),
    "int8_row": ("int8:arith=modelopt", "int8_tensorwise", "TensorWiseINT8Layout", {"per_channel": True}),
    "nvfp4": ("nvfp4:arith=modelopt", "nvfp4", "TensorCoreNVFP4Layout", {}),
    "mxfp8": ("mxfp8", "mxfp8", "TensorCoreMXFP8Layout", {}),
}


def text(description):
    """As Python writes it into an array of bytes."""
    return np.frombuffer(json.dumps(description).encode(), np.uint8)


def golden():
    return files.read(GOLDEN)[0]


def in_the_metadata(arrays, **more):
    """The same file with its descriptions in the metadata."""
    layers = {n.removesuffix(".comfy_quant"): {**json.loads(a.tobytes()), **more} for n, (_, a) in arrays.items() if n.endswith(".comfy_quant")}
    return ({n: a for n, a in arrays.items() if not n.endswith(".comfy_quant")}, {PAIR: json.dumps({"format_version": "1.0", "layers": layers})})


def in_the_names(arrays):
    """Its FP8 weights as older files have them, under a prefix, with a marker."""
    out = {"model.scaled_fp8": ("F8_E4M3", np.zeros(2, np.uint8))}
    for name in ("fp8", "e5m2"):
        out |= {f"model.{name}.weight": arrays[f"{name}.weight"], f"model.{name}.scale_weight": arrays[f"{name}.weight_scale"],
                f"model.{name}.scale_input": ("F32", np.array(2, np.float32))}
    return out


# -------------------------------------------------------------------------------------------------------- reading

@pytest.mark.parametrize("layer", LAYERS)
def test_golden_values(layer):
    hashes = files.read(GOLDEN)[1]
    with files.Checkpoint(GOLDEN) as c:
        c.usable()
        values = c[f"{layer}.weight"].values()
        assert c[f"{layer}.weight"].dialect == "comfyui" and LAYERS[layer][1] in c[f"{layer}.weight"].evidence
        assert {f.text for f in c.verify()} <= {"6 of 640 scales are zero"}            # blocks of zeros, in NVFP4
    np.testing.assert_array_equal(values, DECODERS["comfyui"](File(GOLDEN), f"{layer}.weight").value)
    assert hashlib.sha256(values.tobytes()).hexdigest() == hashes[f"{layer}.sha256"]


def test_descriptions_in_the_metadata_and_in_names(tmp_path):
    arrays, metadata = in_the_metadata(golden())
    with files.Checkpoint(GOLDEN) as c, files.Checkpoint(files.write(tmp_path / "pair.safetensors", arrays, metadata)) as d:
        d.usable()
        assert not d.findings
        for layer in LAYERS:
            np.testing.assert_array_equal(c[f"{layer}.weight"].values(), d[f"{layer}.weight"].values())
            assert PAIR in d[f"{layer}.weight"].evidence
        with files.Checkpoint(files.write(tmp_path / "names.safetensors", in_the_names(golden()))) as e:
            e.usable()
            assert not e.findings and e.names() == ["model.e5m2.weight", "model.fp8.weight"]
            for layer in ("fp8", "e5m2"):
                np.testing.assert_array_equal(c[f"{layer}.weight"].values(), e[f"model.{layer}.weight"].values())
            assert sum("marker" in e[n].parts for n in e.names()) == 1 and e["model.fp8.weight"].parts["input_scale"] == "model.fp8.scale_input"


def test_scales_of_one_byte_go_by_the_format_not_by_their_type(tmp_path):
    """ComfyUI views them as what the format means; older writers had U8 for both."""
    arrays = golden()
    for layer in ("nvfp4", "mxfp8"):
        name = f"{layer}.weight_scale"
        arrays[name] = ("U8", arrays[name][1].view(np.uint8))
    with files.Checkpoint(GOLDEN) as c, files.Checkpoint(files.write(tmp_path / "u8.safetensors", arrays)) as d:
        d.usable()
        for layer in ("nvfp4", "mxfp8"):
            np.testing.assert_array_equal(c[f"{layer}.weight"].values(), d[f"{layer}.weight"].values())
    files.conversion(tmp_path / "u8.safetensors", tmp_path / "out.safetensors", "comfyui", ["mxfp8"], include=["mxfp8.*"])
    assert files.read(tmp_path / "out.safetensors")[0]["nvfp4.weight_scale"][0] == "U8"


# -------------------------------------------------------------------------------------------------------- writing

def test_the_same_bytes_come_back_from_values_alone(tmp_path):
    files.same_arrays(*files.stored_again(GOLDEN, tmp_path / "again.safetensors"))
    classes = files.convert(GOLDEN, tmp_path / "breccia.safetensors", "breccia")
    back = files.convert(tmp_path / "breccia.safetensors", tmp_path / "back.safetensors", "comfyui", require="bit_exact")
    assert {k for k, _ in (*classes.values(), *back.values())} == {"bit-exact"}
    files.same_arrays(golden(), files.read(tmp_path / "back.safetensors")[0])


@pytest.mark.parametrize("form", ["arrays", "metadata", "names"])
def test_what_did_not_change_stays_as_it_was(tmp_path, form):
    """One tensor of the file changes; the others keep their description, in its place, and their companions."""
    arrays, metadata = {"arrays": (golden(), {}), "metadata": in_the_metadata(golden(), full_precision_matrix_mult=True),
                        "names": (in_the_names(golden()), {})}[form]
    source = files.write(tmp_path / "in.safetensors", arrays, metadata or None)
    changed = "model.e5m2" if form == "names" else "nvfp4"
    files.conversion(source, tmp_path / "out.safetensors", "comfyui", ["fp8:arith=deepgemm"], include=[f"{changed}.weight"])
    after, texts = files.read(tmp_path / "out.safetensors")
    old = {n: a for n, a in arrays.items() if not n.startswith(changed + ".")}
    files.same_arrays(old, {n: a for n, a in after.items() if not n.startswith(changed + ".")})
    assert after[f"{changed}.comfy_quant"][1].tobytes() == b'{"format": "float8_e4m3fn"}'
    if form == "metadata":
        told = json.loads(metadata[PAIR])
        del told["layers"]["nvfp4"]
        assert json.loads(texts[PAIR]) == told
    with files.Checkpoint(tmp_path / "out.safetensors") as c:
        c.usable()
        assert not c.findings


def test_another_dialect_is_not_described_by_it(tmp_path):
    arrays, metadata = in_the_metadata(golden())
    source = files.write(tmp_path / "in.safetensors", arrays, metadata | {"modelspec.title": "x"})
    files.conversion(source, tmp_path / "out.safetensors", "breccia")
    assert PAIR not in files.read(tmp_path / "out.safetensors")[1] and files.read(tmp_path / "out.safetensors")[1]["modelspec.title"] == "x"
    files.dequantize(source, tmp_path / "dense.safetensors")
    after, texts = files.read(tmp_path / "dense.safetensors")
    assert set(after) == {f"{n}.weight" for n in LAYERS} and PAIR not in texts


def test_what_it_has_no_place_for(tmp_path):
    x = np.random.default_rng(1).standard_normal((24, 48)).astype(np.float32)
    files.write(tmp_path / "in.safetensors", {"a.weight": x})
    for recipe in ("int4", "mxfp4", "mxfp8", "nvfp4"):                       # sides of 24: neither 16 nor 32 divides them
        with pytest.raises(brc.Error, match="ComfyUI stores") as refused:
            files.quantize(tmp_path / "in.safetensors", tmp_path / "out.safetensors", recipe, "comfyui")
        assert refused.value.name == "UNSUPPORTED"
    files.write(tmp_path / "in.safetensors", {"a": x})
    with pytest.raises(brc.Error, match="module.weight"):
        files.quantize(tmp_path / "in.safetensors", tmp_path / "out.safetensors", "fp8", "comfyui", include=["a"])


# ----------------------------------------------------------------------------------------------------------- live

@pytest.fixture(scope="module")
def kitchen():
    """comfy-kitchen's classes; it tells of missing GPUs."""
    import torch
    logging.disable(logging.WARNING)
    try:
        tensor = pytest.importorskip("comfy_kitchen.tensor", reason="comfy-kitchen is not installed: its own classes are not compared")
    finally:
        logging.disable(logging.NOTSET)
    return torch, tensor


def make(kitchen, layer, x):
    torch, tensor = kitchen
    _, _, layout, options = LAYERS[layer]
    options = {k: getattr(torch, v) if k == "dtype" else v for k, v in options.items()}
    return tensor.QuantizedTensor.from_float(torch.from_numpy(x), layout, **options)


def load_as_comfyui(kitchen, arrays, name):
    """As comfy/ops.py does: the classes' parameters of the arrays."""
    torch, tensor = kitchen
    described = json.loads(arrays.pop(f"{name}.comfy_quant").numpy().tobytes())
    layout = next(row[2] for row in LAYERS.values() if row[1] == described["format"])
    weight, scale, shape = arrays[f"{name}.weight"], arrays[f"{name}.weight_scale"], arrays[f"{name}.weight"].shape
    if described["format"] == "nvfp4":
        scales, shape = {"scale": arrays[f"{name}.weight_scale_2"], "block_scale": scale.view(torch.float8_e4m3fn)}, (shape[0], 2 * shape[1])
    elif described["format"] == "mxfp8":
        scales = {"scale": scale.view(torch.float8_e8m0fnu)}
    else:
        scales = {"scale": scale}
    params = tensor.get_layout_class(layout).Params(**scales, orig_dtype=torch.float32, orig_shape=tuple(shape))
    return tensor.QuantizedTensor(weight, layout, params).dequantize().numpy()


def weights(seed, shape):
    r = np.random.default_rng(seed)
    x = r.standard_normal(shape).astype(np.float32) * np.exp2(r.integers(-7, 3, (shape[0], 1))).astype(np.float32)
    x[1] = 0
    return x


@pytest.mark.parametrize("layer", LAYERS)
def test_live_both_ways(tmp_path, kitchen, layer):
    from safetensors.torch import load_file, save_file
    recipe, format, _, _ = LAYERS[layer]
    for seed, shape in enumerate([(32, 64), (160, 320), (288, 96)]):
        x = weights(seed, shape)
        theirs = make(kitchen, layer, x)
        arrays = {**theirs.state_dict("m.weight"), "m.comfy_quant": kitchen[0].from_numpy(text({"format": format}).copy())}
        save_file(arrays, tmp_path / "theirs.safetensors")
        with files.Checkpoint(tmp_path / "theirs.safetensors") as c:
            c.usable()
            np.testing.assert_array_equal(c["m.weight"].values(), theirs.dequantize().numpy())
        files.write(tmp_path / "x.safetensors", {"m.weight": x})
        files.quantize(tmp_path / "x.safetensors", tmp_path / "ours.safetensors", recipe, "comfyui", overwrite=True)
        np.testing.assert_array_equal(load_as_comfyui(kitchen, load_file(tmp_path / "ours.safetensors"), "m"), theirs.dequantize().numpy())
        if layer not in ("nvfp4", "int8_row"):      # other scales of zeros: ModelOpt's 1 and 2^-23, comfy-kitchen's 0 and 1e-30
            files.same_arrays(files.read(tmp_path / "theirs.safetensors")[0], files.read(tmp_path / "ours.safetensors")[0])


# ---------------------------------------------------------------------------------------------------- misreadings

def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def codes(*shape):
    return np.random.default_rng(6).standard_normal(shape).astype(F8)


def described(format, arrays, **more):
    return {**{f"m.{n}": a for n, a in arrays.items()}, "m.comfy_quant": text({"format": format, **more})}


W = codes(160, 64)
FP4 = np.zeros((160, 32), np.uint8)
MISREADINGS = {
    "scale missing": (described("float8_e4m3fn", {"weight": W}), "MALFORMED", "weight_scale is missing"),
    "scale of rows": (described("float8_e4m3fn", {"weight": W, "weight_scale": ones(160, 1)}), "SHAPE|AMBIGUOUS", "one scale for each row|does not belong"),
    "scale flat": (described("int8_tensorwise", {"weight": np.ones((160, 64), np.int8), "weight_scale": ones(160)}), "SHAPE", "does not belong"),
    "scale transposed": (described("int8_tensorwise", {"weight": np.ones((160, 64), np.int8), "weight_scale": ones(1, 160)}), "SHAPE", "transposed|does not belong"),
    "exponent as a number": (described("float8_e4m3fn", {"weight": W, "weight_scale": np.full((), 127, np.uint8)}), "FORMAT", "U8"),
    "number as exponents": (described("mxfp8", {"weight": W, "weight_scale": ones(256, 4)}), "FORMAT", "F32"),
    "scales in rows": (described("mxfp8", {"weight": W, "weight_scale": np.full((160, 2), 127, np.uint8)}), "SHAPE", r"tiles are \[256,4\]"),
    "scales of other blocks": (described("nvfp4", {"weight": FP4, "weight_scale": codes(256, 8), "weight_scale_2": ones()}), "SHAPE", r"tiles are \[256,4\]"),
    "second scale missing": (described("nvfp4", {"weight": FP4, "weight_scale": codes(256, 4)}), "MALFORMED", "weight_scale_2 is missing"),
    "second scale of rows": (described("nvfp4", {"weight": FP4, "weight_scale": codes(256, 4), "weight_scale_2": ones(160)}), "SHAPE", "one F32"),
    "second scale of one level": (described("float8_e4m3fn", {"weight": W, "weight_scale": ones(), "weight_scale_2": ones()}), "MALFORMED", "no place"),
    "other codes": (described("float8_e5m2", {"weight": W, "weight_scale": ones()}), "FORMAT", "F8_E4M3"),
    "codes that are numbers": (described("float8_e4m3fn", {"weight": ones(160, 64), "weight_scale": ones()}), "FORMAT", "is F32"),
    "rows of odd blocks": (described("nvfp4", {"weight": np.zeros((160, 28), np.uint8), "weight_scale": codes(256, 4), "weight_scale_2": ones()}), "SHAPE", "whole blocks"),
    "weight missing": (described("mxfp8", {"weight_scale": np.ones((256, 4), np.uint8)}), "MALFORMED", "weight is missing"),
    "rotated": (described("int8_tensorwise", {"weight": np.ones((160, 64), np.int8), "weight_scale": ones(160, 1)}, convrot=True), "UNSUPPORTED", "convrot"),
    "rotated, in params": (described("int8_tensorwise", {"weight": np.ones((160, 64), np.int8), "weight_scale": ones(160, 1)}, params={"convrot": True}),
                           "UNSUPPORTED", "convrot"),
    "a format not known": (described("asym_w4a8_int8", {"weight": np.ones((160, 32), np.int8)}), "UNSUPPORTED", "asym_w4a8_int8"),
    "no format": ({"m.weight": W, "m.weight_scale": ones(), "m.comfy_quant": text({"convrot": True})}, "MALFORMED", '"format"'),
    "no JSON": ({"m.weight": W, "m.weight_scale": ones(), "m.comfy_quant": np.frombuffer(b"{", np.uint8)}, "MALFORMED", "no JSON object"),
    "a description in F32": ({"m.weight": W, "m.weight_scale": ones(), "m.comfy_quant": ones(4)}, "MALFORMED", "no JSON object"),
    "older, orphan": ({"m.scale_weight": ones(1)}, "MALFORMED", "whose weight is missing"),
    "older, scale of rows": ({"m.weight": W, "m.scale_weight": ones(160, 1)}, "SHAPE|AMBIGUOUS", "one scale for each row|does not belong"),
    "older, bytes": ({"m.weight": np.ones((160, 64), np.int8), "m.scale_weight": ones(1)}, "AMBIGUOUS", "none of them stores I8"),
    "older, scale missing": ({"scaled_fp8": W[:0, 0], "m.weight": W}, "AMBIGUOUS", "without a scale"),
}


@pytest.mark.parametrize("misreading", MISREADINGS)
def test_no_misreading_passes(tmp_path, misreading):
    arrays, status, words = MISREADINGS[misreading]
    with files.Checkpoint(files.write(tmp_path / "in.safetensors", arrays)) as c, pytest.raises(brc.Error, match=words) as stopped:
        c.usable()
    assert stopped.value.name in status.split("|"), stopped.value
    with pytest.raises(brc.Error):
        files.dequantize(tmp_path / "in.safetensors", tmp_path / "out.safetensors")


@pytest.mark.parametrize("pair, status, words", [
    ("{", "MALFORMED", "no JSON object"), ('{"layers": []}', "MALFORMED", "no JSON object"), ('{"format_version": "1.0"}', "MALFORMED", "no JSON object"),
    ('{"layers": {"m": "nvfp4"}}', "MALFORMED", '"format"'), ('{"layers": {"m": {"format": "mxfp8"}}}', "FORMAT", "F32"),
    ('{"layers": {}}', "AMBIGUOUS", "none of them stores")])
def test_a_pair_that_does_not_describe_the_weight(tmp_path, pair, status, words):
    arrays = {"m.weight": W, "m.weight_scale": ones()}
    with files.Checkpoint(files.write(tmp_path / "in.safetensors", arrays, {PAIR: pair})) as c, pytest.raises(brc.Error, match=words) as stopped:
        c.usable()
    assert stopped.value.name == status


def test_two_descriptions_that_differ_are_told(tmp_path):
    arrays = golden()
    pair = {PAIR: json.dumps({"layers": {"fp8": {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}}})}
    arrays = {n: a for n, a in arrays.items() if n.startswith("fp8.")}
    with files.Checkpoint(files.write(tmp_path / "a.safetensors", arrays, pair)) as c:
        c.usable()
    for other, said in (({"format": "float8_e5m2"}, "float8_e5m2"), ({}, "no format")):
        arrays["fp8.comfy_quant"] = text(other)
        with files.Checkpoint(files.write(tmp_path / "b.safetensors", arrays, pair)) as c:
            with pytest.raises(brc.Error, match=f"{PAIR}.* says float8_e4m3fn, but fp8.comfy_quant says {said}"):
                c.usable()
            assert c.findings[0].severity == "ambiguity"


@pytest.mark.parametrize("form", ["arrays", "metadata", "names"])
def test_a_config_of_another_system(tmp_path, form):
    """ComfyUI has no quant_method: a config that names one speaks of other weights, or the descriptions do."""
    arrays, metadata = {"arrays": (golden(), {}), "metadata": in_the_metadata(golden()), "names": (in_the_names(golden()), {})}[form]
    files.write(tmp_path / "model.safetensors", arrays, metadata or None)
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "fp8"}}')
    with files.Checkpoint(tmp_path) as c:
        with pytest.raises(brc.Error, match="are those of comfyui .*, but config.json's quant_method is \"fp8\"; say which with --from") as stopped:
            c.usable()
        assert stopped.value.name == "AMBIGUOUS"
    with files.Checkpoint(tmp_path, "comfyui") as c, files.Checkpoint(tmp_path / "model.safetensors", "comfyui") as same:
        c.usable()
        scaled = [n for n in same.names() if same[n].scaled]
        assert scaled and all(c[n].values().tobytes() == same[n].values().tobytes() for n in scaled)


def test_two_scales_of_one_weight(tmp_path):
    """As new files have it and as older ones do: the description counts where it is asked for."""
    arrays = {"m.weight": W, "m.weight_scale": ones(), "m.scale_weight": ones() * 2, "m.comfy_quant": text({"format": "float8_e4m3fn"})}
    path = files.write(tmp_path / "in.safetensors", arrays)
    with files.Checkpoint(path) as c, pytest.raises(brc.Error, match="both of comfyui: .*comfy_quant says.*, or by m.scale_weight; --from comfyui reads the first") as stopped:
        c.usable()
    assert stopped.value.name == "AMBIGUOUS"
    with files.Checkpoint(path, "comfyui") as c:
        c.usable()
        np.testing.assert_array_equal(c["m.weight"].values(), W.astype(np.float32))
        assert [f.text for f in c.findings] == ["m.scale_weight is not used: read as comfyui, as asked"]


def test_a_shard_alone_and_other_systems(tmp_path):
    pair = {PAIR: json.dumps({"layers": {"m": {"format": "float8_e4m3fn"}, "gone": {"format": "nvfp4"}}})}
    arrays = {"m.weight": W, "m.weight_scale": ones()}
    with files.Checkpoint(files.write(tmp_path / "in.safetensors", arrays, pair)) as c:
        c.usable()
        assert [(f.severity, f.tensor) for f in c.findings] == [("warning", "gone.weight")]
    with files.Checkpoint(files.write(tmp_path / "in.safetensors", arrays)) as c:
        assert c["m.weight"].dialect != "comfyui"
    with files.Checkpoint(files.write(tmp_path / "in.safetensors", {"m.weight": W.astype(ml_dtypes.bfloat16), "m.scale_weight": ones(1)})) as c:
        c.usable()
        assert "is BF16, not codes" in c.findings[0].text


VALUES = st.one_of(st.none(), st.booleans(), st.integers(-2**70, 2**70), st.floats(), st.text(max_size=8), st.lists(st.integers(), max_size=2),
                   st.dictionaries(st.sampled_from(["convrot", "format"]), st.booleans()), st.sampled_from([row[1] for row in LAYERS.values()]))


@settings(max_examples=150, deadline=None)
@given(layer=st.sampled_from(sorted(LAYERS)), key=st.sampled_from(["format", "convrot", "params", "other"]), value=VALUES, pair=st.booleans())
def test_any_description_is_read_or_refused(tmp_path_factory, layer, key, value, pair):
    """Read as what the format means, or refused; never anything else."""
    arrays = {n: a for n, a in golden().items() if n.startswith(f"{layer}.")}
    told = {"format": LAYERS[layer][1], key: value}
    arrays[f"{layer}.comfy_quant"] = ("U8", text(told))
    metadata = None
    if pair:
        del arrays[f"{layer}.comfy_quant"]
        metadata = {PAIR: json.dumps({"layers": {layer: told}})}
    path = files.write(tmp_path_factory.mktemp("any") / "m.safetensors", arrays, metadata)
    with files.Checkpoint(path) as c:
        try:
            c.usable()
        except brc.Error as refused:
            assert refused.name in ("MALFORMED", "UNSUPPORTED", "FORMAT", "SHAPE"), refused
            return
        assert told["format"] == LAYERS[layer][1] and told.get("convrot") is not True
        np.testing.assert_array_equal(c[f"{layer}.weight"].values(), DECODERS["comfyui"](File(path), f"{layer}.weight").value)


@pytest.mark.parametrize("shape", [(2**63 - 1, 0), (0, 2**62), (0, 0)])
def test_weights_of_no_size(tmp_path, shape):
    """Sides that would overflow when they are rounded up."""
    arrays = {"m.weight": ("F8_E4M3", np.zeros(0, np.uint8)), "m.weight_scale": ("U8", np.zeros(0, np.uint8)), "m.comfy_quant": ("U8", text({"format": "mxfp8"}))}
    path = files.write(tmp_path / "m.safetensors", arrays)
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = raw[8:8 + size].replace(b'"m.weight": {"dtype": "F8_E4M3", "shape": [0]', f'"m.weight": {{"dtype": "F8_E4M3", "shape": {list(shape)}'.encode())
    path.write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + size:])
    with pytest.raises(brc.Error) as refused, files.Checkpoint(path) as c:
        c.usable()
    assert refused.value.name in ("OVERFLOW", "SHAPE", "MALFORMED")
