# SPDX-License-Identifier: Apache-2.0
"""Layouts and the number of blocks."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import breccia_c as brc_c

FREE = 2**32 - 1
ROWS = {"per_tensor": ("PerTensor", (0, 0, 0)), "per_channel": ("PerChannel", (1, 1, 0)), "per_block_k": ("PerBlockK", (1, 1, FREE)),
        "per_block_mn": ("PerBlockMN", (1, FREE, FREE)), "per_column": ("PerColumn", (1, 0, 1))}


def test_rows(brc):
    for number, (name, (klass, block)) in enumerate(ROWS.items()):
        info = brc.lib.brc_layout_get(number)
        assert (brc.ffi.string(info.name).decode(), brc.ffi.string(info.class_name).decode()) == (name, klass)
        assert (info.block.batch, info.block.rows, info.block.cols) == block
        assert brc.lib.brc_layout_find(name.encode()) == number
    assert brc.lib.brc_layout_get(5) == brc.ffi.NULL
    for name in (b"PerTensor", b"", b"per_block", brc.ffi.NULL):
        assert brc.lib.brc_layout_find(name) == brc.lib.BRC_LAYOUT_COUNT


@pytest.mark.parametrize("layout", ROWS)
def test_check(brc, layout):
    """A block fits where the fixed sides are the row's and the free ones at least 1; one number an expert is per_tensor too."""
    number, fixed = list(ROWS).index(layout), ROWS[layout][1]
    for batch in (0, 1, 2, FREE):
        for rows in (0, 1, 2, 128, FREE):
            for cols in (0, 1, 32, FREE):
                block = (batch, rows, cols)
                fits = all(side != FREE and (side > 0 if f == FREE else side == f) for side, f in zip(block, fixed))
                fits |= layout == "per_tensor" and block == (1, 0, 0)
                status = brc.lib.brc_layout_check(number, block, brc.ffi.NULL)
                assert (status == brc.lib.BRC_OK) == fits, block
                if not fits:
                    with pytest.raises(brc.Error, match=f"{layout}: block") as error:
                        brc.call("brc_layout_check", number, block)
                    assert error.value.name == "SHAPE"
    with pytest.raises(brc.Error, match="no layout"):
        brc.call("brc_layout_check", 5, (0, 0, 0))


def counts(shape, block):
    out = brc_c.ffi.new("int64_t[3]")
    brc_c.call("brc_block_counts", len(shape), list(shape), block, out)
    return tuple(out)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=8), st.tuples(*[st.integers(0, 300) | st.just(FREE)] * 3))
def test_counts(shape, block):
    three = (int(np.prod(shape[:-2], dtype=object)) if len(shape) > 2 else 1, shape[-2] if len(shape) > 1 else 1, shape[-1])
    if np.prod([max(n, 1) for n in shape], dtype=object) >= 2**59:
        return
    assert counts(shape, block) == tuple(1 if side == 0 else int(np.ceil(n / side)) for n, side in zip(three, block))


def test_counts_of_large_shapes(brc):
    assert counts([2**55, 3], (1, 2**31, 2)) == (1, 2**24, 2)
    assert counts([2**40, 1, 2**18], (3, 1, 0)) == (-(-2**40 // 3), 1, 1)
    for shape, name in (([2**62, 2], "OVERFLOW"), ([2**32, 2**32], "OVERFLOW"), ([2**63 - 1], "OVERFLOW"), ([-1], "SHAPE"), ([], "SHAPE"),
                        ([1] * 9, "SHAPE"), ([0, 2**62], "OVERFLOW")):
        with pytest.raises(brc.Error) as error:
            brc.call("brc_block_counts", len(shape), shape, (1, 1, 1), brc.ffi.new("int64_t[3]"))
        assert error.value.name == name, shape
