# SPDX-License-Identifier: Apache-2.0
"""breccia's containers as tests use them, and what the safetensors library says of the same bytes.

    with File(path) as f: f.arrays["w"].data, f.metadata, f.notes      brc_file
    w = Writer(path); w.add("w", "F32", [2, 3]); w.begin(); w.write("w", blob); w.finish()
    reference(blob)       {name: (dtype, shape, bytes)} by safetensors.deserialize, None where it refuses
"""
import contextlib
import os
from types import SimpleNamespace

import breccia_c as brc
from safetensors import deserialize

ffi, lib = brc.ffi, brc.lib

# Bits of an element of every dtype the library knows (formats.md of the format: safetensors/src/tensor.rs).
BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
        "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64,
        "U64": 64}


def _text(pointer):
    return ffi.string(pointer).decode()


def blob(header, data=b""):
    """A file of the header's text and the data."""
    text = header if isinstance(header, bytes) else header.encode()
    return len(text).to_bytes(8, "little") + text + data


class File:
    """An opened brc_file; .arrays keeps the file's order."""

    def __init__(self, path, copy=0):
        made = ffi.new("brc_file **")
        brc.call("brc_file_open", os.fsencode(path), brc.new("brc_open_options", copy=copy), made)
        c = self.c = made[0]
        self.arrays = {}
        for i in range(lib.brc_file_count(c)):
            a = lib.brc_file_at(c, i)
            data = bytes(ffi.buffer(a.array.data, a.bytes)) if a.bytes else b""
            assert lib.brc_file_find(c, a.name) == a
            self.arrays[_text(a.name)] = SimpleNamespace(
                dtype=_text(a.dtype), shape=[a.shape[k] for k in range(a.rank)], data=data, shard=a.shard, c=a,
                view=[a.array.shape[k] for k in range(a.array.rank)], format=brc.format_name(a.array.format))
        value = ffi.new("const char **")
        self.metadata = {}
        for i in range(lib.brc_file_metadata_count(c)):
            key = lib.brc_file_metadata_at(c, i, value)
            assert lib.brc_file_metadata(c, key) == value[0]
            self.metadata[_text(key)] = _text(value[0])
        self.values = {}
        typed = ffi.new("brc_value *")
        for i in range(lib.brc_file_metadata_count(c)):
            key = _text(lib.brc_file_value_at(c, i, typed))
            self.values[key] = (typed.type, typed.item, typed.count, bytes(ffi.buffer(typed.bytes, typed.length)) if typed.length else b"")
        self.shards = [_text(lib.brc_file_shard_path(c, i)) for i in range(lib.brc_file_shards(c))]
        self.notes = [_text(lib.brc_file_note_at(c, i).text) for i in range(lib.brc_file_note_count(c))]
        config, index = lib.brc_file_config(c), lib.brc_file_index(c)
        self.config = None if config == ffi.NULL else ffi.string(config)
        self.index = None if index == ffi.NULL else _text(index)
        self.folder = _text(lib.brc_file_folder(c))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        lib.brc_file_close(self.c)

    def contents(self):
        return {n: (a.dtype, a.shape, a.data) for n, a in self.arrays.items()}


def contents(path, copy=0):
    """{name: (dtype, shape, bytes)}, or the brc.Error."""
    try:
        with File(path, copy) as f:
            return f.contents()
    except brc.Error as error:
        return error


def reference(raw):
    """What the safetensors library reads of the bytes; None where it refuses them."""
    with contextlib.suppress(Exception):
        return {n: (t["dtype"], t["shape"], bytes(t["data"])) for n, t in deserialize(raw)}
    return None


class Writer:
    def __init__(self, path, overwrite=False):
        made = ffi.new("brc_writer **")
        brc.call("brc_writer_new", os.fsencode(path), brc.new("brc_write_options", overwrite=int(overwrite)), made)
        self.c, self.numbers = made[0], {}

    def add(self, name, dtype, shape, shard=0):
        raw = name if isinstance(name, bytes) else name.encode()
        number = ffi.new("size_t *")
        format = dtype if isinstance(dtype, int) else lib.brc_safetensors_format(dtype.encode())
        brc.call("brc_writer_add", self.c, raw, format, len(shape), list(shape), shard, number)
        self.numbers[name] = number[0]
        return self

    def add_dtype(self, name, dtype, shape, shard=0):
        """By the container's own word."""
        number = ffi.new("size_t *")
        brc.call("brc_writer_add_dtype", self.c, name.encode(), dtype.encode(), len(shape), list(shape), shard, number)
        self.numbers[name] = number[0]
        return self

    def value(self, key, type, raw, item=0, count=1):
        """A pair of this number's type, its bytes as GGUF has them."""
        raw = ffi.from_buffer(raw)
        brc.call("brc_writer_value", self.c, key.encode(), brc.new("brc_value", type=type, item=item, count=count, bytes=raw, length=len(raw)))
        return self

    def metadata(self, **pairs):
        for key, value in pairs.items():
            brc.call("brc_writer_metadata", self.c, key.encode(), value.encode())
        return self

    def text(self, name, text):
        brc.call("brc_writer_text", self.c, name.encode(), text.encode())
        return self

    def copy(self, name, path):
        brc.call("brc_writer_copy", self.c, name.encode(), os.fsencode(path))
        return self

    def begin(self):
        brc.call("brc_writer_begin", self.c)
        return self

    def write(self, name, data, offset=0):
        brc.call("brc_writer_write", self.c, self.numbers.get(name, name), offset, ffi.from_buffer(data), len(data))
        return self

    def finish(self):
        c, self.c = self.c, ffi.NULL
        brc.call("brc_writer_finish", c)

    def discard(self):
        c, self.c = self.c, ffi.NULL
        lib.brc_writer_discard(c)


def write(path, arrays, metadata=None, shards=None, overwrite=False, texts=None):
    """Writes {name: (dtype, shape, bytes)} with breccia; shards: {name: number}."""
    w = Writer(path, overwrite)
    try:
        for name, (dtype, shape, _) in arrays.items():
            w.add(name, dtype, shape, (shards or {}).get(name, 0))
        w.metadata(**(metadata or {}))
        for name, text in (texts or {}).items():
            w.text(name, text)
        w.begin()
        for name, (_, _, data) in arrays.items():
            w.write(name, data)
    except BaseException:
        w.discard()
        raise
    w.finish()
