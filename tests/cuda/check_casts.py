#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Casts and dequantization on the GPU against the CPU library, bit for bit. BRECCIA_CPU names libbreccia.so.
Inputs: every bit pattern of the sixteen-bit types, blocks of every magnitude, zeros, infinities, NaN, subnormals, ties, and
shapes that are no multiple of anything; `all` adds every float (2^32) through the FP8 encoders, `tiny` is a set for the sanitizers."""
import os
import sys

import numpy as np
import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench", "gpu"))
import breccia_gpu as brc  # noqa: E402
import breccia_tensors as bt  # noqa: E402

DEV = "cuda"
RECIPES = ["fp8-delayed", "fp8-delayed:format=e5m2", "fp8", "fp8:format=e5m2", "fp8:pow2=1", "fp8:margin=2", "fp8-row", "fp8-row:format=e5m2",
           "fp8-row:arith=te", "fp8-block", "fp8-block:arith=te,pow2=1", "fp8-block:arith=deepgemm", "fp8-block:format=e5m2",
           "fp8-block128", "fp8-block128:arith=te,pow2=1", "fp8-block128:arith=deepgemm", "mxfp8", "mxfp8:rule=floor", "mxfp8:rule=even", "mxfp8:format=e5m2",
           "mxfp6-e3m2", "mxfp6-e2m3", "mxfp4", "mxfp4:rule=ceil", "nvfp4", "nvfp4:levels=1", "nvfp4:arith=div", "int8", "int4", "int4:scale=bf16", "int4:scale=f32"]


# What has a kernel that gives the transpose as well.
BOTH = ["fp8-delayed", "fp8", "fp8:format=e5m2", "fp8-block", "fp8-block:arith=te,pow2=1", "fp8-block:format=e5m2", "fp8-block128", "fp8-block128:arith=deepgemm",
        "mxfp8", "mxfp8:format=e5m2"]


# Requantization: from each of these to each of those.
CODED = ["fp8", "fp8-row", "fp8-block:format=e5m2", "fp8-block128", "mxfp8", "mxfp6-e3m2", "mxfp6-e2m3", "mxfp4", "nvfp4", "int8", "int4", "int4:scale=bf16"]
REQUANTIZED = ["fp8", "fp8-row", "fp8-block", "fp8-block128", "mxfp8", "mxfp8:format=e5m2", "mxfp6-e2m3", "mxfp4", "nvfp4", "int8", "int4"]


def inputs(dtype):
    """(name, tensor): the awkward first."""
    g = torch.Generator(device=DEV).manual_seed(7)
    out = []
    if dtype != torch.float32:
        out.append(("every bit pattern", torch.arange(65536, device=DEV, dtype=torch.int32).to(torch.int16).view(dtype).view(128, 512)))
        finite = torch.arange(65536, device=DEV, dtype=torch.int32).to(torch.int16).view(dtype)
        finite = torch.where(torch.isfinite(finite), finite, torch.zeros_like(finite))
        out.append(("every finite pattern, shuffled", finite[torch.randperm(65536, generator=g, device=DEV)].view(256, 256)))
    else:
        bits = torch.randint(-2**31, 2**31 - 1, (256, 512), generator=g, device=DEV, dtype=torch.int64).to(torch.int32)
        out.append(("random bits", bits.view(torch.float32)))
    x = torch.randn(384, 512, generator=g, device=DEV)
    out.append(("normal", x.to(dtype)))
    out.append(("magnitudes", (x * torch.exp2(torch.linspace(-140, 120, 384, device=DEV))[:, None]).to(dtype)))
    y = x.clone()
    y[:128, :256] = 0
    y[130, 7] = float("inf")
    y[131, 8] = float("nan")
    y[132] = float("nan")
    y[133, 0:32] = -0.0
    y[300:, :] = 2.0 ** -133
    out.append(("zeros, inf, nan, subnormals", y.to(dtype)))
    k = torch.randint(-4096, 4096, (128, 1024), generator=g, device=DEV).float() / 16
    out.append(("ties", k.to(dtype)))
    for shape in ((1, 1), (3, 17), (129, 130), (127, 1000), (5, 4104), (2, 20000), (1, 33)):
        out.append((f"{shape[0]}x{shape[1]}", torch.randn(shape, generator=g, device=DEV).to(dtype)))
    wide = torch.randn(64, 700, generator=g, device=DEV).to(dtype)
    out.append(("a pitch", wide[:, :650]))
    out.append(("three dimensions", torch.randn(2, 128, 256, generator=g, device=DEV).to(dtype)))
    return out


def compare(name, text, x):
    """A list of what differs."""
    r, bad = bt.recipe(text), []
    r.partial = 1
    delayed = 3.7 if text.startswith("fp8-delayed") else None
    try:
        data, scale, glob, amax, t = bt.cast_cpu(x, r, delayed)
    except RuntimeError as e:
        return [f"CPU: {e}"] if "shape" not in str(e) else []
    c = bt.Cast(x, r, torch.tensor(delayed, device=DEV) if delayed else None)
    try:
        c.run()
        c.run() if not delayed else None          # scratch is left as it was found
    except RuntimeError as e:
        return [f"GPU: {e}"]
    torch.cuda.synchronize()
    for what, a, b in (("codes", c.data, data), ("scales", c.scale, scale), ("global", c.glob, glob)):
        n = {"codes": c.sizes.data, "scales": c.sizes.scale, "global": c.sizes.global_}[what]
        a, b = a.cpu().numpy()[:n], b[:n]
        if not np.array_equal(a, b):
            i = int(np.nonzero(a != b)[0][0])
            bad.append(f"{text} of {x.dtype} {name}: {int((a != b).sum())} of {n} bytes of {what} differ, first {i}: {a[i]:#x} for {b[i]:#x}")
    if delayed and c.amax.item() != amax:
        bad.append(f"{text} {name}: amax {c.amax.item()} for {amax}")
    if not bad:
        for fmt, dtype in bt.TORCH.items():
            y = torch.empty(x.shape, dtype=dtype, device=DEV)
            c.dequantize(y)
            ref = bt.dequantize_cpu(t, tuple(x.shape), fmt).view(np.uint32 if fmt == brc.F32 else np.uint16)
            got = (y.view(torch.int32) if fmt == brc.F32 else y.view(torch.int16)).cpu().numpy().view(ref.dtype)
            if not np.array_equal(got, ref):
                i = np.argwhere(got != ref)[0]
                bad.append(f"{text} {name}: dequantize to {dtype}: {int((got != ref).sum())} of {ref.size} differ, first {i}: {got[tuple(i)]:#x} for {ref[tuple(i)]:#x}")
    if text in BOTH and x.dim() == 2:
        bad += compare_both(name, text, x, r, delayed)
    if "block" in text and x.dim() == 2:
        d = bt.Cast(x, r, by_column=True)
        d.run()
        torch.cuda.synchronize()
        rows = -(-x.shape[0] // max(1, r.block.rows))
        n = c.sizes.scale // 4
        a, b = d.scale.view(torch.float32)[:n].view(-1, rows).t().contiguous(), c.scale.view(torch.float32)[:n].view(rows, -1)
        if not torch.equal(a.view(torch.int32), b.contiguous().view(torch.int32)):
            bad.append(f"{text} {name}: scales by column differ")
    return bad


def compare_both(name, text, x, r, delayed):
    """What differs of a cast of a matrix and its transpose in one call."""
    c = bt.Cast(x, r, torch.tensor(delayed, device=DEV) if delayed else None, both=True)
    c.run()
    c.run() if not delayed else None
    torch.cuda.synchronize()
    bad = []
    for which, parts, y in (("plain", c, x), ("transposed", c.turned, x.t().contiguous())):
        data, scale = bt.cast_cpu(y, r, delayed)[:2]
        for what, a, b, n in (("codes", parts.data, data, parts.sizes.data), ("scales", parts.scale, scale, parts.sizes.scale)):
            a, b = a.cpu().numpy()[:n], b[:n]
            if not np.array_equal(a, b):
                i = int(np.nonzero(a != b)[0][0])
                bad.append(f"{text} of {x.dtype} {name}, {which}: {int((a != b).sum())} of {n} bytes of {what} differ, first {i}: {a[i]:#x} for {b[i]:#x}")
    return bad


def compare_requantize(x, source, text):
    """What differs between a requantization and a CPU's cast of the dequantized values."""
    rs, r = bt.recipe(source), bt.recipe(text)
    rs.partial = r.partial = 1
    c = bt.Cast(x, rs)
    c.run()
    c.data[:x.shape[-1] // 4] = 0xFF                     # NaN where the format has it, else what no cast gives
    values = torch.empty(x.shape, device=DEV)
    c.dequantize(values)
    q = bt.Requantize(c, r)
    q.run()
    torch.cuda.synchronize()
    want = bt.cast_cpu(values, r)[:3]
    return [f"{source} {tuple(x.shape)} to {text}: {what}" for what, a, b, n in zip(
        ("codes", "scales", "global"), (q.data, q.scale, q.glob), want, (q.sizes.data, q.sizes.scale, q.sizes.global_))
        if not np.array_equal(a.cpu().numpy()[:n], b[:n])]


def every_float():
    """All 2^32 floats through both FP8 encoders, in pieces, with a scale of 1: how many codes differ."""
    bad, one, piece = {"e4m3": 0, "e5m2": 0}, torch.ones(1, device=DEV), 1 << 27
    for first in range(-(1 << 31), 1 << 31, piece):
        x = torch.arange(first, first + piece, device=DEV, dtype=torch.int64).to(torch.int32).view(torch.float32).view(-1, 4096)
        host = x.cpu()
        for fmt in bad:
            r = bt.recipe(f"fp8-delayed:format={fmt}")
            c = bt.Cast(x, r, one)
            c.run()
            bad[fmt] += int((c.data[:piece] != torch.from_numpy(bt.cast_cpu(host, r, 1.0)[0][:piece]).to(DEV)).sum())
    return bad


def main():
    bad = ran = 0
    tiny = "tiny" in sys.argv                  # every kernel once or twice: many tiles with awkward numbers, and ragged ones
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for name, x in inputs(dtype):
            if tiny and name not in ("zeros, inf, nan, subnormals", "129x130"):
                continue
            for text in RECIPES:
                if not brc.mine():
                    continue
                wrong = compare(name, text, x)
                ran += 1
                bad += bool(wrong)
                for line in wrong[:2]:
                    if bad < 40:
                        print(line, flush=True)
    g = torch.Generator(device=DEV).manual_seed(9)
    for shape in ((33, 130),) if tiny else ((384, 512), (33, 130), (2, 128, 96), (3, 1036)):
        x = torch.randn(shape, generator=g, device=DEV) * torch.exp2(torch.randint(-8, 8, (*shape[:-1], 1), generator=g, device=DEV).float())
        for source in CODED:
            for text in REQUANTIZED:
                if len(shape) > 2 and "block128" in text + source and shape[-2] % 128 or not brc.mine():
                    continue
                wrong = compare_requantize(x, source, text)
                ran += 1
                bad += bool(wrong)
                for line in wrong if bad < 40 else []:
                    print(line, flush=True)
    print(f"casts: {ran} ran, {bad} wrong")
    if "all" in sys.argv and brc.mine():
        for fmt, n in every_float().items():
            bad += n > 0
            print(f"every float to {fmt}: {n} codes differ", flush=True)
    print("CASTS", "WRONG" if bad or not ran else "RIGHT")
    return 1 if bad or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
