# SPDX-License-Identifier: Apache-2.0
import copy
import dataclasses
import pickle

import numpy as np
import pytest

import breccia
from breccia import _c, recipes
from breccia.recipes import (DelayedScaling, DelayedState, Float8BlockScaling, Float8CurrentScaling, INT4Scaling,
                             MXFP8BlockScaling, NVFP4BlockScaling, ScalingRecipe, from_text)
from recipes_list import ALL, IDS

CONTRACT = {
    DelayedScaling: ("delayed", {"fp8_format": "E4M3", "amax_history_len": 16, "margin": 0}),
    Float8CurrentScaling: ("current", {"fp8_format": "E4M3"}),
    Float8BlockScaling: ("block", {"fp8_format": "E4M3", "block_k": 128}),
    MXFP8BlockScaling: ("mxfp8", {"fp8_format": "E4M3", "block_size": 32}),
    NVFP4BlockScaling: ("nvfp4", {"fp4_format": "E2M1", "block_size": 16, "scale_format": "E4M3"}),
    INT4Scaling: ("int4", {"group_size": 128, "signed": True, "scale_dtype": "fp16", "symmetric": True}),
}


@pytest.mark.parametrize("kind", CONTRACT)
def test_contract(kind):
    name, first = CONTRACT[kind]
    fields = {f.name: f.default for f in dataclasses.fields(kind)}
    assert list(fields.items())[:len(first)] == list(first.items())
    assert kind.name == name and kind().name == name and issubclass(kind, ScalingRecipe)


@pytest.mark.parametrize("recipe", ALL, ids=IDS)
def test_value(recipe):
    assert hash(recipe) == hash(dataclasses.replace(recipe)) and recipe == dataclasses.replace(recipe)
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(recipe, dataclasses.fields(recipe)[0].name, None)
    assert from_text(recipe.text) == recipe
    assert recipe.name == recipe._native.file_name or recipe.name == "custom"


def test_defaults_are_the_tables():
    """Every row of the C table is the default of its class, or of the class with the row's own block or format."""
    for name, native in _c.RECIPES.items():
        recipe = from_text(name)
        assert recipe.text == name and type(recipe).__name__ == native.class_name and recipe.name == native.file_name
        assert (recipe._native.element, recipe._native.rule, recipe._native.arith) == (native.element, native.rule, native.arith)
    for kind in CONTRACT:
        assert kind().text in _c.RECIPES


@pytest.mark.parametrize("kind, arguments, text", [
    (DelayedScaling, {"fp8_format": "E3M4"}, "fp8_format must be E4M3 or E5M2"),
    (Float8CurrentScaling, {"fp8_format": "e4m3"}, "fp8_format must be E4M3 or E5M2"),
    (DelayedScaling, {"amax_history_len": 0}, "amax_history_len"),
    (Float8BlockScaling, {"block_k": 0}, "block_k"),
    (Float8BlockScaling, {"block_k": 1.5}, "block_k"),
    (MXFP8BlockScaling, {"block_size": 16}, "block_size must be 32"),
    (MXFP8BlockScaling, {"scale_rule": "up"}, "scale_rule"),
    (NVFP4BlockScaling, {"block_size": 32}, "block_size must be 16"),
    (NVFP4BlockScaling, {"fp4_format": "E3M0"}, "fp4_format"),
    (NVFP4BlockScaling, {"scale_format": "E5M2"}, "scale_format"),
    (NVFP4BlockScaling, {"levels": 3}, "levels"),
    (INT4Scaling, {"group_size": 0}, "group_size"),
    (INT4Scaling, {"scale_dtype": "fp8"}, "scale_dtype"),
    (INT4Scaling, {"symmetric": False}, "signed=False"),
    (DelayedScaling, {"margin": 65}, "margin"),
    (breccia.MXINT8BlockScaling, {"scale_rule": "even"}, "scale_rule"),
    (breccia.CustomScaling, {"definition": "no-such-row"}, "no-such-row"),
    (DelayedScaling, {"amax_history_len": 2**40}, "amax_history_len"),
    (DelayedScaling, {"margin": 1.5}, "margin"),
    (Float8CurrentScaling, {"epsilon": -1.0}, "epsilon"),
    (Float8CurrentScaling, {"epsilon": "small"}, "epsilon"),
    (Float8CurrentScaling, {"power_of_two": "no"}, "power_of_two must be True or False"),
    (Float8BlockScaling, {"partial": None}, "partial must be True or False"),
    (Float8BlockScaling, {"block_k": 2**32 + 128}, "block_k"),
    (INT4Scaling, {"signed": "False"}, "signed must be True or False"),
    (INT4Scaling, {"scale_dtype": []}, "scale_dtype"),
    (INT4Scaling, {"group_size": 2**40}, "group_size"),
])
def test_errors_name_the_parameter(kind, arguments, text):
    with pytest.raises(ValueError, match=text):
        kind(**arguments)


def test_numpy_integers_are_whole_numbers():
    assert INT4Scaling(np.int64(64)) == INT4Scaling(64) and INT4Scaling(np.int64(64)).text == INT4Scaling(64).text


def test_from_text_falls_back():
    recipe = from_text("fp8:scale=bf16,arith=div")
    assert isinstance(recipe, breccia.CustomScaling) and recipe._scale == "bf16"
    with pytest.raises(ValueError, match="there is no recipe"):
        from_text("mxfp9")


def test_base_cannot_be_cast_to(x):
    with pytest.raises(TypeError, match="unsupported recipe"):
        breccia.cast(x, ScalingRecipe)
    with pytest.raises(TypeError, match="unsupported recipe"):
        breccia.cast(x, "mxfp8")


def te_update(history, amax, scale, margin, algorithm, largest=448.0):
    """TransformerEngine's delayed scaling on a float32 history whose slot 0 is the current cast's (formats.md section 4)."""
    history = history.copy()
    history[0] = amax
    chosen = np.float32(history.max() if algorithm == "max" else history[0])
    if chosen > 0 and np.isfinite(chosen):
        scale = np.float32(largest) * np.float32(2.0 ** -margin) / chosen
    history = np.roll(history, -1)
    history[0] = 0
    return history, np.float32(scale)


@pytest.mark.parametrize("algorithm", ["max", "most_recent"])
def test_delayed_state(algorithm):
    recipe = DelayedScaling(amax_history_len=4, margin=1, amax_history=algorithm)
    state = DelayedState(recipe)
    history, scale = np.zeros(4, np.float32), np.float32(1)
    rng = np.random.default_rng(0)
    for step in range(12):
        numbers = rng.standard_normal((4, 32)).astype(np.float32) * np.float32(0 if step == 5 else 10 ** (step % 3))
        st = breccia.cast(numbers, recipe, state)
        assert st.scale == np.float32(1) / np.float32(scale)
        assert state.amax == np.abs(numbers).max()
        history, scale = te_update(history, np.abs(numbers).max(), scale, 1, algorithm)
        state.update()
        assert (state.history == history).all() and state.scale == scale, step


def test_delayed_without_state_is_current_scaling(x):
    a, b = breccia.cast(x, DelayedScaling()), breccia.cast(x, Float8CurrentScaling())
    assert (a.data == b.data).all() and a.scale == b.scale
    assert breccia.cast(x, DelayedScaling(margin=2)).scale == np.float32(a.scale) * 4


def test_state_is_for_delayed_scaling(x):
    with pytest.raises(TypeError):
        DelayedState(Float8CurrentScaling())
    with pytest.raises(ValueError, match="delayed"):
        breccia.cast(x, Float8CurrentScaling(), DelayedState(DelayedScaling()))
    with pytest.raises(TypeError, match="state must be a DelayedState, got float"):
        breccia.cast(x, DelayedScaling(), 1.0)
    with pytest.raises(ValueError, match="state belongs to"):                # E4M3's scale would be 128 times too small
        breccia.cast(x, DelayedScaling("E5M2"), DelayedState(DelayedScaling("E4M3")))


@pytest.mark.parametrize("order", [slice(31, 15, -1), slice(None, None, 4)])
def test_a_history_is_dense(x, order):
    """C walks it as one piece: another order would be another's memory."""
    state = DelayedState(DelayedScaling())
    around = np.zeros(64, np.float32)
    state.history = around[order]
    for use in (state.update, lambda: breccia.cast(x, DelayedScaling(), state)):
        with pytest.raises(TypeError, match="dense float32"):
            use()
    assert (around == 0).all()


def test_pickles_carry_fields_alone():
    """What follows from the fields is the reading library's: a pickle outlives it."""
    for recipe in ALL:
        kind, values = recipe.__reduce__()
        assert kind is type(recipe) and kind(*values) == recipe
    for unusual in (copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r, 2))):
        assert unusual(ALL[0]) == ALL[0] and unusual(ALL[0])._layout == ALL[0]._layout


def test_all():
    assert all(hasattr(recipes, name) for name in recipes.__all__)
