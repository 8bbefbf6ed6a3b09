# SPDX-License-Identifier: Apache-2.0
"""TransformerEngine's own bytes, recorded on a GPU: per-tensor FP8 (delayed, current) and block scaling."""
import hashlib
import json

import ml_dtypes
import numpy as np
import pytest
from golden_files import load, same

ELEMENT = {"kFloat8E4M3": "e4m3", "kFloat8E5M2": "e5m2"}


@pytest.fixture(scope="module")
def te(golden):
    inputs = load(golden / "te" / "inputs.safetensors")
    for name in ("edge_128x512", "nonfinite_64x256"):           # not stored: rounded from the f32 ones (its README)
        inputs[name + "_bf16"] = inputs[name + "_f32"].astype(ml_dtypes.bfloat16)
    inputs["zeros_64x256_bf16"] = np.zeros((64, 256), ml_dtypes.bfloat16)

    def cases(file):
        listed = json.loads((golden / "te" / f"{file}.json").read_text())["cases"]
        return listed, load(golden / "te" / f"{file}.safetensors")

    return inputs, cases


def element_of(case):
    return ELEMENT[case["attributes"]["_fp8_dtype"].split(".")[1]]


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def held(raw, case, key):
    return raw.get(f"{case['name']}.{key}")


def check_tensor(raw, case, key, got):
    """Against the stored bytes, or their hash where they were not kept."""
    want = held(raw, case, key)
    if want is not None:
        same(np.asarray(got).view(want.dtype).reshape(want.shape), want, f"{case['name']} {key}")
    else:
        assert digest(got) == case["attributes"][key]["sha256"], f"{case['name']} {key}"


def check_dequantized(raw, case, got):
    want = held(raw, case, "dequantize_float32")
    if want is not None:
        same(got, want.reshape(got.shape), case["name"])
    elif not np.isnan(got).any():
        assert digest(got) == case["dequantize_float32"]["sha256"], case["name"]


def test_float8(brc, te):
    inputs, cases = te
    listed, raw = cases("float8")
    quantized = decoded = 0
    for case in listed:
        if "error" in case or "attributes" not in case:
            continue
        element, quantizer = element_of(case), case.get("quantizer")
        if quantizer and case["input"] in inputs:
            x = inputs[case["input"]]
            if quantizer["class"] == "Float8Quantizer":
                state = brc.delayed_state()
                state.scale = float(held(raw, case, "quantizer.scale").reshape(-1)[0])
                t = brc.cast(x, f"fp8-delayed:format={element}", state=state)
                want = held(raw, case, "quantizer.amax")
                if want is not None:
                    same(np.float32(state.amax), want.reshape(-1)[0], case["name"] + " amax")
            else:
                a = quantizer["attributes"]
                t = brc.cast(x, f"fp8:format={element},pow2={int(a['force_pow_2_scales'])},epsilon={a['amax_epsilon']!r}")
            check_tensor(raw, case, "_data", t.data)
            check_tensor(raw, case, "_scale_inv", t.scale)
            check_dequantized(raw, case, brc.dequantize(t))
            nominal = held(raw, case, "dequantize_nominal")
            if nominal is not None:
                same(brc.dequantize(t, nominal.dtype), nominal.reshape(x.shape), case["name"] + " nominal")
            quantized += 1
        elif held(raw, case, "_data") is not None:
            data, scale = held(raw, case, "_data"), held(raw, case, "_scale_inv")
            t = brc.tensor(element, data.shape, data, scale=(scale, "f32", (0, 0, 0)))
            check_dequantized(raw, case, brc.dequantize(t))
            decoded += 1
    assert quantized >= 20 and decoded >= 18


def test_blockwise(brc, te):
    inputs, cases = te
    listed, raw = cases("blockwise")
    quantized = decoded = 0
    for case in listed:
        if "error" in case or "attributes" not in case:
            continue
        element, quantizer = element_of(case), case.get("quantizer")
        two_dimensional = case["attributes"]["_is_2D_scaled"]
        shape = case["shape"]
        m, k = int(np.prod(shape[:-1])), shape[-1]
        for side in ("rowwise", "columnwise"):
            if case["attributes"].get(f"_{side}_data") is None:
                continue
            rows, cols = (m, k) if side == "rowwise" else (k, m)
            if quantizer:
                a = quantizer["attributes"]
                x = inputs[case["input"]].reshape(m, k)
                x = x if side == "rowwise" else x.T                 # a strided source
                name = "fp8-block128" if two_dimensional else "fp8-block"
                t = brc.cast(x, f"{name}:format={element},arith=te,partial=1,pow2={int(a['force_pow_2_scales'])},"
                                f"epsilon={a['amax_epsilon']!r}")
                check_tensor(raw, case, f"_{side}_data", t.data)
                want = held(raw, case, f"_{side}_scale_inv")
                if want is not None:                                # theirs is padded, in 1-D transposed as well
                    mine = t.scale.reshape(t.scale.shape[-2:])
                    mine = mine if two_dimensional else mine.T
                    same(np.ascontiguousarray(mine), np.ascontiguousarray(want[:mine.shape[0], :mine.shape[1]]),
                         f"{case['name']} {side} scale")
                quantized += 1
            else:
                data, want = held(raw, case, f"_{side}_data"), held(raw, case, f"_{side}_scale_inv")
                if data is None:
                    continue
                grid = (-(-rows // 128) if two_dimensional else rows, -(-cols // 128))
                scale = want[:grid[0], :grid[1]] if two_dimensional else want.T[:grid[0], :grid[1]]
                t = brc.tensor(element, (rows, cols), data.reshape(rows, cols),
                               scale=(np.ascontiguousarray(scale), "f32", (1, 128 if two_dimensional else 1, 128)), layout="per_block_mn")
                decoded += 1
            values = brc.dequantize(t)
            if side == "rowwise":
                check_dequantized(raw, case, values.reshape(shape) if held(raw, case, "dequantize_float32") is None else values)
    assert quantized >= 32 and decoded >= 2
