#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Casts and dequantization against the copy bandwidth of the same run: casts.py [ROWSxCOLS [bf16|f16|f32]]; ONLY="mxfp4 int" chooses.
Cold: one call after the L2 was emptied by reading; repeated: a graph of calls over rotating buffers. "compiled": the same cast written in
PyTorch and compiled by it, on the same buffers; the last line is how many times as quick breccia is (PEERS=no leaves it out)."""
import argparse
import os
import statistics
import sys

import torch

import breccia_gpu as brc
import breccia_tensors as bt
import referee


def graph_time(calls, seconds=0.02):
    """Seconds a call, in a graph that walks over `calls`."""
    for f in calls:
        f()
    torch.cuda.synchronize()
    c = referee.Contestant("", "", lambda i: calls[i]())
    referee.capture(argparse.Namespace(sets=len(calls)), c)
    times = []
    for _ in range(5):
        n = max(1, int(seconds / 5 / c.replay_s))
        e0, e1 = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        e0.record()
        for _ in range(n):
            c.graph.replay()
        e1.record()
        e1.synchronize()
        times.append(e0.elapsed_time(e1) * 1e-3 / n / c.calls)
    return statistics.median(times)


# With the transpose in the same read: recipe, reads of the source.
BOTH = (("fp8-delayed", 1), ("fp8", 2), ("fp8-block", 1), ("fp8-block:arith=te,pow2=1", 1), ("fp8-block128", 1), ("mxfp8", 1))
# From, to, reads of the source.
REQUANTIZED = (("fp8-block", "mxfp8", 1), ("fp8-block", "nvfp4", 2), ("mxfp4", "fp8-block", 1), ("nvfp4", "mxfp8", 1), ("int4", "fp8-row", 1))
# Recipe, code bits, bytes of scales an element, reads of the source.
CASTS = (("fp8-delayed", 8, 0, 1), ("fp8", 8, 0, 2), ("fp8-row", 8, 0, 1), ("fp8-block", 8, 4 / 128, 1), ("fp8-block:arith=te,pow2=1", 8, 4 / 128, 1),
         ("fp8-block by column", 8, 4 / 128, 1), ("fp8-block128", 8, 0, 1), ("mxfp8", 8, 1 / 32, 1), ("mxfp6-e3m2", 6, 1 / 32, 1), ("mxfp6-e2m3", 6, 1 / 32, 1),
         ("mxfp4", 4, 1 / 32, 1), ("nvfp4 given", 4, 1 / 16, 1), ("nvfp4", 4, 1 / 16, 2), ("int8", 8, 0, 1), ("int4", 4, 2 / 128, 1))


def compiled(amax, by_column=False):
    """A cast from x to E4M3 whose scale is the largest magnitude that `amax` finds, over 448."""
    def cast(x):
        v, m = amax(x)
        scale = m.float() / 448.0
        return (v.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn).view(x.shape), scale.squeeze(-1).t().contiguous() if by_column else scale
    return cast


def mx(x):
    v = x.view(x.shape[0], -1, 32)
    e = (((v.abs().amax(2, keepdim=True).float().view(torch.int32) >> 23) & 0xFF) - 8).clamp(0, 254)
    return (v.float() * ((254 - e) << 23).view(torch.float32)).clamp(-448, 448).to(torch.float8_e4m3fn).view(x.shape), e.to(torch.uint8)


def blocks(x):
    v = x.view(x.shape[0], -1, 128)
    return v, v.abs().amax(2, keepdim=True)


def squares(x):
    v = x.view(x.shape[0] // 128, 128, x.shape[1] // 128, 128)
    return v, v.abs().amax((1, 3), keepdim=True)


COMPILED = {"fp8-delayed": lambda x, k: ((x.float() * k).clamp(-448, 448).to(torch.float8_e4m3fn), (x.abs().amax().float())),
            "fp8": compiled(lambda x: (x, x.abs().amax())), "fp8-row": compiled(lambda x: (x, x.abs().amax(1, keepdim=True))),
            "fp8-block": compiled(blocks), "fp8-block by column": compiled(blocks, True), "fp8-block128": compiled(squares), "mxfp8": mx}


def main():
    rows, cols = (int(v) for v in (sys.argv[1] if len(sys.argv) > 1 else "16384x8192").split("x"))
    dtype = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[sys.argv[2] if len(sys.argv) > 2 else "bf16"]
    only = os.environ.get("ONLY", "").split()
    tools = referee.Tools(256)
    n, size = rows * cols, dtype.itemsize
    sets = max(2, -(-200 * 2**20 // (n * size)))
    xs = [torch.randn(rows, cols, device="cuda").to(dtype) for _ in range(sets)]
    ys = [torch.empty_like(x) for x in xs]

    def measure(name, calls, nbytes, base=None):
        cold = statistics.median(referee.cold(tools, lambda i: calls[i % sets](), sets, 12)[2:])
        rep = graph_time(calls)
        print(f"| {name} | {cold*1e6:.1f} | {nbytes/cold/1e9:.0f} | {rep*1e6:.1f} | {nbytes/rep/1e9:.0f} | {f'{nbytes/rep/base[1]:.3f}' if base else ''} | {f'{nbytes/cold/base[0]:.3f}' if base else ''} |", flush=True)
        return nbytes / cold, nbytes / rep

    ratios = []
    print(f"{rows}x{cols} {dtype}\n| what | cold us | GB/s | repeated us | GB/s | of copy | of copy, cold |\n|---|---|---|---|---|---|---|")
    base = measure("copy", [lambda x=x, y=y: y.copy_(x) for x, y in zip(xs, ys)], 2 * size * n)
    measure("copy again", [lambda x=x, y=y: y.copy_(x) for x, y in zip(xs, ys)], 2 * size * n, base)
    k = torch.tensor(3.7, device="cuda")
    for text, bits, scales, reads in CASTS:
        if only and not any(text.startswith(word) for word in only):
            continue
        r = bt.recipe(text.split()[0])
        cs = [bt.Cast(x, r, k if text == "fp8-delayed" else None, "column" in text, "given" not in text) for x in xs]
        if "given" in text:
            for c in cs:
                c.glob.view(torch.float32).fill_(0.002)
        mine = measure(text, [c.run for c in cs], (size * reads + bits / 8 + scales) * n, base)
        if text in COMPILED and os.environ.get("PEERS") != "no":
            f = torch.compile(COMPILED[text], fullgraph=True, dynamic=False)
            more = (k,) if text == "fp8-delayed" else ()
            ratios.append(mine[1] / measure(text + ", compiled", [lambda x=x: f(x, *more) for x in xs], (size * reads + bits / 8 + scales) * n, base)[1])
        if not set(text) & set(": "):
            measure("dequantize " + text, [lambda c=c, y=y: c.dequantize(y) for c, y in zip(cs, ys)], (size + bits / 8 + scales) * n, base)
        del cs
    for text, reads in BOTH:
        if not only or any((text + " both").startswith(word) or word == "both" for word in only):
            r = bt.recipe(text)
            cs = [bt.Cast(x, r, k if text == "fp8-delayed" else None, both=True) for x in xs]
            measure(text + " both", [c.run for c in cs], (size * reads + 2 + 2 * cs[0].sizes.scale / n) * n, base)
            del cs
    for source, text, reads in REQUANTIZED:
        if not only or "requantize" in only:
            cs = [bt.Cast(x, bt.recipe(source)) for x in xs]
            rs = [bt.Requantize(c, bt.recipe(text)) for c in cs]
            for c in cs:
                c.run()
            moved = reads * (cs[0].sizes.data + cs[0].sizes.scale) + rs[0].sizes.data + rs[0].sizes.scale
            measure(f"requantize {source} to {text}", [r.run for r in rs], moved, base)
            del cs, rs
    if ratios:
        print(f"{statistics.geometric_mean(ratios):.3f} times as quick as torch.compile, geometric mean of {len(ratios)}: " + ", ".join(f"{r:.2f}" for r in ratios))


if __name__ == "__main__":
    main()
