# SPDX-License-Identifier: Apache-2.0
"""Rows of products of integer codes: INT8-quantized activations times INT8, 4-bit and Q8_0 weights.

Large products beside VNNI's peak (AMX is faster than that peak: ratios above 1 are right). M = 1 beside reading the same bytes: weights
take turns so that they are not found in a cache. Weights are packed once, before; "unpacked" rows say so."""
import itertools

import numpy as np

from casts import eager_call
from contest import Row, brc

ROWS = {}
TURNS = 8       # weights of 45 MB that take turns: more than a third-level cache holds


def operands(c, m, n, k, activations, weights, packed=True):
    a = brc.cast(c.array((m, k), np.float32), activations, threads=c.threads)
    b = brc.cast(c.array((n, k), np.float32), weights, threads=c.threads)
    return a, brc.Packed(b, activations="int8") if packed else b


def product(c, a, b, out):
    """A call of brc_matmul into memory supplied; its structs are made once."""
    options, target, null = brc.options(c.threads), brc.array(out), brc.ffi.NULL
    made = brc.new("brc_product", out=target, options=options)
    plain = brc.array(a) if isinstance(a, np.ndarray) else null
    made.a = (null if isinstance(a, np.ndarray) else a.c, plain, 0)
    if isinstance(b, brc.Packed):
        made.packed = b.c
    else:
        made.b = (b.c, null, 1)

    def call(keep=(a, b, out, options, target, plain)):
        if brc.lib.brc_matmul(made, null) != 0:
            raise RuntimeError("brc_matmul failed")
    return call


def int_mm(c, m, n, k):
    def make(torch):
        x, w = torch.randint(-128, 128, (m, k), dtype=torch.int8), torch.randint(-128, 128, (n, k), dtype=torch.int8)
        out = torch.empty((m, n), dtype=torch.int32)
        return lambda x, w, out: torch._int_mm(x, w.t(), out=out), x, w, out
    return eager_call(c, make)


def large(activations, weights, side, bar, packed=True, peer_bar=None, recorded=""):
    def make(c):
        a, b = operands(c, side, side, side, activations, weights, packed)
        peers = c.peers(**{"torch._int_mm": int_mm(c, side, side, side)}) if weights == "int8" else {}
        return Row(amount=2.0 * side**3, unit="GOP/s", ours=product(c, a, b, c.array((side, side), np.float32)), limits={"VNNI": c.peak("dot")},
                   bar=bar, peers=peers, peer_bar=peer_bar, recorded=recorded)
    return make


def few(activations, weights, m, peer_bar=None, recorded="", packed=True):
    def make(c):
        a, b = operands(c, m, 4096, 4096, activations, weights, packed)
        return Row(amount=2.0 * m * 4096**2, unit="GOP/s", ours=product(c, a, b, c.array((m, 4096), np.float32)), limits={"VNNI": c.peak("dot")},
                   peer_bar=peer_bar, recorded=recorded and f"{recorded} ms (1t), here {2 * m * 4096**2 / 1e6:.0f} MOP a call")
    return make


def weights_in_turn(operands, bar):
    """M = 1: weights of 45 MB take turns; beside reading as many bytes."""
    def make(c):
        rows, cols = 11008, 4096
        calls, read = [], 0
        for _ in range(TURNS):
            a, b = operands(c, 1, rows, cols)
            calls.append(product(c, a, b, c.array((1, rows), np.float32)))
            read = b.bytes
        turns, source = itertools.cycle(calls), c.array(TURNS * read // 4096 * 4096)
        parts = itertools.cycle(np.split(source[:source.size // TURNS * TURNS], TURNS))
        nothing = np.zeros(0, np.uint8)

        def limit():
            c.move(next(parts), nothing)()
        return Row(amount=read, unit="GB/s", ours=lambda: next(turns)(), limits={"read": limit}, bar=bar)
    return make


for side in (2048, 4096):
    ROWS[f"INT8 x INT8, {side}^3"] = large("int8", "int8", side, 0.75, True, 0.95, "torch._int_mm 488 / 985 GOP/s")
    ROWS[f"INT8 x INT8 unpacked, {side}^3"] = large("int8", "int8", side, 0.75, False, 0.95, "torch._int_mm 488 / 985 GOP/s")
for name, activations, weights in (("INT4 g128 x INT8 rows", "int8", "int4"), ("INT4 g128 x INT8 g128", "int8:group=128", "int4"),
                                   ("MXFP4 x INT8 rows", "int8", "mxfp4"), ("MXFP4 x INT8 g32", "int8:group=32", "mxfp4"),
                                   ("NVFP4 x INT8 rows", "int8", "nvfp4"), ("NVFP4 x INT8 g32", "int8:group=32", "nvfp4"),
                                   ("Q4_0 x INT8 g32", "int8:group=32", "q4_0"), ("Q8_0 x INT8 g32", "int8:group=32", "q8_0")):
    ROWS[f"{name}, 2048^3"] = large(activations, weights, 2048, 0.55, True, 4 if "q8" not in weights else None, "ggml repacked 82 / 130 GOP/s")
ROWS["Q4_0 x INT8 g32 unpacked, 2048^3"] = large("int8:group=32", "q4_0", 2048, 0.55, False)
for m, bar, recorded in ((4, 2.2, "ggml 2.2"), (16, 3.3, "ggml 6.3")):
    for name, weights in (("Q4_0", "q4_0"), ("MXFP4", "mxfp4"), ("NVFP4", "nvfp4")):
        ROWS[f"{name} x INT8 g32, M={m}, 4096^2"] = few("int8:group=32", weights, m, bar, recorded)
ROWS["Q8_0 x INT8 g32, M=16, 4096^2"] = few("int8:group=32", "q8_0", 16, 6.7, "ggml 18.9")
ROWS["Q4_0 x INT8 g32, M=16, 4096^2, unpacked"] = few("int8:group=32", "q4_0", 16, 3.3, "ggml 6.3", False)
for name, weights, m in (("Q4_0", "q4_0", 1), ("NVFP4", "nvfp4", 1), ("Q8_0", "q8_0", 1), ("NVFP4", "nvfp4", 16), ("Q8_0", "q8_0", 16)):
    ROWS[f"{name} x INT8 g32, M={m}, 4096^2, unpacked"] = few("int8:group=32", weights, m, packed=False)
for name, weights, bar in (("Q8_0", "q8_0", 0.85), ("Q4_0", "q4_0", 0.80), ("MXFP4", "mxfp4", 0.80), ("NVFP4", "nvfp4", 0.80), ("INT4 g128", "int4", 0.80)):
    ROWS[f"{name} x INT8 g32, M=1, 11008x4096"] = weights_in_turn(
        lambda c, m, n, k, w=weights: operands(c, m, n, k, "int8:group=32", w), bar)
