# SPDX-License-Identifier: Apache-2.0
"""One command builds sdist and wheel; the wheel is one for every CPython from 3.11, small, complete, and works where it is installed."""
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from shutil import which

import pytest

from conftest import absent

SCRIPT = """
import doctest
import importlib
import pkgutil
import sys
import numpy as np
import breccia
from breccia.bridges import load_safetensors, save_safetensors
assert breccia.__file__.startswith(sys.prefix), breccia.__file__
x = np.random.default_rng(0).standard_normal((8, 256)).astype(np.float32)
tensors = {text: breccia.cast(x, breccia.recipes.from_text(text)) for text in breccia._c.RECIPES if text != "fp8-block128"}
for st in tensors.values():
    assert np.isfinite(breccia.matmul(st, x, transpose_b=True)).all()
save_safetensors(tensors, "all.safetensors")
assert load_safetensors("all.safetensors") == tensors
jansson = {line.split()[-1] for line in open("/proc/self/maps") if "jansson" in line} if sys.platform == "linux" else set()
assert all(path.startswith(sys.prefix) for path in jansson), jansson
names = [m.name for m in pkgutil.walk_packages(breccia.__path__, "breccia.")]
modules = [importlib.import_module(name) for name in names if name.rpartition(".")[2] not in ("_torch", "_jax", "_jax_gpu", "_mlx", "_cupy")]
found = [doctest.testmod(m, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL) for m in [breccia, *modules]]
assert sum(one.attempted for one in found) > 50 and not any(one.failed for one in found), found
print("works")
"""


@pytest.fixture(scope="module")
def dist(root, cmake, tmp_path_factory):
    """A folder with both: $BRECCIA_DIST, where they have been built (`make python`, ci.yml)."""
    if os.environ.get("BRECCIA_DIST"):
        return root / os.environ["BRECCIA_DIST"]
    if subprocess.run([sys.executable, "-c", "import build, scikit_build_core"], capture_output=True).returncode != 0:
        absent("build and scikit-build-core are not installed")
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, root], capture_output=True, text=True,
                          env={**os.environ, "PATH": os.pathsep.join([os.path.dirname(cmake), os.environ["PATH"]])})
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return folder


def test_wheel(dist):
    (wheel,) = dist.glob("*.whl")
    assert "-cp311-abi3-" in wheel.name and wheel.stat().st_size < 2 << 20
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.endswith((".c", ".h", ".txt", ".a")) and "licenses" not in name]
    binaries = sorted(name for name in names if ".so" in name)
    assert binaries == ["breccia/_c.abi3.so", "breccia/_file.abi3.so"] + ["breccia/libjansson.so.4"] * (sys.platform == "linux")
    assert {"breccia/py.typed", "breccia/_c.pyi", "breccia/_file.pyi"} <= set(names)
    metadata = zipfile.ZipFile(wheel).read(next(name for name in names if name.endswith("METADATA"))).decode()
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert required == ["Requires-Dist: numpy>=1.26"] and "Requires-Python: >=3.11" in metadata


def test_stable_abi(dist):
    """Every symbol that the extensions take from CPython is in the stable ABI of 3.11, which all later versions keep."""
    if subprocess.run([sys.executable, "-c", "import abi3audit"], capture_output=True).returncode != 0:
        absent("abi3audit is not installed")
    (wheel,) = dist.glob("*.whl")
    done = subprocess.run([sys.executable, "-m", "abi3audit", "--strict", "--report", wheel], capture_output=True, text=True)
    results = [one["result"] for spec in json.loads(done.stdout)["specs"].values() for one in spec["wheel"]]
    assert done.returncode == 0 and len(results) == 2, done.stdout + done.stderr
    assert all(one["is_abi3"] and one["is_abi3_baseline_compatible"] and one["baseline"] == "3.11" for one in results), results


def test_sdist(root, dist):
    """The wheel above was built from it: `build` makes the sdist first. Everything that the wheel may be compiled from is in it."""
    (sdist,) = dist.glob("*.tar.gz")
    names = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
    sources = {str(path.relative_to(root)) for folder in ("src", "include", "python", "cmake") for path in (root / folder).rglob("*")
               if path.suffix in (".c", ".h", ".inc", ".def", ".txt", ".in", ".cmake", ".py", ".pyi")}
    assert {"pyproject.toml", "LICENSE", "CMakeLists.txt", "python/CMakeLists.txt", "include/breccia/breccia.h", "src/core/tensor.c"} | sources <= names
    assert not [name for name in names if name.startswith(("tests/", "build", ".git/", "bench/"))]


def interpreters():
    """This one, and the others of 3.11 to 3.14 that are on the path."""
    found = [sys.executable]
    for version in ("3.11", "3.12", "3.13", "3.14"):
        name = which(f"python{version}")
        if version != f"{sys.version_info[0]}.{sys.version_info[1]}" and name and subprocess.run([name, "-c", ""], capture_output=True).returncode == 0:
            found.append(name)
    return found


@pytest.mark.parametrize("interpreter", interpreters(), ids=os.path.basename)
def test_in_a_clean_environment(dist, tmp_path, interpreter):
    """A new environment with the one wheel and NumPy alone: every recipe, files, and the examples of the docstrings."""
    (wheel,) = dist.glob("*.whl")
    subprocess.run([interpreter, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True, capture_output=True)
    ran = subprocess.run([python, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0 and "works" in ran.stdout, ran.stdout + ran.stderr


def test_missing_headers_are_one_line(root, cmake, tmp_path):
    """Without Jansson's headers the configuration stops with one line that names the package."""
    done = subprocess.run([cmake, "-S", root / "python", "-B", tmp_path, f"-DPython_EXECUTABLE={sys.executable}"], capture_output=True,
                          text=True, env={"PATH": os.environ["PATH"], "PKG_CONFIG_LIBDIR": str(tmp_path)})
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if "libjansson-dev" in line]
    assert len(said) == 1 and said[0].strip() == "breccia: headers are missing; run: apt-get install libjansson-dev libxxhash-dev pkg-config"
