# SPDX-License-Identifier: Apache-2.0
"""TransformerEngine's own tensors on a GPU, where it is installed: breccia finds the values that it finds, over the same codes, and it finds
them in what breccia gives back. Its recorded tensors, which need no GPU: tests/python/test_transformer_engine.py."""
from importlib import import_module
from typing import Any, Iterator

import torch

import breccia
from breccia import bridges

from common import check

SHAPES = ((256, 384), (80, 144), (64, 256), (2, 128, 256))
DATA = {"rowwise": ("_rowwise_data", "_data"), "columnwise": ("_columnwise_data", "_transpose")}


def quantizers() -> Iterator[tuple[str, Any, int]]:
    """(name, quantizer, what both sides of a matrix must be multiples of): those that this GPU has kernels for. On one that has none, MXFP8's
    writes nothing, and does not say so."""
    te, tex = import_module("transformer_engine.pytorch"), import_module("transformer_engine_torch")
    tensor = lambda module, name: getattr(import_module(f"transformer_engine.pytorch.tensor.{module}"), name)
    for dtype in (tex.DType.kFloat8E4M3, tex.DType.kFloat8E5M2):
        one = {"scale": torch.full((1,), 8.0, device="cuda"), "amax": torch.zeros(1, device="cuda")}
        yield f"delayed {dtype}", tensor("float8_tensor", "Float8Quantizer")(fp8_dtype=dtype, **one), 16
        yield f"current {dtype}", tensor("float8_tensor", "Float8CurrentScalingQuantizer")(dtype, device=torch.device("cuda")), 16
        for dim in (1, 2):
            for pow2 in (False, True):
                yield (f"blocks of {dim} dimensions {dtype} {pow2}",
                       tensor("float8_blockwise_tensor", "Float8BlockQuantizer")(dtype, rowwise=True, columnwise=True, block_scaling_dim=dim, force_pow_2_scales=pow2), 16)
        if getattr(te, "is_mxfp8_available", lambda: False)():
            yield f"mxfp8 {dtype}", tensor("mxfp8_tensor", "MXFP8Quantizer")(dtype), 32
    if getattr(te, "is_nvfp4_available", lambda: False)():
        yield "nvfp4", tensor("nvfp4_tensor", "NVFP4Quantizer")(), 32


def same(got: Any, want: Any) -> bool:
    """The same bits; any NaN is any other."""
    got, want = got.detach().float().reshape(-1), want.detach().float().reshape(-1)
    return bool(((got.view(torch.int32) == want.view(torch.int32)) | (got.isnan() & want.isnan())).all())


def one(name: str, quantizer: Any, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, device="cuda", generator=torch.Generator("cuda").manual_seed(sum(shape))).to(torch.bfloat16)
    theirs = quantizer(x)
    want, found = theirs.dequantize(dtype=torch.float32), {}
    for usage, names in DATA.items():
        data = next((getattr(theirs, n) for n in names if getattr(theirs, n, None) is not None), None)
        if data is None:
            continue
        found[usage] = bridges.from_transformer_engine(theirs, usage)
        check(found[usage].data.data_ptr() == data.data_ptr(), name, shape, usage, "codes are shared")
    check(same(breccia.dequantize(found["rowwise"]), want), name, shape, "the values of TransformerEngine")
    if len(shape) > 2 and "blocks of 2" in name:                 # their scales span matrices: one matrix here
        return
    again = bridges.to_transformer_engine(found["rowwise"], torch.bfloat16, found.get("columnwise"))
    check(type(again) is type(theirs), name, shape, type(again))
    check(same(again.dequantize(dtype=torch.float32), want), name, shape, "and back")


def run() -> None:
    for name, quantizer, multiple in quantizers():
        for shape in SHAPES:
            if all(side % multiple == 0 for side in shape[-2:]):
                one(name, quantizer, shape)
