#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Casts and dequantization against the copy bandwidth of the same run, and torch.compile'd casts where asked for.
Cold: one call after the L2 was emptied by reading; repeated: a graph of calls over rotating buffers."""
import argparse
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


def main():
    rows, cols = (int(v) for v in (sys.argv[1] if len(sys.argv) > 1 else "16384x8192").split("x"))
    brc.prepare()
    tools = referee.Tools(256)
    sets = max(2, -(-200 * 2**20 // (rows * cols * 2)))
    xs = [torch.randn(rows, cols, device="cuda").bfloat16() for _ in range(sets)]
    n = rows * cols
    ys = [torch.empty_like(x) for x in xs]

    def measure(name, calls, nbytes, base=None):
        cold = statistics.median(referee.cold(tools, lambda i: calls[i % sets](), sets, 12)[2:])
        rep = graph_time(calls)
        print(f"| {name} | {cold*1e6:.1f} | {nbytes/cold/1e9:.0f} | {rep*1e6:.1f} | {nbytes/rep/1e9:.0f} | {f'{nbytes/rep/base[1]:.3f}' if base else ''} | {f'{nbytes/cold/base[0]:.3f}' if base else ''} |", flush=True)
        return nbytes / cold, nbytes / rep

    print(f"{rows}x{cols} BF16\n| what | cold us | GB/s | repeated us | GB/s | of copy | of copy, cold |\n|---|---|---|---|---|---|---|")
    base = measure("copy", [lambda x=x, y=y: y.copy_(x) for x, y in zip(xs, ys)], 4 * n)
    measure("copy again", [lambda x=x, y=y: y.copy_(x) for x, y in zip(xs, ys)], 4 * n, base)
    k = torch.tensor(3.7, device="cuda")
    for text, nbytes in (("fp8-delayed", 3), ("fp8", 5), ("fp8-row", 3), ("fp8-block", 3 + 4 / 128), ("fp8-block:arith=te,pow2=1", 3 + 4 / 128), ("fp8-block by column", 3 + 4 / 128),
                         ("fp8-block128", 3), ("mxfp8", 3 + 1 / 32), ("mxfp6-e3m2", 2.75 + 1 / 32), ("mxfp4", 2.5 + 1 / 32), ("nvfp4 given", 2.5 + 1 / 16), ("nvfp4", 4.5 + 1 / 16), ("int8", 3), ("int4", 2.5 + 2 / 128)):
        r = bt.recipe(text.split()[0])
        cs = [bt.Cast(x, r, k if text == "fp8-delayed" else None, "column" in text, "given" not in text) for x in xs]
        if "given" in text:
            for c in cs:
                c.glob.view(torch.float32).fill_(0.002)
        measure(text, [c.run for c in cs], nbytes * n, base)
        if text in ("fp8-delayed", "fp8-row", "fp8-block", "fp8-block128", "mxfp8", "mxfp6-e3m2", "mxfp4", "nvfp4", "int8", "int4"):
            back = nbytes if text not in ("nvfp4",) else 2.5 + 1 / 16
            measure("dequantize " + text, [lambda c=c, y=y: c.dequantize(y) for c, y in zip(cs, ys)], back * n, base)
        del cs


if __name__ == "__main__":
    main()
