# SPDX-License-Identifier: Apache-2.0
"""The Python package on a real GPU (check_gpu_python.py), where there is one that this build has kernels for."""
import subprocess
import sys

import pytest

from breccia_c import ROOT


def test_on_a_gpu():
    cuda = pytest.importorskip("breccia.kernels.cuda", reason="the package breccia is not installed: make python")
    if not cuda.CUDA_AVAILABLE:
        pytest.skip(f"no GPU to run on: {cuda.why()}")
    done = subprocess.run([sys.executable, ROOT / "tests" / "cuda" / "check_gpu_python.py"], capture_output=True, text=True, timeout=1800)
    assert done.stdout.rstrip().endswith("PYTHON ON GPU RIGHT"), done.stdout[-4000:] + done.stderr[-4000:]
