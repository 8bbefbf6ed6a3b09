# SPDX-License-Identifier: Apache-2.0
"""The C API as tests call it: the built libraries through cffi, declared by the public headers themselves.

    brc.lib.brc_cast_new(...)          any function, as in C; brc.ffi makes its arguments
    brc.call("brc_cast_new", ...)      the same with the error argument supplied: raises brc.Error unless BRC_OK
    t = brc.cast(x, "mxfp8:rule=floor")      NumPy in, Tensor out: t.data, t.scale, t.globals, t.zero are NumPy views
    y = brc.dequantize(t)                    and back
    brc.const.BRC_MAX_RANK             every macro that is a number

Nothing here computes: shapes are bent and pointers passed, numbers come from the libraries. The build folder is
$BRECCIA_BUILD, or build/ of the checkout.
"""
import os
import re
import subprocess
import tempfile
import weakref
from pathlib import Path
from types import SimpleNamespace

import cffi
import ml_dtypes
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "include" / "breccia"
BUILD = Path(os.environ.get("BRECCIA_BUILD") or ROOT / "build").resolve()
CLI = BUILD / "bin" / "breccia"

# NumPy's type of each format that NumPy or ml_dtypes can hold; others appear as uint8 codes, one row after the other.
DTYPES = {
    "f64": np.dtype(np.float64), "f32": np.dtype(np.float32), "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16), "bool": np.dtype(np.bool_), "complex64": np.dtype(np.complex64),
    "int8": np.dtype(np.int8), "int16": np.dtype(np.int16), "int32": np.dtype(np.int32), "int64": np.dtype(np.int64),
    "uint8": np.dtype(np.uint8), "uint16": np.dtype(np.uint16), "uint32": np.dtype(np.uint32),
    "uint64": np.dtype(np.uint64),
}


def _declarations():
    """The public headers, preprocessed, without the system's own declarations (cffi knows those types)."""
    with tempfile.TemporaryDirectory() as empty:
        for name in ("stddef.h", "stdint.h"):
            Path(empty, name).touch()
        command = [os.environ.get("CC", "cc"), "-E", "-P", "-nostdinc", "-DBRC_API=", f"-I{empty}", f"-I{INCLUDE.parent}",
                   "-x", "c", "-"]
        text = "".join(f"#include <breccia/{h}>\n" for h in ("breccia.h", "breccia_file.h"))
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def _constants():
    found = {}
    for header in ("breccia.h", "breccia_file.h"):
        for name, value in re.findall(r"^#define (BRC_\w+) (0x[0-9A-Fa-f]+|\d+)\b", (INCLUDE / header).read_text(), re.M):
            found[name] = int(value, 0)
    return SimpleNamespace(**found)


ffi = cffi.FFI()
ffi.cdef(_declarations())
const = _constants()


def _open():
    for name in ("libbreccia_file.so", "libbreccia.so"):        # the first one finds the second one's symbols too
        path = BUILD / "lib" / name
        if path.exists():
            return ffi.dlopen(str(path))
    raise FileNotFoundError(f"{BUILD}/lib/libbreccia.so: not built; run `make` first, or set BRECCIA_BUILD")


lib = _open()


class Error(Exception):
    """A brc_status other than BRC_OK: .status is its number, .name "SHAPE", .where the error's position."""

    def __init__(self, status, err):
        self.status, self.where = status, err.where
        self.name = ffi.string(ffi.cast("brc_status", status)).removeprefix("BRC_")
        self.text = ffi.string(err.text).decode()
        super().__init__(f"{self.name}: {self.text}")


def call(function, *arguments):
    """lib.<function>(*arguments, err); raises Error."""
    err = ffi.new("brc_error *")
    status = getattr(lib, function)(*arguments, err)
    if status != lib.BRC_OK:
        raise Error(status, err)


def new(struct, **fields):
    """A zeroed struct with its size set."""
    made = ffi.new(f"{struct} *")
    made.size = ffi.sizeof(struct)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def options(threads=0):
    return new("brc_options", threads=threads)


# ------------------------------------------------------------------------------------------------------ formats

def format_of(name):
    """Number of a format: by name ("e4m3"), by NumPy type, or a number as it is."""
    if isinstance(name, int):
        return name
    if not isinstance(name, str):
        name = next(word for word, dtype in DTYPES.items() if dtype == np.dtype(name))
    found = lib.brc_format_find(name.encode())
    if found == lib.BRC_NONE and name != "none":
        raise ValueError(f"no format {name!r}")
    return found


def format_name(number):
    return ffi.string(lib.brc_format_get(number).name).decode()


def formats(role=None):
    """{name: brc_format_info} of every format, or of one role ("ELEMENT", "HIGH", "CARRIED")."""
    wanted = None if role is None else getattr(lib, f"BRC_{role}")
    rows = (lib.brc_format_get(i) for i in range(1, lib.BRC_FORMAT_COUNT))
    return {ffi.string(r.name).decode(): r for r in rows if wanted is None or r.role == wanted}


def encode(format, x):
    """One packed row of codes, uint8, of a float32 vector."""
    x = np.ascontiguousarray(x, np.float32).ravel()
    row = np.zeros(lib.brc_row_bytes(format_of(format), x.size), np.uint8)
    call("brc_encode", format_of(format), ffi.from_buffer("float[]", x), x.size, ffi.from_buffer(row))
    return row


def decode(format, row, n=None):
    """float32 vector of one packed row; n elements (default: as many as the bytes hold)."""
    row = np.ascontiguousarray(row).view(np.uint8).ravel()
    if n is None:
        n = row.size * 8 // lib.brc_format_get(format_of(format)).bits
    x = np.empty(n, np.float32)
    call("brc_decode", format_of(format), ffi.from_buffer(row), n, ffi.from_buffer("float[]", x, require_writable=True))
    return x


# ------------------------------------------------------------------------------------------------------- arrays

_alive = weakref.WeakKeyDictionary()      # cdata -> what its pointers point to


def _keep(cdata, *things):
    _alive[cdata] = things
    return cdata


def array(x, format=None, shape=None):
    """brc_array * over a NumPy array, with its strides; format and shape for packed or foreign bytes."""
    if format is None:
        made = new("brc_array", format=format_of(x.dtype), rank=x.ndim)
        for i in range(x.ndim):
            made.shape[i], made.stride[i] = x.shape[i], x.strides[i] // x.itemsize
        made.data = ffi.cast("void *", x.__array_interface__["data"][0])
    else:
        shape = x.shape if shape is None else shape
        made = ffi.new("brc_array *", lib.brc_array_of(format_of(format), len(shape), list(shape),
                                                       ffi.cast("void *", x.__array_interface__["data"][0])))
    return _keep(made, x)


# ------------------------------------------------------------------------------------------------------ recipes

def recipe(text):
    """brc_recipe * of "mxfp8:rule=floor"; a recipe passes through."""
    if isinstance(text, str):
        made = ffi.new("brc_recipe *")
        call("brc_recipe_parse", text.encode(), made)
        return made
    return text


def recipe_text(of):
    room = ffi.new("char[512]")
    lib.brc_recipe_text(recipe(of), room, 512)
    return ffi.string(room).decode()


def recipes():
    """{name: brc_recipe_info} of every row of the table."""
    rows = (lib.brc_recipe_get(i) for i in range(lib.BRC_RECIPE_COUNT))
    return {ffi.string(r.name).decode(): r for r in rows}


# ------------------------------------------------------------------------------------------------------ tensors

def _bytes(pointer, n):
    return np.frombuffer(ffi.buffer(pointer, n), np.uint8) if n else np.empty(0, np.uint8)


def _typed(raw, format, shape):
    """Bytes as NumPy sees them: typed where it can, else uint8 codes; sub-byte rows stay packed."""
    dtype = DTYPES.get(format_name(format), np.dtype(np.uint8))
    if lib.brc_format_get(format).bits >= 8:
        return raw.view(dtype).reshape(shape)
    return raw.reshape(*shape[:-1], lib.brc_row_bytes(format, shape[-1]))


class Tensor:
    """A brc_tensor and what keeps its memory. .c is the brc_tensor *; the arrays are views into it."""

    def __init__(self, c, *keep, report=None, path=None):
        self.c, self._keep, self.report, self.path = c, keep, report, path

    @property
    def shape(self):
        return tuple(self.c.shape[i] for i in range(self.c.rank))

    @property
    def sizes(self):
        made = ffi.new("brc_sizes *")
        call("brc_tensor_sizes", self.c, made)
        return made

    @property
    def data(self):
        """Codes [.., row bytes]: uint8, or int8 where the format is INT8; padding of rows is cut off."""
        c, shape = self.c, self.shape
        row_bytes = lib.brc_row_bytes(c.format, shape[-1])
        rows = int(np.prod(shape[:-1], dtype=np.int64))
        if rows == 0 or row_bytes == 0:
            return np.empty((*shape[:-1], row_bytes), np.uint8)
        raw = _bytes(c.data, (rows - 1) * c.row_pitch + row_bytes)
        raw = np.lib.stride_tricks.as_strided(raw, (rows, row_bytes), (c.row_pitch, 1), writeable=False)
        raw = raw.reshape(*shape[:-1], row_bytes)
        return raw.view(np.int8) if format_name(c.format) == "int8" else raw

    def _table(self, table, n):
        if table.data == ffi.NULL and n == 0:
            return None
        counts = ffi.new("int64_t[3]")
        call("brc_block_counts", self.c.rank, self.c.shape, table.block, counts)
        return _typed(_bytes(table.data, n), table.format, tuple(counts))

    scale = property(lambda self: self._table(self.c.scale, self.sizes.scale))
    globals = property(lambda self: self._table(getattr(self.c, "global"), getattr(self.sizes, "global")))
    zero = property(lambda self: self._table(self.c.zero, self.sizes.zero))

    @property
    def recipe(self):
        return recipe_text(ffi.addressof(self.c, "recipe"))

    @property
    def bits(self):
        return lib.brc_tensor_bits(self.c)


def plan(text, shape):
    """(brc_tensor *, brc_sizes *) of what a cast of this shape gives; no memory yet."""
    c, sizes = new("brc_tensor"), ffi.new("brc_sizes *")
    call("brc_tensor_plan", recipe(text), len(shape), list(shape), c, sizes)
    return c, sizes


def empty(text, shape, fill=0):
    """A planned Tensor with memory of its own, every byte `fill`."""
    c, sizes = plan(text, shape)
    memory = np.full(sizes.total + 64, fill, np.uint8)
    start = -memory.__array_interface__["data"][0] % 64
    lib.brc_tensor_bind(c, sizes, ffi.cast("void *", memory.__array_interface__["data"][0] + start))
    return Tensor(c, memory)


def tensor(format, shape, data, scale=None, globals=None, zero=None, layout="per_tensor", group_index=None, recipe_of=None):
    """A Tensor over given arrays. A table is (array, format, block) or (array, format, block, kind[, constant])."""
    data = np.ascontiguousarray(data)
    c = new("brc_tensor", format=format_of(format), rank=len(shape), layout=lib.brc_layout_find(layout.encode()))
    c.shape[0:len(shape)] = list(shape)
    c.data = ffi.cast("void *", data.__array_interface__["data"][0])
    c.row_pitch = lib.brc_row_bytes(c.format, shape[-1])
    keep = [data]
    for name, given, kind in (("scale", scale, "multiplier"), ("global", globals, "multiplier"), ("zero", zero, "code")):
        if given is None:
            continue
        numbers, number_format, block, *rest = given
        numbers = np.ascontiguousarray(numbers)
        keep.append(numbers)
        kinds = {ffi.string(lib.brc_kind_name(i)).decode(): i for i in range(lib.BRC_KIND_COUNT)}
        table = getattr(c, name)
        table.data = ffi.cast("void *", numbers.__array_interface__["data"][0])
        table.format, table.kind = format_of(number_format), kinds[rest[0] if rest else kind]
        table.constant = rest[1] if len(rest) > 1 else 0
        table.block.batch, table.block.rows, table.block.cols = block
    if group_index is not None:
        group_index = np.ascontiguousarray(group_index, np.int32)
        keep.append(group_index)
        c.group_index = ffi.cast("const int32_t *", group_index.__array_interface__["data"][0])
    if recipe_of is None:
        c.recipe.size, c.recipe.id = ffi.sizeof("brc_recipe"), lib.BRC_RECIPE_UNKNOWN
    else:
        c.recipe = recipe(recipe_of)[0]
    return Tensor(c, *keep)


def _owned(function, *arguments):
    """Calls a *_new function whose brc_owned * argument is marked None; the Tensor releases it."""
    owned = ffi.new("brc_owned *")
    call(function, *(owned if a is None else a for a in arguments))
    owned = ffi.gc(owned, lib.brc_release)
    return ffi.addressof(owned, "tensor"), owned


def cast(x, text, state=ffi.NULL, threads=0, format=None):
    """Quantizes a NumPy array (float64/32/16, bfloat16, any strides). .report holds what the cast met."""
    report = new("brc_report")
    source = x if isinstance(x, ffi.CData) else array(x, format)
    c, owned = _owned("brc_cast_new", source, recipe(text), options(threads), state, None, report)
    return Tensor(c, owned, report=report)


def dequantize(t, dtype=np.float32, threads=0, out=None):
    out = np.zeros(t.shape, dtype) if out is None else out
    call("brc_dequantize", t.c, options(threads), array(out))
    return out


def requantize(t, text, threads=0):
    """.path of the result: "SAME", "EXACT" or "FLOAT32"."""
    path = ffi.new("brc_path *")
    c, owned = _owned("brc_requantize_new", t.c, recipe(text), options(threads), None, path)
    return Tensor(c, owned, path=ffi.string(ffi.cast("brc_path", path[0])).removeprefix("BRC_PATH_"))


class Packed:
    """A weight packed for products, used as matmul's b. .shape is that of b, [.., K, N]."""

    def __init__(self, weight, transposed=True, activations="f32", threads=0):
        plain = ffi.NULL if isinstance(weight, Tensor) else array(weight)
        operand = ffi.new("brc_operand *", (weight.c if isinstance(weight, Tensor) else ffi.NULL, plain, int(transposed)))
        made = ffi.new("brc_packed **")
        call("brc_pack_new", operand, format_of(activations), options(threads), made)
        self.c = ffi.gc(made[0], lib.brc_packed_free)
        self.shape = weight.shape[:-2] + weight.shape[:-3:-1] if transposed else weight.shape

    bytes = property(lambda self: lib.brc_packed_bytes(self.c))
    kind = property(lambda self: ffi.string(lib.brc_packed_kind(self.c)).decode())


def matmul(a, b, a_transposed=False, b_transposed=False, bias=None, out=None, dtype=np.float32, shape=None, accumulate=False,
           threads=0):
    """a, b: Tensor or NumPy; b may be Packed. `shape` of the output where it is not plainly [M, N]."""
    def side(x, transposed):
        shape = x.shape[:-2] + x.shape[:-3:-1] if transposed else x.shape
        if isinstance(x, Packed):
            return shape, ffi.NULL, (ffi.NULL, ffi.NULL, 0)
        plain = ffi.NULL if isinstance(x, Tensor) else array(x)
        return shape, plain, (x.c if isinstance(x, Tensor) else ffi.NULL, plain, int(transposed))

    a_shape, a_array, a_side = side(a, a_transposed)
    b_shape, b_array, b_side = side(b, b_transposed)
    if out is None:
        shape = np.broadcast_shapes(a_shape[:-2], b_shape[:-2]) + (a_shape[-2], b_shape[-1]) if shape is None else shape
        out = np.zeros(shape, dtype)
    target, chosen = array(out), options(threads)
    added = ffi.NULL if bias is None else array(bias)
    product = new("brc_product", accumulate=int(accumulate), bias=added, out=target, options=chosen)
    product.a, product.b, product.packed = a_side, b_side, b.c if isinstance(b, Packed) else ffi.NULL
    call("brc_matmul", product)
    return out


def delayed_state(length=16):
    """brc_delayed_state * at its start: scale 1, an empty history."""
    history = ffi.new("float[]", length)
    return _keep(new("brc_delayed_state", scale=1.0, history=history, length=length), history)
