# SPDX-License-Identifier: Apache-2.0
"""requantize: copied where the recipe is the same, translated where every value can be kept, else cast again."""
import ml_dtypes
import numpy as np
import pytest
from ops import expected

F = np.float32
RECIPES = ["fp8-delayed", "fp8", "fp8-row", "fp8-block", "fp8-block128", "mxfp8", "mxfp6-e3m2", "mxfp6-e2m3", "mxfp4", "mxint8", "nvfp4",
           "int8", "int4"]
MORE = ["fp8:pow2=1", "fp8-row:scale=bf16", "int4:rule=minmax", "int8:format=uint8,rule=minmax", "nvfp4:arith=div", "nvfp4:levels=1",
        "int4:group=32,scale=f32", "custom:format=e4m3,block=1x32", "custom:format=e5m2,block=1x16,scale=bf16", "fp8-block128:pow2=1",
        "custom:format=nf4,scale=f16,block=1x64", "custom:format=e3m2,scale=e8m0,block=1x16", "custom:format=int8,scale=f32,block=1x16"]


def source(rows=128, cols=256):
    """Ordinary weights of varied size."""
    rng = np.random.default_rng(9)
    x = (rng.standard_normal((rows, cols)) * 2.0 ** rng.integers(-3, 4, (rows, 1))).astype(F)
    return x


def with_zeros():
    """Also blocks of nothing but zeros, whose MX scale is 2^-127."""
    x = source()
    x[3], x[4, ::2], x[5, 7] = 0, -0.0, 300
    return x


def parts(t):
    return {name: None if (a := getattr(t, name)) is None else np.ascontiguousarray(a).view(np.uint8).copy()
            for name in ("data", "scale", "globals", "zero")}


def same_tensor(a, b, what):
    for name, x in parts(a).items():
        y = parts(b)[name]
        assert (x is None and y is None) or np.array_equal(x, y), (what, name)


def check(brc, t, text, what):
    """The path taken, after the promise of that path was checked."""
    result = brc.requantize(t, text)
    assert result.recipe == brc.recipe_text(text)
    before, after = brc.dequantize(t), brc.dequantize(result)
    if result.path == "FLOAT32":
        same_tensor(result, brc.cast(before, text), what)
    else:
        assert np.array_equal(before, after, equal_nan=True), (what, result.path)
    if result.path == "SAME":
        same_tensor(result, t, what)
    return result.path


@pytest.mark.parametrize("source_recipe", RECIPES + MORE)
def test_all_pairs(brc, source_recipe):
    t = brc.cast(with_zeros(), source_recipe)
    for text in RECIPES + MORE:
        path = check(brc, t, text, (source_recipe, text))
        assert (path == "SAME") == (text == source_recipe), (source_recipe, text, path)
        b = expected.fields(brc, text)
        if b.pow2:
            result = brc.requantize(t, text)
            assert (np.frexp(result.scale)[0] == 0.5).all(), (source_recipe, text)


EXACT = [("mxfp4", "mxfp8"), ("mxfp4", "nvfp4"), ("mxfp4", "mxfp6-e3m2"), ("mxfp4", "mxfp6-e2m3"), ("mxfp4", "nvfp4:levels=1"),
         ("mxfp6-e3m2", "mxfp8"), ("mxfp6-e2m3", "mxfp8"), ("mxfp4", "custom:format=e4m3,block=1x32"),
         ("mxfp4", "custom:format=e5m2,scale=bf16,block=1x16"), ("nvfp4", "custom:format=e4m3,block=1x16"),
         ("nvfp4:levels=1", "custom:format=e2m1,scale=f16,block=1x8"), ("fp8", "fp8-row"), ("fp8", "fp8-block128"), ("fp8", "fp8-block"),
         ("fp8:pow2=1", "custom:format=e4m3,scale=bf16,block=row"), ("fp8:pow2=1", "mxfp8"), ("fp8-block128", "fp8-block"),
         ("int4:group=32,scale=f32", "custom:format=int8,scale=f32,block=1x16"), ("fp8-row:scale=bf16", "fp8-row"),
         ("custom:format=e3m2,scale=e8m0,block=1x32", "mxfp6-e3m2"), ("nvfp4:arith=div", "custom:format=e2m1,block=1x16"),
         ("mxfp4", "fp8-block"), ("mxfp4", "fp8-block128"), ("mxfp4", "fp8-block128:pow2=1"), ("mxfp4", "fp8"), ("mxfp4", "mxint8"),
         ("mxfp4", "fp8-block128:scale=e8m0,rule=rceil"), ("fp8-block128:scale=e8m0,rule=rceil", "mxfp8"), ("fp8-block128:pow2=1", "mxfp8"),
         ("mxfp6-e3m2", "fp8:format=e5m2"), ("nvfp4", "nvfp4:arith=recip,partial=1"), ("int8", "int8:rule=minmax"),
         ("int4:group=32,scale=f32", "int4:format=uint4,rule=minmax,group=32,scale=f32"), ("custom:format=e3m2,scale=f32,pow2=1,block=1x16", "mxfp8"),
         ("int4:format=uint4,rule=minmax,group=32", "int8:rule=minmax,block=1x32,scale=f16"), ("int4:rule=minmax,group=32", "int4:format=uint4,rule=minmax,group=32"),
         ("custom:format=iq4_nl,scale=f16,block=1x32", "custom:format=int8,scale=f16,block=1x32"),
         ("int4", "custom:format=int5,scale=f16,block=1x64"), ("custom:format=uint4,scale=f32,block=1x64", "custom:format=int5,scale=f32,block=1x64")]


@pytest.mark.parametrize("source_recipe, text", EXACT)
def test_exact(brc, source_recipe, text):
    t = brc.cast(source(), source_recipe)
    assert check(brc, t, text, (source_recipe, text)) == "EXACT"


FLOAT32 = [("mxfp8", "mxfp4"), ("fp8-row", "fp8"), ("fp8", "mxfp8"), ("fp8-row", "fp8-row:scale=bf16"), ("int8:rule=minmax", "int8"), ("nvfp4", "mxfp4"), ("fp8", "fp8-delayed"), ("fp8", "fp8:pow2=1"),
           ("fp8-block128", "fp8-block128:pow2=1"), ("fp8:format=e5m2", "fp8"), ("fp8", "fp8:format=e5m2"), ("int4", "mxfp4"), ("int4:rule=minmax", "int4"), ("mxfp6-e3m2", "mxfp4")]


@pytest.mark.parametrize("source_recipe, text", FLOAT32)
def test_through_float32(brc, source_recipe, text):
    t = brc.cast(source(), source_recipe)
    assert check(brc, t, text, (source_recipe, text)) == "FLOAT32"


def test_exact_at_the_ends_of_scales(brc):
    """MX exponents that E4M3 under one global scale cannot reach, and those it just can."""
    x = np.zeros((2, 64), F)
    x[0, :32], x[0, 32:], x[1] = 6, 6 * 2.0**-14, 6
    t = brc.cast(x, "mxfp4")
    assert check(brc, t, "nvfp4", "within") == "EXACT"          # 2^8 down to 2^-6, the smallest normal
    x[0, 32:] = 6 * 2.0**-19                                    # a code of 6 may become one of 0.5 or 3
    assert check(brc, brc.cast(x, "mxfp4"), "nvfp4", "moved codes") == "EXACT"
    x[0, 32:] = 6 * 2.0**-23
    assert check(brc, brc.cast(x, "mxfp4"), "nvfp4", "beyond") == "FLOAT32"
    x[0, 32:] = 0                                               # any scale keeps a block of zeros
    assert check(brc, brc.cast(x, "mxfp4"), "nvfp4", "zeros") == "EXACT"
    for size in (2.0**120, 2.0**-120):
        t = brc.cast(np.full((2, 64), 6 * size, F), "mxfp4")
        assert check(brc, t, "nvfp4", size) == "EXACT"
        assert check(brc, t, "mxfp8", size) == "EXACT"
        assert check(brc, t, "custom:format=e4m3,scale=f16,block=1x32", size) == "FLOAT32"


def test_strange_scales(brc):
    """NaN and infinite scales of foreign files go through float32; the values under negative and zero ones stay."""
    codes = np.arange(256, dtype=np.uint8).reshape(2, 128)
    codes[(codes & 0x7F) == 0x7F] = 0
    for bad, path in ((np.nan, "FLOAT32"), (np.inf, "FLOAT32"), (-1.0, "EXACT"), (0.0, "EXACT")):
        t = brc.tensor("e4m3", (2, 128), codes, scale=(np.array([1, bad], F).reshape(1, 2, 1), "f32", (1, 1, 0)), layout="per_channel")
        result = brc.requantize(t, "fp8-block")
        assert result.path == path
        if path == "FLOAT32":
            same_tensor(result, brc.cast(brc.dequantize(t), "fp8-block"), bad)
        else:
            assert np.array_equal(brc.dequantize(result), brc.dequantize(t)) and (result.scale > 0).all()


def test_codes_move_by_powers_of_two(brc):
    """Sixteen binades of MX scales under one FP8 scale: what reaches E4M3's subnormal numbers is kept, what falls below is not."""
    x = np.zeros((128, 128), F)
    for i in range(4):
        x[:, 32 * i:32 * (i + 1)] = np.tile(np.array([6, -4, 3, 2, 1.5, 1, -0.5, 0], F), 4) * 2.0 ** (-4 * i)
    t = brc.cast(x, "mxfp4")
    result = brc.requantize(t, "fp8-block128")
    assert result.path == "EXACT" and result.scale.shape == (1, 1, 1)
    value = result.data.view(ml_dtypes.float8_e4m3fn).astype(np.float64) * result.scale.astype(np.float64)[0]
    np.testing.assert_array_equal(value, x)
    x[:, 96:] *= 2.0 ** -4                                      # 0.5 * 2^-16 under a scale for 6: below 2^-9 * 2^-6
    assert brc.requantize(brc.cast(x, "mxfp4"), "fp8-block128").path == "FLOAT32"


def test_negative_scales_move_zero_points(brc):
    """ggml's Q4_0: codes about 8 whose scale may be negative, as codes with a zero point under positive scales."""
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 256, (4, 32), np.uint8)
    scale = rng.standard_normal((1, 4, 2)).astype(np.float16)
    t = brc.tensor("uint4", (4, 64), codes, scale=(scale, "f16", (1, 1, 32)), zero=(np.full((1, 4, 2), 8, np.uint8), "uint8", (1, 1, 32)),
                   layout="per_block_k")
    unpacked = np.stack([codes & 15, codes >> 4], -1).reshape(4, 64).astype(F)
    values = (unpacked - 8) * np.repeat(scale[0].astype(F), 32, 1)
    result = brc.requantize(t, "int4:format=uint4,rule=minmax,group=32")
    assert result.path == "EXACT" and (result.scale > 0).all()
    moved = np.stack([result.data & 15, result.data >> 4], -1).reshape(4, 64).astype(F)
    np.testing.assert_array_equal((moved - np.repeat(result.zero[0].astype(F), 32, 1)) * np.repeat(result.scale[0].astype(F), 32, 1), values)


def test_exact_or_nothing(brc):
    t = brc.cast(source(), "mxfp4")
    owned, path = brc.ffi.new("brc_owned *"), brc.ffi.new("brc_path *")
    brc.call("brc_requantize_exact_new", t.c, brc.recipe("mxfp8"), brc.ffi.NULL, owned, path)
    assert path[0] == brc.lib.BRC_PATH_EXACT
    brc.lib.brc_release(owned)
    with pytest.raises(brc.Error, match="keep every value") as refused:
        brc.call("brc_requantize_exact_new", t.c, brc.recipe("int4"), brc.ffi.NULL, owned, path)
    assert refused.value.name == "UNSUPPORTED" and owned.memory == brc.ffi.NULL


def test_nan_elements(brc):
    x = source()
    x[7, 7] = np.nan
    t = brc.cast(x, "fp8")
    result = brc.requantize(t, "fp8-row")
    assert result.path == "EXACT" and np.isnan(brc.dequantize(result)[7, 7])


def test_group_index_and_foreign_recipes(brc):
    """A tensor of a foreign file has no recipe: never SAME; an act-order index goes through float32."""
    t = brc.cast(source(4, 64), "int4:group=16,scale=f32")
    foreign = brc.tensor("int4", (4, 64), t.data, scale=(t.scale, "f32", (1, 1, 16)), layout="per_block_k")
    result = brc.requantize(foreign, "int4:group=16,scale=f32")
    assert result.path == "EXACT"
    same_tensor(result, t, "foreign")
    order = np.random.default_rng(1).integers(0, 4, 64)
    mixed = brc.tensor("int4", (4, 64), t.data, scale=(t.scale, "f32", (1, 1, 16)), layout="per_block_k", group_index=order,
                       recipe_of="int4:group=16,scale=f32")
    assert check(brc, mixed, "int4:group=16,scale=f32", "act-order") == "FLOAT32"


def test_empty_and_ragged(brc):
    for shape in [(0, 32), (4, 0), (0,), (0, 4, 32), (2, 0, 32), (5, 37), (1,), (2, 3, 33)]:
        x = np.random.default_rng(2).standard_normal(shape).astype(F)
        for a in RECIPES:
            t = brc.cast(x, f"{a}:partial=1")
            for b in RECIPES:
                check(brc, t, f"{b}:partial=1", (shape, a, b))


def test_refusals(brc):
    t = brc.cast(source(5, 37), "fp8")
    with pytest.raises(brc.Error, match="not divisible"):
        brc.requantize(t, "mxfp8")
    with pytest.raises(brc.Error, match="planned for another recipe"):
        brc.call("brc_requantize", t.c, brc.recipe("fp8-row"), brc.ffi.NULL, brc.empty("int8", (5, 37)).c, brc.ffi.NULL)
