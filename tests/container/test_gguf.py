# SPDX-License-Identifier: Apache-2.0
"""GGUF files: read as gguf-py reads them, refused where ggml refuses them, written so that both open them."""
import struct

import breccia_c as brc
import ggml_c
import gguf
import numpy as np
import pytest
from container.files import File, Writer, contents
from container.gguf_bytes import NUMBERS, TYPES, pair, string, tensor
from container.gguf_bytes import gguf as build
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PAIRS = [pair("general.architecture", "str", "llama"), pair("a.u8", "u8", 200), pair("a.i8", "i8", -100), pair("a.u16", "u16", 60000),
         pair("a.i16", "i16", -30000), pair("a.u32", "u32", 4000000000), pair("a.i32", "i32", -2000000000), pair("a.f32", "f32", 0.15625),
         pair("a.yes", "bool", 1), pair("a.no", "bool", 0), pair("a.str", "str", "brèche\n"), pair("a.u64", "u64", 1 << 63),
         pair("a.i64", "i64", -(1 << 62)), pair("a.f64", "f64", 1e-300), pair("a.third", "f32", 1 / 3), pair("l.i32", ["i32"], [1, -2, 3]),
         pair("l.str", ["str"], ["a", "", "c" * 60, *"defghij"]), pair("l.f32", ["f32"], [0.5, -1.25]), pair("l.bool", ["bool"], [1, 0]),
         pair("l.none", ["u8"], []), pair("a.bytes", "str", b"\xff\x00\xfe")]
TENSORS = [("a", "F32", (3, 5)), ("b", "Q4_0", (2, 64)), ("c", "I8", ()), ("d", "F16", (2, 3, 4, 5)), ("e", "Q8_0", (0, 32)), ("f", "Q8_0", (32,))]


def put(path, raw):
    path.write_bytes(raw)
    return path


def by_gguf_py(path):
    """({name: (type word, shape, bytes)}, {key: contents})."""
    reader = gguf.GGUFReader(path)
    tensors = {t.name: (t.tensor_type.name, [int(n) for n in t.shape[::-1]], t.data.tobytes()) for t in reader.tensors}
    return tensors, {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.") and k != "a.bytes"}


# ------------------------------------------------------------------------------------------------- reading

def test_golden_file(golden):
    with File(golden / "blocks.gguf") as f:
        assert f.contents() == by_gguf_py(golden / "blocks.gguf")[0] and not f.notes and f.config is None
        assert f.metadata["general.architecture"] == "breccia-golden" and f.metadata["t.str"] == "brèche" and f.metadata["t.u64"] == str(1 << 63)
        q4, bf16 = f.arrays["q4_k"], f.arrays["bf16"]
        assert (q4.c.block_numbers, q4.c.block_bytes, q4.format, q4.view) == (256, 144, "uint8", [864])
        assert (bf16.c.block_numbers, bf16.format, bf16.view) == (0, "bf16", [6, 256])


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("copy", [0, 1])
def test_every_kind_of_value_and_array(tmp_path, version, copy):
    path = put(tmp_path / "no suffix", build(PAIRS, TENSORS, version=version))     # by the first bytes
    assert ggml_c.opens(path)
    with File(path, copy) as f:
        assert f.contents() == by_gguf_py(path)[0]
        assert f.metadata == {
            "general.architecture": "llama", "a.u8": "200", "a.i8": "-100", "a.u16": "60000", "a.i16": "-30000", "a.u32": "4000000000",
            "a.i32": "-2000000000", "a.f32": "0.15625", "a.yes": "true", "a.no": "false", "a.str": "brèche\n", "a.u64": str(1 << 63),
            "a.i64": str(-(1 << 62)), "a.f64": "1e-300", "a.third": "0.333333343", "l.i32": "[1, -2, 3]",
            "l.str": '["a", "", "' + "c" * 40 + '".., "d", "e", "f", "g", "h", .. 10 items]', "l.f32": "[0.5, -1.25]", "l.bool": "[true, false]",
            "l.none": "[]", "a.bytes": "(3 bytes that are no UTF-8 text)"}
        assert f.values["a.str"] == (8, 0, 1, "brèche\n".encode()) and f.values["a.bytes"][3] == b"\xff\x00\xfe"
        assert f.values["l.i32"] == (9, 5, 3, struct.pack("<3i", 1, -2, 3)) and f.values["a.yes"] == (7, 0, 1, b"\x01")


def test_alignment(tmp_path):
    for alignment in (1, 8, 64, 4096):
        path = put(tmp_path / f"{alignment}.gguf", build([pair("general.alignment", "u32", alignment)], TENSORS, alignment))
        assert ggml_c.opens(path)
        with File(path) as f:
            assert f.contents() == by_gguf_py(path)[0]


def test_data_without_its_last_padding_is_read_and_more_is_noted(tmp_path):
    with File(put(tmp_path / "a.gguf", build((), TENSORS[:1], tail=False))) as f:
        assert f.arrays["a"].data == b"\1" * 60 and not f.notes
    with File(put(tmp_path / "b.gguf", build((), TENSORS[:1]) + bytes(7))) as f:
        assert f.notes == ["7 bytes behind the last array are not read"]


BIG = 1 << 40
A = ("a", "F32", (8,))
RULES = {                        # bytes, status, words
    "version 0": (build(version=0), "UNSUPPORTED", "version 0"),
    "version 1": (build(version=1), "UNSUPPORTED", "version 1; 2 and 3"),
    "version 4": (build(version=4), "UNSUPPORTED", "version 4"),
    "big-endian": (build(version=0x03000000), "UNSUPPORTED", "big-endian"),
    "no counts": (b"GGUF\3\0\0\0", "TRUNCATED", "within its header"),
    "magic alone": (b"GGUF", "TRUNCATED", "within its header"),
    "more pairs than there are": (build(counts=(0, 1)), "TRUNCATED", "within its header"),
    "more pairs than any file": (build(counts=(0, 1 << 62)), "LIMIT", "more pairs"),
    "more arrays than there are": (build(counts=(1 << 62, 0)), "TRUNCATED", "within its header"),
    "key twice": (build([pair("k", "u8", 1), pair("k", "u8", 1)]), "MALFORMED", "k: .*twice"),
    "empty key": (build([pair("", "u8", 1)]), "MALFORMED", "empty key"),
    "key of a gigabyte": (build([struct.pack("<Q", 1 << 30)]), "LIMIT", "longer than it may be"),
    "key beyond 64 bits": (build([struct.pack("<Q", 2**64 - 1)]), "LIMIT", "longer than it may be"),
    "type of a value": (build([string("k") + struct.pack("<II", 13, 0)]), "MALFORMED", "unknown type"),
    "type of an item": (build([string("k") + struct.pack("<IIQ", 9, 13, 1) + b"0"]), "MALFORMED", "unknown type"),
    "array of arrays": (build([string("k") + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 0, 0)]), "MALFORMED", "array of arrays"),
    "array of 2^31 items": (build([string("k") + struct.pack("<IIQ", 9, 0, 1 << 31)]), "LIMIT", "too many items"),
    "array beyond the file": (build([string("k") + struct.pack("<IIQ", 9, 10, 1 << 29)]), "TRUNCATED", "within its header"),
    "string of 2^31 bytes": (build([string("k") + struct.pack("<IQ", 8, 1 << 31)]), "LIMIT", "longer than it may be"),
    "alignment is no u32": (build([pair("general.alignment", "u64", 32)]), "MALFORMED", "must be a u32"),
    "alignment 0": (build([pair("general.alignment", "u32", 0)]), "MALFORMED", "power of two"),
    "alignment 24": (build([pair("general.alignment", "u32", 24)]), "MALFORMED", "power of two"),
    "name twice": (build((), [A, A]), "MALFORMED", "a: the name is there twice"),
    "name of 64 bytes": (build((), [("n" * 64, "F32", (8,))]), "LIMIT", "longer than it may be"),
    "5 dimensions": (build((), [tensor("a", "F32", (1,) * 5, 0)]), "MALFORMED", "more than 4 dimensions"),
    "dimension of 2^63": (build((), [tensor("a", "F32", (1 << 63,), 0)]), "OVERFLOW", "63 bits"),
    "elements beyond 2^63": (build((), [tensor("a", "F32", (1 << 32, 1 << 32), 0)]), "OVERFLOW", "63 bits"),
    "bytes beyond 2^63": (build((), [tensor("a", "F32", (1 << 61, 2), 0)]), "OVERFLOW", "63 bits"),
    "withdrawn type": (build((), [tensor("a", 4, (32,), 0)]), "MALFORMED", "no type 4"),
    "unknown type": (build((), [tensor("a", 1000, (32,), 0)]), "MALFORMED", "no type 1000"),
    "half a block": (build((), [tensor("a", "Q4_0", (2, 48), 0)]), "MALFORMED", "whole number of blocks"),
    "no row of blocks": (build((), [tensor("a", "Q4_0", (), 0)]), "MALFORMED", "whole number of blocks"),
    "offset not 0": (build((), [tensor("a", "F32", (8,), 32)]) + bytes(99), "MALFORMED", "where the one before ends"),
    "offset with a hole": (build((), [tensor("a", "F32", (8,), 0), tensor("b", "F32", (8,), 64)]) + bytes(200), "MALFORMED", "where the one before ends"),
    "offset not aligned": (build((), [tensor("a", "F32", (1,), 0), tensor("b", "F32", (8,), 4)]) + bytes(200), "MALFORMED", "where the one before ends"),
    "offset backwards": (build((), [tensor("a", "F32", (8,), 0), tensor("b", "F32", (8,), 0)]) + bytes(200), "MALFORMED", "where the one before ends"),
    "offset beyond 2^63": (build((), [tensor("a", "F32", (8,), 1 << 63)]) + bytes(200), "MALFORMED", "where the one before ends"),
    "data is cut": (build((), [A], tail=False)[:-1], "TRUNCATED", "a: the file ends before its data"),
    "no data": (build((), [tensor("a", "F32", (BIG,), 0)]), "TRUNCATED", "a: the file ends before its data"),
    "key is no text": (build([pair(b"\xff", "u8", 1)]), "MALFORMED", "no UTF-8"),
    "NUL in a name": (build((), [tensor(b"a\0b", "F32", (8,), 0)]), "MALFORMED", "no UTF-8"),
}
BY_BRECCIA_ALONE = {"elements beyond 2^63", "data is cut", "no data", "key is no text", "NUL in a name"}    # ggml looks at no data here


@pytest.mark.parametrize("rule", RULES)
def test_rules(tmp_path, rule):
    raw, status, words = RULES[rule]
    path = put(tmp_path / "x.gguf", raw)
    with pytest.raises(brc.Error, match=words) as stopped:
        File(path)
    assert stopped.value.name == status and "x.gguf" in stopped.value.text and "\n" not in stopped.value.text
    assert rule in BY_BRECCIA_ALONE or not ggml_c.opens(path)


def test_cut_anywhere(tmp_path):
    raw = build(PAIRS[:4] + PAIRS[15:17], TENSORS)
    end = len(raw) - 30                                        # padding behind the last array
    for cut in range(0, end, 3):
        error = contents(put(tmp_path / "x.gguf", raw[:cut]))
        assert isinstance(error, brc.Error) and error.name in ("TRUNCATED", "MALFORMED", "LIMIT"), cut


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_breccia_takes_ggml_takes(tmp_path, data):
    """Bytes changed anywhere in the header: never a crash, and nothing is read that ggml refuses."""
    raw = bytearray(build(PAIRS[:6] + PAIRS[15:17], TENSORS))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(4, len(raw) - 200))
        raw[at] = data.draw(st.sampled_from([0, 1, 2, 3, 4, 8, 9, 13, 31, 32, 127, 128, 255])) if data.draw(st.booleans()) else raw[at] ^ 1 << data.draw(st.integers(0, 7))
    path = put(tmp_path / "x.gguf", bytes(raw))
    got = contents(path)
    if not isinstance(got, brc.Error):
        assert ggml_c.opens(path) or any(0 in shape for _, shape, _ in got.values())       # ggml divides by a side of 0


# ------------------------------------------------------------------------------------------------- split files

def split(folder, count=3, named=None, told=None):
    paths = []
    for i in range(count):
        pairs = (PAIRS[:2] if i == 0 else []) + [pair("split.no", "u16", i), pair("split.count", "u16", told or count), pair("split.tensors.count", "i32", count)]
        paths.append(put(folder / f"m-{i + 1:05}-of-{named or count:05}.gguf", build(pairs, [(f"t{i}", "F32", (2,))])))
    return paths


def test_split_files_are_read_together(tmp_path):
    paths = split(tmp_path)
    for path in (*paths, tmp_path):
        with File(path) as f:
            assert {n: a.shard for n, a in f.arrays.items()} == {"t0": 0, "t1": 1, "t2": 2} and not f.notes
            assert f.shards == [str(p) for p in paths] and f.metadata["a.u8"] == "200"
    paths[1].unlink()
    with pytest.raises(brc.Error, match="m-00002-of-00003.gguf: one of the 3 files of a split model"):
        File(paths[0])


def test_splits_that_do_not_agree(tmp_path):
    with pytest.raises(brc.Error, match="one of 3 files, but split.count is 4"):
        File(split(tmp_path, told=4)[0])
    alone = split(tmp_path)[0].rename(tmp_path / "alone.gguf")
    with pytest.raises(brc.Error, match="one of 3 files of a split model, but not named") as stopped:
        File(alone)
    assert stopped.value.name == "UNSUPPORTED"


def test_folders(tmp_path):
    put(tmp_path / "a.gguf", build((), [A]))
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "fp8"}}')
    with File(tmp_path) as f:
        assert list(f.arrays) == ["a"] and f.config is None
    put(tmp_path / "b.gguf", build((), [A]))
    with pytest.raises(brc.Error, match="which of its 2 files is meant"):
        File(tmp_path)


# ------------------------------------------------------------------------------------------------- writing

def test_what_is_written_is_read_by_all(tmp_path):
    path = tmp_path / "x.gguf"
    with File(put(tmp_path / "source.gguf", build(PAIRS, TENSORS))) as f:
        w = Writer(path)
        for key, (type, item, count, raw) in f.values.items():
            w.value(key, type, raw, item, count)
        for name, a in f.arrays.items():
            w.add_dtype(name, a.dtype, a.shape)
        w.begin()
        assert not path.exists()
        for name, a in reversed(f.arrays.items()):
            for at in range(0, len(a.data), 7):
                w.write(name, a.data[at:at + 7], at)
        w.finish()
    assert path.read_bytes() == (tmp_path / "source.gguf").read_bytes()         # the same order, alignment and padding
    assert ggml_c.opens(path) and not list(tmp_path.glob(".breccia*"))


def test_alignment_of_a_pair_is_obeyed(tmp_path):
    w = Writer(tmp_path / "x.gguf").value("general.alignment", 4, struct.pack("<I", 256)).add("a", "F32", [3]).add_dtype("b", "Q8_0", [1, 32]).begin()
    w.write("a", bytes(range(12))).write("b", b"x" * 34).finish()
    assert ggml_c.opens(tmp_path / "x.gguf") and (tmp_path / "x.gguf").stat().st_size % 256 == 0
    tensors, pairs = by_gguf_py(tmp_path / "x.gguf")
    assert tensors == {"a": ("F32", [3], bytes(range(12))), "b": ("Q8_0", [1, 32], b"x" * 34)} and pairs == {"general.alignment": 256}


def test_text_pairs(tmp_path):
    """A text is a string, but for keys that the format defines as numbers; a value set again replaces the first."""
    w = Writer(tmp_path / "x.gguf").metadata(**{"k": "v", "general.file_type": "7", "general.quantization_version": "2"})
    w.value("k", 8, b"other").value("general.file_type", 8, b"2").begin().finish()
    with File(tmp_path / "x.gguf") as f:
        assert f.values == {"k": (8, 0, 1, b"other"), "general.file_type": (4, 0, 1, struct.pack("<I", 2)),
                            "general.quantization_version": (4, 0, 1, struct.pack("<I", 2))}
    w = Writer(tmp_path / "y.gguf")
    for text in ("", "x", "7x", "-1", str(1 << 32)):
        with pytest.raises(brc.Error, match="a number of 32 bits"):
            w.metadata(**{"general.file_type": text})
    w.discard()


def test_writer_refuses(tmp_path):
    w = Writer(tmp_path / "x.gguf")

    def refused(match, name, call, *arguments):
        with pytest.raises(brc.Error, match=match) as error:
            call(*arguments)
        assert error.value.name == name, error.value

    refused("GGUF has no word for e4m3", "FORMAT", w.add, "a", "F8_E4M3", [4])
    refused("GGUF has no type F8_E4M3", "FORMAT", w.add_dtype, "a", "F8_E4M3", [4])
    refused("63", "LIMIT", w.add, "n" * 64, "F32", [4])
    refused("5 dimensions; GGUF allows 4", "LIMIT", w.add, "a", "F32", [1] * 5)
    refused("no whole blocks of 32", "SHAPE", w.add_dtype, "a", "Q4_0", [2, 48])
    refused("63 bits", "OVERFLOW", w.add_dtype, "a", "Q4_0", [1 << 58, 1 << 8])
    refused("not what its type and count say", "ARGUMENT", w.value, "k", 4, b"123")
    refused("not what its type and count say", "ARGUMENT", w.value, "k", 4, b"12345678", 0, 2)
    refused("not what its type and count say", "ARGUMENT", w.value, "k", 13, b"")
    refused("not what its type and count say", "ARGUMENT", w.value, "k", 9, b"", 9, 0)
    refused("not what its type and count say", "ARGUMENT", w.value, "k", 9, string("a") + b"x", 8, 1)
    refused("not what its type and count say", "ARGUMENT", w.value, "k", 9, string("a")[:-1], 8, 1)
    refused("no empty keys", "ARGUMENT", w.value, "", 8, b"x")
    for raw in (0, 24, 1 << 21):
        refused("power of two", "ARGUMENT", w.value, "general.alignment", 4, struct.pack("<I", raw))
    refused("power of two", "ARGUMENT", w.value, "general.alignment", 10, struct.pack("<Q", 32))
    w.add("a", "F32", [4], shard=1).add("b", "F32", [4])
    refused("2 shards do not go into one file", "ARGUMENT", w.begin)
    w.discard()
    s = Writer(tmp_path / "x.safetensors")
    refused("no string, and safetensors has no others", "UNSUPPORTED", s.value, "k", 4, b"1234")
    refused("safetensors has no type Q4_0", "FORMAT", s.add_dtype, "a", "Q4_0", [32])
    s.discard()
    assert not list(tmp_path.iterdir())


def test_overwrite(tmp_path):
    path = put(tmp_path / "x.gguf", b"old")
    with pytest.raises(brc.Error, match="it exists already"):
        Writer(path)
    w = Writer(path, overwrite=True).add("a", "F32", [1]).begin()
    assert path.read_bytes() == b"old"
    w.write("a", b"1234").finish()
    with File(path) as f:
        assert f.contents() == {"a": ("F32", [1], b"1234")}


KINDS = st.sampled_from([k for k in NUMBERS if k not in ("f32", "f64", "bool")])
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(TEXT.filter(bool), st.one_of(TEXT, st.lists(TEXT, max_size=12), st.lists(st.integers(0, 127), max_size=12)), max_size=6), st.lists(
    st.tuples(st.sampled_from(list(TYPES)), st.lists(st.integers(0, 3), max_size=3)), max_size=6), st.sampled_from([1, 32, 128]))
def test_round_trip(tmp_path, pairs, tensors, alignment):
    """Whatever a file holds, a copy of it through reader and writer is the same file."""
    made = [pair("general.alignment", "u32", alignment)]
    for key, x in pairs.items():
        if key != "general.alignment":
            made.append(pair(key, "str", x) if isinstance(x, str) else pair(key, ["str" if x and isinstance(x[0], str) else "u8"], x))
    shapes = [(f"t{i}", t, (*shape, TYPES[t][1])) for i, (t, shape) in enumerate(tensors)]
    source, path = put(tmp_path / "s.gguf", build(made, shapes, alignment)), tmp_path / "x.gguf"
    with File(source) as f:
        w = Writer(path, overwrite=True)
        for key, (type, item, count, raw) in f.values.items():
            w.value(key, type, raw, item, count)
        for name, a in f.arrays.items():
            w.add_dtype(name, a.dtype, a.shape)
        w.begin()
        for name, a in f.arrays.items():
            w.write(name, a.data)
        w.finish()
    assert path.read_bytes() == source.read_bytes()
    assert np.prod([n for _, _, s in shapes for n in s]) == 0 or ggml_c.opens(path)


