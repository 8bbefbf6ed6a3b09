# SPDX-License-Identifier: Apache-2.0
"""What tests share: the C API, the golden vectors, real checkpoints, the command line."""
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings

import breccia_c

ROOT = breccia_c.ROOT
IN_CI = os.environ.get("CI") == "true"

settings.register_profile("same", derandomize=True)    # the same examples every time: a failure can be repeated
settings.load_profile("same")


LONGEST = ("test_host.py", "test_types.py", "test_levels.py", "test_sanitized.py", "test_examples.py")


def pytest_collection_modifyitems(items):
    """The longest come first: no processor waits for them at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def absent(what):
    """Skips with a clear word; under CI=true, where everything must be there, fails."""
    (pytest.fail if IN_CI else pytest.skip)(what)


@pytest.fixture(scope="session")
def brc():
    """The C API (tests/breccia_c.py)."""
    return breccia_c


@pytest.fixture(scope="session")
def golden():
    """Folder of the golden vectors: outputs of the real libraries. $BRECCIA_GOLDEN, or ../shared/golden; "none" leaves them out, where
    it is known that they are not there."""
    if os.environ.get("BRECCIA_GOLDEN") == "none":
        pytest.skip("left out: BRECCIA_GOLDEN=none")
    folder = Path(os.environ.get("BRECCIA_GOLDEN") or ROOT.parent / "shared" / "golden")
    if not folder.is_dir():
        absent(f"no golden vectors at {folder}; set BRECCIA_GOLDEN")
    return folder


def _model(name):
    """Path of a real checkpoint, downloaded once into .cache/models."""
    found = subprocess.run([ROOT / "scripts" / "fetch_model", name], capture_output=True, text=True)
    if found.returncode != 0:
        absent(found.stderr.strip() or f"{name} cannot be had")
    return Path(found.stdout.strip())


@pytest.fixture(scope="session")
def minilm():
    """all-MiniLM-L6-v2 as model.safetensors (F32, 22.7 M parameters)."""
    return _model("minilm")


@pytest.fixture(scope="session")
def fracast():
    """A small trained model as model.safetensors: 47 tensors with odd shapes."""
    return _model("fracast")


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2-135M-Instruct as model.gguf: 272 tensors, Q4_1 with F32 norms and Q8_0 embeddings."""
    return _model("smollm2")


@pytest.fixture(scope="session")
def breccia():
    """breccia("inspect", path, ...) runs the command line: .returncode, .stdout, .stderr (text)."""
    if not breccia_c.CLI.exists():
        absent(f"{breccia_c.CLI}: not built; run `make` first")

    def run(*arguments, **options):
        options = {"capture_output": True, "text": True, "timeout": 600, **options}
        return subprocess.run([breccia_c.CLI, *map(os.fspath, arguments)], **options)

    return run
