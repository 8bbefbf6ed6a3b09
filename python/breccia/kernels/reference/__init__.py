# SPDX-License-Identifier: Apache-2.0
"""The operations on the CPU: libbreccia's, whose reference kernels define every result."""
from breccia.kernels.reference.cast import cast, dequantize, requantize
from breccia.kernels.reference.matmul import matmul

__all__ = ["cast", "dequantize", "requantize", "matmul"]
