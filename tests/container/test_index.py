# SPDX-License-Identifier: Apache-2.0
"""Shards and their index, what a path may be, what lies beside a file, and what is not read at all."""
import json
import os
import pickle
import zipfile

import breccia_c as brc
import numpy as np
import pytest
import safetensors.numpy
from container.files import File, blob, contents, write

INDEX = "model.safetensors.index.json"
W = np.arange(6, dtype=np.float32).reshape(2, 3)
S = np.arange(2, dtype=np.float32)


def shard(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(arrays, path)


def index(folder, weight_map, size=None, **more):
    text = {"metadata": {} if size is None else {"total_size": size}, "weight_map": weight_map, **more}
    (folder / INDEX).write_text(json.dumps(text))


@pytest.fixture
def two(tmp_path):
    """A weight in one shard, its scale in the other."""
    shard(tmp_path / "model-00001-of-00002.safetensors", w=W)
    shard(tmp_path / "model-00002-of-00002.safetensors", **{"w.scale": S})
    index(tmp_path, {"w": "model-00001-of-00002.safetensors", "w.scale": "model-00002-of-00002.safetensors"}, 32)
    return tmp_path


def error_of(path, copy=0):
    error = contents(path, copy)
    assert isinstance(error, brc.Error), error
    assert "\n" not in error.text and len(error.text) < 240
    return error


BOTH = {"w": ("F32", [2, 3], W.tobytes()), "w.scale": ("F32", [2], S.tobytes())}


# ------------------------------------------------------------------------------------------------------- shards

@pytest.mark.parametrize("copy", [0, 1])
def test_shards(two, copy):
    for path in (two, two / INDEX, f"{two}/"):
        with File(path, copy) as f:
            assert f.contents() == BOTH and f.notes == []
            assert {n: a.shard for n, a in f.arrays.items()} == {"w": 0, "w.scale": 1}
            assert [s.rsplit("/")[-1] for s in f.shards] == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
            assert [brc.lib.brc_file_shard_bytes(f.c, i) for i in range(2)] == [os.path.getsize(s) for s in f.shards]
            assert f.index.endswith(INDEX) and f.folder.rstrip("/") == str(two)


def test_relative_paths(two, monkeypatch):
    monkeypatch.chdir(two)
    for path in (".", INDEX, f"./{INDEX}", f"../{two.name}"):
        assert contents(path) == BOTH
    assert contents("model-00001-of-00002.safetensors") == {"w": BOTH["w"]}


def test_linked_shards(two, tmp_path_factory):
    """As in model caches: the folder holds links, the files lie elsewhere under other names; the index may be a link too."""
    cache = tmp_path_factory.mktemp("cache")
    for path in list(two.iterdir()):
        path.rename(cache / path.name.split(".")[0])
        path.symlink_to(os.path.relpath(cache / path.name.split(".")[0], two))
    assert contents(two) == contents(two / INDEX) == BOTH


def test_shards_in_a_folder_below(tmp_path):
    shard(tmp_path / "sub" / "x.safetensors", w=W)
    index(tmp_path, {"w": "sub/x.safetensors"})
    assert contents(tmp_path) == {"w": BOTH["w"]}


LEAVES, ODD = "leaves the folder", 'has an empty part or "."'


@pytest.mark.parametrize("name, words", [
    ("../x.safetensors", LEAVES), ("sub/../x.safetensors", LEAVES), ("..", LEAVES), ("/etc/passwd", LEAVES), ("//x", LEAVES), ("sub/..", LEAVES),
    ("./../x", LEAVES), ("ABSOLUTE", LEAVES), (".", ODD), ("", ODD), ("sub//x", ODD), ("./x.safetensors", ODD), ("sub/", ODD), ("sub/./x", ODD)])
def test_names_that_are_not_plainly_below_the_folder(tmp_path, name, words):
    folder = tmp_path / "m"
    shard(folder / "sub" / "y.safetensors", w=W)
    shard(folder / "x.safetensors", w=W)
    shard(tmp_path / "x.safetensors", w=W)
    index(folder, {"w": str(folder / "x.safetensors") if name == "ABSOLUTE" else name})
    error = error_of(folder)
    assert error.name == "MALFORMED" and words in error.text and (name == "ABSOLUTE" or f'shard name "{name}" ' in error.text)


def test_a_missing_shard(two):
    (two / "model-00002-of-00002.safetensors").unlink()
    error = error_of(two)
    assert error.name == "NOT_FOUND" and "model-00002-of-00002.safetensors" in error.text and INDEX in error.text
    (two / "model-00002-of-00002.safetensors").symlink_to("nowhere")
    assert error_of(two).name == "NOT_FOUND"


def test_a_shard_that_is_no_file(two):
    (two / "model-00002-of-00002.safetensors").unlink()
    (two / "model-00002-of-00002.safetensors").mkdir()
    assert error_of(two).name == "IO"


def test_a_broken_shard(two):
    with open(two / "model-00002-of-00002.safetensors", "ab") as f:
        f.write(b"x")
    error = error_of(two)
    assert error.name == "MALFORMED" and "model-00002-of-00002.safetensors" in error.text


def test_a_tensor_missing_from_all_shards(two):
    index(two, {"w": "model-00001-of-00002.safetensors", "w.scale": "model-00002-of-00002.safetensors",
                "gone": "model-00002-of-00002.safetensors"})
    error = error_of(two)
    assert error.name == "NOT_FOUND" and "gone" in error.text and "model-00002-of-00002.safetensors" in error.text


def test_a_tensor_in_another_shard(two):
    index(two, {"w": "model-00002-of-00002.safetensors", "w.scale": "model-00001-of-00002.safetensors"})
    with File(two) as f:
        assert f.contents() == BOTH
        assert len(f.notes) == 2 and all("places it in" in n for n in f.notes)


def test_a_tensor_that_the_index_does_not_list(two):
    shard(two / "model-00002-of-00002.safetensors", **{"w.scale": S, "more": S})
    with File(two) as f:
        assert set(f.arrays) == {"w", "w.scale", "more"}
        assert [n for n in f.notes if "does not list it" in n] and [n for n in f.notes if "total_size is 32" in n and "40" in n]


@pytest.mark.parametrize("metadata, notes", [({"total_size": 32}, 0), ({"total_size": 33}, 1), ({"total_size": 32.0}, 0), ({"total_size": "32"}, 0),
                                             ({"total_size": None}, 0), ({}, 0), (None, 0), ([], 0), ({"total_size": 1e300}, 0), ({"total_size": -1}, 0)])
def test_total_size(two, metadata, notes):
    weights = json.loads((two / INDEX).read_text())["weight_map"]
    (two / INDEX).write_text(json.dumps({"metadata": metadata, "weight_map": weights}))
    with File(two) as f:
        assert len(f.notes) == notes


def test_no_metadata_and_unknown_members(two):
    weights = json.loads((two / INDEX).read_text())["weight_map"]
    (two / INDEX).write_text(json.dumps({"weight_map": weights, "other": {"x": [1, 2.5, None]}}) + "\n")
    assert contents(two) == BOTH


def test_a_name_in_two_shards(two):
    shard(two / "model-00002-of-00002.safetensors", **{"w.scale": S, "w": W})
    error = error_of(two)
    assert error.name == "MALFORMED" and "w: the name is there twice" in error.text


def test_metadata_of_shards(tmp_path):
    for i, metadata in enumerate([{"format": "pt", "x": "1"}, {"format": "np", "x": "1", "y": "2"}]):
        safetensors.numpy.save_file({f"t{i}": S}, tmp_path / f"{i}.safetensors", metadata)
    index(tmp_path, {"t0": "0.safetensors", "t1": "1.safetensors"})
    with File(tmp_path) as f:
        assert f.metadata == {"format": "pt", "x": "1", "y": "2"}
        assert len(f.notes) == 1 and '"format"' in f.notes[0]


def test_a_key_twice_in_a_later_shard(tmp_path):
    entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    (tmp_path / "0.safetensors").write_bytes(blob('{"__metadata__":{"k":"1"},"a":%s}' % entry))
    (tmp_path / "1.safetensors").write_bytes(blob('{"__metadata__":{"k":"1","k":"1"},"b":%s}' % entry))
    index(tmp_path, {"a": "0.safetensors", "b": "1.safetensors"})
    error = error_of(tmp_path)
    assert error.name == "MALFORMED" and "1.safetensors" in error.text and "twice" in error.text


def test_notes_are_bounded(tmp_path):
    shard(tmp_path / "0.safetensors", **{f"t{i}": S for i in range(1500)})
    index(tmp_path, {"t0": "0.safetensors"})
    with File(tmp_path) as f:
        assert len(f.notes) == 1001 and "left out" in f.notes[-1] and len(f.arrays) == 1500


def test_many_shards(tmp_path):
    weights = {f"t{i:03}": f"{i:03}.safetensors" for i in range(300)}
    for name, file in weights.items():
        shard(tmp_path / file, **{name: S})
    index(tmp_path, weights, 300 * 8)
    with File(tmp_path) as f:
        assert list(f.arrays) == list(weights) and f.notes == [] and f.arrays["t299"].shard == 299


def test_too_many_shards(tmp_path):
    index(tmp_path, {f"t{i}": f"{i}.safetensors" for i in range(16385)})
    assert error_of(tmp_path).name == "LIMIT"


# ------------------------------------------------------------------------------------------------ malformed indexes

WEIGHTS = '"weight_map":{"w":"x.safetensors"}'


@pytest.mark.parametrize("text, status", [
    ("", "MALFORMED"), ("[]", "MALFORMED"), ("null", "MALFORMED"), ("{}", "MALFORMED"), ('{"metadata":{}}', "MALFORMED"), ("{", "MALFORMED"),
    ('{"weight_map":[]}', "MALFORMED"), ('{"weight_map":null}', "MALFORMED"), ('{"weight_map":{"w":1}}', "MALFORMED"),
    ('{"weight_map":{"w":null}}', "MALFORMED"), ('{"weight_map":{"w":"x.safetensors","w":"x.safetensors"}}', "MALFORMED"),
    ('{%s,%s}' % (WEIGHTS, WEIGHTS), "MALFORMED"), ('{%s,"metadata":{},"metadata":{}}' % WEIGHTS, "MALFORMED"),
    ('{%s}x' % WEIGHTS, "MALFORMED"), ('{%s,}' % WEIGHTS, "MALFORMED"), ('{%s,"o":{"a":1,"a":1}}' % WEIGHTS, "MALFORMED"),
    ('{"weight_map":{"w":"x\\u0000.safetensors"}}', "MALFORMED"), ('{"weight_map":{"w\\u0000":"x.safetensors"}}', "MALFORMED"),
    ('{"weight_map":{"w":"\\ud800"}}', "MALFORMED"), ('{%s,"o":%s}' % (WEIGHTS, "[" * 200 + "]" * 200), "LIMIT"),
    ('{%s,"o":"%s"}' % (WEIGHTS, "x" * (1 << 20)), "LIMIT"),
    ("\ufeff{%s}" % WEIGHTS, "MALFORMED"), ("{%s}\0" % WEIGHTS, "MALFORMED"),
])
def test_malformed_indexes(tmp_path, text, status):
    shard(tmp_path / "x.safetensors", w=W)
    (tmp_path / INDEX).write_text(text)
    error = error_of(tmp_path)
    assert error.name == status and INDEX in error.text


def test_an_index_may_be_empty(tmp_path):
    index(tmp_path, {})
    assert contents(tmp_path) == {}


def test_an_index_over_the_limit(tmp_path):
    with open(tmp_path / INDEX, "wb") as f:
        f.truncate(100_000_001)
    assert error_of(tmp_path).name == "LIMIT"


def test_an_index_of_other_files(tmp_path):
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"w": "pytorch_model-00001-of-00001.bin"}}))
    error = error_of(tmp_path / "pytorch_model.bin.index.json")
    assert error.name == "UNSUPPORTED" and "pickle" in error.text
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert "weight_map" in error_of(tmp_path / "config.json").text


# ------------------------------------------------------------------------------------------------------- paths

def test_a_folder_prefers_the_index(two):
    shard(two / "model.safetensors", other=S)
    assert contents(two) == BOTH
    (two / INDEX).unlink()
    assert set(contents(two)) == {"other"}


def test_a_folder_with_one_file_of_any_name(tmp_path):
    shard(tmp_path / "adapter_model.safetensors", w=W)
    (tmp_path / "README.md").write_text("x")
    (tmp_path / ".hidden.safetensors").write_bytes(b"x")
    assert contents(tmp_path) == {"w": BOTH["w"]}
    shard(tmp_path / "other.safetensors", w=W)
    error = error_of(tmp_path)
    assert error.name == "AMBIGUOUS" and "adapter_model.safetensors, other.safetensors" in error.text


def test_a_folder_with_another_index(two):
    (two / INDEX).rename(two / "diffusion.safetensors.index.json")
    assert error_of(two).name == "AMBIGUOUS"                       # it and two shards: the user says which
    assert contents(two / "diffusion.safetensors.index.json") == BOTH


def test_folders_without_a_checkpoint(tmp_path):
    assert error_of(tmp_path).name == "NOT_FOUND"
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    error = error_of(tmp_path)
    assert error.name == "UNSUPPORTED" and "pickle" in error.text


def test_a_dangling_index_is_not_passed_over(tmp_path):
    shard(tmp_path / "model.safetensors", w=W)
    (tmp_path / INDEX).symlink_to("nowhere")
    assert error_of(tmp_path).name == "NOT_FOUND"


@pytest.mark.parametrize("copy", [0, 1])
def test_paths_that_are_no_files(tmp_path, copy):
    assert error_of(tmp_path / "missing.safetensors", copy).name == "IO"
    error = error_of(tmp_path / "gone" / "missing.safetensors", copy)
    assert error.name == "IO" and "/missing.safetensors: there is no folder " in error.text and error.text.endswith("/gone")
    assert error_of("", copy).name == "IO"
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert error_of(tmp_path / "pipe.safetensors", copy).name == "IO"   # and does not wait for a writer
    assert error_of("/dev/null", copy).name == "IO"
    (tmp_path / "loop.safetensors").symlink_to("loop.safetensors")
    assert error_of(tmp_path / "loop.safetensors", copy).name == "IO"
    (tmp_path / "empty.safetensors").touch()
    assert error_of(tmp_path / "empty.safetensors", copy).name == "TRUNCATED"


def test_long_and_odd_paths(tmp_path):
    folder = tmp_path / ("x" * 200) / "new\nline \x1b[1m"
    shard(folder / "重み.safetensors", w=W)
    assert contents(folder) == contents(folder / "重み.safetensors") == {"w": BOTH["w"]}
    error = contents(folder / "missing.safetensors")                      # the end of the path is in the line, as it is
    assert error.name == "IO" and "\x1b[1m/missing.safetensors: No such file" in error.text and len(error.text) < 240


def test_arguments():
    made = brc.ffi.new("brc_file **")
    for path, options, out in ((brc.ffi.NULL, brc.ffi.NULL, made), (b"x", brc.ffi.NULL, brc.ffi.NULL), (b"x", brc.new("brc_open_options"), made)):
        if options != brc.ffi.NULL:
            options.size = 4
        with pytest.raises(brc.Error) as caught:
            brc.call("brc_file_open", path, options, out)
        assert caught.value.name == "ARGUMENT"
    brc.lib.brc_file_close(brc.ffi.NULL)


def test_what_is_not_there(two):
    with File(two) as f:
        lib, c = brc.lib, f.c
        assert lib.brc_file_at(c, 2) == brc.ffi.NULL == lib.brc_file_find(c, b"nothing") == lib.brc_file_metadata(c, b"nothing")
        assert lib.brc_file_metadata_at(c, 0, brc.ffi.NULL) == brc.ffi.NULL == lib.brc_file_shard_path(c, 2) == lib.brc_file_note_at(c, 0)
        assert lib.brc_file_shard_bytes(c, 2) == 0 and f.config is None
    with File(two / "model-00001-of-00002.safetensors") as f:
        assert f.index is None and f.folder == str(two) and f.contents() == {"w": BOTH["w"]}


# ------------------------------------------------------------------------------------------------------- config.json

def test_config(two):
    (two / "config.json").write_bytes(b'{"x": "\xff", broken')          # text as it is: others judge it
    for path in (two, two / INDEX, two / "model-00001-of-00002.safetensors"):
        with File(path) as f:
            assert f.config == b'{"x": "\xff", broken' and f.notes == []


@pytest.mark.parametrize("make, words", [
    (lambda p: p.write_bytes(b"{}\0"), "NUL"),
    (lambda p: p.mkdir(), "regular"),
    (lambda p: os.mkfifo(p), "regular"),
    (lambda p: (p.touch(), os.truncate(p, (16 << 20) + 1)), "at most"),
    (lambda p: p.symlink_to(p.name), "symbolic links"),
])
def test_a_config_that_cannot_be_read_is_a_note(two, make, words):
    make(two / "config.json")
    with File(two) as f:
        assert f.contents() == BOTH and f.config is None and len(f.notes) == 1 and words in f.notes[0], f.notes


def test_config_limit(two):
    (two / "config.json").write_bytes(b" " * (16 << 20))
    with File(two) as f:
        assert len(f.config) == 16 << 20 and f.notes == []


# ------------------------------------------------------------------------------------------------------- what is not read

@pytest.mark.parametrize("name", ["pytorch_model.bin", "x.pt", "x.pth", "x.ckpt", "x.pkl", "X.PT"])
def test_pickle_by_name(tmp_path, name):
    shard(tmp_path / name, w=W)                                          # whatever it holds
    error = error_of(tmp_path / name)
    assert error.name == "UNSUPPORTED" and "pickle" in error.text and "convert to safetensors" in error.text


def test_pickle_by_content(tmp_path):
    path = tmp_path / "model.safetensors"
    for protocol in (2, 3, 4, 5):
        path.write_bytes(pickle.dumps({"w": [1.0] * 100}, protocol))
        error = error_of(path)
        assert error.name == "UNSUPPORTED" and "pickle" in error.text
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("archive/data.pkl", b"x")
    assert error_of(path).name == "UNSUPPORTED"


def test_hdf5(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    error = error_of(tmp_path / "x.safetensors")
    assert error.name == "UNSUPPORTED" and "HDF5" in error.text


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580, 0x04034B50])
def test_a_header_length_that_looks_like_magic(tmp_path, length):
    """The length of a header may begin with the bytes of a pickle or of a zip file."""
    header = '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'
    path = tmp_path / "model.safetensors"
    for head in ("{", " "):
        path.write_bytes(blob((" " if head == " " else "") + header + " " * (length - len(header) - (head == " ")), b"abcd"))
        assert contents(path) == {"a": ("U8", [4], b"abcd")}


# ------------------------------------------------------------------------------------------------------- copies

def test_a_copy_outlives_the_file(tmp_path):
    """Copied bytes stay when the file is shortened; mapped ones would not."""
    path = tmp_path / "m.safetensors"
    write(path, {"a": ("U8", [1 << 16], bytes(range(256)) * 256)})
    with File(path, copy=1) as f:
        os.truncate(path, 0)
        a = f.arrays["a"].c
        assert bytes(brc.ffi.buffer(a.array.data, a.bytes)) == bytes(range(256)) * 256


def test_maps_are_read_only_views(two):
    with File(two) as f:
        a = f.arrays["w"].c.array
        assert [a.shape[0], a.shape[1]] == [2, 3] and [a.stride[0], a.stride[1]] == [3, 1]
        assert np.array_equal(np.frombuffer(brc.ffi.buffer(a.data, 24), np.float32).reshape(2, 3), W)


def test_unaligned_data(tmp_path):
    """A header that is not padded to 8 bytes: the array lies at an odd address, and the bytes are right."""
    path = tmp_path / "m.safetensors"
    for pad in range(8):
        path.write_bytes(blob('{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}' + " " * pad, W.tobytes()))
        assert contents(path) == contents(path, 1) == {"w": BOTH["w"]}
