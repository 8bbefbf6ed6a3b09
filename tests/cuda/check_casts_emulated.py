#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The cast kernels, run on this processor by a driver that can (emulated/), against the CPU library: codes, scales, second levels and
the way back, bit for bit: of BF16 every input, of F16 and F32 every pattern and normal data, or all.
LD_LIBRARY_PATH=FOLDER_OF_THE_DRIVER check_casts_emulated.py LIBBRECCIA_CUDA LIBBRECCIA [all]"""
import ctypes
import itertools
import os
import re
import sys

import numpy as np

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "..", "bench", "gpu"))
import abi  # noqa: E402

cpu, emulated = ctypes.CDLL(sys.argv[2], ctypes.RTLD_GLOBAL), ctypes.CDLL(sys.argv[1])
_lists = open(os.path.join(here, "check_casts.py")).read()
RECIPES, BOTH, CODED, REQUANTIZED = (eval(re.search(rf"^{name} = (\[.*?\])$", _lists, re.M | re.S).group(1)) for name in ("RECIPES", "BOTH", "CODED", "REQUANTIZED"))
ref = ctypes.byref
libc = ctypes.CDLL(None)
libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_size_t]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def check(status, err):
    if status:
        raise RuntimeError(f"status {status}: {err.text.decode()}")


def words(fmt, x):
    """Floats as stored: F32, or sixteen-bit patterns."""
    x = np.asarray(x, np.float32)
    if fmt == abi.F32:
        return x
    with np.errstate(all="ignore"):
        if fmt == abi.F16:
            return x.astype(np.float16).view(np.uint16)
    u = x.view(np.uint32).astype(np.uint64)
    r = ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)
    r[np.isnan(x)] = 0x7FC0
    return r


def aligned(n):
    """n bytes on a multiple of 64, which end less than 64 bytes before a page that may not be touched. Not given back."""
    size = -(-n // 64) * 64
    room = -(-size // 4096) * 4096
    base = libc.mmap(None, room + 8192, 3, 0x22, -1, 0)
    libc.mprotect(base, 4096, 0)
    libc.mprotect(base + 4096 + room, 4096, 0)
    first = base + 4096 + room - size
    return np.ctypeslib.as_array((ctypes.c_uint8 * n).from_address(first))


def inputs(fmt, rng):
    if fmt == abi.F32:
        yield "random bits", rng.integers(0, 2**32, (64, 512), dtype=np.uint32).view(np.float32)
    else:
        yield "every pattern", np.arange(65536, dtype=np.uint16).reshape(128, 512)
    with np.errstate(all="ignore"):
        x = rng.standard_normal((256, 256)).astype(np.float32)
        yield "normal", words(fmt, x)
        yield "magnitudes", words(fmt, x * np.exp2(np.linspace(-140, 120, 256, dtype=np.float32))[:, None])
        y = x.copy()
        y[:128, :128] = 0
        y[130, 7], y[131, 8], y[132] = np.inf, np.nan, np.nan
        y[133, :32] = -0.0
        y[200:] = 2.0**-133
        yield "zeros, inf, nan, subnormals", words(fmt, y)
    yield "ties", words(fmt, rng.integers(-4096, 4096, (64, 512)) / 16)
    for shape in ((1, 1), (3, 17), (129, 130), (20, 1000), (3, 4104), (1, 33), (2, 128, 256), (2, 20000)):
        yield "x".join(map(str, shape)), words(fmt, rng.standard_normal(shape))
    yield "a pitch", words(fmt, rng.standard_normal((64, 700)))[:, :650]


def array(fmt, shape, data, pitch=0):
    a = abi.Array(ctypes.sizeof(abi.Array), fmt, len(shape))
    step = 1
    for i in reversed(range(len(shape))):
        a.shape[i], a.stride[i] = shape[i], step
        step = pitch if pitch and i == len(shape) - 1 else step * shape[i]
    a.data = data
    return a


def copied(x):
    """Memory of the same numbers in the same places, and the pitch of its rows (0 = none)."""
    pitch = 0 if x.flags.c_contiguous else x.strides[-2] // x.itemsize
    source = aligned(((x.shape[0] - 1) * pitch + x.shape[-1]) * x.itemsize if pitch else x.nbytes)
    np.lib.stride_tricks.as_strided(source.view(x.dtype), x.shape, x.strides)[...] = x
    return source, pitch


def counts(sizes):
    return {"codes": sizes.data, "scales": sizes.scale, "second level": sizes.global_}


def own_buffers(tensor, sizes, fill):
    parts = {k: aligned(max(4, v)) for k, v in counts(sizes).items()}
    for b in parts.values():
        b[:] = fill
    tensor.data, tensor.scale.data = parts["codes"].ctypes.data, parts["scales"].ctypes.data
    tensor.global_.data = parts["second level"].ctypes.data if sizes.global_ else None
    return parts


def delayed(r, text):
    """State of delayed scaling; None for other recipes."""
    if not text.startswith("fp8-delayed"):
        return None
    history = np.zeros(max(1, r.history_length), np.float32)
    state = abi.Delayed(ctypes.sizeof(abi.Delayed), 3.7, 0, 0, history.ctypes.data, r.history_length)
    state.kept = history
    return state


def compare_both(fmt, x, text):
    """What differs of a cast of a matrix and its transpose in one call; None where the recipe does not fit or has no such kernel."""
    if text not in BOTH or x.ndim != 2:
        return None
    err, r, made = abi.Error(), abi.Recipe(), []
    check(cpu.brc_recipe_parse(text.encode(), ref(r), ref(err)), err)
    r.partial = 1
    source, pitch = copied(x)
    for y in (np.ascontiguousarray(x), np.ascontiguousarray(x.T)):
        expected, got, sizes = abi.Tensor(), abi.Tensor(), abi.Sizes()
        shape = (ctypes.c_int64 * 2)(*y.shape)
        for t in (expected, got):
            if cpu.brc_tensor_plan(ref(r), 2, shape, ref(t), ref(sizes), ref(err)):
                return None
        want, have = own_buffers(expected, sizes, 0), own_buffers(got, sizes, 0xAA)
        state = delayed(r, text)
        src = array(fmt, y.shape, y.ctypes.data)
        check(cpu.brc_cast(ref(src), ref(r), None, ref(state) if state else None, ref(expected), None, ref(err)), err)
        made.append((got, want, have, sizes))
    src, k, amax, scratch = array(fmt, x.shape, source.ctypes.data, pitch), np.array([3.7], np.float32), np.zeros(1, np.float32), np.zeros(4, np.uint32)
    options = abi.Options(ctypes.sizeof(abi.Options), 0, 0, k.ctypes.data if state else None, amax.ctypes.data, scratch.ctypes.data, ctypes.pointer(made[1][0]))
    check(emulated.brc_cuda_cast(ref(src), ref(r), ref(options), ref(made[0][0]), None, ref(err)), err)
    bad = [f"{int((have[w][:v] != want[w][:v]).sum())} of {v} bytes of the {which} {w}, first {int(np.argmax(have[w][:v] != want[w][:v]))}"
           for (_, want, have, sizes), which in zip(made, ("plain", "transposed")) for w, v in counts(sizes).items() if not np.array_equal(have[w][:v], want[w][:v])]
    if scratch.any():
        bad.append("scratch not left as found")
    if state and amax[0] != np.float32(state.amax):
        bad.append(f"amax {amax[0]} for {state.amax}")
    return bad


def compare(fmt, x, text):
    """What differs; None where the recipe does not fit."""
    err, r, t, sizes = abi.Error(), abi.Recipe(), abi.Tensor(), abi.Sizes()
    check(cpu.brc_recipe_parse(text.encode(), ref(r), ref(err)), err)
    r.partial = 1
    shape = (ctypes.c_int64 * x.ndim)(*x.shape)
    if cpu.brc_tensor_plan(ref(r), x.ndim, shape, ref(t), ref(sizes), ref(err)):
        return None
    source, pitch = copied(x)
    src = array(fmt, x.shape, source.ctypes.data, pitch)
    state = delayed(r, text)
    other = abi.Tensor.from_buffer_copy(t)

    def buffers(tensor, fill):
        return own_buffers(tensor, sizes, fill)
    expected, got = buffers(t, 0), buffers(other, 0xAA)
    check(cpu.brc_cast(ref(src), ref(r), None, ref(state) if state else None, ref(t), None, ref(err)), err)
    k, amax, scratch = np.array([3.7], np.float32), np.zeros(1, np.float32), np.zeros(4, np.uint32)
    options = abi.Options(ctypes.sizeof(abi.Options), 0, 0, k.ctypes.data if state else None, amax.ctypes.data if state else None, scratch.ctypes.data)
    check(emulated.brc_cuda_cast(ref(src), ref(r), ref(options), ref(other), None, ref(err)), err)
    bad = [f"{int((got[w][:v] != expected[w][:v]).sum())} of {v} bytes of the {w}, first {int(np.argmax(got[w][:v] != expected[w][:v]))}"
           for w, v in counts(sizes).items() if not np.array_equal(got[w][:v], expected[w][:v])]
    if scratch.any():
        bad.append("scratch not left as found")
    if state and amax[0] != np.float32(state.amax):
        bad.append(f"amax {amax[0]} for {state.amax}")
    for out in (abi.F32, abi.F16, abi.BF16):
        a, b = (aligned(x.size * (4 if out == abi.F32 else 2)) for _ in range(2))
        da, db = array(out, x.shape, a.ctypes.data), array(out, x.shape, b.ctypes.data)
        check(cpu.brc_dequantize(ref(t), None, ref(da), ref(err)), err)
        check(emulated.brc_cuda_dequantize(ref(t), ref(db), None, ref(err)), err)
        if not np.array_equal(a, b):
            bad.append(f"dequantize to {out}: {int((a != b).sum())} bytes")
    return bad


def planned(text, shape, fill):
    """(recipe, tensor with memory of its own, the memory, its sizes)"""
    err, r, t, sizes = abi.Error(), abi.Recipe(), abi.Tensor(), abi.Sizes()
    check(cpu.brc_recipe_parse(text.encode(), ref(r), ref(err)), err)
    r.partial = 1
    if cpu.brc_tensor_plan(ref(r), len(shape), (ctypes.c_int64 * len(shape))(*shape), ref(t), ref(sizes), ref(err)):
        return None
    return r, t, own_buffers(t, sizes, fill), sizes


def compare_requantize(x, source, text):
    """What differs between a requantization and dequantize to float32 and cast on the CPU; None where a recipe does not fit."""
    err, values, path = abi.Error(), aligned(4 * x.size), ctypes.c_int()
    made = [planned(source, x.shape, 0), planned(text, x.shape, 0), planned(text, x.shape, 0xAA), planned(text, x.shape, 0)]
    if None in made:
        return None
    (rs, src, parts, _), (r, expected, want, sizes), (_, got, have, _), (_, direct, same, _) = made
    check(cpu.brc_cast(ref(array(abi.F32, x.shape, x.ctypes.data)), ref(rs), None, None, ref(src), None, ref(err)), err)
    parts["codes"][:x.shape[-1] // 4] = 0xFF                 # NaN where the format has it, else what no cast gives
    view, scratch = array(abi.F32, x.shape, values.ctypes.data), np.zeros(4, np.uint32)
    check(cpu.brc_dequantize(ref(src), None, ref(view), ref(err)), err)
    check(cpu.brc_cast(ref(view), ref(r), None, None, ref(expected), None, ref(err)), err)
    check(cpu.brc_requantize(ref(src), ref(r), None, ref(direct), ref(path), ref(err)), err)
    options = abi.Options(ctypes.sizeof(abi.Options), 0, 0, None, None, scratch.ctypes.data)
    check(emulated.brc_cuda_requantize(ref(src), ref(r), ref(options), ref(got), None, ref(err)), err)
    bad = [f"{int((have[w][:v] != want[w][:v]).sum())} of {v} bytes of the {w}, first {int(np.argmax(have[w][:v] != want[w][:v]))}"
           for w, v in counts(sizes).items() if not np.array_equal(have[w][:v], want[w][:v])]
    if path.value == 2 and any(not np.array_equal(have[w][:v], same[w][:v]) for w, v in counts(sizes).items()):
        bad.append("other than brc_requantize through float32")
    if scratch.any():
        bad.append("scratch not left as found")
    return bad


def main():
    err = abi.Error()
    check(emulated.brc_cuda_use(0, ref(err)), err)
    ran = wrong = 0
    for fmt in (abi.BF16, abi.F16, abi.F32):
        every = fmt == abi.BF16 or "all" in sys.argv
        for name, x in itertools.islice(inputs(fmt, np.random.default_rng(3)), None if every else 2):
            for text in RECIPES:
                for of in (compare, compare_both):
                    bad = of(fmt, x, text)
                    ran += bad is not None
                    wrong += bool(bad)
                    if bad:
                        print(f"{text} of {name}, format {fmt}, {of.__name__}:", "; ".join(bad))
    rng = np.random.default_rng(5)
    for each, shape in enumerate(((33, 130), (64, 512), (2, 128, 96), (3, 1036))):
        x = rng.standard_normal(shape).astype(np.float32) * np.exp2(rng.integers(-8, 8, (*shape[:-1], 1))).astype(np.float32)
        pairs = list(itertools.product(CODED, REQUANTIZED))
        for source, text in pairs if not each or "all" in sys.argv else pairs[each::7]:         # 7 divides neither list
            bad = compare_requantize(x, source, text)
            ran += bad is not None
            wrong += bool(bad)
            if bad:
                print(f"{source} of {shape} to {text}:", "; ".join(bad))
    print(f"emulated casts: {ran} compared with the CPU's, {wrong} differ")
    return wrong != 0


if __name__ == "__main__":
    sys.exit(main())
