# SPDX-License-Identifier: Apache-2.0
"""PyTorch's CUDA tensors: strides, streams, torch.compile, CUDA graphs, gradients, and that nothing waits or allocates aside."""
import os
from typing import Any, Callable

import numpy as np
import torch

import breccia
from breccia.kernels import cuda

from common import Place, awkward, check, everything, tensors

# cpu: for trying this file where there is no GPU. What is compared then is trivially equal.
DEVICE = os.environ.get("BRECCIA_DEVICE", "cuda")
ON_GPU = DEVICE == "cuda"


def content(x: Any) -> bytes:
    x = x.detach().cpu().contiguous()
    return x.reshape(-1).view(torch.uint8).numpy().tobytes() if x.numel() else b""


def here(x: np.ndarray, dtype: str) -> Any:
    return torch.from_numpy(x.copy()).to(getattr(torch, dtype))


place = Place("torch", lambda x, dtype: here(x, dtype).to(DEVICE), here, content, lambda x: x.detach().cpu().double().numpy(),
              ("float32", "float16", "bfloat16"), lambda x: x.device.type == DEVICE)
# One of each kind of kernel.
FEW = ("fp8", "fp8-row", "fp8-block", "fp8-block128", "mxfp8", "mxfp4", "nvfp4", "int8", "int4")


def recipes(*texts: str) -> list[Any]:
    return [breccia.recipes.from_text(text) for text in texts]


def there(*shape: int) -> Any:
    return place.there(np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32), "float32")


def strides() -> None:
    x = there(256, 512)
    views = {"transposed": x.t(), "every other column": x[:, ::2], "a window": x[3:131, 5:389], "every other row": x[::2], "one row for all":
             x[:1].expand(128, 512), "flipped": x.flip(0)[:, 128:], "three dimensions": there(4, 128, 256).transpose(0, 1), "imaginary":
             torch.view_as_complex(there(128, 256, 2)).conj().imag, "double": x.double()}
    for name, view in views.items():
        for recipe in recipes("fp8", "mxfp4", "nvfp4", "fp8-block"):
            try:
                want = breccia.cast(view.cpu(), recipe)
            except ValueError:
                continue
            tensors(f"{name}: {recipe.text}", breccia.cast(view, recipe), want, place)
    st = breccia.cast(x, breccia.INT8Scaling())
    turned = breccia.ScaledTensor(st.data.t().contiguous().t(), st.scale, st.recipe, st.layout)
    check(torch.equal(breccia.dequantize(turned if DEVICE == "cpu" else st), breccia.dequantize(st)), "torch: turned codes")


def streams() -> None:
    """Work queued before a call on its stream is seen by it; the call itself returns while that work still runs."""
    if not ON_GPU:
        return
    x, w = there(512, 1024), breccia.cast(there(256, 1024), breccia.Float8CurrentScaling())
    side, late = torch.cuda.Stream(), torch.zeros_like(x)
    torch.cuda.synchronize()
    for recipe in recipes(*FEW):
        want = breccia.cast(x, recipe)
        values, narrow = breccia.dequantize(want), breccia.cast(x, breccia.Float8CurrentScaling())
        result = breccia.matmul(narrow, w, transpose_b=True)
        torch.cuda.synchronize()
        with torch.cuda.stream(side):
            late.zero_()
            torch.cuda._sleep(400_000_000)                                       # cycles: about a fifth of a second
            late.copy_(x)
            got = breccia.cast(late, recipe)
            back = breccia.dequantize(got)
            product = breccia.matmul(breccia.cast(late, breccia.Float8CurrentScaling()), w, transpose_b=True)
            check(not side.query(), f"torch: {recipe.text}: a call waited for its stream")
        side.synchronize()
        tensors(f"a second stream: {recipe.text}", got, breccia.cast(x.cpu(), recipe), place)
        check(content(back) == content(values) and content(product) == content(result), f"torch: a second stream: {recipe.text}")


def no_waiting() -> None:
    """Neither torch is made to wait, nor is memory taken from anywhere but its allocator."""
    if not ON_GPU:
        return
    x, w = there(512, 1024), breccia.cast(there(256, 1024), breccia.Float8BlockScaling(block_m=128))

    def work() -> None:
        for recipe in recipes(*FEW):
            breccia.dequantize(breccia.cast(x, recipe), torch.bfloat16)
        breccia.matmul(breccia.cast(x, breccia.Float8BlockScaling()), w, transpose_b=True)
        breccia.matmul(breccia.cast(x, breccia.MXFP8BlockScaling()), w, transpose_b=True)

    work()
    torch.cuda.synchronize()
    free, reserved = torch.cuda.mem_get_info()[0], torch.cuda.memory_reserved()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    check(torch.cuda.memory_reserved() == reserved, "torch: its allocator grew")
    check(torch.cuda.mem_get_info()[0] == free, "torch: memory was taken beside its allocator", free, torch.cuda.mem_get_info()[0])


def layers() -> dict[str, Callable[..., Any]]:
    """Functions of (x, weight) for the compilers and graphs: (x [M, K], a float weight [N, K])."""
    def pair(a: str, b: str) -> Callable[..., Any]:
        of_x, of_w = recipes(a, b)

        def layer(x: Any, w: Any) -> Any:
            return breccia.matmul(breccia.cast(x, of_x), breccia.cast(w, of_w), torch.bfloat16, transpose_b=True)
        return layer

    def round_trip(text: str) -> Callable[..., Any]:
        recipe, = recipes(text)

        def layer(x: Any, w: Any) -> Any:
            return breccia.dequantize(breccia.cast(x, recipe)) * 2 + breccia.dequantize(breccia.requantize(breccia.cast(w, recipe), of_mx)).sum()
        of_mx, = recipes("mxfp8:rule=floor")
        return layer

    return {f"{a} x {b}": pair(a, b) for a, b in (("fp8", "fp8"), ("fp8-row", "fp8-row"), ("fp8-block", "fp8-block128"), ("mxfp8", "nvfp4"))} | {
        f"{text} and back": round_trip(text) for text in FEW if text != "mxfp8:rule=floor"}


def compiled() -> None:
    x, w = there(128, 512), there(256, 512)
    for mode in ("default", "reduce-overhead") if ON_GPU else ("default",):
        for name, layer in layers().items():
            torch.compiler.reset()
            quick = torch.compile(layer, fullgraph=True, mode=mode) if ON_GPU else torch.compile(layer, fullgraph=True, backend="aot_eager")
            for step in range(4):
                y = x * (step + 1)
                want, got = layer(y, w), quick(y, w)
                # Fused sums may be made in another order.
                check(torch.allclose(want, got, rtol=1e-5, atol=1e-3), f"torch.compile {mode}: {name}, step {step}",
                      (want.float() - got.float()).abs().max().item())


def captured() -> None:
    """A CUDA graph: captured once, replayed on other numbers, on another stream too."""
    if not ON_GPU:
        return
    cuda.prepare()
    w = there(256, 512)
    for name, layer in layers().items():
        x, side = there(128, 512), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            layer(x, w)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            got = layer(x, w)
        for step in range(3):
            x.copy_(there(128, 512) * (3 - step))
            if step == 2:
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    graph.replay()
                torch.cuda.current_stream().wait_stream(side)
            else:
                graph.replay()
            check(content(layer(x, w)) == content(got), f"CUDA graph: {name}, replay {step}")


def gradients() -> None:
    x = there(128, 512).requires_grad_()
    for recipe in recipes("fp8", "mxfp8", "nvfp4"):
        x.grad = None
        y = breccia.cast_ste(x, recipe)
        (y * y).sum().backward()
        check(content(y) == content(breccia.dequantize(breccia.cast(x.detach().cpu(), recipe))), f"cast_ste: {recipe.text}")
        check(torch.equal(x.grad, 2 * y.detach()), f"cast_ste: gradient of {recipe.text}")
        x.grad = None
        breccia.cast_ste_clipped(x, recipe, -1.0, 1.0).sum().backward()
        check(torch.equal(x.grad, (x.detach().abs() <= 1).float()), f"cast_ste_clipped: gradient of {recipe.text}")
    weight, bias = breccia.cast(there(256, 512), breccia.MXFP8BlockScaling()), there(256).requires_grad_()
    x.grad = None
    pull = there(128, 256)
    (breccia.matmul(x, weight, transpose_b=True, bias=bias) * pull).sum().backward()
    exact = pull.double() @ breccia.dequantize(weight).double()
    check((x.grad - exact).abs().max() <= 256 * 2.0 ** -24 * (pull.abs().double() @ breccia.dequantize(weight).abs().double()).max(), "matmul: gradient of x")
    check((bias.grad - pull.double().sum(0)).abs().max() < 1e-3, "matmul: gradient of the bias")


def foreign() -> None:
    """DLPack shares device memory."""
    st = breccia.cast(there(64, 128), breccia.Float8CurrentScaling())
    again = breccia.bridges.from_dlpack(st, "torch")
    check(again.data.data_ptr() == st.data.data_ptr(), "from_dlpack: memory is shared")
    tensors("cast of a seldom shape", breccia.cast(place.there(awkward((7, 3, 256)), "bfloat16"), breccia.MXFP4BlockScaling()),
            breccia.cast(place.here(awkward((7, 3, 256)), "bfloat16"), breccia.MXFP4BlockScaling()), place)


def run() -> None:
    if ON_GPU:
        torch.backends.cuda.matmul.allow_tf32 = False
    everything(place)
    for part in (strides, streams, no_waiting, captured, gradients, foreign, compiled):
        before = check.made, check.failed
        part()
        print(f"torch {part.__name__}: {check.made - before[0]} comparisons, {check.failed - before[1]} wrong", flush=True)
