#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Packed narrow weights x BF16 or E4M3 against the fastest others on the same codes and scales: humming-kernels (its own choice of
kernel, and the best of variations of it with --tune), torch's INT4 product, dequantized weights through cuBLAS in BF16, and,
for E4M3 activations, a row-scaled FP8 product of torch.

Sustained: a graph of calls that walk over rotating copies of the weights; cold: one call after the L2 was emptied by reading.
Contestants take turns in random order every round. The floor is the bytes of codes and scales at the read bandwidth, and an
empty kernel (bench/gpu/NOTES.md)."""
import argparse
import itertools
import json
import math
import random
import statistics

import torch

import breccia_gpu as brc
import breccia_narrow as nar
import referee

DEV = "cuda"
BITS = {"mxfp4": 4.25, "nvfp4": 4.5, "int4": 4.125, "fp8": 8, "mxfp8": 8.25}
OPTIONS = {"int4": {"group": 128, "scale": "bf16"}, "fp8": {"rows": 128, "scale": "f32"}}


class Call:
    def __init__(self, name, calls, d):
        self.name, self.calls, self.d = name, calls, d
        self.sustained, self.cold, self.error, self.graph = [], [], float("nan"), None

    def capture(self):
        for f in self.calls:
            f()
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            for _ in range(max(1, -(-20 // len(self.calls)))):
                for f in self.calls:
                    f()
        self.per_graph = max(1, -(-20 // len(self.calls))) * len(self.calls)


def breccia(w, x, s, sets, m, n):
    copies = [nar.PackedWeights(w, x.dtype) for _ in range(sets)]
    d = torch.empty(m, n, device=DEV, dtype=torch.bfloat16)
    ps = [nar.product(x, p, d, brc.B_UNCHANGED, a_scale=s) for p in copies]
    print("  breccia:", nar.text(nar.planned(ps[0])), flush=True)
    return Call("breccia", [lambda p=p: nar.run(p) for p in ps], d)


def humming_layer(w, dtype):
    """The same codes and scales as humming's layer."""
    from humming.layer import HummingLayer
    n, k = w.n, w.k
    if w.kind == "mxfp4":
        config, t = {"quant_method": "mxfp4"}, {"weight": w.codes, "weight_scale": w.scale}
    elif w.kind == "nvfp4":
        config = {"dtype": "float4e2m1", "scale_dtype": "float8e4m3", "group_size": 16, "scale_2_type": "tensor"}
        t = {"weight": w.codes.view(torch.int32), "weight_scale": w.scale, "weight_scale_2": w.glob}
    elif w.kind == "int4":
        config = {"dtype": "uint4", "group_size": w.group}
        t = {"weight": (w.codes ^ 0x88).view(torch.int32), "weight_scale": w.scale}
    else:
        config = {"quant_method": "fp8", "weight_block_size": [128, 128]}
        t = {"weight": w.codes, "weight_scale_inv": w.scale}
    layer = HummingLayer(shape_n=n, shape_k=k, weight_config=config, torch_dtype=torch.bfloat16,
                         input_config={"dtype": "float8e4m3", "quant_mode": "dynamic_token"} if dtype == torch.float8_e4m3fn else None).cuda()
    layer.load_from_tensors(t)
    layer.transform()
    return layer


def humming(w, x, s, sets, m, n, layer, tune):
    import copy
    layers = [layer] + [copy.deepcopy(layer) for _ in range(sets - 1)]
    d = torch.empty(m, n, device=DEV, dtype=torch.bfloat16)
    scale = {"input_scale": s.view(-1, 1)} if s is not None else {}
    out = [Call("humming", [lambda y=y: y(x, outputs=d, **scale) for y in layers], d)]
    if tune:
        from humming.tune import get_heuristics_config
        base = dict(get_heuristics_config(layer_config=layer.humming_config, shape_m=m))
        for change in tune:
            config = base | change
            e = torch.empty_like(d)
            try:
                layer(x, outputs=e, tuning_config=config, **scale)
                torch.cuda.synchronize()
            except Exception as ex:  # noqa: BLE001
                print("  humming", change, "does not run:", str(ex).splitlines()[0][:100])
                continue
            out.append(Call(f"humming {change}", [lambda y=y, e=e, c=config: y(x, outputs=e, tuning_config=c, **scale) for y in layers], e))
    return out


def torch_int4(w, x, s, sets, m, n):
    code = (w.codes ^ 0x88)
    code = (code << 4 | code >> 4).contiguous()               # torch: even elements in the high nibble
    packed = torch.ops.aten._convert_weight_to_int4pack(code, 8)
    sz = torch.stack([w.scale.t().contiguous(), torch.zeros_like(w.scale.t())], 2).contiguous()
    copies = [(packed.clone(), sz.clone()) for _ in range(sets)]
    out = {}

    def call(p, s):
        out["d"] = torch.ops.aten._weight_int4pack_mm(x, p, w.group, s)
    c = Call("torch int4", [lambda p=p, s=s: call(p, s) for p, s in copies], None)
    call(*copies[0])
    c.d = out["d"]
    return c


def scaled_mm(w, x, s, sets, m, n):
    """A row-scaled FP8 product of the same shape; its weights are others."""
    rows = [torch.randn(n, w.k, device=DEV).to(torch.float8_e4m3fn) for _ in range(2)]
    padded = x if m % 16 == 0 else torch.cat([x.view(torch.uint8), torch.zeros(-m % 16, w.k, dtype=torch.uint8, device=DEV)]).view(x.dtype)
    a, b = torch.ones(padded.shape[0], 1, device=DEV), torch.ones(1, n, device=DEV)
    return Call("fp8 rows torch", [lambda r=r: torch._scaled_mm(padded, r.t(), a, b, out_dtype=torch.bfloat16) for r in rows], None)


def cublas(w, x, s, sets, m, n):
    v, x = w.values.to(torch.bfloat16), x.to(torch.bfloat16)
    copies = [v.clone() for _ in range(max(2, sets // 3))]
    d = torch.empty(m, n, device=DEV, dtype=torch.bfloat16)
    return Call("bf16 cublas", [lambda b=b: torch.mm(x, b.t(), out=d) for b in copies], d)


def cold(tools, calls, reps):
    """Seconds of single calls, each after the L2 was emptied by reading; the device waits until all are queued, so that no host's
    slowness is in them."""
    events = []
    torch.cuda._sleep(6_000_000)
    for j in range(reps):
        tools.read()
        e0, e1 = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        e0.record()
        calls[j % len(calls)]()
        e1.record()
        events.append((e0, e1))
    torch.cuda.synchronize()
    return [a.elapsed_time(b) * 1e-3 for a, b in events]


def measure(calls, tools, rounds, seconds):
    for c in calls:
        c.capture()
    for r in range(rounds + 1):
        random.shuffle(calls)
        for c in calls:
            n = 1
            for stretch in (0.3 * seconds, seconds):
                e0, e1 = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                e0.record()
                for _ in range(n):
                    c.graph.replay()
                e1.record()
                torch.cuda.synchronize()
                t = e0.elapsed_time(e1) * 1e-3 / n
                n = max(1, int(seconds / t))
            if r:
                c.sustained.append(t / c.per_graph)
                c.cold += cold(tools, c.calls, 6)[1:]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--shapes", default="4096x7168,8192x8192,28672x8192")
    p.add_argument("--kinds", default="mxfp4,nvfp4,int4,fp8")
    p.add_argument("--tokens", default="1,16")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=0.004)
    p.add_argument("--tune", default="", help="humming's variations, for example num_stages=4,6;num_ctas_per_sm=1,2")
    p.add_argument("--peers", default="humming,torch,cublas,scaled")
    p.add_argument("--activations", default="bf16", help="bf16 or e4m3")
    p.add_argument("--json")
    a = p.parse_args()
    brc.prepare()
    tools = referee.Tools(256)
    tune = []
    if a.tune:
        axes = [(x.split("=")[0], [json.loads(v) for v in x.split("=")[1].split(",")]) for x in a.tune.split(";")]
        tune = [dict(zip([k for k, _ in axes], v)) for v in itertools.product(*[v for _, v in axes])]
    gen = torch.Generator(device=DEV).manual_seed(3)
    rows, dtype = [], {"bf16": torch.bfloat16, "e4m3": torch.float8_e4m3fn}[a.activations]
    tokens = [int(m) for m in a.tokens.split(",")]
    for shape in a.shapes.split(","):
        n, k = (int(v) for v in shape.split("x"))
        for kind in a.kinds.split(","):
            w = nar.Weights(kind, n, k, gen=gen, normal=True, **OPTIONS.get(kind, {}))
            size = n * k * BITS[kind] / 8
            sets = max(2, math.ceil(150e6 / size))
            layer = None
            if "humming" in a.peers:
                try:
                    layer = humming_layer(w, dtype)
                except Exception as ex:  # noqa: BLE001
                    print("humming does not take", kind, ":", repr(ex)[:300], flush=True)
            for m in tokens:
                x = torch.randn(m, k, generator=gen, device=DEV).to(dtype)
                s = torch.ones(m, device=DEV) if a.activations == "e4m3" else None
                ref, mag = x.double() @ w.values.t(), x.double().abs() @ w.values.abs().t()
                calls = [breccia(w, x, s, sets, m, n)]
                for peer, make in (("humming", lambda: humming(w, x, s, sets, m, n, layer, tune)), ("torch", lambda: torch_int4(w, x, s, sets, m, n)),
                                   ("cublas", lambda: cublas(w, x, s, sets, m, n)), ("scaled", lambda: scaled_mm(w, x, s, sets, m, n))):
                    if peer not in a.peers.split(",") or (peer == "humming" and layer is None) or (peer == "torch" and (kind != "int4" or s is not None)) or (
                            peer == "scaled" and s is None):
                        continue
                    try:
                        made = make()
                        calls += made if isinstance(made, list) else [made]
                    except Exception as ex:  # noqa: BLE001
                        print(" ", peer, "failed:", repr(ex)[:300], flush=True)
                for c in calls:
                    c.calls[0]()
                    torch.cuda.synchronize()
                    if c.d is None:
                        c.bound = float("nan")
                        continue
                    c.error = ((c.d.double() - ref).norm() / ref.norm()).item()
                    c.bound = ((c.d.double() - ref).abs() / mag.clamp_min(1e-30)).max().item()
                del ref, mag
                measure(calls, tools, a.rounds, a.seconds)
                floor = size / 4.5e12 + 3.4e-6
                best = min((statistics.median(c.sustained) for c in calls if c.name != "breccia"), default=float("nan"))
                best_cold = min((statistics.median(c.cold) for c in calls if c.name != "breccia"), default=float("nan"))
                for c in sorted(calls, key=lambda c: c.name):
                    s, t = statistics.median(c.sustained), statistics.median(c.cold)
                    row = {"kind": kind, "n": n, "k": k, "m": m, "name": c.name, "error": c.error, "bound": c.bound, "us": s * 1e6, "cold_us": t * 1e6, "floor_us": floor * 1e6,
                           "spread": (max(c.sustained) - min(c.sustained)) / s}
                    rows.append(row)
                    mine = c.name == "breccia"
                    print(f"{kind:6} {n}x{k} m={m:<5} {c.name:40} err {c.error:.1e}  {s*1e6:8.2f} us (+-{row['spread']/2:4.0%})  cold {t*1e6:8.2f}"
                          + (f"  floor/cold {floor/t:.3f}  peer {best/s:.3f} cold {best_cold/t:.3f}" if mine else ""), flush=True)
                del calls
            del w, layer
            torch.cuda.empty_cache()
    if a.json:
        json.dump(rows, open(a.json, "w"))


if __name__ == "__main__":
    main()
