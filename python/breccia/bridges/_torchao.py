# SPDX-License-Identifier: Apache-2.0
"""torchao's quantized tensors, both ways, over the same memory where the order of the numbers agrees. Classes are told by
their names and attributes; the library is imported only to make its tensors.

Source: torchao 0.18, quantization/quantize_/workflows and prototype/mx_formats; docs/dialects.md, torchao."""
from typing import Any

import numpy as np

from breccia import _c
from breccia import _frameworks as frameworks
from breccia._core import ScaledTensor
from breccia.layouts import Layout, PerBlockK, PerBlockMN, PerChannel, PerColumn, PerTensor
from breccia.recipes import ScalingRecipe, from_text

__all__ = ["from_torchao", "to_torchao"]

_KINDS = ("Float8Tensor", "Int8Tensor", "IntxUnpackedToInt8Tensor", "Int4Tensor", "MXTensor", "NVFP4Tensor")


def _geometry(shape: Any, block: Any) -> tuple[Layout, str]:
    """The layout of torchao's block_size, one length an axis, and its word in a recipe."""
    block = [side if side > 0 else shape[axis] for axis, side in enumerate(block)]
    rows, cols = (shape[-2] if len(shape) > 1 else 1), shape[-1]
    by = block[-2] if len(block) > 1 else 1, block[-1]
    if list(block) == list(shape):
        return PerTensor(), "tensor"
    if any(side != 1 for side in block[:-2]):
        raise NotImplementedError(f"block_size {block} of a tensor of shape {tuple(shape)} spans matrices")
    if by == (1, cols):
        return PerChannel(), "row"
    if by == (rows, 1):
        return PerColumn(), "column"
    return (PerBlockK(by[1]), f"1x{by[1]}") if by[0] == 1 else (PerBlockMN(*by), f"{by[0]}x{by[1]}")


_FLOAT8 = {"float8_e4m3fn": "e4m3", "float8_e5m2": "e5m2", "float8_e4m3fnuz": "e4m3fnuz", "float8_e5m2fnuz": "e5m2fnuz"}
_NUMBERS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_INTEGERS = {"int8": "int8", "uint8": "uint8"}


def _format(name: str, array: Any, known: dict[str, str]) -> str:
    """The format of an array of one of the types that torchao stores there; any other would mean other values."""
    word = known.get(str(array.dtype).removeprefix("torch."))
    if word is None:
        raise TypeError(f"{name} is {' or '.join(known)} here, got {array.dtype}")
    return word


def _scale(scale: Any, layout: Layout) -> Any:
    return scale.reshape(()) if isinstance(layout, PerTensor) else scale


def _stored(format: str, scale: Any, word: str, layout: Layout, zero: str = "") -> ScalingRecipe:
    """Integers of either symmetry: what the tables mean is known, how they were made is not."""
    group = f",group={layout.block_size}" if isinstance(layout, PerBlockK) else ""
    return from_text(f"stored:format={format},scale={_format('scale', scale, _NUMBERS)},block={word}{group}{zero}")


def _float8(t: Any) -> ScaledTensor:
    layout, word = _geometry(t.qdata.shape, t.block_size)
    row = {"tensor": "fp8:arith=div,", "row": "fp8-row:", "column": "custom:scale=f32,rule=amax,arith=div,block=column,"}.get(word)
    if row is None:
        row = f"fp8-block:block={word}," if word.startswith("1x") else f"fp8-block128:block={word},"
    _format("scale", t.scale, _NUMBERS)
    return ScaledTensor(t.qdata, _scale(t.scale, layout), from_text(f"{row}format={_format('qdata', t.qdata, _FLOAT8)}"), layout)


def _integers(t: Any, format: str) -> ScaledTensor:
    layout, word = _geometry(t.qdata.shape, t.block_size)
    zero = t.zero_point
    _format("qdata", t.qdata, {"int8": "int8"})
    kind = "" if zero is None else f",zero={_format('zero_point', zero, _NUMBERS | _INTEGERS)}{'/float_code' if zero.is_floating_point() else ''}"
    return ScaledTensor(t.qdata, _scale(t.scale, layout), _stored(format, t.scale, word, layout, kind), layout,
                        None if zero is None else _scale(zero, layout), shape=tuple(t.qdata.shape))


def _int8(t: Any) -> ScaledTensor:
    return _integers(t, "int8")


def _intx(t: Any) -> ScaledTensor:
    return _integers(t, str(t.target_dtype).removeprefix("torch."))


def _int4(t: Any) -> ScaledTensor:
    """Scales and zero points are stored [K/g, N]; the zero point is a real number, added."""
    import torch
    shape, zero = tuple(t.shape), f",zero={_format('zero_point', t.zero_point, _NUMBERS)}/real"
    layout, word = _geometry(shape, t.block_size)
    return ScaledTensor(t.qdata.view(torch.uint8), t.scale.T, _stored("int4", t.scale, word, layout, zero), layout, t.zero_point.T,
                        shape=shape)


def _untiled(scale: Any, rows: int, cols: int) -> Any:
    """Scales in plain rows, of tiles of 128x4 (cuBLAS, 1D block scaling factors)."""
    up, wide = -(-rows // 128), -(-cols // 4)
    return scale.reshape(up, wide, 32, 4, 4).permute(0, 3, 2, 1, 4).reshape(up * 128, wide * 4)[:rows, :cols]


def _block_scales(t: Any, shape: tuple[int, ...], block: int) -> Any:
    import torch
    _format("scale", t.scale, {name: "" for name in ("float8_e8m0fnu" if block == 32 else "float8_e4m3fn", "uint8")})
    sides = (*shape[:-1], -(-shape[-1] // block))
    rows = 1
    for side in shape[:-1]:
        rows *= side
    tiled = (-(-rows // 128) * 128) * (-(-sides[-1] // 4) * 4)
    if (t.scale.numel() != tiled) if t.is_swizzled_scales else (tuple(t.scale.shape) != sides):
        raise ValueError(f"scales are {f'{tiled} in tiles of 128x4' if t.is_swizzled_scales else list(sides)} here, got {list(t.scale.shape)}")
    if not t.is_swizzled_scales:
        return t.scale.view(torch.uint8)
    return _untiled(t.scale.view(torch.uint8), rows, sides[-1]).reshape(sides)


def _mx(t: Any) -> ScaledTensor:
    import torch
    element = {torch.float8_e4m3fn: "mxfp8", torch.float8_e5m2: "mxfp8:format=e5m2", "fp6_e3m2": "mxfp6-e3m2", "fp6_e2m3": "mxfp6-e2m3",
               torch.float4_e2m1fn_x2: "mxfp4"}.get(t.elem_dtype)
    if element is None or t.block_size != 32:
        raise NotImplementedError(f"MXTensor of {t.elem_dtype} in blocks of {t.block_size}")
    packed = element == "mxfp4"
    data = t.qdata.view(torch.uint8) if packed else t.qdata
    shape = (*data.shape[:-1], data.shape[-1] * 2) if packed else tuple(data.shape)
    return ScaledTensor(data, _block_scales(t, shape, 32), from_text(element), PerBlockMN(1, 32), shape=shape)


def _nvfp4(t: Any) -> ScaledTensor:
    import torch
    data, level = t.qdata.view(torch.uint8), t.per_tensor_scale
    shape = (*data.shape[:-1], data.shape[-1] * 2)
    by_expert = level is not None and level.numel() > 1
    recipe = ("stored:format=e2m1,scale=e4m3,block=1x16,global=multiplier@expert" if by_expert
              else "nvfp4:levels=1" if level is None else "nvfp4")
    return ScaledTensor(data, _block_scales(t, shape, 16), from_text(recipe), PerBlockMN(1, 16),
                        global_scale=level if level is None or by_expert else level.reshape(()), shape=shape)


def _affine(t: Any) -> ScaledTensor:
    """AffineQuantizedTensor of torchao before 0.15: its layouts give back plain integers."""
    q, scale, zero = t.tensor_impl.get_plain()
    low, high = getattr(t, "quant_min", None), getattr(t, "quant_max", None)
    signed = q.dtype.is_signed
    bits = 8 if low is None or high is None else (int(high) - int(low)).bit_length()
    layout, word = _geometry(q.shape, t.block_size)
    real = str(getattr(t, "zero_point_domain", "")).upper().endswith("FLOAT")
    if real:
        raise NotImplementedError("AffineQuantizedTensor with floating-point zero points: its middle is not that of the codes")
    kind = "" if zero is None else f",zero={_INTEGERS.get(str(zero.dtype).removeprefix('torch.'), 'int32')}"
    recipe = _stored(f"{'int' if signed else 'uint'}{bits}", scale, word, layout, kind)
    sides = layout._scale_shape(tuple(q.shape))
    return ScaledTensor(q, scale.reshape(sides), recipe, layout, None if zero is None else zero.reshape(sides), shape=tuple(q.shape))


_READ = {"Float8Tensor": _float8, "Int8Tensor": _int8, "IntxUnpackedToInt8Tensor": _intx, "Int4Tensor": _int4, "MXTensor": _mx,
         "NVFP4Tensor": _nvfp4}


def from_torchao(tensor: Any) -> ScaledTensor:
    """A quantized tensor of torchao as a ScaledTensor over the same memory.

    Float8Tensor of every granularity, Int8Tensor, IntxUnpackedToInt8Tensor (codes stay one a byte), Int4Tensor (its scales are
    stored transposed, its zero points are real numbers), MXTensor and NVFP4Tensor (the 128x4 order of a product's scales is
    undone, by a copy), and the AffineQuantizedTensor of older versions. Activation settings are not part of the value.

    Raises TypeError for another class and for arrays of other types, ValueError for scales of another shape, NotImplementedError for blocks that
    have no layout here. Source: torchao 0.18.

    >>> import breccia
    >>> breccia.bridges.from_torchao(1.0)
    Traceback (most recent call last):
    TypeError: a quantized tensor of torchao is needed (Float8Tensor, Int8Tensor, IntxUnpackedToInt8Tensor, Int4Tensor, MXTensor, NVFP4Tensor), got float
    """
    names = {cls.__name__ for cls in type(tensor).__mro__}
    for kind, read in _READ.items():
        if kind in names:
            return read(tensor)
    if hasattr(tensor, "tensor_impl") and hasattr(tensor, "block_size"):
        return _affine(tensor)
    raise TypeError(f"a quantized tensor of torchao is needed ({', '.join(_KINDS)}), got {type(tensor).__name__}")


# ------------------------------------------------------------------------------------------------------------ back

def _library() -> Any:
    try:
        import torchao.quantization
    except ImportError as missing:
        raise ImportError("to_torchao needs torchao: pip install torchao") from missing
    return torchao.quantization


def _lengths(st: ScaledTensor) -> list[int]:
    """torchao's block_size."""
    batch, rows, cols = st.layout._block
    sides = [rows or (st.shape[-2] if st.ndim > 1 else 1), cols or st.shape[-1]][-st.ndim:]
    return [1 if batch else side for side in st.shape[:-2]] + sides


def _ranked(table: Any, st: ScaledTensor) -> Any:
    """A table with as many axes as the tensor."""
    return table.reshape([-(-side // by) for side, by in zip(st.shape, _lengths(st))])


def _one_a_byte(st: ScaledTensor) -> Any:
    """int8 codes of integers below 8 bits."""
    import torch
    if st.storage_shape == st.shape:
        return st.data.view(torch.int8)
    format, rows = st.recipe._element, 1
    for side in st.shape[:-1]:
        rows *= side
    packed = np.frombuffer(_c.bytes_of(frameworks.of(st.data).read(st.data)), "u1").reshape(rows, -1)
    numbers, codes = np.empty(st.shape[-1], "f4"), np.empty((rows, st.shape[-1]), "i1")
    for row, out in zip(packed, codes):
        _c.decode(format, row, numbers)
        _c.encode("int8", numbers, out)
    return torch.from_numpy(codes).reshape(st.shape)


def _to_float8(st: ScaledTensor, dtype: Any) -> Any:
    return _library().Float8Tensor(st.data, _ranked(st.scale, st), _lengths(st), dtype=dtype)


def _to_int8(st: ScaledTensor, dtype: Any) -> Any:
    zero = None if st.zero_point is None else _ranked(st.zero_point, st)
    return _library().Int8Tensor(st.data, _ranked(st.scale, st), _lengths(st), dtype, zero)


def _to_intx(st: ScaledTensor, dtype: Any) -> Any:
    import torch
    zero = st.zero_point if st.zero_point is not None else torch.zeros(tuple(st.scale.shape), dtype=torch.int8)
    return _library().IntxUnpackedToInt8Tensor(_one_a_byte(st), _ranked(st.scale, st), _ranked(zero, st), getattr(torch, st.recipe._element),
                                               tuple(_lengths(st)), dtype, None)


def _to_int4(st: ScaledTensor, dtype: Any) -> Any:
    import torch
    return _library().Int4Tensor(st.data.view(torch.int8), st.scale.T.contiguous(), st.zero_point.T.contiguous(), _lengths(st),
                                 torch.Size(st.shape))


def _to_mx(st: ScaledTensor, dtype: Any) -> Any:
    import torch
    _library()
    from torchao.prototype.mx_formats.mx_tensor import MXTensor
    from torchao.quantization.quantize_.common.kernel_preference import KernelPreference
    element = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2, "e2m1": torch.float4_e2m1fn_x2, "e3m2": "fp6_e3m2",
               "e2m3": "fp6_e2m3"}[st.recipe._element]
    if isinstance(element, str) and st.storage_shape != st.shape:
        raise NotImplementedError("MXTensor keeps 6-bit codes one a byte; pass a ScaledTensor with shape=data.shape")
    return MXTensor(st.data, st.scale.view(torch.float8_e8m0fnu), element, 32, dtype, KernelPreference.EMULATED, None, False)


def _to_nvfp4(st: ScaledTensor, dtype: Any) -> Any:
    import torch
    _library()
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor
    scale = st.scale.view(torch.float8_e4m3fn) if st.scale.dtype == torch.uint8 else st.scale
    return NVFP4Tensor(st.data, scale, 16, dtype, st.global_scale)


def _writer(st: ScaledTensor) -> Any:
    element, scale, block = st.recipe._element, st.recipe._scale, st.layout._block
    multiplies = st.recipe._levels == 1 or not ({"arith=ct", "arith=div", "global=divisor"} & set(st.recipe.text.partition(":")[2].split(","))
                                                or "amax" in st.recipe.text)
    if element in _FLOAT8.values() and scale == "f32":
        return _to_float8
    if scale == "e8m0" and block == (1, 1, 32) and element in ("e4m3", "e5m2", "e3m2", "e2m3", "e2m1"):
        return _to_mx
    if scale == "e4m3" and block == (1, 1, 16) and element == "e2m1" and multiplies:
        return _to_nvfp4
    if element == "int4" and "/real" in st.recipe.text and block[1] == 1:
        return _to_int4
    if element.startswith("int") and element != "int8q6" and "/real" not in st.recipe.text and st.recipe._levels == 1:
        return _to_int8 if element == "int8" and scale == "f32" else _to_intx
    return None


def to_torchao(st: ScaledTensor, dtype: Any = None) -> Any:
    """A ScaledTensor of PyTorch as torchao's tensor class, over the same codes.

    Parameters
    ----------
    st
        FP8 with float32 scales of any granularity (Float8Tensor), INT8 (Int8Tensor), signed integers of 1 to 8 bits
        (IntxUnpackedToInt8Tensor; packed codes are spread to one a byte), INT4 with real zero points (Int4Tensor), MX (MXTensor),
        NVFP4 whose global scale multiplies (NVFP4Tensor).
    dtype
        The torch dtype that ``dequantize`` gives by default; None = torch.bfloat16.

    Raises ImportError where torchao is not installed, TypeError for arrays of another library, NotImplementedError for a recipe
    that it has no class for. Source: torchao 0.18.

    >>> import numpy as np, breccia
    >>> breccia.bridges.to_torchao(breccia.cast(np.ones((4, 32), np.float32), breccia.MXFP8BlockScaling()))
    Traceback (most recent call last):
    TypeError: a ScaledTensor over PyTorch tensors, with one of breccia's recipes, is needed
    """
    if not isinstance(st, ScaledTensor) or not isinstance(st.recipe, ScalingRecipe) or not frameworks._is_torch(st.data):
        raise TypeError("a ScaledTensor over PyTorch tensors, with one of breccia's recipes, is needed")
    import torch
    writer = _writer(st)
    if writer is None or st.group_index is not None:
        raise NotImplementedError(f"torchao has no class for {st.recipe.text} with {type(st.layout).__name__}")          # type: ignore[attr-defined]
    return writer(st, dtype or torch.bfloat16)
