# SPDX-License-Identifier: Apache-2.0
"""breccia_cuda.h for the measurements, by ctypes: products and casts on torch's tensors and current stream.

BRECCIA_CUDA names the library (src/cuda/build.sh writes libbreccia_cuda.so). `contestants` is what the referee calls:
GEMM_CONTESTANT=breccia_gpu:contestants."""
import ctypes
import os

import torch

from abi import *  # noqa: F403
import abi

FORMATS = {torch.float32: F32, torch.float16: F16, torch.bfloat16: BF16, torch.float8_e4m3fn: E4M3, torch.float8_e5m2: E5M2}


class Plan(abi.Plan):
    def __str__(self):
        text = ctypes.create_string_buffer(200)
        lib.brc_cuda_plan_text(ctypes.byref(self), text, 200)
        return text.value.decode()


DEVICE = os.environ.get("BRECCIA_DEVICE", "cuda")          # cpu: the emulated kernels of tests/cuda, a device of six multiprocessors
lib = ctypes.CDLL(os.environ.get("BRECCIA_CUDA", "libbreccia_cuda.so"))
lib.brc_cuda_plan_text.restype = ctypes.c_size_t


def check(status, err):
    if status:
        raise RuntimeError(f"breccia status {status}: {err.text.decode()}")


def prepare():
    err = Error()
    torch.zeros(1, device=DEVICE)
    check(lib.brc_cuda_prepare(ctypes.byref(err)), err)


def product(a, b, d, a_scale, b_scale, scaling, flags=0, bias=None, plan=None, a_scale_pitch=0, b_scale_pitch=0):
    """Describes d = a @ b.T; keeps the tensors alive with it."""
    p = Product(ctypes.sizeof(Product), flags, FORMATS[a.dtype], FORMATS[b.dtype], FORMATS[d.dtype],
                FORMATS[bias.dtype] if bias is not None else 0, scaling, a.shape[0], b.shape[0], a.shape[1],
                a.data_ptr(), b.data_ptr(), a.stride(0), b.stride(0), d.data_ptr(), d.stride(0),
                a_scale.data_ptr(), b_scale.data_ptr(), a_scale_pitch, b_scale_pitch, bias.data_ptr() if bias is not None else None,
                ctypes.cast(ctypes.pointer(plan), ctypes.POINTER(abi.Plan)) if plan is not None else None)
    p.keep = (a, b, d, a_scale, b_scale, bias, plan)
    return p


def run(p):
    err = Error()
    stream = torch.cuda.current_stream().cuda_stream if DEVICE == "cuda" else None
    check(lib.brc_cuda_matmul(ctypes.byref(p), ctypes.c_void_p(stream), ctypes.byref(err)), err)


_turn, _share = [0], [int(v) for v in os.environ.get("SHARE", "0/1").split("/")]


def mine():
    """Whether the next check is this process's: every n-th of a set that n processes do together (SHARE=i/n)."""
    _turn[0] += 1
    return _turn[0] % _share[1] == _share[0]


def wait():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def planned(p, row=None, sms=0 if DEVICE == "cuda" else 6):
    """The planner's plan, or the plan for one row of the kernel table (None if it does not fit, IndexError past the end)."""
    plan, err = Plan(), Error()
    if row is None:
        check(lib.brc_cuda_plan_product(ctypes.byref(p), sms, ctypes.byref(plan), ctypes.byref(err)), err)
        return plan
    status = lib.brc_cuda_plan_row(ctypes.byref(p), sms, row, ctypes.byref(plan), ctypes.byref(err))
    if status == 13:
        raise IndexError(row)
    return plan if status == 0 else None


def rows_of_table():
    row = 0
    p = Product(ctypes.sizeof(Product), a_format=E4M3, b_format=E4M3)
    while lib.brc_cuda_plan_row(ctypes.byref(p), 0, row, ctypes.byref(Plan()), ctypes.byref(err := Error())) != 13:
        row += 1
    return row


def of_problem(p, i, kind, flags=0, plan=None):
    """Set i of a referee's problem; kind: tensor, row, block."""
    if kind == "tensor":
        return product(p.a[i], p.b[i], p.d[i], p.s1, p.s2, TENSOR, flags, plan=plan)
    if kind == "row":
        return product(p.a[i], p.b[i], p.d[i], p.ra, p.rb, ROW, flags, plan=plan)
    s = p.sa_t_pad[i] if p.m % 4 else p.sa_t[i]            # scales of A, K-block-major, pitch a multiple of 4
    return product(p.a[i], p.b[i], p.d[i], s, p.sb[i], BLOCK, flags, plan=plan, a_scale_pitch=s.stride(0))


def calls(p, kind, flags=0, plan=None):
    ps = [of_problem(p, i, kind, flags, plan) for i in range(p.sets)]
    return lambda i: run(ps[i])


def contestants(p):
    prepare()
    out = []
    early = B_UNCHANGED if p.m <= 128 else 0
    for name, kind, flags in (("breccia tensor fast", "tensor", FAST), ("breccia tensor", "tensor", 0), ("breccia row fast", "row", FAST),
                              ("breccia row", "row", 0), ("breccia block", "block", 0)):
        print(f"  {name}: {planned(of_problem(p, 0, kind, flags | early))}", flush=True)
        out.append((name, kind, calls(p, kind, flags | early)))
    return out
