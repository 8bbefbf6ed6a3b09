# SPDX-License-Identifier: Apache-2.0
"""Inputs that casts go wrong on."""
import numpy as np

F = np.float32
SHAPE = (2, 12, 96)


def magnitudes(rng, low, high):
    """Normal numbers whose size changes from row to row and along each row."""
    steps = 2.0 ** rng.uniform(low, high, (SHAPE[0], SHAPE[1], SHAPE[2] // 8))
    with np.errstate(over="ignore"):
        x = (rng.standard_normal(SHAPE) * np.repeat(steps, 8, -1)).astype(F)
    return np.where(np.isfinite(x), x, np.finfo(F).max)


def ordinary():
    rng = np.random.default_rng(11)
    x = magnitudes(rng, -8, 8)
    x[0, 1], x[0, 2, ::2] = 0, -0.0
    x[0, 3] = np.abs(x[0, 3])
    x[0, 4] = -np.abs(x[0, 4])
    return x


def ties():
    """Halves, quarters and three-quarters of a few steps; largest magnitudes at, just below and just above powers and format ends."""
    rng = np.random.default_rng(12)
    x = (rng.integers(-128, 129, SHAPE) / 2.0 ** rng.integers(0, 5, (2, 12, 1))).astype(F)
    tops = [448, 6, 28, 7.5, 57344, 127, 240, 1, 15, 127.5, 113, 2]
    for row, top in enumerate(tops):
        x[0, row, ::16] = top
        x[1, row, ::16] = np.nextafter(F(top * 2), F(np.inf if row % 2 else 0))
        x[:, row] *= F(2.0 ** (row % 3))
    return x


def extreme():
    """Finite: zeros, subnormals, FLT_MAX, everything between, in separate rows and mixed."""
    rng = np.random.default_rng(13)
    x = magnitudes(rng, -150, 127)
    bits = rng.integers(0, 1 << 32, SHAPE, np.uint64).astype(np.uint32)
    x[1] = np.where(np.isfinite(bits.view(F)), bits.view(F), F(1))[1]
    x[0, 0] = 0
    x[0, 1] = -0.0
    x[0, 2] = (bits[0, 2] & 0x807FFFFF).view(F)                             # subnormals
    x[0, 3] = np.where(bits[0, 3] & 1, F(1e-45), F(-1e-45))
    x[0, 4] = np.where(bits[0, 4] & 1, np.finfo(F).max, -np.finfo(F).max)
    x[0, 5] = np.finfo(F).max
    x[0, 6, ::7] = np.finfo(F).max
    x[0, 7, :48], x[0, 7, 48:] = F(2.0**-127), F(2.0**-126)
    x[0, 8] = np.where(bits[0, 8] & 1, F(3e38), F(1e-40))
    x[0, 9] = -np.abs(x[0, 9])
    x[0, 10] = F(1.1754942e-38)
    x[1, 0], x[1, 1, :32] = 0, F(448 * 2.0**-127)
    return x


def small():
    """All tiny, so that also one scale for the whole tensor is."""
    rng = np.random.default_rng(14)
    x = (rng.integers(0, 1 << 24, SHAPE).astype(np.uint32)).view(F) * rng.choice([-1, 1], SHAPE).astype(F)
    x[0, :3] = (rng.integers(0, 9, (3, 96)).astype(np.uint32)).view(F)
    return x


def nonfinite():
    x = ordinary()
    rng = np.random.default_rng(15)
    x[0, 5, 3], x[0, 6, ::5], x[0, 7] = np.nan, np.nan, np.nan
    x[1, 1, 7], x[1, 2, 40], x[1, 3, ::9] = np.inf, -np.inf, np.inf
    x[1, 4], x[1, 5] = np.inf, -np.inf
    x[1, 6, ::3], x[1, 6, 1::3] = np.inf, np.nan
    x[1, 7, ::2] = 0
    x[1, 7, 1] = np.inf
    x[1, 8] = np.where(rng.random(96) < 0.5, F(np.nan), F(3e38))
    signs = np.array(0xFFC00001, np.uint32).view(F)
    x[0, 8, 5] = signs
    return x


def nans():
    """NaN without infinity."""
    x = nonfinite()
    return np.where(np.isinf(x), F(1.5), x)


ALL = {f.__name__: f() for f in (ordinary, ties, extreme, small, nonfinite, nans)}
