# SPDX-License-Identifier: Apache-2.0
"""The GPU part where there is no GPU: the planner, every status text, the launch path on a stub driver, and, where CUDA's headers
are, the cast kernels compiled for this processor against the CPU's and the product kernels against torch. The kernels themselves are compiled by src/cuda/build.sh."""
import os
import subprocess
import sys

from breccia_c import BUILD, ROOT


def test_without_a_gpu(tmp_path):
    environment = {**os.environ, "NVCC": "none", "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"], "BRECCIA_CPU": str(BUILD / "lib" / "libbreccia.so")}
    done = subprocess.run(["sh", ROOT / "tests" / "cuda" / "run", tmp_path / "out"], env=environment, capture_output=True, text=True,
                          timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert sum(line.endswith(": right") for line in lines) >= 6, done.stdout
    assert any(line.endswith(" 0 differ") or line.startswith("emulated casts: not run") for line in lines), done.stdout
    assert lines[-1].startswith("emulated products: ") and lines[-1].endswith((" right", "are missing)")), lines[-1]
