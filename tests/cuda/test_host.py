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


def run(parts, folder, **variables):
    """Lines that the parts printed."""
    environment = {**os.environ, "NVCC": "none", "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"],
                   "BRECCIA_CPU": str(BUILD / "lib" / "libbreccia.so"), **variables}
    done = subprocess.run(["sh", ROOT / "tests" / "cuda" / "run", folder, *parts.split()], env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    lines = done.stdout.splitlines()
    if lines[-1].endswith(NO_HEADERS):
        pytest.skip(lines[-1])
    return lines


def test_host(tmp_path):
    assert sum(line.endswith(": right") for line in run("host", tmp_path)) >= 6


# Casts and the package share the driver, which takes long to compile.
CLOSING = {"casts python": (" 0 differ", " right"), "narrow": (" 0 differ",), "products": (" right",)}


@pytest.mark.parametrize("parts", CLOSING)
def test_emulated(tmp_path, parts):
    lines = run(parts, tmp_path)
    for closing in CLOSING[parts]:
        assert any(line.endswith(closing) for line in lines), lines


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", ("casts", "narrow"))
def test_emulated_whole(tmp_path, part):
    assert run(part, tmp_path, EMULATED="all")[-1].endswith(" 0 differ")
