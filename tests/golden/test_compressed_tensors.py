# SPDX-License-Identifier: Apache-2.0
"""Recipes with arith=ct, and integers with arith=div, are compressed-tensors' bytes: recorded ones, then the library itself."""
import numpy as np
import pytest
from golden_files import load, same

# case of the golden file: recipe, shape of the scale there
RECORDED = {"fp8_tensor": "fp8:arith=ct", "fp8_channel": "fp8-row:arith=ct", "nvfp4": "nvfp4:arith=ct", "mxfp4": "mxfp4:rule=even,arith=ct",
            "mxfp6": "mxfp6-e2m3:rule=even,arith=ct", "mxfp8": "mxfp8:rule=even,arith=ct"}


@pytest.mark.parametrize("case", RECORDED)
def test_recorded(brc, golden, case):
    file = load(golden / "compressed_tensors.safetensors")
    t = brc.cast(file["w"], RECORDED[case])
    want = file[f"{case}.weight_scale"]
    same(t.scale.reshape(want.shape), want, "scale")
    data = file[f"{case}.weight_packed" if f"{case}.weight_packed" in file else f"{case}.weight"]
    same(t.data, data, "data")
    if case == "nvfp4":
        same(t.globals.reshape(1), file["nvfp4.weight_global_scale"], "global scale")


# ------------------------------------------------------------------------------------------- the library, on harder numbers

def numbers(rows=24, cols=128):
    """Ordinary rows, and what scales are sensitive to: zeros, -0, one sign, blocks far below the rest, subnormals, ties."""
    r = np.random.default_rng(3)
    x = r.standard_normal((rows, cols)).astype(np.float32)
    x[0] = 0
    x[1, ::3] = -0.0
    x[2] *= np.float32(1e-30)
    x[3] *= np.float32(1e-39)
    x[4] = np.abs(x[4])
    x[5, :64] *= np.float32(1e-5)
    x[6, ::2] = 0
    x[7] = np.resize(np.array([6, 5, 3.5, 2.5, 1.75, 1.25, 0.75, 0.25, -0.25, -5, 4, 0], np.float32), cols)
    x[8] *= np.float32(1e30)
    x[9] = -np.abs(x[9])
    x[10] = np.exp2(r.integers(-130, 100, cols)).astype(np.float32)
    x[11] = np.float32(-0.0)
    return x


SCHEMES = {      # preset, format -> recipe; a group size where the preset's own is too large for the test
    ("FP8", "float-quantized", None): "fp8:arith=ct", ("FP8_DYNAMIC", "float-quantized", None): "fp8-row:arith=ct",
    ("NVFP4", "nvfp4-pack-quantized", 16): "nvfp4:arith=ct", ("MXFP4", "mxfp4-pack-quantized", 32): "mxfp4:rule=even,arith=ct",
    ("MXFP6A16", "mxfp6-pack-quantized", 32): "mxfp6-e2m3:rule=even,arith=ct", ("MXFP8", "mxfp8-quantized", 32): "mxfp8:rule=even,arith=ct",
    ("W8A8", "int-quantized", None): "int8", ("W4A16", "pack-quantized", 32): "int4:group=32,scale=f32",
    ("W3A16", "pack-quantized", 64): "int4:format=int3,group=64,scale=f32", ("W4A16_ASYM", "pack-quantized", 32): "int4:group=32,scale=f32,rule=minmax"}


def compressed(x, preset, format, group):
    """weight_scale, weight_zero_point, codes as the library makes them from minimum and maximum."""
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.compressors.pack_quantized import unpack_from_int32
    from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
    scheme = preset_name_to_scheme(preset, ["Linear"])
    x = torch.from_numpy(x.copy())
    if group is not None:
        scheme.weights.group_size = group
        low, high = x.unflatten(-1, (-1, group)).aminmax(dim=-1)
    elif scheme.weights.strategy == "tensor":
        low, high = (end.reshape(1) for end in x.aminmax())
    else:
        low, high = x.aminmax(dim=-1, keepdim=True)
    state, whole = {"weight": x}, None
    if scheme.weights.strategy == "tensor_group":
        whole = state["weight_global_scale"] = generate_gparam(*x.aminmax())
    state["weight_scale"], state["weight_zero_point"] = calculate_qparams(low, high, scheme.weights, global_scale=whole)
    zero = state["weight_zero_point"].numpy() if not scheme.weights.symmetric else None
    out = BaseCompressor.get_value_from_registry(format).compress(state, scheme)
    if format == "pack-quantized":
        data = unpack_from_int32(out["weight_packed"], scheme.weights.num_bits, x.shape)
    else:
        data = out["weight_packed" if "weight_packed" in out else "weight"]
    return out["weight_scale"], zero, data.contiguous().view(torch.uint8).numpy(), whole


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s[0])
def test_live(brc, scheme):
    import torch
    x = numbers()
    if scheme[0] == "NVFP4":           # its global scale is one for all: nothing else would be left beside 1e30
        x[[8, 10]] = x[[12, 13]]
    scale, zero, data, whole = compressed(x, *scheme)
    t = brc.cast(x, SCHEMES[scheme])
    words = torch.uint8 if scale.element_size() == 1 else torch.int32
    same(t.scale.reshape(scale.shape).view(np.uint8 if words is torch.uint8 else np.int32), scale.contiguous().view(words).numpy(), "scale")
    codes = t.data.view(np.uint8)
    if scheme[1] == "pack-quantized":
        bits = int(scheme[0][1])
        stream = np.unpackbits(codes, axis=1, bitorder="little")[:, :x.shape[1] * bits].reshape(*x.shape, bits)
        codes = (stream << np.arange(bits)).sum(-1)
        codes = np.where(codes >> (bits - 1), codes - (1 << bits), codes).astype(np.int8).view(np.uint8)
    if zero is not None:               # a zero block: NaN became int8 there, which the hardware decides; breccia: the middle
        blank = np.abs(x).reshape(x.shape[0], -1, scheme[2]).max(-1) == 0
        same(t.zero.reshape(zero.shape)[~blank], zero[~blank], "zero point")
        codes, data = (c[~np.repeat(blank, scheme[2], 1)] for c in (codes, data))
    same(codes, data, "data")
    if whole is not None:
        same(t.globals.reshape(1), whole.numpy(), "global scale")
