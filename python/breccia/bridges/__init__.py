# SPDX-License-Identifier: Apache-2.0
"""Ways to and from other libraries and files."""
from breccia.bridges._dlpack import from_dlpack, to_dlpack
from breccia.bridges._checkpoint import Checkpoint, open
from breccia.bridges._safetensors import load_safetensors, save_safetensors

__all__ = ["save_safetensors", "load_safetensors", "open", "Checkpoint", "to_dlpack", "from_dlpack"]
