# SPDX-License-Identifier: Apache-2.0
"""Every instruction set gives the reference's bits: codes, scales, zero points, reports, dequantized values."""
import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from core.codes import CODEBOOKS      # noqa: E402

# What /proc/cpuinfo must say for a level to be there.
AVX2, AVX512 = {"avx2", "f16c", "fma"}, {"avx2", "avx512f", "avx512bw", "avx512vl", "avx512dq"}
LEVELS = {"generic": set(), "avx2": AVX2, "avx_vnni": AVX2 | {"avx_vnni"}, "avx512": AVX512, "avx512_vnni": AVX512 | {"avx512_vnni"},
          "avx512_vbmi": AVX512 | {"avx512_vnni", "avx512vbmi"},
          "amx_int8": AVX512 | {"avx512_vnni", "avx512vbmi", "amx_tile", "amx_int8"},
          "amx_bf16": AVX512 | {"avx512_vnni", "avx512vbmi", "amx_tile", "amx_int8", "amx_bf16"}}
# Those with kernels of casts; the others have products alone (tests/ops/test_integer_products.py).
CASTING = [level for level in LEVELS if any(Path(__file__).parents[2].joinpath("src/cpu", level, name).exists() for name in ("encode.c", "tables.c"))]
MX = [f"{name}{',' if ':' in name else ':'}rule={rule},partial=1" for name in
      ("mxfp8", "mxfp8:format=e5m2", "mxfp6-e3m2", "mxfp6-e2m3", "mxfp4", "mxint8") for rule in ("rceil", "floor", "ceil", "even")
      if (name, rule) != ("mxint8", "even")]
RECIPES = [
    "fp8", "fp8:format=e5m2", "fp8:pow2=1", "fp8:arith=div", "fp8-delayed:margin=2", "fp8-row", "fp8-row:format=e4m3fnuz",
    "fp8-row:format=e5m2fnuz", "fp8-block:partial=1", "fp8-block:arith=te,pow2=1,partial=1", "fp8-block:arith=deepgemm,partial=1",
    "fp8-block128:partial=1", "fp8-block128:scale=e8m0,partial=1", "fp8-block128:scale=bf16,partial=1", *MX, "nvfp4:partial=1",
    "nvfp4:levels=1,partial=1", "nvfp4:arith=div,partial=1", "nvfp4:block=16x16,partial=1", "int8", "int8:block=tensor",
    "int8:group=32,rule=minmax,partial=1", "int8:block=tensor,rule=minmax", "int8:format=uint8,rule=minmax,arith=recip",
    "int4:partial=1", "int4:rule=minmax,group=32,partial=1", "int4:format=uint4,rule=minmax,group=32,partial=1,arith=recip",
    "int4:arith=recip,group=32,partial=1", "int4:rule=noclip,partial=1", "int4:scale=bf16,partial=1",
    *(f"int4:format=int{bits},group=32,partial=1" for bits in (2, 3, 5, 6, 7)),
    *(f"custom:format={book},partial=1,{rest}" for book in ("nf4", "iq4_nl") for rest in
      ("block=1x64,scale=f32", "block=1x32,scale=f16", "block=1x10,scale=bf16,arith=recip", "block=1x32,scale=e8m0,rule=rceil")),
    "custom:format=nf4,block=tensor", "custom:format=nf4,block=16x16,scale=f16,partial=1", "custom:format=nf4,levels=2,scale=e4m3,block=1x16,partial=1",
    "custom:format=e4m3,scale=e4m3,block=1x16,partial=1", "custom:format=e2m1,block=expert", "custom:format=int4,block=5x7,partial=1",
    *(f"{name}:partial=1" for name in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl")),
    "iq4_nl:group=24,partial=1", "iq4_nl:group=256,partial=1", "iq4_nl:group=2,partial=1", "nvfp4:arith=ct,partial=1", "nvfp4:arith=modelopt,partial=1", "nvfp4:levels=1,arith=ct,partial=1", "mxfp4:rule=even,arith=ct,partial=1",
    "mxfp8:rule=even,arith=ct,partial=1", "nvfp4:levels=1,arith=mlx,partial=1", "int4:arith=modelopt,partial=1", "fp8-block128:arith=ct,partial=1",
    "int8:arith=modelopt", "mxfp4:rule=floor,arith=ggml,partial=1", "mxfp4:rule=floor,arith=ggml,group=10,partial=1",
    "nvfp4:levels=1,arith=ggml,partial=1", "nvfp4:levels=1,arith=ggml,group=64,partial=1", "nvfp4:levels=1,arith=modelopt,partial=1",
    "nvfp4:levels=1,arith=div,partial=1", "custom:format=e4m3,scale=e4m3,block=1x16,arith=deepgemm,partial=1", "nvfp4:format=e4m3,arith=ct,partial=1", "mxfp6-e2m3:rule=even,arith=ct,partial=1", "mxfp4:arith=mlx,partial=1", "mxfp8:arith=mlx,partial=1", "mxfp4:arith=modelopt,partial=1",
    *(f"int4:format=uint{bits},group={group},scale={scale},rule=minmax,arith=mlx,partial=1" for bits, group, scale in
      ((4, 64, "f16"), (8, 32, "bf16"), (3, 128, "f32"), (4, 32, "f32"))),
]
# Results of 4 MiB and more are written past the caches; sources that are tensors are read a piece at a time.
LARGE = ("fp8", "fp8-delayed", "fp8-block128:partial=1", "mxfp8:partial=1", "mxfp4:partial=1", "int8", "int4:partial=1", "q8_0:partial=1", "nvfp4:partial=1",
         "custom:format=nf4,block=1x64,scale=f32,partial=1", "nvfp4:levels=1,arith=ggml,partial=1")
PAIRS = (("fp8", "mxfp4:partial=1"), ("int4:partial=1", "fp8-block128:partial=1"), ("q4_0:partial=1", "q8_0:partial=1"),
         ("fp8-block128:partial=1", "fp8"), ("mxfp8:partial=1", "int4:group=32,rule=minmax,partial=1"), ("nvfp4:partial=1", "int8"))
SHAPES = ((64, 512), (33, 200), (3, 40, 72), (2, 2, 130, 150), (7, 5), (1, 8192), (300,), (0, 32), (4, 0), (3, 4097))


def inputs():
    """{name: float32 array}: wide magnitudes, zeros, subnormals, NaN and infinity, strides, no elements."""
    random, made = np.random.default_rng(1), {}
    for shape in SHAPES:
        x = random.standard_normal(shape).astype(np.float32) * np.exp2(random.integers(-30, 30, shape[:-1] + (1,))).astype(np.float32)
        if x.size > 100:
            flat = x.reshape(-1)
            flat[::97], flat[5:37], flat[61] = 0, 0, -0.0
            flat[40:60] *= np.float32(1e-38)
        made[str(shape)] = x
    odd = made["(33, 200)"].copy()
    odd[3, 7], odd[5, 100], odd[10] = np.nan, np.inf, 3e38
    odd[9] *= np.float32(1e-40)
    wide = made["(64, 512)"]
    sided = np.abs(wide) + np.float32(0.5)        # blocks above 0, from it on, below it, and of nothing else
    sided[8:16, ::40], sided[16:32], sided[32:40, 3::64], sided[40:42], sided[41, ::3] = 0, -sided[16:32], -0.0, -0.0, 0
    return {**made, "middles": middles(random), "non-finite": odd, "one side": sided, "by columns": np.asfortranarray(wide), "slice": wide[1::2, 3:403]}


def middles(random):
    """Middles between values, their neighbours, and values, in blocks of 64 whose scales are known: E2M1 by scales of 4 bits (of 6 over E8M0,
    too), NF4 by any, and IQ4_NL's under a peak that one of its tries makes an end."""
    books = (np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6]), CODEBOOKS["nf4"], CODEBOOKS["iq4_nl"])
    rows = []
    for number in range(96):
        book = books[number % 3]
        scale = (random.integers(8, 16) / 8 * 2.0 ** random.integers(-12, 9), random.uniform(1e-3, 50), 2.0 ** random.integers(-9, 9))[number % 3]
        some = np.concatenate([(book[1:] + book[:-1]) / 2, book]).astype(np.float32) * np.float32(scale)
        some = np.nextafter(random.choice(some, 512), np.float32(random.choice([-np.inf, 0, np.inf], 512))).astype(np.float32)
        some[::2] = (random.choice(np.concatenate([(book[1:] + book[:-1]) / 2, book]), 256) * np.float32(scale)).astype(np.float32)
        if number % 3 == 0:
            some *= random.choice(np.float32([-1, 1]), 512)
        some[::16] = np.abs(book).max() * np.float32(scale) * (1, 1, -1)[number % 3]
        rows.append(some)
    return np.array(rows)


def digest(x):
    return "-" if x is None else hashlib.md5(np.ascontiguousarray(x).tobytes()).hexdigest()[:12]


def lines(brc):
    yield brc.ffi.string(brc.lib.brc_isa()).decode()
    for name, x in inputs().items():
        for dtype in (np.float32, np.float16, ml_dtypes.bfloat16, np.float64):
            with np.errstate(over="ignore"):
                source = x.astype(dtype) if dtype != np.float32 else x
            for number, recipe in enumerate(RECIPES):
                t = brc.cast(source, recipe, threads=1 + number % 3)
                outs = (np.float32, ml_dtypes.bfloat16, np.float16) if dtype == np.float32 else ()       # codes do not tell what they were made of
                values = [brc.dequantize(t, out, threads=1 + number % 2) for out in outs]
                yield " ".join(map(str, (name, np.dtype(dtype), recipe, *map(digest, (t.data, t.scale, t.zero, t.globals)),
                                         t.report.nan, t.report.infinite, t.report.amax, *map(digest, values))))


def lines_of_large(brc):
    random = np.random.default_rng(2)
    x = random.standard_normal((1030, 4224), dtype=np.float32) * np.exp2(random.integers(-12, 12, (1030, 1))).astype(np.float32)
    x[::7, ::3] *= -0.0
    for recipe in LARGE:
        for dtype in (np.float32, ml_dtypes.bfloat16):
            some = x if dtype == np.float32 else x[:, :4104]      # rows that begin at lines, whose codes go past the caches, and others
            t = brc.cast(some.astype(dtype), recipe)
            outs = (np.float32, ml_dtypes.bfloat16, np.float16) if dtype == np.float32 else ()
            yield " ".join(map(str, ("large", np.dtype(dtype), recipe, *map(digest, (t.data, t.scale, t.globals)), t.report.amax,
                                     *(digest(brc.dequantize(t, out)) for out in outs))))
    for odd in ((), (np.nan, np.inf, -np.inf)):      # the reference's, amid what is done in one pass
        x[[200, 777, 778][:len(odd)], [700, 4100, 64][:len(odd)]] = odd
        for recipe, dtype in (("mxfp8:partial=1", np.float32), ("fp8-delayed", np.float32), ("fp8-block128:partial=1", ml_dtypes.bfloat16)):
            t = brc.cast(x.astype(dtype), recipe, brc.delayed_state() if "delayed" in recipe else brc.ffi.NULL)
            yield " ".join(map(str, ("large, in one pass", recipe, *map(digest, (t.data, t.scale)), t.report.nan, t.report.infinite, t.report.amax)))


def lines_of_tails(brc):
    """BF16 blocks of many rows whose last column is shorter: what is measured ahead is that of blocks as long."""
    random = np.random.default_rng(4)
    for shape, recipe in (((400, 192), "fp8-block128:partial=1"), ((3, 400, 192), "fp8-block128:partial=1"), ((1536, 576), "custom:format=e4m3,scale=f32,block=512x128,partial=1")):
        x = random.standard_normal(shape).astype(np.float32)
        x[..., 64:128] *= 50
        for odd in (1.0, 1000.0, np.nan):
            x[..., 200, 100] = odd
            for threads in (1, 3):
                t = brc.cast(x.astype(ml_dtypes.bfloat16), recipe, threads=threads)
                yield " ".join(map(str, ("tails", shape, recipe, odd, *map(digest, (t.data, t.scale)), t.report.nan, t.report.amax)))


def lines_of_tables(brc):
    """BF16 that share a scale by thousands, which is where tables come in: every number of a magnitude up to some largest one, in every
    binade, with zeros and without; and every code by many scales, back to BF16."""
    every = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16).astype(np.float32)
    finite = every[np.isfinite(every)]
    random = np.random.default_rng(3)
    for exponent in range(-126, 128, 9):
        most = np.float32((1 + random.random()) * 2.0**exponent)
        for least in (0, most / 2**random.integers(4, 20)):
            some = finite[(np.abs(finite) <= most) & (np.abs(finite) >= least)]
            x = np.resize(random.permutation(some), (136, 384)).astype(ml_dtypes.bfloat16)
            for recipe in ("fp8-block128:partial=1", "fp8-block128:scale=bf16,partial=1", "fp8-block128:scale=e8m0,partial=1", "fp8-block128:partial=1,format=e5m2",
                           "custom:format=e4m3,block=64x64,scale=f16,partial=1"):
                t = brc.cast(x, recipe)
                yield " ".join(map(str, ("tables", exponent, least, recipe, *map(digest, (t.data, t.scale)), t.report.amax,
                                         digest(brc.dequantize(t, ml_dtypes.bfloat16)))))
    for number, format in enumerate(("e4m3", "e5m2", "e4m3fnuz")):
        codes = np.resize(np.arange(256, dtype=np.uint8), (160, 300))
        codes[random.random(codes.shape) < 0.99] &= 0x77          # in most pieces all are finite
        scale = np.exp2(random.uniform(-140, 127, (2, 3))).astype(np.float32)
        scale[0, 1], scale[1, 1] = -scale[0, 1], (0, np.inf, np.nan)[number]
        t = brc.tensor(format, codes.shape, codes, scale=(scale, "f32", (1, 128, 128)), layout="per_block_mn")
        yield f"codes {format} {digest(brc.dequantize(t, ml_dtypes.bfloat16))}"
    for format, block, largest in (("e4m3", 16, 1), ("e4m3", 16, 1e-37), ("e4m3", 16, -1e37), ("e8m0", 32, 1), ("e8m0", 32, 2**100)):
        scale = np.tile(np.arange(256, dtype=np.uint8), (4, 1))   # every scale, and rows of ordinary ones alone
        scale[1:3] = random.integers(40, 60, (2, 256))
        scale[2, 37] = 255                                        # NaN, in the middle
        codes = random.integers(0, 256, (4, 128 * block), dtype=np.uint8)
        t = brc.tensor("e2m1", (4, 256 * block), codes, scale=(scale, format, (1, 1, block)), layout="per_block_k",
                       globals=None if largest == 1 else (np.float32([largest]), "f32", (0, 0, 0)))
        yield f"scales {format} {largest} {digest(brc.dequantize(t))}"


def lines_of_pairs(brc):
    for name, x in inputs().items():
        for number, (first, second) in enumerate(PAIRS):
            if x.ndim < 2:
                continue
            t = brc.requantize(brc.cast(x, first), second, threads=1 + number % 3)
            yield " ".join(map(str, (name, first, second, t.path, *map(digest, (t.data, t.scale, t.zero, t.globals)))))


def run(level, *words):
    done = subprocess.run([sys.executable, __file__, *words], env={**os.environ, "BRECCIA_ISA": level}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def processor():
    """Flags of the processor, as Linux tells them."""
    found = [line for line in open("/proc/cpuinfo") if line.startswith("flags")]
    return set(found[0].split()) if found else set()


def test_unknown_levels_change_nothing():
    best = [level for level in LEVELS if LEVELS[level] <= processor()][-1]
    for word in ("", "avx99", best.upper()):
        assert run(word, "name") == [best]


@pytest.fixture(scope="module")
def reference():
    found = run("reference")
    assert found[0] == "reference" and len(found) > 2000
    return found


@pytest.mark.parametrize("level", CASTING)
def test_same_bits(reference, level):
    found = run(level)
    if found[0] != level:
        assert not LEVELS[level] <= processor(), f"this processor has {level}, but {found[0]} was chosen"
        pytest.skip(f"this processor has no {level}")
    different = [f"{a}\n{b}" for a, b in zip(reference[1:], found[1:], strict=True) if a != b]
    assert not different, f"{len(different)} cases differ:\n" + "\n".join(different[:4])


if __name__ == "__main__":
    import breccia_c
    wanted = itertools.chain(lines(breccia_c), lines_of_large(breccia_c), lines_of_tails(breccia_c), lines_of_tables(breccia_c), lines_of_pairs(breccia_c))
    print(next(wanted) if sys.argv[1:] == ["name"] else "\n".join(wanted))
