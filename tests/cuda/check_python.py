#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Python package on arrays of a GPU, without one: NumPy's memory under the name of a device, libbreccia's own way down to a driver
that runs the cast kernels on this processor. LD_LIBRARY_PATH=FOLDER_OF_THE_DRIVER PYTHONPATH=PACKAGE check_python.py"""
import concurrent.futures
import contextlib
import os
import pathlib
import sys
import types
import warnings
from functools import partial

import numpy as np

import breccia
from breccia import _frameworks
from breccia.kernels import cuda

_tests = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(_tests / "python"), str(_tests)]
import test_dlpack as _dlpack  # noqa: E402

CODES = {"float32": (2, 32, 1), "float16": (2, 16, 1), "uint8": (1, 8, 1), "int8": (0, 8, 1), "int32": (0, 32, 1)}
TYPES = {"f32": np.float32, "f16": np.float16, "e4m3": np.uint8, "e5m2": np.uint8, "uint8": np.uint8, "int8": np.int8, "int8q6": np.int8}
alive = []


class Array:
    """An array of a library of its own, `library`."""

    def __init__(self, numbers):
        room = np.zeros(numbers.nbytes + 64, np.uint8)
        first = -room.ctypes.data % 64
        self.numbers = room[first:first + numbers.nbytes].view(numbers.dtype).reshape(numbers.shape)
        self.numbers[...] = numbers
        self.shape, self.dtype, self.nbytes = numbers.shape, numbers.dtype, numbers.nbytes

    def __float__(self):
        return float(self.numbers)


class Other(Array):
    """The same of another library."""


def read(x):
    a = x.numbers
    alive.append(_dlpack.forged(a, a.shape, [s // a.itemsize for s in a.strides], device=2, type=CODES[a.dtype.name]))
    return alive[-1][0]


def same(x, format="f32"):
    return x


library = types.SimpleNamespace(
    read=read, write=lambda x, format: read(x), filled=lambda xs: [None if x is None else read(x) for x in xs], finish=same, finish_scale=same,
    export=same, rows=same, traced=lambda x: False, recorded=lambda xs: False, device=lambda x: 0, on=lambda x: contextlib.nullcontext(),
    stream=lambda x: 0, empty_on=lambda x, shape, format: Array(np.full(shape, 77, TYPES[format])), scratch=lambda x: Array(np.zeros(4, np.int32)),
    number=lambda x, value, shape: Array(np.full(shape, value, np.float32)), wide=lambda x, format: Array(x.numbers.astype({"f64": np.float64, "f32": np.float32}[format])))
_frameworks._by_type[Array] = library


def refused(kind, words, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except kind as why:
        assert words in str(why), why
    else:
        raise AssertionError(f"not refused: {words}")


def new_thread(x):
    """A thread without a context gets the device's."""
    os.environ["STUB_MODE"] = "no context"
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        got = pool.submit(breccia.cast, Array(x), breccia.MXFP8BlockScaling()).result()
    del os.environ["STUB_MODE"]
    assert got.data.numbers.tobytes() == breccia.cast(x, breccia.MXFP8BlockScaling()).data.tobytes()


def of_cupy(x):
    """The module for CuPy, over what it uses of that library (fake_cupy.py)."""
    import fake_cupy as cupy
    sys.modules["cupy"] = cupy
    there = cupy.array(x)
    for text in ("fp8", "fp8-row", "fp8-block", "mxfp4", "nvfp4", "int4", "int4:scale=bf16"):
        recipe = breccia.recipes.from_text(text)
        for view, same in ((there, x), (there.T[::-1, :256], x.T[::-1, :256]), (there[:, 128:256], x[:, 128:256]), (there.astype(np.float64), x)):
            here, got = breccia.cast(same, recipe), breccia.cast(view, recipe)
            assert type(got.data) is cupy.ndarray and got.data.dtype == here.data.dtype and got.scale.dtype == here.scale.dtype
            for name in ("data", "scale", "global_scale"):
                a, b = getattr(here, name), getattr(got, name)
                assert a is b is None or a.tobytes() == b.tobytes(), (text, name)
            for dtype in ("f32", "f16", "bf16", "f64"):
                assert breccia.dequantize(here, dtype).tobytes() == breccia.dequantize(got, dtype).tobytes(), (text, dtype)
        a, w = breccia.cast(there, recipe), breccia.cast(there[:128], recipe)
        left, right = (np.float64(breccia.dequantize(breccia.cast(side, recipe))) for side in (x, x[:128]))
        if not text.startswith("fp8"):                                             # the emulated driver multiplies nothing
            y, bias = breccia.matmul(a, w, transpose_b=True, bias=there[0, :128]), x[0, :128]
            bound = 385 * 2.0 ** -24 * (np.abs(left) @ np.abs(right).T + np.abs(bias))
            assert type(y) is cupy.ndarray and (np.abs(y - (left @ right.T + bias)) <= bound).all(), text
    assert breccia.cast(cupy.array(np.ones((4, 0), np.float32)), breccia.Float8RowScaling()).scale.tolist() == [[1.0]] * 4
    state = breccia.DelayedState(breccia.DelayedScaling())
    breccia.cast(there, state.recipe, state)
    assert state.amax == np.abs(x).max()
    assert breccia.cast_ste(there, breccia.MXFP8BlockScaling()).dtype == np.float32
    turned = breccia._frameworks.named("cupy").by_column(cupy.array(np.arange(14, dtype=np.float32).reshape(7, 2)))
    assert turned.tolist() == [list(range(0, 14, 2)), list(range(1, 14, 2))] and turned.strides == (32, 4)
    refused(TypeError, "complex", breccia.cast, there.astype(np.complex64), breccia.MXFP8BlockScaling())
    refused(TypeError, "device", breccia.cast(there, breccia.MXFP8BlockScaling()).__eq__, breccia.cast(there, breccia.MXFP8BlockScaling()))


def of_jax(x):
    """The handlers for GPUs, traced and not, under an XLA of this processor (emulated_xla.py)."""
    try:
        import jax
    except ImportError as missing:
        print(f"JAX on a GPU: not run ({missing})")
        return
    recipes = [breccia.recipes.from_text(text) for text in ("fp8", "fp8-row", "fp8-block", "fp8-block128", "mxfp6-e2m3", "nvfp4", "nvfp4:levels=1", "int8", "int4:scale=bf16")]
    numbers = {recipe: breccia.cast(jax.numpy.asarray(x), recipe) for recipe in recipes}                 # of the CPU, by the ordinary way
    values = {recipe: [np.asarray(breccia.dequantize(st, dtype)).tobytes() for dtype in ("f32", "bf16")] for recipe, st in numbers.items()}
    import emulated_xla
    emulated_xla.pretend()
    there = jax.numpy.asarray(x)
    for recipe in recipes:
        want = numbers[recipe]

        def both(x):
            st = breccia.cast(x, recipe)
            return st, breccia.dequantize(st), breccia.dequantize(st, "bf16")

        for run in (both, jax.jit(both), lambda x: jax.tree_util.tree_map(lambda leaf: leaf[1], jax.vmap(both)(jax.numpy.stack([x * 3, x])))):
            emulated_xla.calls.clear()
            got, wide, narrow = run(there)
            assert {"breccia_cuda_cast", "breccia_cuda_dequantize"} <= set(emulated_xla.calls), recipe
            for name in ("data", "scale", "global_scale"):
                a, b = getattr(want, name), getattr(got, name)
                assert a is b is None or (a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()), (recipe, name)
            assert [np.asarray(wide).tobytes(), np.asarray(narrow).tobytes()] == values[recipe], recipe
        # The emulated driver runs casts only: products in FP8 come as far as their launch, others are XLA's own.
        pair, bias = (breccia.cast(there, recipe), breccia.cast(there[:128], recipe)), there[0, :128]
        if recipe.text.startswith("fp8") and recipe.text != "fp8-block128":
            refused(jax.errors.JaxRuntimeError, "cuLaunchKernelEx", lambda: jax.block_until_ready(breccia.matmul(*pair, transpose_b=True, bias=bias)))
            assert emulated_xla.calls[-1] == "breccia_cuda_matmul"
        else:
            assert jax.jit(partial(breccia.matmul, transpose_b=True))(*pair, bias=bias).shape == (256, 128)
        z = breccia.matmul(there, breccia.cast(there[:128], recipe), transpose_b=True)
        left, right = np.float64(x), np.float64(breccia.dequantize(breccia.cast(there[:128], recipe)))
        assert (np.abs(z - left @ right.T) <= 385 * 2.0 ** -24 * (np.abs(left) @ np.abs(right).T)).all(), recipe
    state, same = breccia.DelayedState(breccia.DelayedScaling()), breccia.DelayedState(breccia.DelayedScaling())
    state.scale = same.scale = 3.7
    assert np.asarray(breccia.cast(there, state.recipe, state).data).tobytes() == breccia.cast(x, same.recipe, same).data.tobytes() and state.amax == same.amax
    assert breccia.cast(jax.numpy.ones((4, 0)), breccia.Float8RowScaling()).scale.tolist() == [[1.0]] * 4
    mx = numbers[recipes[4]]
    again = breccia.cast(breccia.dequantize(mx), breccia.NVFP4BlockScaling())
    assert jax.jit(lambda st: breccia.requantize(st, breccia.NVFP4BlockScaling()))(mx).data.tobytes() == again.data.tobytes()
    gradient = jax.grad(lambda x: (breccia.matmul(x, mx, transpose_b=True) ** 2).sum())(there)
    assert gradient.shape == x.shape and (jax.grad(lambda x: breccia.cast_ste(x, breccia.MXFP8BlockScaling()).sum())(there) == 1).all()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        here = jax.jit(lambda x: breccia.cast(x, breccia.MXINT8BlockScaling()))
        assert here(there).data.tobytes() == here(there * 1).data.tobytes() == breccia.cast(x, breccia.MXINT8BlockScaling()).data.tobytes()
    assert ["the GPU has no cast" in str(warning.message) for warning in said] == [True], said


def main():
    assert cuda.CUDA_AVAILABLE and not cuda.why()
    x = np.random.default_rng(1).standard_normal((256, 384)).astype(np.float32)
    there = Array(x)
    for text in ("fp8", "fp8-row", "fp8-block", "fp8-block128", "mxfp8", "mxfp6-e3m2", "mxfp4", "nvfp4", "int8", "int4"):
        recipe = breccia.recipes.from_text(text)
        here, got = breccia.cast(x, recipe), breccia.cast(there, recipe)
        for name in ("data", "scale", "global_scale"):
            a, b = getattr(here, name), getattr(got, name)
            assert a is b is None or np.asarray(a).tobytes() == b.numbers.tobytes(), (text, name)
        for dtype in ("f32", "f16", "f64"):
            assert breccia.dequantize(here, dtype).tobytes() == breccia.dequantize(got, dtype).numbers.tobytes(), (text, dtype)
    for shape in ((0, 128), (4, 0)):
        for text in ("fp8", "fp8-row", "nvfp4"):
            here, got = (breccia.cast(side, breccia.recipes.from_text(text)) for side in (np.ones(shape, np.float32), Array(np.ones(shape, np.float32))))
            assert here.scale.tobytes() == got.scale.numbers.tobytes() and here.data.shape == got.data.shape, (text, shape)
            assert breccia.dequantize(got).shape == shape
    recipe = breccia.DelayedScaling()
    mine, theirs = breccia.DelayedState(recipe), breccia.DelayedState(recipe)
    mine.scale = theirs.scale = 3.7
    assert (breccia.cast(x, recipe, mine).data == breccia.cast(there, recipe, theirs).data.numbers).all() and mine.amax == theirs.amax
    mx = breccia.cast(there, breccia.MXFP8BlockScaling())
    calls, kernel = [], breccia._c.cuda_requantize
    breccia._c.cuda_requantize = lambda *arguments: (calls.append(0), kernel(*arguments))
    ragged = breccia.cast(Array(x[:, :383]), breccia.MXFP8BlockScaling(partial=True))
    for source, recipe in ((mx, breccia.NVFP4BlockScaling()), (ragged, breccia.Float8RowScaling())):
        again, got = breccia.cast(breccia.dequantize(source), recipe), breccia.requantize(source, recipe)
        assert (got.data.numbers == again.data.numbers).all() and (got.scale.numbers == again.scale.numbers).all()
    assert len(calls) == 2
    refused(NotImplementedError, "the GPU has no cast", breccia.cast, there, breccia.MXINT8BlockScaling())
    refused(ValueError, "on one device", breccia.matmul, breccia.cast(there, breccia.Float8CurrentScaling()), x, transpose_b=True)
    _frameworks._by_type[Other] = types.SimpleNamespace(**vars(library))
    refused(TypeError, "of one library", breccia.dequantize, breccia.ScaledTensor(mx.data, Other(mx.scale.numbers), mx.recipe, mx.layout))
    refused(TypeError, "not on the GPU", breccia._c.cuda_dequantize, (mx.recipe._native, mx.shape, 3, (1, 1, 32), x, x, None, None, None), read(there), 0)
    new_thread(x)
    of_cupy(x)
    of_jax(x)
    print("python on a GPU: right")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    # XLA's threads may still be in the handlers of emulated_xla.py, which need Python: its ordinary end would wait for them for ever.
    os._exit(0)
