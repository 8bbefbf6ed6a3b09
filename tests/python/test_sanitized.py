# SPDX-License-Identifier: Apache-2.0
"""The extensions under the address and undefined-behaviour sanitizers, leaks included."""
import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree, which

import pytest

import breccia
import breccia_c

from conftest import absent

# Everything the extensions do, errors among it, without a library that brings noise of its own.
DRIVER = '''
import gc, sys
import numpy as np
import breccia
from breccia import _c
from breccia.bridges import from_dlpack, load_safetensors, save_safetensors, to_dlpack
sys.path.append(sys.argv[1])
from recipes_list import ALL

def refuse(function, *kinds):
    try:
        function()
    except kinds or (ValueError, TypeError):
        return
    raise SystemExit(f"not refused: {function}")

x = np.random.default_rng(0).standard_normal((8, 256)).astype(np.float32)
tensors = {}
for turn in range(3):
    for recipe in ALL:
        st = tensors[recipe.text] = breccia.cast(x, recipe)
        breccia.cast(np.asfortranarray(x.astype(np.float16)), recipe, threads=2)
        breccia.dequantize(st, "f16"), breccia.requantize(st, ALL[0]), hash(st)
        breccia.matmul(st, x, transpose_b=True, bias=np.ones(8, np.float32))
        packed = breccia.pack(st, ALL[0], transpose=True)
        breccia.matmul(x, packed), breccia.matmul(st, breccia.pack(x, transpose=True), transpose_a=False), packed.shape, packed.kind, packed.nbytes
        refuse(lambda: breccia.matmul(st.data, packed)), refuse(lambda: _c.Packed(x[0], False, "f32", 0)), refuse(lambda: _c.Packed(x, True, "e9", 0))
        refuse(lambda: breccia.matmul(st, x))
        refuse(lambda: _c.dequantize((recipe._native, st.shape, 3, (1, 1, 1), st.data, st.scale, None, None, None), x, 0))
        refuse(lambda: breccia.cast(x, recipe, threads=-1))
        refuse(lambda: _c.cast(recipe._native, x, st.data[1:], st.scale, None, None, None, 0))
        refuse(lambda: _c.cast(recipe._native, x, st.data))
    state = breccia.DelayedState(breccia.DelayedScaling())
    breccia.cast(x, state.recipe, state), state.update()
    records = np.zeros((8, 256), [("a", "f4"), ("b", "u1")])
    breccia.cast(records["a"], ALL[0])
    refuse(lambda: _c.Recipe("none")), refuse(lambda: _c.Buffer((2,), "int4")), refuse(lambda: _c.Buffer((7,), "f32", x))
    for buffer in (_c.Buffer((3, 4), "e4m3"), _c.Buffer((8, 256), "f32", x)):
        buffer.__dlpack__(), buffer.__dlpack__(max_version=(1, 0)), memoryview(buffer), buffer.shape, buffer.format
        np.from_dlpack(_c.Buffer((8, 256), "f32", buffer)) if buffer.format == "f32" else None
        _c.bytes_of(buffer.__dlpack__()), refuse(lambda: _c.bytes_of(object()))
    to_dlpack(st), from_dlpack(st, "numpy"), _c.xla_handlers(False)
    from breccia import _formats
    _formats.unpack_nibbles(_formats.pack_nibbles(np.arange(8) % 4), 5)
    save_safetensors(tensors, sys.argv[2])
    load_safetensors(sys.argv[2])
    refuse(lambda: load_safetensors(sys.argv[1]), OSError, ValueError)
    refuse(lambda: save_safetensors(tensors, sys.argv[2], overwrite=False), FileExistsError)
    refuse(lambda: save_safetensors({"a": np.ones(2, ">f4")}, sys.argv[2]))
gc.collect()
print("driven")
'''


def libraries(cmake):
    """Those of `make test-sanitize`, up to date; where it has not run, all is compiled here, which takes minutes."""
    built = breccia_c.BUILD.with_name("build-sanitize")
    if not (built / "CMakeCache.txt").exists():
        return []
    subprocess.run([cmake, "--build", built, "--target", "breccia_file_static", "-j2"], check=True, capture_output=True)
    return [f"-DBRECCIA_LIBRARIES={built / 'lib'}"]


@pytest.mark.skipif(sys.platform != "linux", reason="the sanitizers' libraries are preloaded as on Linux")
def test_clean(root, cmake, tmp_path):
    compiler = os.environ.get("CC", "cc")
    if which(compiler) is None:
        absent("a C compiler is needed")
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g"
    build = tmp_path / "build"
    subprocess.run([cmake, "-S", root / "python", "-B", build, f"-DCMAKE_C_FLAGS={flags}", f"-DPython_EXECUTABLE={sys.executable}",
                    "-DCMAKE_BUILD_TYPE=Debug", *libraries(cmake)], check=True, capture_output=True)
    subprocess.run([cmake, "--build", build, "--target", "_c", "_file", "-j2"], check=True, capture_output=True)
    copytree(Path(breccia.__file__).parent, tmp_path / "breccia")
    for built in build.glob("*.so"):
        (tmp_path / "breccia" / built.name).write_bytes(built.read_bytes())
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    preloaded = [subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
                 for name in ("libasan.so", "libubsan.so")]
    ran = subprocess.run([sys.executable, driver, root / "tests" / "python", tmp_path / "model.safetensors"], capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": str(tmp_path), "LD_PRELOAD": ":".join(preloaded), "PYTHONMALLOC": "malloc",
                              "ASAN_OPTIONS": "detect_leaks=1:exitcode=0:fast_unwind_on_malloc=0", "LSAN_OPTIONS": "exitcode=0", "UBSAN_OPTIONS": "print_stacktrace=1"})
    assert "driven" in ran.stdout, ran.stderr[-4000:]
    # CPython and NumPy keep memory until the end of the process: only what our own code asked for counts.
    reports = [block for block in ran.stderr.split("\n\n") if "/breccia/_c" in block or "/breccia/_file" in block or "python/ext" in block]
    assert not reports, "\n\n".join(reports)[:4000]
    assert "ERROR: AddressSanitizer" not in ran.stderr and "runtime error" not in ran.stderr, ran.stderr[:4000]
