#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The kernels for packed narrow weights, run on this processor (emulated/), against NumPy in double precision: one small product for every
row of the kernel table; with split K, several tiles a block and shared tokens for the first row of a kind, or for all.
check_narrow_emulated.py LIBRARY_OF_EMULATED_KERNELS LIBBRECCIA [all]"""
import ctypes
import os
import re
import sys

import numpy as np

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "..", "bench", "gpu"))
import abi  # noqa: E402

codec, lib = ctypes.CDLL(sys.argv[2], ctypes.RTLD_GLOBAL), ctypes.CDLL(sys.argv[1])
ref = ctypes.byref
FORMATS = {"BF16": abi.BF16, "F16": abi.F16, "E4M3": abi.E4M3, "F32": abi.F32}
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
codes8 = np.arange(256)
E4M3 = np.where(codes8 & 128, -1.0, 1.0) * np.where(codes8 >> 3 & 15, (1 + (codes8 & 7) / 8) * 2.0 ** ((codes8 >> 3 & 15) - 7.0), (codes8 & 7) / 8 * 2.0 ** -6)
E4M3[[127, 255]] = np.nan
TABLE = [(m[1], *[w.strip() for w in m[2].split(",")]) for m in re.findall(r"^(NARROW_(FEW|MANY)\((.*?)\))", open(os.path.join(here, "..", "..", "src", "cuda", "narrow.def")).read(), re.M)]


def check(status, err):
    if status:
        raise RuntimeError(f"status {status}: {err.text.decode()}")


def aligned(array):
    b = np.zeros(array.nbytes + 256, np.uint8)
    first = -b.ctypes.data % 128
    out = b[first:first + array.nbytes].view(array.dtype).reshape(array.shape)
    out[...] = array
    return out


def bf16(x):
    """Nearest even, as sixteen bits."""
    u = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype(np.uint16)


def floats(bits, fmt):
    if fmt == "F16":
        return bits.view(np.float16).astype(np.float64)
    if fmt == "BF16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return E4M3[bits] if fmt == "E4M3" else bits.astype(np.float64)


def stored(x, fmt, rng):
    if fmt == "F16":
        return np.asarray(x, np.float16).view(np.uint16)
    if fmt == "BF16":
        return bf16(x)
    if fmt == "E4M3":                       # any numbers of the format will do
        c = rng.integers(0, 256, np.shape(x)).astype(np.uint8)
        return np.where(c & 127 > 80, c & 0x8F | 0x30, c).astype(np.uint8)
    return np.asarray(x, np.float32)


class Weights:
    def __init__(self, codes, scales, group, n, k, rng):
        t = abi.Tensor(size=ctypes.sizeof(abi.Tensor), rank=2)
        t.shape[0], t.shape[1] = n, k
        if codes == "E4M3":
            self.codes = stored(np.zeros((n, k)), "E4M3", rng)
            values, t.format = E4M3[self.codes], abi.E4M3
        else:
            c = rng.integers(0, 16, (n, -(-k // 2) * 2))
            self.codes = (c[:, ::2] | c[:, 1::2] << 4).astype(np.uint8)
            c = c[:, :k]
            values, t.format = (E2M1[c], abi.E2M1) if codes == "E2M1" else ((c ^ 8) - 8.0, abi.INT4)
        t.data, t.row_pitch = self.codes.ctypes.data, self.codes.shape[1]
        blocks = -(-k // group)
        self.glob = None
        if scales == "MX":
            self.scale = rng.integers(120, 132, (n, blocks)).astype(np.uint8)
            s, fmt = 2.0 ** (self.scale - 127.0), abi.E8M0
        elif scales == "NV":
            self.scale = rng.integers(1, 100, (n, blocks)).astype(np.uint8)
            s, fmt, self.glob = E4M3[self.scale], abi.E4M3, np.array([0.375], np.float32)
            t.global_ = abi.Table(self.glob.ctypes.data, abi.F32, 0, 0.0, abi.Block(0, 0, 0))
        else:
            name = ("F32", "F16", "BF16")[int(rng.integers(3))]
            self.scale = stored(rng.random((n, blocks)) * 0.02 + 0.003, name, rng)
            s, fmt = floats(self.scale, name), FORMATS[name]
        t.scale = abi.Table(self.scale.ctypes.data, fmt, 0, 0.0, abi.Block(1, 1, group))
        self.tensor = t
        self.values = values * s.repeat(group, 1)[:, :k] * (self.glob[0] if self.glob is not None else 1.0)


def product(row, w, m, rng, out, flags=0, sms=132, change=None):
    """Runs one product on one row of the table, planned for so many multiprocessors; a line on failure, None if it does not fit."""
    a_format, n, k = row[4], *w.values.shape
    packed, err = abi.Packed(), abi.Error()
    check(lib.brc_cuda_pack_plan(ref(w.tensor), FORMATS[a_format], ref(packed), ref(err)), err)
    memory = aligned(np.full(packed.bytes, 0xAA, np.uint8))
    packed.data = memory.ctypes.data
    check(lib.brc_cuda_pack(ref(w.tensor), ref(packed), None, ref(err)), err)
    pitch = -(-k // 16) * 16
    x = aligned(stored(rng.standard_normal((m, pitch)), a_format, rng))
    scale = (rng.random(m).astype(np.float32) + 0.5) if a_format == "E4M3" else None
    d = aligned(np.full((m, n), 7, np.float32 if out == "F32" else np.uint16))
    start = floats(d, out)
    bias = stored(rng.standard_normal(n), out, rng) if flags == 0 else None
    p = abi.PackedProduct(ctypes.sizeof(abi.PackedProduct), flags, FORMATS[a_format], FORMATS[out], FORMATS[out] if bias is not None else 0, 0, m, x.ctypes.data, pitch,
                          ctypes.pointer(packed), d.ctypes.data, n, bias.ctypes.data if bias is not None else None,
                          scale.ctypes.data if scale is not None else None, 1, 0, None)
    plan = abi.PackedPlan()
    status = lib.brc_cuda_plan_packed_row(ref(p), sms, TABLE.index(row), ref(plan), ref(err))
    if status == 15:
        return None
    check(status, err)
    if change and not change(plan, m, n):
        return None
    p.plan = ctypes.pointer(plan)
    text = f"{row} m={m} n={n} k={k} {out}: {plan.rows} rows x {plan.tokens}, grid {plan.grid}, cluster {plan.cluster}, share {plan.share}, {plan.stages} stages"
    status = lib.brc_cuda_matmul_packed(ref(p), None, ref(err))
    if status:
        return f"{err.text.decode()}: {text}"
    a = floats(x[:, :k], a_format) * (scale[:, None] if scale is not None else 1.0)
    exact, size = a @ w.values.T, np.abs(a) @ np.abs(w.values).T
    if bias is not None:
        exact, size = exact + floats(bias, out), size + np.abs(floats(bias, out))
    if flags & abi.ACCUMULATE:
        exact, size = exact + start, size + np.abs(start)
    half = np.abs(exact) * 2.0 ** {"F32": -24, "F16": -11, "BF16": -8}[out] + (2.0 ** -25 if out == "F16" else 0)
    wrong = ~(np.abs(floats(d, out) - exact) <= k * 2.0 ** -24 * size + half * 1.01)
    if wrong.any():
        i = tuple(np.argwhere(wrong)[0])
        return f"{wrong.sum()} of {wrong.size} wrong, first {i}: {floats(d, out)[i]} for {exact[i]}: {text}"
    return ""


def shared(plan, m, n):
    """Two blocks of a cluster that share the tokens, where the kernel can."""
    if plan.tokens < 128 or plan.cluster > 1:
        return False
    units = -(-n // (2 * plan.rows)) * -(-m // plan.tokens)
    plan.share, plan.cluster, plan.grid = 1, 2, 2 * min(units, 2)
    return True


def tall(plan, m, n):
    """Blocks of 30 tiles, whose chunks of a step lie in up to three groups; all of shared memory, so that they fit."""
    if plan.tokens > 16 or plan.cluster > 1:
        return False
    plan.rows, plan.stages, plan.shared_bytes, plan.grid = 480, 2, 232448, -(-n // 480)
    return True


def main():
    rng = np.random.default_rng(1)
    lines, kinds = [], set()
    for row in TABLE:
        nb = int(row[5])
        many = 2 * nb + 5 if row[0] == "MANY" else nb
        shapes = [(150, 272, ((nb // 2 + 1, "BF16", 0, 132, None),))]
        kind = (row[0], row[4], row[-1])
        if "all" in sys.argv or kind not in kinds:
            shapes += [(1000, 300, ((min(nb, 8), "F32", 0, 1, tall if row[0] == "FEW" else None), (1, "F32", 0, 2, None))),
                       (300, 272, ((nb, "F32", abi.ACCUMULATE, 132, None),)), (90, 1500, ((nb, "F16", 0, 132, None),)),      # K is split
                       (64, 2304, ((nb, "F32", 0, 1, None),)),                                        # teams use their stages again
                       (600, 300, ((many, "BF16", 0, 4, None), (many, "BF16", 0, 8, shared)))]       # blocks that do several tiles
        kinds.add(kind)
        for n, k, cases in shapes:
            w = Weights(row[1], row[2], int(row[3]), n, k, rng)
            for m, out, flags, sms, change in cases:
                line = product(row, w, m, rng, out, flags, sms, change)
                if line:
                    print(line, flush=True)
                lines.append(line)
    ran = [x for x in lines if x is not None]
    print(f"emulated narrow weights: {len(ran)} products, {sum(map(bool, ran))} differ")
    return 1 if any(ran) else 0


if __name__ == "__main__":
    sys.exit(main())
