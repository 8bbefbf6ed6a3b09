# SPDX-License-Identifier: Apache-2.0
"""The installed tree: what is in it, that programs build against it by pkg-config and by find_package, and that it runs
when copied to a machine without Jansson."""
import os
import re
import shutil
import subprocess

import ml_dtypes
import numpy as np
import pytest

from breccia_c import BUILD, ROOT

EXAMPLE = ROOT / "examples" / "c"
USES_FILES = """
#include <breccia/breccia_file.h>
#include <stdio.h>
int main(void) {
    brc_file *file;
    brc_error err;
    brc_status status = brc_file_open("/nowhere.safetensors", NULL, &file, &err);
    printf("breccia %s %d\\n", brc_version(), status == BRC_IO || status == BRC_NOT_FOUND);
    return 0;
}
"""


def run(*command, **options):
    done = subprocess.run([os.fspath(c) for c in command], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """A fresh install, then moved: nothing in it may rest on where it was installed."""
    first, moved = tmp_path_factory.mktemp("install") / "first", tmp_path_factory.mktemp("moved") / "usr"
    run("cmake", "--install", BUILD, "--prefix", first)
    shutil.move(first, moved)
    return moved


def library_folder(prefix):
    return next(p.parent for p in prefix.rglob("libbreccia.so"))


def pkg_config(prefix, *words):
    environment = {**os.environ, "PKG_CONFIG_PATH": str(library_folder(prefix) / "pkgconfig")}
    return run("pkg-config", *words, env=environment).split()


def dynamic(path, tag):
    return re.findall(rf"\({tag}\).*\[(.*)\]", run("readelf", "-d", path))


def quickstart_output():
    """What examples/c/quickstart.c must print, by NumPy and ml_dtypes: MXFP8, the scale rounded up."""
    x = (np.arange(2 * 64) % 5 - 2).astype(np.float32).reshape(2, 64)
    w = (np.float32(0.01) * (np.arange(3 * 64) % 7 - 3).astype(np.float32)).reshape(3, 2, 32)
    scale = np.exp2(np.ceil(np.log2(np.abs(w).max(-1, keepdims=True) / 448)))
    w = ((w / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float64) * scale).reshape(3, 64)
    lines = [" ".join(f"{v:8.4f}" for v in row) for row in x @ w.T]
    return "8.25 bits a weight\n" + "".join(f"{line}\n" for line in lines)


def test_tree(prefix):
    headers = {p.name for p in (prefix / "include" / "breccia").iterdir()}
    assert headers == {p.name for p in (ROOT / "include" / "breccia").iterdir()}
    lib = library_folder(prefix)
    for name in ("libbreccia.a", "libbreccia.so", "libbreccia.so.0", "libbreccia_file.a", "libbreccia_file.so",
                 "libbreccia_file.so.0", "breccia/libjansson.so.4", "pkgconfig/breccia.pc", "pkgconfig/breccia_file.pc",
                 "cmake/breccia/breccia-config.cmake"):
        assert (lib / name).exists(), name
    for name in ("bin/breccia", "share/man/man1/breccia.1", "share/bash-completion/completions/breccia",
                 "share/zsh/site-functions/_breccia", "share/fish/vendor_completions.d/breccia.fish"):
        assert (prefix / name).stat().st_size > 0, name


@pytest.mark.parametrize("name", ["breccia", "breccia_file"])
def test_library_shape(prefix, name):
    path = library_folder(prefix) / f"lib{name}.so"
    assert dynamic(path, "SONAME") == [f"lib{name}.so.0"]
    exported = {line.split()[-1] for line in run("nm", "-D", "--defined-only", path).splitlines()}
    assert exported and all(symbol.startswith("brc_") for symbol in exported), exported


def test_dependencies(prefix):
    lib, system = library_folder(prefix), {"libc.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
    assert set(dynamic(lib / "libbreccia.so", "NEEDED")) <= system
    assert set(dynamic(lib / "libbreccia_file.so", "NEEDED")) <= system | {"libbreccia.so.0", "libjansson.so.4"}
    assert dynamic(lib / "libbreccia_file.so", "RUNPATH") == ["$ORIGIN:$ORIGIN/breccia"]
    assert set(dynamic(prefix / "bin" / "breccia", "NEEDED")) <= system


def test_example_by_pkg_config(prefix, tmp_path):
    flags = pkg_config(prefix, "--cflags", "--libs", "breccia")
    run("cc", EXAMPLE / "quickstart.c", *flags, "-o", tmp_path / "quickstart")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library_folder(prefix))}
    assert run(tmp_path / "quickstart", env=environment) == quickstart_output()


def test_example_by_find_package(prefix, tmp_path):
    run("cmake", "-S", EXAMPLE, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path)
    assert run(tmp_path / "quickstart") == quickstart_output()


@pytest.mark.parametrize("target", ["breccia_file", "breccia_static", "breccia_file_static"])
def test_other_targets(prefix, tmp_path, target):
    source = USES_FILES if "file" in target else (EXAMPLE / "quickstart.c").read_text()
    (tmp_path / "main.c").write_text(source)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(user C)\nfind_package(breccia 0.2 REQUIRED)\n"
        f"add_executable(user main.c)\ntarget_link_libraries(user breccia::{target})\n"
        + ("target_link_options(user PRIVATE -no-pie)\n" if target == "breccia_file_static" else ""))
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path / "build")
    assert run(tmp_path / "build" / "user") == ("breccia 0.2.0 1\n" if "file" in target else quickstart_output())


def test_runs_without_jansson(prefix, tmp_path):
    """A root that holds the C library, a copy of the installed tree, and nothing else."""
    root = tmp_path / "root"
    shutil.copytree(prefix, root / "opt" / "breccia", symlinks=True)
    lib = library_folder(root / "opt" / "breccia")
    (tmp_path / "main.c").write_text(USES_FILES)
    run("cc", tmp_path / "main.c", *pkg_config(prefix, "--cflags", "--libs", "breccia_file"), "-o", root / "user",
        f"-Wl,-rpath,/{lib.relative_to(root)}", f"-Wl,-rpath-link,{library_folder(prefix)}")
    for line in run("ldd", "/bin/true").splitlines():
        for path in re.findall(r"(/\S+)", line):
            place = root / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    enter = [shutil.which("chroot") or "/usr/sbin/chroot", root] if os.geteuid() == 0 else ["unshare", "--map-root-user", f"--root={root}"]
    tried = subprocess.run([*enter, "/user"], capture_output=True, text=True, env={"LD_BIND_NOW": "1"})
    if "ermitted" in tried.stderr:
        pytest.skip(f"no root of our own may be entered here: {tried.stderr.strip()}")
    assert (tried.stdout, tried.stderr) == ("breccia 0.2.0 1\n", "")
    version = run(*enter, "/opt/breccia/bin/breccia", "--version", env={"LD_BIND_NOW": "1"})
    assert version.startswith("breccia 0.2.0")


def test_command_line_alone(prefix, tmp_path):
    """The binary needs none of the tree around it."""
    shutil.copy(prefix / "bin" / "breccia", tmp_path)
    assert run(tmp_path / "breccia", "--version", env={}).startswith("breccia 0.2.0")
