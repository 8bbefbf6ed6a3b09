# SPDX-License-Identifier: Apache-2.0
"""breccia and the safetensors library read each other's files: every dtype, odd names, scalars, empty arrays, metadata; and on
random headers they give the same verdict, but for the documented points (docs/safetensors.md)."""
import json

import breccia_c as brc
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from container.files import BITS, File, blob, contents, reference, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

# dtype words of the types of PyTorch and NumPy, as the library's documentation has them.
TORCH = {torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.float8_e5m2: "F8_E5M2", torch.float8_e4m3fn: "F8_E4M3",
         torch.float8_e8m0fnu: "F8_E8M0", torch.float8_e4m3fnuz: "F8_E4M3FNUZ", torch.float8_e5m2fnuz: "F8_E5M2FNUZ", torch.int16: "I16",
         torch.uint16: "U16", torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32", torch.uint32: "U32", torch.float32: "F32",
         torch.complex64: "C64", torch.float64: "F64", torch.int64: "I64", torch.uint64: "U64"}
NUMPY = {np.bool_: "BOOL", np.uint8: "U8", np.int8: "I8", np.int16: "I16", np.uint16: "U16", np.float16: "F16", np.int32: "I32",
         np.uint32: "U32", np.float32: "F32", np.complex64: "C64", np.float64: "F64", np.int64: "I64", np.uint64: "U64"}
FORMATS = {"BOOL": "bool", "F4": "e2m1", "F6_E2M3": "e2m3", "F6_E3M2": "e3m2", "U8": "uint8", "I8": "int8", "F8_E5M2": "e5m2", "F8_E4M3": "e4m3",
           "F8_E8M0": "e8m0", "F8_E4M3FNUZ": "e4m3fnuz", "F8_E5M2FNUZ": "e5m2fnuz", "I16": "int16", "U16": "uint16", "F16": "f16",
           "BF16": "bf16", "I32": "int32", "U32": "uint32", "F32": "f32", "C64": "complex64", "F64": "f64", "I64": "int64", "U64": "uint64"}
NAMES = ["", " ", "a", "A", "weight", "модель.вес", "重み", "\U0001f5ff", 'say "hi"', "back\\slash", "sl/ash", "new\nline", "\t\r\b\f", "\x01\x1f\x7f",
         "\u2028\ufeff\uffff", "__metadata", "__metadata__ ", "é", "e\u0301", "%s%n", "x" * 5000, "a.b.c", "\u0080"]
SHAPES = [[], [0], [1], [7], [0, 3], [3, 0, 2], [2, 3], [1, 1, 1, 1, 1, 1, 1, 1], [2] * 12, [5, 8]]


def random_bytes(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, n, np.uint8).tobytes()


def sample(word, shape):
    bits = BITS[word] * int(np.prod(shape, dtype=np.int64))
    return None if bits % 8 else (word, shape, random_bytes(bits // 8, len(shape)))


def header_of(path):
    raw = path.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    return n, raw[8:8 + n], raw[8 + n:]


def test_words_of_formats():
    assert BITS.keys() == FORMATS.keys()
    for word, name in FORMATS.items():
        number = brc.format_of(name)
        assert brc.ffi.string(brc.lib.brc_safetensors_dtype(number)).decode() == word
        assert brc.lib.brc_safetensors_format(word.encode()) == number
        assert brc.lib.brc_format_get(number).bits == BITS[word]
    for name in brc.formats():
        if name not in FORMATS.values():
            assert brc.lib.brc_safetensors_dtype(brc.format_of(name)) == brc.ffi.NULL, name
    for word in ("", "u8", "I4", "U4", "F8", "F8_E4M3FN", "F32 ", "NONE"):
        assert brc.lib.brc_safetensors_format(word.encode()) == brc.lib.BRC_NONE


def test_the_library_reads_every_dtype_and_shape(tmp_path):
    arrays = {f"{word} {shape}": made for word in BITS for shape in SHAPES if (made := sample(word, shape)) is not None}
    path = tmp_path / "m.safetensors"
    write(path, arrays, {"format": "pt", "": "empty key", 'k"\n': "\U0001f5ff\x01"})
    assert reference(path.read_bytes()) == contents(path) == contents(path, copy=1) == arrays
    with safe_open(path, "np") as f:
        assert set(f.keys()) == set(arrays) and f.metadata() == {"format": "pt", "": "empty key", 'k"\n': "\U0001f5ff\x01"}


@pytest.mark.parametrize("dtype", TORCH, ids=str)
def test_torch(tmp_path, dtype):
    """PyTorch's arrays through both directions, bytes compared."""
    x = {"m": torch.frombuffer(bytearray(random_bytes(96)), dtype=torch.uint8).clone(), "s": None, "e": None}
    if dtype == torch.bool:
        x["m"] = (x["m"] & 1)
    x["m"] = x["m"].view(dtype).reshape(2, -1)
    x["s"], x["e"] = x["m"][0, 0].clone(), torch.empty(0, 5, dtype=dtype)
    theirs, ours = tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors"
    safetensors.torch.save_file(x, theirs, {"format": "pt"})
    got = contents(theirs)
    for name, tensor in x.items():
        flat = tensor.contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else torch.empty(0, dtype=torch.uint8)
        assert got[name] == (TORCH[dtype], list(tensor.shape), flat.numpy().tobytes())
    write(ours, got, {"format": "pt"})
    back = safetensors.torch.load_file(ours)
    assert back.keys() == x.keys()
    for name, tensor in x.items():
        assert back[name].dtype == dtype and back[name].shape == tensor.shape
        if tensor.numel():
            assert torch.equal(back[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))
    assert header_of(ours)[2] == header_of(theirs)[2]           # the same order of the data


def test_torch_float4(tmp_path):
    """A pair of F4 elements is one of PyTorch's: [4, 6] is written as [4, 12]."""
    x = torch.frombuffer(bytearray(random_bytes(24)), dtype=torch.uint8).clone().view(torch.float4_e2m1fn_x2).reshape(4, 6)
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file({"x": x}, path)
    got = contents(path)
    assert got == {"x": ("F4", [4, 12], random_bytes(24))}
    write(path, got, overwrite=True)
    back = safetensors.torch.load_file(path)["x"]
    assert back.dtype == x.dtype and back.shape == x.shape and torch.equal(back.view(torch.uint8), x.view(torch.uint8))


@pytest.mark.parametrize("dtype", NUMPY, ids=lambda t: t.__name__)
def test_numpy(tmp_path, dtype):
    x = np.frombuffer(random_bytes(96), np.uint8)
    x = {"m": (x & 1 if dtype == np.bool_ else x).view(dtype).reshape(2, -1), "e": np.empty((3, 0), dtype)}
    x["s"] = np.array(x["m"][1, 1])
    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file(x, path)
    got = contents(path)
    assert got == {n: (NUMPY[dtype], list(a.shape), a.tobytes()) for n, a in x.items()}
    write(path, got, overwrite=True)
    back = safetensors.numpy.load_file(path)
    assert back.keys() == x.keys()
    for name, a in x.items():
        assert back[name].dtype == dtype and back[name].shape == a.shape and back[name].tobytes() == a.tobytes()


def test_odd_names(tmp_path):
    arrays = {name: ("U8", [1], bytes([i])) for i, name in enumerate(NAMES)}
    metadata = {name: name[::-1] for name in NAMES}
    path = tmp_path / "m.safetensors"
    write(path, arrays, metadata)
    assert reference(path.read_bytes()) == contents(path) == arrays
    with safe_open(path, "np") as f:
        assert f.metadata() == metadata
    theirs = tmp_path / "theirs.safetensors"
    safetensors.numpy.save_file({n: np.frombuffer(d, np.uint8) for n, (_, _, d) in arrays.items()}, theirs, metadata)
    assert contents(theirs) == arrays
    with File(theirs) as f:
        assert f.metadata == metadata


def test_order_alignment_and_padding(tmp_path):
    """The whole file is the library's own, byte for byte: the largest alignment first, then by name; data begins at a multiple of 8."""
    made = {f"{i}.{word}": (dtype, word, shape) for i, shape in enumerate([[3], [4], [], [0]]) for dtype, word in TORCH.items()}
    arrays = {n: sample(word, shape) for n, (_, word, shape) in made.items()}
    theirs = safetensors.torch.save({n: torch.frombuffer(bytearray(arrays[n][2] or b"\0"), dtype=torch.uint8)[:len(arrays[n][2])].view(dtype)
                                     .reshape(shape) for n, (dtype, _, shape) in made.items()})
    for arrays_given in (arrays, dict(reversed(arrays.items()))):
        path = tmp_path / "m.safetensors"
        write(path, arrays_given, overwrite=True)
        assert path.read_bytes() == theirs
        with File(path) as f:
            for a in f.arrays.values():
                assert int(brc.ffi.cast("uintptr_t", a.c.array.data)) % (BITS[a.dtype] // 8) == 0


def test_nothing(tmp_path):
    path = tmp_path / "m.safetensors"
    write(path, {})
    assert reference(path.read_bytes()) == contents(path) == {} and path.stat().st_size == 16


def test_views_of_packed_and_deep_arrays(tmp_path):
    """Where a brc_array cannot say the shape, the view is flat; the file's shape stays."""
    arrays = {"odd rows": ("F4", [2, 3], b"abc"), "whole rows": ("F4", [3, 2], b"abc"), "odd 6": ("F6_E3M2", [4, 3], b"123456789"),
              "whole 6": ("F6_E3M2", [3, 4], b"123456789"), "deep": ("U8", [1] * 60, b"x"), "scalar": ("F32", [], b"1234")}
    path = tmp_path / "m.safetensors"
    write(path, arrays)
    assert contents(path) == arrays == reference(path.read_bytes())
    with File(path) as f:
        views = {n: a.view for n, a in f.arrays.items()}
        assert views == {"odd rows": [6], "whole rows": [3, 2], "odd 6": [12], "whole 6": [3, 4], "deep": [1], "scalar": []}
        assert {n: a.format for n, a in f.arrays.items()} == {n: FORMATS[a[0]] for n, a in arrays.items()}


def test_a_trained_model(fracast, tmp_path):
    with safe_open(fracast, "np") as f:
        names, metadata = set(f.keys()), f.metadata() or {}
    read = contents(fracast)
    assert read == reference(fracast.read_bytes()) and set(read) == names and len(names) == 47
    write(tmp_path / "m.safetensors", read, metadata)
    assert reference((tmp_path / "m.safetensors").read_bytes()) == read
    assert header_of(tmp_path / "m.safetensors")[2] == header_of(fracast)[2]


# --------------------------------------------------------------------------------------------- random headers

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
dimension = st.one_of(st.integers(0, 5), st.sampled_from([1 << 31, 1 << 32, 1 << 62]))


@st.composite
def whole_files(draw):
    arrays = draw(st.dictionaries(text.filter(lambda n: n != "__metadata__"),
                                  st.tuples(st.sampled_from(sorted(BITS)), st.lists(st.integers(0, 5), max_size=4)), max_size=5))
    arrays = {n: made for n, (word, shape) in arrays.items() if (made := sample(word, shape)) is not None}
    return arrays, draw(st.dictionaries(text, text, max_size=3))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=whole_files())
def test_random_files_written(tmp_path, made):
    arrays, metadata = made
    path = tmp_path / "m.safetensors"
    write(path, arrays, metadata, overwrite=True)
    assert reference(path.read_bytes()) == contents(path) == arrays
    with safe_open(path, "np") as f:
        assert (f.metadata() or {}) == metadata


def tiled(draw, entries):
    """Entries whose data follow each other; mostly. Returns the header's pairs and the size of the data."""
    pairs, at = [], 0
    for name, word, shape in entries:
        size = BITS.get(word, 8)
        for d in shape:
            size *= d if isinstance(d, int) and 0 <= d < 100 else 1
        size = -(-size // 8)
        begin, end = at + draw(st.sampled_from([0] * 20 + [1, -1])), at + size + draw(st.sampled_from([0] * 20 + [1, -1]))
        pairs.append([name, {"dtype": word, "shape": shape, "data_offsets": [begin, end]}])
        at += size
    return pairs, at


@st.composite
def random_headers(draw):
    word = st.one_of(st.sampled_from(sorted(BITS)), st.sampled_from(["I4", "u8", "", "F32"]))
    shape = st.lists(st.one_of(st.integers(0, 4), st.integers(0, 4), st.sampled_from([-1, 1.0, True, None, 1 << 33, "1"])), max_size=3)
    shape = st.one_of(st.lists(st.integers(0, 4), max_size=4), shape)
    names = draw(st.lists(text, min_size=1, max_size=4, unique=True))
    pairs, size = tiled(draw, [(n, draw(word), draw(shape)) for n in names if n != "__metadata__"])
    json_value = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(0, 1 << 62), st.floats(allow_nan=False, allow_infinity=False), text),
                              lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(text, inner, max_size=2)), max_leaves=4)
    if draw(st.integers(0, 3)) == 0 and pairs:
        pairs[0][1][draw(text)] = draw(json_value)
    if draw(st.integers(0, 2)) == 0:
        pairs.append(["__metadata__", draw(st.one_of(st.none(), st.dictionaries(text, text, max_size=2), json_value))])
    if draw(st.integers(0, 9)) == 0 and pairs:
        del pairs[0][1][draw(st.sampled_from(["dtype", "shape", "data_offsets"]))]
    pairs = draw(st.permutations(pairs))
    header = json.dumps(dict(pairs), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))).encode()
    return header + b" " * draw(st.integers(0, 3)), size + draw(st.sampled_from([0] * 10 + [1, -1]))


def stricter(header):
    """Whether the header holds one of the documented points: a name twice, NUL, -0, integers from 2^63, an entry that is an array."""
    twice = False

    def pairs(found):
        nonlocal twice
        twice |= len({n for n, _ in found}) < len(found)
        return dict(found)

    numbers = []
    tree = json.loads(header, object_pairs_hook=pairs, parse_int=lambda t: numbers.append(t) or int(t))
    huge = any(t == "-0" or not -1 << 63 <= int(t) < 1 << 63 for t in numbers)
    odd = any(isinstance(e, list) or (isinstance(e, dict) and isinstance(e.get("dtype"), dict)) for e in tree.values())
    products = [np.prod([float(d) for d in e["shape"] if isinstance(d, int) and d > 0]) for e in tree.values()
                if isinstance(e, dict) and isinstance(e.get("shape"), list)]
    return twice or huge or odd or b"\\u0000" in header or any(p >= 2.0 ** 63 for p in products)


def agree(path, raw):
    path.write_bytes(raw)
    expected, got = reference(raw), contents(path)
    if expected is None:
        assert isinstance(got, brc.Error) and got.name in ("MALFORMED", "TRUNCATED", "LIMIT", "OVERFLOW", "UNSUPPORTED"), (raw, got)
    elif isinstance(got, brc.Error):
        assert stricter(raw[8:8 + int.from_bytes(raw[:8], "little")]), (raw, got.text)
    else:
        assert got == expected
    return expected is not None


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=random_headers())
def test_random_headers(tmp_path, made):
    header, size = made
    agree(tmp_path / "m.safetensors", blob(header, bytes(max(size, 0))))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=random_headers(), cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(max_size=3)), max_size=3))
def test_mutated_headers(tmp_path, made, cuts):
    """Bytes replaced, removed and put in anywhere; the length follows."""
    header, size = made
    for where, removed, added in cuts:
        at = int(where * len(header))
        header = header[:at] + added + header[at + removed:]
    agree(tmp_path / "m.safetensors", blob(header, bytes(max(size, 0))))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=random_headers(), pieces=st.lists(st.sampled_from(
    ['"', "\\", "{", "}", "[", "]", ",", ":", "null", "true", "-", "0", "1e5", '"dtype"', '"U8"', '"__metadata__"', "\\u00e9", "\\ud83d", " ", "\n"]),
    min_size=1, max_size=3), where=st.floats(0, 1))
def test_json_pieces_put_in(tmp_path, made, pieces, where):
    header, size = made
    at = int(where * len(header))
    agree(tmp_path / "m.safetensors", blob(header[:at] + "".join(pieces).encode() + header[at:], bytes(max(size, 0))))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(lambda b: len(b).to_bytes(8, "little") + b)))
def test_random_bytes(tmp_path, raw):
    agree(tmp_path / "m.safetensors", raw)
