# SPDX-License-Identifier: Apache-2.0
"""cast, dequantize, requantize under their old address."""
from breccia._ops import cast, dequantize, requantize

__all__ = ["cast", "dequantize", "requantize"]
