# SPDX-License-Identifier: Apache-2.0
"""Rows of products in floating point: FP8 x FP8, and narrow weights times plain activations.

Large products beside the FMA peak (AMX-BF16 is faster than that peak: ratios above 1 are right), M = 1 beside reading the packed
weights. Weights are packed once, before; "unpacked" rows say so."""
import ml_dtypes
import numpy as np

from casts import eager_call
from contest import Row, brc
from integer_products import product, weights_in_turn

ROWS = {}
PLAIN = {"f32": np.float32, "bf16": ml_dtypes.bfloat16}


def operands(c, m, n, k, activations, weights, packed):
    """A plain left side keeps its array: what brc_array points to."""
    x = c.array((m, k), np.float32)
    a = x.astype(PLAIN[activations]) if activations in PLAIN else brc.cast(x, activations, threads=c.threads)
    b = brc.cast(c.array((n, k), np.float32), weights, threads=c.threads)
    return a, brc.Packed(b, activations=activations if activations in PLAIN else "e4m3") if packed else b


def scaled_mm(c, m, n, k):
    def make(torch):
        x, w = torch.randn(m, k).to(torch.float8_e4m3fn), torch.randn(n, k).to(torch.float8_e4m3fn)
        one = torch.ones(())
        return lambda x, w: torch._scaled_mm(x, w.t(), one, one, out_dtype=torch.float32), x, w
    return eager_call(c, make)


def int4pack(c, m, n, k):
    def make(torch):
        w = torch._convert_weight_to_int4pack_for_cpu(torch.randint(0, 16, (n, k), dtype=torch.int32), 1)
        return torch.ops.aten._weight_int4pack_mm_for_cpu, torch.randn(m, k).bfloat16(), w, 128, torch.randn(k // 128, n, 2).bfloat16()
    return eager_call(c, make)


def large(activations, weights, side, bar, packed, peer, maker, peer_bar, recorded):
    def make(c):
        a, b = operands(c, side, side, side, activations, weights, packed)
        return Row(amount=2.0 * side**3, unit="GFLOP/s", ours=product(c, a, b, c.array((side, side), np.float32)), limits={"FMA": c.peak("fma")},
                   bar=bar, peers=c.peers(**{peer: maker(c, side, side, side)}), peer_bar=peer_bar, recorded=recorded)
    return make


def few(activations, weights, m, bar=None, peer_bar=None, recorded="", packed=True):
    def make(c):
        a, b = operands(c, m, 4096, 4096, activations, weights, packed)
        return Row(amount=2.0 * m * 4096**2, unit="GFLOP/s", ours=product(c, a, b, c.array((m, 4096), np.float32)), limits={"FMA": c.peak("fma")},
                   bar=bar, peer_bar=peer_bar, recorded=recorded and f"{recorded} ms (1t), here {2 * m * 4096**2 / 1e6:.0f} MFLOP a call")
    return make


for side in (2048, 4096):
    for packed in (True, False):
        ROWS[f"FP8 x FP8{'' if packed else ' unpacked'}, {side}^3"] = large("fp8", "fp8", side, 0.75, packed, "torch._scaled_mm", scaled_mm, 1.25,
                                                                            "torch._scaled_mm 93 / 176 GFLOP/s")
for packed in (True, False):
    ROWS[f"INT4 g128 x BF16{'' if packed else ' unpacked'}, 2048^3"] = large("bf16", "int4", 2048, 0.70, packed, "torch int4pack", int4pack, 1.85,
                                                                           "torch int4pack 57 / 114 GFLOP/s")
for name, weights in (("Q4_0", "q4_0"), ("MXFP4", "mxfp4"), ("NVFP4", "nvfp4"), ("INT4 g128", "int4")):
    for m, bar, recorded in ((4, 2.2, "ggml 2.2"), (16, 3.3, "ggml 6.3")):
        ROWS[f"{name} x F32, M={m}, 4096^2"] = few("f32", weights, m, None, bar, recorded)
for name, weights in (("Q4_0", "q4_0"), ("NVFP4", "nvfp4"), ("FP8", "fp8"), ("Q8_0", "q8_0")):
    ROWS[f"{name} x F32, M=1, 4096^2, unpacked"] = few("f32", weights, 1, packed=False)
for activations in PLAIN:
    ROWS[f"FP8 x {activations.upper()}, M=16, 4096^2"] = few(activations, "fp8", 16, 0.6)
for name, weights, bar in (("FP8", "fp8", 0.80), ("Q8_0", "q8_0", 0.85), ("Q4_0", "q4_0", 0.80), ("MXFP4", "mxfp4", 0.80), ("NVFP4", "nvfp4", 0.80),
                           ("INT4 g128", "int4", 0.80)):
    ROWS[f"{name} x F32, M=1, 11008x4096"] = weights_in_turn(lambda c, m, n, k, w=weights: operands(c, m, n, k, "f32", w, True), bar)
