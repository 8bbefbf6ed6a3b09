# SPDX-License-Identifier: Apache-2.0
"""matmul under its old address."""
from breccia._ops import matmul

__all__ = ["matmul"]
