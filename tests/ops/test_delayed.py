# SPDX-License-Identifier: Apache-2.0
"""Delayed scaling: the caller's state, against a model of TransformerEngine's update."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ops import expected

F = np.float32
MAX = {"e4m3": 448, "e5m2": 57344}


class Model:
    """amax_history [length], scale: row 0 receives the current amax; the scale follows; roll by -1; row 0 := 0."""

    def __init__(self, element, length, rule, margin):
        self.top, self.rule = F(F(MAX[element]) * F(2.0**-margin)), rule
        self.history, self.scale = np.zeros(length, F), F(1)

    def update(self, amax):
        self.history[0] = amax
        chosen = self.history[0] if self.rule == "most_recent" else self.history.max()
        if np.isfinite(chosen) and chosen > 0:
            with np.errstate(over="ignore"):
                self.scale = np.minimum(self.top / chosen, np.finfo(F).max)
        self.history = np.roll(self.history, -1)
        self.history[0] = 0


def history(state):
    return np.array([state.history[i] for i in range(state.length)], F)


@pytest.mark.parametrize("element", MAX)
@pytest.mark.parametrize("rule", ["max", "most_recent"])
@pytest.mark.parametrize("length, margin", [(1, 0), (2, 1), (3, -2), (16, 0), (1024, 5)])
def test_casts_and_updates(brc, element, rule, length, margin):
    """A cast uses the state's scale, writes amax and leaves the rest; the update is the model's."""
    text = f"fp8-delayed:format={element},history={rule},length={length},margin={margin}"
    model, state, rng = Model(element, length, rule, margin), brc.delayed_state(length), np.random.default_rng(length)
    r = expected.fields(brc, text)
    sizes = [1.0, 100.0, 1e-3, 0.0, 5.0, np.inf, 2.0, 1e30, 3e38, 1e-40, 1e-45, np.nan, 7.0, 0.5, 0.25, 0.125, 1e5, 1, 1, 1, 1, 1, 1]
    for size in sizes:
        with np.errstate(all="ignore"):
            x = (rng.standard_normal((6, 40)) * size).astype(F)
        before = history(state)
        t = brc.cast(x, text, state=state)
        want = expected.cast(r, x, delayed=model.scale)
        assert np.array_equal(t.scale.view(np.uint32), want.scale) and np.array_equal(t.data, want.codes.reshape(6, 40))
        amax = np.fmax.reduce(np.abs(x), axis=None, initial=F(0))
        assert F(state.scale) == model.scale and F(state.amax) == amax and np.array_equal(history(state), before)
        brc.call("brc_delayed_update", state, brc.recipe(text))
        model.update(amax)
        assert F(state.scale) == model.scale, size
        assert np.array_equal(history(state), model.history), size


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(0, width=32, allow_nan=False), min_size=1, max_size=30), st.integers(1, 5), st.sampled_from(["max", "most_recent"]),
       st.integers(-8, 8), st.sampled_from(sorted(MAX)))
def test_any_history(brc, amaxes, length, rule, margin, element):
    model, state = Model(element, length, rule, margin), brc.delayed_state(length)
    recipe = brc.recipe(f"fp8-delayed:format={element},history={rule},length={length},margin={margin}")
    for amax in amaxes:
        state.amax = amax
        brc.call("brc_delayed_update", state, recipe)
        model.update(F(amax))
        assert F(state.scale) == model.scale or model.scale == 0
        assert np.array_equal(history(state), model.history)


@pytest.mark.parametrize("amax", [0.0, np.inf, np.nan])
@pytest.mark.parametrize("rule", ["max", "most_recent"])
def test_amax_that_leaves_the_scale(brc, amax, rule):
    state, recipe = brc.delayed_state(1), brc.recipe(f"fp8-delayed:length=1,history={rule}")
    state.scale, state.amax = 3.5, amax
    brc.call("brc_delayed_update", state, recipe)
    assert state.scale == 3.5


def test_scale_stays_usable(brc):
    """Whatever margin and amax: the next cast is possible."""
    x = np.array([[1.0, -2.0]], F)
    for margin in (-64, 0, 64):
        for amax in (1e-45, 1.0, 3.4028235e38):
            state, recipe = brc.delayed_state(1), brc.recipe(f"fp8-delayed:length=1,margin={margin}")
            state.amax = amax
            brc.call("brc_delayed_update", state, recipe)
            assert np.isfinite(state.scale) and state.scale > 0, (margin, amax)
            t = brc.cast(x, recipe, state=state)
            assert np.isfinite(t.scale).all() and (t.scale > 0).all()


def test_without_state_it_is_current_scaling(brc):
    x = np.random.default_rng(3).standard_normal((9, 33)).astype(F)
    for margin in (0, 2):
        a, b = brc.cast(x, f"fp8-delayed:margin={margin}"), brc.cast(x, f"fp8:margin={margin}")
        assert np.array_equal(a.data, b.data) and np.array_equal(a.scale, b.scale)


def test_refusals(brc):
    recipe = brc.recipe("fp8-delayed:length=4")
    state = brc.delayed_state(3)
    with pytest.raises(brc.Error, match="the recipe's length 4"):
        brc.call("brc_delayed_update", state, recipe)
    with pytest.raises(brc.Error, match="the recipe's length 4"):
        brc.call("brc_delayed_update", brc.ffi.NULL, recipe)
    state = brc.delayed_state(4)
    with pytest.raises(brc.Error, match="history must have"):
        brc.call("brc_delayed_update", state, brc.recipe("fp8"))
    state.scale = 0
    with pytest.raises(brc.Error, match="positive and finite"):
        brc.call("brc_delayed_update", state, recipe)
