# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of other systems through Python: opened lazily, read by name, written again in any dialect."""
import copy
import json
import pickle

import numpy as np
import pytest

import breccia
import golden_files
from breccia import Float8BlockScaling, INT4Scaling, MXFP8BlockScaling, NVFP4BlockScaling, bridges


@pytest.fixture
def gptq(golden, tmp_path):
    """4-bit GPTQ with a shuffled g_idx, as recorded, beside a plain tensor: (path, expected values)."""
    from safetensors.numpy import save_file
    g = golden_files.load(golden / "gptq_awq.safetensors")
    save_file({"q.qweight": g["gptq4.qweight"], "q.qzeros": g["gptq4.qzeros_v1"], "q.scales": g["gptq4.scales"], "q.g_idx": g["gptq4.g_idx"],
               "norm.weight": np.arange(4, dtype=np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}}))
    return tmp_path, g["gptq4.deq"].T


def test_a_mapping_that_reads_when_asked(gptq):
    path, values = gptq
    checkpoint = breccia.open(path)
    assert list(checkpoint) == ["norm.weight", "q.weight"] and len(checkpoint) == 2 and "q.weight" in checkpoint
    assert repr(checkpoint).endswith("2 tensors, 1 of them scaled)")
    entry = checkpoint.entry("q.weight")
    assert entry.dialect == "gptq" and entry.shape == (64, 128) and "less one" in entry.evidence
    assert {part.role for part in entry.parts} == {"data", "scale", "zero_point", "group_index"}
    st = checkpoint["q.weight"]
    assert st.shape == (64, 128) and st.storage_shape == (64, 64) and st.zero_point.shape == st.scale.shape == (64, 4)
    golden_files.same(breccia.dequantize(st), np.ascontiguousarray(values), "gptq")
    norm = checkpoint["norm.weight"]
    assert (norm == np.arange(4, dtype=np.float32)).all() and not norm.flags.writeable
    del checkpoint                                              # what it gave keeps the file open
    golden_files.same(breccia.dequantize(st), np.ascontiguousarray(values), "gptq")
    with pytest.raises(KeyError):
        breccia.open(path)["none"]


@pytest.mark.parametrize("framework", ["torch", "jax", "mlx"])
def test_other_frameworks(torch, jax, mx, gptq, framework):
    st = breccia.open(gptq[0], framework=framework)["q.weight"]
    golden_files.same(np.asarray(breccia.dequantize(st)), np.ascontiguousarray(gptq[1]), "gptq")
    assert bridges.from_dlpack(st, "numpy") == breccia.open(gptq[0])["q.weight"]


def test_ambiguity_is_an_error_and_dialect_decides(gptq):
    path, values = gptq
    (path / "config.json").unlink()
    with pytest.raises(ValueError, match="two readings fit"):
        bridges.load_safetensors(path)
    assert [f.severity for f in breccia.open(path).findings] == ["ambiguity"]
    assert set(bridges.load_safetensors(path, dialect="gptq")) == {"q.weight"}
    with pytest.raises(ValueError, match="there is no dialect 'gtpq'"):
        breccia.open(path, "gtpq")


def test_what_comes_from_a_dialect_goes_back_to_it(gptq, tmp_path):
    """The same arrays bit for bit: with its origin, and with the value alone."""
    from safetensors.numpy import load_file
    import dataclasses
    path, _ = gptq
    before = load_file(path / "model.safetensors")
    st = breccia.open(path)["q.weight"]
    for name, value in {"origin": st, "alone": dataclasses.replace(st, origin=None)}.items():
        bridges.save_safetensors({"q.weight": value}, tmp_path / name, dialect="gptq")
        after = load_file(tmp_path / name / "model.safetensors")
        assert set(after) == {"q.qweight", "q.qzeros", "q.scales", "q.g_idx"}
        for key, array in after.items():
            assert array.dtype == before[key].dtype and (array == before[key]).all(), (name, key)
        config = json.loads((tmp_path / name / "config.json").read_text())["quantization_config"]
        assert config["quant_method"] == "gptq" and config["bits"] == 4 and config["group_size"] == 32 and config["desc_act"] is True


def test_numbers_of_another_system_in_breccias_file(gptq, tmp_path):
    st = breccia.open(gptq[0])["q.weight"]
    bridges.save_safetensors({"w": st}, tmp_path / "b.safetensors")
    again = bridges.load_safetensors(tmp_path / "b.safetensors")["w"]
    assert again == st and again.recipe == st.recipe
    with pytest.raises(ValueError, match="nothing can be cast to it"):
        breccia.cast(np.ones((2, 128), np.float32), st.recipe)


@pytest.mark.parametrize("recipe", [Float8BlockScaling(block_m=128, partial=True), Float8BlockScaling(block_m=128, power_of_two=True, partial=True)])
def test_deepseek_folders(torch, x, tmp_path, recipe):
    from safetensors.torch import load_file
    w = np.tile(x, (20, 1))
    st = breccia.cast(w, recipe)
    bridges.save_safetensors({"up.weight": st, "norm.weight": np.ones(4, np.float32)}, tmp_path / "out", dialect="deepseek",
                             config='{"model_type": "x"}')
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings["model_type"] == "x" and settings["quantization_config"]["weight_block_size"] == [128, 128]
    arrays = load_file(tmp_path / "out" / "model.safetensors")
    scales = arrays["up.weight_scale_inv"].numpy()
    expected = arrays["up.weight"].to(torch.float32).numpy() * np.repeat(np.repeat(scales, 128, 0), 128, 1)[:160]
    again = breccia.open(tmp_path / "out")["up.weight"]
    assert (breccia.dequantize(again) == expected).all() and (breccia.dequantize(again) == breccia.dequantize(st)).all()
    assert type(again.recipe) is Float8BlockScaling and again.recipe.block_m == 128


def test_a_dialect_without_a_place_for_the_recipe(x, tmp_path):
    with pytest.raises(NotImplementedError, match="deepseek stores e4m3 in 128x128 blocks"):
        bridges.save_safetensors({"w": breccia.cast(x, INT4Scaling())}, tmp_path / "out", dialect="deepseek")
    assert not (tmp_path / "out").exists()


def test_a_closed_map_is_not_read(x, tmp_path):
    """Views outlive the mapping object: 200 opened and dropped checkpoints, each value used after its file is gone."""
    path = tmp_path / "m.safetensors"
    bridges.save_safetensors({"w": breccia.cast(x, MXFP8BlockScaling()), "v": breccia.cast(x, NVFP4BlockScaling())}, path)
    kept = [breccia.open(path)[name] for _ in range(100) for name in ("w", "v")]
    path.unlink()
    assert all((breccia.dequantize(st) == breccia.dequantize(kept[i % 2])).all() for i, st in enumerate(kept))


def test_tensors_of_files_travel(x, tmp_path):
    """Copied with their way back, pickled without it; a checkpoint is pickled as its path."""
    path = tmp_path / "m.safetensors"
    bridges.save_safetensors({"w": breccia.cast(x, MXFP8BlockScaling())}, path)
    checkpoint = breccia.open(path)
    st = checkpoint["w"]
    for copied in (copy.copy(st), copy.deepcopy(st)):
        assert copied == st and copied.origin == st.origin
    again = pickle.loads(pickle.dumps(st))
    assert again == st and again.origin == (None, "w")
    bridges.save_safetensors({"w": again}, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    assert pickle.loads(pickle.dumps(checkpoint))["w"] == st


@pytest.mark.parametrize("framework", ["torch", "jax", "mlx"])
def test_other_libraries_do_not_write_into_files(torch, jax, mx, x, tmp_path, framework):
    """The map is read-only, which no library but NumPy knows: the others get a copy. A write into the map ends the process."""
    path = tmp_path / "m.safetensors"
    bridges.save_safetensors({"w": breccia.cast(x, MXFP8BlockScaling())}, path)
    st = breccia.open(path)["w"]
    moved = bridges.from_dlpack(st, framework)
    assert moved == st and not st.data.flags.writeable
    if framework == "torch":
        moved.data.view(torch.uint8)[:] = 0
        moved.scale[:] = 0
        assert moved != st and breccia.open(path)["w"] == st
    data, scale = bridges.to_dlpack(st)
    assert np.array_equal(torch.from_dlpack(data).numpy(), st.data) and np.array_equal(torch.from_dlpack(scale).numpy(), st.scale)
