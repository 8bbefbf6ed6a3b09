# SPDX-License-Identifier: Apache-2.0
"""The dialect breccia: files of the Python package 0.1, files written here by hand, and every way to break one."""
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import breccia_c as brc
import checkpoint_files as files

OLD = Path(__file__).with_name("python_package_0.1.safetensors")
OLD_RECIPES = {"delayed": "fp8-delayed", "current": "fp8", "e5m2": "fp8:format=e5m2", "block": "fp8-block", "mxfp8": "mxfp8",
               "nvfp4": "nvfp4:levels=1", "int4": "int4", "int4_bf16": "int4:scale=bf16,block=1x64",
               "int4_zero": "int4:format=uint4,scale=f32,rule=minmax", "int4_unsigned": "int4:format=uint4",
               "int4_zero_fp16": "int4:format=uint4,rule=minmax", "block_of_torch": "fp8-block"}


@pytest.mark.parametrize("name", OLD_RECIPES)
def test_files_of_the_python_package_0_1_decode_to_its_own_values(name):
    expected = files.read(OLD)[0][f"{name}.expected"][1]
    with files.Checkpoint(OLD) as c:
        c.usable()
        entry = c[name]
        assert (entry.dialect, entry.recipe) == ("breccia", OLD_RECIPES[name])
        assert "0.1" in entry.evidence
        np.testing.assert_array_equal(entry.values(), expected)
        assert not c[f"{name}.expected"].scaled


def test_old_codes_beyond_four_bits_are_refused_when_loaded(tmp_path):
    arrays, metadata = files.read(OLD)
    data = arrays["int4.data"][1].copy()
    data[1, 7] = 16
    arrays["int4.data"] = ("U8", data)
    with files.Checkpoint(files.write(tmp_path / "m.safetensors", arrays, metadata)) as c:
        with pytest.raises(brc.Error, match="int4.data: byte 263 is 16"):
            c["int4"].tensor()


def described(recipe, fields, layout, sides, shape, version=2, **more):
    return json.dumps({"version": version, "recipe": {"name": recipe, "fields": fields}, "layout": {"name": layout, "fields": sides},
                       "shape": shape, **more})


def mx_file(path, rng, **changes):
    """An MXFP8 tensor [4,64] by hand: E4M3 codes with E8M0 bytes. `changes` replace parts, None removes them."""
    codes = rng.integers(0, 0x7F, (4, 64), dtype=np.uint8)
    parts = {"w.data": ("F8_E4M3", codes), "w.scale": ("U8", rng.integers(100, 140, (4, 2), dtype=np.uint8)),
             "config": described("mxfp8", {}, "per_block_mn", {"block_m": 1, "block_n": 32}, [4, 64])}
    parts.update(changes)
    config = parts.pop("config")
    return files.write(path, {k: v for k, v in parts.items() if v is not None}, {} if config is None else {"w.config": config}), codes, parts["w.scale"]


def test_values_follow_from_codes_and_exponents(tmp_path):
    path, codes, (_, scale) = mx_file(tmp_path / "m.safetensors", np.random.default_rng(0))
    expected = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * np.repeat(np.exp2(scale.astype(np.float32) - 127), 32, axis=1)
    with files.Checkpoint(path) as c:
        np.testing.assert_array_equal(c["w"].values(), expected)
        assert c["w"].parts == {"data": "w.data", "scale": "w.scale"}
        assert c["w"].meaning == "value = element * scale; one scale for each 1x32 block; a scale byte b is 2^(b - 127)"
        assert not c.findings


def test_one_block_is_not_one_tensor(tmp_path):
    """[1,1] is the shape of one block; [1] would fit by its count alone."""
    config = described("mxfp8", {}, "per_block_mn", {"block_m": 1, "block_n": 32}, [1, 32])
    parts = {"w.data": ("F8_E4M3", np.zeros((1, 32), np.uint8)), "config": config}
    for shape, fits in (((1, 1), True), ((1,), False), ((), False)):
        path, _, _ = mx_file(tmp_path / "m.safetensors", np.random.default_rng(0), **parts, **{"w.scale": ("U8", np.zeros(shape, np.uint8))})
        with files.Checkpoint(path) as c:
            assert c["w"].scaled == fits


def test_two_dialects_that_claim_one_array(tmp_path):
    path, _, _ = mx_file(tmp_path / "m.safetensors", np.random.default_rng(0), **{"w.data_scale_inv": np.ones((1, 1), np.float32)})
    with files.Checkpoint(path) as c:
        with pytest.raises(brc.Error, match=r"two readings fit: breccia \(metadata.*deepseek \(w.data_scale_inv F32 \[1,1\]") as stopped:
            c.usable()
        assert stopped.value.name == "AMBIGUOUS" and c.names() == ["w"]
    unused = "w.data_scale_inv is not used: read as breccia, as asked"      # what the other reading keeps as arrays is not lost
    for dialect, name, warned in (("breccia", "w", [unused]), ("deepseek", "w.data", [])):
        with files.Checkpoint(path, dialect) as c:
            c.usable()
            assert c[name].scaled and [f.text for f in c.findings if f.severity != "note"] == warned


def test_a_file_read_as_plain_says_what_it_looks_like(tmp_path):
    path, _, _ = mx_file(tmp_path / "m.safetensors", np.random.default_rng(0), **{"w.data": ("U8", np.zeros((4, 64), np.uint8)),
                                                                                   "v": ("F8_E4M3", np.zeros((1, 1), np.uint8)), "v_scale_inv": np.ones((1, 1), np.float32)})
    with files.Checkpoint(path, "plain") as c:
        c.usable()
        assert {f.tensor for f in c.findings if f.severity == "warning" and "as asked" in f.text} == {"w", "v"}
        assert c.names() == ["v", "v_scale_inv", "w.data", "w.scale"]


@pytest.mark.parametrize("word", ["U8", "F8_E8M0"])
def test_exponents_are_read_from_either_type(tmp_path, word):
    path, _, _ = mx_file(tmp_path / "m.safetensors", np.random.default_rng(0), **{"w.scale": (word, np.full((4, 2), 127, np.uint8))})
    with files.Checkpoint(path) as c:
        c.usable()


def test_a_scale_that_lies_at_an_odd_address_and_in_another_shard(tmp_path):
    rng = np.random.default_rng(3)
    codes, scale = rng.integers(0, 0x7F, (2, 128), dtype=np.uint8), rng.random((2, 1), np.float32)
    config = described("block", {}, "per_block_k", {"block_size": 128}, [2, 128])
    files.write(tmp_path / "a.safetensors", {"w.data": ("F8_E4M3", codes)}, {"w.config": config})
    files.write(tmp_path / "b.safetensors", {"odd": np.zeros(1, np.uint8), "w.scale": scale})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {"total_size": 256 + 9}, "weight_map": {"w.data": "a.safetensors", "w.scale": "b.safetensors", "odd": "b.safetensors"}}))
    with files.Checkpoint(tmp_path) as c:
        c.usable()
        np.testing.assert_array_equal(c["w"].values(), codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale)
        assert c.names() == ["odd", "w"]


FAULTS = {
    "no scale": ({"w.scale": None}, "MALFORMED", "scale is missing"),
    "no data": ({"w.data": None}, "MALFORMED", "w.data is missing"),
    "no description": ({"config": None}, "MALFORMED", "description"),
    "scale transposed": ({"w.scale": ("U8", np.zeros((2, 4), np.uint8))}, "MALFORMED", r"\[2,4\].*\[4,64\].*\[4,2\]"),
    "scale of another length": ({"w.scale": ("U8", np.zeros((4, 3), np.uint8))}, "MALFORMED", r"\[4,3\].*needs \[4,2\]"),
    "scale of another type": ({"w.scale": np.ones((4, 2), np.float32)}, "MALFORMED", "F32, but its recipe says e8m0"),
    "data of another type": ({"w.data": ("F8_E5M2", np.zeros((4, 64), np.uint8))}, "MALFORMED", "F8_E5M2"),
    "data of another shape": ({"w.data": ("F8_E4M3", np.zeros((64, 4), np.uint8))}, "MALFORMED", r"\[64,4\]"),
    "a group index on exponents": ({"w.group_index": np.zeros(64, np.int32)}, "MALFORMED", "group_index has no place"),
    "a zero point on exponents": ({"w.zero_point": np.zeros((4, 2), np.uint8)}, "MALFORMED", "zero_point has no place"),
    "a recipe name that contradicts its row": ({"config": described("int4", {"row": "mxfp8"}, "per_block_mn", {"block_m": 1, "block_n": 32}, [4, 64])},
                                               "MALFORMED", "contradicts itself: the recipe int4 has no row mxfp8"),
    "a row by the name of another's file": ({"config": described("mxfp8", {"row": "custom", "format": "e4m3", "scale": "e8m0"}, "per_block_mn",
                                                                 {"block_m": 1, "block_n": 32}, [4, 64])}, "MALFORMED", "contradicts itself"),
    "a scale too many": ({"w.global_scale": np.float32(2)}, "MALFORMED", "global_scale has no place"),
    "not JSON": ({"config": "{\"recipe\":, \"layout\""}, "MALFORMED", "not valid JSON"),
    "a key twice": ({"config": '{"version":2,"version":2,"recipe":{},"layout":{}}'}, "MALFORMED", "not valid JSON"),
    "version 3": ({"config": described("mxfp8", {}, "per_block_mn", {"block_m": 1, "block_n": 32}, [4, 64], 3)}, "UNSUPPORTED", "version"),
    "unknown recipe": ({"config": described("mxfp9", {}, "per_block_mn", {"block_m": 1, "block_n": 32}, [4, 64])}, "MALFORMED", "mxfp9"),
    "unknown field": ({"config": described("mxfp8", {"spin": 1}, "per_block_mn", {"block_m": 1, "block_n": 32}, [4, 64])}, "UNSUPPORTED", "spin"),
    "unknown member": ({"config": described("mxfp8", {}, "per_block_mn", {"block_m": 1, "block_n": 32}, [4, 64], tables=1)}, "UNSUPPORTED", "tables"),
    "unknown layout": ({"config": described("mxfp8", {}, "per_cube", {}, [4, 64])}, "UNSUPPORTED", "per_cube"),
    "a block of zero": ({"config": described("mxfp8", {}, "per_block_mn", {"block_m": 0, "block_n": 32}, [4, 64])}, "MALFORMED", "block_m"),
    "no shape": ({"config": json.dumps({"version": 2, "recipe": {"name": "mxfp8", "fields": {}},
                                        "layout": {"name": "per_block_mn", "fields": {"block_m": 1, "block_n": 32}}})}, "MALFORMED", "shape"),
    "negative shape": ({"config": described("mxfp8", {}, "per_block_mn", {"block_m": 1, "block_n": 32}, [-4, 64])}, "MALFORMED", "dimension"),
    "ragged without partial": ({"config": described("mxfp8", {}, "per_block_mn", {"block_m": 1, "block_n": 48}, [4, 64])}, "MALFORMED", "divisible"),
    "a recipe field that smuggles another": ({"config": described("mxfp8", {"rule": "floor,block=1x64"}, "per_block_mn",
                                                                  {"block_m": 1, "block_n": 32}, [4, 64])}, "MALFORMED", "strange"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_and_stops_a_command(tmp_path, fault):
    changes, status, words = FAULTS[fault]
    path, _, _ = mx_file(tmp_path / "m.safetensors", np.random.default_rng(0), **changes)
    with files.Checkpoint(path) as c:
        with pytest.raises(brc.Error, match=words) as stopped:
            c.usable()
        assert stopped.value.name == status
        errors = [f for f in c.findings if f.severity == "error"]
        assert [(f.tensor, f.file) for f in errors] == [("w", str(path))]
        assert not c["w"].scaled
        with pytest.raises(brc.Error):
            c["w"].tensor()


def test_metadata_of_others_that_ends_alike_is_left_alone(tmp_path):
    path = files.write(tmp_path / "m.safetensors", {"w": np.zeros((2, 2), np.float32)}, {"model.config": "{\"layers\": 2}", "x.config": "text"})
    with files.Checkpoint(path) as c:
        assert not c.findings and c.names() == ["w"]


def test_group_index_out_of_range_is_refused_before_it_is_used(tmp_path):
    arrays = {"w.data": np.zeros((4, 32), np.uint8), "w.scale": np.ones((4, 2), np.float16), "w.group_index": np.full(64, 2, np.int32)}
    config = described("int4", {}, "per_block_k", {"block_size": 32}, [4, 64])
    for column, fits in ((1, True), (2, False)):
        arrays["w.group_index"][:] = column
        with files.Checkpoint(files.write(tmp_path / "m.safetensors", arrays, {"w.config": config})) as c:
            c.usable()
            if fits:
                c["w"].tensor()
    with files.Checkpoint(tmp_path / "m.safetensors") as c:
        with pytest.raises(brc.Error, match="group_index"):
            c["w"].tensor()
        assert any(f.severity == "error" and "group_index" in f.text for f in c.verify())


@pytest.mark.parametrize("word", ["F8_E4M3", "F8_E5M2", "F8_E8M0"])
def test_codes_that_a_described_file_does_not_describe_are_plain(tmp_path, word):
    codes = np.arange(8, dtype=np.uint8).reshape(2, 4)
    path, _, _ = mx_file(tmp_path / "m.safetensors", np.random.default_rng(0), odd=(word, codes))
    with files.Checkpoint(path) as c:
        c.usable()
        assert [(f.severity, f.tensor) for f in c.findings] == [("note", "odd")] and "plain numbers" in c.findings[0].text
        assert c["odd"].dialect == "plain" and not c["odd"].scaled and c["w"].scaled
    path, _, _ = mx_file(path, np.random.default_rng(0), odd=(word, codes), config=None)       # nothing says who wrote it
    with files.Checkpoint(path) as c, pytest.raises(brc.Error):
        c.usable()
    files.write(path, {"odd": (word, codes)}, {"w.config": "no description"})
    with files.Checkpoint(path) as c, pytest.raises(brc.Error, match="plain cast"):
        c.usable()


@pytest.mark.parametrize("recipe, dialect", [("mxfp4", "breccia"), ("fp8-block128", "deepseek")])
def test_what_quantize_carries_as_plain_is_read_back(tmp_path, recipe, dialect):
    codes = np.arange(64, dtype=np.uint8).reshape(1, 64)
    source = files.write(tmp_path / "odd.safetensors", {"odd": ("F8_E4M3", codes), "a.weight": np.ones((32, 64), np.float32)})
    quantized, back, again = (tmp_path / f"{n}.safetensors" for n in "qba")
    chosen = brc.recipe(recipe)
    options = brc.new("brc_quantize_options", recipe=chosen, dialect=brc.lib.brc_dialect_find(dialect.encode()))
    with files.Checkpoint(source, "plain") as c:
        brc.call("brc_quantize_checkpoint", c.c, bytes(quantized), options)
    files.dequantize(quantized, back, "f32")
    files.quantize(back, again, "int8")
    for path in (quantized, back, again):
        with files.Checkpoint(path) as c:
            c.usable()
            assert not c["odd"].scaled and [f.severity for f in c.findings if f.tensor == "odd"] == ["note"]
    arrays = files.read(back)[0]
    assert arrays["odd"][0] == "F8_E4M3" and arrays["odd"][1].tobytes() == codes.tobytes()
    np.testing.assert_array_equal(arrays["a.weight"][1], np.ones((32, 64), np.float32))


@pytest.mark.parametrize("word", ["U8", "F8_E4M3", "F8_E5M2"])
def test_the_wrong_dialect_asked_for_is_told_the_right_one(tmp_path, word):
    path, _, _ = mx_file(tmp_path / "m.safetensors", np.random.default_rng(0), **{"w.data": (word, np.zeros((4, 64), np.uint8))})
    with files.Checkpoint(path, "deepseek") as c, pytest.raises(brc.Error, match=r"this is breccia \(w.data\), not deepseek"):
        c.usable()


def test_two_tensors_of_one_name_are_refused(tmp_path):
    path, _, _ = mx_file(tmp_path / "m.safetensors", np.random.default_rng(0), w=np.zeros(3, np.float32))
    with files.Checkpoint(path) as c, pytest.raises(brc.Error, match="two tensors have this name"):
        c.usable()


def test_names_are_ordered_as_people_count(tmp_path):
    names = ["layers.10.w", "layers.2.w", "layers.02.w", "a", "layers.1.w", "layers.2", "b10", "b9"]
    path = files.write(tmp_path / "m.safetensors", {n: np.zeros(1, np.float32) for n in names})
    with files.Checkpoint(path) as c:
        assert c.names() == ["a", "b9", "b10", "layers.1.w", "layers.2", "layers.02.w", "layers.2.w", "layers.10.w"]
        assert c["layers.2.w"].name == "layers.2.w" and c["layers.02.w"].name == "layers.02.w"


# ------------------------------------------------------------------------------------ stored: numbers of other systems

def test_numbers_of_another_system_are_described(tmp_path):
    """What a table of zero points, a divisor or an amax means is said, so that the values come back."""
    rng = np.random.default_rng(4)
    codes, scale = rng.integers(0, 256, (4, 16), dtype=np.uint8), rng.uniform(0.5, 2, (4, 1)).astype(np.float16)
    zero, real = rng.integers(0, 16, (4, 1), dtype=np.uint8), rng.standard_normal((4, 1)).astype(np.float32)
    nibbles = np.stack([codes & 15, codes >> 4], axis=-1).reshape(4, 32).astype(np.float32)
    s32 = scale.astype(np.float32)
    fields = {"row": "stored", "format": "uint4", "scale": "f16"}
    expected = {"code": (nibbles - zero) * s32, "real": nibbles * s32 + real}
    for kind, (word, table) in {"code": ("uint8", zero), "real": ("f32/real", real)}.items():
        config = {"version": 2, "recipe": {"name": "stored", "fields": fields | {"zero": word}},
                  "layout": {"name": "per_block_k", "fields": {"block_size": 32}}, "shape": [4, 32]}
        path = files.write(tmp_path / f"{kind}.safetensors", {"w.data": codes, "w.scale": scale, "w.zero_point": table}, {"w.config": json.dumps(config)})
        with files.Checkpoint(path) as c:
            c.usable()
            assert not c.findings
            np.testing.assert_array_equal(c["w"].values(), expected[kind])


@pytest.mark.parametrize("word, number", [("divisor", 0.37), ("amax/2688", 123.4), ("multiplier", 0.1)])
def test_a_global_scale_of_any_direction(tmp_path, word, number):
    codes, scale = np.full((2, 8), 0x72, np.uint8), np.full((2, 1), 0x3A, np.uint8)
    config = {"version": 2, "recipe": {"name": "stored", "fields": {"row": "stored", "format": "e2m1", "scale": "e4m3", "levels": 2, "global": word}},
              "layout": {"name": "per_block_mn", "fields": {"block_m": 1, "block_n": 16}}, "shape": [2, 16]}
    path = files.write(tmp_path / "m.safetensors", {"w.data": codes, "w.scale": ("F8_E4M3", scale), "w.global_scale": np.float32(number)},
                       {"w.config": json.dumps(config)})
    s, g = np.float32(1.25), np.float32(number)
    m = {"divisor": lambda: s / g, "amax/2688": lambda: s * g * (np.float32(1) / np.float32(2688)), "multiplier": lambda: s * g}[word]()
    with files.Checkpoint(path) as c:
        c.usable()
        np.testing.assert_array_equal(c["w"].values(), np.tile(np.array([1, 6], np.float32) * m, (2, 8)))
