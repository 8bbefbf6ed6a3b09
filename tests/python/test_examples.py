# SPDX-License-Identifier: Apache-2.0
"""The examples run, each in a process of its own, and prove what they say by their own assertions."""
import os
import re
import subprocess
import sys

import pytest

import breccia_c

DOCUMENTS = ["README.md", "docs/python.md"]
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


def blocks():
    """Every Python block of the documents, in order."""
    for name in DOCUMENTS:
        for number, text in enumerate(re.findall(r"^```python\n(.*?)^```", (breccia_c.ROOT / name).read_text(), re.M | re.S)):
            yield pytest.param(text, id=f"{name}-{number}")


@pytest.mark.parametrize("text", list(blocks()))
def test_documents(text, request, tmp_path, monkeypatch):
    """What a reader copies runs as it stands."""
    for library, fixture in (("torch", "torch"), ("jax", "jax"), ("mlx", "mx")):
        if f"import {library}" in text:
            request.getfixturevalue(fixture)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(text, names)
    if "gradient" in names:
        assert names["gradient"].shape == (64, 128) and names["stacked"].shape == (4, 64, 128)
    if "layer" in names:
        assert names["x"].grad.abs().sum() > 0
