#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Several FP8 products in one launch against FP64, product by product: batches, masked, ragged and indexed rows.

Rows of no product must stay as they were, and what lies in rows of none of A must not matter (NaN). Bounds and integers
as in check_products.py. Needs torch and a GPU of compute capability 9.0."""
import random
import sys

import torch

from check_products import BITS, DEV, E4, E5, Case, brc, half_ulp

NAN, KEPT = float("nan"), -24576.0           # KEPT: what no product computes here, in any of the output formats


def pitched(rows, k, t):
    """[..rows, k] of NaN with rows 16 bytes apart or a multiple."""
    return torch.full((*rows, max(16, (k + 15) // 16 * 16)), NAN, device=DEV).to(t)[..., :k]


class Groups:
    """Cases of the same n and k, put together as one of the groupings."""

    def __init__(self, grouping, sizes, n, k, ta=E4, tb=E4, integers=False, seed=0, spare=5):
        self.grouping, self.sizes, self.n, self.k = grouping, sizes, n, k
        whole = grouping in (brc.BATCH, brc.MASKED)
        self.cases = [Case(max(s, 1), n, k, ta, tb, integers, seed + 31 * i) for i, s in enumerate(sizes)]
        count, kb = len(sizes), max(1, -(-k // 128))
        if whole:
            self.m = max(max(sizes), 1) + (0 if grouping == brc.BATCH else spare)
            at = [(g, 0) for g in range(count)]
            rows, mp = (count, self.m), -(-self.m // 4) * 4
        else:
            first, at, index = 0, [], []
            for g, s in enumerate(sizes):
                at.append((0, first))
                run = s if grouping == brc.RAGGED else -(-s // 128) * 128
                index += [g] * s + [-1] * (run - s)
                if grouping == brc.INDEXED and g % 3 == 1:            # a run of nobody's
                    run += 128
                    index += [-1] * 128
                first += run
            self.m = max(first + (spare if grouping == brc.RAGGED else 0), 1)
            rows, mp = (1, self.m), -(-self.m // 4) * 4
        self.at, self.rows = at, rows
        self.a = pitched(rows, k, ta)
        self.b = pitched((count, n), k, tb)
        self.one = (torch.ones(rows[0], device=DEV), torch.ones(count, device=DEV))
        self.by_row = (torch.ones(rows, device=DEV), torch.ones(count, n, device=DEV))
        self.sa = torch.ones(rows[0], kb, mp, device=DEV)
        self.sb = torch.stack([c.sb for c in self.cases])
        self.sbr = torch.stack([c.sbr for c in self.cases])
        self.bias = torch.stack([c.bias for c in self.cases])
        for g, (c, s, (z, r)) in enumerate(zip(self.cases, sizes, at)):
            if not whole:
                c.one[0] = self.cases[0].one[0]                       # of one tensor there is one scale
            self.one[0][z], self.one[1][g] = c.one[0], c.one[1]
            self.by_row[1][g] = c.cols
            self.b[g] = c.b
            if s:
                self.a[z, r:r + s] = c.a[:s]
                self.by_row[0][z, r:r + s] = c.rows[:s]
                self.sa[z, :, r:r + s] = c.sa[:, :s]
        if grouping == brc.BATCH:
            self.table = None
        elif grouping == brc.MASKED:
            self.table = torch.tensor(sizes, dtype=torch.int32, device=DEV)
        elif grouping == brc.RAGGED:
            self.table = torch.tensor(sizes, dtype=torch.int32, device=DEV).cumsum(0).int()
        else:
            self.table = torch.tensor(index or [-1], dtype=torch.int32, device=DEV)

    def product(self, scaling, d, flags=0, bias=None, plan=None):
        sa, sb, pa, pb = {brc.TENSOR: (*self.one, 0, 0), brc.ROW: (*self.by_row, 0, 0), brc.BLOCK: (self.sa, self.sb, self.sa.shape[2], 0),
                          brc.BLOCK_ROWS: (self.sa, self.sbr, self.sa.shape[2], self.sbr.shape[2])}[scaling]
        p = brc.product(self.a[0], self.b[0], d[0], sa, sb, scaling, flags, None, plan, pa, pb)
        if bias is not None:
            p.bias, p.bias_format = bias.data_ptr(), brc.FORMATS[bias.dtype]
        p.m, p.grouping, p.groups = self.m, self.grouping, len(self.sizes)
        p.group_rows = self.table.data_ptr() if self.table is not None else None
        p.a_step, p.b_step, p.d_step = self.a.stride(0), self.b.stride(0), d.stride(0)
        p.keep_too = (self, bias, d)
        return p


def check(c, scaling, dtype=torch.bfloat16, flags=0, row=None, bias=False, odd=False):
    """One launch, twice; a line on failure, None if the row of the kernel table does not fit."""
    room = torch.full((*c.rows, c.n + (3 if odd else 0)), KEPT, device=DEV, dtype=dtype)
    d = room[..., :c.n]
    b = c.bias.to(dtype) if bias else None
    plan = brc.planned(c.product(scaling, d, flags, b), row)
    if plan is None or not brc.mine():
        return None

    def start():
        room.fill_(KEPT)
        if flags & brc.ACCUMULATE:
            for case, s, (z, r) in zip(c.cases, c.sizes, c.at):
                d[z, r:r + s] = case.start[:s].to(dtype)
    results = []
    for _ in range(2):
        start()
        brc.run(c.product(scaling, d, flags, b, plan))
        brc.wait()
        results.append(room.clone())
    if not torch.equal(results[0].nan_to_num(7e4), results[1].nan_to_num(7e4)):
        return f"two runs differ: {plan}"
    mine = torch.zeros(c.rows, dtype=torch.bool, device=DEV)
    for s, (z, r) in zip(c.sizes, c.at):
        mine[z, r:r + s] = True
    if c.grouping == brc.INDEXED:                                     # of none, but in a run of some product's: not specified
        begins = c.table[::128].repeat_interleave(128)[:c.m] >= 0
        mine[0] |= begins
    if (room[..., c.n:] != KEPT).any() or (d[~mine] != KEPT).any():
        return f"wrote rows of no product: {plan}"
    for g, (case, s, (z, r)) in enumerate(zip(c.cases, c.sizes, c.at)):
        if not s:
            continue
        got = d[z, r:r + s].double()
        ref, size = (x[:s] for x in case.reference(scaling))
        if bias:
            ref = ref + case.bias.double()
        if flags & brc.ACCUMULATE:
            ref = ref + case.start[:s].double()
        if case.integers:
            wrong = got != ref.to(dtype).double()
        else:
            size = size + (ref.abs() if bias or flags & brc.ACCUMULATE else 0)
            bound = max(2.0 ** -11, c.k * 2.0 ** -18) if flags & brc.FAST else 2.0 ** -11 + c.k * 2.0 ** -24
            wrong = ~((got - ref).abs() <= bound * size + half_ulp(ref, dtype) * 1.01)
        if wrong.any():
            i = wrong.nonzero()[0].tolist()
            return f"product {g} of {s} rows: {int(wrong.sum())} of {wrong.numel()} wrong, first {i}: {got[tuple(i)].item()} for {ref[tuple(i)].item()}: {plan}"
    return ""


def main():
    brc.prepare()
    tiny, bad, ran = "tiny" in sys.argv, 0, 0
    table = brc.rows_of_table()

    def report(what, results):
        nonlocal bad, ran
        wrong = [r for r in results if r]
        ran += sum(r is not None for r in results)
        bad += len(wrong)
        print(f"{what}: {sum(r is not None for r in results)} ran, {len(wrong)} wrong", flush=True)
        for r in wrong[:6]:
            print("   ", r, flush=True)

    names = {brc.BATCH: "batch", brc.MASKED: "masked", brc.RAGGED: "ragged", brc.INDEXED: "indexed"}
    modes = [(brc.TENSOR, brc.FAST), (brc.ROW, brc.FAST), (brc.TENSOR, 0), (brc.ROW, 0), (brc.BLOCK, 0), (brc.BLOCK_ROWS, 0)]
    shapes = [(200, 400)] if tiny else [(8, 16), (264, 272), (1000, 1040)]
    for grouping in names:
        sizes = [130] * 3 if grouping == brc.BATCH else [70, 0, 129, 1] if tiny else [70, 0, 129, 1, 256, 0, 0, 300, 127, 128] + [3] * 40 + [0, 17]
        for n, k in shapes:
            for ta, tb in ((E4, E4),) if tiny else ((E4, E4), (E4, E5), (E5, E4), (E5, E5)):
                if (ta, tb) != (E4, E4) and (n, k) != (264, 272):
                    continue
                for integers in (False, True):
                    c = Groups(grouping, sizes, n, k, ta, tb, integers)
                    report(f"{names[grouping]} {n}x{k} {str(ta)[-4:]} {str(tb)[-4:]} {'integers' if integers else 'normal'}",
                           [check(c, s, torch.float32 if integers else torch.bfloat16, f, row) for s, f in modes for row in range(table)])
        res = []
        for dtype in () if tiny else BITS:
            for n, k in ((72, 96), (333, 400), (1, 33), (64, 0), (40, 50)):
                c = Groups(grouping, sizes[:6], n, k)
                res += [check(c, s, dtype, f, None, bias, odd) for s in range(4) for bias in (False, True)
                        for f in (0, brc.ACCUMULATE) for odd in (False, True)]
        report(f"{names[grouping]}: outputs, bias, accumulate, odd pitches, shapes for the plain kernel", res)
    r, res = random.Random(2), []
    for i in range(0 if tiny else 100):
        grouping = r.choice(list(names))
        count = r.randint(1, 40)
        sizes = [r.randint(1, 300)] * min(count, 6) if grouping == brc.BATCH else [r.choice([0, r.randint(1, 16), r.randint(1, 400)]) for _ in range(count)]
        c = Groups(grouping, sizes, r.randint(1, 700), r.randint(1, 900), r.choice([E4, E5]), r.choice([E4, E5]), i % 2 == 1, i)
        scaling = r.randint(0, 3)
        res.append(check(c, scaling, r.choice(list(BITS)), brc.FAST if scaling < 2 and r.random() < 0.5 else 0))
    report("random groups and shapes", res)
    print("GROUPS", "WRONG" if bad or not ran else "RIGHT")
    return 1 if bad or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
