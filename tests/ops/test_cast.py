# SPDX-License-Identifier: Apache-2.0
"""cast: every recipe, and every recipe that can be composed, bit for bit against NumPy; strict inputs; strides; threads."""
import functools
import itertools
import re

import breccia_c as brc_c
import ml_dtypes
import numpy as np
import pytest
from core.codes import NAN_CODES, pack, unpack, values_of
from hypothesis import given, settings
from hypothesis import strategies as st
from ops import expected, inputs

F = np.float32
RECIPES = ["fp8-delayed", "fp8", "fp8-row", "fp8-block", "fp8-block128", "mxfp8", "mxfp6-e3m2", "mxfp6-e2m3", "mxfp4", "mxint8", "nvfp4",
           "int8", "int4"]
GGML = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "mxfp4:rule=floor,arith=ggml", "nvfp4:levels=1,arith=ggml",
        "q4_0:format=int3,group=16", "q4_1:format=uint8,group=256", "q8_0:format=int5,group=8", "iq4_nl:group=24"]
MLX = ["mxfp4:arith=mlx", "mxfp8:arith=mlx", "nvfp4:levels=1,arith=mlx"] + [
    f"int4:format=uint{bits},group={group},scale={scale},rule=minmax,arith=mlx"
    for bits, group, scale in ((2, 32, "f32"), (3, 64, "bf16"), (4, 64, "f16"), (5, 128, "f32"), (6, 24, "bf16"), (8, 256, "f16"), (4, 32, "bf16"))]
VARIANTS = ["fp8:format=e5m2", "fp8:pow2=1", "fp8:margin=3", "fp8:margin=-3", "fp8:epsilon=0.5", "fp8:block=expert", "fp8:format=e4m3fnuz",
            "fp8:margin=64", "fp8:margin=-64", "fp8:margin=64,pow2=1",
            "fp8-row:format=e5m2fnuz,scale=bf16", "fp8-block:arith=te,pow2=1", "fp8-block128:arith=te", "fp8-block:arith=deepgemm,pow2=1",
            "fp8-block128:block=16x32,scale=e8m0", "mxfp8:format=e5m2,rule=floor", "mxfp8:rule=ceil", "mxfp4:rule=even", "mxfp8:rule=even",
            "mxint8:rule=floor", "nvfp4:levels=1", "nvfp4:arith=div", "nvfp4:block=16x16", "nvfp4:arith=div,levels=1", "nvfp4:arith=ct", "nvfp4:arith=ct,levels=1",
            "nvfp4:arith=modelopt", "nvfp4:arith=modelopt,levels=1", "mxfp8:rule=even,arith=ct", "mxfp6-e2m3:rule=even,arith=ct",
            "mxfp4:rule=even,arith=ct", "mxfp4:arith=modelopt", "fp8-row:arith=ct", "fp8-block128:arith=ct,scale=bf16", "fp8:arith=ct",
            "int8:arith=modelopt", "int4:arith=modelopt,scale=f32", "int4:group=32",
            "int4:group=32,scale=bf16", "int4:group=32,scale=f32,rule=minmax", "int4:group=32,format=uint4,rule=minmax",
            "int4:rule=noclip,group=16", "int4:group=32,format=uint4,rule=minmax,arith=recip", "int8:block=tensor", "int8:rule=minmax",
            "int8:arith=recip", "int8:arith=recip,rule=minmax,epsilon=1e-30", "int4:format=int3,group=8", "int4:format=int5,group=32",
            "int4:format=int7,group=24", "int4:format=nf4,group=32", "int4:format=iq4_nl,group=32"]
TYPES = {"f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}


def partial(text):
    """The same recipe for shapes its block does not divide."""
    return f"{text}{',' if ':' in text else ':'}partial=1"


def agree(brc, t, r, want, what=""):
    """Scales, zero points, global scale, codes: bit for bit."""
    n = t.shape[-1]

    def bits(a):
        a = np.ascontiguousarray(a)
        return a.view(f"u{a.dtype.itemsize}")

    def equal(got, expected, part):
        got, expected = np.asarray(got), np.asarray(expected)
        wrong = np.argwhere(got != expected)
        assert got.shape == expected.shape and len(wrong) == 0, \
            f"{t.recipe} {what} {part}: {len(wrong)} of {got.size} differ, first at {wrong[0]}: {got[tuple(wrong[0])]:#x}, " \
            f"expected {expected[tuple(wrong[0])]:#x}"

    equal(bits(t.scale), want.scale, "scale")
    if want.globals is None:
        assert t.globals is None
    else:
        equal(bits(t.globals).ravel(), bits(np.array([want.globals])), "global scale")
    if want.zero is None:
        assert t.zero is None
    elif r.arith == "mlx":
        equal(bits(t.zero), want.zero, "zero point")
    elif want.zero.dtype == np.float16:
        equal(bits(t.zero), bits(want.zero), "zero point")
    else:
        assert np.array_equal(t.zero.astype(int), want.zero.astype(int)), f"{t.recipe} {what} zero point"
    rows = t.data.view(np.uint8).reshape(-1, t.data.shape[-1])
    equal(unpack(r.element, rows, n).reshape(want.codes.shape), want.codes, "codes")
    equal(rows, pack(r.element, want.codes.reshape(-1, n)), "packed rows")      # padding too


def check(brc, text, x, what="", **more):
    r = expected.fields(brc, text)
    kind = next(name for name, type in TYPES.items() if x.dtype == type)
    t = brc.cast(x, text, **more)
    agree(brc, t, r, expected.cast(r, x, expected.INPUT_MAX[kind]), what)
    return t


# ------------------------------------------------------------------------------------------- every recipe and its arithmetic

@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("text", RECIPES + VARIANTS + GGML + MLX)
def test_bit_exact(brc, text, kind):
    for name, x in inputs.ALL.items():
        with np.errstate(over="ignore", invalid="ignore"):
            x = x.astype(TYPES[kind])
        if kind == "f64":
            x = x * (1 + 2.0**-30)                  # to be rounded to float32 first
        check(brc, partial(text), x, f"{kind} {name}")


SCALES = ["f32", "f16", "bf16", "e8m0", "e4m3"]
RULES = ["amax", "noclip", "minmax", "rceil", "floor", "ceil", "even"]
ARITHS = ["te", "div", "deepgemm", "recip", "ct", "modelopt", "mlx"]
BLOCKS = ["tensor", "expert", "row", "1x32", "1x16", "4x8", "5x7", "1x1", "16x16", "1x100"]


def has_epsilon(text):
    """te has a smallest amax, integers under recip a smallest scale; the exponent rules have neither."""
    return "arith=te" in text or ("arith=recip" in text and re.search("format=u?int", text) and not re.search("rule=(rceil|floor|ceil|even)", text))


def composed():
    """Every combination of element, scale, rule, arith, pow2 and levels; blocks, margin, epsilon in turn."""
    product = itertools.product(expected.formats_of_elements(), SCALES, RULES, ARITHS, (0, 1), (1, 2))
    for i, (element, scale, rule, arith, pow2, levels) in enumerate(product):
        text = f"custom:format={element},scale={scale},rule={rule},arith={arith},pow2={pow2},levels={levels},partial=1"
        margin = ",margin={}".format((0, 2, -5)[i % 3]) if arith == "te" else ""
        epsilon = ",epsilon={}".format(("0", "1e-6", "3e-39")[i % 3]) if has_epsilon(text) else ""
        yield i, f"{text}{margin}{epsilon}"


@functools.cache
def accepted():
    """Those that brc_recipe_check takes; a mistake there shows in tests/core/test_recipes.py."""
    found, made = [], brc_c.ffi.new("brc_recipe *")
    for i, text in composed():
        if brc_c.lib.brc_recipe_parse(text.encode(), made, brc_c.ffi.NULL) == brc_c.lib.BRC_OK:
            found.append((i, text))
    assert len(found) > 600
    return found


@pytest.mark.parametrize("name", inputs.ALL)
def test_every_composition_bit_exact(brc, name):
    x = inputs.ALL[name]
    for j, (i, text) in enumerate(accepted()):
        for block in {BLOCKS[j % len(BLOCKS)], BLOCKS[(i // 7 + len(name)) % len(BLOCKS)]}:
            check(brc, f"{text},block={block}", x[:, :, :91] if j % 5 == 0 else x, name)


# ------------------------------------------------------------------------------------------------------------ finiteness

def sane(brc, t, x):
    """No finite input gives NaN codes or a NaN, infinite or non-positive scale."""
    scale = np.array([brc.lib.brc_table_number(brc.ffi.addressof(t.c, "scale"), i) for i in range(t.scale.size)])
    assert (np.isfinite(scale) & (scale > 0)).all(), (t.recipe, scale)
    if t.globals is not None:
        assert (np.isfinite(t.globals) & (t.globals > 0)).all(), (t.recipe, t.globals)
    element = brc.format_name(t.c.format)
    if np.isfinite(x).all():
        codes = unpack(element, t.data.view(np.uint8).reshape(-1, t.data.shape[-1]), t.shape[-1])
        assert np.isfinite(values_of(element, codes)).all(), t.recipe


floats = st.one_of(st.floats(width=32, allow_nan=False, allow_infinity=False),
                   st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1.1754942e-38, 1.1754944e-38, 3.4028235e38, -3.4028235e38, 448.0, 6.0,
                                    2.0**-126, 2.0**-127, 2.0**127, 1.0]).map(lambda v: float(F(v))))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_finite_in_finite_out(brc, data):
    text = accepted()[data.draw(st.integers(0, len(accepted()) - 1))][1]
    text += f",block={data.draw(st.sampled_from(BLOCKS))}"
    if "arith=te" in text:
        text += f",margin={data.draw(st.sampled_from([-64, -7, 0, 1, 30, 64]))}"
    if has_epsilon(text):
        text += f",epsilon={data.draw(st.sampled_from(['0', '1e-45', '1e-20', '1', '3e38']))}"
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)))
    pool = np.array(data.draw(st.lists(floats, min_size=1, max_size=12)), F)
    x = pool[np.random.default_rng(data.draw(st.integers(0, 1 << 20))).integers(0, pool.size, shape)]
    t = brc.cast(x, text)
    sane(brc, t, x)
    agree(brc, t, expected.fields(brc, text), expected.cast(expected.fields(brc, text), x))


def test_extremes_are_sane(brc):
    """Also with infinity and NaN about: scales stay finite and positive."""
    for j, (_, text) in enumerate(accepted()):
        name = list(inputs.ALL)[j % len(inputs.ALL)]
        sane(brc, brc.cast(inputs.ALL[name], f"{text},block={BLOCKS[j % len(BLOCKS)]}"), inputs.ALL[name])


# -------------------------------------------------------------------------------------------------------- strict inputs

ONE = np.linspace(-2, 2, 4 * 256, dtype=F).reshape(4, 256)


@pytest.mark.parametrize("text, scale", [("fp8", 1.0), ("fp8-row", 1.0), ("fp8-block", 1.0), ("fp8-block128", 1.0), ("mxfp8", 2.0**-127),
                                         ("mxfp4:rule=floor", 2.0**-127), ("mxint8", 2.0**-127), ("nvfp4", 2.0**-6),
                                         ("nvfp4:levels=1", 2.0**-6), ("int8", 2.0**-23), ("int4", 2.0**-10),
                                         ("int4:scale=bf16", 2.0**-7), ("int4:scale=f32", 2.0**-23)])
def test_zero_blocks(brc, text, scale):
    """The written scale of a block of zeros; codes keep the sign of zero where the format has one."""
    x = np.zeros((128, 256), F)
    x[1::2] = -0.0
    t = brc.cast(x, text)
    assert {brc.lib.brc_table_number(brc.ffi.addressof(t.c, "scale"), i) for i in range(t.scale.size)} == {scale}
    back = brc.dequantize(t)
    assert (back == 0).all()
    assert np.array_equal(np.signbit(back), np.signbit(x) & (not text.startswith(("int", "mxint"))))
    if text == "nvfp4":
        assert t.globals.ravel() == [1]


@pytest.mark.parametrize("text", RECIPES)
def test_nan(brc, text):
    """NaN never counts in a scale: the others are cast as if it were not there; it becomes the canonical NaN or 0."""
    x = np.repeat(ONE, 32, 0)
    y = x.copy()
    y[3, 5], y[77, 200] = np.nan, np.array(0xFFFFFFFF, np.uint32).view(F)
    x[3, 5] = x[77, 200] = 0
    without, t = brc.cast(x, text), brc.cast(y, text)
    assert np.array_equal(t.scale.view(np.uint8), without.scale.view(np.uint8))
    element = brc.format_name(t.c.format)
    got, clean = (unpack(element, v.data.view(np.uint8), 256).copy() for v in (t, without))
    clean[3, 5] = clean[77, 200] = NAN_CODES.get(element, 0)
    assert np.array_equal(got, clean)
    assert (t.report.nan, t.report.infinite, t.report.amax) == (2, 0, 2)


@pytest.mark.parametrize("text", RECIPES)
def test_infinity(brc, text):
    """Infinity saturates; FP8: its block has scale 1; MX: byte 254; NVFP4 and INT: as FLT_MAX."""
    x = np.repeat(ONE, 32, 0)
    x[3, 5], x[77, 200] = np.inf, -np.inf
    t = brc.cast(x, text)
    assert (t.report.nan, t.report.infinite, t.report.amax) == (0, 2, np.inf)
    element = brc.format_name(t.c.format)
    values = values_of(element, unpack(element, t.data.view(np.uint8), 256))
    info = brc.formats()[element]
    assert values[3, 5] == info.max and values[77, 200] == info.min
    r = expected.fields(brc, text)
    assert np.isfinite(values).all()
    block = tuple(np.array(expected.counts((1, 128, 256), r.block)) - 1)
    if text.startswith("fp8"):
        first = t.scale[0, 3 // r.block[1] if r.block[1] else 0, 0]
        assert first == 1
    elif text.startswith("mx"):
        assert t.scale[0, 3, 0] == 254 and t.scale[0, 77, 200 // 32] == 254 and t.scale[(0, *block[1:])] < 254
    else:
        y = np.where(np.isinf(x), np.copysign(np.finfo(F).max, x), x)
        finite = brc.cast(y, text)
        assert np.array_equal(finite.scale.view(np.uint8), t.scale.view(np.uint8)) and np.array_equal(finite.data, t.data)


def test_report_counts(brc):
    for dtype in TYPES.values():
        x = np.zeros((3, 2, 64), dtype)
        x[0, 0, :7], x[1, 1, 3:5], x[2, 1, 63], x[2, 0, 0] = np.nan, np.inf, -np.inf, -5.5
        for text in ("fp8", "mxfp8", "nvfp4", "int8"):
            report = brc.cast(x, text).report
            assert (report.nan, report.infinite, report.amax) == (7, 3, np.inf), (dtype, text)
        x[np.isinf(x)] = 1
        assert brc.cast(x, "nvfp4").report.amax == 5.5
    assert brc.cast(np.full((2, 32), np.nan, F), "mxfp8").report.amax == 0
    report = brc.cast(np.array([[1e300, -1e39, 2.0, 1e-60]]), "fp8-row").report      # float64 is rounded to float32 first
    assert (report.nan, report.infinite, report.amax) == (0, 2, np.inf)


# ---------------------------------------------------------------------------------------------------------- shapes

@pytest.mark.parametrize("text", RECIPES + GGML)
def test_empty(brc, text):
    for rank in range(1, 9):
        for at in range(rank):
            shape = [2] * (rank - 1) + [256]
            if rank >= 2:
                shape[-2] = 128
            shape[at] = 0
            t = brc.cast(np.zeros(shape, F), partial(text))
            r = expected.fields(brc, text)
            want = expected.cast(r, np.zeros(shape, F))
            assert t.shape == tuple(shape) and t.data.size == 0 and t.scale.shape == want.scale.shape
            assert np.array_equal(np.ascontiguousarray(t.scale).view(np.uint8), np.ascontiguousarray(want.scale).view(np.uint8))
            assert t.globals is None or t.globals.ravel() == [1]
            assert brc.dequantize(t).shape == tuple(shape)
            assert (t.report.nan, t.report.infinite, t.report.amax) == (0, 0, 0)


@pytest.mark.parametrize("text", RECIPES + GGML)
def test_ranks(brc, text):
    x = np.random.default_rng(4).standard_normal(256 * 128).astype(F)
    for shape in [(256 * 128,), (128, 256), (2, 128, 128), (1, 2, 1, 128, 128), (1, 1, 1, 2, 1, 1, 128, 128), (2, 1, 1, 1, 1, 1, 128, 128)]:
        check(brc, partial(text), x.reshape(shape), str(shape))
    with pytest.raises(brc.Error, match="rank is 0"):
        brc.cast(np.array(1, F), text)


@pytest.mark.parametrize("text", RECIPES + GGML)
def test_ragged_edges(brc, text):
    """Shapes the block does not divide: refused, with partial=1 cut at the edge."""
    rng, r = np.random.default_rng(5), expected.fields(brc, text)
    for shape in [(1,), (33,), (129, 257), (3, 5, 31), (2, 130, 1), (1, 127), (2, 2, 100, 1100)]:
        x = (rng.standard_normal(shape) * 2.0 ** rng.integers(-9, 9, shape)).astype(F)
        check(brc, partial(text), x, str(shape))
        rows, cols = expected.three(x).shape[1:]
        if (r.block[1] and rows % r.block[1]) or (r.block[2] and cols % r.block[2]):
            with pytest.raises(brc.Error, match="not divisible by the block.*partial=1") as error:
                brc.cast(x, text)
            assert error.value.name == "SHAPE"
        else:
            check(brc, text, x, str(shape))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("text", RECIPES + GGML)
def test_strides(brc, text, kind):
    """Transposed, sliced, reversed and broadcast sources give the bits of their contiguous copies."""
    base = inputs.magnitudes(np.random.default_rng(6), -4, 4)
    base = np.concatenate([base, base * 3], -1)[:, :, :160].astype(TYPES[kind])       # [2, 12, 160]
    views = [base.transpose(2, 1, 0), base.transpose(1, 0, 2), base[:, ::-1, ::-1], base[::-1, 1::3, 3:131:2], base[..., 7:39],
             np.broadcast_to(base[0, 0], (3, 4, 160)), np.broadcast_to(base[0, :, :1], (12, 64)), base[:, :, ::-5], base.T,
             np.lib.stride_tricks.sliding_window_view(base[0, 0], 64)]
    for i, view in enumerate(views):
        t = brc.cast(view, partial(text))
        same = brc.cast(np.ascontiguousarray(view), partial(text))
        assert np.array_equal(t.data, same.data) and np.array_equal(t.scale.view(np.uint8), same.scale.view(np.uint8)), (i, view.strides)
        if kind == "f32":
            check(brc, partial(text), view, f"view {i}")


@pytest.mark.parametrize("text", [*RECIPES, *GGML, "nvfp4:block=16x16", "int4:format=int3,rule=minmax,group=40"])
def test_threads(brc, text):
    """1, 2 and 7 threads give the same bits and the same report."""
    x = (np.random.default_rng(7).standard_normal((2, 260, 960)) * 3).astype(F)
    x[0, 100, 5], x[1, 259, 959] = np.nan, 77
    one = brc.cast(x, partial(text), threads=1)
    for threads in (2, 7, 64, 1000):
        t = brc.cast(x, partial(text), threads=threads)
        for part in ("data", "scale", "globals", "zero"):
            a, b = getattr(one, part), getattr(t, part)
            assert (a is None and b is None) or np.array_equal(a.view(np.uint8), b.view(np.uint8)), (threads, part)
        assert (t.report.nan, t.report.infinite, t.report.amax) == (1, 0, 77)
        assert np.array_equal(brc.dequantize(t, threads=threads), brc.dequantize(one, threads=1), equal_nan=True)


def test_row_pitch_and_surroundings(brc):
    """Rows wider than they need: what lies between rows and behind the tables stays."""
    x = np.random.default_rng(8).standard_normal((5, 37)).astype(F)
    for text in ("int4:group=37,format=int3", "mxfp4:partial=1", "fp8", "nvfp4:partial=1"):
        t = brc.empty(text, x.shape)
        memory = np.full(5 * 64 + 32, 0xA5, np.uint8)
        t.c.data = brc.ffi.cast("void *", memory.__array_interface__["data"][0] + 16)
        t.c.row_pitch = 64
        brc.call("brc_cast", brc.array(x), brc.recipe(text), brc.ffi.NULL, brc.ffi.NULL, t.c, brc.ffi.NULL)
        plain = brc.cast(x, text)
        assert np.array_equal(t.data, plain.data)
        width = plain.data.shape[-1]
        rows = memory[16:-16].reshape(5, 64)
        assert (rows[:, width:] == 0xA5).all() and (memory[:16] == 0xA5).all() and (memory[-16:] == 0xA5).all()
        assert np.array_equal(brc.dequantize(t), brc.dequantize(plain))


# ----------------------------------------------------------------------------------------------------------- refusals

def test_refusals(brc):
    x = np.ones((4, 64), F)

    def refused(match, name, *arguments):
        with pytest.raises(brc.Error, match=match) as error:
            brc.call(*arguments)
        assert error.value.name == name, error.value

    def cast_into(t, text, source=None, state=brc.ffi.NULL):
        return ("brc_cast", brc.array(x) if source is None else source, brc.recipe(text), brc.ffi.NULL, state, t.c, brc.ffi.NULL)

    refused("planned for another recipe", "FORMAT", *cast_into(brc.empty("mxfp8", x.shape), "mxfp4"))
    refused("planned for another recipe", "FORMAT", *cast_into(brc.empty("mxfp8", x.shape), "mxfp8:block=1x64"))
    refused("shape is not the source's", "SHAPE", *cast_into(brc.empty("mxfp8", (4, 32)), "mxfp8"))
    refused("shape is not the source's", "SHAPE", *cast_into(brc.empty("mxfp8", (1, 4, 64)), "mxfp8"))
    refused("global scale is not", "FORMAT", *cast_into(brc.empty("nvfp4:levels=1", x.shape), "nvfp4"))
    refused("global scale is not", "FORMAT", *cast_into(brc.empty("nvfp4", x.shape), "nvfp4:levels=1"))
    refused("global scale is not", "FORMAT", *cast_into(brc.empty("nvfp4", x.shape), "nvfp4:arith=div"))
    refused("zero point is not", "FORMAT", *cast_into(brc.empty("int8", x.shape), "int8:rule=minmax"))
    refused("no history", "ARGUMENT", *cast_into(brc.empty("fp8", x.shape), "fp8", state=brc.delayed_state()))
    bad = brc.delayed_state()
    for scale in (0, -1, np.inf, np.nan):
        bad.scale = scale
        refused("must be positive and finite", "ARGUMENT", *cast_into(brc.empty("fp8-delayed", x.shape), "fp8-delayed", state=bad))
    for dtype in (np.int8, np.int64, np.bool_):
        refused("f64, f32, f16 or bf16 is needed", "FORMAT",
                *cast_into(brc.empty("fp8", x.shape), "fp8", source=brc.array(np.ones((4, 64), dtype))))
    void = brc.array(x)
    void.data = brc.ffi.NULL
    refused("has no data", "ARGUMENT", *cast_into(brc.empty("fp8", x.shape), "fp8", source=void))
    void.size = 3
    refused("another version", "ARGUMENT", *cast_into(brc.empty("fp8", x.shape), "fp8", source=void))
