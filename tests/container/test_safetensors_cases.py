# SPDX-License-Identifier: Apache-2.0
"""Files the safetensors library accepts or refuses: the same verdict and the same bytes, but for the points in which breccia is
stricter (docs/safetensors.md lists them)."""
import base64
import json

import pytest
from container.files import blob, contents, reference

ENTRY = '{"dtype":"U8","shape":[4],"data_offsets":[0,4]%s}'
ONE = '{"a":%s}'

# What the library accepts and breccia does not. Golden cases by name, further headers over 4 bytes of data.
STRICTER_CASES = {"duplicate_tensor_same", "duplicate_tensor_last_wins", "nul_in_name"}
STRICTER = {
    "a key twice in __metadata__": '{"__metadata__":{"k":"1","k":"2"},"a":%s}' % (ENTRY % ""),
    "NUL in __metadata__": '{"__metadata__":{"k":"\\u0000"},"a":%s}' % (ENTRY % ""),
    "an entry as an array": '{"a":["U8",[4],[0,4]]}',
    "a dtype as an object": '{"a":{"dtype":{"U8":null},"shape":[4],"data_offsets":[0,4]}}',
    "an unknown field twice": ONE % (ENTRY % ',"x":1,"x":1'),
    "a key twice in an unknown field": ONE % (ENTRY % ',"x":{"y":1,"y":1}'),
    "minus zero in an unknown field": ONE % (ENTRY % ',"x":-0'),
    "an integer of 2^63 in an unknown field": ONE % (ENTRY % ',"x":9223372036854775808'),
    "a dimension of 2^63": '{"a":%s,"b":{"dtype":"U8","shape":[0,9223372036854775808],"data_offsets":[4,4]}}' % (ENTRY % ""),
    "dimensions of an empty array over 2^63": '{"a":%s,"b":{"dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[4,4]}}'
                                              % (ENTRY % ""),
    "an entry of 256 KiB": ONE % (ENTRY % ',"x":"%s"' % ("y" * 262144)),
}

# Verdicts that the golden cases do not hold; the library itself is asked.
ALIKE = {
    "unknown field": ONE % (ENTRY % ',"x":[1.5e3,null,true,"\\ud83d\\ude00"]'),
    "number out of range": ONE % (ENTRY % ',"x":1e400'),
    "largest integer": ONE % (ENTRY % ',"x":9223372036854775807'),
    "lone surrogate in a value": ONE % (ENTRY % ',"x":"\\ud800"'),
    "known field twice": ONE % (ENTRY % ',"dtype":"U8"'),
    "shape twice": ONE % (ENTRY % ',"shape":[4]'),
    "minus zero": '{"a":%s,"b":{"dtype":"U8","shape":[-0],"data_offsets":[4,4]}}' % (ENTRY % ""),
    "exponent": '{"a":{"dtype":"U8","shape":[4e0],"data_offsets":[0,4]}}',
    "leading zero": '{"a":{"dtype":"U8","shape":[04],"data_offsets":[0,4]}}',
    "plus": '{"a":{"dtype":"U8","shape":[+4],"data_offsets":[0,4]}}',
    "overflow before the zero": '{"a":%s,"b":{"dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[4,4]}}' % (ENTRY % ""),
    "bits overflow": '{"a":%s,"b":{"dtype":"U64","shape":[288230376151711744],"data_offsets":[4,4]}}' % (ENTRY % ""),
    "offset 2^64": '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,18446744073709551616]}}',
    "byte order mark": "\ufeff" + ONE % (ENTRY % ""),
    "trailing comma": '{"a":%s,}' % (ENTRY % ""),
    "leading comma": '{,"a":%s}' % (ENTRY % ""),
    "no comma": '{"a":%s "b":%s}' % (ENTRY % "", ENTRY % ""),
    "no colon": '{"a" %s}' % (ENTRY % ""),
    "comment": '{/**/"a":%s}' % (ENTRY % ""),
    "single quotes": "{'a':%s}" % (ENTRY % ""),
    "unquoted": '{a:%s}' % (ENTRY % ""),
    "entry null": '{"a":null}',
    "entry string": '{"a":"U8"}',
    "entry number": '{"a":4}',
    "dtype number": '{"a":{"dtype":0,"shape":[4],"data_offsets":[0,4]}}',
    "dtype with NUL": '{"a":{"dtype":"U8\\u0000","shape":[4],"data_offsets":[0,4]}}',
    "shape string": '{"a":{"dtype":"U8","shape":"4","data_offsets":[0,4]}}',
    "shape object": '{"a":{"dtype":"U8","shape":{},"data_offsets":[0,4]}}',
    "nested shape": '{"a":{"dtype":"U8","shape":[[4]],"data_offsets":[0,4]}}',
    "one offset": '{"a":{"dtype":"U8","shape":[4],"data_offsets":[4]}}',
    "offsets object": '{"a":{"dtype":"U8","shape":[4],"data_offsets":{"begin":0,"end":4}}}',
    "missing dtype": '{"a":{"shape":[4],"data_offsets":[0,4]}}',
    "missing offsets": '{"a":{"dtype":"U8","shape":[4]}}',
    "__metadata__ array": '{"__metadata__":[],"a":%s}' % (ENTRY % ""),
    "__metadata__ nulls": '{"__metadata__":{"k":null},"a":%s}' % (ENTRY % ""),
    "__metadata__ null x": '{"__metadata__":nullx,"a":%s}' % (ENTRY % ""),
    "__metadata__ escaped": '{"__metadata\\u005f_":{"k":"v"},"a":%s}' % (ENTRY % ""),
    "__metadata__ null and object": '{"__metadata__":null,"__metadata__":{},"a":%s}' % (ENTRY % ""),
    "escaped keys": '{"\\u0061":{"d\\u0074ype":"U\\u0038","shape":[4],"data_offsets":[0,4]}}',
    "white space": ' {\n"a"\t:\r{ "dtype" : "U8" , "shape" : [ 4 ] , "data_offsets" : [ 0 , 4 ] } } \n',
    "vertical tab": '{"a":%s}\v' % (ENTRY % ""),
    "control character in a name": '{"a\n":%s}' % (ENTRY % ""),
    "escaped control character": '{"a\\n\\u0001":%s}' % (ENTRY % ""),
    "bad escape": '{"a\\x":%s}' % (ENTRY % ""),
    "open string": '{"a":%s,"b' % (ENTRY % ""),
    "open object": '{"a":%s' % (ENTRY % ""),
    "open entry": '{"a":{"dtype":"U8"',
    "two objects": '{"a":%s}{}' % (ENTRY % ""),
    "null": "null",
    "string": '""',
    "only space": "    ",
    "123 levels in an entry": ONE % (ENTRY % (',"x":' + "[" * 123 + "]" * 123)),
    "124 levels in an entry": ONE % (ENTRY % (',"x":' + "[" * 124 + "]" * 124)),
    "125 levels in an entry": ONE % (ENTRY % (',"x":' + "[" * 125 + "]" * 125)),
    "126 levels in an entry": ONE % (ENTRY % (',"x":' + "[" * 126 + "]" * 126)),
    "a million levels": ONE % (ENTRY % (',"x":' + "[" * 1000000)),
}
BROKEN_UTF8 = [b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xe2\x82", b"\x80", b"\xfe"]
WHOLE_UTF8 = ["é", "\ufffe", "\uffff", "\U0010ffff", "\u2028", "\x7f"]


def cases(folder):
    return json.loads((folder / "safetensors_cases.json").read_text())["cases"]


def check(tmp_path, raw, expected):
    """expected: {name: (dtype, shape, bytes)}, or None for "refused"."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    for copy in (0, 1):
        got = contents(path, copy)
        if expected is None:
            assert isinstance(got, Exception), got
            assert got.name in ("MALFORMED", "TRUNCATED", "LIMIT", "OVERFLOW") and str(path)[-20:] in got.text and "\n" not in got.text
        else:
            assert got == expected
    return got


def test_golden_cases(golden, tmp_path):
    found = cases(golden)
    assert len(found) == 53 and STRICTER_CASES <= set(found)
    for name, case in found.items():
        expected = None
        if case["accept"] and name not in STRICTER_CASES:
            expected = {n: (dtype, shape, base64.b64decode(data)) for n, (dtype, shape, data) in case["tensors"].items()}
        check(tmp_path, base64.b64decode(case["file"]), expected)


@pytest.mark.parametrize("name", sorted(STRICTER_CASES))
def test_stricter_golden_cases_say_why(golden, tmp_path, name):
    error = check(tmp_path, base64.b64decode(cases(golden)[name]["file"]), None)
    assert error.name == "MALFORMED" and ("NUL" if name == "nul_in_name" else "twice") in error.text


@pytest.mark.parametrize("header", STRICTER.values(), ids=STRICTER)
def test_stricter(tmp_path, header):
    raw = blob(header, b"abcd")
    assert reference(raw) is not None, "the library no longer accepts this: no difference any more"
    check(tmp_path, raw, None)


@pytest.mark.parametrize("header", ALIKE.values(), ids=ALIKE)
def test_alike(tmp_path, header):
    raw = blob(header, b"abcd")
    check(tmp_path, raw, reference(raw))


def test_alike_holds_both_verdicts():
    accepted = [name for name, header in ALIKE.items() if reference(blob(header, b"abcd")) is not None]
    assert 6 < len(accepted) < len(ALIKE) - 30


@pytest.mark.parametrize("letters", BROKEN_UTF8)
def test_broken_utf8(tmp_path, letters):
    for header in (b'{"a%s":%s}' % (letters, (ENTRY % "").encode()), b'{"a":%s}' % (ENTRY % ',"x":"?"').encode().replace(b"?", letters),
                   b'{"__metadata__":{"k":"%s"},"a":%s}' % (letters, (ENTRY % "").encode()), (ONE % (ENTRY % "")).encode() + letters):
        raw = blob(header, b"abcd")
        assert reference(raw) is None
        check(tmp_path, raw, None)


@pytest.mark.parametrize("letters", WHOLE_UTF8)
def test_whole_utf8(tmp_path, letters):
    raw = blob('{"%s":%s}' % (letters, ENTRY % ""), b"abcd")
    assert check(tmp_path, raw, reference(raw)) == {letters: ("U8", [4], b"abcd")}


def test_every_short_file(tmp_path):
    """A good file cut at every byte, and one byte longer."""
    raw = blob('{"__metadata__":{"k":"v"},"a":%s,"b":{"dtype":"F32","shape":[],"data_offsets":[4,8]}}' % (ENTRY % ""), b"abcdefgh")
    check(tmp_path, raw, reference(raw))
    for length in range(len(raw)):
        assert reference(raw[:length]) is None
        check(tmp_path, raw[:length], None)
    check(tmp_path, raw + b"x", None)


def test_every_byte_changed(tmp_path):
    """A good file with each byte of its length and header replaced by a few others: the library's verdict."""
    raw = blob('{"__metadata__":{"k":"v"},"a":%s,"b":{"dtype":"F32","shape":[1,1],"data_offsets":[4,8]}}' % (ENTRY % ""), b"abcdefgh")
    seen = set()
    for at in range(len(raw) - 8):
        for letter in b'\0\x01 "\\,:{}[]0-9ab\x80\xff':
            changed = raw[:at] + bytes([letter]) + raw[at + 1:]
            expected = reference(changed)
            names = (b'"a":', b'"b":')
            if expected is not None and (b"-0" in changed or any(changed.count(n) != 1 for n in names)):
                continue                                            # a duplicate name, or minus zero: stricter
            seen.add(expected is None)
            path = tmp_path / "model.safetensors"
            path.write_bytes(changed)
            got = contents(path)
            assert isinstance(got, Exception) if expected is None else got == expected, (changed, expected, got)
    assert seen == {True, False}
