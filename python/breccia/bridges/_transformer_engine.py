# SPDX-License-Identifier: Apache-2.0
"""TransformerEngine's quantized tensors, both ways. Codes are shared, never copied; scales are views where the padding can be
cut off, copies where it has to be made. Classes are told by their names, so that any version from 2.0 on serves.

Source: transformer_engine/pytorch/tensor/*_tensor.py of TransformerEngine 2.20; its buffers, docs/dialects.md."""
from typing import Any

from breccia import _frameworks as frameworks
from breccia._core import ScaledTensor
from breccia.layouts import PerBlockK, PerBlockMN, PerTensor
from breccia.recipes import (CustomScaling, DelayedScaling, Float8BlockScaling, Float8CurrentScaling, MXFP8BlockScaling,
                             ScalingRecipe)

__all__ = ["from_transformer_engine", "to_transformer_engine"]

_KINDS = ("Float8Tensor", "Float8BlockwiseQTensor", "MXFP8Tensor", "NVFP4Tensor")
_BLOCK = 128                                  # of Float8BlockwiseQTensor, the only length its quantizer has


def _kind(tensor: Any) -> str:
    names = {cls.__name__.removesuffix("Storage").removesuffix("Base") for cls in type(tensor).__mro__}
    for kind in _KINDS:
        if kind in names:
            return kind
    raise TypeError(f"a quantized tensor of TransformerEngine is needed ({', '.join(_KINDS)}), got {type(tensor).__name__}")


def _format(tensor: Any) -> str:
    """E4M3 or E5M2, of a DType that may be an enum of C++ or of Python, whose members print as their names or as numbers."""
    dtype = tensor._fp8_dtype
    name = str(getattr(dtype, "name", dtype))
    for format in ("E4M3", "E5M2"):
        if name.endswith(format):
            return format
    raise TypeError(f"_fp8_dtype of this {_kind(tensor)} is {name}, neither E4M3 nor E5M2")


def _codes(data: Any, format: str) -> Any:
    import torch
    own = torch.float8_e5m2 if format == "E5M2" else torch.float8_e4m3fn
    if data.dtype not in (torch.uint8, own):
        raise TypeError(f"data of {format} is uint8 or {own}, got {data.dtype}")
    return data.view(own)


def _table(found: Any, names: tuple[str, ...], sides: tuple[int, int], padding: tuple[int, int]) -> Any:
    """Scales without their padding: as they are, or padded to multiples. Any other shape is of another tensor or another order."""
    padded = (_up(sides[0], padding[0]), _up(sides[1], padding[1]))
    if str(found.dtype).removeprefix("torch.") not in names:
        raise TypeError(f"scales are {' or '.join(names)} here, got {found.dtype}")
    if tuple(found.shape) not in (sides, padded):
        raise ValueError(f"scales are {list(sides)} here, or {list(padded)} with padding, got {list(found.shape)}")
    return found[:sides[0], :sides[1]]


def _bytes_table(tensor: Any, found: Any, sides: tuple[int, int], padding: tuple[int, int], own: str) -> Any:
    """Scales of one byte; those of a product's order lie in tiles of 128x4 (cuBLAS, 1D block scaling factors)."""
    if getattr(tensor, "_with_gemm_swizzled_scales", False):
        rows, cols = _up(sides[0], 128), _up(sides[1], 4)
        found = _table(found, ("uint8", own), (rows, cols), (1, 1))
        found = found.reshape(rows // 128, cols // 4, 32, 4, 4).permute(0, 3, 2, 1, 4).reshape(rows, cols)
        padding = (128, 4)
    return _table(found, ("uint8", own), sides, padding)


def _number(found: Any, rows: int | None = None) -> Any:
    """One float32 number, or one for each row."""
    if found is None or str(found.dtype) != "torch.float32":
        raise TypeError(f"a tensor's scale or amax is float32, got {getattr(found, 'dtype', None)}")
    if found.numel() != (rows or 1):
        raise ValueError(f"a scale or amax is {f'{rows} numbers, one for each row,' if rows else 'one number'} here, got {list(found.shape)}")
    return found.reshape(() if rows is None else (rows,))


def _copy(tensor: Any, usage: str, names: tuple[str, str]) -> Any:
    found = getattr(tensor, names[usage == "columnwise"], None)
    if found is None:
        other = "columnwise" if usage == "rowwise" else "rowwise"
        raise ValueError(f"this {_kind(tensor)} has no {usage} copy; usage={other!r} gives the one it has")
    return found


def _data(tensor: Any, usage: str, names: tuple[str, str]) -> Any:
    """Codes; a transposed copy [K, ..] of leading dimensions is the matrix [K, M] that its scales are of."""
    data = _copy(tensor, usage, names)
    return data if usage == "rowwise" or len(data.shape) == 2 else data.reshape(data.shape[0], -1)


def _matrix(shape: Any) -> tuple[int, int]:
    rows = 1
    for side in shape[:-1]:
        rows *= side
    return rows, shape[-1]


def _float8(tensor: Any, usage: str) -> ScaledTensor:
    format = _format(tensor)
    data = _data(tensor, usage, ("_data", "_transpose"))
    if usage == "columnwise" and getattr(tensor, "_transpose_invalid", False):
        raise ValueError("the columnwise copy of this Float8Tensor is out of date")
    delayed = "Float8Quantizer" in type(getattr(tensor, "_quantizer", None)).__name__
    recipe = DelayedScaling(format) if delayed else Float8CurrentScaling(format)
    return ScaledTensor(_codes(data, format), _number(getattr(tensor, "_scale_inv", None)), recipe, PerTensor())


def _blockwise(tensor: Any, usage: str) -> ScaledTensor:
    format, square = _format(tensor), bool(tensor._is_2D_scaled)
    data = _data(tensor, usage, ("_rowwise_data", "_columnwise_data"))
    scale = _copy(tensor, usage, ("_rowwise_scale_inv", "_columnwise_scale_inv"))
    rows, cols = _matrix(data.shape)
    blocks = -(-cols // _BLOCK)
    compact = "COMPACT" in str(getattr(tensor, "_data_format", ""))                # of versions before 2.12
    if compact and usage == "columnwise":
        raise NotImplementedError("the columnwise copy of a compact Float8BlockwiseQTensor is not transposed, and not read")
    if square:
        scale = _table(scale, ("float32",), (-(-rows // _BLOCK), blocks), (1, 4))
    elif compact:
        scale = _table(scale, ("float32",), (rows, blocks), (4, 1))
    else:
        scale = _table(scale, ("float32",), (blocks, rows), (1, 4)).T
    pow2 = bool(getattr(getattr(tensor, "_quantizer", None), "force_pow_2_scales", True))
    partial = cols % _BLOCK != 0 or (square and rows % _BLOCK != 0)
    recipe = Float8BlockScaling(format, block_m=_BLOCK if square else 1, power_of_two=pow2, arith="te", partial=partial)
    layout: Any = PerBlockMN(_BLOCK, _BLOCK, partial) if square else PerBlockK(_BLOCK, partial)
    if square and len(data.shape) > 2:                            # blocks run over the rows of all matrices
        data = data.reshape(rows, cols)
    return ScaledTensor(_codes(data, format), scale.reshape(*data.shape[:-1], blocks) if not square else scale, recipe, layout)


def _mxfp8(tensor: Any, usage: str) -> ScaledTensor:
    format = _format(tensor)
    data = _copy(tensor, usage, ("_rowwise_data", "_columnwise_data"))
    scale = _copy(tensor, usage, ("_rowwise_scale_inv", "_columnwise_scale_inv"))
    rows, cols = _matrix(data.shape)
    if usage == "columnwise":                                     # not transposed: 32 rows share a scale
        return ScaledTensor(_codes(data.reshape(rows, cols), format),
                            _bytes_table(tensor, scale, (-(-rows // 32), cols), (4, 128), "float8_e8m0fnu"),
                            CustomScaling(f"mxfp8:format={format.lower()},block=32x1"), PerBlockMN(32, 1))
    scale = _bytes_table(tensor, scale, (rows, -(-cols // 32)), (128, 4), "float8_e8m0fnu")
    return ScaledTensor(_codes(data, format), scale.reshape(*data.shape[:-1], -(-cols // 32)), MXFP8BlockScaling(format),
                        PerBlockMN(1, 32))


def _nvfp4(tensor: Any, usage: str) -> ScaledTensor:
    data = _data(tensor, usage, ("_rowwise_data", "_columnwise_data"))
    scale = _copy(tensor, usage, ("_rowwise_scale_inv", "_columnwise_scale_inv"))
    amax = _copy(tensor, usage, ("_amax_rowwise", "_amax_columnwise"))
    rows, cols = _matrix(data.shape)
    blocks = -(-2 * cols // 16)
    scale = _bytes_table(tensor, scale, (rows, blocks), (128, 4), "float8_e4m3fn")
    largest = getattr(tensor, "_nvfp4_e4m3_max", 448) if getattr(tensor, "_nvfp4_use_4over6", False) else 448
    by_row = bool(getattr(tensor, "_row_scaled_nvfp4", False))
    recipe = CustomScaling(f"stored:format=e2m1,scale=e4m3,block=1x16,global=amax/{6 * largest}{'@row' if by_row else ''}")
    return ScaledTensor(data, scale.reshape(*data.shape[:-1], blocks), recipe, PerBlockMN(1, 16),
                        global_scale=_number(amax, rows if by_row else None))


_READ = {"Float8Tensor": _float8, "Float8BlockwiseQTensor": _blockwise, "MXFP8Tensor": _mxfp8, "NVFP4Tensor": _nvfp4}


def from_transformer_engine(tensor: Any, usage: str = "rowwise") -> ScaledTensor:
    """A quantized tensor of TransformerEngine as a ScaledTensor over the same memory.

    Parameters
    ----------
    tensor
        Float8Tensor, Float8BlockwiseQTensor (1x128 and 128x128), MXFP8Tensor or NVFP4Tensor, or one of their storage classes.
    usage
        "rowwise": shape (.., M, K). "columnwise": the other copy, which has codes and scales of its own. It is stored transposed
        and comes as such, shape (K, M); but for MXFP8, whose copy is (M, K) with one scale for 32 rows.

    The padding of the scales is cut off and the order of a matrix product's scales undone. NVFP4 keeps its amax as the global scale:
    value = code * ((scale * amax) * f32(1/2688)). A random Hadamard transform of columnwise NVFP4 data is not undone.

    Raises TypeError for another class and for buffers of other types, ValueError for a copy that is not there and for scales that have not the
    shape of this tensor's. Source: TransformerEngine 2.20.

    >>> import breccia
    >>> breccia.bridges.from_transformer_engine(1.0)
    Traceback (most recent call last):
    TypeError: a quantized tensor of TransformerEngine is needed (Float8Tensor, Float8BlockwiseQTensor, MXFP8Tensor, NVFP4Tensor), got float
    """
    if usage not in ("rowwise", "columnwise"):
        raise ValueError(f"usage must be 'rowwise' or 'columnwise', got {usage!r}")
    return _READ[_kind(tensor)](tensor, usage)


# ------------------------------------------------------------------------------------------------------------ back

def _library() -> tuple[Any, Any]:
    try:
        import transformer_engine.pytorch as te
        import transformer_engine_torch as tex
    except ImportError as missing:
        raise ImportError("to_transformer_engine needs TransformerEngine: pip install transformer-engine[pytorch]") from missing
    return te, tex


def _classes(te: Any, kind: str) -> Any:
    from importlib import import_module
    module = {"Float8Tensor": "float8_tensor", "Float8BlockwiseQTensor": "float8_blockwise_tensor", "MXFP8Tensor": "mxfp8_tensor",
              "NVFP4Tensor": "nvfp4_tensor"}[kind]
    return getattr(import_module(f"{te.__name__}.tensor.{module}"), kind)


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


def _padded(scale: Any, rows: int, cols: int) -> Any:
    """A matrix of scales in the corner of a larger one; the rest is zero."""
    out = scale.new_zeros((rows, cols))
    out[:scale.shape[0], :scale.shape[1]] = scale
    return out


def _bytes(x: Any) -> Any:
    import torch
    return x if x.dtype == torch.uint8 else x.view(torch.uint8)


def _write(st: ScaledTensor) -> tuple[str, dict[str, Any]]:
    """Class and buffers."""
    element, scales, block, levels = st.recipe._element, st.recipe._scale, st.layout._block, st.recipe._levels
    rows, cols = _matrix(st.shape)
    data = _bytes(st.data)
    if element in ("e4m3", "e5m2") and scales == "f32" and block == (0, 0, 0) and st.zero_point is None:
        return "Float8Tensor", {"data": data, "fp8_scale_inv": st.scale.reshape(1), "data_transpose": None}
    if element in ("e4m3", "e5m2") and scales == "f32" and block[1:] in ((1, _BLOCK), (_BLOCK, _BLOCK)) and (block[1] == 1 or st.ndim == 2):
        scale = st.scale.reshape(-1, st.scale.shape[-1])
        square = block[1] == _BLOCK
        scale = _padded(scale, scale.shape[0], _up(scale.shape[1], 4)) if square else _padded(scale.T, scale.shape[1], _up(rows, 4))
        return "Float8BlockwiseQTensor", {"rowwise_data": data, "rowwise_scale_inv": scale, "is_2D_scaled": square}
    if element in ("e4m3", "e5m2") and scales == "e8m0" and block[1:] == (1, 32):
        scale = _bytes(st.scale).reshape(rows, cols // 32)
        return "MXFP8Tensor", {"rowwise_data": data, "rowwise_scale_inv": _padded(scale, _up(rows, 128), _up(cols // 32, 4)),
                               "with_gemm_swizzled_scales": False}
    if element == "e2m1" and scales == "e4m3" and block[1:] == (1, 16) and levels == 2:
        scale = _bytes(st.scale).reshape(rows, cols // 16)
        kind, constant, by_row = _level(st)
        amax = st.global_scale if kind == "amax" else st.global_scale * 2688.0
        return "NVFP4Tensor", {"rowwise_data": data, "rowwise_scale_inv": _padded(scale, _up(rows, 128), _up(cols // 16, 4)),
                               "amax_rowwise": amax.reshape(-1), "amax_columnwise": None, "with_gemm_swizzled_scales": False,
                               **({"row_scaled_nvfp4": True} if by_row else {}),
                               **({"nvfp4_use_4over6": True, "nvfp4_e4m3_max": constant // 6} if constant != 2688 else {})}
    raise NotImplementedError(f"TransformerEngine has no class for {type(st.recipe).__name__} with {type(st.layout).__name__}; requantize to "
                              "Float8CurrentScaling, Float8BlockScaling, MXFP8BlockScaling or NVFP4BlockScaling")


def _level(st: ScaledTensor) -> tuple[str, int, bool]:
    """Kind of the global scale, the constant of an amax, and whether there is one a row."""
    text = st.recipe.text
    words = dict(pair.split("=", 1) for pair in text.partition(":")[2].split(",") if pair)
    if not text.startswith("stored:"):
        if words.get("arith") in ("div", "ct"):
            raise NotImplementedError("the global scale is a divisor; requantize to NVFP4BlockScaling")
        return "multiplier", 2688, False
    kind, _, block = words.get("global", "multiplier").partition("@")
    kind, _, constant = kind.partition("/")
    if kind == "divisor" or block not in ("", "row"):
        raise NotImplementedError(f"TransformerEngine stores an amax; this global scale is {words.get('global')}")
    return kind, int(constant or 2688), block == "row"


def to_transformer_engine(st: ScaledTensor, dtype: Any = None, columnwise: ScaledTensor | None = None) -> Any:
    """A ScaledTensor of PyTorch as TransformerEngine's tensor class, over the same codes.

    Parameters
    ----------
    st
        Float8CurrentScaling or DelayedScaling (Float8Tensor), Float8BlockScaling 1x128 and 128x128 with float32 scales
        (Float8BlockwiseQTensor), MXFP8BlockScaling (MXFP8Tensor), NVFP4BlockScaling of two levels (NVFP4Tensor).
    dtype
        The nominal torch dtype; None = torch.bfloat16.
    columnwise
        The other copy, as ``from_transformer_engine(.., usage="columnwise")`` gives it; None = the tensor has none.

    The scales are copied into the padded shapes that TransformerEngine wants. An NVFP4 global scale that multiplies becomes an amax,
    times 2688 and rounded to float32: values move by an ulp at most; one that came from TransformerEngine is an amax already.

    Raises ImportError where TransformerEngine is not installed, TypeError for arrays of another library, NotImplementedError for
    a recipe it has no class for. Source: TransformerEngine 2.20.

    >>> import numpy as np, breccia
    >>> breccia.bridges.to_transformer_engine(breccia.cast(np.ones((4, 32), np.float32), breccia.MXFP8BlockScaling()))
    Traceback (most recent call last):
    TypeError: a ScaledTensor over PyTorch tensors, with one of breccia's recipes, is needed
    """
    if not isinstance(st, ScaledTensor):
        raise TypeError(f"a ScaledTensor is needed, got {type(st).__name__}")
    if not isinstance(st.recipe, ScalingRecipe) or not frameworks._is_torch(st.data):
        raise TypeError("a ScaledTensor over PyTorch tensors, with one of breccia's recipes, is needed")
    kind, buffers = _write(st)
    te, tex = _library()
    import torch
    number = {"e4m3": "kFloat8E4M3", "e5m2": "kFloat8E5M2", "e2m1": "kFloat4E2M1"}[st.recipe._element]     # type: ignore[attr-defined]
    if kind != "Float8Tensor":
        buffers = {"columnwise_data": None, "columnwise_scale_inv": None} | buffers
    if columnwise is not None:
        buffers |= _other(kind, columnwise)
    buffers["fp4_dtype" if kind == "NVFP4Tensor" else "fp8_dtype"] = getattr(tex.DType, number)
    return _classes(te, kind)(shape=st.shape, dtype=dtype or torch.bfloat16, quantizer=None, **buffers)


def _other(kind: str, columnwise: ScaledTensor) -> dict[str, Any]:
    """The buffers of a columnwise copy."""
    if kind == "MXFP8Tensor":
        rows, cols = _matrix(columnwise.shape)
        return {"columnwise_data": _bytes(columnwise.data),
                "columnwise_scale_inv": _padded(_bytes(columnwise.scale), _up(-(-rows // 32), 4), _up(cols, 128))}
    found, buffers = _write(columnwise)
    if found != kind:
        raise ValueError(f"the columnwise copy is of another kind: {found}, not {kind}")
    if kind == "Float8Tensor":
        return {"data_transpose": buffers["data"]}
    names = {"rowwise_data": "columnwise_data", "rowwise_scale_inv": "columnwise_scale_inv", "amax_rowwise": "amax_columnwise"}
    return {new: buffers[old] for old, new in names.items() if old in buffers}
