# SPDX-License-Identifier: Apache-2.0
"""Ways to and from other libraries and files."""
from breccia.bridges._dlpack import from_dlpack, to_dlpack

__all__ = ["to_dlpack", "from_dlpack"]
