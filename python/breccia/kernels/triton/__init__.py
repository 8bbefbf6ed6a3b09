# SPDX-License-Identifier: Apache-2.0
"""Kept so that old imports work: breccia's GPU kernels are CUDA C (``breccia.kernels.cuda``), none are Triton's."""

__all__ = ["TRITON_AVAILABLE"]

TRITON_AVAILABLE: bool = False
