#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times every row of the kernel table on the referee's shapes, interleaved, with torch's product beside it.
sweep.py [shapes: large, small, MxNxK,..] [kinds: fast,promoted,block] [--groups]: prints a table for each shape; the planner's constants come from here."""
import random
import statistics
import sys

import torch

import breccia_gpu as brc
import referee


def timed(f, sets, seconds):
    est = referee.burst_time(f, sets, sets)
    return referee.burst_time(f, sets, max(sets, int(seconds / est)))


def few(plan, n, k, cluster, share):
    """The plan of a product of few rows with another cluster."""
    nb, units = plan.tile_m, plan.tile_n // plan.rows
    split = 1 if share else cluster
    v = brc.Plan.from_buffer_copy(plan)
    blocks = max(1, 132 // split)
    v.rows = min(64, max(8, -(-n // (blocks * units * 8)) * 8))
    v.cluster, v.share, v.tile_n = cluster, share, units * v.rows
    v.grid = -(-(-(-n // v.tile_n) * split) // cluster) * cluster
    stage = (v.tile_n + nb) * 128 + 128
    v.stages = min(32, (232448 - 1024 - 8192) // stage)
    v.shared_bytes = 1024 + 8192 + v.stages * stage
    if (share and nb // cluster < 8) or v.stages < 3 or v.tile_n * nb * 4 + 16 * nb > v.stages * stage:
        return None
    return v


def main():
    args = [a for a in sys.argv[1:] if not a.startswith("--")]
    shapes = {"large": referee.LARGE, "small": referee.SMALL}.get(args[0]) or [tuple(map(int, s.split("x"))) for s in args[0].split(",")]
    kinds = args[1].split(",") if len(args) > 1 else ["fast", "promoted", "block"]
    seconds = 0.012
    brc.prepare()
    tools = referee.Tools(64)
    for shape in shapes:
        p = referee.Problem(*shape)
        p.references()
        for kind in kinds:
            flags = (brc.FAST if kind == "fast" else 0) | (brc.B_UNCHANGED if shape[0] <= 128 else 0)
            what = "block" if kind == "block" else "tensor"
            entries, row = [], 0
            base = brc.of_problem(p, 0, what, flags)
            while True:
                try:
                    plan = brc.planned(base, row)
                except IndexError:
                    break
                row += 1
                if plan is None:
                    continue
                variants = [plan]
                if "--groups" in sys.argv and plan.rows == 0:
                    variants = []
                    for along in (0, 1):
                        for g in (2, 4, 8, 16):
                            v = brc.Plan.from_buffer_copy(plan)
                            v.group, v.group_n = g, along
                            variants.append(v)
                if "--clusters" in sys.argv and plan.rows:
                    variants = [v for c, share in ((1, 0), (2, 0), (2, 1)) if (v := few(plan, p.n, p.k, c, share))]
                for v in variants:
                    f = brc.calls(p, what, flags, v)
                    p.d_pad[0].fill_(float("nan"))
                    f(0)
                    torch.cuda.synchronize()
                    entries.append([f, str(v), p.error(what, p.d[0]), [], v, []])
            try:
                entries.append([referee.scaled_mm(p, what, kind == "fast")[0], "torch", 0.0, [], None, []])
            except RuntimeError:
                pass
            if not entries:
                continue
            for _ in range(3):
                for e in random.sample(entries, len(entries)):
                    tools.stamp(0)
                    e[3].append(timed(e[0], p.sets, seconds))
                    tools.stamp(1)
                    torch.cuda.synchronize()
                    e[5].append(tools.clock()[0])
            chosen = str(brc.planned(base))
            peer = [statistics.median(e[3]) for e in entries if e[1] == "torch"]
            print(f"\n{shape[0]}x{shape[1]}x{shape[2]} {kind}, planner: {chosen}", flush=True)
            for e in sorted(entries, key=lambda e: statistics.median(e[3]))[:14 if "--all" not in sys.argv else 99]:
                t, g = statistics.median(e[3]), statistics.median(e[5])
                print(f"  {t*1e6:8.1f} us {p.flop/t/1e12:6.0f} TFLOP/s {p.bytes/t/1e9:6.0f} GB/s {peer[0]/t if peer else 0:.3f}x {g:.2f} GHz {100*p.flop/t/(8192*132e9*g):4.1f} % err {e[2]:.1e}{' ****' if e[2] > 0.01 else ''} | {e[1]}", flush=True)
        del p
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
