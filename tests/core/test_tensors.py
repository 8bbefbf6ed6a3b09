# SPDX-License-Identifier: Apache-2.0
"""Planning, binding, sizes and equality of scaled tensors. Hostile structs: test_tensor.c."""
import numpy as np
import pytest
from core.codes import BITS
from core.test_recipes import ROWS

F = np.float32
SHAPES = [(1,), (128,), (5, 37), (256, 256), (2, 3, 130), (2, 0, 5), (0,), (1, 2, 1, 2, 1, 2, 3, 33)]


def up(n):
    return -(-n // 64) * 64


def has_minimums(name):
    """Rows with a zero point: minimums as wide as the scales."""
    return name in ("q4_1", "q5_1")


def want_counts(shape, block):
    three = (int(np.prod(shape[:-2], dtype=int)) if len(shape) > 2 else 1, shape[-2] if len(shape) > 1 else 1, shape[-1])
    return tuple(1 if side == 0 else -(-n // side) for n, side in zip(three, block))


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("shape", SHAPES)
def test_plan_and_bind(brc, name, shape):
    _, _, element, scale, levels, layout, block, _, _, _ = ROWS[name]
    t, sizes = brc.plan(f"{name}:partial=1", shape)
    row = (shape[-1] * BITS[element] + 7) // 8
    data = int(np.prod(shape[:-1], dtype=int)) * row
    scales = int(np.prod(want_counts(shape, block))) * BITS[scale] // 8
    zeros = scales * has_minimums(name)
    assert (sizes.data, sizes.scale, getattr(sizes, "global"), sizes.zero) == (data, scales, 4 * (levels == 2), zeros)
    assert sizes.total == up(data) + up(scales) + up(4 * (levels == 2)) + up(zeros)
    assert (t.size, t.rank, t.row_pitch, tuple(t.shape)[:t.rank]) == (brc.ffi.sizeof("brc_tensor"), len(shape), row, shape)
    assert brc.format_name(t.format) == element and brc.ffi.string(brc.lib.brc_layout_get(t.layout).name).decode() == layout
    assert brc.format_name(t.scale.format) == scale and (t.scale.block.batch, t.scale.block.rows, t.scale.block.cols) == block
    assert t.data == t.scale.data == t.zero.data == brc.ffi.NULL and t.group_index == brc.ffi.NULL
    memory = brc.ffi.cast("uint8_t *", 1 << 20)
    brc.lib.brc_tensor_bind(t, sizes, memory)
    assert t.data == memory and t.scale.data == memory + up(data)
    assert getattr(t, "global").data == (memory + up(data) + up(scales) if levels == 2 else brc.ffi.NULL)
    assert t.zero.data == (memory + up(data) + up(scales) if has_minimums(name) else brc.ffi.NULL)


def test_plan_of_zero_points_and_divisors(brc):
    t, sizes = brc.plan("int4:rule=minmax,group=32,format=uint4", (3, 64))
    assert (sizes.data, sizes.scale, sizes.zero, sizes.total) == (96, 12, 6, 128 + 64 + 64)
    assert brc.format_name(t.zero.format) == "uint8" and t.zero.kind == brc.lib.BRC_KIND_CODE
    t, _ = brc.plan("q4_1", (3, 64))
    assert brc.format_name(t.zero.format) == "f16" and t.zero.kind == brc.lib.BRC_KIND_REAL
    t, _ = brc.plan("nvfp4:arith=div", (3, 64))
    assert getattr(t, "global").kind == brc.lib.BRC_KIND_DIVISOR
    t, _ = brc.plan("nvfp4", (3, 64))
    assert getattr(t, "global").kind == brc.lib.BRC_KIND_MULTIPLIER


def test_plan_refuses(brc):
    for text, shape, name, match in (("mxfp8", (2, 33), "SHAPE", "33 columns are not divisible by the block's 32"),
                                     ("fp8-block128", (100, 128), "SHAPE", "100 rows are not divisible by the block's 128"),
                                     ("fp8", (2**62, 2), "OVERFLOW", "63 bits"), ("fp8", (-3, 4), "SHAPE", "negative"),
                                     ("fp8", (), "SHAPE", "rank is 0"), ("fp8", (1,) * 9, "SHAPE", "rank is 9"),
                                     ("custom:format=e4m3,block=1x1", (2**59 - 1, 0), None, ""),
                                     ("fp8-row", (2**58, 0), "OVERFLOW", "63 bits")):
        if name is None:
            brc.plan(text, shape)
            continue
        with pytest.raises(brc.Error, match=match) as error:
            brc.plan(text, shape)
        assert error.value.name == name, (text, shape, error.value)


@pytest.mark.parametrize("name", ROWS)
def test_sizes_and_bits(brc, name):
    """Sizes of what a cast made are the planned ones; bits per element count scales."""
    _, _, element, scale, levels, _, block, _, _, _ = ROWS[name]
    t = brc.cast(np.ones((2, 128, 256), F), name)
    _, planned = brc.plan(name, (2, 128, 256))
    for part in ("data", "scale", "global", "zero", "total"):
        assert getattr(t.sizes, part) == getattr(planned, part)
    numbers = int(np.prod(want_counts((2, 128, 256), block)))
    assert t.bits == BITS[element] + (numbers * BITS[scale] * (1 + has_minimums(name)) + 32 * (levels == 2)) / (2 * 128 * 256)


def equal(brc, a, b):
    made = brc.ffi.new("int *", 7)
    brc.call("brc_tensor_equal", a.c, b.c, made)
    return made[0]


def test_equal(brc):
    x = np.random.default_rng(0).standard_normal((5, 37)).astype(F)
    for text in ("fp8", "mxfp4:partial=1", "nvfp4:partial=1", "int4:format=int3,group=37,rule=minmax", "fp8-row:scale=f16"):
        a, b = brc.cast(x, text), brc.cast(x, text)
        assert equal(brc, a, b) == 1 and equal(brc, a, a) == 1
        tables = [t for t in ("scale", "global", "zero") if getattr(b.c, t).data != brc.ffi.NULL]
        for part in ["data", *tables]:                          # each byte of each buffer counts
            data = b.c.data if part == "data" else getattr(b.c, part).data
            raw = np.frombuffer(brc.ffi.buffer(data, getattr(b.sizes, part)), np.uint8)
            for at in {0, raw.size // 2, raw.size - 1}:
                raw[at] ^= 1
                assert equal(brc, a, b) == 0, (text, part, at)
                raw[at] ^= 1
        assert equal(brc, a, b) == 1
        for part in tables:                                     # and what the numbers mean
            kinds = {"global": [("kind", brc.lib.BRC_KIND_DIVISOR)], "zero": [("kind", brc.lib.BRC_KIND_FLOAT_CODE)]}
            for field, value in [("constant", 2.0), *kinds.get(part, [])]:
                old = getattr(getattr(b.c, part), field)
                setattr(getattr(b.c, part), field, value)
                assert equal(brc, a, b) == 0, (text, part, field)
                setattr(getattr(b.c, part), field, old)
        b.c.recipe.partial ^= 1
        assert equal(brc, a, b) == 0
    assert equal(brc, brc.cast(x, "fp8"), brc.cast(x[:4], "fp8")) == 0
    assert equal(brc, brc.cast(x, "fp8"), brc.cast(x[None], "fp8")) == 0
    assert equal(brc, brc.cast(x, "fp8"), brc.cast(x, "fp8:format=e5m2")) == 0
    assert equal(brc, brc.cast(x, "fp8"), brc.cast(x, "fp8-delayed")) == 0


def test_equal_ignores_padding(brc):
    """Bits behind the last element of a row, and bytes between rows, are not part of the tensor."""
    codes = np.zeros((3, 2), np.uint8)
    shape, one = (3, 3), np.ones(1, F)
    a = brc.tensor("int4", shape, codes, scale=(one, "f32", (0, 0, 0)))
    other = codes.copy()
    other[:, 1] = 0xF0
    assert equal(brc, a, brc.tensor("int4", shape, other, scale=(one, "f32", (0, 0, 0)))) == 1
    other[2, 1] = 0xF1
    assert equal(brc, a, brc.tensor("int4", shape, other, scale=(one, "f32", (0, 0, 0)))) == 0
    wide = np.full((3, 8), 0xA5, np.uint8)
    wide[:, :2] = 0
    b = brc.tensor("int4", shape, wide, scale=(one, "f32", (0, 0, 0)))
    b.c.row_pitch = 8
    assert equal(brc, a, b) == 1


def test_equal_of_group_indices(brc):
    def make(order):
        return brc.tensor("int8", (2, 4), np.zeros((2, 4), np.int8), scale=(np.ones((2, 2), F), "f32", (1, 1, 2)), layout="per_block_k",
                          group_index=order)
    a, b, c, none = make([0, 1, 0, 1]), make([0, 1, 0, 1]), make([0, 1, 1, 0]), make(None)
    assert [equal(brc, a, t) for t in (b, c, none)] == [1, 0, 0] and equal(brc, none, a) == 0


def test_table_numbers_and_places(brc):
    """brc_table_number and brc_table_index lead to the number that dequantize uses."""
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((3, 10, 24)) * 2.0 ** rng.integers(-5, 5, (3, 10, 24))).astype(F)
    for text in ("fp8", "fp8:block=expert", "fp8-row", "custom:format=e4m3,block=1x7,partial=1", "custom:format=e4m3,block=4x5,partial=1,scale=bf16",
                 "mxfp8:block=3x8,partial=1", "nvfp4:block=1x8"):
        t = brc.cast(x, text)
        table, flat = brc.ffi.addressof(t.c, "scale"), t.scale.ravel()
        b = t.c.scale.block
        for batch, row, col in [(0, 0, 0), (2, 9, 23), (1, 4, 7), (2, 3, 20)]:
            at = brc.lib.brc_table_index(t.c, table, batch, row, col)
            place = tuple(i // side if side else 0 for i, side in zip((batch, row, col), (b.batch, b.rows, b.cols)))
            assert at == np.ravel_multi_index(place, t.scale.shape)
            number = brc.lib.brc_table_number(table, at)
            if t.scale.dtype == np.uint8:
                format = brc.format_name(t.c.scale.format)
                assert number == brc.decode(format, flat[at:at + 1])[0]
            else:
                assert number == float(flat[at])
    order = rng.integers(0, 3, 24)
    t = brc.tensor("int8", (3, 10, 24), np.zeros((3, 10, 24), np.int8), scale=(np.ones((3, 10, 3), F), "f32", (1, 1, 8)), layout="per_block_k",
                   globals=(np.ones((3, 1, 1), F), "f32", (1, 0, 0)), group_index=order)
    for col in range(24):
        assert brc.lib.brc_table_index(t.c, brc.ffi.addressof(t.c, "scale"), 2, 5, col) == (2 * 10 + 5) * 3 + order[col]
        assert brc.lib.brc_table_index(t.c, brc.ffi.addressof(t.c, "global"), 2, 5, col) == 2
