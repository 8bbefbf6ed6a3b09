# SPDX-License-Identifier: Apache-2.0
"""NVIDIA GPUs. ``CUDA_AVAILABLE`` says whether this build reaches one; importing this needs no GPU."""

__all__ = ["CUDA_AVAILABLE"]

CUDA_AVAILABLE: bool = False
