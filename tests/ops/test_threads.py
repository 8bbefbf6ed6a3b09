# SPDX-License-Identifier: Apache-2.0
"""The library's threads end with it: unloaded by a host, they leave no thread, and it loads again."""
import os
import subprocess
import sys

import pytest

import breccia_c

# Casts with two threads, then dlclose. ctypes alone: cffi keeps a library until the process ends.
UNLOAD = """
import _ctypes, ctypes, os, sys
threads = lambda: len(os.listdir("/proc/self/task"))
loaded = lambda: any("libbreccia.so" in line for line in open("/proc/self/maps"))
before = threads()
for turn in range(5):
    lib = ctypes.CDLL(sys.argv[1])
    shape = (ctypes.c_int64 * 2)(64, 8192)
    numbers = (ctypes.c_float * (64 * 8192))()
    class Array(ctypes.Structure):
        _fields_ = [("size", ctypes.c_uint32), ("format", ctypes.c_uint8), ("rank", ctypes.c_uint8), ("shape", ctypes.c_int64 * 8),
                    ("stride", ctypes.c_int64 * 8), ("data", ctypes.c_void_p)]
    lib.brc_array_of.restype = Array
    source = lib.brc_array_of(lib.brc_format_find(b"f32"), 2, shape, numbers)
    recipe, owned = (ctypes.c_uint8 * 1024)(), (ctypes.c_uint64 * 1024)()
    options = (ctypes.c_uint32 * 2)(8, 2)
    assert lib.brc_recipe_parse(b"mxfp8", recipe, None) == 0
    assert lib.brc_cast_new(ctypes.byref(source), recipe, options, None, owned, None, None) == 0
    assert threads() > before, "the cast started no thread"
    lib.brc_release(owned)
    _ctypes.dlclose(lib._handle)
    assert not loaded(), "still loaded"
    assert threads() == before, f"{threads() - before} threads are left"
    child = os.fork()
    if child == 0: os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, "a fork after the unload called into the library"
print("fine")
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted as Linux shows them")
def test_unloading_ends_the_threads():
    library = breccia_c.BUILD / "lib" / "libbreccia.so"
    done = subprocess.run([sys.executable, "-c", UNLOAD, str(library)], capture_output=True, text=True, timeout=120)
    assert done.stdout == "fine\n", done.stderr
