# SPDX-License-Identifier: Apache-2.0
"""Kernels by where they run. All are libbreccia's; ``breccia.cast`` and the others choose by themselves."""
from breccia.kernels import cuda, reference, triton

__all__ = ["reference", "cuda", "triton"]
