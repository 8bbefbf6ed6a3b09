# SPDX-License-Identifier: Apache-2.0
"""CuPy's arrays: strides, streams, a captured graph, memory from CuPy's pool alone."""
from typing import Any

import cupy
import numpy as np

import breccia
from breccia.kernels import cuda

from common import Place, check, everything, tensors

FEW = ("fp8", "fp8-row", "fp8-block", "fp8-block128", "mxfp8", "mxfp4", "nvfp4", "int8", "int4")

# BF16 is ml_dtypes', which CuPy need not take: left out of what every library does.
place = Place("cupy", lambda x, dtype: cupy.asarray(x.astype(dtype)), lambda x, dtype: x.astype(dtype),
              lambda x: np.ascontiguousarray(cupy.asnumpy(x)).tobytes(), lambda x: cupy.asnumpy(x).astype(np.float64), ("float32", "float16"),
              lambda x: isinstance(x, cupy.ndarray))


def there(*shape: int) -> Any:
    return place.there(np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32), "float32")


def recipes(*texts: str) -> list[Any]:
    return [breccia.recipes.from_text(text) for text in texts]


def strides() -> None:
    x = there(256, 512)
    views = {"transposed": x.T, "every other column": x[:, ::2], "a window": x[3:131, 5:389], "backwards": x[::-1, ::-1], "double": x.astype(np.float64),
             "three dimensions": there(4, 128, 256).swapaxes(0, 1)}
    for name, view in views.items():
        for recipe in recipes("fp8", "mxfp4", "nvfp4"):
            tensors(f"{name}: {recipe.text}", breccia.cast(view, recipe), breccia.cast(np.ascontiguousarray(cupy.asnumpy(view)), recipe), place)


def streams() -> None:
    x, side = there(512, 1024), cupy.cuda.Stream(non_blocking=True)
    slow = cupy.RawKernel('extern "C" __global__ void slow(long long n) { long long t = clock64(); while (clock64() - t < n) {} }', "slow")
    for recipe in recipes(*FEW):
        breccia.dequantize(breccia.cast(x, recipe))
        late = cupy.zeros_like(x)
        cupy.cuda.Device().synchronize()
        with side:
            slow((1,), (1,), (np.int64(400_000_000),))                           # cycles: about a fifth of a second
            late[...] = x
            got = breccia.cast(late, recipe)
            back = breccia.dequantize(got)
            check(not side.done, f"cupy: {recipe.text}: a call waited for its stream")
        side.synchronize()
        want = breccia.cast(cupy.asnumpy(x), recipe)
        tensors(f"a second stream: {recipe.text}", got, want, place)
        check(place.content(back) == place.content(breccia.dequantize(want)), f"cupy: a second stream: {recipe.text}")


def captured() -> None:
    cuda.prepare()
    x, side = there(128, 512), cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    for recipe in recipes(*FEW):
        with side:
            breccia.dequantize(breccia.cast(x, recipe))
            breccia.dequantize(breccia.cast(x, recipe))
            side.synchronize()
            side.begin_capture()
            got = breccia.cast(x, recipe)
            back = breccia.dequantize(got)
            graph = side.end_capture()
            for step in range(2):
                x *= np.float32(3 - step)
                graph.launch(side)
                side.synchronize()
                want = breccia.cast(cupy.asnumpy(x), recipe)
                tensors(f"CUDA graph: {recipe.text}, replay {step}", got, want, place)
                check(place.content(back) == place.content(breccia.dequantize(want)), f"cupy: CUDA graph: {recipe.text}")


def memory() -> None:
    x, pool = there(512, 1024), cupy.get_default_memory_pool()

    def work() -> None:
        for recipe in recipes(*FEW):
            breccia.dequantize(breccia.cast(x, recipe))

    work()
    cupy.cuda.Device().synchronize()
    free, held = cupy.cuda.runtime.memGetInfo()[0], pool.total_bytes()
    for _ in range(20):
        work()
    cupy.cuda.Device().synchronize()
    check(pool.total_bytes() == held, "cupy: its pool grew")
    check(cupy.cuda.runtime.memGetInfo()[0] == free, "cupy: memory was taken beside its pool")


def bfloat16() -> None:
    try:
        import ml_dtypes
        x = cupy.asarray(there(64, 128).get().astype(ml_dtypes.bfloat16))
        x.astype(cupy.float32)
    except Exception as why:
        print(f"cupy bfloat16: NOT CHECKED, this CuPy has none ({type(why).__name__}: {why})")
        return
    for recipe in recipes("fp8", "mxfp4", "int4:scale=bf16"):
        want, got = breccia.cast(x.get(), recipe), breccia.cast(x, recipe)
        tensors(f"bfloat16: {recipe.text}", got, want, place)
        check(breccia.dequantize(got, "bf16").get().tobytes() == breccia.dequantize(want, "bf16").tobytes(), f"cupy: dequantize to bfloat16: {recipe.text}")


def run() -> None:
    everything(place)
    for part in (strides, streams, captured, memory, bfloat16):
        before = check.made, check.failed
        part()
        print(f"cupy {part.__name__}: {check.made - before[0]} comparisons, {check.failed - before[1]} wrong", flush=True)
