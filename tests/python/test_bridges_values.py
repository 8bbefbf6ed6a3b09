# SPDX-License-Identifier: Apache-2.0
"""Bridges for arrays in memory: DLPack capsules that drop no scale silently, DeepSeek-V3's pair, state dicts."""
import warnings

import ml_dtypes
import numpy as np
import pytest

import breccia
from breccia import Float8BlockScaling, Float8CurrentScaling, INT4Scaling, MXFP8BlockScaling, NVFP4BlockScaling, bridges


@pytest.mark.parametrize("recipe, beyond", [(NVFP4BlockScaling(), "global_scale"), (INT4Scaling(signed=False, symmetric=False), "zero_point")])
def test_dlpack_names_what_a_pair_leaves_out(x, recipe, beyond):
    st = breccia.cast(x, recipe)
    with pytest.warns(UserWarning, match=f"the values also need {beyond}"):
        pair = bridges.to_dlpack(st)
    assert len(pair) == 2 and getattr(pair, beyond) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = bridges.to_dlpack(st, parts="all")
        assert len(parts) == 5 and len(bridges.to_dlpack(breccia.cast(x, MXFP8BlockScaling()))) == 2
    assert parts[0] is parts.data and parts[1] is parts.scale and parts[2] is parts.zero_point and parts[3] is parts.global_scale
    assert [part is None for part in parts] == [False, False, beyond != "zero_point", beyond != "global_scale", True]
    with pytest.raises(ValueError, match="'pair' or 'all'"):
        bridges.to_dlpack(st, parts="some")


def test_dlpack_shares_memory(torch, x):
    st = breccia.cast(torch.from_numpy(x.copy()), NVFP4BlockScaling())
    parts = bridges.to_dlpack(st, parts="all")
    again = [None if part is None else torch.from_dlpack(part) for part in parts]
    for mine, theirs in zip(again, (st.data, st.scale, st.zero_point, st.global_scale, st.group_index)):
        assert (mine is None and theirs is None) or mine.data_ptr() == theirs.data_ptr()


def deepseek_values(data, scale, block):
    full = np.repeat(np.repeat(scale, block[0], -2), block[1], -1)[..., :data.shape[-2], :data.shape[-1]]
    return data.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * full


@pytest.mark.parametrize("shape, sides, block", [((256, 384), (2, 3), (128, 128)), ((140, 264), (2, 3), (128, 128)), ((140, 264), (140, 3), (1, 128)),
                                                 ((3, 140, 256), (3, 2, 2), (128, 128)), ((1, 128), (1, 1), (1, 128))])
def test_deepseek_v3(shape, sides, block):
    rng = np.random.default_rng(3)
    data, scale = rng.integers(0, 0x7F, shape, dtype=np.uint8), rng.uniform(0.5, 2, sides).astype(np.float32)
    st = bridges.from_deepseek_v3(data, scale)
    assert st.data is data and st.scale is scale and isinstance(st.recipe, Float8BlockScaling)
    assert st.layout._block[1:] == block and st.recipe.block_m == block[0]
    assert (breccia.dequantize(st) == deepseek_values(data, scale, block)).all()
    back = bridges.to_deepseek_v3(st)
    assert back[0] is data and back[1] is scale


@pytest.mark.parametrize("sides, words", [((3, 2), "is transposed"), ((6,), "must be"), ((256, 4), "must be"), ((), "must be")])
def test_a_scale_of_another_shape(sides, words):
    with pytest.raises(ValueError, match=words):
        bridges.from_deepseek_v3(np.zeros((256, 384), np.uint8), np.ones(sides, np.float32))


@pytest.mark.parametrize("data, scale, format, words", [
    (ml_dtypes.float8_e4m3fn, np.float32, "E5M2", "data is float8_e4m3fn"), (ml_dtypes.float8_e5m2, np.float32, "E4M3", "data is float8_e5m2"),
    (ml_dtypes.float8_e4m3fnuz, np.float32, "E4M3", "data is float8_e4m3fnuz"), (np.uint8, np.uint8, "E4M3", "scale must be float32, got uint8.*127"),
    (np.uint8, np.float64, "E4M3", "scale must be float32, got float64")])
def test_types_that_would_mean_other_values(data, scale, format, words):
    with pytest.raises(ValueError, match=words):
        bridges.from_deepseek_v3(np.zeros((256, 384), data), np.ones((2, 3), scale), fp8_format=format)


def test_deepseek_v3_takes_its_own_recipe_only(x):
    for recipe in (Float8CurrentScaling(), MXFP8BlockScaling(), Float8BlockScaling(block_k=64)):
        st = breccia.cast(x, recipe)
        if recipe == Float8BlockScaling(block_k=64):
            assert bridges.to_deepseek_v3(st)[1] is st.scale
            continue
        with pytest.raises(NotImplementedError, match="Float8BlockScaling"):
            bridges.to_deepseek_v3(st)
    with pytest.raises(TypeError, match="ScaledTensor"):
        bridges.to_deepseek_v3(x)


@pytest.mark.parametrize("framework", ["numpy", "torch", "jax", "mlx"])
def test_a_state_dict(torch, jax, mx, x, framework):
    st = breccia.cast(np.tile(x, (16, 1)), Float8BlockScaling(block_m=128))
    state, texts = bridges.to_state_dict({"up.weight": st, "norm.weight": np.ones(4, np.float32)}, "deepseek", framework)
    assert set(state) == {"up.weight", "up.weight_scale_inv", "norm.weight"} and texts["config.json"]["quantization_config"]["quant_method"] == "fp8"
    weight, scale = np.asarray(state["up.weight"] if framework != "torch" else state["up.weight"].view(torch.uint8)), np.asarray(state["up.weight_scale_inv"])
    assert (deepseek_values(weight.view(np.uint8), scale, (128, 128)) == breccia.dequantize(st)).all()
    with pytest.raises(NotImplementedError, match="deepseek stores"):
        bridges.to_state_dict({"up.weight": breccia.cast(x, INT4Scaling())}, "deepseek")


RECIPES = {"float-quantized": breccia.Float8RowScaling(), "float-quantized, blocks": Float8BlockScaling(block_m=128), "mxfp8-quantized": MXFP8BlockScaling(),
           "mxfp4-pack-quantized": breccia.MXFP4BlockScaling(), "nvfp4-pack-quantized": breccia.NVFP4BlockScaling(), "int-quantized": breccia.INT8Scaling(),
           "pack-quantized": INT4Scaling()}


@pytest.mark.parametrize("format", RECIPES)
def test_compressed_tensors_decompresses_the_state_dict(torch, format):
    """The library itself, by the configuration that goes with it."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig
    w = np.random.default_rng(5).standard_normal((128, 256)).astype(np.float32)
    st = breccia.cast(w, RECIPES[format])
    state, config = bridges.to_compressed_tensors({"up.weight": st, "norm.weight": w[0]})
    assert config["quant_method"] == "compressed-tensors" and config["format"] == format.split(",")[0] and torch.equal(state["norm.weight"], torch.from_numpy(w[0]))
    scheme = QuantizationConfig.model_validate(config).config_groups["group_0"]
    arrays = {name.removeprefix("up."): array for name, array in state.items() if name.startswith("up.")}
    theirs = BaseCompressor.get_value_from_registry(scheme.format or config["format"]).decompress(arrays, scheme)["weight"]
    ours = torch.from_numpy(breccia.dequantize(st))
    if "nvfp4" in format:             # its divisor is the reciprocal of our multiplier, rounded
        assert (theirs.float() - ours).abs().max() <= 2**-8 * ours.abs().max()
    else:
        assert torch.equal(theirs, ours.to(theirs.dtype))


def test_compressed_tensors_has_no_place_for_others():
    with pytest.raises(NotImplementedError, match="compressed-tensors stores"):
        bridges.to_compressed_tensors({"up.weight": breccia.cast(np.ones((4, 32), np.float32), breccia.MXINT8BlockScaling())}, "numpy")
    assert bridges.to_compressed_tensors({"norm.weight": np.ones(4, np.float32)}, "numpy")[1] == {}


@pytest.mark.parametrize("recipe", ["q4_0", "q5_1", "q8_0", "mxfp4"])
def test_gguf_py_takes_the_blocks_of_a_state_dict(tmp_path, recipe):
    """Its writer and its own dequantization."""
    import gguf
    w = np.random.default_rng(6).standard_normal((8, 96)).astype(np.float32)
    st = breccia.cast(w, breccia.recipes.from_text(recipe))
    state, texts = bridges.to_state_dict({"blk.0.ffn_up.weight": st, "output_norm.weight": w[0]}, "gguf", "numpy")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    for name, array in state.items():
        writer.add_tensor(name, array, raw_dtype=gguf.GGMLQuantizationType[texts["types"][name]] if name in texts["types"] else None)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    up, = (t for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors if t.name == "blk.0.ffn_up.weight")
    np.testing.assert_array_equal(gguf.quants.dequantize(up.data, up.tensor_type), breccia.dequantize(st))
    np.testing.assert_array_equal(breccia.dequantize(breccia.open(tmp_path / "model.gguf")["blk.0.ffn_up.weight"]), breccia.dequantize(st))
