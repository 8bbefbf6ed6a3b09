# SPDX-License-Identifier: Apache-2.0
"""dequantize, step by step in float32: every element, scale, zero point and global scale a tensor may have, into every output."""
import itertools

import ml_dtypes
import numpy as np
import pytest
from core.codes import BITS, ELEMENTS, code_type, encode, pack, values_of
from ops import expected, inputs

F = np.float32
OUTPUTS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
SHAPE = (3, 10, 52)
SCALE_BLOCKS = {"per_tensor": [(0, 0, 0), (1, 0, 0)], "per_channel": [(1, 1, 0)], "per_block_k": [(1, 1, 16), (1, 1, 1), (1, 1, 52), (1, 1, 100)],
                "per_block_mn": [(1, 4, 13), (1, 16, 16), (1, 1, 32), (1, 10, 1)]}
GLOBALS = [None, ("multiplier", 0), ("divisor", 0), ("amax", 2688.0), ("amax", 0.1)]
ZEROS = [None, ("code", "int8"), ("code", "uint8"), ("code", "int32"), ("float_code", "f32"), ("float_code", "f16"), ("real", "f32"),
         ("real", "bf16")]


def spread(table, block, shape):
    """Each element's number."""
    for axis, (side, n) in enumerate(zip(block, shape)):
        table = np.repeat(table, side or n, axis).take(range(n), axis)
    return table


def random_table(rng, format, block, shape, positive=True):
    """Codes of ordinary numbers."""
    n = expected.counts(shape, block)
    x = (2.0 ** rng.uniform(-6, 6, n)).astype(F) if format not in ("int8", "uint8", "int32") else rng.integers(0, 100, n).astype(F)
    if not positive and format != "uint8":
        x *= rng.choice([-1, 1], n).astype(F)
    codes = encode(format, x)
    return codes, values_of(format, codes).astype(F)


def make(brc, rng, element, scale_format, layout, block, global_kind, zero_kind, act_order, shape=SHAPE):
    """A tensor of random codes and its float32 values."""
    codes = rng.integers(0, 1 << BITS[element], shape).astype(code_type(element))
    e = values_of(element, codes).astype(F)
    scale, s = random_table(rng, scale_format, block, shape)
    tables, index = {"scale": (scale, scale_format, block)}, np.arange(shape[-1])
    group_index = None
    if act_order:
        group_index = rng.integers(0, scale.shape[-1], shape[-1])

    def each(table, of, grouped):
        if not (grouped and act_order):
            return spread(table, of, shape)
        rows = spread(table, (of[0], of[1], 1), (*shape[:2], table.shape[-1]))
        return rows[..., group_index]

    with np.errstate(all="ignore"):
        m = each(s, block, True)
        if global_kind is not None:
            kind, constant = global_kind
            of = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 5, 26)][rng.integers(4)]
            g_codes, g = random_table(rng, "f32", of, shape)
            tables["globals"] = (g_codes.view(F), "f32", of, kind, constant)
            g = each(g, of, False)
            m = m * g if kind == "multiplier" else m / g if kind == "divisor" else (m * g) * (F(1) / F(constant))
        if zero_kind is None:
            value = e * m
        else:
            kind, format = zero_kind
            of = block if act_order else [block, (0, 0, 0), (1, 1, 0), (1, 1, 13)][rng.integers(4)]
            z_codes, z = random_table(rng, format, of, shape, positive=False)
            tables["zero"] = (z_codes, format, of, kind)
            z = each(z, of, True)
            value = e * m + z if kind == "real" else (e - z) * m
    t = brc.tensor(element, shape, pack(element, codes), layout=layout, group_index=group_index, **tables)
    return t, value


def same(got, value, what):
    """The float32 values rounded once more to the output; any NaN is a NaN."""
    with np.errstate(all="ignore"):
        want = value.astype(got.dtype)
    bits = f"u{got.dtype.itemsize}"
    equal = (np.ascontiguousarray(got).view(bits) == np.ascontiguousarray(want).view(bits)) | (np.isnan(got) & np.isnan(want))
    assert equal.all(), f"{what} {got.dtype}: {int((~equal).sum())} of {equal.size} differ, first {got[~equal][0]!r}, expected {want[~equal][0]!r}"


@pytest.mark.parametrize("element", ELEMENTS)
def test_every_kind(brc, element):
    rng = np.random.default_rng(sum(map(ord, element)))
    blocks = [(layout, block) for layout, some in SCALE_BLOCKS.items() for block in some]
    for i, (global_kind, zero_kind) in enumerate(itertools.product(GLOBALS, ZEROS)):
        for act_order in (False, True):
            layout, block = blocks[int(rng.integers(len(blocks)))]
            scale_format = ["f32", "f16", "bf16", "e8m0", "e4m3"][i % 5]
            t, value = make(brc, rng, element, scale_format, layout, block, global_kind, zero_kind, act_order)
            same(brc.dequantize(t, OUTPUTS[i % 4]), value.reshape(SHAPE), (element, scale_format, block, global_kind, zero_kind, act_order))


@pytest.mark.parametrize("dtype", OUTPUTS)
def test_ranks_and_strides(brc, dtype):
    """Any strides of the output; what lies between is left alone."""
    rng = np.random.default_rng(1)
    for shape in [(52,), (10, 52), (3, 10, 52), (3, 2, 5, 52), (1, 3, 1, 2, 5, 1, 1, 52), (3, 0, 52), (3, 10, 0)]:
        three = expected.three(np.empty(shape)).shape
        same_numbers, value = make(brc, rng, "e4m3", "f32", "per_block_k", (1, 1, 16), None, None, False, three)     # holds the memory
        t = brc.tensor("e4m3", shape, same_numbers.data, scale=(same_numbers.scale, "f32", (1, 1, 16)), layout="per_block_k")
        value = value.reshape(shape)
        same(brc.dequantize(t, dtype), value, shape)
        room = np.full([2 * n + 1 for n in shape], -77, dtype)
        for sign in (1, -1):
            room[...] = -77
            view = room[tuple(slice(1, 2 * n + 1, 2) for n in shape)][..., ::sign]
            brc.dequantize(t, out=view)
            same(view, value, (shape, "slice", sign))
            view[...] = -77
            assert (room == -77).all()
        turned = np.zeros(shape[::-1], dtype).T
        brc.dequantize(t, out=turned)
        same(turned, value, (shape, "transposed"))


@pytest.mark.parametrize("element", ["e4m3", "e5m2", "e4m3fnuz", "e2m1", "int4", "nf4"])
def test_beyond_the_output(brc, element):
    """IEEE: beyond the largest number is infinity, subnormals are kept, NaN codes and NaN scales are NaN, 2^-127 is 2^-127."""
    codes = np.arange(1 << BITS[element], dtype=np.uint8)
    e = values_of(element, codes).astype(F)
    scales = np.array([1e-45, 1e-39, 2.0**-127, 2.0**-20, 1, 700, 65504, 1e30, 3.4e38, np.inf, np.nan], F)
    t = brc.tensor(element, (scales.size, codes.size), pack(element, np.tile(codes, (scales.size, 1))),
                   scale=(scales.reshape(1, -1, 1), "f32", (1, 1, 0)), layout="per_channel")
    with np.errstate(all="ignore"):
        value = e * scales[:, None]
    for dtype in OUTPUTS:
        same(brc.dequantize(t, dtype), value, element)
    all_bytes = np.arange(256, dtype=np.uint8)
    t = brc.tensor(element, (256, codes.size), pack(element, np.tile(codes, (256, 1))), scale=(all_bytes, "e8m0", (1, 1, 0)),
                   layout="per_channel")
    with np.errstate(all="ignore"):
        value = e * values_of("e8m0", all_bytes).astype(F)[:, None]
    assert np.isnan(value[255]).all()
    for dtype in OUTPUTS:
        same(brc.dequantize(t, dtype), value, element)


def test_double_rounding_is_float32_first(brc):
    """float16 and bfloat16 round the float32 value once more; float64 holds it exactly."""
    rng = np.random.default_rng(2)
    x = (rng.standard_normal((64, 256)) * 2.0 ** rng.integers(-20, 20, (64, 1))).astype(F)
    for text in ("fp8-row", "int4:scale=f32", "nvfp4", "mxfp6-e2m3", "int8:rule=minmax"):
        t = brc.cast(x, text)
        value = brc.dequantize(t)
        for dtype in OUTPUTS:
            same(brc.dequantize(t, dtype), value, text)


def test_odd_pointers(brc):
    """Data, scales and outputs that start on any byte, as in a mapped file."""
    rng = np.random.default_rng(3)
    t, value = make(brc, rng, "e2m1", "f32", "per_block_k", (1, 1, 16), ("multiplier", 0), ("real", "bf16"), False)
    for name, size in (("scale", 4), ("global", 4), ("zero", 2), (None, 1)):
        target = t.c if name is None else getattr(t.c, name)
        n = {"scale": t.sizes.scale, "global": getattr(t.sizes, "global"), "zero": t.sizes.zero, None: t.sizes.data}[name]
        moved = np.zeros(n + 1, np.uint8)
        moved[1:] = np.frombuffer(brc.ffi.buffer(target.data, n), np.uint8)
        target.data = brc.ffi.cast("void *", moved.__array_interface__["data"][0] + 1)
        t._keep += (moved,)
    for dtype in OUTPUTS:
        room = np.zeros(value.size * np.dtype(dtype).itemsize + 1, np.uint8)
        out = np.ndarray(SHAPE, dtype, room.data, 1)
        brc.dequantize(t, out=out)
        same(out, value.reshape(SHAPE), "odd")


def test_refusals(brc):
    t = brc.cast(np.ones((4, 32), F), "mxfp8")
    for out, match, name in ((np.zeros((4, 31), F), "shape is not the tensor's", "SHAPE"), (np.zeros((1, 4, 32), F), "shape is not", "SHAPE"),
                             (np.zeros((4, 32), np.int8), "f64, f32, f16 or bf16", "FORMAT")):
        with pytest.raises(brc.Error, match=match) as error:
            brc.dequantize(t, out=out)
        assert error.value.name == name


@pytest.mark.parametrize("name", inputs.ALL)
def test_casts_come_back(brc, name):
    """Cast and back is what codes, scales and zero points say."""
    for text in ("fp8", "fp8-row:scale=bf16", "mxfp8", "mxfp4:rule=floor", "mxint8", "nvfp4", "nvfp4:arith=div", "int8", "int4:group=32,rule=minmax",
                 "int4:group=32,format=uint4,rule=minmax,scale=f32"):
        r = expected.fields(brc, text)
        x = inputs.ALL[name]
        want = expected.cast(r, x)
        e, s = values_of(r.element, want.codes).astype(F), values_of(r.scale, want.scale).astype(F)
        with np.errstate(all="ignore"):
            m = s if want.globals is None else s / want.globals if r.arith == "div" else s * want.globals
            m = want.blocks.spread(m)
            value = e * m if want.zero is None else (e - want.blocks.spread(want.zero)) * m
        same(brc.dequantize(brc.cast(x, f"{text}{',' if ':' in text else ':'}partial=1")), value, (text, name))
