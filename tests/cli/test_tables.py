# SPDX-License-Identifier: Apache-2.0
"""`formats` and `recipes` against ml_dtypes and the sizes of the published formats."""
import json

import ml_dtypes
import numpy as np
import pytest

FLOATS = {"f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16, "e4m3": ml_dtypes.float8_e4m3fn,
          "e5m2": ml_dtypes.float8_e5m2, "e4m3fnuz": ml_dtypes.float8_e4m3fnuz, "e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
          "e3m2": ml_dtypes.float6_e3m2fn, "e2m3": ml_dtypes.float6_e2m3fn, "e2m1": ml_dtypes.float4_e2m1fn}


@pytest.fixture(scope="module")
def formats(breccia):
    return {row["name"]: row for row in json.loads(breccia("formats", "--json").stdout)["formats"]}


@pytest.mark.parametrize("name", FLOATS)
def test_float_formats(formats, name):
    row, info = formats[name], ml_dtypes.finfo(FLOATS[name])
    assert (row["bits"], row["exponent_bits"], row["mantissa_bits"]) == (info.bits, info.nexp, info.nmant)
    assert row["max"] == float(info.max) and row["min"] == float(info.min)
    assert row["smallest"] == float(info.smallest_subnormal) and row["smallest_normal"] == float(info.smallest_normal)
    assert row["bias"] == 1 - int(np.log2(float(info.smallest_normal)))


@pytest.mark.parametrize("bits", range(2, 9))
def test_integer_formats(formats, bits):
    assert (formats[f"int{bits}"]["min"], formats[f"int{bits}"]["max"]) == (-2 ** (bits - 1), 2 ** (bits - 1) - 1)
    assert (formats[f"uint{bits}"]["min"], formats[f"uint{bits}"]["max"]) == (0, 2 ** bits - 1)


def test_text_has_every_format(breccia, formats):
    lines = breccia("formats").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(formats)


# Element bits, scale bits, numbers of a 4096x4096 matrix that share a scale, bits of what stands above.
SIZES = {"fp8-delayed": (8, 32, 4096**2, 0), "fp8": (8, 32, 4096**2, 0), "fp8-row": (8, 32, 4096, 0), "fp8-block": (8, 32, 128, 0),
         "fp8-block128": (8, 32, 128**2, 0), "mxfp8": (8, 8, 32, 0), "mxfp6-e3m2": (6, 8, 32, 0), "mxfp6-e2m3": (6, 8, 32, 0),
         "mxfp4": (4, 8, 32, 0), "mxint8": (8, 8, 32, 0), "nvfp4": (4, 8, 16, 32), "int8": (8, 32, 4096, 0), "int4": (4, 16, 128, 0),
         "q4_0": (4, 16, 32, 0), "q4_1": (4, 32, 32, 0), "q5_0": (5, 16, 32, 0), "q5_1": (5, 32, 32, 0), "q8_0": (8, 16, 32, 0), "iq4_nl": (4, 16, 32, 0)}


def test_recipes(breccia):
    printed = json.loads(breccia("recipes", "--json").stdout)
    rows = {row["name"]: row for row in printed["recipes"]}
    assert set(rows) == set(SIZES)
    for name, (element, scale, shared, above) in SIZES.items():
        assert rows[name]["bits_per_weight"] == element + scale / shared + above / 4096**2
    assert [line.split()[0] for line in breccia("recipes").stdout.splitlines()[1:len(rows) + 1]] == list(rows)
    assert len(printed["keys"]) > 5 and all(row["help"] for row in printed["keys"])
    assert len(printed["excludes"]) > 3 and all(row["why"] for row in printed["excludes"])
