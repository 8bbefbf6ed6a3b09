# SPDX-License-Identifier: Apache-2.0
"""Ways to and from other libraries and files."""
from breccia.bridges._checkpoint import Checkpoint, open
from breccia.bridges._deepseek import from_deepseek_v3, to_deepseek_v3
from breccia.bridges._dlpack import from_dlpack, to_dlpack
from breccia.bridges._safetensors import load_safetensors, save_safetensors
from breccia.bridges._state_dict import to_compressed_tensors, to_state_dict
from breccia.bridges._torchao import from_torchao, to_torchao
from breccia.bridges._transformer_engine import from_transformer_engine, to_transformer_engine

__all__ = ["save_safetensors", "load_safetensors", "open", "Checkpoint", "to_dlpack", "from_dlpack", "from_transformer_engine",
           "to_transformer_engine", "from_torchao", "to_torchao", "from_deepseek_v3", "to_deepseek_v3", "to_state_dict",
           "to_compressed_tensors"]
