# SPDX-License-Identifier: Apache-2.0
"""torchao's tensors both ways, in the same process: the same values as its own dequantize, and the same buffers back."""
import sys

import numpy as np
import pytest

import breccia
from breccia import bridges

torchao = pytest.importorskip("torchao")
import torch  # noqa: E402
from torchao.prototype.mx_formats.config import ScaleCalculationMode  # noqa: E402
from torchao.prototype.mx_formats.mx_tensor import MXTensor  # noqa: E402
from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor  # noqa: E402
from torchao.quantization import (Float8Tensor, Int4Tensor, Int8Tensor, IntxUnpackedToInt8Tensor, PerBlock, PerGroup, PerRow,  # noqa: E402
                                  PerTensor)
from torchao.quantization.quant_primitives import MappingType  # noqa: E402

W = torch.randn(96, 256, generator=torch.Generator().manual_seed(11))


def float8(granularity, dtype=torch.float8_e4m3fn):
    return Float8Tensor.from_hp(W, float8_dtype=dtype, granularity=granularity)


def int8(**more):
    return Int8Tensor.from_hp(W, **more)


def intx(target, block, mapping=MappingType.SYMMETRIC):
    return IntxUnpackedToInt8Tensor.from_hp(W, block, target, mapping_type=mapping)


CASES = {
    "float8 tensor": lambda: float8(PerTensor()), "float8 row": lambda: float8(PerRow()), "float8 row e5m2": lambda: float8(PerRow(), torch.float8_e5m2),
    **{f"float8 row {f}": (lambda f=f: float8(PerRow(), getattr(torch, f"float8_{f}"))) for f in ("e4m3fnuz", "e5m2fnuz")},
    "float8 column": lambda: float8(PerRow(dim=0)), "float8 1x128": lambda: float8(PerBlock([1, 128])),
    "float8 32x128": lambda: float8(PerBlock([32, 128])), "float8 group": lambda: float8(PerGroup(64)),
    "int8 row": lambda: int8(granularity=PerRow()), "int8 tensor": lambda: int8(granularity=PerTensor()),
    "int8 asymmetric": lambda: int8(granularity=PerRow(), mapping_type=MappingType.ASYMMETRIC),
    "int4 groups": lambda: intx(torch.int4, (1, 32)), "int4 asymmetric": lambda: intx(torch.int4, (1, 32), MappingType.ASYMMETRIC),
    "int3 rows": lambda: intx(torch.int3, (1, 256)), "int8 groups": lambda: intx(torch.int8, (1, 64)),
    **{f"mx {name} {mode.name}": (lambda element=element, mode=mode: MXTensor.to_mx(W, element, 32, mode))
       for name, element in {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2, "e3m2": "fp6_e3m2", "e2m3": "fp6_e2m3",
                             "e2m1": torch.float4_e2m1fn_x2}.items() for mode in (ScaleCalculationMode.FLOOR, ScaleCalculationMode.RCEIL)},
    "mx swizzled": lambda: MXTensor.to_mx(W, torch.float8_e4m3fn, 32, is_swizzled_scales=True),
    "nvfp4": lambda: NVFP4Tensor.to_nvfp4(W), "nvfp4 two levels": lambda: NVFP4Tensor.to_nvfp4(W, per_tensor_scale=W.abs().max() / 2688),
    "nvfp4 swizzled": lambda: NVFP4Tensor.to_nvfp4(W, per_tensor_scale=W.abs().max() / 2688, is_swizzled_scales=True),
}


def values(tensor):
    try:
        return tensor.dequantize(torch.float32)
    except TypeError:
        return tensor.dequantize().float()


@pytest.mark.parametrize("case", CASES)
def test_the_same_values(case):
    tensor = CASES[case]()
    st = bridges.from_torchao(tensor)
    assert st.shape == (96, 256) and st.data.data_ptr() == tensor.qdata.data_ptr()
    if "swizzled" not in case:
        assert st.scale.data_ptr() == tensor.scale.data_ptr()
    np.testing.assert_array_equal(breccia.dequantize(st).numpy(), values(tensor).numpy())


U8, E8M0, E4M3 = torch.uint8, torch.float8_e8m0fnu, torch.float8_e4m3fn
MISREADINGS = [                                           # what becomes of a tensor's arrays, and how it is refused
    ("float8 row", "scale", lambda a: a.T, ValueError, "scale.shape"), ("float8 row", "scale", lambda a: torch.cat([a, a]), ValueError, "scale.shape"),
    ("float8 row", "block_size", lambda a: [1, 64], ValueError, "scale.shape"), ("float8 row", "scale", lambda a: a.double(), TypeError, "float64"),
    ("float8 row", "scale", lambda a: torch.full_like(a, 127, dtype=U8), TypeError, "scale is .*, got torch.uint8"),
    ("float8 row", "scale", lambda a: torch.full_like(a, 127, dtype=U8).view(E8M0), TypeError, "e8m0"),
    ("float8 row", "qdata", lambda a: a.view(U8), TypeError, "qdata is .*, got torch.uint8"),                            # FP8 as integers
    ("int8 row", "qdata", lambda a: a.view(U8), TypeError, "qdata is int8 here"), ("int8 row", "scale", lambda a: a.double(), TypeError, "float64"),
    ("int8 asymmetric", "zero_point", lambda a: a.to(torch.int64), TypeError, "zero_point is .*, got torch.int64"),
    ("mx e4m3 FLOOR", "scale", lambda a: a.T.contiguous(), ValueError, r"scales are \[96, 8\] here, got \[8, 96\]"),  # as many numbers
    ("mx e4m3 FLOOR", "scale", lambda a: a.view(U8).view(E4M3), TypeError, "e8m0fnu"),                                   # numbers as exponents
    ("mx e4m3 FLOOR", "scale", lambda a: a.float(), TypeError, "e8m0fnu"), ("mx e4m3 FLOOR", "is_swizzled_scales", lambda a: True, ValueError, "in tiles"),
    ("mx e4m3 FLOOR", "qdata", lambda a: a.view(torch.float8_e5m2), TypeError, "e5m2"), ("mx swizzled", "is_swizzled_scales", lambda a: False, ValueError, "here, got"),
    ("nvfp4", "scale", lambda a: a.view(U8).view(E8M0), TypeError, "e4m3fn"), ("nvfp4", "scale", lambda a: a.reshape(-1), ValueError, "here, got"),
    ("nvfp4 two levels", "per_tensor_scale", lambda a: a.repeat(3), ValueError, "global_scale has 3 numbers"),
    ("nvfp4 two levels", "per_tensor_scale", lambda a: a.double(), TypeError, "f64"),
]


@pytest.mark.parametrize("case, name, change, error, words", MISREADINGS)
def test_arrays_that_would_mean_other_values(case, name, change, error, words):
    tensor = CASES[case]()
    setattr(tensor, name, change(getattr(tensor, name)))
    with pytest.raises(error, match=words):
        breccia.dequantize(bridges.from_torchao(tensor))


@pytest.mark.parametrize("case", [c for c in CASES if "swizzled" not in c])
def test_and_back(case):
    tensor = CASES[case]()
    st = bridges.from_torchao(tensor)
    again = bridges.to_torchao(st, tensor.dtype)
    assert (type(again) is type(tensor) or case == "int8 groups") and again.shape == tensor.shape and again.dtype == tensor.dtype
    assert again.qdata.data_ptr() == tensor.qdata.data_ptr()
    assert list(again.block_size if isinstance(again.block_size, (list, tuple)) else [again.block_size]) == list(
        tensor.block_size if isinstance(tensor.block_size, (list, tuple)) else [tensor.block_size])
    np.testing.assert_array_equal(values(again).numpy(), values(tensor).numpy())
    assert bridges.from_torchao(again) == st                  # eight bits in groups come back as Int8Tensor


@pytest.mark.parametrize("recipe", [breccia.MXFP8BlockScaling(), breccia.MXFP4BlockScaling(), breccia.NVFP4BlockScaling(), breccia.NVFP4BlockScaling(levels=1),
                                    breccia.Float8CurrentScaling(), breccia.Float8RowScaling(), breccia.Float8BlockScaling(), breccia.INT8Scaling(),
                                    breccia.INT4Scaling()])
def test_what_breccia_cast(recipe):
    st = breccia.cast(W, recipe)
    tensor = bridges.to_torchao(st, torch.float32)
    np.testing.assert_array_equal(values(tensor).numpy(), breccia.dequantize(st).numpy())


def test_int4_tensor_with_real_zero_points():
    """Int4Tensor has no dequantize of its own: value = code * scale + zero_point, both stored [K/g, N]."""
    rng = np.random.default_rng(1)
    codes = rng.integers(-8, 8, (32, 128)).astype(np.int8)
    packed = torch.from_numpy(((codes[:, 0::2] & 15) | (codes[:, 1::2] << 4)).astype(np.int8))
    scale, zero = (torch.from_numpy(rng.uniform(0.1, 1, (4, 32)).astype(np.float32)) for _ in range(2))
    tensor = Int4Tensor(packed, scale, zero, [1, 32], torch.Size((32, 128)))
    st = bridges.from_torchao(tensor)
    expected = codes.astype(np.float32) * np.repeat(scale.numpy().T, 32, 1) + np.repeat(zero.numpy().T, 32, 1)
    np.testing.assert_array_equal(breccia.dequantize(st).numpy(), expected)
    again = bridges.to_torchao(st)
    assert (again.qdata == tensor.qdata).all() and (again.scale == scale).all() and (again.zero_point == zero).all()


def test_an_older_affine_tensor_is_told_by_its_attributes():
    class Plain:
        def __init__(self, *parts):
            self.parts = parts

        def get_plain(self):
            return self.parts

    class AffineQuantizedTensor:
        block_size, quant_min, quant_max, zero_point_domain = (1, 32), -8, 7, "ZeroPointDomain.INT"

    now = intx(torch.int4, (1, 32), MappingType.ASYMMETRIC)
    old = AffineQuantizedTensor()
    old.tensor_impl = Plain(now.qdata, now.scale.reshape(-1), now.zero_point.reshape(-1))
    np.testing.assert_array_equal(breccia.dequantize(bridges.from_torchao(old)).numpy(), values(now).numpy())


def test_errors(monkeypatch):
    st = breccia.cast(W, breccia.Float8CurrentScaling())
    with pytest.raises(TypeError, match="over PyTorch tensors"):
        bridges.to_torchao(bridges.from_dlpack(st, "numpy"))
    with pytest.raises(NotImplementedError, match="torchao has no class for mxint8"):
        bridges.to_torchao(breccia.cast(W, breccia.MXINT8BlockScaling()))
    with pytest.raises(TypeError, match="a quantized tensor of torchao is needed"):
        bridges.from_torchao(W)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ImportError, match="pip install torchao"):
        bridges.to_torchao(st)
