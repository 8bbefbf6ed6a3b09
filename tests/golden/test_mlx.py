# SPDX-License-Identifier: Apache-2.0
"""Recipes with arith=mlx are MLX's bytes: the golden ones, and the library itself on the CPU."""
import ml_dtypes
import mlx.core as mx
import numpy as np
import pytest
from golden_files import load, same

F = np.float32
DTYPES = {"f32": (mx.float32, F), "bf16": (mx.bfloat16, ml_dtypes.bfloat16), "f16": (mx.float16, np.float16)}
MODES = {"mxfp4": "mxfp4:arith=mlx", "mxfp8": "mxfp8:arith=mlx", "nvfp4": "nvfp4:levels=1,arith=mlx"}
AFFINE = [(g, b) for g in (32, 64, 128) for b in (2, 3, 4, 5, 6, 8)]


def affine(group, bits, scale):
    return f"int4:format=uint{bits},group={group},scale={scale},rule=minmax,arith=mlx"


def numpy(a):
    return np.array(a.view(mx.uint16)).view(ml_dtypes.bfloat16) if a.dtype == mx.bfloat16 else np.array(a)


def numbers():
    """Rows of many magnitudes, ties, equal and zero blocks, one sign, powers of two and their neighbours; within half precision."""
    r = np.random.default_rng(9)
    x = (r.standard_normal((128, 1024)) * np.exp2(r.integers(-6, 8, (128, 1)))).astype(F)
    x[0], x[1, ::2], x[2], x[3], x[4] = 0, -0.0, 0.5, -1.75, np.abs(x[4])
    x[5] = -np.abs(x[5])
    x[6] = np.resize([6, 5, 3.5, 2.5, 1.75, 1.25, 0.75, 0.25, -6, -5, -3.5, -2.5, -1.75, -1.25, -0.75, -0.25], 1024)
    x[7] = np.resize([448, -17, 17, 18, -18, 19, 0.001, 1.0625, 1.1875, 232, -2**-9, 2**-9], 1024)
    x[8] = np.resize([1, -1e-3, 1e-3, -0.0], 1024)
    x[9] = np.exp2(r.integers(-12, 5, 1024))
    x[10:40] = np.round(x[10:40] * 4) / 4
    x[40:60] = r.integers(-24, 25, (20, 1024)) / 4
    x[60:70] = r.integers(-448 * 8, 448 * 8, (10, 1024)) / 8
    for i in range(70, 92):
        top = F(2.0 ** (i - 85)) * F([6, 448][i % 2])
        x[i] = 0
        x[i, ::64], x[i, 16::64], x[i, 32::64], x[i, 48::64] = np.nextafter(top, F(0)), top, np.nextafter(top, F(np.inf)), F(1.5) * top
    return x


@pytest.fixture(autouse=True)
def cpu():
    """The CPU back end is what is equal; mlx[cpu] has no other."""
    with mx.stream(mx.cpu):
        yield


def cast(brc, x, recipe):
    t = brc.cast(x, recipe)
    table = lambda a: np.array(a).reshape(x.shape[0], -1)         # copies: the tensor goes when this returns
    return np.array(t.data.view(np.uint8)), table(t.scale), None if t.zero is None else table(t.zero)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
def test_modes_of_floats_live(brc, mode, dtype):
    theirs, ours = DTYPES[dtype]
    x = numbers().astype(ours)
    x[np.abs(x.astype(F)).max(-1) > 2600] = 0       # amax over 448 * 6: see the next test
    if dtype == "f16":
        x[np.abs(x.astype(F)).max(-1) < 2.0**-5] = 0        # MLX divides in half precision there, below its normal numbers
    codes, scale = (numpy(a) for a in mx.quantize(mx.array(x.astype(F)).astype(theirs), mode=mode))
    data, s, _ = cast(brc, x, MODES[mode])
    same(s.view(np.uint8), scale, "scale")
    same(data, codes.view(np.uint8), "codes")


def test_what_overflows_saturates_here(brc):
    """MLX's NVFP4 above 448 * 6: of elements that are equally far in float32 it takes the first, 0."""
    x = np.full((2, 32), 1e30, F)
    codes, scale = (np.array(a) for a in mx.quantize(mx.array(x), mode="nvfp4"))
    data, s, _ = cast(brc, x, MODES["nvfp4"])
    same(s.view(np.uint8), scale)
    assert (codes.view(np.uint8) == 0).all() and (data == 0x77).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group, bits", AFFINE)
def test_affine_live(brc, group, bits, dtype):
    theirs, ours = DTYPES[dtype]
    x = numbers().astype(ours)
    codes, scale, bias = (numpy(a) for a in mx.quantize(mx.array(x.astype(F)).astype(theirs), mode="affine", group_size=group, bits=bits))
    data, s, z = cast(brc, x, affine(group, bits, dtype))
    same(data, codes.view(np.uint8), "codes")
    same(s, scale, "scale")
    same(z.astype(F) + F(0), bias.astype(F) + F(0), "bias")


def test_golden(brc, golden):
    g = load(golden / "mlx.safetensors")
    for tag in ("mxfp4", "mxfp8", "nvfp4", "affine4_g32", "affine3_g64", "affine8_g64"):
        recipe = MODES.get(tag) or affine(int(tag.split("_g")[1]), int(tag[6]), "f32")
        data, s, z = cast(brc, g["x"], recipe)
        same(data, g[tag + ".data"].view(np.uint8), tag)
        same(s if tag not in MODES else s.view(np.uint8), g[tag + ".scale"], tag)
        if z is not None:
            same(z + F(0), g[tag + ".bias"] + F(0), tag)
