#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Products with packed narrow weights against FP64, element by element: every kind of weights, activations and output, ragged shapes,
every plan the planner would not choose by itself. Bound: |d - exact| <= g * sum(|a||b|) + half an ulp of the output, g = K * 2^-24, with E4M3
activations 2^-11 more, with MXFP4 beside them 2^-10 (docs/numerics.md, "Products": the tensor cores align what they add); integers bit for bit;
two runs the same bits. Needs torch and a GPU of compute capability 9.0."""
import os
import random
import sys

import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench", "gpu"))
import breccia_gpu as brc  # noqa: E402
import breccia_narrow as nar  # noqa: E402
from check_products import half_ulp  # noqa: E402

DEV = "cuda"
KINDS = [("mxfp4", {}), ("nvfp4", {}), ("int4", {"group": 128}), ("int4", {"group": 128, "scale": "f16"}), ("int4", {"group": 32, "scale": "f16"}),
         ("int4", {"group": 64}), ("int4", {"group": 64, "scale": "f32"}), ("int4", {"group": 0, "scale": "f32"}), ("int4", {"group": 256}), ("mxfp8", {}),
         ("fp8", {"rows": 128, "scale": "f32"}), ("fp8", {"rows": 1, "scale": "f32"}), ("fp8", {"rows": 0, "group": 0, "scale": "f32"}),
         ("fp8", {"rows": 1, "group": 0, "scale": "bf16"})]
worst = {}


def check(w, packed, m, act, out=torch.bfloat16, integers=False, gen=None, flags=0, bias=None, odd=0, sms=0):
    """One product, planned for so many multiprocessors (0: the device's); a line on failure, else an empty one; None: not this process's."""
    if not brc.mine():
        return None
    k = w.k
    pitch = -(-k // 16) * 16
    x = torch.zeros(m, pitch, device=DEV)
    if integers:
        x[:, :k] = torch.randint(-2, 3, (m, k), generator=gen, device=DEV) * (torch.rand(m, k, generator=gen, device=DEV) < min(1.0, 100.0 / k))
    else:
        x[:, :k] = torch.randn(m, k, generator=gen, device=DEV)
    x = x.to(act)
    x[:, k:] = torch.tensor(float("nan"), device=DEV).to(act)    # what lies past K must not be read
    a, eight = x[:, :k], act == torch.float8_e4m3fn
    scale = None if not eight else torch.exp2(torch.randint(-1, 2, (m if m % 2 else 1,), generator=gen, device=DEV).float()) if integers else torch.rand(
        m if m % 2 else 1, generator=gen, device=DEV) + 0.5
    wide = torch.full((m, w.n + odd), float("nan"), device=DEV, dtype=out)
    d = wide[:, :w.n]
    start = torch.randint(-8, 9, (m, w.n), generator=gen, device=DEV).to(out)
    b = torch.randint(-8, 9, (w.n,), generator=gen, device=DEV).to(out) if bias else None
    plan = nar.planned(nar.product(a, packed, d, flags, b, None, scale), sms)
    p = nar.product(a, packed, d, flags, b, plan, scale)
    results = []
    for _ in range(2):
        wide.fill_(float("nan"))
        if flags & brc.ACCUMULATE:
            d.copy_(start)
        nar.run(p)
        torch.cuda.synchronize()
        results.append(wide.clone())
    if not torch.equal(results[0].view(torch.uint8), results[1].view(torch.uint8)):
        return f"two runs differ: {nar.text(plan)}"
    if odd and not torch.isnan(results[0][:, w.n:]).all():
        return f"wrote past the row: {nar.text(plan)}"
    d = results[0][:, :w.n].double()
    ref, size = a.double() @ w.values.t(), a.double().abs() @ w.values.abs().t()
    if eight:
        ref, size = ref * scale.double().view(-1, 1), size * scale.double().view(-1, 1)
    if bias:
        ref = ref + b.double()
        size = size + b.double().abs()
    if flags & brc.ACCUMULATE:
        ref = ref + start.double()
        size = size + start.double().abs()
    if integers:
        wrong = d != ref.to(out).double()
    else:
        err = (d - ref).abs()
        bound = k * 2.0 ** -24 + (0 if not eight else 2.0 ** -10 if w.kind == "mxfp4" else 2.0 ** -11)
        if out == torch.float32:
            key = (w.kind, str(act)[6:])
            worst[key] = max(worst.get(key, 0), (err / size.clamp_min(1e-30)).max().item() / bound)
        wrong = ~(err <= bound * size + half_ulp(ref, out) * 1.01)
    if wrong.any():
        i = wrong.nonzero()[0].tolist()
        return f"{int(wrong.sum())} of {wrong.numel()} wrong, first {i}: {d[tuple(i)].item()} for {ref[tuple(i)].item()}: {nar.text(plan)}"
    return ""


def main():
    brc.prepare()
    gen = torch.Generator(device=DEV).manual_seed(1)
    r = random.Random(2)
    bad = ran = 0
    tiny, quick = "tiny" in sys.argv, "quick" in sys.argv
    most = int(os.environ.get("MOST", "4096"))
    ms = [m for m in (1, 2, 7, 8, 9, 16, 17, 33, 64, 65, 128, 257, 1000) if m <= most]
    for kind, options in KINDS:
        for act in (torch.bfloat16, torch.float16, torch.float8_e4m3fn):
            if act == torch.float8_e4m3fn and (kind not in ("mxfp4", "int4") or options.get("group", 128) in (32, 64)):
                continue
            lines = []
            for n, k in ((520, 400),) if tiny else ((16, 128), (1000, 1040), (4096, 2048), (2112, 4112), (8, 16)):
                for integers in (False, True):
                    w = nar.Weights(kind, n, k, gen=gen, integers=integers, **options)
                    packed = nar.PackedWeights(w, act)
                    for m in (3, 16, 70) if tiny else ms[::3] if quick else ms:
                        if m <= most:
                            lines.append(check(w, packed, m, act, torch.float32 if integers or m % 2 else torch.bfloat16, integers, gen))
                    if tiny or (n, k) != (1000, 1040):
                        continue
                    for m in (1, 16, 70):                    # blocks of as many rows as they can take
                        lines += [check(w, packed, m, act, torch.float32, integers, gen, sms=sms) for sms in (1, 2, 3)]
                    for m in (5, 16):
                        lines.append(check(w, packed, m, act, torch.float16, integers, gen, bias=True))
                        lines.append(check(w, packed, m, act, torch.float32, integers, gen, flags=brc.ACCUMULATE, odd=3))
                        lines.append(check(w, packed, m, act, torch.bfloat16, integers, gen, bias=True, odd=1))
                        lines.append(check(w, packed, m, act, torch.bfloat16, integers, gen, flags=brc.B_UNCHANGED))
            lines = [x for x in lines if x is not None]
            ran += len(lines)
            wrong = [x for x in lines if x]
            print(f"{kind} {options} {str(act)[6:]}: {len(lines)} ran, {len(wrong)} wrong", flush=True)
            for x in wrong[:5]:
                print("   ", x, flush=True)
            bad += len(wrong)
    lines = []
    for i in range(0 if tiny else 20 if quick else 100):
        kind, options = r.choice(KINDS)
        act = r.choice([torch.bfloat16, torch.float16])
        w = nar.Weights(kind, r.randint(1, 3000), r.randint(1, 3000), gen=gen, integers=i % 2 == 1, **options)
        lines.append(check(w, nar.PackedWeights(w, act), min(most, r.choice([r.randint(1, 64), r.randint(1, 1500)])), act, r.choice([torch.float32, torch.bfloat16, torch.float16]), i % 2 == 1, gen))
    lines = [x for x in lines if x is not None]
    ran += len(lines)
    wrong = [x for x in lines if x]
    print(f"random shapes: {len(lines)} ran, {len(wrong)} wrong", *wrong[:8], sep="\n    ")
    bad += len(wrong)
    print("worst |error| / (bound * sum(|a||b|)), F32 results:", {" ".join(k): f"{v:.3f}" for k, v in worst.items()})
    print("NARROW", "WRONG" if bad or not ran else "RIGHT")
    return 1 if bad or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
