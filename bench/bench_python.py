# SPDX-License-Identifier: Apache-2.0
"""What Python costs: whole small calls, large arrays against the C call, two threads against one, import time.

    python bench/bench_python.py

The peer is the same function of the C library (build/lib, by cffi), which allocates its result as Python does: overhead is the time
of the whole Python call less that of C's, and large calls run in turns with C's, one thread each. Processor time, best or median of
many repeats; limits are printed beside, nothing fails. What was found: bench/NOTES.md.
"""
import statistics
import subprocess
import sys
import threading
import time
import timeit
from pathlib import Path

import numpy as np

import breccia

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
try:
    import breccia_c as brc
except (ImportError, FileNotFoundError) as missing:
    brc = None
    print(f"without the C library: {missing}")


def best(function, number, repeat=15, timer=time.process_time):
    return min(timeit.repeat(function, number=number, repeat=repeat, timer=timer)) / number


def line(what, value, limit):
    print(f"{what:66s} {value:>12s}   limit {limit}")


def libraries(*names):
    for name in names:
        try:
            yield name, __import__(name)
        except ImportError:
            print(f"{name} is not installed: left out")


def small():
    """Calls on 16x16 numbers."""
    x, recipe = np.ones((16, 16), np.float32), breccia.Float8CurrentScaling()
    in_c = 0.0 if brc is None else best(cast_in_c(x, recipe, 0), 20000)
    print(f"{'cast of 16x16 in C':66s} {in_c * 1e6:9.2f} us")
    arrays = {"numpy": (x, "5 us"), **{name: (torch.ones(16, 16), "15 us") for name, torch in libraries("torch")}}
    for name, (array, limit) in arrays.items():
        whole = best(lambda: breccia.cast(array, recipe), 20000)
        line(f"cast of 16x16, {name}: overhead (whole call {whole * 1e6:.2f} us)", f"{(whole - in_c) * 1e6:.2f} us", limit)
        st = breccia.cast(array, recipe)
        for what, call in (("dequantize of 16x16", lambda: breccia.dequantize(st)), ("matmul of 16x16x16", lambda: breccia.matmul(st, array))):
            print(f"{f'{what}, {name}: the whole call':66s} {best(call, 20000) * 1e6:9.2f} us")


def cast_in_c(x, recipe, threads):
    """brc_cast_new of a NumPy array, and its release."""
    source, native, wanted, made, null = brc.array(x), brc.recipe(recipe.text), brc.options(threads), brc.ffi.new("brc_owned *"), brc.ffi.NULL

    def call():
        assert brc.lib.brc_cast_new(source, native, wanted, null, made, null, null) == 0
        brc.lib.brc_release(made)

    return call


def in_turns(ours, theirs, rounds):
    """By how much ours takes longer than theirs: the median over pairs of calls, in processor time. Where memory lies decides up to 7 %
    of a cast; small arrays that are kept move the next pair's results elsewhere, and each is the first in every other pair."""
    def time_of(function):
        start = time.process_time()
        function()
        return time.process_time() - start

    rng, kept, ratios = np.random.default_rng(0), [], []
    for i in range(rounds):
        kept.append(np.empty(rng.integers(1, 1 << 17), np.uint8))
        first = time_of(theirs) if i % 2 else 0.0
        mine = time_of(ours)
        ratios.append(mine / (first or time_of(theirs)))
    return statistics.median(ratios) - 1


def large():
    """[2048, 4096] floats, and codes of them, against brc_cast and brc_dequantize into new memory of the same kind."""
    x, wanted = np.random.default_rng(0).standard_normal((2048, 4096)).astype(np.float32), brc.options(1)
    for recipe in (breccia.MXFP8BlockScaling(), breccia.Float8BlockScaling(), breccia.NVFP4BlockScaling(), breccia.INT4Scaling()):
        t, st = brc.cast(x, recipe.text), breccia.cast(x, recipe)
        t.c.data, t.c.scale.data = brc.ffi.from_buffer(st.data), brc.ffi.from_buffer(st.scale)   # the same memory for both

        def cast_in_c(source=brc.array(x), native=brc.recipe(recipe.text), t=brc.cast(x, recipe.text), null=brc.ffi.NULL):
            data, scale = np.empty(t.sizes.data, np.uint8), np.empty(t.sizes.scale, np.uint8)
            t.c.data, t.c.scale.data = brc.ffi.from_buffer(data), brc.ffi.from_buffer(scale)
            assert brc.lib.brc_cast(source, native, wanted, null, t.c, null, null) == 0

        def dequantize_in_c():
            assert brc.lib.brc_dequantize(t.c, wanted, brc.array(np.empty(x.shape, np.float32)), brc.ffi.NULL) == 0

        for what, ours, theirs in (("cast", lambda: breccia.cast(x, recipe, threads=1), cast_in_c),
                                   ("dequantize", lambda: breccia.dequantize(st, threads=1), dequantize_in_c)):
            line(f"{what} of [2048, 4096], {recipe.text}: Python over C", f"{100 * in_turns(ours, theirs, 101):+.1f} %", "3 %")


def threads():
    """Two threads of Python and two of C: the machine's part of what is short of twice is in both."""
    x = np.random.default_rng(0).standard_normal((1024, 4096)).astype(np.float32)

    def gain(first, second, turns=6):
        def work(call):
            for _ in range(turns):
                call()

        def two():
            pair = [threading.Thread(target=work, args=[call]) for call in (first, second)]
            for one in pair:
                one.start()
            for one in pair:
                one.join()

        two()
        return 2 * best(lambda: work(first), 1, 9, time.perf_counter) / best(two, 1, 9, time.perf_counter)

    for recipe in (breccia.MXFP8BlockScaling(), breccia.NVFP4BlockScaling()):
        in_c = "" if brc is None else f" (two of C's: {gain(cast_in_c(x, recipe, 1), cast_in_c(x, recipe, 1)):.2f})"
        def call(recipe=recipe):
            return breccia.cast(x, recipe, threads=1)

        line(f"two Python threads, threads=1 each, {recipe.text}{in_c}", f"{gain(call, call):.2f} x", "1.8 x (two processors)")


def import_time():
    code = "import time, numpy\nstart = time.process_time()\nimport breccia\nprint(time.process_time() - start)"
    found = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(7)]
    line("import breccia over import numpy", f"{min(found) * 1e3:.1f} ms", "50 ms")


print(f"breccia {breccia.__version__}, Python {sys.version.split()[0]}, NumPy {np.__version__}")
import_time()
small()
if brc is not None:
    large()
threads()
