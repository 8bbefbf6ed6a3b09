# SPDX-License-Identifier: Apache-2.0
"""DeepSeek-V3's FP8 tensors: codes with a multiplier for each 1x128 or 128x128 block."""
from typing import Any

from breccia._core import ScaledTensor, _array_like
from breccia.layouts import PerBlockK, PerBlockMN, _positive
from breccia.recipes import Float8BlockScaling

__all__ = ["from_deepseek_v3", "to_deepseek_v3"]

_DTYPES = {"E4M3": "float8_e4m3fn", "E5M2": "float8_e5m2"}     # what PyTorch and ml_dtypes call them


def from_deepseek_v3(data: Any, scale: Any, block_k: int = 128, fp8_format: str = "E4M3") -> ScaledTensor:
    """The weight and ``weight_scale_inv`` (a multiplier despite its name), or quantized activations, as a ScaledTensor.

    Parameters
    ----------
    data
        FP8 codes (.., N, K) of any library; uint8, or its float8 type.
    scale
        float32 (.., N, ceil(K/block_k)) for 1xblock_k blocks, or (.., ceil(N/block_k), ceil(K/block_k)) for square ones. Where one row
        of blocks makes both shapes the same, they mean the same.
    block_k, fp8_format
        128 and "E4M3" in every published checkpoint.

    Arrays are shared. Raises ValueError for a scale of another shape or type, or a transposed one, and for codes of another FP8 type.
    Source: the DeepSeek-V3 model card.

    >>> import numpy as np, breccia
    >>> st = breccia.bridges.from_deepseek_v3(np.full((256, 256), 56, np.uint8), np.ones((2, 2), np.float32))
    >>> st.layout, st.recipe.block_m
    (PerBlockMN(block_m=128, block_n=128, partial=False), 128)
    """
    _array_like(data, "data")
    _array_like(scale, "scale")
    _positive("block_k", block_k)
    shape, sides = tuple(data.shape), tuple(scale.shape)
    if len(shape) < 2:
        raise ValueError(f"data must be at least 2-D, got shape {shape}")
    rows, cols = shape[-2:]
    along = -(-cols // block_k)
    square, by_row = (*shape[:-2], -(-rows // block_k), along), (*shape[:-1], along)
    if sides not in (square, by_row):
        transposed = len(sides) == 2 and sides[::-1] in (square, by_row)
        raise ValueError(f"scale.shape {sides} {'is transposed: it' if transposed else ''} must be {by_row} for 1x{block_k} blocks or {square} "
                         f"for {block_k}x{block_k} blocks of data.shape {shape}".replace("  ", " "))
    own, numbers = str(data.dtype), str(scale.dtype)
    if "float8" in own and not own.endswith(_DTYPES.get(fp8_format, "")):
        raise ValueError(f"data is {own}, but fp8_format is {fp8_format!r}")
    if not numbers.endswith("float32"):
        raise ValueError(f"scale must be float32, got {numbers}; exponents b (UE8M0) are the numbers 2**(b - 127)")
    whole = cols % block_k == 0
    if sides == by_row:
        return ScaledTensor(data, scale, Float8BlockScaling(fp8_format, block_k, partial=not whole), PerBlockK(block_k, not whole))
    partial = not whole or rows % block_k != 0
    return ScaledTensor(data, scale, Float8BlockScaling(fp8_format, block_k, block_m=block_k, partial=partial),
                        PerBlockMN(block_k, block_k, partial))


def to_deepseek_v3(scaled: ScaledTensor) -> tuple[Any, Any]:
    """(data, scale_inv) of a ScaledTensor in blocks; the arrays are the value's own.

    Raises TypeError for what is no ScaledTensor, NotImplementedError for any other recipe. Source: the DeepSeek-V3 model card.

    >>> import numpy as np, breccia
    >>> data, scale_inv = breccia.bridges.to_deepseek_v3(breccia.cast(np.ones((2, 256), np.float32), breccia.Float8BlockScaling()))
    >>> scale_inv.shape
    (2, 2)
    """
    if not isinstance(scaled, ScaledTensor):
        raise TypeError(f"a ScaledTensor is needed, got {type(scaled).__name__}")
    if not isinstance(scaled.recipe, Float8BlockScaling) or scaled.layout._block[1:] not in ((1, scaled.recipe.block_k),
                                                                                            (scaled.recipe.block_k, scaled.recipe.block_k)):
        raise NotImplementedError(f"DeepSeek-V3 stores Float8BlockScaling in 1x128 or 128x128 blocks, not {type(scaled.recipe).__name__}; "
                                  "requantize to Float8BlockScaling")
    return scaled.data, scaled.scale
