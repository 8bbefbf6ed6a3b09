# SPDX-License-Identifier: Apache-2.0
"""cast, dequantize, requantize on NumPy arrays: shapes, types, and the bits of torchao and ml_dtypes in the same process."""
import dataclasses
import subprocess
import sys

import numpy as np
import pytest

import breccia
from breccia import (DelayedScaling, Float8BlockScaling, Float8CurrentScaling, Float8RowScaling, INT4Scaling, INT8Scaling,
                     MXFP4BlockScaling, MXFP6BlockScaling, MXFP8BlockScaling, MXINT8BlockScaling, NVFP4BlockScaling, PerBlockK,
                     PerBlockMN, PerChannel, PerTensor)
from recipes_list import ALL, IDS

CONTRACT = [   # recipe, layout, storage shape, data dtype, scale shape, scale dtype of a cast of [8, 256]
    (DelayedScaling(), PerTensor(), (8, 256), "u1", (), "f4"),
    (Float8CurrentScaling("E5M2"), PerTensor(), (8, 256), "u1", (), "f4"),
    (Float8BlockScaling(), PerBlockK(128), (8, 256), "u1", (8, 2), "f4"),
    (Float8BlockScaling(block_k=64), PerBlockK(64), (8, 256), "u1", (8, 4), "f4"),
    (Float8BlockScaling(block_m=8), PerBlockMN(8, 128), (8, 256), "u1", (1, 2), "f4"),
    (MXFP8BlockScaling(), PerBlockMN(1, 32), (8, 256), "u1", (8, 8), "u1"),
    (NVFP4BlockScaling(), PerBlockMN(1, 16), (8, 128), "u1", (8, 16), "u1"),
    (INT4Scaling(), PerBlockK(128), (8, 128), "u1", (8, 2), "f2"),
    (INT4Scaling(scale_dtype="bf16"), PerBlockK(128), (8, 128), "u1", (8, 2), "f4"),
    (INT4Scaling(scale_dtype="fp32"), PerBlockK(128), (8, 128), "u1", (8, 2), "f4"),
    (Float8RowScaling(), PerChannel(), (8, 256), "u1", (8, 1), "f4"),
    (MXFP6BlockScaling(), PerBlockMN(1, 32), (8, 192), "u1", (8, 8), "u1"),
    (MXFP4BlockScaling(), PerBlockMN(1, 32), (8, 128), "u1", (8, 8), "u1"),
    (MXINT8BlockScaling(), PerBlockMN(1, 32), (8, 256), "i1", (8, 8), "u1"),
    (INT8Scaling(), PerChannel(), (8, 256), "i1", (8, 1), "f4"),
]


@pytest.mark.parametrize("recipe, layout, storage, dtype, scale_shape, scale_dtype", CONTRACT, ids=[c[0].text for c in CONTRACT])
def test_contract(x, recipe, layout, storage, dtype, scale_shape, scale_dtype):
    st = breccia.cast(x, recipe)
    assert type(st.data) is np.ndarray and type(st.scale) is np.ndarray
    assert (st.recipe, st.layout, st.shape, st.storage_shape) == (recipe, layout, (8, 256), storage)
    assert (st.data.dtype, st.scale.shape, st.scale.dtype) == (np.dtype(dtype), scale_shape, np.dtype(scale_dtype))
    two = isinstance(recipe, NVFP4BlockScaling)
    assert (st.global_scale is not None) == two and (not two or (st.global_scale.shape, st.global_scale.dtype) == ((), np.float32))
    layout.validate(st.data, st.scale, st.shape)


def test_asymmetric_int4(x):
    st = breccia.cast(x, INT4Scaling(signed=False, symmetric=False))
    assert st.zero_point.shape == st.scale.shape == (8, 2) and st.zero_point.dtype == np.uint8
    low, high = st.data & 15, st.data >> 4
    codes = np.stack([low, high], -1).reshape(8, 2, 128).astype(np.float32)
    want = (codes - st.zero_point[..., None].astype(np.float32)) * st.scale[..., None].astype(np.float32)
    assert (breccia.dequantize(st) == want.reshape(8, 256)).all()


def test_bf16_scales_are_float32_numbers(x, ml_dtypes):
    st = breccia.cast(x, INT4Scaling(scale_dtype="bf16"))
    assert (st.scale == st.scale.astype(ml_dtypes.bfloat16).astype(np.float32)).all()
    amax = np.abs(x.reshape(8, 2, 128)).max(-1)
    want = (amax / np.float32(7.5)).astype(ml_dtypes.bfloat16).astype(np.float32)
    assert (st.scale == want)[amax > 0].all()


@pytest.mark.parametrize("recipe", ALL, ids=IDS)
def test_zeros_and_specials(recipe):
    """A block of zeros: zeros and a finite positive scale (ggml's: 0). NaN stays NaN in FP8 and becomes 0 elsewhere, or the
    number nearest to it; infinity saturates."""
    st = breccia.cast(np.zeros((4, 256), np.float32), recipe)
    assert (breccia.dequantize(st) == 0).all()
    scale = breccia._formats._decode("e4m3", st.scale) if recipe._scale == "e4m3" else st.scale
    if recipe._scale != "e8m0":
        assert (scale == 0 if recipe.name == "ggml" else scale > 0).all() and np.isfinite(scale.astype(np.float64)).all()
    x = np.ones((4, 256), np.float32)
    x[0, 5] = np.nan
    y = breccia.dequantize(breccia.cast(x, recipe))
    near = {"iq4_nl": 0.1, "uint4": 1}.get(recipe._element, 0) if recipe.name == "ggml" else 0     # one step, or the minimum
    assert np.isnan(y[0, 5]) if recipe._element in ("e4m3", "e5m2") else abs(y[0, 5]) <= near
    assert np.isfinite(np.delete(y.reshape(-1), 5)).all() and (np.delete(y.reshape(-1), 5) != 0).all()
    x[0, 5] = np.inf
    y = breccia.dequantize(breccia.cast(x, recipe))
    assert not np.isnan(y).any() and y[0, 5] > 0


@pytest.mark.parametrize("recipe", ALL, ids=IDS)
@pytest.mark.parametrize("dtype", ["f2", "f8", "bfloat16"])
def test_input_types(x, recipe, dtype, ml_dtypes):
    """Each input is its float32 numbers (float64 rounded). TransformerEngine's block rule knows the input's type."""
    typed = x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    assert breccia.cast(typed, recipe) == breccia.cast(typed.astype(np.float32), recipe)


@pytest.mark.parametrize("recipe", ALL, ids=IDS)
def test_strides_and_batches(x, recipe):
    dense = breccia.cast(x, recipe)
    assert breccia.cast(np.asfortranarray(x), recipe) == dense
    wide = np.zeros((16, 512), np.float32)
    wide[::-2, ::2] = x
    assert breccia.cast(wide[::-2, ::2], recipe) == dense
    records = np.zeros((8, 256), [("a", "f4"), ("b", "u1")])
    records["a"] = x
    assert breccia.cast(records["a"], recipe) == dense
    three = breccia.cast(x.reshape(2, 4, 256), recipe)
    assert three.shape == (2, 4, 256) and (breccia.dequantize(three) == breccia.dequantize(dense).reshape(2, 4, 256)).all()


@pytest.mark.parametrize("recipe", ALL, ids=IDS)
def test_threads_do_not_matter(recipe):
    x = np.random.default_rng(1).standard_normal((256, 1024)).astype(np.float32)
    one = breccia.cast(x, recipe, threads=1)
    assert breccia.cast(x, recipe, threads=2) == one == breccia.cast(x, recipe)
    assert (breccia.dequantize(one, threads=2) == breccia.dequantize(one, threads=1)).all()


@pytest.mark.parametrize("bad, recipe, kind, text", [
    (np.ones(128, np.float32), MXFP8BlockScaling(), ValueError, "ndim >= 2"),
    (np.ones((2, 33), np.float32), MXFP8BlockScaling(), ValueError, "divisible"),
    (np.ones((2, 33), np.float32), NVFP4BlockScaling(), ValueError, "divisible"),
    (np.ones((2, 33), np.float32), INT4Scaling(), ValueError, "divisible"),
    (np.ones((2, 33), np.float32), Float8BlockScaling(), ValueError, "divisible"),
    (np.ones((), np.float32), Float8CurrentScaling(), ValueError, "1-D"),
    (np.ones((1,) * 9, np.float32), Float8CurrentScaling(), ValueError, "dimensions"),
    (np.ones((2, 32), np.int32), MXFP8BlockScaling(), TypeError, "int32"),
    (np.ones((2, 32), ">f4"), MXFP8BlockScaling(), TypeError, "understood"),
    (np.ones((2, 32), np.complex64), MXFP8BlockScaling(), TypeError, "format"),
    ([[1.0]], Float8CurrentScaling(), TypeError, "array of NumPy"),
    (np.ma.masked_array(np.ones((2, 32), np.float32), mask=True), MXFP8BlockScaling(), TypeError, "masked array"),
    (np.ones((2, 32), np.float32), "mxfp8", TypeError, "unsupported recipe: str"),
])
def test_errors(bad, recipe, kind, text):
    with pytest.raises(kind, match=text):
        breccia.cast(bad, recipe)


@pytest.mark.parametrize("threads, kind", [(-1, ValueError), (10**9, ValueError), (10**30, ValueError), (1.5, TypeError), ("2", TypeError), (None, TypeError)])
def test_threads_are_a_small_number(x, threads, kind):
    with pytest.raises(kind, match="threads must be"):
        breccia.cast(x, MXFP8BlockScaling(), threads=threads)


def test_empty():
    for recipe in ALL:
        st = breccia.cast(np.ones((0, 256), np.float32), recipe)
        assert st.shape == (0, 256) and breccia.dequantize(st).shape == (0, 256)
        assert st == breccia.cast(np.ones((0, 256), np.float32), recipe)


@pytest.mark.parametrize("dtype, name", [(np.float16, "float16"), (np.float64, "f64"), ("bfloat16", "bfloat16")])
def test_dequantize_types(x, ml_dtypes, dtype, name):
    st = breccia.cast(x, MXFP8BlockScaling())
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    wide = breccia.dequantize(st)
    for asked in (kind, np.dtype(kind), name):
        y = breccia.dequantize(st, asked)
        assert y.dtype == np.dtype(kind) and (y == wide.astype(kind)).all()
    assert breccia.dequantize(st, None).dtype == breccia.dequantize(st, "float32").dtype == np.float32
    for wrong in (np.int32, "int8", "float8", 5, float, np.dtype(">f4"), [1]):
        with pytest.raises(TypeError, match="dtype must be"):
            breccia.dequantize(st, wrong)


def test_dtypes_of_other_libraries(torch, jax, mx, x):
    st = breccia.cast(x, MXFP8BlockScaling())
    for dtype in (torch.float16, jax.numpy.float16, mx.float16):
        assert breccia.dequantize(st, dtype).dtype == np.float16 and breccia.matmul(st, x.T, dtype).dtype == np.float16


def test_bfloat16_needs_ml_dtypes(x, ml_dtypes, monkeypatch):
    """By name it is imported; where it is not there, one line says what to install."""
    code = "import numpy as np, breccia\nprint(breccia.dequantize(breccia.cast(np.ones((2, 32), np.float32), breccia.MXFP8BlockScaling()), 'bf16').dtype)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "bfloat16"
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(TypeError, match="pip install ml_dtypes"):
        breccia.dequantize(breccia.cast(x, MXFP8BlockScaling()), "bfloat16")


def test_dequantize_wants_a_scaled_tensor(x):
    with pytest.raises(TypeError, match="ScaledTensor is needed"):
        breccia.dequantize(x)


def test_parts_of_other_types(x, ml_dtypes):
    """Codes and scales as ml_dtypes arrays mean what their types say."""
    st = breccia.cast(x, MXFP8BlockScaling())
    typed = breccia.ScaledTensor(st.data.view(ml_dtypes.float8_e4m3fn), st.scale.view(ml_dtypes.float8_e8m0fnu), st.recipe, st.layout)
    assert (breccia.dequantize(typed) == breccia.dequantize(st)).all() and typed == st
    wide = breccia.ScaledTensor(st.data, np.ldexp(np.float32(1), st.scale.astype(np.int32) - 127), st.recipe, st.layout)
    assert (breccia.dequantize(wide) == breccia.dequantize(st)).all()


@pytest.mark.parametrize("part, dtype, wants", [
    ("data", "float8_e5m2", "e4m3"), ("data", "bool", "e4m3"), ("scale", "uint8", "f32"), ("scale", "int32", "f32"), ("scale", "bool", "f32"),
    ("scale", "complex64", "f32")])
def test_parts_of_wrong_types(x, ml_dtypes, part, dtype, wants):
    """Another 8-bit type is no FP8 code of this recipe, and an exponent's byte no scale."""
    kind = ml_dtypes.float8_e5m2 if dtype == "float8_e5m2" else dtype
    st = breccia.cast(x, Float8CurrentScaling())
    wrong = getattr(st, part).view(kind) if part == "data" else getattr(st, part).astype(kind)
    for use in (breccia.dequantize, lambda st: breccia.matmul(st, x.T), lambda st: breccia.requantize(st, MXFP8BlockScaling())):
        with pytest.raises(TypeError, match=f"{part} is .*the recipe wants {wants}"):
            use(dataclasses.replace(st, **{part: wrong}))


def test_exponents_are_bytes(x):
    st = breccia.cast(x, MXFP8BlockScaling())
    with pytest.raises(TypeError, match="scale is int8; the recipe wants e8m0"):
        breccia.dequantize(dataclasses.replace(st, scale=st.scale.view(np.int8)))
    asymmetric = breccia.cast(x, INT4Scaling(signed=False, symmetric=False))
    with pytest.raises(TypeError, match="zero_point is bool"):
        breccia.dequantize(dataclasses.replace(asymmetric, zero_point=asymmetric.zero_point > 0))


def test_blocks_beyond_32_bits(x):
    from breccia import _c
    st, out = breccia.cast(x, Float8BlockScaling()), np.empty((8, 256), np.float32)
    with pytest.raises(OverflowError, match="beyond 32 bits"):
        _c.dequantize((st.recipe._native, st.shape, 2, (1, 1, 2**32 + 128), st.data, st.scale, None, None, None), out, 0)


def test_parts_of_several_libraries(torch, x):
    st = breccia.cast(torch.from_numpy(x), INT4Scaling(signed=False, symmetric=False))
    mixed = dataclasses.replace(st, scale=st.scale.numpy(), zero_point=st.zero_point.numpy())
    assert torch.equal(breccia.dequantize(mixed), breccia.dequantize(st)) and mixed == st


def test_extension_checks_lengths(x):
    """Behind layout.validate, C's own check: a scale of another length is never read."""
    from breccia import _c
    st, out = breccia.cast(x, MXFP8BlockScaling()), np.empty((8, 256), np.float32)
    with pytest.raises(ValueError, match="scale has 63 numbers; the layout needs 64"):
        _c.dequantize((st.recipe._native, st.shape, 3, (1, 1, 32), st.data, st.scale.reshape(-1)[1:], None, None, None), out, 0)
    with pytest.raises(ValueError, match="data has 2047 bytes"):
        _c.dequantize((st.recipe._native, st.shape, 3, (1, 1, 32), st.data.reshape(-1)[1:], st.scale, None, None, None), out, 0)
    with pytest.raises(ValueError, match="shape"):
        _c.dequantize((st.recipe._native, st.shape, 3, (1, 1, 32), st.data, st.scale, None, None, None), out[1:], 0)
    with pytest.raises(ValueError, match="data has 10 bytes"):
        _c.cast(st.recipe._native, x, np.empty(10, np.uint8), st.scale, None, None, None, 0)


def test_requantize(x):
    st = breccia.cast(x, MXFP8BlockScaling())
    assert breccia.requantize(st, MXFP8BlockScaling()) == st
    for recipe in ALL:
        got = breccia.requantize(st, recipe)
        assert got.recipe == recipe and got.shape == st.shape
        want = breccia.dequantize(breccia.cast(breccia.dequantize(st), recipe))
        assert np.array_equal(breccia.dequantize(got), want) or recipe.text.startswith(("mxfp8", "fp8"))
    # Power-of-two scales fit float32: every value is kept, whatever codes are chosen.
    exact = breccia.requantize(st, Float8BlockScaling(block_k=32))
    assert (breccia.dequantize(exact) == breccia.dequantize(st)).all()


def test_float_zero_points(x):
    """Zero points may be real numbers in code units (breccia 0.1 stored float16)."""
    st = breccia.cast(x, INT4Scaling(signed=False, symmetric=False))
    real = breccia.ScaledTensor(st.data, st.scale, st.recipe, st.layout, st.zero_point.astype(np.float16))
    assert (breccia.dequantize(real) == breccia.dequantize(st)).all()


def test_group_index(x):
    st = breccia.cast(x, INT4Scaling(32))
    order = np.random.default_rng(0).permutation(256)
    codes = np.stack([st.data & 15, st.data >> 4], -1).reshape(8, 256)[:, order]
    packed = (codes[:, ::2] | codes[:, 1::2] << 4).astype(np.uint8)
    index = (order // 32).astype(np.int32)
    shuffled = breccia.ScaledTensor(packed, st.scale, st.recipe, st.layout, group_index=index)
    assert (breccia.dequantize(shuffled) == breccia.dequantize(st)[:, order]).all()
    with pytest.raises(ValueError, match="group_index"):
        breccia.dequantize(breccia.ScaledTensor(packed, st.scale, st.recipe, st.layout, group_index=index[:-1]))
    with pytest.raises(ValueError, match="group_index"):
        breccia.dequantize(breccia.ScaledTensor(packed, st.scale, st.recipe, st.layout, group_index=index + 1))


# ------------------------------------------------------------------------------------------ the peer libraries, live

def real(torch, seed=3, rows=64, cols=512):
    x = torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))
    return x * torch.exp2(torch.randint(-20, 20, (rows, 1), generator=torch.Generator().manual_seed(seed + 1)).float())


@pytest.mark.parametrize("rule", ["floor", "ceil", "even"])
@pytest.mark.parametrize("recipe, element", [(MXFP8BlockScaling, "float8_e4m3fn"), (MXFP4BlockScaling, "float4_e2m1fn_x2"),
                                             (lambda scale_rule: MXFP8BlockScaling("E5M2", scale_rule=scale_rule), "float8_e5m2")])
def test_mx_is_torchao(torch, recipe, element, rule):
    from torchao.prototype.mx_formats.config import ScaleCalculationMode
    from torchao.prototype.mx_formats.mx_tensor import MXTensor
    x = real(torch)
    theirs = MXTensor.to_mx(x, getattr(torch, element), 32, ScaleCalculationMode[rule.upper()])
    st = breccia.cast(x.numpy(), recipe(scale_rule=rule))
    assert (st.data == theirs.qdata.view(torch.uint8).numpy()).all()
    assert (st.scale == theirs.scale.view(torch.uint8).numpy()).all()
    assert (breccia.dequantize(st) == theirs.dequantize(torch.float32).numpy()).all()


def test_nvfp4_is_torchao(torch):
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale
    x = torch.randn(64, 512, generator=torch.Generator().manual_seed(5))
    one = NVFP4Tensor.to_nvfp4(x)
    st = breccia.cast(x.numpy(), NVFP4BlockScaling(levels=1))
    assert (st.data == one.qdata.view(torch.uint8).numpy()).all() and (st.scale == one.scale.view(torch.uint8).numpy()).all()
    two = NVFP4Tensor.to_nvfp4(x, per_tensor_scale=per_tensor_amax_to_scale(x.abs().max()))
    st = breccia.cast(x.numpy(), NVFP4BlockScaling())
    assert (st.data == two.qdata.view(torch.uint8).numpy()).all() and (st.scale == two.scale.view(torch.uint8).numpy()).all()
    assert st.global_scale == two.per_tensor_scale.numpy()
    assert (breccia.dequantize(st) == two.dequantize(torch.float32).numpy()).all()


@pytest.mark.parametrize("recipe, granularity", [
    (Float8CurrentScaling(arith="div"), lambda g: g.PerTensor()), (Float8RowScaling(), lambda g: g.PerRow()),
    (Float8BlockScaling(), lambda g: g.PerBlock([1, 128])), (Float8BlockScaling(block_m=32), lambda g: g.PerBlock([32, 128]))],
    ids=["tensor", "row", "1x128", "32x128"])
def test_float8_is_torchao(torch, recipe, granularity):
    import torchao.quantization.granularity as granularities
    from torchao.quantization import Float8Tensor
    x = real(torch, rows=64)
    theirs = Float8Tensor.from_hp(x, float8_dtype=torch.float8_e4m3fn, granularity=granularity(granularities))
    st = breccia.cast(x.numpy(), recipe)
    assert (st.data == theirs.qdata.view(torch.uint8).numpy()).all()
    assert (st.scale.reshape(-1) == theirs.scale.numpy().reshape(-1)).all()


def test_elements_are_ml_dtypes(ml_dtypes):
    """Without a scale to speak of: every float16 through a recipe whose scale is 1."""
    x = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32).reshape(256, 256)
    x = np.where(np.isfinite(x), np.clip(x, -448, 448), 0).astype(np.float32)
    x[0, 0] = 448
    st = breccia.cast(x, Float8CurrentScaling(arith="div"))
    assert st.scale == 1 and (st.data == x.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)).all()
