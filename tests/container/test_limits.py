# SPDX-License-Identifier: Apache-2.0
"""Limits: large and hostile headers in bounded memory. Each file is opened in a process of its own, whose peaks are read."""
import itertools
import json
import os
import string
import subprocess
import sys

import breccia_c as brc
import pytest
from container.files import blob, contents, reference

MiB, GiB = 1 << 20, 1 << 30
LARGEST = 100_000_000

OPEN = """
import ctypes, sys
class Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("copy", ctypes.c_uint32)]
lib = ctypes.CDLL(sys.argv[1])
lib.brc_file_count.restype = ctypes.c_size_t
def peaks():
    found = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return [int(found[n].split()[0]) << 10 for n in ("VmPeak", "VmHWM")]
before = peaks()
file, err, options = ctypes.c_void_p(), ctypes.create_string_buffer(4096), Options(8, int(sys.argv[3]))
status = lib.brc_file_open(sys.argv[2].encode(), ctypes.byref(options), ctypes.byref(file), err)
after = peaks()
print(status, lib.brc_file_count(file) if status == 0 else 0, after[0], after[1] - before[1])
lib.brc_file_close(file)
"""


def measure(path, copy=0):
    """(status, arrays, peak of address space, peak of memory that opening took)."""
    run = subprocess.run([sys.executable, "-c", OPEN, brc.BUILD / "lib" / "libbreccia_file.so", path, str(copy)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    status, count, space, memory = map(int, run.stdout.split())
    return brc.ffi.string(brc.ffi.cast("brc_status", status)).removeprefix("BRC_"), count, space, memory


def within(path, header, copy=0):
    """Opens; memory is below 16 times the header and 64 MiB more, address space below 2 GiB beside the file's map."""
    status, count, space, memory = measure(path, copy)
    mapped = path.stat().st_size
    assert space - mapped < 2 * GiB, f"{space / GiB:.2f} GiB of address space"
    assert memory - mapped < 16 * header + 64 * MiB, f"{memory / MiB:.0f} MiB for a header of {header / MiB:.0f} MiB"
    return status, count


def test_200_000_tensors(tmp_path):
    entries, at = {}, 0
    for i in range(200_000):
        entries[f"model.layers.{i // 768}.mlp.experts.{i // 3 % 256}.{('gate', 'up', 'down')[i % 3]}_proj.weight"] = {
            "dtype": "F8_E4M3", "shape": [2, 2], "data_offsets": [at, at + 4]}
        at += 4
    header = json.dumps(entries)
    path = tmp_path / "m.safetensors"
    path.write_bytes(blob(header, bytes(at)))
    for copy in (0, 1):
        assert within(path, len(header), copy) == ("OK", 200_000)


def short_names(n):
    letters = string.ascii_letters + string.digits
    made = itertools.chain.from_iterable(itertools.product(letters, repeat=k) for k in range(1, 6))
    return ["".join(t) for t in itertools.islice(made, n)]


def of_pieces(first, pieces, last, size):
    """A header of at most `size` bytes: as many pieces as fit, comma between, spaces to the end."""
    room, kept = size - len(first) - len(last), []
    for piece in pieces:
        room -= len(piece) + 1
        if room < 0:
            break
        kept.append(piece)
    text = first + ",".join(kept) + last
    return text + " " * (size - len(text))


HOSTILE = {
    "the most arrays": lambda n: of_pieces("{", (f'"{name}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for name in short_names(n // 50)), "}", n),
    "the most metadata": lambda n: of_pieces('{"__metadata__":{', (f'"{name}":""' for name in short_names(n // 8)), "}}", n),
    "the most dimensions": lambda n: of_pieces("{", (f'"{name}":{{"dtype":"U8","shape":[{"0," * 130000}0],"data_offsets":[0,0]}}'
                                                     for name in short_names(400)), "}", n),
    "one long name": lambda n: '{"%s":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' % ("x" * (n - 54)),
    "one long value": lambda n: '{"__metadata__":{"k":"%s"}}' % ("x" * (n - 26)),
    "a value of escapes": lambda n: '{"__metadata__":{"k":"%s"}}' % ("\\u0001" * ((n - 30) // 6)),
    "only space": lambda n: "{" + " " * (n - 2) + "}",
}
SIZES = [LARGEST // 10, pytest.param(LARGEST, marks=pytest.mark.exhaustive)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", HOSTILE)
def test_the_largest_headers(tmp_path, name, size):
    raw = blob(HOSTILE[name](size))
    assert len(raw) <= 8 + size
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw)
    status, count = within(path, len(raw) - 8)
    assert status == "OK" and (count > size // 60 or name != "the most arrays")


REFUSED = {
    "deep JSON": ('{"a":{"dtype":"U8","x":' + "[" * 90_000_000, "LIMIT"),
    "deep objects": ('{"a":' + '{"a":' * 15_000_000, "LIMIT"),
    "deep metadata": ('{"__metadata__":{"k":' + "{" * 90_000_000, "LIMIT"),
    "an open string": ('{"' + "x" * 99_000_000, "MALFORMED"),
    "backslashes": ('{"' + "\\" * 99_000_000, "MALFORMED"),
    "one large entry": ('{"a":{"dtype":"U8","shape":[' + "0," * 40_000_000 + '0],"data_offsets":[0,0]}}', "LIMIT"),
    "commas": ("{" + "," * 99_000_000, "MALFORMED"),
    "a number of many digits": ('{"a":{"x":' + "9" * 200_000 + "}}", "MALFORMED"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_headers_are_refused_in_little_memory(tmp_path, name):
    header, expected = REFUSED[name]
    path = tmp_path / "m.safetensors"
    path.write_bytes(blob(header))
    assert within(path, len(header)) == (expected, 0)


@pytest.mark.parametrize("size", SIZES)
def test_a_large_index(tmp_path, size):
    """Up to 100 MB of weight_map; the shard is not there, which is found at the end."""
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(of_pieces('{"weight_map":{', (f'"{n}":"x"' for n in short_names(size // 8)), "}}", size))
    assert within(path, size) == ("NOT_FOUND", 0)


@pytest.mark.parametrize("size, accepted", [(LARGEST, True), (LARGEST + 1, False)])
def test_header_limit(tmp_path, size, accepted):
    raw = blob('{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'.ljust(size), b"abcd")
    assert (reference(raw) is not None) == accepted
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw)
    got = contents(path)
    assert got == {"a": ("U8", [4], b"abcd")} if accepted else got.name == "LIMIT"


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**32, 2**63 - 9, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1])
def test_hostile_lengths(tmp_path, length):
    path = tmp_path / "m.safetensors"
    for rest in (b"", b"{}", b"{}" + bytes(100)):
        path.write_bytes(length.to_bytes(8, "little") + rest)
        assert contents(path).name in ("LIMIT", "TRUNCATED", "MALFORMED")


BIG = [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, -1, -2**63, -2**64]


@pytest.mark.parametrize("size", BIG)
def test_hostile_sizes(tmp_path, size):
    path = tmp_path / "m.safetensors"
    for dtype, shape, offsets in itertools.product(("U8", "F4", "C64"), ([size], [size, size], [size, 0], [0, size], [1, size]),
                                                   ([0, 4], [0, size], [size, size], [size, 4], [4, size])):
        if shape[0] == 0 and offsets in ([0, 4], [4, size], [size, 4]):
            continue
        raw = blob(json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}), b"abcd")
        assert reference(raw) is None, "the library accepts it"
        path.write_bytes(raw)
        assert isinstance(contents(path), brc.Error)


def test_a_file_with_a_hole_of_terabytes(tmp_path):
    """8 TiB of zeros that take no room on the disk: mapped, not read."""
    size = 8 << 40
    path = tmp_path / "m.safetensors"
    path.write_bytes(blob('{"a":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (size, size)))
    try:
        os.truncate(path, path.stat().st_size + size)
    except OSError:
        pytest.skip("the file system holds no file of 8 TiB")
    status, count, _, memory = measure(path)
    assert (status, count) == ("OK", 1) and memory < 64 * MiB
    status, count, space, memory = measure(path, copy=1)          # more than there is: refused, not tried
    assert status in ("MEMORY", "OK") and memory < 64 * MiB or status == "MEMORY"
