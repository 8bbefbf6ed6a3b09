# SPDX-License-Identifier: Apache-2.0
"""Tensors in memory as the state dict of a system that keeps them in safetensors files."""
import json
from collections.abc import Mapping
from typing import Any

from breccia import _frameworks as frameworks
from breccia.bridges._checkpoint import _array
from breccia.bridges._safetensors import _rows

__all__ = ["to_compressed_tensors", "to_state_dict"]


def to_state_dict(tensors: Mapping[str, Any], dialect: str, framework: str = "torch") -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays by which a dialect stores tensors, without a file, and the texts that go beside them.

    Parameters
    ----------
    tensors
        name ("layers.0.q.weight") -> ScaledTensor or array, as ``save_safetensors`` takes them.
    dialect
        One that is written: ``breccia formats``, docs/dialects.md.
    framework
        Whose arrays: "numpy", "torch", "jax" or "mlx". FP8 gets the library's own type where it has one.

    Returns
    -------
    (state, texts)
        ``state``: name -> array. ``texts``: "config.json" -> its members, other files, and "__metadata__". GGUF's blocks are bytes
        (.., bytes of a row) whose types are ``texts["types"]``: gguf-py's ``GGUFWriter.add_tensor`` takes them with
        ``raw_dtype=gguf.GGMLQuantizationType[type]``.

    Raises NotImplementedError for a recipe that the dialect has no place for. Source: docs/dialects.md.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.ones((128, 128), np.float32), breccia.Float8BlockScaling(block_m=128))
    >>> state, texts = breccia.bridges.to_state_dict({"up.weight": st}, "deepseek", "numpy")
    >>> sorted(state), texts["config.json"]["quantization_config"]["weight_block_size"]
    (['up.weight', 'up.weight_scale_inv'], [128, 128])
    """
    from breccia import _file
    library = frameworks.named(framework)
    arrays, written = _file.arrays(dialect, _rows(tensors))
    state: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    for name, format, shape, memory, blocks in arrays:
        if blocks is not None:
            texts.setdefault("types", {})[name] = blocks
        array = _array(format, shape, memory)
        state[name] = array if library is frameworks.numpy else library.adopt(array, format)
    for file, member, text in written:
        if file is None:
            texts.setdefault("__metadata__", {})[member] = text
        elif member is None:
            texts[file] = text
        else:
            texts.setdefault(file, {})[member] = json.loads(text)
    return state, texts


def to_compressed_tensors(tensors: Mapping[str, Any], framework: str = "torch") -> tuple[dict[str, Any], dict[str, Any]]:
    """The state dict that compressed-tensors keeps for these tensors, and the quantization_config that says how to read it.

    Parameters
    ----------
    tensors
        name ("layers.0.q.weight") -> ScaledTensor or array, as ``save_safetensors`` takes them.
    framework
        Whose arrays: "numpy", "torch", "jax" or "mlx".

    Returns
    -------
    (state, config)
        ``state``: name -> array. ``config``: the object that goes into config.json, or into ``QuantizationConfig.model_validate``.

    NVFP4 gets the global scale as a divisor: its reciprocal, rounded. Raises NotImplementedError for a recipe that
    compressed-tensors has no format for. Source: docs/dialects.md.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.ones((64, 32), np.float32), breccia.MXFP8BlockScaling())
    >>> state, config = breccia.bridges.to_compressed_tensors({"up.weight": st}, "numpy")
    >>> sorted(state), config["format"]
    (['up.weight', 'up.weight_scale'], 'mxfp8-quantized')
    """
    state, texts = to_state_dict(tensors, "compressed-tensors", framework)
    return state, texts.get("config.json", {}).get("quantization_config", {})
