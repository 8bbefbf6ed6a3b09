# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

import breccia
from breccia import Layout, PerBlockK, PerBlockMN, PerChannel, PerColumn, PerTensor, _c
from breccia import layouts

DATA = np.zeros((4, 128), np.uint8)


def ones(*shape):
    return np.ones(shape, np.float32)


@pytest.mark.parametrize("layout, scale", [
    (PerTensor(), ones()), (PerBlockK(), ones(4, 1)), (PerBlockK(32), ones(4, 4)), (PerChannel(), ones(4)), (PerChannel(), ones(4, 1)), (PerColumn(), ones(1, 128)),
    (PerBlockMN(), ones(4, 4)), (PerBlockMN(2, 64), ones(2, 2)), (PerBlockK(100, partial=True), ones(4, 2)),
    (PerBlockMN(3, 100, partial=True), ones(2, 2)),
])
def test_fits(layout, scale):
    layout.validate(DATA, scale)
    three = np.zeros((5, 4, 128), np.uint8)
    if scale.ndim == 2:
        layout.validate(three, np.ones((5, *scale.shape), np.float32))


@pytest.mark.parametrize("layout, scale, text", [
    (PerTensor(), ones(1), "ndim"), (PerTensor(), ones(4, 1), "scale.shape"),
    (PerBlockK(32), ones(4, 3), "scale.shape"), (PerBlockK(33), ones(4, 4), "divisible"), (PerBlockK(100, partial=True), ones(4, 1), "scale.shape"),
    (PerChannel(), ones(3), "scale.shape"), (PerChannel(), ones(4, 2), "scale.shape"), (PerColumn(), ones(128), "scale"), (PerColumn(), ones(128, 1), "scale"), (PerChannel(), ones(), "scale.shape"),
    (PerBlockMN(), ones(4, 3), "scale.shape"), (PerBlockMN(1, 33), ones(4, 4), "block_n"), (PerBlockMN(3, 32), ones(4, 4), "block_m"),
    (PerBlockMN(3, 32), ones(4, 4), "divisible"),
])
def test_does_not_fit(layout, scale, text):
    with pytest.raises(ValueError, match=text):
        layout.validate(DATA, scale)


@pytest.mark.parametrize("layout", [PerBlockK(4), PerChannel(), PerBlockMN(1, 4), PerColumn()])
def test_rank_1(layout):
    with pytest.raises(ValueError, match="ndim"):
        layout.validate(np.zeros(8, np.uint8), ones(2))


def test_logical_shape():
    PerBlockK(128).validate(DATA, ones(4, 2), (4, 256))
    PerBlockMN(1, 16).validate(DATA, ones(4, 16), (4, 256))
    with pytest.raises(ValueError, match="scale.shape"):
        PerBlockK(128).validate(DATA, ones(4, 1), (4, 256))


@pytest.mark.parametrize("make, text", [(lambda: PerBlockK(0), "block_size"), (lambda: PerBlockMN(0, 1), "block_m"),
                                        (lambda: PerBlockMN(1, 0), "block_n"), (lambda: PerBlockK(1.5), "block_size"),
                                        (lambda: PerBlockK("128"), "block_size"), (lambda: PerBlockK(2**32 + 128), "block_size"),
                                        (lambda: PerBlockMN(True, 32), "block_m"), (lambda: PerBlockK(128, "no"), "partial")])
def test_sides_are_positive_whole_numbers(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_values():
    assert PerBlockK() == PerBlockK(128, False) and PerBlockMN() == PerBlockMN(1, 32, False)
    assert hash(PerBlockK(64)) == hash(PerBlockK(64)) and PerBlockK(64) != PerBlockMN(1, 64)
    assert [f.name for f in dataclasses.fields(PerBlockK)] == ["block_size", "partial"]
    assert [f.name for f in dataclasses.fields(PerBlockMN)] == ["block_m", "block_n", "partial"]
    for kind in (PerTensor, PerChannel, PerBlockK, PerBlockMN, PerColumn):
        assert issubclass(kind, Layout) and kind.name == _c.LAYOUTS[kind.__name__]["name"]
        assert kind()._number == _c.LAYOUTS[kind.__name__]["number"]
    assert layouts.__all__ == ["Layout", "PerTensor", "PerBlockK", "PerChannel", "PerBlockMN", "PerColumn"]


def test_two_names_of_one_geometry(x):
    """PerBlockK(b) and PerBlockMN(1, b) hold the same numbers; the name stays what it was."""
    st = breccia.cast(x, breccia.Float8BlockScaling())
    other = dataclasses.replace(st, layout=PerBlockMN(1, 128))
    assert (breccia.dequantize(other) == breccia.dequantize(st)).all()
    assert other != st and other.layout == PerBlockMN(1, 128) and st.layout == PerBlockK(128)


def test_per_channel_scale_of_rank_1(x):
    st = breccia.cast(x, breccia.Float8RowScaling())
    flat = dataclasses.replace(st, scale=st.scale.reshape(-1))
    assert (breccia.dequantize(flat) == breccia.dequantize(st)).all()
    batch = dataclasses.replace(flat, data=np.stack([st.data, st.data]), shape=(2, 8, 256))
    assert (breccia.dequantize(batch) == breccia.dequantize(st)).all()
    assert breccia.matmul(batch, x, transpose_b=True).shape == (2, 8, 8)
    with pytest.raises(ValueError, match="scale.shape"):
        dataclasses.replace(batch, scale=st.scale.reshape(-1)[:4])
