# SPDX-License-Identifier: Apache-2.0
"""Arrays across libraries without copies: the DLPack ABI, both capsules, flags, offsets, strides; memory that stays flat."""
import ctypes
import gc
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import breccia
from breccia import MXFP8BlockScaling, _c
from breccia.bridges import from_dlpack, to_dlpack
from recipes_list import ALL, IDS

RECIPE = MXFP8BlockScaling()


def test_abi_is_the_published_one(root, tmp_path):
    """Our declarations against dlpack.h 1.3 as the PyPI package apache-tvm-ffi carries it: sizes, offsets, numbers."""
    tvm_ffi = pytest.importorskip("tvm_ffi") if os.environ.get("CI") != "true" else __import__("tvm_ffi")
    include = Path(tvm_ffi.__file__).parent / "include"
    assert (include / "dlpack" / "dlpack.h").exists()
    pairs = [("dl_device", "DLDevice", "type id", "device_type device_id"), ("dl_type", "DLDataType", "code bits lanes", "code bits lanes"),
             ("dl_tensor", "DLTensor", "data device ndim dtype shape strides byte_offset", "data device ndim dtype shape strides byte_offset"),
             ("dl_managed", "DLManagedTensor", "tensor context deleter", "dl_tensor manager_ctx deleter"),
             ("dl_versioned", "DLManagedTensorVersioned", "major context deleter flags tensor", "version manager_ctx deleter flags dl_tensor")]
    numbers = {"DLPACK_MAJOR": "DLPACK_MAJOR_VERSION", "DLPACK_MINOR": "DLPACK_MINOR_VERSION", "DL_CPU": "kDLCPU",
               "DL_CUDA": "kDLCUDA", "DL_CUDA_HOST": "kDLCUDAHost", "DL_CUDA_MANAGED": "kDLCUDAManaged", "DL_INT": "kDLInt", "DL_UINT": "kDLUInt", "DL_FLOAT": "kDLFloat", "DL_BFLOAT": "kDLBfloat",
               "DL_BOOL": "kDLBool", "DL_E4M3": "kDLFloat8_e4m3fn", "DL_E4M3FNUZ": "kDLFloat8_e4m3fnuz", "DL_E5M2": "kDLFloat8_e5m2",
               "DL_E5M2FNUZ": "kDLFloat8_e5m2fnuz", "DL_E8M0": "kDLFloat8_e8m0fnu", "DL_E2M3": "kDLFloat6_e2m3fn",
               "DL_E3M2": "kDLFloat6_e3m2fn", "DL_E2M1": "kDLFloat4_e2m1fn", "DL_READ_ONLY": "DLPACK_FLAG_BITMASK_READ_ONLY",
               "DL_COPIED": "DLPACK_FLAG_BITMASK_IS_COPIED", "DL_SUBBYTE_PADDED": "DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED"}
    lines = [f"_Static_assert(sizeof({a}) == sizeof({b}), \"{a}\");" for a, b, _, _ in pairs]
    for a, b, ours, theirs in pairs:
        lines += [f"_Static_assert(offsetof({a}, {x}) == offsetof({b}, {y}) && sizeof((({a} *)0)->{x}) {'<=' if x == 'major' else '=='} "
                  f"sizeof((({b} *)0)->{y}), \"{a}.{x}\");" for x, y in zip(ours.split(), theirs.split(), strict=True)]
    lines += [f"_Static_assert((int){x} == (int){y}, \"{x}\");" for x, y in numbers.items()]
    header = (root / "python/ext/dlpack.h").read_text()
    declared = set(re.findall(r"\b(DL_[A-Z0-9_]+)\b", header)) | {"DLPACK_MAJOR", "DLPACK_MINOR"}
    assert declared == set(numbers)
    source = tmp_path / "abi.c"
    source.write_text(f'#include <stddef.h>\n#include <dlpack/dlpack.h>\n#include "{root}/python/ext/dlpack.h"\n' + "\n".join(lines))
    subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-fsyntax-only", f"-I{include}", str(source)], check=True)


LIBRARIES = ["numpy", "torch", "jax", "mlx"]


def as_library(name, x):
    if name == "torch":
        return __import__("torch").from_numpy(x)
    if name == "jax":
        return __import__("jax").numpy.asarray(x)
    return __import__("mlx.core").core.array(x) if name == "mlx" else x


@pytest.mark.parametrize("source", LIBRARIES)
@pytest.mark.parametrize("target", LIBRARIES)
def test_every_pair(torch, jax, mx, x, source, target):
    for recipe in ALL:
        moved = from_dlpack(breccia.cast(as_library(source, x), recipe), target)
        want = breccia.cast(as_library(target, x), recipe)
        if recipe._scale != "bf16":           # a BF16 scale is float32 in NumPy and MLX: other bytes, the same numbers
            assert moved == want
            assert [str(part.dtype) for part in (moved.data, moved.scale)] == [str(part.dtype) for part in (want.data, want.scale)]
        assert np.array_equal(np.asarray(breccia.dequantize(moved)), np.asarray(breccia.dequantize(want)))


def address(array):
    """Where an array's bytes are."""
    for find in ("data_ptr", "unsafe_buffer_pointer"):
        if hasattr(array, find):
            return getattr(array, find)()
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("source, target", [(a, b) for a in LIBRARIES[:3] for b in LIBRARIES[:3]])
def test_no_copy(torch, jax, source, target):
    st = breccia.cast(as_library(source, np.ones((64, 64), np.float32)), RECIPE)
    moved = from_dlpack(st, target)
    same = address(moved.data) == address(st.data)
    assert same or (target == "jax" and address(st.data) % 64 != 0)      # XLA wants 64-byte aligned memory and copies other


def test_names():
    st = breccia.cast(np.ones((2, 32), np.float32), RECIPE)
    with pytest.raises(ValueError, match="framework must be"):
        from_dlpack(st, "tensorflow")
    for function in (to_dlpack, lambda x: from_dlpack(x, "numpy")):
        with pytest.raises(TypeError, match="ScaledTensor"):
            function(st.data)


@pytest.mark.parametrize("source", LIBRARIES)
def test_capsules(torch, jax, mx, x, source):
    st = breccia.cast(as_library(source, x), RECIPE)
    data, scale = to_dlpack(st)
    assert np.array_equal(torch.from_dlpack(data).view(torch.uint8).numpy(), breccia.cast(x, RECIPE).data)
    assert np.array_equal(torch.from_dlpack(scale).numpy(), breccia.cast(x, RECIPE).scale)


class Producer:
    """An array with a __dlpack__ of our choosing."""

    def __init__(self, buffer, **fixed):
        self.buffer, self.fixed = buffer, fixed

    def __dlpack__(self, **asked):
        return self.buffer.__dlpack__(**self.fixed)

    def __dlpack_device__(self):
        return 1, 0


class Old(Producer):
    def __dlpack__(self):                  # noqa: D105  (before 1.0: no arguments)
        return self.buffer.__dlpack__()


def test_versioned_and_legacy():
    x = np.arange(8, dtype=np.float32)
    for producer in (Producer(x), Producer(x, max_version=(1, 0)), Old(x)):
        assert _c.bytes_of(producer) == x.tobytes()
    capsule = x.__dlpack__()
    assert _c.bytes_of(capsule) == x.tobytes()
    with pytest.raises(ValueError, match="no unused DLPack tensor"):
        _c.bytes_of(capsule)
    with pytest.raises(TypeError, match="buffer protocol or __dlpack__"):
        _c.bytes_of(object())


def test_elements_of_no_size():
    for nothing in (np.zeros(3, "V0"), np.zeros((), "V0")):
        with pytest.raises(TypeError, match="no size"):
            _c.bytes_of(nothing)


def test_a_format_is_as_wide_as_its_elements():
    """Else C would read beyond the array; bytes may be called by another 8-bit name, or hold packed codes."""
    x = np.zeros(8, np.uint8)
    for wrong in ("f32", "bf16", "f64"):
        with pytest.raises(ValueError, match="sizes differ"):
            _c.format_of((x, wrong))
    assert [_c.format_of((x, right)) for right in ("e4m3", "e8m0", "int4", "e3m2")] == ["e4m3", "e8m0", "int4", "e3m2"]
    with pytest.raises(ValueError, match="sizes differ"):
        _c.format_of((x.view(np.uint16), "int4"))


def test_read_only():
    x = np.arange(8, dtype=np.float32)
    x.flags.writeable = False
    assert _c.bytes_of(Producer(x, max_version=(1, 0))) == x.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        _c.decode("uint8", np.zeros(8, np.uint8), Producer(x, max_version=(1, 0)))
    frozen = _c.Buffer((8,), "f32", x)
    with pytest.raises(BufferError, match="read-only"):
        frozen.__dlpack__()
    assert np.from_dlpack(Producer(frozen, max_version=(1, 0))).flags.writeable is False
    with pytest.raises(TypeError, match="read-only"):
        memoryview(frozen).cast("B")[0] = 1


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("type", ctypes.c_int32), ("id", ctypes.c_int32), ("ndim", ctypes.c_int32),
                ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


class Versioned(ctypes.Structure):
    _fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
                ("flags", ctypes.c_uint64), ("tensor", Tensor)]


DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
NAME = b"dltensor_versioned"
ctypes.pythonapi.PyCapsule_New.restype = ctypes.py_object
ctypes.pythonapi.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


def forged(memory, shape, strides=None, offset=0, device=1, type=(2, 32, 1), major=1, address=...):
    """A capsule by hand, and how often its deleter was called."""
    calls = []
    deleter = DELETER(lambda _: calls.append(1))
    n = len(shape)
    keep = ((ctypes.c_int64 * n)(*shape), None if strides is None else (ctypes.c_int64 * n)(*strides), deleter, memory)
    managed = Versioned(major, 0, None, ctypes.cast(deleter, ctypes.c_void_p), 0,
                        Tensor(memory.ctypes.data if address is ... else address, device, 0, n, *type, keep[0], keep[1], offset))
    return ctypes.pythonapi.PyCapsule_New(ctypes.addressof(managed), NAME, None), calls, (keep, managed)


def test_offsets_and_strides():
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    for shape, strides, offset, want in [((2, 3), (6, 2), 4, x[:2, 1::2]), ((6, 4), (1, 6), 0, x.T), ((4, 6), None, 0, x),
                                         ((4, 6), (-6, -1), 23 * 4, x[::-1, ::-1]), ((3, 6), (0, 1), 0, np.broadcast_to(x[0], (3, 6)))]:
        capsule, calls, keep = forged(x, shape, strides, offset)
        assert _c.bytes_of(capsule) == np.ascontiguousarray(want).tobytes() and calls == [1]
        capsule, calls, keep = forged(x, shape, strides, offset)
        d, s = np.empty(shape, np.uint8), np.empty((), np.float32)
        _c.cast(_c.Recipe("fp8"), capsule, d, s, None, None, None, 0)
        assert calls == [1] and (d == breccia.cast(np.ascontiguousarray(want), breccia.Float8CurrentScaling()).data).all()


@pytest.mark.parametrize("changes, kind, text", [
    ({"device": 2}, TypeError, "device"), ({"major": 2}, BufferError, "version 2.0"), ({"type": (2, 32, 4)}, TypeError, "lanes"),
    ({"type": (5, 64, 1)}, TypeError, "array is complex64"), ({"type": (7, 8, 1)}, TypeError, "code 7"), ({"shape": (1,) * 9}, ValueError, "dimensions"),
    ({"shape": (-1,)}, ValueError, "negative"), ({"shape": (2**40, 2**40)}, OverflowError, "too many bytes"),
    ({"address": None}, ValueError, "no memory"),
])
def test_refused_capsules_are_freed(changes, kind, text):
    x = np.arange(24, dtype=np.float32)
    capsule, calls, keep = forged(x, **{"shape": (24,), **changes})
    with pytest.raises(kind, match=text):
        _c.bytes_of(capsule)
    assert calls == [1]


def test_no_elements_need_no_memory():
    """PyTorch's empty tensors have no address; that is no missing array."""
    capsule, calls, keep = forged(np.empty(0, np.float32), (0, 6), address=None)
    assert _c.bytes_of(capsule) == b"" and calls == [1]


def test_buffer():
    b = _c.Buffer((2, 3), "e4m3")
    assert b.shape == (2, 3) and b.format == "e4m3" and b.__dlpack_device__() == (1, 0)
    view = memoryview(b)
    assert view.shape == (2, 3) and view.format == "B" and not view.readonly
    assert np.asarray(_c.Buffer((5,), "f32")).dtype == np.float32 and np.asarray(_c.Buffer((), "f64")).shape == ()
    assert np.asarray(_c.Buffer((4,), "f32")).ctypes.data % 64 == 0
    codes = np.arange(6, dtype=np.uint8)
    assert _c.bytes_of(_c.Buffer((2, 3), "e5m2", codes)) == codes.tobytes()
    for wrong, kind in ((((2,), "int4"), ValueError), (((2,), "none"), ValueError), (((-1,), "f32"), ValueError),
                        (((1,) * 9, "f32"), ValueError), (((2**62, 2**62), "f32"), OverflowError), (((7,), "e5m2", codes), ValueError)):
        with pytest.raises(kind):
            _c.Buffer(*wrong)


def test_buffers_outlive_their_makers(torch):
    tensor = torch.from_dlpack(_c.Buffer((1000,), "f32", np.full(1000, 7, np.float32)))
    gc.collect()
    assert (tensor == 7).all()
    capsule = _c.Buffer((10,), "f32").__dlpack__()
    del capsule                              # never taken: its own destructor frees


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_a_million_round_trips_in_flat_memory(torch):
    """Capsules out and in, 10^6 times, one in ten through PyTorch and NumPy: references and memory stay as they were. What one of
    them kept (a struct of 300 bytes) would come to 30 MB or more."""
    memory = np.ones((4, 32), np.float32)
    buffer = _c.Buffer((4, 32), "f32", memory)
    numpy_side, torch_side, out, taken = np.from_dlpack, torch.from_dlpack, buffer.__dlpack__, _c.format_of

    def turn(times):
        for _ in range(times):
            for _ in range(8):
                taken(out(max_version=(1, 0)))
            taken(out())
            numpy_side(torch_side(buffer))
    turn(2000)
    gc.collect()
    before, count = resident(), sys.getrefcount(buffer)
    turn(100_000)                            # ten capsules each
    gc.collect()
    assert sys.getrefcount(buffer) == count and resident() - before < 8 << 20


@pytest.mark.parametrize("recipe", ALL, ids=IDS)
def test_operations_do_not_leak(recipe):
    """References of everything that goes in are given back, also when a call fails."""
    x = np.ones((4, 256), np.float32)
    st = breccia.cast(x, recipe)
    parts = [x, st.data, st.scale, st.recipe]
    counts = [sys.getrefcount(part) for part in parts]
    for _ in range(50):
        breccia.dequantize(st)
        breccia.cast(x, recipe)
        breccia.matmul(st, x, transpose_b=True)
        breccia.requantize(st, RECIPE)
        for wrong in (lambda: breccia.matmul(st, x), lambda: breccia.cast(x, recipe, threads=-1), lambda: breccia.dequantize(st, "int8"),
                      lambda: _c.dequantize((recipe._native, st.shape, 3, (1, 1, 1), st.data, st.scale, None, None, None), x, 0)):
            with pytest.raises((ValueError, TypeError)):
                wrong()
    assert [sys.getrefcount(part) for part in parts] == counts
