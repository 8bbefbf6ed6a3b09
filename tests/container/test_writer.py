# SPDX-License-Identifier: Apache-2.0
"""Writing: what is refused, what stands where when something fails, and how one checkpoint replaces another. The safetensors
library reads what comes out."""
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import breccia_c as brc
import pytest
from container.files import File, Writer, contents, reference, write

A = {"a": ("F32", [2], b"abcdefgh"), "b": ("U8", [3], b"xyz")}
B = {"a": ("U8", [4], b"1234"), "b": ("F16", [], b"56"), "c": ("I64", [0, 3], b"")}
SHARDED = {"a": 0, "b": 1}
SHARDED_3 = {"a": 0, "b": 1, "c": 2}


def tree(folder):
    """{name: bytes} of all that lies in a folder, hidden files too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def error_of(function, *arguments, **named):
    with pytest.raises(brc.Error) as caught:
        function(*arguments, **named)
    assert "\n" not in caught.value.text and len(caught.value.text) < 240
    return caught.value


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def library(folder):
    """What the library reads of a folder: its index's shards, or its one file."""
    index = folder / "model.safetensors.index.json"
    files = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
    found = {}
    for name in files:
        found.update(reference((folder / name).read_bytes()))
    return found


# ------------------------------------------------------------------------------------------------ what is refused

def writer(tmp_path, **named):
    return Writer(tmp_path / "new.safetensors", **named)


@pytest.mark.parametrize("add, status", [
    (lambda w: w.add(b"\xff", "U8", [1]), "ARGUMENT"),
    (lambda w: w.add(b"\xed\xa0\x80", "U8", [1]), "ARGUMENT"),
    (lambda w: w.add("__metadata__", "U8", [1]), "ARGUMENT"),
    (lambda w: w.add("a", "U8", [1]).add("a", "F32", [2]), "ARGUMENT"),
    (lambda w: w.add("a", "U8", [-1]), "OVERFLOW"),
    (lambda w: w.add("a", "U8", [1 << 32, 1 << 32]), "OVERFLOW"),
    (lambda w: w.add("a", "U8", [0, 1 << 32, 1 << 32]), "OVERFLOW"),
    (lambda w: w.add("a", "F32", [(1 << 63) - 1]), "OVERFLOW"),
    (lambda w: w.add("a", "F4", [3]), "SHAPE"),
    (lambda w: w.add("a", "F6_E2M3", [2]), "SHAPE"),
    (lambda w: w.add("a", brc.format_of("int4"), [2]), "FORMAT"),
    (lambda w: w.add("a", 0, [2]), "FORMAT"),
    (lambda w: w.add("a", 9999, [2]), "FORMAT"),
    (lambda w: w.add("a", "U8", [1], shard=16384), "ARGUMENT"),
    (lambda w: w.metadata(k="v").metadata(k="w"), "ARGUMENT"),
    (lambda w: brc.call("brc_writer_metadata", w.c, b"\xc0\xaf", b""), "ARGUMENT"),
    (lambda w: brc.call("brc_writer_metadata", w.c, b"k", b"\x80"), "ARGUMENT"),
    (lambda w: brc.call("brc_writer_metadata", w.c, b"k", brc.ffi.NULL), "ARGUMENT"),
    (lambda w: w.text("config.json", "{}"), "UNSUPPORTED"),
    (lambda w: w.copy("config.json", "/dev/null"), "UNSUPPORTED"),
    (lambda w: w.add("a", "U8", [1], shard=1).begin(), "ARGUMENT"),
    (lambda w: w.add("a", "U8", [1]).add("b", "U8", [1], shard=1).begin(), "ARGUMENT"),
    (lambda w: w.add("a", "U8", [1] * 200000).begin(), "LIMIT"),
    (lambda w: [w.add(str(i), "U8", [1 << 60]) for i in range(9)][0].begin(), "OVERFLOW"),
    (lambda w: w.begin().add("a", "U8", [1]), "ARGUMENT"),
    (lambda w: w.begin().metadata(k="v"), "ARGUMENT"),
    (lambda w: w.begin().begin(), "ARGUMENT"),
    (lambda w: w.add("a", "U8", [4]).write("a", b"1234"), "ARGUMENT"),
    (lambda w: w.add("a", "U8", [4]).begin().write("a", b"12345"), "ARGUMENT"),
    (lambda w: w.add("a", "U8", [4]).begin().write("a", b"1", 4), "ARGUMENT"),
    (lambda w: w.add("a", "U8", [4]).begin().write("a", b"1", -1), "ARGUMENT"),
    (lambda w: w.add("a", "U8", [4]).begin().write("a", b"1", (1 << 63) - 1), "ARGUMENT"),
    (lambda w: w.add("a", "U8", [4]).begin().write(1, b"1"), "ARGUMENT"),
    (lambda w: w.add("a", "U8", [4]).begin().write("a", b"123").write("a", b"x", 2), "ARGUMENT"),
])
def test_refused(tmp_path, add, status):
    w = writer(tmp_path)
    assert error_of(add, w).name == status
    w.discard()
    assert names(tmp_path) == []


def test_shards_of_a_folder_are_consecutive(tmp_path):
    w = Writer(tmp_path / "new")
    w.add("a", "U8", [1], 0).add("b", "U8", [1], 2)
    assert error_of(w.begin).name == "ARGUMENT"
    w.discard()
    assert names(tmp_path) == []                                # the folder was made, and is gone again


def test_sizes_of_shards_may_not_overflow(tmp_path):
    w = Writer(tmp_path / "new")
    for shard in range(9):
        w.add(str(shard), "U8", [1 << 60], shard)
    assert error_of(w.begin).name == "OVERFLOW"
    w.discard()
    assert names(tmp_path) == []


def test_a_header_larger_than_the_limit_is_not_written(tmp_path):
    w = writer(tmp_path)
    w.metadata(k="x" * 100_000_000)
    assert error_of(w.begin).name == "LIMIT"
    w.discard()
    assert names(tmp_path) == []


@pytest.mark.parametrize("written", [[], [(0, 3)], [(1, 3)], [(0, 1), (2, 2)]])
def test_incomplete_arrays_are_refused(tmp_path, written):
    w = writer(tmp_path)
    w.add("whole", "U8", [2]).add("part", "U8", [4]).begin().write("whole", b"ab")
    for offset, length in written:
        w.write("part", b"x" * length, offset)
    error = error_of(w.finish)
    assert error.name == "ARGUMENT" and "part" in error.text
    assert names(tmp_path) == []


def test_bytes_in_any_order(tmp_path):
    w = writer(tmp_path).add("a", "U8", [9]).add("empty", "F32", [0]).begin()
    for at in (4, 0, 8, 2, 6, 1, 7, 3, 5):
        w.write("a", b"012345678"[at:at + 1], at)
        w.write("empty", b"")
    w.finish()
    assert reference((tmp_path / "new.safetensors").read_bytes()) == {"a": ("U8", [9], b"012345678"), "empty": ("F32", [0], b"")}


def test_a_failed_writer_does_not_finish(tmp_path):
    w = Writer(tmp_path / "new")
    w.add("a", "U8", [1]).copy("tokenizer.json", tmp_path / "missing")
    assert error_of(w.begin).name == "NOT_FOUND"
    error_of(w.write, "a", b"x")
    assert error_of(w.finish).name == "ARGUMENT"
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "/etc/x"])
def test_texts_have_plain_names(tmp_path, name):
    w = Writer(tmp_path / "new")
    assert error_of(w.text, name, "x").name == error_of(w.copy, name, "/dev/null").name == "ARGUMENT"
    w.discard()


def test_texts_may_not_take_the_names_of_shards(tmp_path):
    for text in ("model.safetensors", "twice"):
        w = Writer(tmp_path / "new").add("a", "U8", [0]).text("twice", "{}")
        assert error_of(lambda: w.text(text, "x").begin()).name in ("EXISTS", "ARGUMENT")
        w.discard()
        assert names(tmp_path) == []


def test_texts_and_copies(tmp_path):
    (tmp_path / "source.json").write_bytes(b"\0\xff any bytes")
    w = Writer(tmp_path / "new").add("a", "U8", [0]).text("config.json", '{"x": 1}').copy("source.json", tmp_path / "source.json")
    w.begin().finish()
    assert tree(tmp_path / "new").keys() == {"model.safetensors", "config.json", "source.json"}
    assert (tmp_path / "new" / "source.json").read_bytes() == b"\0\xff any bytes"
    with File(tmp_path / "new") as f:
        assert f.config == b'{"x": 1}'


# ------------------------------------------------------------------------------------------------ never without being told

def test_an_existing_file_is_kept(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"old")
    assert error_of(Writer, path).name == "EXISTS"
    assert tree(tmp_path) == {"m.safetensors": b"old"}


@pytest.mark.parametrize("held", ["model.safetensors", "model.safetensors.index.json"])
def test_an_existing_checkpoint_is_kept(tmp_path, held):
    (tmp_path / held).write_bytes(b"old")
    assert error_of(Writer, tmp_path).name == "EXISTS"
    assert tree(tmp_path) == {held: b"old"}


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    for overwrite in (False, True):
        assert error_of(Writer, tmp_path / "file", overwrite).name == "EXISTS"
        (tmp_path / "folder.safetensors").mkdir(exist_ok=True)
        assert error_of(Writer, tmp_path / "folder.safetensors", overwrite).name == "EXISTS"
    assert names(tmp_path) == ["file", "folder.safetensors"]


@pytest.mark.parametrize("destination, shards, appears", [
    ("m.safetensors", None, "m.safetensors"),
    ("m", None, "m/model.safetensors"),
    ("m", None, "m/model.safetensors.index.json"),
    ("m", None, "m/config.json"),
    ("m", SHARDED, "m/model-00001-of-00002.safetensors"),
    ("m", SHARDED, "m/model-00002-of-00002.safetensors"),
    ("m", SHARDED, "m/model.safetensors.index.json"),
    ("m", SHARDED, "m/model.safetensors"),
    ("m", SHARDED, "m/config.json"),
])
def test_what_appears_meanwhile_is_kept(tmp_path, destination, shards, appears):
    """The file is made after the writer was asked and before it finishes."""
    w = Writer(tmp_path / destination)
    for name, (dtype, shape, _) in A.items():
        w.add(name, dtype, shape, (shards or {}).get(name, 0))
    if destination == "m":
        w.text("config.json", "{}")
    w.begin()
    for name, (_, _, data) in A.items():
        w.write(name, data)
    (tmp_path / appears).write_bytes(b"theirs")
    assert error_of(w.finish).name == "EXISTS"
    assert tree(tmp_path) == {appears: b"theirs"}


@pytest.mark.parametrize("held", ["config.json", "model-00002-of-00002.safetensors"])
def test_what_is_in_the_way_is_told_early(tmp_path, held):
    """Before bytes are written, for they may take hours."""
    (tmp_path / held).write_bytes(b"theirs")
    w = Writer(tmp_path).add("a", "U8", [1], 0).add("b", "U8", [1], 1).text("config.json", "{}")
    error = error_of(w.begin)
    assert error.name == "EXISTS" and held in error.text
    w.discard()
    assert tree(tmp_path) == {held: b"theirs"}
    (tmp_path / held).unlink()
    (tmp_path / held).mkdir()
    w = Writer(tmp_path, overwrite=True).add("a", "U8", [1], 0).add("b", "U8", [1], 1).text("config.json", "{}")
    assert error_of(w.begin).name == "EXISTS"
    w.discard()
    assert names(tmp_path) == [held]


def test_two_writers_one_wins(tmp_path):
    path = tmp_path / "m.safetensors"
    first, second = (Writer(path).add("a", "U8", [1]).begin() for _ in range(2))
    first.write("a", b"1")
    second.write("a", b"2")
    second.finish()
    assert error_of(first.finish).name == "EXISTS"
    assert names(tmp_path) == ["m.safetensors"] and contents(path)["a"][2] == b"2"


def test_two_writers_of_a_folder(tmp_path):
    """Both make the folder; the loser leaves it to the winner."""
    first, second = (Writer(tmp_path / "m").add("a", "U8", [1], 0).add("b", "U8", [1], 1).begin() for _ in range(2))
    for w in (first, second):
        w.write("a", b"1").write("b", b"2")
    second.finish()
    assert error_of(first.finish).name == "EXISTS"
    assert contents(tmp_path / "m") == library(tmp_path / "m") == {"a": ("U8", [1], b"1"), "b": ("U8", [1], b"2")}
    assert len(names(tmp_path / "m")) == 3


# ------------------------------------------------------------------------------------------------ replacing

LAYOUTS = {"single": None, "two": SHARDED, "three": SHARDED_3}


@pytest.mark.parametrize("before", LAYOUTS)
@pytest.mark.parametrize("after", LAYOUTS)
def test_replacing_a_folder(tmp_path, before, after):
    old = {n: v for n, v in B.items() if before != "two" or n != "c"}
    new = {n: (d, s, data[::-1]) for n, (d, s, data) in B.items() if after != "two" or n != "c"}
    fresh = tmp_path / "fresh"
    write(fresh, new, shards=LAYOUTS[after], texts={"config.json": "new"})
    folder = tmp_path / "m"
    write(folder, old, shards=LAYOUTS[before], texts={"config.json": "old", "kept.txt": "kept"})
    write(folder, new, shards=LAYOUTS[after], texts={"config.json": "new"}, overwrite=True)
    assert tree(folder) == {**tree(fresh), "kept.txt": b"kept"}
    assert contents(folder) == library(folder) == new


def test_replacing_a_file(tmp_path):
    path = tmp_path / "m.safetensors"
    write(path, A)
    write(path, B, overwrite=True)
    assert names(tmp_path) == ["m.safetensors"] and contents(path) == reference(path.read_bytes()) == B


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o666])
@pytest.mark.parametrize("shards", [None, SHARDED])
def test_what_replaces_a_file_has_its_permissions(tmp_path, mode, shards):
    folder = tmp_path / "m"
    write(folder, A, shards=shards, texts={"config.json": "{}"})
    before = names(folder)
    for name in before:
        (folder / name).chmod(mode)
    write(folder, {n: B[n] for n in A}, shards=shards, texts={"config.json": "[]"}, overwrite=True)
    assert names(folder) == before and library(folder) == {n: B[n][:1] + (B[n][1], B[n][2]) for n in A}
    assert {n: (folder / n).stat().st_mode & 0o777 for n in before} == dict.fromkeys(before, mode)


@pytest.mark.parametrize("before, after", [(None, SHARDED), (SHARDED, None)])
def test_what_replaces_a_checkpoint_has_its_permissions_under_new_names(tmp_path, before, after):
    folder = tmp_path / "m"
    write(folder, A, shards=before)
    for path in folder.iterdir():
        path.chmod(0o640)
    write(folder, A, shards=after, overwrite=True)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}
    write(folder / "other.safetensors", A, overwrite=True)
    (tmp_path / "usual").touch()
    assert (folder / "other.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_what_replaces_a_link_has_the_permissions_of_its_file(tmp_path):
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "m.safetensors").symlink_to("secret")
    write(tmp_path / "m.safetensors", A, overwrite=True)
    assert (tmp_path / "m.safetensors").lstat().st_mode & 0o777 == 0o600 and (tmp_path / "secret").read_bytes() == b"x"


def test_a_destination_in_a_folder_that_is_not_there(tmp_path):
    error = error_of(writer, tmp_path / "gone")
    assert error.name == "IO" and "there is no folder" in error.text and "/gone;" in error.text


def test_overwrite_of_nothing(tmp_path):
    write(tmp_path / "m.safetensors", A, overwrite=True)
    write(tmp_path / "m", A, shards=SHARDED, overwrite=True)
    assert contents(tmp_path / "m.safetensors") == contents(tmp_path / "m") == A


@pytest.mark.parametrize("before", LAYOUTS)
@pytest.mark.parametrize("end", ["discard", "incomplete", "folder in the way"])
@pytest.mark.parametrize("after", LAYOUTS)
def test_what_was_there_stays_when_replacing_fails(tmp_path, before, after, end):
    folder = tmp_path / "m"
    write(folder, B, shards=LAYOUTS[before], texts={"config.json": "old"})
    kept = tree(folder)
    w = Writer(folder, overwrite=True)
    for name, (dtype, shape, _) in B.items():
        w.add(name, dtype, shape, min((LAYOUTS[after] or {}).get(name, 0), 1 if after == "two" else 2))
    w.text("config.json", "new").text("tokenizer.json", "new").begin()
    assert contents(folder) == B                                # a reader meanwhile
    if end == "folder in the way":
        (folder / "tokenizer.json").mkdir()
        (folder / "tokenizer.json" / "precious").write_bytes(b"!")
        kept["tokenizer.json/precious"] = b"!"
    for name, (_, _, data) in B.items():
        if end != "incomplete" or name != "b":
            w.write(name, bytes(len(data)))
    if end == "discard":
        w.discard()
    else:
        assert error_of(w.finish).name == ("ARGUMENT" if end == "incomplete" else "EXISTS")
    assert tree(folder) == kept and contents(folder) == B


@pytest.mark.parametrize("name, goes", [("config.json", False), ("notes.txt", False), ("old.safetensors", True),
                                         ("sub/old.safetensors", False), ("../old.safetensors", False)])
def test_a_hostile_index_removes_nothing_else(tmp_path, name, goes):
    folder = tmp_path / "m"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    (folder / name).write_bytes(b"precious")
    write(folder, A, overwrite=True, texts={"tokenizer.json": "{}"})
    assert (folder / name).exists() != goes and contents(folder) == A


def test_a_broken_index_is_replaced(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_bytes(b"{")
    write(tmp_path, A, shards=SHARDED, overwrite=True)
    assert contents(tmp_path) == library(tmp_path) == A


def test_reading_what_is_being_replaced(tmp_path):
    """A map keeps the old file's bytes: nothing is written into a file that others read."""
    path = tmp_path / "m.safetensors"
    big = {"a": ("U8", [1 << 20], b"1" * (1 << 20))}
    write(path, big)
    with File(path) as f:
        a = f.arrays["a"].c.array
        write(path, {"a": ("U8", [4], b"2222")}, overwrite=True)
        assert bytes(brc.ffi.buffer(a.data, 1 << 20)) == big["a"][2]
        w = Writer(path, overwrite=True).add("a", "U8", [1 << 20]).begin()
        w.write("a", bytes(brc.ffi.buffer(a.data, 1 << 20))).finish()     # from its own former self
    assert contents(path) == big


# ------------------------------------------------------------------------------------------------ links and folders

def test_a_link_is_replaced_not_followed(tmp_path):
    target, link = tmp_path / "target.safetensors", tmp_path / "link.safetensors"
    write(target, A)
    kept = target.read_bytes()
    link.symlink_to(target.name)
    assert error_of(Writer, link).name == "EXISTS"
    write(link, B, overwrite=True)
    assert not link.is_symlink() and contents(link) == B and target.read_bytes() == kept


def test_a_dangling_link_exists(tmp_path):
    link = tmp_path / "link.safetensors"
    link.symlink_to("nowhere")
    assert error_of(Writer, link).name == "EXISTS"
    write(link, A, overwrite=True)
    assert contents(link) == A and names(tmp_path) == ["link.safetensors"]
    (tmp_path / "folder").symlink_to("nowhere")
    for overwrite in (False, True):
        assert error_of(Writer, tmp_path / "folder", overwrite).name == "EXISTS"


def test_a_linked_folder_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", A, shards=SHARDED)
    assert contents(tmp_path / "real") == A and (tmp_path / "link").is_symlink()


def test_old_shards_that_are_links_lose_the_link_only(tmp_path):
    """Model caches keep shards elsewhere and link to them."""
    cache, folder = tmp_path / "cache", tmp_path / "m"
    cache.mkdir()
    write(folder, A, shards=SHARDED)
    for path in folder.glob("*.safetensors"):
        path.rename(cache / path.name)
        path.symlink_to(cache / path.name)
    kept = tree(cache)
    assert contents(folder) == A
    write(folder, B, overwrite=True)
    assert names(folder) == ["model.safetensors"] and tree(cache) == kept


def test_a_missing_folder_is_made(tmp_path):
    write(tmp_path / "new" / "", A)
    assert contents(tmp_path / "new") == A
    w = Writer(tmp_path / "other").add("a", "U8", [1]).begin()
    assert (tmp_path / "other").is_dir()
    w.discard()
    assert names(tmp_path) == ["new"]
    error_of(Writer(tmp_path / "other").add("a", "U8", [1]).begin().finish)
    assert names(tmp_path) == ["new"]


def test_a_folder_made_by_us_stays_where_others_use_it(tmp_path):
    w = Writer(tmp_path / "new").add("a", "U8", [1]).begin()
    (tmp_path / "new" / "theirs").write_bytes(b"!")
    w.discard()
    assert tree(tmp_path) == {"new/theirs": b"!"}


@pytest.mark.parametrize("path", ["no/such/m.safetensors", "no/such", "file/m.safetensors", "file/m"])
def test_missing_parents(tmp_path, path):
    (tmp_path / "file").write_bytes(b"")

    def whole():
        write(tmp_path / path, A)

    assert error_of(whole).name in ("IO", "NOT_FOUND")
    assert names(tmp_path) == ["file"]


def test_odd_destinations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("plain.safetensors", "./dot.safetensors", "UPPER.SAFETENSORS", "sp ace\n.safetensors", "-o.safetensors", "folder", "./other//"):
        write(path, A)
        assert contents(path) == A
    assert error_of(Writer, "").name == "ARGUMENT"
    assert not [n for n in names(tmp_path) if n.endswith(".tmp")]
    write(".", A)
    assert contents(".") == A


# ------------------------------------------------------------------------------------------------ failures of the system

WRITE_LIMITED = """
import resource, signal, sys
sys.path.insert(0, %r)
import breccia_c as brc
from container.files import Writer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (%d, resource.RLIM_INFINITY))
w = Writer(%r, %d)
w.add("a", "U8", [1 << 20], 0).add("b", "U8", [1 << 20], %d)
try:
    w.begin().write("a", bytes(1 << 20)).write("b", bytes(1 << 20)).finish()
except brc.Error as error:
    if w.c: w.discard()
    print(error.name, error.text)
"""


@pytest.mark.parametrize("limit", [0, 100, 5000, 1 << 20, (1 << 20) + 300])
@pytest.mark.parametrize("destination, shard", [("m.safetensors", 0), ("m", 0), ("m", 1)])
@pytest.mark.parametrize("overwrite", [0, 1])
def test_a_full_disk(tmp_path, limit, destination, shard, overwrite):
    if overwrite:
        write(tmp_path / destination, A, shards=SHARDED if shard else None)
    kept = tree(tmp_path)
    if shard and limit > 1 << 20:
        limit = (1 << 20) + 8                                   # a shard has less to hold
    command = WRITE_LIMITED % (str(brc.ROOT / "tests"), limit, str(tmp_path / destination), overwrite, shard)
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("IO ") and "File too large" in run.stdout, run.stdout
    assert tree(tmp_path) == kept and (overwrite or names(tmp_path) == [])


@pytest.fixture
def open_folder():
    """A folder that every user may enter; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_a_folder_without_the_right_to_write(open_folder):
    folder = open_folder / "locked"
    folder.mkdir()
    write(folder, A)
    folder.chmod(0o555)
    kept = tree(folder)
    pid = os.fork()
    if pid == 0:                                                # without the rights of the superuser
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            found = []
            for path in (folder / "m.safetensors", folder / "m", folder):
                w = Writer(path, overwrite=True).add("a", "U8", [1])
                try:
                    w.begin()
                except brc.Error as error:
                    found.append(error.name)
                    w.discard()
            code = 0 if found == ["IO"] * 3 and contents(folder) == A else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert tree(folder) == kept


def test_the_folder_vanishes(tmp_path):
    w = Writer(tmp_path / "m").add("a", "U8", [1]).begin().write("a", b"1")
    for path in (tmp_path / "m").iterdir():
        path.unlink()
    (tmp_path / "m").rmdir()
    assert error_of(w.finish).name == "IO"
    assert names(tmp_path) == []


def test_a_temporary_file_vanishes(tmp_path):
    """The second of two renames fails: the first is taken back."""
    folder = tmp_path / "m"
    write(folder, A, shards=SHARDED)
    kept = tree(folder)
    before = set(names(folder))
    w = Writer(folder, overwrite=True).add("a", "U8", [1], 0).add("b", "U8", [1], 1).begin().write("a", b"1").write("b", b"2")
    made = sorted(set(names(folder)) - before, key=lambda n: int(n.split("-")[2].removesuffix(".tmp")))
    (folder / made[-1]).unlink()                                # the index
    assert error_of(w.finish).name == "IO"
    assert tree(folder) == kept and contents(folder) == A


def test_a_temporary_file_vanishes_from_a_new_folder(tmp_path):
    """What was renamed already is taken back, and the folder that was made with it."""
    w = Writer(tmp_path / "m").add("a", "U8", [1], 0).add("b", "U8", [1], 1).begin().write("a", b"1").write("b", b"2")
    last = max((tmp_path / "m").iterdir(), key=lambda p: int(p.name.split("-")[2].removesuffix(".tmp")))
    last.unlink()
    assert error_of(w.finish).name == "IO"
    assert names(tmp_path) == []


# ------------------------------------------------------------------------------------------------ at once

def test_threads(tmp_path):
    """Eight threads, each its stripes of every array."""
    n, size = 8, 1 << 16
    blobs = {f"t{i}": os.urandom(size) for i in range(5)}
    w = writer(tmp_path)
    for name in blobs:
        w.add(name, "U8", [size])
    w.begin()

    def stripes(k):
        for at in range(k * 64, size, n * 64):
            for name, data in blobs.items():
                w.write(name, data[at:at + 64], at)

    threads = [threading.Thread(target=stripes, args=(k,)) for k in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    w.finish()
    assert {n: d for n, (_, _, d) in reference((tmp_path / "new.safetensors").read_bytes()).items()} == blobs


def test_readers_while_others_replace(tmp_path):
    """At every moment a reader finds one whole checkpoint, or is told that none is there; never a mixture."""
    path = tmp_path / "m.safetensors"
    whole = [{"a": ("U8", [1000], bytes([k]) * 1000), "b": ("U8", [k + 1], bytes([k]) * (k + 1))} for k in range(50)]
    write(path, whole[0])
    seen = []
    done = threading.Event()

    def read():
        while not done.is_set():
            seen.append(contents(path))

    reader = threading.Thread(target=read)
    reader.start()
    for one in whole:
        write(path, one, overwrite=True)
    done.set()
    reader.join()
    assert seen and all(found in whole for found in seen)


def test_bytes_of_a_writer(tmp_path):
    for shards in (None, SHARDED):
        folder = tmp_path / f"m{bool(shards)}"
        w = Writer(folder).text("config.json", "{}")
        for name, (dtype, shape, _) in A.items():
            w.add(name, dtype, shape, (shards or {}).get(name, 0))
        w.begin()
        total = brc.lib.brc_writer_bytes(w.c)
        for name, (_, _, data) in A.items():
            w.write(name, data)
        w.finish()
        assert total == sum(len(data) for data in tree(folder).values())
