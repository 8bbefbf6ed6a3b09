# SPDX-License-Identifier: Apache-2.0
"""breccia's own files: what Python writes, Python and libbreccia_file read; files of breccia 0.1 are read too."""
import dataclasses
import json

import numpy as np
import pytest

import breccia
import breccia_c
from breccia import INT4Scaling, NVFP4BlockScaling, bridges
from breccia.bridges import load_safetensors, save_safetensors
from recipes_list import ALL


def everything(x):
    tensors = {recipe.text: breccia.cast(x, recipe) for recipe in ALL}
    tensors["ragged"] = breccia.cast(x[:, :200], breccia.Float8BlockScaling(partial=True))
    return tensors | {"plain": x, "counts": np.arange(6).reshape(2, 3), "half": x.astype(np.float16)}


def test_round_trip(x, tmp_path):
    path, tensors = tmp_path / "model.safetensors", everything(x)
    save_safetensors(tensors, path, {"made by": "a test"})
    assert set(load_safetensors(path)) == {name for name, value in tensors.items() if isinstance(value, breccia.ScaledTensor)}
    again = load_safetensors(path, plain=True)
    assert set(again) == set(tensors)
    for name, value in tensors.items():
        if isinstance(value, breccia.ScaledTensor):
            assert again[name] == value and again[name].recipe == value.recipe and again[name].layout == value.layout
        else:
            assert again[name].dtype == value.dtype and (again[name] == value).all()


def test_the_safetensors_library_reads_it(x, tmp_path):
    from safetensors import safe_open
    path = tmp_path / "model.safetensors"
    save_safetensors({"w": breccia.cast(x, NVFP4BlockScaling()), "plain": x}, str(path), {"made by": "a test"})
    with safe_open(path, "np") as file:
        assert set(file.keys()) == {"w.data", "w.scale", "w.global_scale", "plain"}
        assert file.metadata()["made by"] == "a test" and (file.get_tensor("plain") == x).all()
        config = json.loads(file.metadata()["w.config"])
    assert config["version"] == 2 and config["recipe"]["name"] == "nvfp4" and config["shape"] == [8, 256]


def test_libbreccia_file_reads_it(x, tmp_path):
    """The same values through the C API, and no finding."""
    if not hasattr(breccia_c.lib, "brc_checkpoint_open"):
        pytest.skip("this build has no libbreccia_file")
    path, tensors = tmp_path / "model.safetensors", everything(x)
    save_safetensors(tensors, path)
    ffi, lib = breccia_c.ffi, breccia_c.lib
    checkpoint = ffi.new("brc_checkpoint **")
    breccia_c.call("brc_checkpoint_open", str(path).encode(), ffi.NULL, checkpoint)
    try:
        assert lib.brc_checkpoint_findings(checkpoint[0]) == 0
        for name, value in tensors.items():
            if not isinstance(value, breccia.ScaledTensor):
                continue
            entry = lib.brc_checkpoint_find(checkpoint[0], name.encode())
            owned = ffi.new("brc_owned *")
            breccia_c.call("brc_checkpoint_load", checkpoint[0], entry, owned)
            text = ffi.new("char[512]")
            lib.brc_recipe_text(ffi.addressof(owned.tensor.recipe), text, 512)
            assert ffi.string(text).decode() == value.recipe.text
            got = breccia_c.dequantize(breccia_c.Tensor(ffi.addressof(owned.tensor), owned))
            lib.brc_release(owned)
            assert (got == breccia.dequantize(value)).all(), name
    finally:
        lib.brc_checkpoint_close(checkpoint[0])


@pytest.mark.parametrize("framework", ["numpy", "torch", "jax", "mlx"])
def test_frameworks(torch, jax, mx, x, tmp_path, framework):
    path = tmp_path / "model.safetensors"
    st = bridges.from_dlpack(breccia.cast(x, NVFP4BlockScaling()), framework)
    save_safetensors({"w": st}, path)
    again = load_safetensors(path, framework)["w"]
    assert again == st and type(again.data) is type(st.data) and type(again.scale) is type(st.scale)


def test_one_code_a_byte_is_packed(x, tmp_path):
    st = breccia.cast(x, INT4Scaling())
    codes = np.stack([st.data & 15, st.data >> 4], -1).reshape(8, 256)
    path = tmp_path / "model.safetensors"
    save_safetensors({"w": dataclasses.replace(st, data=codes, shape=codes.shape)}, path)
    assert load_safetensors(path)["w"] == st


def test_files_of_the_old_package(x, tmp_path):
    """No version, 4-bit codes one a byte, NVFP4 with one level, float32 zero points."""
    from safetensors.numpy import save_file
    st = breccia.cast(x, INT4Scaling(signed=False, symmetric=False))
    codes = np.stack([st.data & 15, st.data >> 4], -1).reshape(8, 256)
    config = {"recipe": {"name": "int4", "fields": {"group_size": 128, "signed": False, "scale_dtype": "fp16", "symmetric": False}},
              "layout": {"name": "per_block_k", "fields": {"block_size": 128}}}
    path = tmp_path / "old.safetensors"
    save_file({"w.data": codes, "w.scale": st.scale, "w.zero_point": st.zero_point.astype(np.float32)}, path,
              {"w.config": json.dumps(config)})
    old = load_safetensors(path)["w"]
    assert old.shape == (8, 256) and (breccia.dequantize(old) == breccia.dequantize(st)).all()


def test_errors(x, tmp_path):
    path, st = tmp_path / "model.safetensors", breccia.cast(x, NVFP4BlockScaling())
    save_safetensors({"w": st}, path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="exists"):
        save_safetensors({"v": st}, path, overwrite=False)
    with pytest.raises(TypeError, match="array of NumPy"):
        save_safetensors({"w": [1.0]}, path)
    assert path.read_bytes() == before
    with pytest.raises(OSError, match="No such file"):
        load_safetensors(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(before[:-1])
    with pytest.raises(ValueError, match="broken.safetensors"):
        load_safetensors(tmp_path / "broken.safetensors")
    wide = dataclasses.replace(breccia.cast(x, INT4Scaling(scale_dtype="bf16")), scale=np.full((8, 2), 0.1, np.float32))
    with pytest.raises(ValueError, match="BF16"):
        save_safetensors({"w": wide}, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("change, text", [({"version": 3}, "version that this breccia does not know"), ({"shape": [8, 200]}, "shape do not agree"),
                                          ({"layout": {"name": "per_galaxy", "fields": {}}}, "per_galaxy")])
def test_descriptions_that_are_not_understood(x, tmp_path, change, text):
    from safetensors import safe_open
    from safetensors.numpy import save_file
    path = tmp_path / "model.safetensors"
    save_safetensors({"w": breccia.cast(x, NVFP4BlockScaling(levels=1))}, path)
    with safe_open(path, "np") as file:
        config = json.loads(file.metadata()["w.config"]) | change
    st = breccia.cast(x, NVFP4BlockScaling(levels=1))
    save_file({"w.data": st.data, "w.scale": st.scale}, path, {"w.config": json.dumps(config)})
    with pytest.raises((ValueError, NotImplementedError), match=f"w: its config.*{text}"):
        load_safetensors(path)


def test_all():
    assert set(bridges.__all__) >= {"save_safetensors", "load_safetensors", "to_dlpack", "from_dlpack", "from_deepseek_v3", "to_deepseek_v3"}


@pytest.mark.parametrize("recipe, layout", [
    (breccia.Float8BlockScaling(), breccia.PerBlockMN(1, 128)), (breccia.Float8BlockScaling(block_m=1), breccia.PerBlockK(128)),
    (breccia.MXFP8BlockScaling(), breccia.PerBlockK(32)), (INT4Scaling(64), breccia.PerBlockMN(1, 64)), (NVFP4BlockScaling(), breccia.PerBlockK(16))])
def test_the_layouts_name_comes_back(x, tmp_path, recipe, layout):
    """1xK blocks have two names; a tensor keeps its own, and its recipe."""
    st = dataclasses.replace(breccia.cast(x, recipe), layout=layout)
    save_safetensors({"w": st}, tmp_path / "m.safetensors")
    again = load_safetensors(tmp_path / "m.safetensors")["w"]
    assert again == st and again.layout == layout and again.recipe == recipe


@pytest.mark.parametrize("layout", [breccia.PerBlockMN(4, 64), breccia.PerBlockK(100, True), breccia.PerChannel(), breccia.PerTensor(), breccia.PerColumn()])
@pytest.mark.parametrize("recipe", [breccia.Float8BlockScaling(), breccia.Float8CurrentScaling(), breccia.MXFP8BlockScaling()])
def test_a_layout_that_is_not_the_recipes(x, tmp_path, recipe, layout):
    """Such tensors have values; their files are read again, with the same ones."""
    scale = np.exp2(np.arange(np.prod(layout._scale_shape(x.shape), dtype=int)) % 16).astype(np.float32).reshape(layout._scale_shape(x.shape))
    st = breccia.ScaledTensor(breccia.cast(x, recipe).data, scale[()] if scale.shape else np.float32(3), recipe, layout)
    save_safetensors({"w": st}, tmp_path / "m.safetensors")
    again = load_safetensors(tmp_path / "m.safetensors")["w"]
    assert again.layout == layout and np.array_equal(again.scale, st.scale)
    assert np.array_equal(breccia.dequantize(again), breccia.dequantize(st), equal_nan=True)


@pytest.mark.parametrize("tensors, metadata, text", [
    ([1], None, "a mapping from names"), ({1: np.ones(2)}, None, "names must be text, got 1"), ({"w": np.ones(2, np.complex64)}, None, "w: .*not understood"),
    ({}, {1: "a"}, "pairs of text"), ({}, {"a": 1}, "pairs of text"),
    ({}, {"a\0b": "c"}, "null character"), ({}, {"a": "b\0c"}, "null character")])
def test_what_cannot_be_saved(tmp_path, tensors, metadata, text):
    with pytest.raises((TypeError, ValueError), match=text):
        save_safetensors(tensors, tmp_path / "m.safetensors", metadata)
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize("change, kind, text", [({"data": None}, TypeError, "data must be array-like"), ({"scale": 1.0}, TypeError, "scale must be array-like"),
                                                ({"block_k": 0}, ValueError, "block_k must be")])
def test_deepseek_arguments(change, kind, text):
    with pytest.raises(kind, match=text):
        bridges.from_deepseek_v3(**{"data": np.zeros((4, 4), np.uint8), "scale": np.ones((1, 1), np.float32), **change})
