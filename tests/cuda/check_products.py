#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""FP8 products against FP64, element by element, for every row of the kernel table at every tile edge.

Bound: |d - exact| <= g * sum(|a||b|) + half an ulp of the output, g = 2^-11 + K * 2^-24 promoted, max(2^-11, K/32 * 2^-13) fast
(docs/numerics.md, "Products").
Integers whose partial sums stay below 2^12 must come out bit for bit. Needs torch and a GPU of compute capability 9.0."""
import os
import random
import sys

import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench", "gpu"))
import breccia_gpu as brc  # noqa: E402

DEV = brc.DEVICE
E4, E5 = torch.float8_e4m3fn, torch.float8_e5m2
BITS = {torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}
worst = {}


def half_ulp(ref, dtype):
    e = torch.floor(torch.log2(ref.abs().clamp_min(2.0 ** -14 if dtype == torch.float16 else 2.0 ** -126)))
    return torch.exp2(e - BITS[dtype])


class Case:
    """Operands of one product with exact results of every scaling."""

    def __init__(self, m, n, k, ta=E4, tb=E4, integers=False, seed=0):
        g = torch.Generator(device=DEV).manual_seed(seed + m * 7 + n * 3 + k)
        self.m, self.n, self.k, self.integers = m, n, k, integers
        pitch = max(16, (k + 15) // 16 * 16)
        def draw(rows, t):
            if integers:
                x = torch.zeros(rows, pitch, device=DEV)
                x[:, :k] = torch.randint(-2, 3, (rows, k), generator=g, device=DEV) * (torch.rand(rows, k, generator=g, device=DEV) < min(1.0, 500.0 / max(1, k)))
            else:
                x = torch.randn(rows, pitch, generator=g, device=DEV)
            y = x.to(t)
            y[:, k:] = torch.tensor(float("nan"), device=DEV).to(t)   # what lies past K must not be read
            return y[:, :k]
        self.a, self.b = draw(m, ta), draw(n, tb)
        kb, nb = max(1, -(-k // 128)), -(-n // 128)
        self.mp, self.np = -(-m // 4) * 4, -(-n // 4) * 4
        def scale(*shape):
            if integers:
                return torch.exp2(torch.randint(-2, 3, shape, generator=g, device=DEV).float())
            return torch.rand(*shape, generator=g, device=DEV) * 1.5 + 0.5
        self.one = [scale(1), scale(1)]
        self.rows, self.cols = scale(m), scale(n)
        self.sa, self.sb, self.sbr = scale(kb, self.mp), scale(nb, kb), scale(kb, self.np)
        self.bias = torch.randint(-8, 9, (n,), generator=g, device=DEV).float()
        self.start = torch.randint(-8, 9, (m, n), generator=g, device=DEV).float()
        if integers:   # block scales would leave the exact range
            self.sa, self.sb, self.sbr = torch.ones_like(self.sa), torch.ones_like(self.sb), torch.ones_like(self.sbr)
        self.exact = {}

    def reference(self, scaling):
        if scaling not in self.exact:
            a, b = self.a.double(), self.b.double()
            k = torch.arange(self.k, device=DEV) // 128
            if scaling == brc.TENSOR:
                a, b = a * self.one[0].double(), b * self.one[1].double()
            elif scaling == brc.ROW:
                a, b = a * self.rows.double()[:, None], b * self.cols.double()[:, None]
            else:
                a = a * self.sa.double()[k, :self.m].t()
                if scaling == brc.BLOCK:
                    b = b * self.sb.double()[torch.arange(self.n, device=DEV) // 128][:, k]
                else:
                    b = b * self.sbr.double()[k, :self.n].t()
            self.exact[scaling] = (a @ b.t(), a.abs() @ b.abs().t())
        return self.exact[scaling]

    def product(self, scaling, d, flags=0, bias=None, plan=None):
        if scaling == brc.TENSOR:
            s = (self.one[0], self.one[1], 0, 0)
        elif scaling == brc.ROW:
            s = (self.rows, self.cols, 0, 0)
        elif scaling == brc.BLOCK:
            s = (self.sa, self.sb, self.mp, 0)
        else:
            s = (self.sa, self.sbr, self.mp, self.np)
        return brc.product(self.a, self.b, d, s[0], s[1], scaling, flags, bias, plan, s[2], s[3])


def check(c, scaling, dtype=torch.bfloat16, flags=0, row=None, bias=False, odd=False, extra=None):
    """One call; returns a line on failure. odd: an output pitch that rules out wide stores. None = the row does not fit."""
    wide = torch.full((c.m, c.n + (3 if odd else 0)), float("nan"), device=DEV, dtype=dtype)
    d = wide[:, :c.n]
    if flags & brc.ACCUMULATE:
        d.copy_(c.start)
    b = c.bias.to(dtype) if bias else None
    p = c.product(scaling, d, flags, b)
    plan = brc.planned(p, row)
    if plan is None or not brc.mine():
        return None
    if extra is not None:
        plan = extra
    p = c.product(scaling, d, flags, b, plan)
    brc.run(p)
    brc.wait()
    first = wide.clone()
    if not flags & brc.ACCUMULATE:
        brc.run(p)
        brc.wait()
        if not torch.equal(first[:, :c.n].nan_to_num(7e4), d.nan_to_num(7e4)):
            return f"two runs differ: {plan}"
    d = first[:, :c.n]
    if odd and not torch.isnan(first[:, c.n:]).all():
        return f"wrote past the row: {plan}"
    ref, size = c.reference(scaling)
    if bias:
        ref = ref + c.bias.double()
    if flags & brc.ACCUMULATE:
        ref = ref + c.start.double()
    size = size + (ref.abs() if bias or flags & brc.ACCUMULATE else 0)
    if c.integers and scaling in (brc.TENSOR, brc.ROW, brc.BLOCK, brc.BLOCK_ROWS):
        wrong = d.double() != ref.to(dtype).double()
        if wrong.any():
            i = wrong.nonzero()[0].tolist()
            return f"{int(wrong.sum())} of {wrong.numel()} integers differ, first {i}: {d[tuple(i)].item()} for {ref[tuple(i)].item()}: {plan}"
        return ""
    g = max(2.0 ** -11, c.k * 2.0 ** -18) if flags & brc.FAST else 2.0 ** -11 + c.k * 2.0 ** -24
    err = (d.double() - ref).abs()
    bound = g * size + half_ulp(ref, dtype) * 1.01
    wrong = ~(err <= bound)
    if dtype == torch.float32:
        rel = (err / size.clamp_min(1e-30)).max().item()
        key = ("fast" if flags & brc.FAST else "promoted", c.k)
        worst[key] = max(worst.get(key, 0), rel)
    if wrong.any():
        i = wrong.nonzero()[0].tolist()
        return f"{int(wrong.sum())} of {wrong.numel()} out of bounds, first {i}: {d[tuple(i)].item()} for {ref[tuple(i)].item()}: {plan}"
    return ""


def report(what, results):
    ran = [r for r in results if r is not None]
    bad = [r for r in ran if r]
    print(f"{what}: {len(ran)} ran, {len(bad)} wrong", flush=True)
    for r in bad[:6]:
        print("   ", r, flush=True)
    return len(bad)


def main():
    brc.prepare()
    bad = 0
    n_rows = brc.rows_of_table()
    print(f"{n_rows} rows in the kernel table")
    modes = [(brc.TENSOR, brc.FAST), (brc.ROW, brc.FAST), (brc.TENSOR, 0), (brc.ROW, 0), (brc.BLOCK, 0), (brc.BLOCK_ROWS, 0)]
    edges = [(1, 8, 16), (63, 65, 112), (127, 2112, 144), (128, 256, 512), (257, 504, 1040), (520, 1336, 4112), (1160, 2504, 2064)]
    quick, tiny = "quick" in sys.argv, "tiny" in sys.argv
    if tiny:                                    # for the sanitizers: every row on several tiles, nine steps
        edges, quick = [(130, 392, 1040)], True
    for m, n, k in edges:
        for integers in (True, False):
            for ta, tb in ((E4, E4),) if quick else ((E4, E4), (E4, E5), (E5, E4), (E5, E5)):
                c = Case(m, n, k, ta, tb, integers)
                for scaling, flags in modes:
                    res = []
                    for row in range(n_rows):
                        res.append(check(c, scaling, torch.float32 if integers else torch.bfloat16, flags, row))
                    if any(r is not None for r in res):
                        bad += report(f"{m}x{n}x{k} {str(ta)[-4:]} {str(tb)[-4:]} {'integers' if integers else 'normal'} scaling {scaling} flags {flags}", res)
    for dtype in () if tiny else (torch.float32, torch.float16, torch.bfloat16):
        res = []
        for m, n, k in ((3, 520, 384), (70, 333, 400), (300, 264, 272), (129, 1, 33), (5, 7, 1), (64, 64, 0), (100, 96, 50)):
            c = Case(m, n, k)
            for scaling in range(4):
                for bias in (False, True):
                    for flags in (0, brc.ACCUMULATE):
                        for odd in (False, True):
                            res.append(check(c, scaling, dtype, flags, None, bias, odd))
        bad += report(f"outputs in {dtype}: bias, accumulate, odd pitches", res)
    sys.path.insert(0, os.path.join(os.path.dirname(brc.__file__)))
    from sweep import few
    res = []
    for m, n, k in ((13, 520, 1040),) if tiny else ((1, 1000, 1040), (7, 1336, 2064), (16, 4096, 1536), (100, 2112, 4112)):
        for integers in (False,) if tiny else (False, True):
            c = Case(m, n, k, integers=integers)
            for scaling in (brc.TENSOR, brc.ROW, brc.BLOCK):
                for flags in (0, brc.B_UNCHANGED):
                    for row in range(n_rows):
                        plan = brc.planned(c.product(scaling, torch.empty(m, n, device=DEV), flags), row)
                        if plan is not None and ("beside" in str(plan) or "split k" in str(plan)):
                            res.append(check(c, scaling, torch.float32 if integers else torch.bfloat16, flags, row))
                        for cluster, share in ((1, 0), (2, 0), (4, 0), (2, 1)) if plan is not None and plan.rows else ():
                            v = few(plan, n, k, cluster, share)
                            if v is not None and (share or cluster <= -(-k // 128)):
                                res.append(check(c, scaling, torch.float32 if integers else torch.bfloat16, flags, row, extra=v))
    bad += report("few rows: split K, shared tokens, early weights", res)
    r = random.Random(1)
    res = []
    for i in range(0 if tiny else 20 if quick else 100):
        m, n, k = r.choice([r.randint(1, 64), r.randint(1, 1500)]), r.randint(1, 3000), r.randint(1, 3000)
        c = Case(m, n, k, integers=i % 2 == 1, seed=i)
        scaling = r.randint(0, 3)
        res.append(check(c, scaling, r.choice(list(BITS)), brc.FAST if scaling < 2 and r.random() < 0.5 else 0))
    bad += report("random shapes", res)
    print("worst |error| / sum(|a||b|), F32 results:", {f"{a} K={k}": f"2^{torch.log2(torch.tensor(v)).item():.1f}" for (a, k), v in sorted(worst.items()) if v})
    print("PRODUCTS", "WRONG" if bad else "RIGHT")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
