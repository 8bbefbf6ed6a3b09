# SPDX-License-Identifier: Apache-2.0
"""The Python package as it is installed (`pip install .`), and the libraries it is compared with."""
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from shutil import which

import numpy as np
import pytest

from conftest import IN_CI, ROOT, absent

sys.path.append(str(Path(__file__).parent))            # recipes_list
collect_ignore_glob = []
if importlib.util.find_spec("breccia") is None:
    if IN_CI:
        raise pytest.UsageError("tests/python: the package breccia is not installed: make python")
    print("tests/python: left out: the package breccia is not installed (pip install .)")
    collect_ignore_glob = ["test_*.py"]


def _library(name):
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        absent(f"{name} is not installed ({missing})")


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def cmake():
    """CMake of this environment: Debian 12's knows no limited API yet (3.26 does)."""
    found = which("cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    return found or absent("cmake is not installed")


@pytest.fixture(scope="session")
def torch():
    return _library("torch")


@pytest.fixture(scope="session")
def jax():
    return _library("jax")


@pytest.fixture(scope="session")
def mx():
    return _library("mlx.core")


@pytest.fixture(scope="session")
def ml_dtypes():
    return _library("ml_dtypes")


@pytest.fixture
def x():
    """float32 [8, 256], with a block of zeros and wide magnitudes."""
    numbers = np.random.default_rng(7).standard_normal((8, 256)).astype(np.float32)
    numbers[1] *= 1000
    numbers[2, :128] = 0
    numbers[3] *= 1e-3
    return numbers
