# SPDX-License-Identifier: Apache-2.0
"""NVIDIA GPUs. ``CUDA_AVAILABLE`` says whether this build has kernels for one that is there; importing this needs no GPU, and
the driver is looked for when the name is first read. ``why()`` says why there is none."""
from breccia import _c

__all__ = ["CUDA_AVAILABLE", "prepare", "why"]

CUDA_AVAILABLE: bool


def __getattr__(name: str) -> bool:
    if name != "CUDA_AVAILABLE":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = available = _c.cuda_devices()[0] > 0
    return available


def why() -> str:
    """Why CUDA_AVAILABLE is False; empty if it is True. Raises no Error. Source: include/breccia/breccia_cuda.h.

    >>> from breccia.kernels import cuda
    >>> cuda.CUDA_AVAILABLE == (cuda.why() == "")
    True
    """
    return _c.cuda_devices()[1]


def prepare() -> None:
    """Loads every kernel for the current device, which the first call of each otherwise does: before a graph is captured.

    RuntimeError where there is no driver or no device, NotImplementedError where there are no kernels for it. Source:
    include/breccia/breccia_cuda.h.

    >>> from breccia.kernels import cuda
    >>> if cuda.CUDA_AVAILABLE:
    ...     cuda.prepare()
    """
    _c.cuda_prepare()
