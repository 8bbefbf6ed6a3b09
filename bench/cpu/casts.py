# SPDX-License-Identifier: Apache-2.0
"""Rows of casts and dequantization: GB/s of bytes read and written once, against a loop that only moves them."""
import functools

import numpy as np

from contest import Row, brc

ROWS = {}
ROW = 8192      # columns


def shape(c):
    return c.size // ROW, ROW


def breccia_cast(c, x, text, state=None, format=None):
    """(call, bytes of codes and scales): a cast into a tensor made before."""
    native, options = brc.recipe(text), brc.options(c.threads)
    t, source = brc.empty(native, shape(c)), brc.array(x, format)
    err = brc.ffi.new("brc_error *")
    null = brc.ffi.NULL

    def call():
        if brc.lib.brc_cast(source, native, options, null if state is None else state, t.c, null, err) != 0:
            raise RuntimeError(brc.ffi.string(err.text).decode())

    return call, t


def scaled_bytes(t):
    sizes = t.sizes
    return sizes.data + sizes.scale + sizes.zero


def breccia_dequantize(c, t, out, format=None):
    options, target, null = brc.options(c.threads), brc.array(out, format), brc.ffi.NULL

    def call():
        if brc.lib.brc_dequantize(t.c, options, target, null) != 0:
            raise RuntimeError("brc_dequantize failed")

    return call


# ------------------------------------------------------------------------------------------------------------- peers

@functools.cache
def torch_of(threads):
    import torch
    torch.set_num_threads(threads)
    torch._dynamo.config.cache_size_limit = 256
    return torch


def compiled(c, function):
    torch = torch_of(c.threads)
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False, fullgraph=True)


def torch_call(c, make):
    """Maker of a call; make(torch) -> (function, its arguments), compiled and run without gradients."""
    def maker():
        torch = torch_of(c.threads)
        torch.set_num_threads(c.threads)
        function, *arguments = make(torch)
        fast = compiled(c, function)

        def call():
            with torch.no_grad():
                fast(*arguments)
        return call
    return maker


def eager_call(c, make):
    def maker():
        torch = torch_of(c.threads)
        torch.set_num_threads(c.threads)
        function, *arguments = make(torch)

        def call():
            with torch.no_grad():
                function(*arguments)
        return call
    return maker


def ggml_call(c, function, from_, to, numbers, block_bytes, quantizing):
    """ggml's own row function, `numbers` a block of block_bytes, the rows shared by the threads (it has none for this)."""
    def maker():
        import ctypes

        import ggml_c
        library = ggml_c._lib
        if function == "quantize_row_q8_0":          # the processor's own, in vectors
            import glob
            import os
            library = ctypes.CDLL(glob.glob(os.path.join(ggml_c._folder, "libggml-cpu.so"))[0])
            library.ggml_cpu_init()
        native = getattr(library, function)
        native.argtypes, native.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64], None
        rows, cols = shape(c)
        packed = cols // numbers * block_bytes
        in_row, out_row = (4 * cols, packed) if quantizing else (packed, 4 * cols)

        def some(first, last):
            native(from_.ctypes.data + first * in_row, to.ctypes.data + first * out_row, (last - first) * cols)
        return c.split(some, rows)
    return maker


# ------------------------------------------------------------------------------------------------------------- casts

def cast_row(text, bar, peer_bar, recorded, reads=1, dtype="f32", state=False, makers=lambda c, x: {}):
    def make(c):
        x = c.array(shape(c), np.float32)
        if dtype == "bf16":
            wide, x = x, c.array(shape(c), brc.DTYPES["bf16"], fill=False)     # as the others: from a page's start
            x[:] = wide
        given = brc.delayed_state() if state else None
        call, t = breccia_cast(c, x, text, given)
        out = scaled_bytes(t)
        return Row(amount=x.nbytes + out, unit="GB/s", ours=call, limits=c.skeleton(x, out, reads), bar=bar,
                   peers=c.peers(**makers(c, x)), peer_bar=peer_bar, recorded=recorded)
    return make


def view(torch, x):
    return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) if x.dtype != np.float32 else torch.from_numpy(x)


def fp8_amax(c, x):
    def make(torch):
        def function(x, q, s):
            scale = x.abs().amax() / 448.0
            s.copy_(scale)
            q.copy_((x * (1.0 / scale)).clamp(-448.0, 448.0).to(torch.float8_e4m3fn))
        return function, view(torch, x), torch.zeros(x.shape, dtype=torch.float8_e4m3fn), torch.zeros(())
    return {"torch.compile": torch_call(c, make), "torch eager": eager_call(c, make)}


def fp8_given(c, x):
    def copy(torch):
        return lambda x, q: q.copy_(x), view(torch, x), torch.zeros(x.shape, dtype=torch.float8_e4m3fn)

    def scaled(torch):
        def function(x, q, s):
            q.copy_((x * s).clamp(-448.0, 448.0).to(torch.float8_e4m3fn))
        return function, view(torch, x), torch.zeros(x.shape, dtype=torch.float8_e4m3fn), torch.ones(())

    def dtypes():
        e4m3 = brc.ml_dtypes.float8_e4m3fn
        out = np.zeros(x.shape, e4m3)
        return c.split(lambda first, last: np.copyto(out[first:last], x[first:last], casting="unsafe"), x.shape[0])
    return {"torch copy_ (no scale)": eager_call(c, copy), "torch.compile": torch_call(c, scaled), "ml_dtypes": dtypes}


def blocks128(c, x):
    def make(torch):
        def function(x, q, s):
            m, n = x.shape
            b = x.view(m // 128, 128, n // 128, 128).float()
            scale = b.abs().amax((1, 3), keepdim=True) / 448.0
            s.copy_(scale.view(m // 128, n // 128))
            q.copy_((b / scale).clamp(-448.0, 448.0).to(torch.float8_e4m3fn).view(m, n))
        m, n = x.shape
        return function, view(torch, x), torch.zeros((m, n), dtype=torch.float8_e4m3fn), torch.zeros(m // 128, n // 128)
    return {"torch.compile": torch_call(c, make)}


def mx(c, x):
    def own(torch):
        from torchao.prototype.mx_formats.config import ScaleCalculationMode
        from torchao.prototype.mx_formats.mx_tensor import to_mx

        def function(x, q, s):
            scale, codes = to_mx(x, torch.float8_e4m3fn, 32, ScaleCalculationMode.RCEIL)
            s.copy_(scale.view(torch.uint8))
            q.copy_(codes.view(torch.uint8))
        return function, view(torch, x), torch.zeros(x.shape, dtype=torch.uint8), torch.zeros(x.shape[0], x.shape[1] // 32, dtype=torch.uint8)
    return {"torchao to_mx, compiled": torch_call(c, own)}


def ggml_quantize(function, numbers, block_bytes):
    def makers(c, x):
        return {"ggml " + function: ggml_call(c, function, x, c.array(x.size // numbers * block_bytes), numbers, block_bytes, True)}
    return makers


def ggml_chunks(word):
    """What ggml does to a file's tensors (its row function of IQ4_NL tries one scale of the 16)."""
    def makers(c, x):
        def maker():
            import ggml_c
            numbers, size = ggml_c.SIZES[word]
            rows, cols = x.shape
            out = c.array(x.size // numbers * size)

            def some(first, last):
                ggml_c._lib.ggml_quantize_chunk(ggml_c.NUMBERS[word], x.ctypes.data, out.ctypes.data, first * cols, last - first, cols, None)
            return c.split(some, rows)
        return {"ggml_quantize_chunk": maker}
    return makers


def nvfp4_torchao(c, x):
    def make(torch):
        from torchao.prototype.mx_formats.nvfp4_tensor import nvfp4_quantize, per_tensor_amax_to_scale

        def function(x, q, s):
            scale, codes = nvfp4_quantize(x, 16, per_tensor_amax_to_scale(x.abs().amax()))
            s.copy_(scale.view(torch.uint8).view(s.shape))
            q.copy_(codes.view(torch.uint8).view(q.shape))
        m, n = x.shape
        return function, view(torch, x), torch.zeros(m, n // 2, dtype=torch.uint8), torch.zeros(m, n // 16, dtype=torch.uint8)
    return {"torchao nvfp4_quantize, compiled": torch_call(c, make)}


def int4_torch(c, x):
    def make(torch):
        def function(x, q, s):
            m, n = x.shape
            b = x.view(m, n // 128, 128)
            scale = (b.abs().amax(-1, keepdim=True) / 7.5).to(torch.float16)
            s.copy_(scale.view(m, n // 128))
            codes = torch.round((b / scale.float()).clamp(-8.0, 7.0)).to(torch.int8).view(m, n // 2, 2)
            q.copy_((codes[..., 0] & 15) | (codes[..., 1] << 4))
        m, n = x.shape
        return function, view(torch, x), torch.zeros(m, n // 2, dtype=torch.int8), torch.zeros(m, n // 128, dtype=torch.float16)
    return {"torch.compile": torch_call(c, make)}


def nf4_bitsandbytes(c, x):
    def make():
        import bitsandbytes
        torch = torch_of(c.threads)
        some = view(torch, x)
        return lambda: bitsandbytes.functional.quantize_4bit(some, blocksize=64, quant_type="nf4")
    return {"bitsandbytes quantize_4bit": make}


ROWS["F32 -> E4M3 per tensor with amax"] = cast_row("fp8", 0.88, 2.0, "torch.compile 2.7 / 4.8", 2, makers=fp8_amax)
ROWS["F32 -> E4M3, scale given"] = cast_row("fp8-delayed", 0.90, 2.0, "torch copy_ 5.1 / 6.3", state=True, makers=fp8_given)
ROWS["BF16 -> E4M3 128x128"] = cast_row("fp8-block128", 0.80, 6, "torch.compile 1.4 / 2.1", dtype="bf16", makers=blocks128)
ROWS["F32 -> MXFP8"] = cast_row("mxfp8", 0.85, 3.5, "torch.compile 2.7 / 3.6", makers=mx)
ROWS["F32 -> MXFP4"] = cast_row("mxfp4", 0.75, 15, "ggml .53 (1t)", makers=ggml_quantize("quantize_row_mxfp4_ref", 32, 17))
ROWS["F32 -> NVFP4 one level"] = cast_row("nvfp4:levels=1", 0.70, 27, "ggml .28 (1t)", makers=ggml_quantize("quantize_row_nvfp4_ref", 64, 36))
ROWS["F32 -> NVFP4 two levels"] = cast_row("nvfp4", 0.75, 17, "torchao, compiled, .25 (1t)", 2, makers=nvfp4_torchao)
ROWS["F32 -> INT4 g128"] = cast_row("int4", 0.80, 11, "torch.compile .77 (1t)", makers=int4_torch)
ROWS["F32 -> Q4_0"] = cast_row("q4_0", 0.75, 3.9, "ggml 2.1 (1t)", makers=ggml_quantize("quantize_row_q4_0_ref", 32, 18))
ROWS["F32 -> Q4_1"] = cast_row("q4_1", None, None, "", makers=ggml_quantize("quantize_row_q4_1_ref", 32, 20))
ROWS["F32 -> MLX 4 bits g64"] = cast_row("int4:format=uint4,group=64,rule=minmax,arith=mlx", None, None, "")
ROWS["F32 -> MXFP4 of ggml"] = cast_row("mxfp4:rule=floor,arith=ggml", None, None, "", makers=ggml_quantize("quantize_row_mxfp4_ref", 32, 17))
ROWS["F32 -> NVFP4 of ggml"] = cast_row("nvfp4:levels=1,arith=ggml", None, None, "", makers=ggml_quantize("quantize_row_nvfp4_ref", 64, 36))
ROWS["F32 -> IQ4_NL"] = cast_row("iq4_nl", None, None, "", makers=ggml_chunks("IQ4_NL"))
ROWS["F32 -> NF4 g64"] = cast_row("custom:format=nf4,block=1x64,scale=f32", None, None, "", makers=nf4_bitsandbytes)
ROWS["F32 -> Q8_0"] = cast_row("q8_0", 0.90, 1.45, "ggml 6.9 (1t)", makers=ggml_quantize("quantize_row_q8_0", 32, 34))


# -------------------------------------------------------------------------------------------------------- dequantize

def dequantize_row(text, bar, peer_bar, recorded, dtype="f32", makers=lambda c, t, out: {}):
    def make(c):
        x = c.array(shape(c), np.float32)
        call, t = breccia_cast(c, x, text)
        call()
        out = x if dtype == "f32" else c.array(shape(c), brc.DTYPES[dtype])
        codes = c.array(scaled_bytes(t))
        return Row(amount=codes.nbytes + out.nbytes, unit="GB/s", ours=breccia_dequantize(c, t, out), limits=c.skeleton(codes, out.nbytes),
                   bar=bar, peers=c.peers(**makers(c, t, out)), peer_bar=peer_bar, recorded=recorded)
    return make


def codes_of(torch, t):
    return torch.from_numpy(np.array(t.data).view(np.uint8))


def fp8_back(c, t, out):
    def make(torch):
        def function(q, s, out):
            out.copy_(q.float() * s)
        return function, codes_of(torch, t).view(torch.float8_e4m3fn), torch.full((), 0.01), torch.from_numpy(out)

    def copy(torch):
        return lambda q, out: out.copy_(q), codes_of(torch, t).view(torch.float8_e4m3fn), torch.from_numpy(out)

    def dtypes():
        q = np.array(t.data).view(np.uint8).view(brc.ml_dtypes.float8_e4m3fn)
        return c.split(lambda first, last: np.copyto(out[first:last], q[first:last]), out.shape[0])
    return {"torch.compile": torch_call(c, make), "torch copy_ (no scale)": eager_call(c, copy), "ml_dtypes": dtypes}


def blocks128_back(c, t, out):
    def make(torch):
        def function(q, s, out):
            m, n = q.shape
            out.copy_((q.view(m // 128, 128, n // 128, 128).float() * s.view(m // 128, 1, n // 128, 1)).bfloat16().view(m, n))
        return (function, codes_of(torch, t).view(torch.float8_e4m3fn), torch.from_numpy(np.array(t.scale)).view(t.shape[0] // 128, -1),
                torch.from_numpy(out.view(np.int16)).view(torch.bfloat16))
    return {"torch.compile": torch_call(c, make)}


def int4_back(c, t, out):
    def make(torch):
        def function(q, s, out):
            m, n = out.shape
            both = torch.stack(((q << 4) >> 4, q >> 4), -1).view(m, n // 128, 128)
            out.copy_((both.float() * s.view(m, n // 128, 1).float()).view(m, n))
        return function, codes_of(torch, t).view(torch.int8), torch.from_numpy(np.array(t.scale)), torch.from_numpy(out)
    return {"torch.compile": torch_call(c, make)}


def ggml_dequantize(function, numbers, block_bytes):
    def makers(c, t, out):
        def maker():
            import ggml_c
            word = function.removeprefix("dequantize_row_").upper()
            some = ggml_c.quantize(np.random.default_rng(0).standard_normal((1, 1 << 16), dtype=np.float32), word)
            raw = c.array(out.size // numbers * block_bytes)
            raw.reshape(-1, some.size)[:] = some
            return ggml_call(c, function, raw, out, numbers, block_bytes, False)()
        return {"ggml " + function: maker}
    return makers


ROWS["E4M3 -> F32"] = dequantize_row("fp8", 0.88, 4.5, "torch.compile 1.9 / 2.3", makers=fp8_back)
ROWS["128x128 -> BF16"] = dequantize_row("fp8-block128", 0.85, 4, "torch.compile 2.0 / 2.2", "bf16", blocks128_back)
ROWS["Q4_0 -> F32"] = dequantize_row("q4_0", 0.88, 1.7, "ggml 4.1 (1t)", makers=ggml_dequantize("dequantize_row_q4_0", 32, 18))
ROWS["MXFP4 -> F32"] = dequantize_row("mxfp4", 0.88, 1.7, "ggml 3.0 (1t)", makers=ggml_dequantize("dequantize_row_mxfp4", 32, 17))
ROWS["NVFP4 -> F32"] = dequantize_row("nvfp4", 0.88, 1.7, "ggml 2.5 (1t)", makers=ggml_dequantize("dequantize_row_nvfp4", 64, 36))
ROWS["INT4 g128 -> F32"] = dequantize_row("int4", 0.88, 1.7, "torch .94 (1t)", makers=int4_back)
ROWS["Q8_0 -> F32"] = dequantize_row("q8_0", 0.90, 1.0, "ggml 8.5 / 16.0", makers=ggml_dequantize("dequantize_row_q8_0", 32, 34))
