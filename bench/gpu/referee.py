#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""FP8 GEMM benchmark: several implementations over the same bytes, interleaved.

Every contestant computes D[M,N] (bf16) = A[M,K] . B[N,K]^T from the same e4m3 device
buffers: normal data quantised once with 1x128 scales for A and 128x128 scales for B.
Tensor-scaled and row-scaled contestants read the same bytes with scales of their own kind,
so all draw power on equal operands. Each result is checked against FP64 before it is timed.

Modes
  table      correctness, sustained and cold times of all contestants (the main table)
  bandwidth  read-only, copy and write bandwidth; cost of an empty timed region
  flush      cold times of small-M shapes under three ways of emptying the L2
  solo       one contestant at a time, back to back: clocks and power at its own steady state
  burst      idle, then a few milliseconds: the other power regime
  trace      clock and speed millisecond by millisecond after idling
  data       power and speed by value distribution
  casts      compiled quantisation kernels against the bandwidths
  host       host time of one call
  ncu        one profiled call each, to be run under ncu --profile-from-start off
  warm       one call of every contestant (fills compilation caches)

Sustained: a CUDA graph of calls that walk over rotating buffer sets, replayed for a
untimed lead-in and a timed stretch; contestants take turns in random order every round.
Cold: event pair around one call after the L2 was emptied by reading, so that no dirty line
is written back inside the timed call. The SM clock of a slot is the difference of %clock64
over the difference of %globaltimer, read on every SM by two stamp kernels around the slot.

Typical use
  harness.py table --shapes large --names --json table.json       (8 shapes, about 200 s)
  harness.py table --wide --rounds 10 --shapes 4096x2112x7168      (all cuBLASLt configurations)
  ncu --clock-control none --profile-from-start off --set full --csv --page raw \\
      python3 harness.py ncu --shapes 4096x4096x4096

A further contestant is added without touching this file: set GEMM_CONTESTANT to
"module:function"; function(problem) returns a list of (name, kind, call), kind one of
tensor, row, block; call(i) enqueues set i on the current stream and writes problem.d[i].
"""
import argparse
import ctypes
import importlib
import json
import math
import os
import random
import statistics
import sys
import threading
import time
import traceback

import torch

DEV = "cuda"
E4M3 = torch.float8_e4m3fn
ERR_LIMIT = 0.01  # bf16 rounding of the result 1.7e-3; unpromoted accumulation 3.5e-3 at K = 16384
FLOP_PER_CLK_PER_SM = 8192  # dense e4m3: 4096 multiply-adds per clock and SM

LARGE = [(4096, 4096, 4096), (8192, 8192, 8192), (4096, 2112, 7168), (4096, 24576, 1536),
         (4096, 32768, 512), (4096, 7168, 2048), (4096, 7168, 16384), (8192, 28672, 8192)]
SMALL = [(1, 28672, 8192), (16, 28672, 8192), (64, 28672, 8192), (128, 7168, 16384)]


def log(*a):
    print(*a, flush=True)


# ---------------------------------------------------------------- statistics

def quantile(xs, q):
    xs = sorted(xs)
    p = q * (len(xs) - 1)
    lo = int(math.floor(p))
    hi = min(lo + 1, len(xs) - 1)
    return xs[lo] + (xs[hi] - xs[lo]) * (p - lo)


def bootstrap(xs, n=1000, seed=1):
    r = random.Random(seed)
    meds = sorted(statistics.median(r.choices(xs, k=len(xs))) for _ in range(n))
    return meds[int(0.025 * n)], meds[int(0.975 * n)]


# ---------------------------------------------------------------- small kernels

SRC = r"""
extern "C" __global__ void stamp(unsigned long long *out)
{
    if (threadIdx.x == 0) {
        unsigned s; unsigned long long c, t;
        asm volatile("mov.u32 %0, %%smid;" : "=r"(s));
        asm volatile("mov.u64 %0, %%clock64;" : "=l"(c));
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
        out[3*blockIdx.x] = s; out[3*blockIdx.x+1] = c; out[3*blockIdx.x+2] = t;
    }
}
"""
SRC_NULL = r'extern "C" __global__ void nothing(int *p) { if (p == (int *)1) *p = 0; }'
SRC_READ = r"""
extern "C" __global__ void __launch_bounds__(512) readall(const uint4 *p, uint4 *out, int n16)
{
    unsigned nt = gridDim.x * blockDim.x, i = blockIdx.x * blockDim.x + threadIdx.x, n = n16;
    uint4 a = make_uint4(0, 0, 0, 0);
    for (; i + 7ull * nt < n; i += 8 * nt) {
        uint4 v[8];
#pragma unroll
        for (int j = 0; j < 8; j++)
            asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                : "=r"(v[j].x), "=r"(v[j].y), "=r"(v[j].z), "=r"(v[j].w) : "l"(p + i + j * nt));
#pragma unroll
        for (int j = 0; j < 8; j++) { a.x ^= v[j].x; a.y ^= v[j].y; a.z ^= v[j].z; a.w ^= v[j].w; }
    }
    for (; i < n; i += nt) { uint4 w = p[i]; a.x ^= w.x; a.y ^= w.y; a.z ^= w.z; a.w ^= w.w; }
    if ((a.x ^ a.y ^ a.z ^ a.w) == 0x9e3779b9u) out[0] = a;
}
"""


SRC_BULK = r"""
extern "C" __global__ void __launch_bounds__(32) readbulk(const char *p, int chunks, int bytes, int stages)
{
    extern __shared__ __align__(1024) char sm[];
    __shared__ __align__(8) unsigned long long bar[32];
    unsigned s0, b0;
    asm("{ .reg .u64 t; cvta.to.shared.u64 t, %1; cvt.u32.u64 %0, t; }" : "=r"(s0) : "l"(sm));
    asm("{ .reg .u64 t; cvta.to.shared.u64 t, %1; cvt.u32.u64 %0, t; }" : "=r"(b0) : "l"(bar));
    if (threadIdx.x) return;
    for (int i = 0; i < stages; i++)
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(b0 + 8*i));
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    int next = blockIdx.x;
    for (int i = 0, c = blockIdx.x; c < chunks; i++, c += gridDim.x) {
        int s = i % stages, ph = (i / stages) & 1;
        while (next < chunks && next < c + stages * (int)gridDim.x) {
            int k = (next - (int)blockIdx.x) / (int)gridDim.x % stages;
            asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r"(b0 + 8*k), "r"(bytes) : "memory");
            asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                :: "r"(s0 + k*bytes), "l"(p + (size_t)next*bytes), "r"(bytes), "r"(b0 + 8*k) : "memory");
            next += gridDim.x;
        }
        asm volatile("{ .reg .pred q; W: mbarrier.try_wait.parity.shared::cta.b64 q, [%0], %1; @!q bra W; }"
            :: "r"(b0 + 8*s), "r"(ph) : "memory");
    }
}
"""


class Tools:
    """Stamp, read and empty kernels; flush buffers."""

    def __init__(self, flush_mb=512):
        p = torch.cuda.get_device_properties(0)
        self.sms = p.multi_processor_count
        comp = torch.cuda._compile_kernel
        self.k_stamp = comp(SRC, "stamp")
        self.k_null = comp(SRC_NULL, "nothing")
        self.k_read = comp(SRC_READ, "readall")
        self.k_bulk = comp(SRC_BULK, "readbulk")
        self.k_bulk.set_shared_memory_config(200 * 1024)
        self.nblk = 4 * self.sms
        self.buf = torch.zeros(2, self.nblk, 3, dtype=torch.int64, device=DEV)
        self.sink = torch.zeros(64, dtype=torch.int32, device=DEV)
        self.flush_buf = torch.randint(0, 2**31 - 1, (flush_mb * 2**20 // 4,), dtype=torch.int32, device=DEV)
        self.dirty_buf = torch.zeros(256 * 2**20 // 4, dtype=torch.int32, device=DEV)

    def stamp(self, i):
        self.k_stamp(grid=(self.nblk, 1, 1), block=(32, 1, 1), args=[self.buf[i]])

    def clock(self):
        """Average SM clock in GHz and seconds between stamp 0 and stamp 1."""
        b = self.buf.cpu().tolist()
        d = [{}, {}]
        for k in (0, 1):
            for s, c, t in b[k]:
                d[k].setdefault(s, (c, t))
        f, dt = [], []
        for s in d[0]:
            if s in d[1]:
                c, t = d[1][s][0] - d[0][s][0], d[1][s][1] - d[0][s][1]
                if t > 0:
                    f.append(c / t)
                    dt.append(t * 1e-9)
        return (statistics.median(f), statistics.median(dt)) if f else (float("nan"), float("nan"))

    def read(self, t=None, ctas=0, threads=512):
        t = self.flush_buf if t is None else t
        self.k_read(grid=(ctas or 4 * self.sms, 1, 1), block=(threads, 1, 1),
                    args=[t, self.sink, t.numel() * t.element_size() // 16])

    def read_bulk(self, t, kb=16, stages=12, ctas=1):
        """Read through the bulk copy engine into shared memory, kb*stages in flight per CTA."""
        n = t.numel() * t.element_size() // (kb << 10)
        self.k_bulk(grid=(ctas * self.sms, 1, 1), block=(32, 1, 1), args=[t, n, kb << 10, stages], shared_mem=(kb << 10) * stages)

    def null(self):
        self.k_null(grid=(1, 1, 1), block=(32, 1, 1), args=[self.sink])


class Monitor(threading.Thread):
    """Reads SM clock, instant power and clock-event reasons; changes nothing."""

    def __init__(self, period=0.010):
        super().__init__(daemon=True)
        self.rows, self.stop, self.period, self.ok = [], False, period, False
        try:
            import pynvml
            pynvml.nvmlInit()
            self.n, self.h, self.ok = pynvml, pynvml.nvmlDeviceGetHandleByIndex(0), True
        except Exception as ex:  # noqa: BLE001
            log("no NVML:", ex)

    def sample(self):
        n, h = self.n, self.h
        w = mhz = why = float("nan")
        try:
            f = n.nvmlDeviceGetFieldValues(h, [getattr(n, "NVML_FI_DEV_POWER_INSTANT", 186)])[0]  # mW
            w = f.value.uiVal / 1e3 if f.nvmlReturn == 0 else n.nvmlDeviceGetPowerUsage(h) / 1e3
            mhz = n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM)
            why = n.nvmlDeviceGetCurrentClocksEventReasons(h)
        except Exception:  # noqa: BLE001
            pass
        return (time.monotonic(), mhz, w, why)

    def run(self):
        while self.ok and not self.stop:
            self.rows.append(self.sample())
            time.sleep(self.period)

    def between(self, a, b):
        rs = [r for r in self.rows if a <= r[0] <= b]
        if not rs:
            return float("nan"), float("nan"), 0
        why = 0
        for r in rs:
            if r[3] == r[3]:
                why |= int(r[3])
        return statistics.mean(r[1] for r in rs), statistics.mean(r[2] for r in rs), why

    def describe(self):
        if not self.ok:
            return {}
        n, h = self.n, self.h
        d = {}
        for k, f in (("power limit W", lambda: n.nvmlDeviceGetEnforcedPowerLimit(h) / 1e3),
                     ("max SM MHz", lambda: n.nvmlDeviceGetMaxClockInfo(h, n.NVML_CLOCK_SM)),
                     ("mem MHz", lambda: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_MEM)),
                     ("temperature C", lambda: n.nvmlDeviceGetTemperature(h, 0)),
                     ("driver", lambda: n.nvmlSystemGetDriverVersion())):
            try:
                d[k] = f()
            except Exception as ex:  # noqa: BLE001
                d[k] = str(ex)
        return d


# ---------------------------------------------------------------- operands

def cast_rows(x, g=128):
    """e4m3 values and [rows, K/g] scales = amax/448."""
    m, k = x.shape
    v = x.float().view(m, k // g, g)
    s = v.abs().amax(2).clamp_min(1e-12) / 448.0
    return (v / s.unsqueeze(2)).clamp_(-448, 448).to(E4M3).view(m, k), s


def cast_blocks(x, g=128):
    n, k = x.shape
    nb = -(-n // g)
    p = torch.zeros(nb * g, k, dtype=torch.float32, device=x.device)
    p[:n] = x
    v = p.view(nb, g, k // g, g)
    s = v.abs().amax((1, 3)).clamp_min(1e-12) / 448.0
    q = (v / s.view(nb, 1, k // g, 1)).clamp_(-448, 448).to(E4M3).view(nb * g, k)[:n].contiguous()
    return q, s.contiguous()


def draw(shape, dist, gen):
    if dist == "zeros":
        return torch.zeros(shape, dtype=torch.bfloat16, device=DEV)
    if dist == "constant":
        return torch.ones(shape, dtype=torch.bfloat16, device=DEV)
    if dist == "uniform":
        return (torch.rand(shape, device=DEV, generator=gen) * 2 - 1).bfloat16()
    x = torch.randn(shape, device=DEV, generator=gen, dtype=torch.float32)
    if dist == "outliers":
        x = torch.where(torch.rand(shape, device=DEV, generator=gen) < 0.01, x * 20, x)
    return x.bfloat16()


class Problem:
    """sets of (A, B, scales, D); all contestants share them."""

    def __init__(self, m, n, k, dist="normal", sets=0, seed=0):
        assert k % 512 == 0  # cuBLAS wants a multiple of four 128-blocks of scales
        self.m, self.n, self.k = m, n, k
        self.flop = 2.0 * m * n * k
        per = m * k + n * k
        self.bytes = per + 2 * m * n
        self.sets = sets or max(3, min(8, math.ceil(120e6 / per)))
        self.mp = max(16, -(-m // 16) * 16)  # rows padded with zeros for callers that need it
        gen = torch.Generator(device=DEV).manual_seed(seed)
        self.a_pad, self.a, self.b, self.sa, self.sb = [], [], [], [], []
        self.d_pad, self.d = [], []
        self.sa_t, self.sa_t_pad = [], []
        for _ in range(self.sets):
            q, s = cast_rows(draw((m, k), dist, gen))
            s *= torch.rand(s.shape, device=DEV, generator=gen) * 1.5 + 0.5  # blocks of different size: a
            # contestant that mixes up its scales is then far off, not 7 %
            ap = torch.zeros(self.mp, k, dtype=torch.uint8, device=DEV).view(E4M3)
            ap[:m] = q
            self.a_pad.append(ap)
            self.a.append(ap[:m])
            self.sa.append(s)
            self.sa_t.append(s.t().contiguous())  # [K/128][M]
            sp = torch.ones(k // 128, self.mp, device=DEV)
            sp[:, :m] = s.t()
            self.sa_t_pad.append(sp)
            q, s = cast_blocks(draw((n, k), dist, gen))
            s *= torch.rand(s.shape, device=DEV, generator=gen) * 1.5 + 0.5
            self.b.append(q)
            self.sb.append(s)                      # [N/128][K/128]
            dp = torch.empty(self.mp, n, dtype=torch.bfloat16, device=DEV)
            self.d_pad.append(dp)
            self.d.append(dp[:m])
        self.s1 = torch.tensor(0.01, device=DEV)
        self.s2 = torch.tensor(0.02, device=DEV)
        self.ra = torch.rand(self.mp, device=DEV, generator=gen) * 0.01 + 0.005
        self.rb = torch.rand(n, device=DEV, generator=gen) * 0.02 + 0.01
        self.refs = None
        self.bf16 = None

    def bf16_operands(self):
        if self.bf16 is None:
            self.bf16 = [(a.to(torch.bfloat16), b.to(torch.bfloat16)) for a, b in zip(self.a, self.b)]
        return self.bf16

    def references(self):
        """FP64 of the dequantised operands of set 0, one per scale kind."""
        if self.refs is None:
            a, b = self.a[0].to(torch.float64), self.b[0].to(torch.float64)
            raw = a @ b.t()
            a.view(self.m, -1, 128).mul_(self.sa[0].double().unsqueeze(2))
            b.view(self.n, -1, 128).mul_(self.sb[0].double().repeat_interleave(128, 0)[:self.n].unsqueeze(2))
            self.refs = {"raw": raw, "block": a @ b.t()}
        return self.refs

    def error(self, kind, out):
        r = self.references()
        o = out.double()
        if kind == "block":
            ref = r["block"]
        elif kind == "bf16":
            ref = r["raw"]
        elif kind == "tensor":
            ref = r["raw"] * (self.s1.double() * self.s2.double())
        else:
            ref = r["raw"] * self.ra[:self.m].double().unsqueeze(1) * self.rb.double()
        return ((o - ref).norm() / ref.norm()).item()


# ---------------------------------------------------------------- cuBLASLt, all returned algorithms

class Lt:
    OP_T, R_32F, R_16BF, R_E4M3, COMPUTE_32F = 1, 0, 14, 28, 68
    MODES = {"tensor": (0, 0), "row": (3, 3), "block": (5, 4)}  # scale modes of cuBLAS's A (our B) and B (our A)

    class Result(ctypes.Structure):
        _fields_ = [("algo", ctypes.c_uint64 * 8), ("ws", ctypes.c_size_t), ("state", ctypes.c_int),
                    ("waves", ctypes.c_float), ("reserved", ctypes.c_int * 4)]

    def __init__(self, ws_bytes=256 << 20, search_all=False):
        self.search_all, self.accepted, self.inits = search_all, {}, {}
        self.lib = ctypes.CDLL("libcublasLt.so.13")
        self.lib.cublasLtGetVersion.restype = ctypes.c_size_t
        self.version = self.lib.cublasLtGetVersion()
        self.h = ctypes.c_void_p()
        self.check(self.lib.cublasLtCreate(ctypes.byref(self.h)))
        self.ws = torch.empty(ws_bytes, dtype=torch.uint8, device=DEV)
        self.one, self.zero = ctypes.c_float(1.0), ctypes.c_float(0.0)

    @staticmethod
    def check(st):
        if st:
            raise RuntimeError(f"cublasLt status {st}")

    def attr(self, desc, which, val):
        self.check(self.lib.cublasLtMatmulDescSetAttribute(desc, which, ctypes.byref(val), ctypes.sizeof(val)))

    def layout(self, typ, rows, cols, ld):
        x = ctypes.c_void_p()
        self.check(self.lib.cublasLtMatrixLayoutCreate(ctypes.byref(x), typ, ctypes.c_uint64(rows),
                                                       ctypes.c_uint64(cols), ctypes.c_int64(ld)))
        return x

    def desc(self, mode, fast, scale_w, scale_x):
        d = ctypes.c_void_p()
        self.check(self.lib.cublasLtMatmulDescCreate(ctypes.byref(d), self.COMPUTE_32F, self.R_32F))
        self.attr(d, 3, ctypes.c_int32(self.OP_T))
        self.attr(d, 25, ctypes.c_int8(1 if fast else 0))
        ma, mb = self.MODES[mode]
        self.attr(d, 31, ctypes.c_int32(ma))
        self.attr(d, 32, ctypes.c_int32(mb))
        self.attr(d, 17, ctypes.c_void_p(scale_w))
        self.attr(d, 18, ctypes.c_void_p(scale_x))
        return d

    def plan(self, p, mode, fast, pad=False):
        m = p.mp if pad else p.m
        sa = p.sa_t_pad if pad else p.sa_t
        plan = {"m": m, "lw": self.layout(self.R_E4M3, p.k, p.n, p.k), "lx": self.layout(self.R_E4M3, p.k, m, p.k),
                "ld": self.layout(self.R_16BF, p.n, m, p.n), "desc": []}
        for i in range(p.sets):
            if mode == "tensor":
                w, x = p.s2.data_ptr(), p.s1.data_ptr()
            elif mode == "row":
                w, x = p.rb.data_ptr(), p.ra.data_ptr()
            else:
                w, x = p.sb[i].data_ptr(), sa[i].data_ptr()
            plan["desc"].append(self.desc(mode, fast, w, x))
        return plan

    def algos(self, plan, want=100):
        pref = ctypes.c_void_p()
        self.check(self.lib.cublasLtMatmulPreferenceCreate(ctypes.byref(pref)))
        sz = ctypes.c_uint64(self.ws.numel())
        self.check(self.lib.cublasLtMatmulPreferenceSetAttribute(pref, 1, ctypes.byref(sz), 8))
        res, got = (self.Result * want)(), ctypes.c_int()
        self.check(self.lib.cublasLtMatmulAlgoGetHeuristic(self.h, plan["desc"][0], plan["lw"], plan["lx"], plan["ld"],
                                                           plan["ld"], pref, want, res, ctypes.byref(got)))
        return [r for r in res[:got.value] if r.state == 0]

    CLUSTERS = (2, 3, 5, 4, 8, 6, 7, 9, 10, 11, 12)

    def configured(self, types, ident, tile, stages, cluster, custom, plan):
        """A configuration as a heuristic result, or None where cuBLASLt refuses it."""
        lib, r, res = self.lib, self.Result(), self.Result()
        if ident not in self.inits:
            base = (ctypes.c_uint64 * 8)()
            self.inits[ident] = None if lib.cublasLtMatmulAlgoInit(self.h, *types, ident, ctypes.byref(base)) else base
        if self.inits[ident] is None:
            return None
        ctypes.memmove(ctypes.byref(r.algo), ctypes.byref(self.inits[ident]), 64)
        for attr, v in ((1, ctypes.c_uint32(tile)), (6, ctypes.c_uint32(stages)), (5, ctypes.c_uint32(custom)), (8, ctypes.c_uint16(cluster))):
            if lib.cublasLtMatmulAlgoConfigSetAttribute(ctypes.byref(r.algo), attr, ctypes.byref(v), ctypes.sizeof(v)):
                return None
        if lib.cublasLtMatmulAlgoCheck(self.h, plan["desc"][0], plan["lw"], plan["lx"], plan["ld"], plan["ld"],
                                       ctypes.byref(r.algo), ctypes.byref(res)) or res.ws > self.ws.numel():
            return None
        r.ws = res.ws
        return r

    def wide(self, plan, key, budget=2.0, limit=1500):
        """(tile, stages, cluster, custom option) of every algorithm id, those that cuBLASLt accepts.

        The product is asked about for budget seconds on the first shape, small families first; what
        a mode accepted there is tried again on later shapes."""
        types = (self.COMPUTE_32F, self.R_32F, self.R_E4M3, self.R_E4M3, self.R_16BF, self.R_16BF)
        lib = self.lib
        if key not in self.accepted:
            ids, n = (ctypes.c_int * 200)(), ctypes.c_int()
            self.check(lib.cublasLtMatmulAlgoGetIds(self.h, *types, 200, ids, ctypes.byref(n)))
            groups, self.seen = [], {}
            for ident in ids[:n.value]:
                base = (ctypes.c_uint64 * 8)()
                if lib.cublasLtMatmulAlgoInit(self.h, *types, ident, ctypes.byref(base)):
                    continue

                def cap(attr, ct, count):
                    buf, w = (ct * count)(), ctypes.c_size_t()
                    if lib.cublasLtMatmulAlgoCapGetAttribute(ctypes.byref(base), attr, ctypes.byref(buf), ctypes.sizeof(buf), ctypes.byref(w)):
                        return []
                    return list(buf[: w.value // ctypes.sizeof(ct)])
                tiles, stages = cap(6, ctypes.c_uint32, 2000) or [0], cap(13, ctypes.c_uint32, 200) or [0]
                top = (cap(7, ctypes.c_int32, 1) or [0])[0]
                self.seen[ident] = (len(tiles), len(stages), top)
                part = [(ident, t, s, cl, cu) for t in tiles for s in stages for cl in self.CLUSTERS for cu in range(min(top, 31) + 1)]
                random.shuffle(part)
                groups.append(part)
            groups.sort(key=len)  # the small families completely, the largest as far as time allows
            combos = [c for g in groups for c in g]
            end, good, tried = time.monotonic() + budget, [], 0
            for c in combos:
                tried += 1
                if self.configured(types, *c, plan) is not None:
                    good.append(c)
                if time.monotonic() > end:
                    break
            random.shuffle(good)
            self.accepted[key] = good
            kinds = sorted({(c[0], c[1]) for c in good})
            log(f"  {key}: id: (tiles, stages, custom options) {self.seen}; {tried} of {len(combos)} asked, {len(good)} accepted, "
                f"{len(kinds)} (id, tile): {kinds[:12]}")
        rs = [self.configured(types, *c, plan) for c in self.accepted[key][:limit]]
        return [r for r in rs if r is not None]

    def call(self, p, plan, r):
        ptrs = [(ctypes.c_void_p(p.b[i].data_ptr()), ctypes.c_void_p(p.a_pad[i].data_ptr()),
                 ctypes.c_void_p(p.d_pad[i].data_ptr())) for i in range(p.sets)]
        algo, lib, h = ctypes.byref(r.algo), self.lib, self.h
        one, zero = ctypes.byref(self.one), ctypes.byref(self.zero)
        lw, lx, ld, descs = plan["lw"], plan["lx"], plan["ld"], plan["desc"]
        ws, wsz = ctypes.c_void_p(self.ws.data_ptr()), ctypes.c_size_t(self.ws.numel())

        def f(i):
            w, x, d = ptrs[i]
            st = lib.cublasLtMatmul(h, descs[i], one, w, lw, x, lx, zero, d, ld, d, ld, algo, ws, wsz,
                                    ctypes.c_void_p(torch.cuda.current_stream().cuda_stream))
            if st:
                raise RuntimeError(f"cublasLt status {st}")
        return f

    def config(self, r):
        out = {}
        for name, a, ct in (("id", 0, ctypes.c_int32), ("tile", 1, ctypes.c_uint32), ("splitk", 2, ctypes.c_uint32),
                            ("swizzle", 4, ctypes.c_uint32), ("custom", 5, ctypes.c_uint32), ("stages", 6, ctypes.c_uint32),
                            ("inner", 7, ctypes.c_uint16), ("cluster", 8, ctypes.c_uint16)):
            v, w = ct(), ctypes.c_size_t()
            if self.lib.cublasLtMatmulAlgoConfigGetAttribute(ctypes.byref(r.algo), a, ctypes.byref(v), ctypes.sizeof(v),
                                                             ctypes.byref(w)) == 0:
                out[name] = v.value
        return out

    def screen(self, p, plan, rs, keep=60):
        """One call of each, after the clock has settled under load; the quickest keep."""
        ts, f = [], self.call(p, plan, self.algos(plan)[0])
        end = time.monotonic() + 0.25
        while time.monotonic() < end:
            burst_time(f, p.sets, 8 * p.sets)
        for lo in range(0, len(rs), 200):
            part = []
            for i in range(lo, min(lo + 200, len(rs))):
                f = self.call(p, plan, rs[i])
                e0, e1 = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                try:
                    e0.record()
                    f(i % p.sets)
                    e1.record()
                    part.append((i, e0, e1))
                except RuntimeError as ex:
                    if "status" not in str(ex):
                        raise
            torch.cuda.synchronize()
            ts += [(a.elapsed_time(b), i) for i, a, b in part]
        ts.sort()
        return [rs[i] for _, i in ts[:keep]], len(ts)

    def best(self, p, mode, fast):
        """Time every algorithm the heuristic returns; re-time the leaders interleaved; return the fastest."""
        err = None
        for pad in ((False, True) if p.mp != p.m else (False,)):
            try:
                plan = self.plan(p, mode, fast, pad)
                rs = self.algos(plan)
                if not rs:
                    raise RuntimeError("no algorithm")
                tried = len(rs)
                if self.search_all:
                    more, tried = self.screen(p, plan, self.wide(plan, (mode, fast)))
                    rs = rs + more
                break
            except RuntimeError as ex:
                err = ex
        else:
            raise err
        timed = []
        for idx, r in enumerate(rs):
            f = self.call(p, plan, r)
            try:
                f(0)
                torch.cuda.synchronize()
                est = burst_time(f, p.sets, p.sets)
                n = max(p.sets, min(60, int(1.5e-3 / est)))
                timed.append((burst_time(f, p.sets, n), idx))
            except RuntimeError as ex:
                if "status" not in str(ex):
                    raise
        if not timed:
            raise RuntimeError("no algorithm ran")
        timed.sort()
        first = next((t for t, i in timed if i == 0), float("nan"))
        lead, wrong = [], 0
        for _, i in timed:  # a configuration can be accepted and still compute something else
            p.d_pad[0].fill_(float("nan"))
            self.call(p, plan, rs[i])(0)
            torch.cuda.synchronize()
            if p.error(mode, p.d[0]) < ERR_LIMIT:
                lead.append(i)
            else:
                wrong += 1
            if len(lead) == 5:
                break
        if not lead:
            raise RuntimeError("no algorithm gave the right result")
        fs = {i: self.call(p, plan, rs[i]) for i in lead}
        t0 = min(t for t, i in timed if i in lead)
        n = max(p.sets, min(200, int((20e-3 if self.search_all else 8e-3) / t0)))
        acc = {i: [] for i in lead}
        for rnd in range(6 if self.search_all else 4):
            for i in random.sample(lead, len(lead)):
                acc[i].append(burst_time(fs[i], p.sets, n))
        win = min(lead, key=lambda i: statistics.median(acc[i]))
        info = {"algos": tried, "index": win, "config": self.config(rs[win]), "pad": pad,
                "wrong": wrong, "first_over_best": first / t0}
        return fs[win], info


def burst_time(f, sets, n):
    e0, e1 = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    e0.record()
    for j in range(n):
        f(j % sets)
    e1.record()
    e1.synchronize()
    return e0.elapsed_time(e1) * 1e-3 / n


# ---------------------------------------------------------------- contestants

class Contestant:
    def __init__(self, name, kind, call, info=None):
        self.name, self.kind, self.call, self.info = name, kind, call, info or {}
        self.graph = None
        self.sus, self.cold, self.cold_ghz = [], [], []


def scaled_mm(p, kind, fast):
    """torch._scaled_mm writing into p.d; pads M to 16 where the unpadded call is refused or wrong."""
    def make(pad):
        a, d = (p.a_pad, p.d_pad) if pad else (p.a, p.d)
        m = p.mp if pad else p.m
        if kind == "tensor":
            sc = [(p.s1, p.s2)] * p.sets
        elif kind == "row":
            sc = [(p.ra[:m].view(m, 1), p.rb.view(1, p.n))] * p.sets
        else:
            st = p.sa_t_pad if pad else p.sa_t
            sc = [(st[i].t(), p.sb[i].t()) for i in range(p.sets)]
        bt = [x.t() for x in p.b]

        def f(i):
            torch._scaled_mm(a[i], bt[i], scale_a=sc[i][0], scale_b=sc[i][1], out_dtype=torch.bfloat16,
                             use_fast_accum=fast, out=d[i])
        return f
    err = None
    for pad in ((False, True) if p.mp != p.m else (False,)):
        f = make(pad)
        try:
            p.d_pad[0].fill_(float("nan"))
            f(0)
            torch.cuda.synchronize()
            if p.error(kind, p.d[0]) < ERR_LIMIT:
                return f, {"pad": pad}
            err = RuntimeError("wrong result")
        except RuntimeError as ex:
            err = ex
    raise err


def make_deepgemm(p):
    import deep_gemm
    sa = [deep_gemm.get_mn_major_tma_aligned_tensor(s) for s in p.sa]

    def f(i):
        deep_gemm.fp8_gemm_nt((p.a[i], sa[i]), (p.b[i], p.sb[i]), p.d[i])
    return f, {}


def make_bf16(p):
    ops = p.bf16_operands()

    def f(i):
        torch.mm(ops[i][0], ops[i][1].t(), out=p.d[i])
    return f, {}


def contestants(p, lt, want=None, search=True):
    makers = [
        ("torch tensor fast", "tensor", lambda: scaled_mm(p, "tensor", True)),
        ("torch tensor", "tensor", lambda: scaled_mm(p, "tensor", False)),
        ("torch row fast", "row", lambda: scaled_mm(p, "row", True)),
        ("torch block", "block", lambda: scaled_mm(p, "block", False)),
        ("deepgemm", "block", lambda: make_deepgemm(p)),
        ("bf16", "bf16", lambda: make_bf16(p)),
    ]
    if search:
        makers += [
            ("lt tensor fast", "tensor", lambda: lt.best(p, "tensor", True)),
            ("lt tensor", "tensor", lambda: lt.best(p, "tensor", False)),
            ("lt row fast", "row", lambda: lt.best(p, "row", True)),
            ("lt row", "row", lambda: lt.best(p, "row", False)),
            ("lt block", "block", lambda: lt.best(p, "block", False)),
        ]
    out = []
    for name, kind, mk in makers:
        if want and name not in want:
            continue
        try:
            f, info = mk()
            out.append(Contestant(name, kind, f, info))
        except Exception as ex:  # noqa: BLE001
            log(f"  {name}: not run: {str(ex).splitlines()[0][:140] if str(ex) else type(ex).__name__}")
    twin = next((c for c in out if c.name == "deepgemm"), None)
    if twin and search:  # the same code twice: what differs is noise
        out.append(Contestant("deepgemm twin", "block", twin.call))
    spec = os.environ.get("GEMM_CONTESTANT")
    if spec:
        mod, fn = spec.split(":")
        for name, kind, f in getattr(importlib.import_module(mod), fn)(p):
            out.append(Contestant(name, kind, f))
    return out


def verify(p, c):
    for d in p.d_pad:
        d.fill_(float("nan"))
    for i in range(p.sets):
        c.call(i)
    torch.cuda.synchronize()
    c.err = p.error(c.kind, p.d[0])
    c.nan = any(bool(torch.isnan(d).any()) for d in p.d)
    return c.err < ERR_LIMIT and not c.nan


def capture(p, c, target_s=4e-3):
    """Graph of calls over the rotating sets; c.calls per replay."""
    for j in range(2):
        burst_time(c.call, p.sets, p.sets)
    est = burst_time(c.call, p.sets, max(p.sets, min(50, int(2e-3 / burst_time(c.call, p.sets, p.sets)))))
    c.calls = p.sets * max(1, min(40, round(target_s / (est * p.sets))))
    s = torch.cuda.Stream()
    s.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(s):
        c.call(0)
    torch.cuda.current_stream().wait_stream(s)
    torch.cuda.synchronize()
    g = torch.cuda.CUDAGraph()
    with torch.cuda.stream(s):
        g.capture_begin()
        for j in range(c.calls):
            c.call(j % p.sets)
        g.capture_end()
    torch.cuda.synchronize()
    c.graph = g
    g.replay()
    e0, e1 = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    e0.record()
    g.replay()
    e1.record()
    e1.synchronize()
    c.replay_s = e0.elapsed_time(e1) * 1e-3


def slot(tools, mon, c, pre_s, work_s):
    """One sustained slot: (seconds per call, GHz, W, clock-event reasons)."""
    n0, n1 = max(0, math.ceil(pre_s / c.replay_s)), max(1, math.ceil(work_s / c.replay_s))
    e0, e1 = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for _ in range(n0):
        c.graph.replay()
    w0 = time.monotonic() + pre_s
    tools.stamp(0)
    e0.record()
    for _ in range(n1):
        c.graph.replay()
    e1.record()
    tools.stamp(1)
    torch.cuda.synchronize()
    w1 = time.monotonic()
    ghz, _ = tools.clock()
    mhz, watt, why = mon.between(w0, w1)
    return e0.elapsed_time(e1) * 1e-3 / (n1 * c.calls), ghz, watt, why


def cold(tools, c, sets, reps, style="read"):
    """Times of single calls, each after the L2 was emptied."""
    ev = []
    torch.cuda._sleep(1_000_000)
    for j in range(reps):
        if style == "zero":
            tools.dirty_buf.zero_()
        elif style == "zero+read":
            tools.dirty_buf.zero_()
            tools.read()
        else:
            tools.read()
        e0, e1 = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        e0.record()
        c(j % sets)
        e1.record()
        ev.append((e0, e1))
    torch.cuda.synchronize()
    return [a.elapsed_time(b) * 1e-3 for a, b in ev]


def cold_clock(tools, c, sets):
    """SM clock during a cold call (stamped, not timed)."""
    for j in range(2):
        tools.read()
        tools.stamp(0)
        c(j % sets)
        tools.stamp(1)
    torch.cuda.synchronize()
    return tools.clock()[0]


# ---------------------------------------------------------------- modes

def name(s):
    return "x".join(str(x) for x in s)


def summarise(p, cs, sms):
    base = next((c for c in cs if c.name == "deepgemm"), None)
    rows = []
    for c in cs:
        t = [r[0] for r in c.sus]
        med = statistics.median(t)
        ghz = statistics.median(r[1] for r in c.sus)
        ws = [r[2] for r in c.sus if r[2] == r[2]]
        row = {"name": c.name, "kind": c.kind, "err": c.err, "us": med * 1e6, "us10": quantile(t, .1) * 1e6,
               "us90": quantile(t, .9) * 1e6, "tflops": p.flop / med / 1e12, "ghz": ghz,
               "watt": statistics.mean(ws) if ws else float("nan"),
               "util": p.flop / med / (FLOP_PER_CLK_PER_SM * sms * ghz * 1e9),
               "gbs": p.bytes / med / 1e9, "cold_us": statistics.median(c.cold) * 1e6,
               "cold10": quantile(c.cold, .1) * 1e6, "cold90": quantile(c.cold, .9) * 1e6, "info": c.info,
               "cold_ghz": statistics.median(c.cold_ghz) if c.cold_ghz else float("nan"),
               "series": [list(r) for r in c.sus], "cold_series": c.cold}
        if base is not None:
            ra = [b[0] / a[0] for a, b in zip(c.sus, base.sus)]
            row["ratio"] = statistics.median(ra)
            row["ratio_lo"], row["ratio_hi"] = bootstrap(ra)
            row["cold_ratio"] = statistics.median(base.cold) / statistics.median(c.cold)
        rows.append(row)
    return rows


def print_rows(shape, rows):
    m, n, k = shape
    log(f"\n### {m} x {n} x {k}")
    log("| contestant | error | sustained µs | 10-90 % | TFLOP/s | GB/s | vs DeepGEMM [95 %] | GHz | W | tensor-clock use | cold µs | 10-90 % | cold TFLOP/s | cold GHz | vs DeepGEMM |")
    log("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for r in rows:
        ra = f"{r['ratio']:.3f} [{r['ratio_lo']:.3f}, {r['ratio_hi']:.3f}]" if "ratio" in r else ""
        rc = f"{r['cold_ratio']:.3f}" if "ratio" in r else ""
        log(f"| {r['name']} | {r['err']:.1e} | {r['us']:.1f} | {r['us10']:.1f}-{r['us90']:.1f} | {r['tflops']:.0f} | {r['gbs']:.0f} "
            f"| {ra} | {r['ghz']:.3f} | {r['watt']:.0f} | {100*r['util']:.1f} % | {r['cold_us']:.1f} | {r['cold10']:.1f}-{r['cold90']:.1f} "
            f"| {2*m*n*k/r['cold_us']/1e6:.0f} | {r['cold_ghz']:.3f} | {rc} |")


def mode_table(a, tools, mon, res):
    lt = Lt(search_all=a.wide)
    res["cublaslt"] = lt.version
    for shape in a.shapes:
        try:
            one_shape(a, tools, mon, res, lt, shape)
        except Exception:  # noqa: BLE001
            log(traceback.format_exc())
        torch.cuda.empty_cache()
    if a.names:
        kernel_names(res)
        save(a, res)


def one_shape(a, tools, mon, res, lt, shape):
    t0 = time.monotonic()
    small = shape[0] <= 128
    p = Problem(*shape)
    p.references()
    cs = contestants(p, lt, a.only)
    cs = [c for c in cs if verify(p, c) or log(f"  {c.name}: WRONG err {c.err:.3g} nan {c.nan}")]
    p.refs = None
    torch.cuda.empty_cache()
    for c in cs:
        capture(p, c)
    t1 = time.monotonic()
    pre, work = (a.pre * 0.4, a.work * 0.6) if small else (a.pre, a.work)
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        for c in cs:
            slot(tools, mon, c, 0, 5e-3)
    for rnd in range(a.rounds):
        for c in random.sample(cs, len(cs)):
            c.sus.append(slot(tools, mon, c, pre, work))
    t2 = time.monotonic()
    for rnd in range(a.rounds):
        for c in random.sample(cs, len(cs)):
            c.cold += cold(tools, c.call, p.sets, 4)[1:]
            c.cold_ghz.append(cold_clock(tools, c.call, p.sets))
    rows = summarise(p, cs, tools.sms)
    print_rows(shape, rows)
    log(f"sets {p.sets}; set-up {t1-t0:.1f} s, sustained {t2-t1:.1f} s, cold {time.monotonic()-t2:.1f} s")
    for c in cs:
        if "config" in c.info:
            i = c.info
            log(f"  {c.name}: {i['algos']} algorithms ran, {i['wrong']} of the quickest wrong, winner is number {i['index']}, first/best time {i['first_over_best']:.3f}, {i['config']}"
                + (" (M padded)" if i["pad"] else ""))
    res.setdefault("table", {})[name(shape)] = rows
    save(a, res)
    if a.names:
        res.setdefault("kernels", {})[name(shape)] = (p.flop, [(c.name, c.call) for c in cs])
    for c in cs:
        c.graph = None


def kernel_names(res):
    """Kernel symbols of every contestant, by the profiler, after all timing is done."""
    from torch.profiler import ProfilerActivity, profile
    calls = res.pop("kernels")
    out = {}
    for shape, (_, cs) in calls.items():
        with profile(activities=[ProfilerActivity.CUDA]) as prof:
            for _, f in cs:
                torch.cuda._sleep(1000)  # separates the contestants in the trace
                f(0)
                torch.cuda.synchronize()
        ev = sorted((e for e in prof.events() if e.device_type == torch.autograd.DeviceType.CUDA),
                    key=lambda e: e.time_range.start)
        groups, cur = [], None
        for e in ev:
            if "spin" in e.name:
                cur = []
                groups.append(cur)
            elif cur is not None:
                cur.append(e.name)
        out[shape] = {n: g for (n, _), g in zip(cs, groups)}
        log(f"\nkernels at {shape}")
        for n, g in out[shape].items():
            log(f"  {n}: {' + '.join(x[:170] for x in g)}")
    res["kernel_names"] = out


def mode_bandwidth(a, tools, mon, res):
    out = {}
    n = 8 << 30
    x = torch.empty(n // 4, dtype=torch.int32, device=DEV)
    x.random_()

    def t(f, reps=12):
        f()
        ts = []
        for _ in range(reps):
            e0, e1 = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            e0.record()
            f()
            e1.record()
            e1.synchronize()
            ts.append(e0.elapsed_time(e1) * 1e-3)
        return statistics.median(ts)
    for threads in (256, 512):
        for per in (1, 2, 4, 8, 16):
            if threads * per > 2048 * 4:
                continue
            out[f"read {per}x{threads}"] = n / t(lambda: tools.read(x, per * tools.sms, threads), 6) / 1e12
    for kb, st, ctas in ((8, 24, 1), (16, 12, 1), (32, 6, 1), (16, 6, 2), (4, 24, 2)):
        out[f"bulk read {ctas} x {st} x {kb} KB"] = n / t(lambda: tools.read_bulk(x, kb, st, ctas), 6) / 1e12
    half = x[: x.numel() // 2]
    other = x[x.numel() // 2:]
    out["copy"] = n / t(lambda: other.copy_(half)) / 1e12
    out["write (zero)"] = n / t(lambda: x.zero_()) / 1e12
    x.random_()
    for mb in (16, 32, 64, 117.440512, 234.881024, 512):
        part = x[: int(mb * 1e6) // 65536 * 65536 // 4]
        for nm, f in (("4x256", lambda i: tools.read(part, 4 * tools.sms, 256)), ("16x512", lambda i: tools.read(part, 16 * tools.sms)),
                      ("bulk 12x16 KB", lambda i: tools.read_bulk(part)), ("bulk 24x8 KB", lambda i: tools.read_bulk(part, 8, 24))):
            ts = cold(tools, f, 1, 24)[4:]
            out[f"{nm} reads {mb:.0f} MB once, cold, us"] = statistics.median(ts) * 1e6
    out["empty timed region, us"] = statistics.median(cold(tools, lambda i: None, 1, 50)) * 1e6
    out["empty kernel, us"] = statistics.median(cold(tools, lambda i: tools.null(), 1, 50)) * 1e6
    res["bandwidth"] = out
    log("\n### bandwidth (TB/s unless said)")
    for k, v in out.items():
        log(f"| {k} | {v:.3f} |")


def mode_flush(a, tools, mon, res):
    lt = Lt()
    want = ["torch tensor fast", "torch block", "deepgemm", "lt tensor fast", "lt block", "bf16"]
    log("\n### cold µs by flush style")
    log("| shape | contestant | zero 256 MB | zero, then read | read only | floor |")
    log("|---|---|---|---|---|---|")
    for shape in a.shapes:
        if shape[0] > 128:
            continue
        p = Problem(*shape)
        cs = contestants(p, lt, want)
        for c in cs:
            burst_time(c.call, p.sets, 2 * p.sets)
            c.x = {s: [] for s in ("zero", "zero+read", "read")}
        for rnd in range(20):
            for c in random.sample(cs, len(cs)):
                for s in random.sample(list(c.x), 3):
                    c.x[s] += cold(tools, c.call, p.sets, 4, s)[1:]
        for c in cs:
            v = {s: statistics.median(x) * 1e6 for s, x in c.x.items()}
            res.setdefault("flush", {}).setdefault(name(shape), {})[c.name] = v
            log(f"| {name(shape)} | {c.name} | {v['zero']:.1f} | {v['zero+read']:.1f} | {v['read']:.1f} | |")
        del p, cs
        torch.cuda.empty_cache()


def mode_solo(a, tools, mon, res):
    want = a.only or ["torch tensor fast", "torch row fast", "torch block", "deepgemm"]
    log("\n### solo, back to back")
    log("| shape | contestant | TFLOP/s first 30 ms | last second | GHz first | GHz last | W last | tensor-clock use first | last | reasons |")
    log("|---|---|---|---|---|---|---|---|---|---|")
    for shape in a.shapes:
        p = Problem(*shape)
        p.references()
        cs = contestants(p, None, want, search=False)
        p.refs = None
        for c in cs:
            capture(p, c)
        for c in cs:
            time.sleep(0.4)
            t0 = time.monotonic()
            xs = []
            while time.monotonic() - t0 < a.solo:
                xs.append((time.monotonic() - t0, slot(tools, mon, c, 0, 30e-3)))
            last = [x for t, x in xs if t > a.solo - 1.0]
            f = xs[0][1]
            tl, gl = statistics.median(x[0] for x in last), statistics.median(x[1] for x in last)
            _, w, why = mon.between(t0 + a.solo - 1.0, t0 + a.solo)
            cap = FLOP_PER_CLK_PER_SM * tools.sms * 1e9
            log(f"| {name(shape)} | {c.name} | {p.flop/f[0]/1e12:.0f} | {p.flop/tl/1e12:.0f} | {f[1]:.3f} | {gl:.3f} | {w:.0f} "
                f"| {100*p.flop/f[0]/cap/f[1]:.1f} % | {100*p.flop/tl/cap/gl:.1f} % | {why:#x} |")
            res.setdefault("solo", {}).setdefault(name(shape), {})[c.name] = {
                "tflops_first": p.flop / f[0] / 1e12, "tflops_last": p.flop / tl / 1e12, "ghz_first": f[1],
                "ghz_last": gl, "watt": w, "reasons": why, "trace": [(t, p.flop / x[0] / 1e12, x[1]) for t, x in xs]}
        save(a, res)
        for c in cs:
            c.graph = None
        del p, cs
        torch.cuda.empty_cache()


def mode_burst(a, tools, mon, res):
    want = a.only or ["torch tensor fast", "torch row fast", "torch block", "deepgemm"]
    log("\n### burst: 0.3 s idle, then 5 ms")
    log("| shape | contestant | TFLOP/s | 10-90 % | GHz | tensor-clock use |")
    log("|---|---|---|---|---|---|")
    for shape in a.shapes:
        p = Problem(*shape)
        p.references()
        cs = contestants(p, None, want, search=False)
        p.refs = None
        for c in cs:
            capture(p, c, 2.5e-3)
            c.sus = []
        for rnd in range(5):
            for c in random.sample(cs, len(cs)):
                time.sleep(0.3)
                c.sus.append(slot(tools, mon, c, 0, 5e-3))
        for c in cs:
            t = [p.flop / x[0] / 1e12 for x in c.sus]
            g = statistics.median(x[1] for x in c.sus)
            med = statistics.median(t)
            log(f"| {name(shape)} | {c.name} | {med:.0f} | {quantile(t,.1):.0f}-{quantile(t,.9):.0f} | {g:.3f} "
                f"| {100*med*1e12/(FLOP_PER_CLK_PER_SM*tools.sms*g*1e9):.1f} % |")
            res.setdefault("burst", {}).setdefault(name(shape), {})[c.name] = {"tflops": t, "ghz": g}
            c.graph = None
        del p, cs
        torch.cuda.empty_cache()


def mode_trace(a, tools, mon, res):
    """Clock and speed call by call after a second of idling."""
    want = a.only or ["torch row fast", "torch block", "deepgemm"]
    for shape in a.shapes:
        p = Problem(*shape)
        p.references()
        cs = contestants(p, None, want, search=False)
        p.refs = None
        log(f"\n### trace {name(shape)}: ms since start: TFLOP/s at GHz")
        for c in cs:
            burst_time(c.call, p.sets, p.sets)
            per = burst_time(c.call, p.sets, 4)
            n, group = 400, max(1, round(1e-3 / per))
            keep = tools.buf
            buf = torch.zeros(n + 1, tools.nblk, 3, dtype=torch.int64, device=DEV)
            ev = [torch.cuda.Event(enable_timing=True) for _ in range(n + 1)]
            time.sleep(1.0)
            tools.buf = buf
            for j in range(n):
                tools.stamp(j)
                ev[j].record()
                for i in range(group):
                    c.call((j + i) % p.sets)
            tools.stamp(n)
            ev[n].record()
            torch.cuda.synchronize()
            tools.buf = keep
            b = buf.cpu().tolist()
            rows, t = [], 0.0
            for j in range(n):
                d0, d1 = {}, {}
                for s_, c_, t_ in b[j]:
                    d0.setdefault(s_, (c_, t_))
                for s_, c_, t_ in b[j + 1]:
                    d1.setdefault(s_, (c_, t_))
                g = statistics.median((d1[x][0] - d0[x][0]) / max(1, d1[x][1] - d0[x][1]) for x in d0 if x in d1)
                dt = ev[j].elapsed_time(ev[j + 1])
                t += dt
                rows.append((t, p.flop * group / dt / 1e9, g))
            pts = [0, 1, 2, 3, 5, 8, 12, 20, 30, 45, 60, 80, 100, 130, 160, 200, 250, 300, 399]
            log(f"{c.name}: " + "; ".join(f"{rows[i][0]:.1f}: {rows[i][1]:.0f} at {rows[i][2]:.3f}" for i in pts))
            res.setdefault("trace", {}).setdefault(name(shape), {})[c.name] = rows
        del p, cs
        torch.cuda.empty_cache()


def mode_data(a, tools, mon, res):
    log("\n### value distribution, sustained alone for 0.6 s each")
    log("| shape | values | contestant | TFLOP/s | GHz | W |")
    log("|---|---|---|---|---|---|")
    for shape in a.shapes[:1]:
        for dist in ("zeros", "constant", "uniform", "normal", "outliers"):
            p = Problem(*shape, dist=dist)
            cs = [Contestant("torch tensor fast", "tensor", scaled_mm_unchecked(p, True))]
            try:
                f, _ = make_deepgemm(p)
                cs.append(Contestant("deepgemm", "block", f))
            except Exception:  # noqa: BLE001
                pass
            for c in cs:
                capture(p, c)
                t0 = time.monotonic()
                xs = []
                while time.monotonic() - t0 < 0.6:
                    xs.append(slot(tools, mon, c, 0, 40e-3))
                xs = xs[len(xs) // 2:]
                _, w, _ = mon.between(t0 + 0.3, t0 + 0.6)
                t, g = statistics.median(x[0] for x in xs), statistics.median(x[1] for x in xs)
                log(f"| {name(shape)} | {dist} | {c.name} | {p.flop/t/1e12:.0f} | {g:.3f} | {w:.0f} |")
                res.setdefault("data", {}).setdefault(dist, {})[c.name] = {"tflops": p.flop / t / 1e12, "ghz": g, "watt": w}
                c.graph = None
            del p, cs
            torch.cuda.empty_cache()


def scaled_mm_unchecked(p, fast):
    bt = [x.t() for x in p.b]

    def f(i):
        torch._scaled_mm(p.a[i], bt[i], scale_a=p.s1, scale_b=p.s2, out_dtype=torch.bfloat16, use_fast_accum=fast, out=p.d[i])
    return f


def mode_ncu(a, tools, mon, res):
    want = a.only or ["torch tensor fast", "torch row fast", "torch block", "deepgemm"]
    for shape in a.shapes:
        p = Problem(*shape)
        p.references()
        cs = contestants(p, None, want, search=False)
        for c in cs:
            burst_time(c.call, p.sets, 3 * p.sets)
            torch.cuda.synchronize()
            torch.cuda.cudart().cudaProfilerStart()
            c.call(0)
            torch.cuda.synchronize()
            torch.cuda.cudart().cudaProfilerStop()
            log(f"profiled {name(shape)} {c.name}")
        del p, cs
        torch.cuda.empty_cache()


def mode_warm(a, tools, mon, res):
    for shape in a.shapes:
        p = Problem(*shape, sets=1)
        f, _ = make_deepgemm(p)
        f(0)
        torch.cuda.synchronize()
        log("warm", name(shape), f"{p.error('block', p.d[0]):.2e}")


def mode_host(a, tools, mon, res):
    """Host time of one call: a problem so small that the device always waits."""
    p = Problem(128, 128, 512)
    lt = Lt()
    log("\n### host time per call, 128 x 128 x 512")
    log("| contestant | µs per call |")
    log("|---|---|")
    for c in contestants(p, lt, a.only):
        burst_time(c.call, p.sets, 200)
        xs = []
        for _ in range(5):
            torch.cuda.synchronize()
            t0 = time.perf_counter()
            for j in range(1000):
                c.call(j % p.sets)
            t1 = time.perf_counter()
            torch.cuda.synchronize()
            xs.append((t1 - t0) / 1000)
        log(f"| {c.name} | {statistics.median(xs)*1e6:.2f} |")
        res.setdefault("host", {})[c.name] = statistics.median(xs) * 1e6


def mode_casts(a, tools, mon, res):
    def q_tensor(x):
        s = x.abs().amax().float() / 448.0
        return (x.float() / s).clamp(-448, 448).to(E4M3), s

    def q_tensor_given(x, s):
        return (x.float() * s).clamp(-448, 448).to(E4M3)

    def q_row(x):
        s = x.abs().amax(1, keepdim=True).float() / 448.0
        return (x.float() / s).clamp(-448, 448).to(E4M3), s

    def q_1x128(x):
        v = x.view(x.shape[0], -1, 128)
        s = v.abs().amax(2, keepdim=True).float() / 448.0
        return (v.float() / s).clamp(-448, 448).to(E4M3).view(x.shape), s.squeeze(2)

    def q_1x128_t(x):
        v = x.view(x.shape[0], -1, 128)
        s = v.abs().amax(2, keepdim=True).float() / 448.0
        return (v.float() / s).clamp(-448, 448).to(E4M3).view(x.shape), s.squeeze(2).t().contiguous()

    def q_blk(x):
        v = x.view(x.shape[0] // 128, 128, x.shape[1] // 128, 128)
        s = v.abs().amax((1, 3), keepdim=True).float() / 448.0
        return (v.float() / s).clamp(-448, 448).to(E4M3).view(x.shape), s.view(v.shape[0], v.shape[2])

    def q_mx(x):
        v = x.view(x.shape[0], -1, 32)
        am = v.abs().amax(2, keepdim=True).float()
        e = ((am.view(torch.int32) >> 23) & 0xFF) - 8
        e = e.clamp(0, 254)
        inv = ((254 - e) << 23).view(torch.float32)
        return (v.float() * inv).clamp(-448, 448).to(E4M3).view(x.shape), e.squeeze(2).to(torch.uint8)

    shapes = {32: (4096, 4096), 256: (16384, 8192), 2048: (131072, 8192)}
    jobs = [("1x128", q_1x128, 3.0 + 4 / 128, (32, 256, 2048)), ("128x128", q_blk, 3.0, (32, 256, 2048)),
            ("MX 32", q_mx, 3.0 + 1 / 32, (32, 256, 2048)), ("row", q_row, 3.0, (32, 256, 2048)),
            ("tensor, current amax", q_tensor, 5.0, (32, 256, 2048)), ("tensor, scale given", q_tensor_given, 3.0, (32, 256)),
            ("1x128, scales transposed", q_1x128_t, 3.0 + 4 / 128, (32, 256))]
    log("\n### compiled casts from bf16 to e4m3; TB/s over the least bytes (current amax: input read twice)")
    log("| cast | input MB | cold µs | 10-90 % | TB/s | repeated µs | TB/s |")
    log("|---|---|---|---|---|---|---|")
    s = torch.tensor(3.0, device=DEV)
    for nm, fn, bpe, sizes in jobs:
        cf = torch.compile(fn, fullgraph=True, dynamic=False)
        for mb in sizes:
            x = torch.randn(shapes[mb], device=DEV, dtype=torch.bfloat16)
            args = (x, s) if "given" in nm else (x,)
            try:
                for _ in range(3):
                    cf(*args)
                torch.cuda.synchronize()
                ts = cold(tools, lambda i: cf(*args), 1, 30)[5:]
                med = statistics.median(ts)
                c = Contestant(nm, "cast", lambda i: cf(*args))
                capture(argparse.Namespace(sets=1), c)
                e0, e1 = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                e0.record()
                for _ in range(5):
                    c.graph.replay()
                e1.record()
                e1.synchronize()
                rep = e0.elapsed_time(e1) * 1e-3 / (5 * c.calls)
                n = bpe * x.numel() / 1e12
                log(f"| {nm} | {mb} | {med*1e6:.1f} | {quantile(ts,.1)*1e6:.1f}-{quantile(ts,.9)*1e6:.1f} | {n/med:.2f} | {rep*1e6:.1f} | {n/rep:.2f} |")
                res.setdefault("casts", {}).setdefault(nm, {})[mb] = {"us": med * 1e6, "tbs": n / med, "repeated_us": rep * 1e6}
                c.graph = None
            except Exception as ex:  # noqa: BLE001
                log(f"| {nm} | {mb} | not run: {str(ex).splitlines()[0][:80]} | | | | |")
            del x
        save(a, res)


def save(a, res):
    if a.json:
        with open(a.json, "w") as f:
            json.dump({k: v for k, v in res.items() if k != "kernels"}, f)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("mode", nargs="+")
    ap.add_argument("--shapes", default="", help="MxNxK,...; or large, small, all")
    ap.add_argument("--only", default="", help="contestant names, comma separated")
    ap.add_argument("--rounds", type=int, default=16)
    ap.add_argument("--pre", type=float, default=0.05, help="untimed lead-in of a slot, s")
    ap.add_argument("--work", type=float, default=0.05, help="timed part of a slot, s")
    ap.add_argument("--solo", type=float, default=2.0, help="seconds per contestant in solo mode")
    ap.add_argument("--names", action="store_true", help="list the kernels each contestant launched")
    ap.add_argument("--wide", action="store_true", help="search all cuBLASLt configurations, not only the heuristic's")
    ap.add_argument("--json", default="")
    ap.add_argument("--seed", type=int, default=0)
    a = ap.parse_args()
    random.seed(a.seed)
    sets = {"": LARGE + SMALL, "all": LARGE + SMALL, "large": LARGE, "small": SMALL}
    a.shapes = sets[a.shapes] if a.shapes in sets else [tuple(int(x) for x in s.split("x")) for s in a.shapes.split(",")]
    a.only = [x.strip() for x in a.only.split(",")] if a.only else None
    tools, mon = Tools(), Monitor()
    mon.start()
    p = torch.cuda.get_device_properties(0)
    res = {"device": p.name, "sms": p.multi_processor_count, "torch": torch.__version__, "cuda": torch.version.cuda,
           "nvml": mon.describe()}
    log(f"{p.name}, {p.multi_processor_count} SMs, torch {torch.__version__}, CUDA {torch.version.cuda}, {res['nvml']}")
    for m in a.mode:
        t0 = time.monotonic()
        try:
            globals()["mode_" + m](a, tools, mon, res)
        except Exception:  # noqa: BLE001  one mode's failure should not cost the others
            log(traceback.format_exc())
        save(a, res)
        log(f"[{m}: {time.monotonic()-t0:.1f} s]")
    mon.stop = True


if __name__ == "__main__":
    sys.exit(main())
