# SPDX-License-Identifier: Apache-2.0
"""Casts and dequantization by ctypes: torch CUDA tensors through breccia_cuda.h, NumPy arrays through breccia.h (the CPU
library, named by BRECCIA_CPU), planned alike, so that one can be compared with the other bit for bit."""
import ctypes
import os

import numpy as np
import torch

import breccia_gpu as brc
from abi import Array, Delayed, Options, Recipe, Sizes, Tensor

NUMPY = {brc.F32: np.float32, brc.F16: np.float16, brc.BF16: np.uint16}
TORCH = {brc.F32: torch.float32, brc.F16: torch.float16, brc.BF16: torch.bfloat16}


cpu = ctypes.CDLL(os.environ["BRECCIA_CPU"])


def recipe(text):
    r, err = Recipe(), brc.Error()
    brc.check(cpu.brc_recipe_parse(text.encode(), ctypes.byref(r), ctypes.byref(err)), err)
    return r


def plan(r, shape):
    t, sizes, err = Tensor(), Sizes(), brc.Error()
    dims = (ctypes.c_int64 * len(shape))(*shape)
    brc.check(cpu.brc_tensor_plan(ctypes.byref(r), len(shape), dims, ctypes.byref(t), ctypes.byref(sizes), ctypes.byref(err)), err)
    return t, sizes


def array(fmt, shape, data, pitch=0):
    a = Array(ctypes.sizeof(Array), fmt, len(shape))
    step = 1
    for i in reversed(range(len(shape))):
        a.shape[i], a.stride[i] = shape[i], step
        step *= shape[i] if i or not pitch else 1
        if i == len(shape) - 1 and pitch:
            step = pitch
    a.data = data
    return a


class Planned:
    """A tensor of a recipe with buffers of its own."""

    def __init__(self, r, shape, device):
        self.tensor, self.sizes = plan(r, shape)
        self.data = torch.full((max(1, self.sizes.data),), 0xAA, dtype=torch.uint8, device=device)
        self.scale = torch.full((max(1, self.sizes.scale),), 0xAA, dtype=torch.uint8, device=device)
        self.glob = torch.zeros(max(1, self.sizes.global_), dtype=torch.uint8, device=device)
        t = self.tensor
        t.data, t.scale.data = self.data.data_ptr(), self.scale.data_ptr()
        t.global_.data = self.glob.data_ptr() if self.sizes.global_ else None


class Cast(Planned):
    """One cast on the GPU, `run` queues it; with the transpose's, `turned`, where `both`."""

    def __init__(self, x, r, delayed=None, by_column=False, find=True, both=False):
        super().__init__(r, x.shape, x.device)
        self.x, self.r = x, r
        self.turned = Planned(r, x.shape[::-1], x.device) if both else None
        self.src = array(brc.FORMATS[x.dtype], x.shape, x.data_ptr(), x.stride(-2) if x.dim() > 1 else 0)
        self.scratch = torch.zeros(4, dtype=torch.int32, device=x.device)
        self.amax = torch.zeros(1, device=x.device)
        self.delayed = delayed
        self.options = Options(ctypes.sizeof(Options), int(by_column), 0, delayed.data_ptr() if delayed is not None else None,
                               self.amax.data_ptr() if delayed is not None else None, self.scratch.data_ptr() if find else None,
                               ctypes.pointer(self.turned.tensor) if both else None)

    def run(self):
        err = brc.Error()
        brc.check(brc.lib.brc_cuda_cast(ctypes.byref(self.src), ctypes.byref(self.r), ctypes.byref(self.options), ctypes.byref(self.tensor),
                                        ctypes.c_void_p(torch.cuda.current_stream().cuda_stream), ctypes.byref(err)), err)

    def dequantize(self, out):
        err = brc.Error()
        dst = array(brc.FORMATS[out.dtype], out.shape, out.data_ptr())
        brc.check(brc.lib.brc_cuda_dequantize(ctypes.byref(self.tensor), ctypes.byref(dst),
                                              ctypes.c_void_p(torch.cuda.current_stream().cuda_stream), ctypes.byref(err)), err)


class Requantize(Planned):
    """A cast's result under another recipe."""

    def __init__(self, cast, r):
        super().__init__(r, cast.x.shape, cast.x.device)
        self.cast, self.r = cast, r
        self.scratch = torch.zeros(4, dtype=torch.int32, device=cast.x.device)
        self.options = Options(ctypes.sizeof(Options), scratch=self.scratch.data_ptr())

    def run(self):
        err = brc.Error()
        brc.check(brc.lib.brc_cuda_requantize(ctypes.byref(self.cast.tensor), ctypes.byref(self.r), ctypes.byref(self.options), ctypes.byref(self.tensor),
                                              ctypes.c_void_p(torch.cuda.current_stream().cuda_stream), ctypes.byref(err)), err)


def cast_cpu(x, r, delayed=None):
    """The same on the CPU: (data, scale, global, amax) as bytes, and the tensor to dequantize."""
    t, sizes = plan(r, x.shape)
    fmt = brc.FORMATS[x.dtype]
    host = x.cpu().contiguous()
    host = host.view(torch.int16).numpy() if fmt != brc.F32 else host.numpy()
    data, scale, glob = (np.zeros(max(1, n), np.uint8) for n in (sizes.data, sizes.scale, sizes.global_))
    t.data, t.scale.data = data.ctypes.data, scale.ctypes.data
    t.global_.data = glob.ctypes.data if sizes.global_ else None
    src, err, state = array(fmt, x.shape, host.ctypes.data), brc.Error(), None
    if delayed is not None:
        history = np.zeros(max(1, r.history_length), np.float32)
        state = Delayed(ctypes.sizeof(Delayed), delayed, 0, 0, history.ctypes.data, r.history_length)
    brc.check(cpu.brc_cast(ctypes.byref(src), ctypes.byref(r), None, ctypes.byref(state) if state else None, ctypes.byref(t), None, ctypes.byref(err)), err)
    return data, scale, glob, (state.amax if state else 0.0), t


def dequantize_cpu(t, shape, fmt):
    out, err = np.zeros(shape, NUMPY[fmt]), brc.Error()
    dst = array(fmt, shape, out.ctypes.data)
    brc.check(cpu.brc_dequantize(ctypes.byref(t), None, ctypes.byref(dst), ctypes.byref(err)), err)
    return out
