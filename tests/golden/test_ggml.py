# SPDX-License-Identifier: Apache-2.0
"""ggml's arithmetic: the golden blocks, gguf-py live, and the C library itself, bit for bit."""
import ggml_c
import golden_files
import numpy as np
import pytest
from core.codes import unpack
from gguf import GGMLQuantizationType as Type
from gguf import quants

F = np.float32
RECIPES = {"Q4_0": "q4_0", "Q4_1": "q4_1", "Q5_0": "q5_0", "Q5_1": "q5_1", "Q8_0": "q8_0", "IQ4_NL": "iq4_nl",
           "MXFP4": "mxfp4:rule=floor,arith=ggml", "NVFP4": "nvfp4:levels=1,arith=ggml"}
ELEMENTS = {"Q4_0": "int4", "Q4_1": "uint4", "Q5_0": "int5", "Q5_1": "uint5", "Q8_0": "int8", "IQ4_NL": "iq4_nl", "MXFP4": "e2m1", "NVFP4": "e2m1"}
PYTHON = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"]                      # those that gguf-py encodes


def blocks(t, word):
    """The bytes of a cast tensor's blocks, put together here."""
    rows, n = t.data.view(np.uint8).reshape(-1, t.data.shape[-1]), t.shape[-1]
    codes = unpack(ELEMENTS[word], rows, n)
    numbers = 64 if word == "NVFP4" else 32
    codes = codes.reshape(-1, numbers)
    scale = np.ascontiguousarray(t.scale).view(np.uint8).reshape(len(codes), -1)
    zero = np.empty((len(codes), 0), np.uint8) if t.zero is None else np.ascontiguousarray(t.zero).view(np.uint8).reshape(len(codes), -1)
    if word == "Q8_0":
        return np.concatenate([scale, codes], 1).reshape(len(rows), -1)
    codes = codes ^ {"Q4_0": 8, "Q5_0": 16}.get(word, 0)
    high = np.packbits(codes >> 4, axis=1, bitorder="little") if word.startswith("Q5") else np.empty((len(codes), 0), np.uint8)
    groups = (codes & 15).reshape(len(codes), -1, 16 if word == "NVFP4" else 32)
    half = groups.shape[-1] // 2
    nibbles = (groups[..., :half] | groups[..., half:] << 4).reshape(len(codes), -1)
    return np.concatenate([scale, zero, high, nibbles], 1).reshape(len(rows), -1)


def numbers():
    """Rows of many magnitudes, ties, equal and zero blocks, both signs first; within half precision."""
    r = np.random.default_rng(7)
    x = (r.standard_normal((96, 1024)) * np.exp2(r.integers(-22, 13, (96, 1)))).astype(F)
    x[1] = np.rint(x[1])
    x[2] = np.rint(x[2] * 4) / 4
    x[3], x[4, ::3], x[5], x[6] = 0, 0, -1.75, 0.3
    x[7] = np.repeat(x[7, ::32], 32)
    x[8, 5::32] = -x[8, 9::32]                                                  # two of the largest magnitude
    x[9] = np.tile(np.arange(-16, 16, dtype=F), 32)
    x[10] = np.tile([0.5, -0.5, 1, -1, 2.5, -2.5, 6, -6], 128)
    x[11] = np.abs(x[11])
    x[12] = -np.abs(x[12])
    x[13] = x[13] * F(2.0**-110)
    return x + F(0)                                                             # without -0: see the last test


@pytest.mark.parametrize("word", PYTHON)
def test_golden_blocks(brc, golden, word):
    g = golden_files.load(golden / "gguf_ref.safetensors")
    got, want = blocks(brc.cast(g["x"], RECIPES[word]), word), g[f"{word.lower()}.raw"]
    if word.endswith("_1"):         # a minimum of 0 is the first of 0 and -0 in ggml; NumPy takes either
        size = ggml_c.SIZES[word][1]
        got, want = got.reshape(-1, size).copy(), want.reshape(-1, size).copy()
        for raw in (got, want):
            raw[(raw[:, 2] == 0) & (raw[:, 3] == 0x80), 3] = 0
    assert np.array_equal(got, want)


@pytest.mark.parametrize("word", PYTHON)
def test_gguf_py(brc, word):
    x = numbers()
    assert np.array_equal(blocks(brc.cast(x, RECIPES[word]), word), quants.quantize(x, Type[word]))


@pytest.mark.parametrize("word", RECIPES)
def test_ggml(brc, word):
    x = numbers()
    got, want = blocks(brc.cast(x, RECIPES[word]), word), ggml_c.quantize(x, word)
    if word == "IQ4_NL":            # ggml leaves the codes of a block of zeros as they were: its values are 0
        zeros = (want.reshape(len(x), -1, 18)[..., :2] == 0).all(-1)
        assert (got.reshape(len(x), -1, 18)[zeros][..., :2] == 0).all() and 0 < zeros.sum() < 400
        got, want = (np.where(zeros[..., None], 0, a.reshape(len(x), -1, 18)) for a in (got, want))
    assert np.array_equal(got, want)


def test_golden_scales_of_nvfp4(brc, golden):
    """fp32_to_ue4m3 over its range: a block whose largest number is 6 times the scale asked for."""
    g = golden_files.load(golden / "gguf_ref.safetensors")
    scale, codes = g["ue4m3_encode.x"], g["ue4m3_encode.code"]
    x = np.zeros((len(scale), 16), F)
    x[:, 3] = scale * F(6)
    exact = x[:, 3] / F(6) == scale
    assert exact.mean() > 0.9 and np.array_equal(brc.cast(x, RECIPES["NVFP4"]).scale.view(np.uint8)[..., 0].ravel()[exact], codes[exact])


def test_where_breccia_differs(brc):
    """What overflows in ggml saturates, exponents of MXFP4 do not wrap around, and come from the bits (docs/numerics.md)."""
    big = np.full((1, 32), 3e38, F)
    for word in ("Q4_0", "Q4_1", "Q8_0"):
        t = brc.cast(big, RECIPES[word])
        assert np.isinf(ggml_c.dequantize(ggml_c.quantize(big, word), word)).any() or np.isnan(ggml_c.dequantize(ggml_c.quantize(big, word), word)).any()
        assert np.isfinite(brc.dequantize(t)).all()
    tiny = np.full((1, 32), 2.0**-130, F)
    assert ggml_c.quantize(tiny, "MXFP4")[0, 0] == 0xFB and brc.cast(tiny, RECIPES["MXFP4"]).scale.ravel() == [0]
    below = np.full((1, 32), np.nextafter(F(1024), F(0)), F)
    assert ggml_c.quantize(below, "MXFP4")[0, 0] == 135 and brc.cast(below, RECIPES["MXFP4"]).scale.ravel() == [134]
    zeros = np.full((1, 32), -0.0, F)
    assert ggml_c.quantize(zeros, "Q4_0")[0, 1] == 0x80 == brc.cast(zeros, "q4_0").scale.view(np.uint8).ravel()[1]
    assert quants.quantize(zeros, Type.Q4_0)[0, 1] == 0
