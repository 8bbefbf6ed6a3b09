# SPDX-License-Identifier: Apache-2.0
"""TransformerEngine's tensors both ways, over what version 2.20.2 wrote on a GPU: the recorded buffers decode to the recorded
values, and come back the same. Where the library itself is installed with a GPU: tests/cuda/gpu_python/of_transformer_engine.py."""
import dataclasses
import enum
import json
import re
import sys
import types

import numpy as np
import pytest

import breccia
import golden_files
from breccia import bridges

FILES = ("float8", "blockwise", "mxfp8", "nvfp4")


class Recorded:
    """A stand-in with the attributes of a recorded tensor, of a class of the same name."""

    def __new__(cls, torch, raw, case):
        kept = {}
        for name, value in case["attributes"].items():
            if isinstance(value, dict):
                if value.get("key") not in raw:
                    return None
                value = torch.from_numpy(raw[value["key"]].copy()).reshape(value["shape"])
            kept[name] = value
        made = object.__new__(type(case["class"], (), {}))
        made.__dict__.update(kept)
        quantizer = (case.get("quantizer") or {}).get("class")
        if quantizer:
            made._quantizer = type(quantizer, (), dict(case["quantizer"]["attributes"]))()
        return made


def cases(golden, file):
    listed = json.loads((golden / "te" / f"{file}.json").read_text())["cases"]
    return [c for c in listed if "attributes" in c and "error" not in c], golden_files.load(golden / "te" / f"{file}.safetensors")


@pytest.fixture
def library(monkeypatch):
    """The classes' constructors, with the keywords that TransformerEngine 2.20 wants; they keep what they are given."""
    def maker(name, required):
        def __init__(self, **given):
            assert required <= set(given), sorted(required - set(given))
            self.__dict__.update({f"_{k}": v for k, v in given.items()})
            self._data, self._scale_inv = given.get("data"), given.get("fp8_scale_inv")
            self._transpose = given.get("data_transpose")
        return type(name, (), {"__init__": __init__})
    both = {"rowwise_data", "rowwise_scale_inv", "columnwise_data", "columnwise_scale_inv", "quantizer", "shape", "dtype"}
    classes = {"float8_tensor": maker("Float8Tensor", {"shape", "dtype", "data", "fp8_scale_inv", "fp8_dtype"}),
               "float8_blockwise_tensor": maker("Float8BlockwiseQTensor", both | {"fp8_dtype", "is_2D_scaled"}),
               "mxfp8_tensor": maker("MXFP8Tensor", both | {"fp8_dtype", "with_gemm_swizzled_scales"}),
               "nvfp4_tensor": maker("NVFP4Tensor", both | {"fp4_dtype", "amax_rowwise", "amax_columnwise", "with_gemm_swizzled_scales"})}
    tex = types.ModuleType("transformer_engine_torch")
    tex.DType = types.SimpleNamespace(kFloat8E4M3="DType.kFloat8E4M3", kFloat8E5M2="DType.kFloat8E5M2", kFloat4E2M1="DType.kFloat4E2M1")
    modules = {"transformer_engine": types.ModuleType("transformer_engine"), "transformer_engine_torch": tex}
    modules["transformer_engine.pytorch"] = modules["transformer_engine"].pytorch = types.ModuleType("transformer_engine.pytorch")
    modules["transformer_engine.pytorch.tensor"] = types.ModuleType("transformer_engine.pytorch.tensor")
    for name, cls in classes.items():
        modules[f"transformer_engine.pytorch.tensor.{name}"] = types.SimpleNamespace(**{cls.__name__: cls})
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def usages(tensor):
    pairs = {"rowwise": ("_data", "_rowwise_data"), "columnwise": ("_transpose", "_columnwise_data")}
    return [usage for usage, names in pairs.items() if any(getattr(tensor, name, None) is not None for name in names)]


@pytest.mark.parametrize("file", FILES)
def test_recorded_tensors_decode_to_the_recorded_values(torch, golden, file):
    listed, raw = cases(golden, file)
    decoded = 0
    for case in listed:
        tensor = Recorded(torch, raw, case)
        if tensor is None or "rowwise" not in usages(tensor):
            continue
        st = bridges.from_transformer_engine(tensor)
        want = case.get("dequantize_float32")
        want = want.get("key") if isinstance(want, dict) else None
        if want in raw:
            got = breccia.dequantize(st).numpy()
            golden_files.same(got.reshape(-1), raw[want].reshape(-1), case["name"])
            decoded += 1
        data = tensor._data if file == "float8" else tensor._rowwise_data
        assert st.data.data_ptr() == data.data_ptr(), case["name"]
    assert decoded >= {"float8": 20, "blockwise": 8, "mxfp8": 0, "nvfp4": 6}[file]


def test_recorded_mxfp8_codes_mean_what_the_format_says(torch, golden):
    """TransformerEngine decodes MXFP8 on newer GPUs only: decoded here with ml_dtypes."""
    import ml_dtypes
    listed, raw = cases(golden, "mxfp8")
    for case in listed:
        tensor = Recorded(torch, raw, case)
        if tensor is None:
            continue
        element = ml_dtypes.float8_e5m2 if "E5M2" in str(tensor._fp8_dtype) else ml_dtypes.float8_e4m3fn
        rows, cols = tensor._rowwise_data.shape
        for usage in usages(tensor):
            codes = (tensor._rowwise_data if usage == "rowwise" else tensor._columnwise_data).numpy().view(element).astype(np.float32)
            s = np.exp2((tensor._rowwise_scale_inv if usage == "rowwise" else tensor._columnwise_scale_inv).numpy().astype(np.float32) - 127)
            s = np.repeat(s[:rows, :cols // 32], 32, 1) if usage == "rowwise" else np.repeat(s[:rows // 32, :cols], 32, 0)
            got = breccia.dequantize(bridges.from_transformer_engine(tensor, usage)).numpy()
            with np.errstate(over="ignore", invalid="ignore"):
                golden_files.same(got, codes * s, case["name"])


@pytest.mark.parametrize("file", FILES)
def test_and_back(torch, golden, library, file):
    """The recorded buffers again; what pads the scales is free."""
    listed, raw = cases(golden, file)
    returned = 0
    for case in listed:
        tensor = Recorded(torch, raw, case)
        if tensor is None or "rowwise" not in usages(tensor) or (file == "blockwise" and tensor._is_2D_scaled and len(case["shape"]) > 2):
            continue
        found = {usage: bridges.from_transformer_engine(tensor, usage) for usage in usages(tensor)}
        again = bridges.to_transformer_engine(found["rowwise"], torch.bfloat16, found.get("columnwise"))
        assert type(again).__name__ == case["class"]
        for usage, st in found.items():
            made = bridges.from_transformer_engine(again, usage)   # without a quantizer, which says how it was made
            assert dataclasses.replace(made, recipe=st.recipe) == st, (case["name"], usage)
        for name, value in case["attributes"].items():
            if name.endswith("data") and isinstance(value, dict):
                assert getattr(again, name).data_ptr() == getattr(tensor, name).data_ptr(), (case["name"], name)
            if name.endswith("scale_inv") and isinstance(value, dict) and not tensor.__dict__.get("_with_gemm_swizzled_scales"):
                assert list(getattr(again, name).shape) == value["shape"], (case["name"], name)
        returned += 1
    assert returned >= 4


def test_what_breccia_cast(torch, library):
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(1))
    for recipe in (breccia.Float8CurrentScaling(), breccia.Float8BlockScaling(arith="te", power_of_two=True),
                   breccia.Float8BlockScaling(block_m=128, partial=True), breccia.MXFP8BlockScaling()):
        st = breccia.cast(x, recipe)
        again = bridges.from_transformer_engine(bridges.to_transformer_engine(st))
        assert (breccia.dequantize(again) == breccia.dequantize(st)).all()
    st = breccia.cast(x, breccia.NVFP4BlockScaling())
    again = breccia.dequantize(bridges.from_transformer_engine(bridges.to_transformer_engine(st)))
    np.testing.assert_allclose(again.numpy(), breccia.dequantize(st).numpy(), rtol=3e-7)        # an amax is the scale times 2688, rounded


class Number(enum.IntEnum):
    """A DType whose members print as numbers."""
    kFloat8E4M3, kFloat8E5M2, kFloat8E8M0 = 7, 8, 9


def made(torch, kind, **changes):
    """A tensor of 64 x 256 codes, with buffers as version 2.20 has them."""
    rng = np.random.default_rng(3)
    codes = lambda *shape: torch.from_numpy(rng.integers(0, 120, shape, dtype=np.uint8))
    numbers = lambda *shape: torch.from_numpy(rng.uniform(0.5, 2, shape).astype(np.float32))
    buffers = {"Float8Tensor": {"_data": codes(64, 256), "_scale_inv": numbers(1), "_transpose": None},
               "Float8BlockwiseQTensor": {"_rowwise_data": codes(64, 256), "_rowwise_scale_inv": numbers(2, 64), "_is_2D_scaled": False},
               "MXFP8Tensor": {"_rowwise_data": codes(64, 256), "_rowwise_scale_inv": codes(128, 8)},
               "NVFP4Tensor": {"_rowwise_data": codes(64, 128), "_rowwise_scale_inv": codes(128, 16), "_amax_rowwise": numbers(1)}}[kind]
    tensor = object.__new__(type(kind, (), {}))
    tensor.__dict__.update({"_fp8_dtype": Number.kFloat8E4M3, "_quantizer": None} | buffers | {n: f(codes, numbers) for n, f in changes.items()})
    return tensor


MISREADINGS = [
    ("Float8Tensor", {"_fp8_dtype": lambda c, n: Number.kFloat8E8M0}, TypeError, "kFloat8E8M0, neither E4M3 nor E5M2"),
    ("Float8Tensor", {"_fp8_dtype": lambda c, n: 8}, TypeError, "is 8, neither"),
    ("Float8Tensor", {"_data": lambda c, n: n(4, 32)}, TypeError, "got torch.float32"),
    ("Float8Tensor", {"_scale_inv": lambda c, n: c(1)}, TypeError, "float32, got torch.uint8"),
    ("Float8Tensor", {"_scale_inv": lambda c, n: None}, TypeError, "float32, got None"),
    ("Float8Tensor", {"_scale_inv": lambda c, n: n(64)}, ValueError, "one number here, got [64]"),
    ("Float8BlockwiseQTensor", {"_rowwise_scale_inv": lambda c, n: n(64, 2)}, ValueError, "scales are [2, 64] here"),                  # transposed
    ("Float8BlockwiseQTensor", {"_rowwise_scale_inv": lambda c, n: n(2, 128)}, ValueError, "scales are [2, 64] here"),                 # of twice the rows
    ("Float8BlockwiseQTensor", {"_is_2D_scaled": lambda c, n: True}, ValueError, "scales are [1, 2] here, or [1, 4] with padding"),    # 1x128 as 128x128
    ("Float8BlockwiseQTensor", {"_rowwise_scale_inv": lambda c, n: c(2, 64)}, TypeError, "got torch.uint8"),
    ("MXFP8Tensor", {"_rowwise_scale_inv": lambda c, n: n(128, 8)}, TypeError, "got torch.float32"),                                   # numbers as exponents
    ("MXFP8Tensor", {"_rowwise_scale_inv": lambda c, n: c(8, 128)}, ValueError, "scales are [64, 8] here, or [128, 8] with padding"),
    ("MXFP8Tensor", {"_rowwise_scale_inv": lambda c, n: c(256, 16)}, ValueError, "scales are [64, 8] here"),                           # of a larger tensor
    ("MXFP8Tensor", {"_rowwise_scale_inv": lambda c, n: c(64, 8), "_with_gemm_swizzled_scales": lambda c, n: True}, ValueError, "scales are [128, 8] here"),
    ("NVFP4Tensor", {"_rowwise_scale_inv": lambda c, n: c(128, 8)}, ValueError, "scales are [64, 16] here"),                           # blocks of 32
    ("NVFP4Tensor", {"_amax_rowwise": lambda c, n: n(64)}, ValueError, "one number here, got [64]"),
    ("NVFP4Tensor", {"_row_scaled_nvfp4": lambda c, n: True}, ValueError, "64 numbers, one for each row,"),
    ("NVFP4Tensor", {"_amax_rowwise": lambda c, n: c(1)}, TypeError, "float32, got torch.uint8"),
]


@pytest.mark.parametrize("kind, changes, error, words", MISREADINGS)
def test_buffers_that_would_mean_other_values(torch, kind, changes, error, words):
    bridges.from_transformer_engine(made(torch, kind))
    with pytest.raises(error, match=re.escape(words)):
        bridges.from_transformer_engine(made(torch, kind, **changes))


def test_types_that_print_as_numbers(torch):
    """E5M2 by the name of its member, not E4M3 for want of it."""
    tensor = made(torch, "Float8Tensor", _fp8_dtype=lambda c, n: Number.kFloat8E5M2)
    want = tensor._data.view(torch.float8_e5m2).float() * tensor._scale_inv
    np.testing.assert_array_equal(breccia.dequantize(bridges.from_transformer_engine(tensor)).numpy(), want.numpy())


def test_compact_blocks(torch):
    """As versions before 2.12 also had them: scales in rows, the columnwise copy not transposed."""
    compact = {"_data_format": lambda c, n: "Float8BlockScaleTensorFormat.COMPACT"}
    tensor = made(torch, "Float8BlockwiseQTensor", _rowwise_scale_inv=lambda c, n: n(64, 2), **compact)
    want = tensor._rowwise_data.view(torch.float8_e4m3fn).float() * tensor._rowwise_scale_inv.repeat_interleave(128, 1)
    np.testing.assert_array_equal(breccia.dequantize(bridges.from_transformer_engine(tensor)).numpy(), want.numpy())
    tensor = made(torch, "Float8BlockwiseQTensor", _columnwise_data=lambda c, n: c(64, 256), _columnwise_scale_inv=lambda c, n: n(1, 256), **compact)
    with pytest.raises(NotImplementedError, match="compact"):
        bridges.from_transformer_engine(tensor, "columnwise")


def test_errors(torch, golden):
    st = breccia.cast(torch.ones(4, 32), breccia.MXFP8BlockScaling())
    if "transformer_engine" not in sys.modules:
        with pytest.raises(ImportError, match="pip install transformer-engine"):
            bridges.to_transformer_engine(st)
    with pytest.raises(NotImplementedError, match="TransformerEngine has no class for INT8Scaling"):
        bridges.to_transformer_engine(breccia.cast(torch.ones(4, 32), breccia.INT8Scaling()))
    with pytest.raises(TypeError, match="over PyTorch tensors"):
        bridges.to_transformer_engine(bridges.from_dlpack(st, "numpy"))
    with pytest.raises(TypeError, match="a quantized tensor of TransformerEngine is needed"):
        bridges.from_transformer_engine(torch.ones(2))
    listed, raw = cases(golden, "nvfp4")
    tensor = Recorded(torch, raw, listed[0])
    with pytest.raises(ValueError, match="has no columnwise copy; usage='rowwise'"):
        bridges.from_transformer_engine(tensor, "columnwise")
    with pytest.raises(ValueError, match="usage must be"):
        bridges.from_transformer_engine(tensor, "both")
