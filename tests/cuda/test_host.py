# SPDX-License-Identifier: Apache-2.0
"""The GPU part where there is no GPU (tests/cuda/run): the planner, every status text and the launch path on a stub driver; where CUDA's
headers are, the kernels compiled for this processor, against the CPU's casts, NumPy and torch. The kernels themselves are compiled by
src/cuda/build.sh."""
import os
import subprocess
import sys

import pytest

from breccia_c import BUILD, ROOT

NO_HEADERS = "not run (CUDA's headers are missing)"


def run(part, folder, **variables):
    """Lines that the part printed."""
    environment = {**os.environ, "NVCC": "none", "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"],
                   "BRECCIA_CPU": str(BUILD / "lib" / "libbreccia.so"), **variables}
    done = subprocess.run(["sh", ROOT / "tests" / "cuda" / "run", folder, part], env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    lines = done.stdout.splitlines()
    if lines[-1].endswith(NO_HEADERS):
        pytest.skip(lines[-1])
    return lines


def test_host(tmp_path):
    assert sum(line.endswith(": right") for line in run("host", tmp_path)) >= 6


CLOSING = {"casts": " 0 differ", "narrow": " 0 differ", "products": " right", "python": " right"}


@pytest.mark.parametrize("part", CLOSING)
def test_emulated(tmp_path, part):
    assert run(part, tmp_path)[-1].endswith(CLOSING[part])


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", ("casts", "narrow"))
def test_emulated_whole(tmp_path, part):
    assert run(part, tmp_path, EMULATED="all")[-1].endswith(CLOSING[part])
