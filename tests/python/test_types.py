# SPDX-License-Identifier: Apache-2.0
"""The types: stubs agree with the extensions (mypy's stubtest), and the package passes mypy and basedpyright."""
import os
import subprocess
import sys
from pathlib import Path

import breccia

from conftest import absent


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def needs(module):
    if subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode != 0:
        absent(f"{module} is not installed")


def test_marker():
    assert (Path(breccia.__file__).parent / "py.typed").exists()


def test_stubtest(tmp_path):
    needs("mypy")
    run(sys.executable, "-m", "mypy.stubtest", "breccia._c", "breccia._file", cwd=tmp_path)


def test_mypy(root, tmp_path):
    needs("mypy")
    run(sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), cwd=root)


def test_basedpyright(root):
    needs("basedpyright")
    run(sys.executable, "-m", "basedpyright", cwd=root)


def test_every_public_name_has_a_type(tmp_path):
    """What py.typed promises, as a checker sees the installed package."""
    needs("basedpyright")
    done = subprocess.run([sys.executable, "-m", "basedpyright", "--verifytypes", "breccia", "--ignoreexternal"], cwd=tmp_path, text=True,
                          capture_output=True, env={**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])})
    assert done.returncode == 0 and "Type completeness score: 100%" in done.stdout, done.stdout


def test_inference(tmp_path):
    """What a user's checker sees."""
    needs("mypy")
    (tmp_path / "user.py").write_text(
        "import breccia\nimport numpy as np\n"
        "st = breccia.cast(np.ones((2, 32), np.float32), breccia.MXFP8BlockScaling())\n"
        "reveal_type(st)\nreveal_type(st.nbytes)\nbreccia.MXFP8BlockScaling(block='x')\n")
    said = subprocess.run([sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), "user.py"], cwd=tmp_path,
                          capture_output=True, text=True, env={k: v for k, v in os.environ.items() if k != "MYPYPATH"})
    for word in ("breccia._core.ScaledTensor", "user.py:5: note: Revealed type is", "int", "Unexpected keyword argument"):
        assert word in said.stdout
