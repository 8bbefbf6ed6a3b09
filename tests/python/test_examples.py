# SPDX-License-Identifier: Apache-2.0
"""The examples run, each in a process of its own, and prove what they say by their own assertions."""
import os
import subprocess
import sys

import pytest

import breccia_c

FOLDER = breccia_c.ROOT / "examples" / "python"
EXAMPLES = sorted(path.name for path in FOLDER.glob("*.py"))
NEEDS = {"02_recipe_portable_train.py": ["torch"], "03_checkpoint_with_scale.py": ["torch"], "04_te_migration.py": ["torch"],
         "05_linear_layers.py": ["torch", "jax"]}


def test_all_are_there():
    assert [name[:2] for name in EXAMPLES] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, request, tmp_path):
    for library in NEEDS.get(name, []):
        request.getfixturevalue(library)
    ran = subprocess.run([sys.executable, FOLDER / name], cwd=tmp_path, capture_output=True, text=True, timeout=600,
                         env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.strip()
