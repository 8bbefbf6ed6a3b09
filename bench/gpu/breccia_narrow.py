# SPDX-License-Identifier: Apache-2.0
"""Packed narrow weights (breccia_cuda.h, section 4) by ctypes on torch tensors, and weights of every kind with the values they stand
for, which are computed here from the formats' tables and not by breccia."""
import ctypes

import torch

import breccia_gpu as brc
from abi import *  # noqa: F403

DEV = "cuda"
E2M1_VALUES = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


class Weights:
    """Codes, scales and exact values [n, k] of one kind: mxfp4, nvfp4, int4 (scale: f16, bf16, f32; group), mxfp8, fp8 (block)."""

    def __init__(self, kind, n, k, group=128, rows=1, scale="bf16", gen=None, spread=4, integers=False, normal=False):
        self.kind, self.n, self.k, self.group = kind, n, k, group
        four = kind in ("mxfp4", "nvfp4", "int4")
        draw = lambda *shape: torch.rand(*shape, generator=gen, device=DEV)  # noqa: E731
        if four:
            pitch = -(-k // 2)
            if normal:                                       # as quantized normal data would be distributed
                c = (torch.randn(n, pitch * 2, generator=gen, device=DEV) * 2.4).clamp(-6, 6)
                if kind == "int4":
                    code = c.round().clamp(-7, 7).to(torch.int64) & 15
                else:
                    code = torch.bucketize(c.abs(), torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], device=DEV)) | (c < 0).long() << 3
            else:
                code = torch.randint(0, 16, (n, pitch * 2), generator=gen, device=DEV)
            self.codes = (code[:, ::2] | code[:, 1::2] << 4).to(torch.uint8)
            table = torch.tensor(E2M1_VALUES + [-v for v in E2M1_VALUES] if kind != "int4" else list(range(8)) + list(range(-8, 0)), dtype=torch.float64, device=DEV)
            values = table[code[:, :k]]
            fmt = INT4 if kind == "int4" else E2M1
        else:
            pitch = k
            x = torch.randint(-8, 9, (n, k), generator=gen, device=DEV).float() if integers else torch.randn(n, k, generator=gen, device=DEV)
            self.codes = x.to(torch.float8_e4m3fn)
            values = self.codes.double()
            fmt = E4M3
        t = Tensor(size=ctypes.sizeof(Tensor), format=fmt, rank=2, data=self.codes.data_ptr(), row_pitch=pitch)
        t.shape[0], t.shape[1] = n, k
        self.glob = None
        if kind in ("mxfp4", "mxfp8"):
            e = torch.full((n, -(-k // 32)), 127, device=DEV) if integers else 127 + ((draw(n, -(-k // 32)) * 2 - 1) * spread).round().long()
            self.scale = e.to(torch.uint8)
            s, cols, rows, code = torch.exp2(self.scale.double() - 127), 32, 1, E8M0
        elif kind == "nvfp4":
            f = torch.ones(n, -(-k // 16), device=DEV) if integers else torch.exp2((draw(n, -(-k // 16)) * 2 - 1) * spread)
            self.scale = f.to(torch.float8_e4m3fn)
            self.glob = torch.tensor([1.0 if integers else 0.0371], device=DEV)
            s, cols, rows, code = self.scale.double(), 16, 1, E4M3
            t.global_ = Table(self.glob.data_ptr(), F32, 0, 0.0, Block(0, 0, 0))
        else:
            cols = group
            shape = (-(-n // rows) if rows else 1, -(-k // cols) if cols else 1)
            f = torch.exp2(torch.randint(-1, 2, shape, generator=gen, device=DEV).float()) if integers else draw(*shape) * 0.02 + 0.003
            self.scale = f.to({"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[scale])
            s, code = self.scale.double(), {"f32": F32, "f16": F16, "bf16": BF16}[scale]
        t.scale = Table(self.scale.data_ptr(), code, 0, 0.0, Block(1 if rows else 0, rows, cols))
        self.tensor, self.cols, self.rows = t, cols, rows
        if rows != 1:
            s = s.repeat_interleave(rows, 0)[:n] if rows else s.expand(n, -1)
        s = s.repeat_interleave(cols, 1)[:, :k] if cols else s.expand(-1, k)
        self.values = values * s * (self.glob.double() if self.glob is not None else 1.0)


class PackedWeights:
    def __init__(self, w, activations=torch.bfloat16):
        self.w, self.struct, err = w, Packed(), brc.Error()
        brc.check(brc.lib.brc_cuda_pack_plan(ctypes.byref(w.tensor), brc.FORMATS[activations], ctypes.byref(self.struct), ctypes.byref(err)), err)
        self.memory = torch.full((self.struct.bytes,), 0xAA, dtype=torch.uint8, device=DEV)
        self.struct.data = self.memory.data_ptr()
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        brc.check(brc.lib.brc_cuda_pack(ctypes.byref(w.tensor), ctypes.byref(self.struct), stream, ctypes.byref(err)), err)


def product(a, packed, d, flags=0, bias=None, plan=None, a_scale=None):
    p = PackedProduct(ctypes.sizeof(PackedProduct), flags, brc.FORMATS[a.dtype], brc.FORMATS[d.dtype], brc.FORMATS[bias.dtype] if bias is not None else 0, 0,
                      a.shape[0], a.data_ptr(), a.stride(0), ctypes.pointer(packed.struct), d.data_ptr(), d.stride(0),
                      bias.data_ptr() if bias is not None else None, a_scale.data_ptr() if a_scale is not None else None,
                      int(a_scale is not None and a_scale.numel() > 1), 0, ctypes.pointer(plan) if plan is not None else None)
    p.keep = (a, packed, d, bias, plan, a_scale)
    return p


def run(p):
    err = brc.Error()
    brc.check(brc.lib.brc_cuda_matmul_packed(ctypes.byref(p), ctypes.c_void_p(torch.cuda.current_stream().cuda_stream), ctypes.byref(err)), err)


def planned(p, sms=0):
    plan, err = PackedPlan(), brc.Error()
    brc.check(brc.lib.brc_cuda_plan_packed(ctypes.byref(p), sms, ctypes.byref(plan), ctypes.byref(err)), err)
    return plan


def text(plan):
    return f"row {plan.kernel}: {plan.rows} rows x {plan.tokens} tokens, grid {plan.grid}, {'share' if plan.share else 'split'} {plan.cluster}, {plan.stages} stages, {plan.shared_bytes // 1024} KB, {plan.microseconds:.1f} us expected"
