# SPDX-License-Identifier: Apache-2.0
"""What holds for every input, searched with Hypothesis."""
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import breccia
from recipes_list import ALL

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
SHAPES = st.tuples(st.integers(1, 2).map(lambda n: 4 * n), st.integers(1, 2).map(lambda n: 128 * n))
ARRAYS = SHAPES.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=FLOATS, fill=st.just(0.0)))
RECIPES = st.sampled_from(ALL)
FEW = settings(max_examples=120, deadline=None)


@FEW
@given(ARRAYS, RECIPES)
def test_finite_in_finite_codes_and_positive_scales(x, recipe):
    tensor = breccia.cast(x, recipe)
    assert tensor.shape == x.shape
    if recipe._scale in ("f32", "f16", "bf16"):
        assert (recipe.name == "ggml" or (tensor.scale > 0).all()) and np.isfinite(tensor.scale.astype(np.float64)).all()
    elif recipe._scale == "e8m0":
        assert (tensor.scale < 255).all()
    else:
        assert (tensor.scale & 0x7F != 0x7F).all() and (tensor.scale > 0).all() and (tensor.scale < 0x80).all()
    assert not np.isnan(breccia.dequantize(tensor, "float64")).any()


@FEW
@given(ARRAYS, RECIPES)
def test_signs_and_zeros_stay(x, recipe):
    y = breccia.dequantize(breccia.cast(x, recipe))
    if recipe.name == "ggml" and recipe._element in ("uint4", "iq4_nl"):    # no code of 0
        return
    assert (y[x == 0] == 0).all()
    if recipe._zero is None:
        assert (x.astype(np.float64) * y.astype(np.float64) >= 0).all()


@FEW
@given(ARRAYS, RECIPES)
def test_cast_is_a_function_of_the_values(x, recipe):
    a = breccia.cast(x, recipe)
    assert a == breccia.cast(x.copy(), recipe) == breccia.cast(np.asfortranarray(x), recipe) and hash(a) == hash(breccia.cast(x, recipe))


@FEW
@given(ARRAYS, RECIPES, RECIPES)
def test_requantize_keeps_the_shape(x, first, second):
    a = breccia.requantize(breccia.cast(x, first), second)
    assert a.shape == x.shape and a.recipe == second and a.layout == breccia.cast(x, second).layout


@FEW
@given(hnp.arrays(np.uint8, st.integers(0, 40), elements=st.integers(0, 15)))
def test_nibbles_round_trip(codes):
    from breccia._formats import pack_nibbles, unpack_nibbles
    codes = codes[:codes.size // 2 * 2]
    assert (unpack_nibbles(pack_nibbles(codes), codes.size) == codes).all()


@FEW
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 40), st.sampled_from([breccia.Float8CurrentScaling(), breccia.INT8Scaling()]))
def test_product_of_any_shape(m, n, k, recipe):
    rng = np.random.default_rng(m * 1000 + n * 100 + k)
    a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
    left = breccia.cast(a, recipe)
    want = breccia.dequantize(left).astype(np.float64) @ b.astype(np.float64)
    bound = k * 2.0 ** -24 * (np.abs(breccia.dequantize(left)).astype(np.float64) @ np.abs(b).astype(np.float64)) + 1e-30
    got = breccia.matmul(left, b)
    assert got.shape == (m, n) and (np.abs(got - want) <= bound + np.spacing(np.abs(got)) / 2).all()
