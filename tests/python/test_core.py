# SPDX-License-Identifier: Apache-2.0
import copy
import dataclasses
import inspect
import pickle

import numpy as np
import pytest

import breccia
from breccia import (Float8BlockScaling, Float8CurrentScaling, INT4Scaling, MXFP8BlockScaling, NVFP4BlockScaling, PerBlockK,
                     PerTensor, ScaledTensor, from_buffer)
from breccia import _core

DATA = np.arange(512, dtype=np.uint8).reshape(4, 128)
ONE = np.array(1.0, np.float32)


def make(**changes):
    return ScaledTensor(**{"data": DATA, "scale": ONE, "recipe": Float8CurrentScaling(), "layout": PerTensor(), **changes})


def test_signature():
    parameters = inspect.signature(ScaledTensor).parameters
    assert list(parameters) == ["data", "scale", "recipe", "layout", "zero_point", "global_scale", "group_index", "shape", "origin"]
    assert [p.default for p in list(parameters.values())[4:]] == [None] * 5
    assert list(inspect.signature(from_buffer).parameters)[:5] == ["data", "scale", "recipe", "layout", "zero_point"]


def test_frozen():
    st = make()
    for name in ("data", "scale", "recipe", "layout", "shape"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(st, name, None)


def test_properties():
    st = make()
    assert (st.shape, st.storage_shape, st.ndim) == ((4, 128), (4, 128), 2)
    assert (st.data_dtype, st.scale_dtype, st.nbytes) == (np.uint8, np.float32, 512 + 4)
    packed = ScaledTensor(DATA, np.ones((4, 2), np.float16), INT4Scaling(), PerBlockK(128))
    assert (packed.shape, packed.storage_shape, packed.nbytes) == ((4, 256), (4, 128), 512 + 16)
    one_a_byte = ScaledTensor(DATA, np.ones((4, 1), np.float16), INT4Scaling(), PerBlockK(128), shape=DATA.shape)
    assert one_a_byte.shape == one_a_byte.storage_shape == (4, 128)


def test_from_buffer_takes_no_copy():
    st = from_buffer(DATA, ONE, Float8CurrentScaling(), PerTensor())
    assert st.data is DATA and st.scale is ONE and isinstance(st, ScaledTensor)


@pytest.mark.parametrize("changes, kind, text", [
    ({"data": [1, 2]}, TypeError, "data must be array-like"),
    ({"scale": [1.0]}, TypeError, "scale must be array-like"),
    ({"scale": 1.0}, TypeError, "scale must be array-like"),
    ({"zero_point": [1]}, TypeError, "zero_point must be array-like"),
    ({"data": np.zeros((), np.uint8)}, ValueError, "data must be at least 1-D"),
    ({"recipe": None}, ValueError, "recipe is required"),
    ({"layout": None}, ValueError, "layout is required"),
    ({"zero_point": np.zeros(3)}, ValueError, r"zero_point.shape \(3,\) must match scale.shape \(\)"),
    ({"scale": np.ones(2, np.float32)}, ValueError, "scalar"),
    ({"shape": (4, 127)}, ValueError, "does not fit data.shape"),
    ({"shape": 4}, TypeError, "shape must be a sequence of whole numbers"),
    ({"shape": (4.0, 128.0)}, TypeError, "shape must be a sequence of whole numbers"),
])
def test_errors(changes, kind, text):
    with pytest.raises(kind, match=text):
        make(**changes)


def test_shapes_of_any_sequence():
    """Numbers of NumPy are numbers; an iterator is read once."""
    for shape in (np.array([4, 128]), iter((4, 128)), [np.int64(4), 128]):
        assert make(shape=shape).shape == (4, 128) and all(type(n) is int for n in make(shape=(np.int64(4), np.uint8(128))).shape)


def test_repr():
    assert repr(make()) == ("breccia.ScaledTensor(shape=(4, 128), data_dtype=uint8, scale_shape=(), "
                            "recipe=Float8CurrentScaling, layout=PerTensor)")


def test_stand_ins():
    """Recipes and layouts of others: validate is called with the third argument only where the shapes differ."""
    calls = []

    class Layout:
        def validate(self, data, scale, *more, **named):
            calls.append((data.shape, more, named))

    class Recipe:
        name = "theirs"

    st = ScaledTensor(DATA, ONE, Recipe(), Layout())
    assert st.shape == (4, 128) and calls == [((4, 128), (), {})]
    ScaledTensor(DATA, ONE, INT4Scaling(), Layout())
    assert calls[1] == ((4, 128), (), {"shape": (4, 256)})
    ScaledTensor(DATA, ONE, Recipe(), object())
    with pytest.raises(TypeError, match="unsupported recipe"):
        breccia.dequantize(st)


def test_numpy_keeps_out(x):
    """NumPy's operators do not take a ScaledTensor apart."""
    st = breccia.cast(x, Float8CurrentScaling())
    assert (x == st) is False and (st == x) is False and (st != x) is True
    for meaningless in (lambda: x * st, lambda: st @ x.T, lambda: np.add(x, st)):
        with pytest.raises(TypeError):
            meaningless()


def test_layout_of_ones_own():
    """A class derived from a layout is that layout."""
    @dataclasses.dataclass(frozen=True)
    class Mine(PerBlockK):
        pass

    scale = np.ones((4, 1), np.float32)
    st = ScaledTensor(DATA, scale, Float8BlockScaling(), Mine(128))
    assert np.array_equal(breccia.dequantize(st), breccia.dequantize(ScaledTensor(DATA, scale, Float8BlockScaling(), PerBlockK(128))), equal_nan=True)

    class Strange(breccia.Layout):
        def validate(self, data, scale, shape=None):
            pass

    with pytest.raises(TypeError, match="unsupported layout: Strange"):
        breccia.dequantize(ScaledTensor(DATA, ONE, Float8BlockScaling(), Strange()))


def test_equality_and_hash(x):
    for recipe in (Float8CurrentScaling(), MXFP8BlockScaling(), NVFP4BlockScaling(), INT4Scaling(signed=False, symmetric=False)):
        a, b = breccia.cast(x, recipe), breccia.cast(x, recipe)
        assert a == b and hash(a) == hash(b) and a is not b
        for part in ("data", "scale", "zero_point", "global_scale"):
            value = getattr(a, part)
            if value is None:
                continue
            other = value.copy()
            other.reshape(-1).view(np.uint8)[0] ^= 1
            assert a != dataclasses.replace(a, **{part: other}), part
    assert breccia.cast(x, Float8CurrentScaling()) != breccia.cast(x, Float8CurrentScaling("E5M2"))
    assert make() != make(data=DATA.reshape(8, 64)) and make() != "text"
    assert make(origin="here") == make()


def test_equality_needs_contents_not_order(x):
    st = breccia.cast(x, Float8CurrentScaling())
    strided = np.empty((8, 512), np.uint8)[:, ::2]
    strided[:] = st.data
    assert st == dataclasses.replace(st, data=strided) and hash(st) == hash(dataclasses.replace(st, data=strided))


def test_pickle(x):
    st = breccia.cast(x, NVFP4BlockScaling())
    again = pickle.loads(pickle.dumps(st))
    assert again == st and again.recipe == st.recipe and again.shape == st.shape
    assert copy.copy(st).data is st.data and copy.deepcopy(st) == st and copy.deepcopy(st).data is not st.data
    assert (breccia.dequantize(again) == breccia.dequantize(st)).all()


def test_one_code_a_byte(x):
    """4-bit codes that lie one a byte are the same numbers."""
    for recipe in (INT4Scaling(), INT4Scaling(signed=False, symmetric=False), NVFP4BlockScaling(), breccia.MXFP6BlockScaling()):
        st = breccia.cast(x, recipe)
        bits = np.unpackbits(st.data, axis=-1, bitorder="little").reshape(*x.shape, -1)
        codes = np.packbits(bits, axis=-1, bitorder="little")[..., 0]
        wide = dataclasses.replace(st, data=codes, shape=codes.shape)
        assert wide.storage_shape == wide.shape == st.shape
        assert (breccia.dequantize(wide) == breccia.dequantize(st)).all()
        if recipe == INT4Scaling():
            signed = ((codes ^ 8).astype(np.int8) - 8).astype(np.int8)
            assert (breccia.dequantize(dataclasses.replace(wide, data=signed)) == breccia.dequantize(st)).all()


def test_codes_beyond_their_bits():
    """One code a byte: what does not fit the bits is no code."""
    codes = np.arange(64, dtype=np.uint8).reshape(2, 32)
    st = ScaledTensor(codes % 16, np.ones((2, 1), np.float16), INT4Scaling(32), PerBlockK(32), shape=(2, 32))
    assert breccia.dequantize(st).min() == -8
    for data in (codes, codes.view(np.int8) - np.int8(9)):
        with pytest.raises(ValueError, match="codes of more than 4 bits"):
            breccia.dequantize(dataclasses.replace(st, data=data))


def test_frozen_names():
    assert _core.__all__ == ["ScaledTensor", "from_buffer", "_is_torch", "_is_mlx", "_is_jax"]
    assert not any(test(DATA) for test in (_core._is_torch, _core._is_mlx, _core._is_jax))


def test_block_scaling_partial(x):
    st = breccia.cast(x[:, :200], Float8BlockScaling(partial=True))
    assert st.scale.shape == (8, 2) and st.layout == PerBlockK(128, partial=True)
    want = np.abs(x[:, 128:200]).max(1) / np.float32(448)
    assert (st.scale[:, 1] == np.where(want == 0, 1, want)).all()
