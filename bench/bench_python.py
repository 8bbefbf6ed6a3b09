# SPDX-License-Identifier: Apache-2.0
"""What Python costs: call overhead, large arrays against the C call, two threads against one, import time.

    python bench/bench_python.py

Overhead = the time of breccia.cast less that of the extension's call into memory that is there. Every number is the best of
many repeats in CPU time of the process (wall time for the threads); limits are printed beside, nothing fails.
"""
import subprocess
import sys
import threading
import time
import timeit

import numpy as np

import breccia
from breccia import _c


def best(function, number, repeat=15, timer=time.process_time):
    return min(timeit.repeat(function, number=number, repeat=repeat, timer=timer)) / number


def line(what, value, limit):
    print(f"{what:58s} {value:>12s}   limit {limit}")


def overhead():
    x, recipe = np.ones((16, 16), np.float32), breccia.Float8CurrentScaling()
    data, scale, native = np.empty((16, 16), np.uint8), np.empty((), np.float32), recipe._native
    bare = best(lambda: _c.cast(native, x, data, scale, None, None, None, 0), 5000)
    line("cast of a 16x16 NumPy array: overhead", f"{(best(lambda: breccia.cast(x, recipe), 5000) - bare) * 1e6:.2f} us", "5 us")
    try:
        import torch
    except ImportError:
        print("torch is not installed: its overhead is left out")
        return
    t = torch.ones(16, 16)
    line("cast of a 16x16 torch tensor: overhead", f"{(best(lambda: breccia.cast(t, recipe), 5000) - bare) * 1e6:.2f} us", "15 us")


def large():
    x = np.random.default_rng(0).standard_normal((2048, 4096)).astype(np.float32)
    for recipe in (breccia.MXFP8BlockScaling(), breccia.Float8BlockScaling(), breccia.NVFP4BlockScaling()):
        native = recipe._native

        def bare():
            outputs = [np.empty(shape, breccia._frameworks.numpy._DTYPES.get(format, np.uint8))
                       for shape, format in breccia._ops._planned(recipe, x.shape)]
            _c.cast(native, x, outputs[0], outputs[1], outputs[2] if recipe._levels == 2 else None, None, None, 1)

        times = [(best(bare, 1, 3), best(lambda: breccia.cast(x, recipe, threads=1), 1, 3)) for _ in range(5)]
        c, python = (min(column) for column in zip(*times))
        line(f"cast of [2048, 4096] to {recipe.text}: Python over C", f"{100 * (python / c - 1):+.1f} %", "3 %")


def threads():
    x, recipe = np.random.default_rng(0).standard_normal((1024, 4096)).astype(np.float32), breccia.MXFP8BlockScaling()

    def work(turns=6):
        for _ in range(turns):
            breccia.cast(x, recipe, threads=1)

    def two():
        pair = [threading.Thread(target=work) for _ in range(2)]
        for one in pair:
            one.start()
        for one in pair:
            one.join()

    work(1)
    once, twice = best(work, 1, 5, time.perf_counter), best(two, 1, 5, time.perf_counter)
    line("two Python threads, threads=1 each, against one", f"{2 * once / twice:.2f} x", "1.8 x")


def import_time():
    code = "import time, numpy\nstart = time.process_time()\nimport breccia\nprint(time.process_time() - start)"
    found = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(7)]
    line("import breccia over import numpy", f"{min(found) * 1e3:.1f} ms", "50 ms")


print(f"breccia {breccia.__version__}, Python {sys.version.split()[0]}, NumPy {np.__version__}")
import_time()
overhead()
large()
threads()
