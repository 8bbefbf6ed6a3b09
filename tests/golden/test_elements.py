# SPDX-License-Identifier: Apache-2.0
"""Every code decoded, and the probing inputs encoded, as ml_dtypes, PyTorch and torchao do."""
import numpy as np
import pytest
from golden_files import load, one_nan, same

DECODE = {"float8_e4m3fn": "e4m3", "float8_e5m2": "e5m2", "float8_e4m3fnuz": "e4m3fnuz", "float8_e5m2fnuz": "e5m2fnuz",
          "float8_e8m0fnu": "e8m0", "float6_e2m3fn": "e2m3", "float6_e3m2fn": "e3m2", "float4_e2m1fn": "e2m1"}


def codes_of(brc, format, x):
    """One code a byte."""
    return np.array([brc.encode(format, [v])[0] for v in x], np.uint8)


@pytest.mark.parametrize("theirs, ours", DECODE.items())
def test_decode(brc, golden, theirs, ours):
    want = load(golden / "elem_decode.safetensors")["decode." + theirs]
    got = np.array([brc.decode(ours, np.array([code], np.uint8), 1)[0] for code in range(want.size)], np.float32)
    same(got, want, ours)


@pytest.mark.parametrize("theirs", [n for n in DECODE if n != "float8_e8m0fnu"])
def test_encode(brc, golden, theirs):
    file, ours = load(golden / "elem_encode.safetensors"), DECODE[theirs]
    x = file[theirs + ".x"]
    got = codes_of(brc, ours, x)
    if theirs in ("float8_e4m3fn", "float8_e5m2"):
        same(one_nan(got, ours), one_nan(file[theirs + ".clamped"], ours), ours)
    elif "fnuz" in theirs:                          # the libraries overflow to NaN; breccia saturates (design: elements)
        largest = brc.lib.brc_format_get(brc.format_of(ours)).max
        clamped = np.where(np.isnan(x), x, np.clip(x, -largest, largest))
        import ml_dtypes
        same(got, clamped.astype(getattr(ml_dtypes, theirs)).view(np.uint8), ours)
        inside = np.abs(x) <= largest
        same(got[inside], file[theirs + ".torch"][inside], ours)
        same(got[inside], file[theirs + ".ml_dtypes"][inside], ours)
    else:
        number = ~np.isnan(x)                       # no NaN in fp6 and fp4: breccia gives +0, ml_dtypes -0
        same(got[number], file[theirs + ".ml_dtypes"][number], ours)
        same(got[number], file[theirs + ".torchao"][number], ours)
        assert (got[~number] == 0).all()


def test_encode_e8m0(brc, golden):
    file = load(golden / "elem_encode.safetensors")
    x, want = file["float8_e8m0fnu.x"], file["float8_e8m0fnu.torch"]
    got = codes_of(brc, "e8m0", x)
    over = (want == 255) & ~np.isnan(x)             # the libraries overflow to NaN; breccia saturates to 2^127
    same(got[~over], want[~over])
    assert over.any() and (got[over] == 254).all()
