# SPDX-License-Identifier: Apache-2.0
"""src/cuda/build.sh with a compiler of kernels that copies an ELF file made here: what is built, when, and what is left where a step fails."""
import os
import re
import shutil
import subprocess
import sys

import pytest

from breccia_c import ROOT

sys.path.insert(0, str(ROOT / "tests" / "cuda"))
from test_pace import elf, ffma  # noqa: E402

IMAGES = re.findall(r"^IMAGE\((\w+),", (ROOT / "src" / "cuda" / "images.def").read_text(), re.M)
CODE = elf([ffma(100 + i, 7, 24 + i, 100 + i) for i in range(8)])
NVCC = """#!/bin/sh
while [ $# -gt 1 ]; do
    case $1 in -o) to=$2 ;; *.cu) [ -e "$1" ] || exit 3 ;; esac
    shift
done
cp "${0%/*}/code" "$to"
"""


@pytest.fixture
def tree(tmp_path):
    """A copy of the sources in a folder with a space in its name, beside the compiler."""
    tree = tmp_path / "a tree"
    for folder in ("src/cuda", "src/core", "include"):
        shutil.copytree(ROOT / folder, tree / folder)
    (tree / "nvcc").write_text(NVCC)
    (tree / "nvcc").chmod(0o755)
    (tree / "code").write_bytes(CODE)
    return tree


def build(tree, *names, **variables):
    return subprocess.run(["sh", "build.sh", str(tree / "out"), *names], cwd=tree / "src" / "cuda", capture_output=True, text=True, timeout=300,
                          env={**os.environ, "NVCC": str(tree / "nvcc"), **variables})


def made(tree):
    return sorted(path.name for path in (tree / "out").iterdir() if path.suffix != ".log")


def test_all_images_and_the_library(tree):
    done = build(tree)
    assert done.returncode == 0, done.stdout + done.stderr
    assert made(tree) == sorted([f"{name}.fatbin" for name in IMAGES] + ["libbreccia_cuda.so"])
    assert {name for name in IMAGES if (tree / "out" / f"{name}.fatbin").read_bytes() != CODE} == {name for name in IMAGES if name.startswith("gemm_")}


def test_built_again_when_a_source_is_newer(tree):
    kernels = tree / "out" / "gemm_block.fatbin"
    build(tree, "gemm_block")
    first = kernels.read_bytes()
    assert first != CODE
    for source in ("sass/pace.c", "build.sh", "gemm_block.cu", "parts/store.cuh", "shape.h"):
        kernels.write_bytes(b"old")
        assert build(tree, "gemm_block").returncode == 0 and kernels.read_bytes() == b"old"
        os.utime(kernels, (1e9, 1e9))
        for other in (tree / "src" / "cuda").rglob("*"):
            os.utime(other, (9e8, 9e8))
        os.utime(tree / "src" / "cuda" / source)
        assert build(tree, "gemm_block").returncode == 0 and kernels.read_bytes() == first, source


@pytest.mark.parametrize("variables, code, says", [
    ({"CC": "no-such-compiler"}, CODE, "no-such-compiler"),
    ({}, b"\x50\xed\x55\xba" + bytes(200), "pace: "),
    ({}, None, "code"),
])
def test_no_kernels_are_left_where_a_step_fails(tree, variables, code, says):
    (tree / "out").mkdir()
    (tree / "out" / "gemm_fast.fatbin").write_bytes(b"old")
    os.utime(tree / "out" / "gemm_fast.fatbin", (0, 0))
    (tree / "code").unlink() if code is None else (tree / "code").write_bytes(code)
    done = build(tree, "gemm_fast", **variables)
    assert done.returncode == 1 and says in done.stdout + done.stderr
    assert "gemm_fast.fatbin" not in made(tree)


def test_kernels_of_another_machine_are_taken(tree):
    (tree / "out").mkdir()
    (tree / "out" / "gemm_fast.fatbin").write_bytes(b"old")
    os.utime(tree / "out" / "gemm_fast.fatbin", (0, 0))
    done = build(tree, "gemm_fast", NVCC="none")
    assert (done.returncode, done.stdout) == (0, "no nvcc: gemm_fast.fatbin is taken as it is\n")
    assert made(tree) == ["gemm_fast.fatbin"]
    done = build(tree, "gemm_block", NVCC="none")
    assert done.returncode == 1 and done.stderr.startswith("no nvcc to compile gemm_block.cu, and no ")
