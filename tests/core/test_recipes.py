# SPDX-License-Identifier: Apache-2.0
"""The table of recipes is a contract with users; recipes as text; which fields go together."""
import itertools
import re

import breccia_c as brc_c
import numpy as np
import pytest
from core.codes import BITS, ELEMENTS, FLOATS, SMALL_INTEGERS
from hypothesis import given, settings
from hypothesis import strategies as st

# name: file, class, element, scale, levels, layout, block, rule, arith, history length. Written by hand; never change a row.
ROWS = {
    "fp8-delayed": ("delayed", "DelayedScaling", "e4m3", "f32", 1, "per_tensor", (0, 0, 0), "amax", "te", 16),
    "fp8": ("current", "Float8CurrentScaling", "e4m3", "f32", 1, "per_tensor", (0, 0, 0), "amax", "te", 0),
    "fp8-row": ("row", "Float8RowScaling", "e4m3", "f32", 1, "per_channel", (1, 1, 0), "amax", "div", 0),
    "fp8-block": ("block", "Float8BlockScaling", "e4m3", "f32", 1, "per_block_k", (1, 1, 128), "amax", "div", 0),
    "fp8-block128": ("block", "Float8BlockScaling", "e4m3", "f32", 1, "per_block_mn", (1, 128, 128), "amax", "div", 0),
    "mxfp8": ("mxfp8", "MXFP8BlockScaling", "e4m3", "e8m0", 1, "per_block_mn", (1, 1, 32), "rceil", "recip", 0),
    "mxfp6-e3m2": ("mxfp6", "MXFP6BlockScaling", "e3m2", "e8m0", 1, "per_block_mn", (1, 1, 32), "rceil", "recip", 0),
    "mxfp6-e2m3": ("mxfp6", "MXFP6BlockScaling", "e2m3", "e8m0", 1, "per_block_mn", (1, 1, 32), "rceil", "recip", 0),
    "mxfp4": ("mxfp4", "MXFP4BlockScaling", "e2m1", "e8m0", 1, "per_block_mn", (1, 1, 32), "rceil", "recip", 0),
    "mxint8": ("mxint8", "MXINT8BlockScaling", "int8q6", "e8m0", 1, "per_block_mn", (1, 1, 32), "rceil", "recip", 0),
    "nvfp4": ("nvfp4", "NVFP4BlockScaling", "e2m1", "e4m3", 2, "per_block_mn", (1, 1, 16), "amax", "recip", 0),
    "int8": ("int8", "INT8Scaling", "int8", "f32", 1, "per_channel", (1, 1, 0), "amax", "div", 0),
    "int4": ("int4", "INT4Scaling", "int4", "f16", 1, "per_block_k", (1, 1, 128), "amax", "div", 0),
    "q4_0": ("ggml", "GGMLScaling", "int4", "f16", 1, "per_block_k", (1, 1, 32), "peak", "ggml", 0),
    "q4_1": ("ggml", "GGMLScaling", "uint4", "f16", 1, "per_block_k", (1, 1, 32), "minmax", "ggml", 0),
    "q5_0": ("ggml", "GGMLScaling", "int5", "f16", 1, "per_block_k", (1, 1, 32), "peak", "ggml", 0),
    "q5_1": ("ggml", "GGMLScaling", "uint5", "f16", 1, "per_block_k", (1, 1, 32), "minmax", "ggml", 0),
    "q8_0": ("ggml", "GGMLScaling", "int8", "f16", 1, "per_block_k", (1, 1, 32), "amax", "ggml", 0),
    "iq4_nl": ("ggml", "GGMLScaling", "iq4_nl", "f16", 1, "per_block_k", (1, 1, 32), "fit", "ggml", 0),
}
SCALES = ["f32", "f16", "bf16", "e8m0", "e4m3"]
MX = ["rceil", "floor", "ceil", "even"]
RULES = ["amax", "noclip", "minmax", *MX, "peak", "fit"]
ARITHS = ["te", "div", "deepgemm", "recip", "ct", "modelopt", "ggml", "mlx"]


def words(brc, r):
    """All fields of a brc_recipe."""
    return dict(id=r.id, format=brc.format_name(r.element), scale=brc.format_name(r.scale), zero=brc.format_name(r.zero), levels=r.levels,
                layout=brc.ffi.string(brc.lib.brc_layout_get(r.layout).name).decode(), block=(r.block.batch, r.block.rows, r.block.cols),
                rule=brc.ffi.string(brc.lib.brc_rule_name(r.rule)).decode(), arith=brc.ffi.string(brc.lib.brc_arith_name(r.arith)).decode(),
                pow2=r.pow2, partial=r.partial, history=r.history, margin=r.margin, length=r.history_length, epsilon=r.epsilon, size=r.size)


def test_rows(brc):
    assert list(brc.recipes()) == list(ROWS)                    # the order is the ABI
    for number, (name, info) in enumerate(brc.recipes().items()):
        file, klass, element, scale, levels, layout, block, rule, arith, length = ROWS[name]
        text = lambda chars: brc.ffi.string(chars).decode()
        assert (text(info.file_name), text(info.class_name)) == (file, klass)
        zero = "f16" if arith == "ggml" and rule == "minmax" else "none"
        want = dict(id=number, format=element, scale=scale, zero=zero, levels=levels, layout=layout, block=block, rule=rule, arith=arith,
                    pow2=0, partial=0, history=0, margin=0, length=length, epsilon=0, size=brc.ffi.sizeof("brc_recipe"))
        assert words(brc, info.recipe) == want
        made = brc.ffi.new("brc_recipe *")
        brc.call("brc_recipe_init", number, made)
        assert words(brc, made) == want and words(brc, brc.recipe(name)) == want
        assert brc.recipe_text(name) == name and brc.lib.brc_recipe_find(name.encode()) == number
        brc.call("brc_recipe_check", made)


def test_unknown_names(brc):
    assert brc.lib.brc_recipe_find(b"MXFP8") == brc.lib.brc_recipe_find(brc.ffi.NULL) == brc.lib.BRC_RECIPE_UNKNOWN
    assert brc.lib.brc_recipe_get(len(ROWS)) == brc.ffi.NULL and brc.lib.brc_recipe_get(254) == brc.ffi.NULL
    for number in (len(ROWS), 254, 255, -1):
        with pytest.raises(brc.Error, match="there is no recipe"):
            brc.call("brc_recipe_init", brc.ffi.cast("brc_recipe_id", number), brc.ffi.new("brc_recipe *"))
    for names in ("brc_rule_name", "brc_arith_name", "brc_kind_name"):
        assert getattr(brc.lib, names)(99) == brc.ffi.NULL


def test_names_of_choices(brc):
    """The order of rules, arithmetics and kinds is the ABI as well."""
    for function, names in (("brc_rule_name", RULES), ("brc_arith_name", ARITHS),
                            ("brc_kind_name", ["multiplier", "divisor", "amax", "code", "float_code", "real"])):
        assert [brc.ffi.string(getattr(brc.lib, function)(i)).decode() for i in range(len(names))] == names
        assert getattr(brc.lib, function)(len(names)) == brc.ffi.NULL


# ----------------------------------------------------------------------------------------------------------- text

@pytest.mark.parametrize("text, changes", [
    ("nvfp4:levels=1", dict(levels=1)),
    ("int4:group=64,scale=bf16", dict(block=(1, 1, 64), scale="bf16")),
    ("int4:group=-1", dict(block=(1, 1, 0), layout="per_channel")),
    ("int4:group=0", dict(block=(1, 1, 0), layout="per_channel")),
    ("fp8:format=e5m2", dict(format="e5m2")),
    ("fp8:FORMAT=e5m2", None),
    ("fp8:format=E5M2", dict(format="e5m2")),
    ("fp8-block:block=1x64", dict(block=(1, 1, 64))),
    ("fp8-block:block=4x64", dict(block=(1, 4, 64), layout="per_block_mn")),
    ("fp8-block:block=tensor", dict(block=(0, 0, 0), layout="per_tensor")),
    ("fp8-block:block=expert", dict(block=(1, 0, 0), layout="per_tensor")),
    ("fp8-block:block=row", dict(block=(1, 1, 0), layout="per_channel")),
    ("fp8-block:block=column", dict(block=(1, 0, 1), layout="per_column")),
    ("fp8-block128:block=1x128", dict(block=(1, 1, 128))),
    ("fp8-block128:group=128", dict(block=(1, 1, 128), layout="per_block_k")),
    ("int4:block=2x64,block=1x64", dict(block=(1, 1, 64))),     # a detour does not change the layout
    ("int4:rule=minmax", dict(rule="minmax", zero="int8")),
    ("int4:rule=minmax,format=uint4", dict(rule="minmax", zero="uint8", format="uint4")),
    ("int4:format=uint4,rule=minmax,rule=amax", dict(format="uint4")),
    ("fp8:margin=-3,epsilon=1e-4,pow2=1", dict(margin=-3, epsilon=pytest.approx(1e-4), pow2=1)),
    ("fp8-delayed:history=most_recent,length=1024", dict(history=1, length=1024)),
    ("fp8-row:scale=e8m0,rule=floor", dict(scale="e8m0", rule="floor", arith="recip")),
    ("fp8-row:scale=fp16", dict(scale="f16")),
    ("fp8-row:scale=fp32", {}),
    ("mxfp8:partial=1", dict(partial=1)),
    ("mxfp8:", {}),
    ("custom:format=e4m3,scale=bf16,block=4x32,rule=amax,arith=div",
     dict(id=254, format="e4m3", scale="bf16", layout="per_block_mn", block=(1, 4, 32), rule="amax", arith="div", levels=1, length=0)),
])
def test_parse(brc, text, changes):
    if changes is None:
        with pytest.raises(brc.Error, match="there is no key 'FORMAT'"):
            brc.recipe(text)
        return
    want = {} if text.startswith("custom") else words(brc, brc.recipe(text.split(":")[0]))
    got = words(brc, brc.recipe(text))
    for key, value in {**want, **changes}.items():
        assert got[key] == value, key


@pytest.mark.parametrize("text, match", [
    ("", "there is no recipe ''"), ("mxfp9", "there is no recipe 'mxfp9'"), ("x" * 200, "name is too long"),
    ("fp8:colour=red", "no key 'colour'"), ("fp8:format", "'format' is not key=value"), ("fp8:=1", "no key ''"),
    ("fp8:format=e4m3,", "missing after ','"), ("fp8:,", "'' is not key=value"), ("fp8:format=" + "e" * 100, "is too long"),
    ("fp8:format=f32", "format=f32: must be"), ("fp8:format=e8m0", "format:"), ("fp8:format=", "format=: must be"),
    ("fp8:scale=int8", "scale: must be"), ("fp8:scale=wide", "scale=wide: must be"), ("fp8:block=0x0", "block=0x0: must be"),
    ("fp8:block=4", "block=4: must be"), ("fp8:block=x4", "block=x4: must be"), ("fp8:block=4x", "block=4x: must be"),
    ("fp8:block=1x2x3", "block=1x2x3: must be"), ("fp8:block=-1x4", "block=-1x4: must be"), ("fp8:block=99999999999x1", "must be"),
    ("fp8:block=4294967296x1", "must be"), ("int4:group=1.5", "group=1.5: must be"), ("int4:group=", "group=: must be"),
    ("int4:group= 4", "must be"), ("int4:group=99999999999999999999", "must be"), ("fp8:rule=best", "rule=best: must be"),
    ("fp8:rule=floor", "rule: floor gives e8m0 scales"), ("fp8:rule=minmax", "rule: minmax is for integer"),
    ("mxfp8:scale=f32", "rule: rceil gives e8m0"), ("mxint8:rule=even", "rule: even needs a floating-point"),
    ("mxint8:rule=minmax", "rule: minmax needs whole"), ("fp8:arith=fast", "arith=fast: must be"), ("int8:arith=te", "arith: te is for floating"),
    ("fp8:scale=f16", "arith: te is for floating-point elements with f32"), ("int8:arith=deepgemm", "arith: deepgemm"),
    ("mxfp8:arith=div", "arith: rule=rceil implies"), ("nvfp4:arith=deepgemm", "arith: deepgemm has no global"),
    ("mxfp8:pow2=1", "pow2: is for f32"), ("fp8:pow2=2", "pow2=2: must be 0 or 1"), ("fp8:partial=yes", "partial=yes: must be"),
    ("fp8:levels=2", "levels: 2 needs e4m3"), ("nvfp4:levels=3", "levels=3: must be 1 or 2"), ("fp8-row:margin=1", "margin: is for arith=te"),
    ("fp8:margin=65", "margin=65: must be"), ("fp8:epsilon=-1", "epsilon=-1: must be"), ("fp8:epsilon=nan", "must be a finite"),
    ("fp8:epsilon=inf", "must be a finite"), ("fp8:epsilon=1e39", "must be a finite"), ("fp8:epsilon=1x", "must be a finite"),
    ("fp8-delayed:length=0", "length: must be at least 1"), ("fp8-row:length=4", "length: an amax history needs"),
    ("fp8-delayed:length=9999999", "length=9999999: must be"), ("fp8-delayed:history=min", "history=min: must be"),
    ("fp8-delayed:block=row", "length: an amax history needs"), ("custom", "format:"), ("custom:scale=f32", "format:"),
])
def test_errors_name_the_key(brc, text, match):
    with pytest.raises(brc.Error) as error:
        brc.recipe(text)
    assert error.value.name == "RECIPE" and match in error.value.text and "\n" not in error.value.text


def test_set(brc):
    r = brc.recipe("int4")
    for key, value in (("group", "32"), ("rule", "minmax"), ("format", "uint4")):
        brc.call("brc_recipe_set", r, key.encode(), value.encode())
    assert words(brc, r) == words(brc, brc.recipe("int4:group=32,rule=minmax,format=uint4"))
    before = words(brc, r)
    for key, value in (("rule", "even"), ("group", "x"), ("nothing", "1"), ("levels", "2")):
        with pytest.raises(brc.Error):
            brc.call("brc_recipe_set", r, key.encode(), value.encode())
        assert words(brc, r) == before                          # a refused change changes nothing
    for arguments in ((brc.ffi.NULL, b"rule", b"amax"), (r, brc.ffi.NULL, b"amax"), (r, b"rule", brc.ffi.NULL)):
        with pytest.raises(brc.Error, match="must be given"):
            brc.call("brc_recipe_set", *arguments)


STORED = ["stored:format=uint4,scale=f16,block=1x128,group=128,zero=uint8", "stored:format=int8", "stored:format=e2m1,scale=e4m3,block=1x16,levels=2,global=divisor",
          "stored:format=e2m1,scale=e4m3,block=1x16,levels=2,global=amax/2688", "stored:format=e2m1,scale=e4m3,block=1x16,levels=2,global=multiplier@expert",
          "stored:format=uint3,scale=bf16,block=1x64,zero=bf16/real", "stored:format=nf4,block=1x64", "stored:format=e4m3,block=row,pow2=1"]


@pytest.mark.parametrize("text", STORED)
def test_what_is_stored_has_a_recipe_that_nothing_is_cast_to(brc, text):
    recipe = brc.recipe(text)
    assert recipe.id == brc.lib.BRC_RECIPE_UNKNOWN and brc.recipe_text(recipe) == text
    x = np.ones((2, 128), np.float32)
    with pytest.raises(brc.Error, match="nothing can be cast to it") as stopped:
        brc.cast(x, text)
    assert stopped.value.name == "RECIPE"


@pytest.mark.parametrize("text, words", [
    ("stored:format=uint4,zero=f64", "zero"), ("stored:format=uint4,zero=uint8/divisor", "zero"), ("stored:format=uint4,zero=int3", "zero"),
    ("stored:format=e2m1,global=amax", "global"), ("stored:format=e2m1,global=divisor/3", "global"), ("stored:format=e2m1,global=amax/0", "constant"),
    ("stored:format=e2m1,global=real", "global"), ("stored:format=e2m1,global=divisor@x", "global"), ("int4:zero=uint8", "stored"),
    ("nvfp4:global=divisor", "stored"), ("stored:scale=f32", "format")])
def test_what_cannot_be_stored(brc, text, words):
    with pytest.raises(brc.Error, match=words) as stopped:
        brc.recipe(text)
    assert stopped.value.name == "RECIPE"


def test_text_in_little_room(brc):
    r, whole = brc.recipe("int4:group=64,scale=bf16"), b"int4:scale=bf16,block=1x64"
    assert brc.lib.brc_recipe_text(r, brc.ffi.NULL, 0) == brc.lib.brc_recipe_text(r, brc.ffi.NULL, 100) == len(whole)
    for room in range(40):
        text = brc.ffi.new("char[64]", b"#" * 63)
        assert brc.lib.brc_recipe_text(r, text, room) == len(whole)
        written = whole[:room - 1] + b"\0" if room else b""
        assert brc.ffi.buffer(text)[:] == written + b"#" * (63 - len(written)) + b"\0"


def test_keys(brc):
    keys, help = [], brc.ffi.new("const char **")
    while (key := brc.lib.brc_recipe_key_get(len(keys), help)) != brc.ffi.NULL:
        keys.append(brc.ffi.string(key).decode())
        assert brc.ffi.string(help[0])
    assert keys == ["format", "scale", "block", "group", "rule", "arith", "levels", "pow2", "partial", "margin", "history", "length", "epsilon", "zero", "global"]


CHANGES = st.lists(st.one_of(
    st.sampled_from(ELEMENTS).map("format={}".format), st.sampled_from(SCALES).map("scale={}".format),
    st.sampled_from(["tensor", "expert", "row"]).map("block={}".format),
    st.tuples(st.integers(1, 2**31 - 1) | st.integers(1, 40), st.integers(1, 2**31 - 1) | st.integers(1, 4)).map("block={0[0]}x{0[1]}".format),
    st.integers(-1, 200).map("group={}".format), st.sampled_from(RULES).map("rule={}".format), st.sampled_from(ARITHS).map("arith={}".format),
    st.integers(1, 2).map("levels={}".format), st.integers(0, 1).map("pow2={}".format), st.integers(0, 1).map("partial={}".format),
    st.integers(-64, 64).map("margin={}".format), st.sampled_from(["max", "most_recent"]).map("history={}".format),
    st.integers(0, 2048).map("length={}".format), st.floats(0, width=32, allow_nan=False, allow_infinity=False).map("epsilon={!r}".format)),
    max_size=6)


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from([*ROWS, "custom:format=e4m3", "custom:format=int4,scale=f16,arith=recip"]), CHANGES)
def test_text_comes_back(name, changes):
    """Whatever was accepted is written as text that parses to the same fields."""
    text = name + "".join((":" if i == 0 and ":" not in name else ",") + change for i, change in enumerate(changes))
    try:
        recipe = brc_c.recipe(text)
    except brc_c.Error:
        return
    written = brc_c.recipe_text(recipe)
    again = brc_c.recipe(written)
    assert words(brc_c, again) == words(brc_c, recipe), (text, written)
    assert brc_c.recipe_text(again) == written and len(written) < 256


# ---------------------------------------------------------------------------------------------------------- check

def goes_together(element, scale, rule, arith, pow2, levels):
    """The rules of what may be composed, once more."""
    integer = element in SMALL_INTEGERS or element == "int8q6"
    floating = element in FLOATS
    if arith == "ggml" or rule in ("peak", "fit"):              # blocks of 1 to 256 columns; here they are whole rows
        return False
    if arith == "mlx" and rule == "minmax":                     # as those, and its zero points are not integers
        return False
    if rule in MX:
        own = (arith, rule) == ("mlx", "rceil") and element in ("e2m1", "e4m3") or (arith, rule) == ("ct", "even") or (arith, rule, element) == ("modelopt", "rceil", "e2m1")
        return scale == "e8m0" and (arith == "recip" or own) and not pow2 and levels == 1 and (rule != "even" or floating)
    if rule in ("noclip", "minmax") and not integer or rule == "minmax" and element == "int8q6":
        return False
    plain = rule == "amax" and scale == "f32"
    if arith == "te" and not (plain and floating) or arith == "deepgemm" and not (rule == "amax" and floating and levels == 1):
        return False
    if arith == "mlx" and not ((element, scale, rule) == ("e2m1", "e4m3", "amax") and levels == 1):
        return False
    if arith == "ct" and (not floating or scale == "e8m0"):
        return False
    if arith == "modelopt" and not (floating and scale == "e4m3" or re.fullmatch("int[0-9]+", element) and rule == "amax" and scale != "e8m0"):
        return False
    return (plain or not pow2) and (levels == 1 or scale == "e4m3" and rule == "amax")


def test_check_of_every_combination(brc):
    """All products of the tables."""
    number = {name: brc.format_of(name) for name in BITS}
    accepted = 0
    for element, scale, rule, arith, pow2, levels in itertools.product(
            ELEMENTS, SCALES, range(len(RULES)), range(len(ARITHS)), (0, 1), (1, 2)):
        r = brc.recipe("fp8-row")
        r.id, r.element, r.scale, r.rule, r.arith, r.pow2, r.levels = 254, number[element], number[scale], rule, arith, pow2, levels
        if RULES[rule] == "minmax":
            r.zero = number["uint8" if element.startswith("u") else "int8"]
        want = goes_together(element, scale, RULES[rule], ARITHS[arith], pow2, levels)
        assert (brc.lib.brc_recipe_check(r, brc.ffi.NULL) == brc.lib.BRC_OK) == want, (element, scale, RULES[rule], ARITHS[arith], pow2, levels)
        accepted += want
    assert accepted > 600


@pytest.mark.parametrize("field, values, word", [
    ("size", (0, 4, 39), "size"), ("id", (len(ROWS), 100, 253), "unknown"), ("element", (0, 1, 4, 12, 30, 255), "format"),
    ("scale", (0, 1, 6, 8, 11, 200), "scale"), ("zero", (5, 19, 200), "zero"), ("levels", (0, 2, 3), "levels"), ("layout", (0, 1, 4, 255), "block|layout"),
    ("rule", (1, 3, 7, 8, 9, 255), "rule"), ("arith", (5, 6, 7, 255), "arith"), ("pow2", (2, 255), "pow2"), ("partial", (2,), "partial"),
    ("history", (2, 255), "history"), ("margin", (1, -65, 65), "margin"), ("history_length", (1, 1 << 31), "length"),
    ("epsilon", (-1.0, float("inf"), float("nan")), "epsilon")])
def test_check_of_single_fields(brc, field, values, word):
    for value in values:
        r = brc.recipe("fp8-block")
        setattr(r, field, value)
        with pytest.raises(brc.Error) as error:
            brc.call("brc_recipe_check", r)
        assert error.value.name == "RECIPE" and any(w in error.value.text for w in word.split("|")), (value, error.value.text)


def test_check_of_blocks(brc):
    for block in ((2, 1, 128), (1, 0, 128), (1, 1, 0), (1, 2, 128), (0, 1, 128), (1, 1, 2**32 - 1), (1, 1, 2**31), (2**32 - 1, 1, 1)):
        r = brc.recipe("fp8-block")
        r.block = block
        with pytest.raises(brc.Error) as error:
            brc.call("brc_recipe_check", r)
        assert error.value.name == "RECIPE" and "block" in error.value.text
    r = brc.recipe("int8:rule=minmax")
    r.zero = brc.format_of("uint8")
    with pytest.raises(brc.Error, match="zero: must be int8"):
        brc.call("brc_recipe_check", r)


def test_text_does_not_depend_on_the_locale(brc):
    """A host that has set a decimal comma reads and writes the same texts."""
    import locale
    before = locale.setlocale(locale.LC_NUMERIC)
    for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "nl_NL.UTF-8", "pt_BR.UTF-8"):
        try:
            locale.setlocale(locale.LC_NUMERIC, name)
            break
        except locale.Error:
            continue
    else:
        pytest.skip("no locale with a decimal comma is installed")
    try:
        assert locale.localeconv()["decimal_point"] == ","
        recipe = brc.recipe("fp8:epsilon=0.25")
        assert recipe.epsilon == 0.25 and brc.recipe_text(recipe) == "fp8:epsilon=0.25"
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)
