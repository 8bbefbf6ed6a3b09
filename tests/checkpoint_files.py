# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as tests use them: breccia's view of a file, and files of bytes that no library of ours wrote.

    write(path, {"w.data": ("U8", array), ...}, metadata)     a .safetensors file, every byte from here
    header, arrays = read(path)                               and back: {name: (dtype, array)}, __metadata__
    with Checkpoint(path) as c: c["w"].values()               brc_checkpoint: entries, findings, dequantized values
    quantize(source, target, "mxfp8", include=[..])           brc_quantize_checkpoint and its three sisters
"""
import json
import os
from types import SimpleNamespace

import ml_dtypes
import numpy as np

import breccia_c as brc

ffi, lib = brc.ffi, brc.lib

NUMPY = {"BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "I16": np.int16, "U16": np.uint16, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
         "I32": np.int32, "U32": np.uint32, "F32": np.float32, "F64": np.float64, "I64": np.int64, "U64": np.uint64,
         "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "F8_E8M0": ml_dtypes.float8_e8m0fnu}
WORD = {np.dtype(t): word for word, t in NUMPY.items()}


def write(path, arrays, metadata=None):
    """arrays: {name: array} or {name: (dtype word, array)}; the bytes are the array's, whatever the word says."""
    header, blobs, at = {}, [], 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, array in arrays.items():
        word, array = array if isinstance(array, tuple) else (WORD[np.asarray(array).dtype], array)
        blob = np.asarray(array).tobytes()
        header[name] = {"dtype": word, "shape": list(np.shape(array)), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))
    return path


def read(path):
    """(arrays, metadata): {name: (dtype word, array)} and {key: value}, parsed here."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + size])
    metadata = header.pop("__metadata__", {})
    out = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        out[name] = (entry["dtype"], np.frombuffer(raw[8 + size + first:8 + size + last], NUMPY[entry["dtype"]]).reshape(entry["shape"]))
    return out, metadata


def _text(pointer):
    return ffi.string(pointer).decode()


def _finding(f):
    return SimpleNamespace(severity={lib.BRC_NOTE: "note", lib.BRC_WARNING: "warning", lib.BRC_AMBIGUITY: "ambiguity",
                                     lib.BRC_ERROR: "error"}[f.severity],
                           file=_text(f.file), tensor=_text(f.tensor), text=_text(f.text))


class Entry:
    def __init__(self, checkpoint, c):
        self.checkpoint, self.c = checkpoint, c
        self.name, self.evidence, self.meaning, self.recipe = (_text(getattr(c, n)) for n in ("name", "evidence", "meaning", "recipe"))
        self.dialect = _text(lib.brc_dialect_get(c.dialect).name)
        self.parts = {_text(c.parts[i].role): _text(c.parts[i].array.name) for i in range(c.n_parts)}
        self.scaled = c.tensor.format != lib.BRC_NONE

    def tensor(self):
        """The scaled tensor (breccia_c.Tensor), by brc_checkpoint_load."""
        owned = ffi.new("brc_owned *")
        brc.call("brc_checkpoint_load", self.checkpoint.c, self.c, owned)
        owned = ffi.gc(owned, lib.brc_release)
        return brc.Tensor(ffi.addressof(owned, "tensor"), owned, self.checkpoint)

    def values(self, dtype=np.float32):
        return brc.dequantize(self.tensor(), dtype)


class Checkpoint:
    def __init__(self, path, dialect=None, copy=0):
        number = 0 if dialect is None else 1 + lib.brc_dialect_find(dialect.encode())
        made = ffi.new("brc_checkpoint **")
        brc.call("brc_checkpoint_open", os.fsencode(path), brc.new("brc_checkpoint_options", dialect=number, copy=copy), made)
        self.c = made[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        lib.brc_checkpoint_close(self.c)

    def names(self):
        return [_text(lib.brc_checkpoint_at(self.c, i).name) for i in range(lib.brc_checkpoint_count(self.c))]

    def __getitem__(self, name):
        found = lib.brc_checkpoint_find(self.c, name.encode())
        if found == ffi.NULL:
            raise KeyError(name)
        return Entry(self, found)

    @property
    def findings(self):
        return [_finding(lib.brc_checkpoint_finding(self.c, i)) for i in range(lib.brc_checkpoint_findings(self.c))]

    def usable(self):
        """Raises brc.Error where a command must stop."""
        brc.call("brc_checkpoint_usable", self.c)

    def verify(self, threads=1):
        found = []
        each = ffi.callback("void(void *, const brc_finding *)", lambda _, f: found.append(_finding(f)))
        brc.call("brc_verify_checkpoint", self.c, threads, each, ffi.NULL)
        return found


def _globs(texts):
    keep = [ffi.new("char[]", t.encode()) for t in texts]
    return ffi.new("const char *[]", keep or [ffi.NULL]), keep


def _callbacks(outcomes, progress):
    @ffi.callback("void(void *, const brc_outcome *)")
    def outcome(_, o):
        outcomes[_text(o.name)] = SimpleNamespace(quantized=bool(o.quantized), why=None if o.why == ffi.NULL else _text(o.why),
                                                  elements=o.elements, before=o.bytes_before, after=o.bytes_after)

    @ffi.callback("int(void *, int64_t, int64_t, const char *)")
    def step(_, done, total, name):
        return int(bool(progress(done, total, _text(name)))) if progress else 0

    return outcome, step


def _left(found):
    """A callback that fills a dictionary with what does not go along."""
    if found is None:
        return ffi.NULL
    callback = ffi.callback("void(void *, const char *, const char *)", lambda _, name, why: found.__setitem__(_text(name), _text(why)))
    _KEPT[id(found)] = callback
    return callback


def _warn(found):
    """A callback that fills a list with (tensor, what, text)."""
    return ffi.callback("void(void *, const char *, const char *, const char *)",
                        lambda _, tensor, what, text: None if found is None else found.append((_text(tensor), _text(what), _text(text))))


_KEPT = {}           # callbacks live as long as the module: C holds them without a reference


def quantize(source, target, recipe, dialect="breccia", include=(), exclude=(), overwrite=False, saturate=False, threads=0, progress=None, read_as=None, left=None):
    """{name: outcome}."""
    outcomes = {}
    outcome, step = _callbacks(outcomes, progress)
    included, keep_included = _globs(include)
    excluded, keep_excluded = _globs(exclude)
    chosen = brc.recipe(recipe)
    options = brc.new("brc_quantize_options", recipe=chosen, dialect=lib.brc_dialect_find(dialect.encode()), include=included,
                      n_include=len(include), exclude=excluded, n_exclude=len(exclude), overwrite=int(overwrite),
                      saturate_nonfinite=int(saturate), threads=threads, progress=step, outcome=outcome, left=_left(left))
    with Checkpoint(source, read_as) as c:
        brc.call("brc_quantize_checkpoint", c.c, os.fsencode(target), options)
    return outcomes


def dequantize(source, target, format="bf16", overwrite=False, threads=0, progress=None, dialect=None, keep=False, left=None, warnings=None):
    """({name: outcome}, overflowed). `warnings` takes (tensor, what, text)."""
    outcomes, overflowed, warn = {}, ffi.new("int64_t *"), _warn(warnings)
    outcome, step = _callbacks(outcomes, progress)
    options = brc.new("brc_dequantize_options", format=brc.format_of(format), overwrite=int(overwrite), threads=threads, progress=step,
                      outcome=outcome, overflowed=overflowed, keep_nonfinite=int(keep), left=_left(left), warn=warn)
    with Checkpoint(source, dialect) as c:
        brc.call("brc_dequantize_checkpoint", c.c, os.fsencode(target), options)
    return outcomes, overflowed[0]


REQUIRE = {None: 0, "value-exact": 1 + lib.BRC_VALUE_EXACT, "bit-exact": 1 + lib.BRC_BIT_EXACT, "exact": 1 + lib.BRC_VALUE_EXACT, "one-ulp": 1 + lib.BRC_ONE_ULP}


def conversion(source, target, dialect, recipes=(), format=None, read_as=None, include=(), exclude=(), overwrite=False, dry_run=False, require=None, keep=False,
               threads=0, progress=None, left=None, warnings=None):
    """{name: outcome}: class, sqnr, from, to. `warnings` takes (tensor, what, text)."""
    outcomes = {}

    @ffi.callback("void(void *, const brc_outcome *)")
    def outcome(_, o):
        outcomes[_text(o.name)] = SimpleNamespace(quantized=bool(o.quantized), why=None if o.why == ffi.NULL else _text(o.why), elements=o.elements,
                                                  before=o.bytes_before, after=o.bytes_after, sqnr=o.sqnr, source=_text(getattr(o, "from")), to=_text(o.to),
                                                  exactness=_text(lib.brc_exactness_name(o.exactness)))

    warn = _warn(warnings)
    _, step = _callbacks({}, progress)
    included, keep_included = _globs(include)
    excluded, keep_excluded = _globs(exclude)
    chosen = ffi.new("brc_recipe[]", [brc.recipe(r)[0] for r in recipes] or 1)
    options = brc.new("brc_convert_options", dialect=lib.BRC_DIALECT_PLAIN if dialect == "dense" else lib.brc_dialect_find(dialect.encode()),
                      format=lib.BRC_NONE if format is None else brc.format_of(format), recipes=chosen, n_recipes=len(recipes), include=included,
                      n_include=len(include), exclude=excluded, n_exclude=len(exclude), overwrite=int(overwrite), dry_run=int(dry_run),
                      require=REQUIRE[require], keep_nonfinite=int(keep), threads=threads, progress=step, outcome=outcome, left=_left(left), warn=warn)
    with Checkpoint(source, read_as) as c:
        brc.call("brc_convert_checkpoint", c.c, os.fsencode(target), options)
    return outcomes


def dialects(column):
    """Names of the dialects that are "reads" or "writes", in the order of the table."""
    rows = [lib.brc_dialect_get(i) for i in range(lib.BRC_DIALECT_COUNT)]
    return [_text(r.name) for r in rows if getattr(r, column)]


def dialect_recipes(name):
    """The recipes that a dialect lists."""
    texts, i = [], lib.brc_dialect_find(name.encode())
    while (text := lib.brc_dialect_recipe(i, len(texts))) != ffi.NULL:
        texts.append(_text(text))
    return texts


def compare(a, b, threads=0):
    """({name: difference}, {name: what is missing}, total)."""
    fields = ("elements", "signal", "noise", "sqnr", "cosine", "max_absolute", "max_relative", "saturated", "flushed", "nonfinite", "quantized")
    copy = lambda d: SimpleNamespace(**{f: getattr(d, f) for f in fields})
    differences, missing, total = {}, {}, ffi.new("brc_difference *")
    each = ffi.callback("void(void *, const brc_difference *)", lambda _, d: differences.__setitem__(_text(d.name), copy(d)))
    gone = ffi.callback("void(void *, const char *, const char *)", lambda _, n, w: missing.__setitem__(_text(n), _text(w)))
    with Checkpoint(a) as x, Checkpoint(b) as y:
        brc.call("brc_compare_checkpoints", x.c, y.c, threads, each, gone, ffi.NULL, total)
    return differences, missing, copy(total)


def convert(source, target, dialect, recipes=(), include=(), require=None, read_as=None, warned=None):
    """{name: (class, SQNR)} of conversion(); `warned` collects (tensor, what)."""
    warnings = []
    found = conversion(source, target, dialect, recipes, include=include, require=None if require is None else require.lower().replace("_", "-"), read_as=read_as,
                       warnings=warnings)
    if warned is not None:
        warned.extend(w[:2] for w in warnings)
    return {name: (o.exactness, o.sqnr) for name, o in found.items()}


def save(path, dialect, tensors, origins=None, overwrite=False):
    """brc_checkpoint_save of {name: breccia_c.Tensor or NumPy array}; `origins`: {name: Entry that it was read from}, else values alone."""
    items, keep = ffi.new("brc_item[]", len(tensors)), []
    for item, (name, tensor) in zip(items, tensors.items()):
        keep.append(ffi.new("char[]", name.encode()))
        item.name = keep[-1]
        if isinstance(tensor, brc.Tensor):
            item.scaled = tensor.c
            item.origin = origins[name].c if origins else ffi.NULL
        else:
            keep.append(brc.array(tensor))
            item.plain = keep[-1]
    brc.call("brc_checkpoint_save", os.fsencode(path), lib.brc_dialect_find(dialect.encode()), items, len(tensors),
             brc.new("brc_save_options", overwrite=int(overwrite)))
    return path


def stored_again(source, target, read_as=None):
    """The arrays of a checkpoint, and those that its scaled tensors give in the same dialect when only their values are known."""
    with Checkpoint(source, read_as) as c:
        c.usable()
        scaled = {n: c[n].tensor() for n in c.names() if c[n].scaled}
        own = {array for n in scaled for array in c[n].parts.values()}
        dialect, = {c[n].dialect for n in scaled}
        save(target, dialect, scaled)
    before, after = (read(path / "model.safetensors" if path.is_dir() else path)[0] for path in (source, target))
    return {n: before[n] for n in own}, after


def same_arrays(before, after):
    """The same names, types, shapes and bytes."""
    assert set(before) == set(after)
    for name, (word, array) in before.items():
        assert (word, array.shape) == (after[name][0], after[name][1].shape), name
        assert array.tobytes() == after[name][1].tobytes(), name
