# SPDX-License-Identifier: Apache-2.0
"""src/cuda/sass/pace.c on ELF files made here: which bits of which instructions it changes, and files that are broken.
The encodings are those that nvcc 13 writes and cuobjdump prints."""
import os
import pathlib
import random
import struct
import subprocess

import pytest

SOURCE = pathlib.Path(__file__).parents[2] / "src" / "cuda" / "sass" / "pace.c"
AS_COMPILED = 0x000FC2 << 40          # stall 1, yields
KEEP_FIRST, KEEP_SECOND, YIELDS_NOT = 1 << 58, 1 << 59, 1 << 45


@pytest.fixture(scope="module")
def pace(tmp_path_factory):
    program = tmp_path_factory.mktemp("pace") / "pace"
    subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover", str(SOURCE), "-o", str(program)], check=True)

    def run(data, path=program.parent / "kernels"):
        path.write_bytes(data)
        done = subprocess.run([str(program), str(path)], capture_output=True, text=True)
        assert "Sanitizer" not in done.stderr and done.returncode in (0, 1), done.stderr
        return done, path.read_bytes()
    return run


def ffma(d, a, b, c):
    return 0x7223 | d << 16 | a << 24 | b << 32, AS_COMPILED | c


def elf(code, section=b".text.kernel"):
    names = b"\0" + section + b"\0.names\0"
    text = b"".join(struct.pack("<QQ", *x) for x in code)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01", 2, 190, 1, 0, 0, 64 + len(text) + len(names), 0, 64, 0, 0, 64, 3, 2)
    sections = [(0,) * 10, (1, 1, 6, 0, 64, len(text), 0, 0, 16, 0), (len(section) + 2, 3, 0, 0, 64 + len(text), len(names), 0, 0, 1, 0)]
    return head + text + names + b"".join(struct.pack("<IIQQQQIIQQ", *s) for s in sections)


def high_words(data, count):
    return [struct.unpack_from("<QQ", data, 64 + 16 * i)[1] for i in range(count)]


def test_first_as_compiled():
    assert ffma(205, 210, 24, 205) == (0x00000018D2CD7223, 0x000FC200000000CD)


@pytest.mark.parametrize("keep, of", [(KEEP_FIRST, lambda i: ffma(100 + i, 7, 24 + i, 100 + i)), (KEEP_SECOND, lambda i: ffma(100 + i, 24 + i, 7, 100 + i))])
@pytest.mark.parametrize("count", [8, 9, 32])
def test_three_keep_the_scale_and_one_yields(pace, keep, of, count):
    code = [(0x7919, 5)] + [of(i) for i in range(count)] + [(0x7919, 6)]
    done, after = pace(elf(code))
    assert done.stdout == f"pace: {count} additions of 1 ELF files\n"
    want = [high | (0 if i % 4 == 3 or i == count - 1 else keep | YIELDS_NOT) for i, (_, high) in enumerate(code[1:-1])]
    assert high_words(after, len(code)) == [5, *want, 6]


@pytest.mark.parametrize("code", [
    [ffma(100 + i, 7, 24 + i, 100 + i) for i in range(7)],                   # too short a run
    [ffma(100 + i, 7, 24 + i, 99 + i) for i in range(16)],                   # adds to another register
    [ffma(100 + i, 7 + i, 24 + i, 100 + i) for i in range(16)],              # nothing in common
    [(0x7221 | (100 + i) << 16, 100 + i) for i in range(16)],                # FADD
    [(ffma(100 + i, 7, 24 + i, 100 + i)[0] ^ 0x7000, AS_COMPILED | 100 + i) for i in range(16)],      # under a predicate
    [ffma(7 if i % 4 == 3 else 100 + i, 7, 24 + i, 7 if i % 4 == 3 else 100 + i) for i in range(16)],     # every fourth changes the factor
])
def test_left_alone(pace, code):
    data = elf(code)
    assert pace(data)[1] == data


def test_other_sections_are_left_alone(pace):
    data = elf([ffma(100 + i, 7, 24 + i, 100 + i) for i in range(16)], b".nv.info.kernel")
    assert pace(data)[1] == data


def test_scales_in_turn_have_runs_of_their_own(pace):
    code = [ffma(100 + i, 7 + i // 8, 24 + i, 100 + i) for i in range(16)]
    high = high_words(pace(elf(code))[1], 16)
    assert [bool(x & KEEP_FIRST) for x in high] == [i % 4 != 3 for i in range(16)]


def test_a_scale_that_is_a_sum_ends_the_run(pace):
    code = [ffma(7 if i == 9 else 100 + i, 7, 24 + i, 7 if i == 9 else 100 + i) for i in range(20)]
    high = high_words(pace(elf(code))[1], 20)
    assert [bool(x & KEEP_FIRST) for x in high] == [n % 4 != 3 and n != 9 for n in range(10)] + [n % 4 != 3 and n != 9 for n in range(10)]


def test_inside_a_fatbin(pace):
    code = elf([ffma(100 + i, 7, 24 + i, 100 + i) for i in range(8)])
    done, after = pace(b"\0" * 72 + code + b"\0" * 8)
    assert done.returncode == 0 and after[72:-8] == pace(code)[1]


def test_broken_files_are_refused_and_left_as_they_are(pace):
    data = elf([ffma(100 + i, 7, 24 + i, 100 + i) for i in range(12)])
    for size in [0, 1, 63, 64, *range(65, len(data), 7)]:
        done, after = pace(data[:size])
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and after == data[:size]
    r = random.Random(1)
    for _ in range(150):                                      # headers and section tables of any content: never beyond the file
        bad = bytearray(data)
        for _ in range(r.randint(1, 4)):
            bad[r.choice([r.randrange(6, 64), r.randrange(len(data) - 192, len(data))])] = r.choice([0, 1, 127, 255, r.randrange(256)])
        done, after = pace(bytes(bad))
        assert done.returncode == 0 or after == bad
