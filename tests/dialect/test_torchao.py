# SPDX-License-Identifier: Apache-2.0
"""torchao's flattened tensors: what the library itself dequantizes, files that it opens, every misreading refused."""
import json
import logging
import warnings

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import breccia_c as brc
import checkpoint_files as files
import golden_files

logging.getLogger("torchao").setLevel(logging.CRITICAL)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file
    from torchao.prototype.mx_formats.config import ScaleCalculationMode as Mode
    from torchao.prototype.mx_formats.mx_tensor import MXTensor
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict, unflatten_tensor_state_dict
    from torchao.quantization import (Float8Tensor, Int4Tensor, Int8Tensor, IntxUnpackedToInt8Tensor, MappingType, PerBlock, PerGroup, PerRow,
                                      PerTensor)

NAME = "layers.0.up.weight"
E4M3, E5M2, FP4 = torch.float8_e4m3fn, torch.float8_e5m2, torch.float4_e2m1fn_x2
SYM, CLIPLESS, ASYM = MappingType.SYMMETRIC, MappingType.SYMMETRIC_NO_CLIPPING_ERR, MappingType.ASYMMETRIC


def weight(*shape, seed=3):
    r = np.random.default_rng(seed)
    x = r.standard_normal(shape).astype(np.float32) * np.exp2(r.integers(-6, 6, (*shape[:-1], 1))).astype(np.float32)
    return torch.from_numpy(x)


def save(path, tensors):
    arrays, metadata = flatten_tensor_state_dict(tensors)
    save_file(arrays, path, metadata=metadata)
    return path


def load(path):
    """What torchao makes of a file."""
    with safe_open(path, "pt") as opened:
        metadata = opened.metadata()
    tensors, left = unflatten_tensor_state_dict(load_file(path), metadata)
    return {**tensors, **left}


def dequantized(t):
    """torchao's own values, F32 where it has a choice; Int4Tensor has no dequantize: its definition, by NumPy."""
    if isinstance(t, Int4Tensor):
        codes = t.qdata.numpy().view(np.uint8)
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:-1], -1)
        codes = ((codes ^ 8).astype(np.int32) - 8).astype(np.float32)
        scale, zero = (np.repeat(np.swapaxes(a.float().numpy(), -1, -2), t.block_size[-1], axis=-1) for a in (t.scale, t.zero_point))
        return codes * scale + zero
    if isinstance(t, IntxUnpackedToInt8Tensor):
        return t.dequantize().view(torch.uint16).numpy().view(ml_dtypes.bfloat16) if t.dtype == torch.bfloat16 else t.dequantize().numpy()
    return t.dequantize(torch.float32).numpy()


def intx(x, bits, block, mapping=SYM, **more):
    return IntxUnpackedToInt8Tensor.from_hp(x, block, getattr(torch, f"int{bits}"), mapping_type=mapping, **more)


def float_zeros(dtype):
    """Nominally F32: of a narrower type torchao rounds code - zero point to it first."""
    q = torch.randint(-8, 8, (8, 64), dtype=torch.int8, generator=torch.Generator().manual_seed(1))
    return IntxUnpackedToInt8Tensor(q, (torch.rand(8, 2) + 0.5).to(dtype), (torch.rand(8, 2) * 4 - 2).to(dtype), torch.int4, (1, 32), torch.float32, None)


def int4(*shape, group=32, dtype=torch.bfloat16):
    g = torch.Generator().manual_seed(2)
    tables = (*shape[:-2], shape[-1] // group, shape[-2])
    codes = torch.randint(-128, 128, (*shape[:-1], shape[-1] // 2), dtype=torch.int8, generator=g)
    return Int4Tensor(codes, (torch.rand(tables, generator=g) - 0.3).to(dtype), torch.randn(tables, generator=g).to(dtype),
                      [1] * (len(shape) - 1) + [group], torch.Size(shape))


def nvfp4(x, scale=None, **more):
    return NVFP4Tensor.to_nvfp4(x, per_tensor_scale=scale, **more)


X, X3 = weight(128, 256), weight(3, 32, 96)
LIVE = {
    **{f"float8 {g} {d}": (lambda g=g, d=d: Float8Tensor.from_hp(X, float8_dtype=d, granularity=g))
       for g in (PerTensor(), PerRow(), PerRow(0), PerBlock([1, 128]), PerBlock([128, 128]), PerBlock([32, 64]), PerGroup(32)) for d in (E4M3, E5M2)},
    **{f"float8 of 3 axes {g}": (lambda g=g: Float8Tensor.from_hp(X3, granularity=g)) for g in (PerTensor(), PerRow(), PerBlock([1, 32, 96]))},
    "float8 of one axis": lambda: Float8Tensor(weight(64).to(E4M3), torch.full((1,), 0.5), [64]),
    "float8 without block_size": lambda: Float8Tensor(X.to(E4M3), torch.full((128, 2), 0.5)),
    "float8 bf16 scale": lambda: Float8Tensor(X.to(E4M3), torch.full((128, 1), 0.3).bfloat16(), [1, 256]),
    **{f"int8 {g} {m}": (lambda g=g, m=m: Int8Tensor.from_hp(X, g, mapping_type=m)) for g in (PerTensor(), PerRow(), PerGroup(32)) for m in (SYM, ASYM)},
    "int8 of 3 axes": lambda: Int8Tensor.from_hp(X3, PerRow(), mapping_type=ASYM),
    "int8 without zero points": lambda: Int8Tensor(X.to(torch.int8), torch.full((128, 1), 0.5), [1, 256], torch.float32),
    **{f"int{b} {block} {m}": (lambda b=b, block=block, m=m: intx(X, b, block, m))
       for b in range(2, 9) for block in ((1, 32), (1, 256)) for m in (SYM, CLIPLESS, ASYM)},
    "int1": lambda: IntxUnpackedToInt8Tensor((X > 0).to(torch.int8) - 1, torch.rand(128, 8) + 0.5, torch.zeros(128, 8, dtype=torch.int8), torch.int1, (1, 32),
                                             torch.float32, None),
    "int3 of odd rows": lambda: intx(weight(5, 33), 3, (1, 11), ASYM),
    "int4 bf16": lambda: intx(X.bfloat16(), 4, (1, 32), ASYM), "int4 f16": lambda: intx(weight(8, 64).half(), 4, (1, 64)),
    "int4 by columns": lambda: intx(X, 4, (128, 1)),
    **{f"float zero points {d}": (lambda d=d: float_zeros(d)) for d in (torch.float32, torch.float16, torch.bfloat16)},
    **{f"mx {e} {m.value} {'tiles' if s else ''}": (lambda e=e, m=m, s=s: MXTensor.to_mx(X, e, 32, m, is_swizzled_scales=s))
       for e in (E4M3, E5M2, FP4, "fp6_e2m3", "fp6_e3m2") for m in (Mode.FLOOR, Mode.RCEIL) for s in (False, True)},
    "mx of 3 axes": lambda: MXTensor.to_mx(X3, FP4, 32), "mx blocks of 16": lambda: MXTensor.to_mx(X, E4M3, 16),
    "mx ragged tiles": lambda: MXTensor.to_mx(weight(130, 288), E4M3, 32, is_swizzled_scales=True),
    **{f"nvfp4 {'two' if g else 'one'} {'tiles' if s else ''}":
       (lambda g=g, s=s: nvfp4(X, per_tensor_amax_to_scale(X.abs().max()) if g else None, is_swizzled_scales=s)) for g in (0, 1) for s in (False, True)},
    "nvfp4 by expert": lambda: nvfp4(X3, torch.tensor([0.5, 0.25, 3e-3]).view(3, 1, 1)),
    "nvfp4 activation": lambda: nvfp4(X, torch.tensor(0.125), act_per_tensor_scale=torch.tensor(0.5)),
    "int4 tensor": lambda: int4(24, 128), "int4 tensor f32": lambda: int4(8, 64, dtype=torch.float32), "int4 tensor of 3 axes": lambda: int4(2, 6, 64),
    "int4 tensor, one group a row": lambda: int4(8, 64, group=64, dtype=torch.float16),
}


@pytest.mark.parametrize("case", LIVE)
def test_what_torchao_stores_has_the_values_that_torchao_gives(tmp_path, case):
    t = LIVE[case]()
    path = save(tmp_path / "m.safetensors", {NAME: t, "layers.0.up.bias": torch.arange(4.0)})
    with files.Checkpoint(path) as c:
        c.usable()
        assert not c.findings and c.names() == ["layers.0.up.bias", NAME]
        assert c[NAME].dialect == "torchao" and type(t).__name__ in c[NAME].evidence
        expected = dequantized(t)
        golden_files.same(c[NAME].values(expected.dtype), expected, case)


def test_torchao_as_its_library_once_wrote_it(golden):
    path = golden / "torchao_flattened.safetensors"
    own = load(path)
    with files.Checkpoint(path) as c:
        c.usable()
        assert [(n, c[n].recipe) for n in c.names() if c[n].scaled] == [
            ("m.weight", "fp8-row"), ("n.weight", "int4, f32 per 1x32 block"), ("o.weight", "mxfp8"), ("p.weight", "nvfp4")]
        for name in ("m.weight", "n.weight", "o.weight", "p.weight"):
            golden_files.same(c[name].values(), dequantized(own[name]), name)


# ------------------------------------------------------------------------------------------------------ writing

def written(folder, x, recipe):
    """torchao's tensor of a file that breccia quantized."""
    source = files.write(folder / "source.safetensors", {NAME: x, "norm.weight": np.ones(4, np.float32)})
    files.quantize(source, folder / "t.safetensors", recipe, dialect="torchao", include=["*up*"])
    return folder / "t.safetensors"


AMAX = "format=e4m3,scale=f32"
RECIPES = {                          # recipe -> the same by torchao itself; None where torchao has no quantizer for it
    "fp8:arith=div": lambda x: Float8Tensor.from_hp(x, granularity=PerTensor()),
    "fp8-row": lambda x: Float8Tensor.from_hp(x, granularity=PerRow()),
    "fp8-row:format=e5m2": lambda x: Float8Tensor.from_hp(x, float8_dtype=E5M2, granularity=PerRow()),
    "fp8-row:block=column": lambda x: Float8Tensor.from_hp(x, granularity=PerRow(0)),
    "fp8-block": lambda x: Float8Tensor.from_hp(x, granularity=PerBlock([1, 128])),
    "fp8-block128": lambda x: Float8Tensor.from_hp(x, granularity=PerBlock([128, 128])),
    "fp8-block:block=1x32": lambda x: Float8Tensor.from_hp(x, granularity=PerGroup(32)),
    "fp8-block128:scale=e8m0,arith=div": None, "fp8-row:scale=bf16": None, "fp8": None,
    **{f"{name}:rule={m.value}": (lambda x, e=e, m=m: MXTensor.to_mx(x, e, 32, m))
       for name, e in (("mxfp8", E4M3), ("mxfp8:format=e5m2", E5M2), ("mxfp6-e3m2", "fp6_e3m2"), ("mxfp6-e2m3", "fp6_e2m3"), ("mxfp4", FP4))
       for m in (Mode.FLOOR, Mode.CEIL, Mode.EVEN, Mode.RCEIL)},
    "nvfp4:levels=1": lambda x: nvfp4(x), "nvfp4": lambda x: nvfp4(x, per_tensor_amax_to_scale(x.abs().max())),
    "int8:arith=recip": lambda x: Int8Tensor.from_hp(x, PerRow()), "int8:rule=minmax,arith=recip": lambda x: Int8Tensor.from_hp(x, PerRow(), mapping_type=ASYM),
    "int8:block=1x32,arith=recip": lambda x: Int8Tensor.from_hp(x, PerGroup(32)),
    **{f"int4:format=int{b},scale=f32,group=32,arith=recip,epsilon=1.1754943508222875e-38": (lambda x, b=b: intx(x, b, (1, 32))) for b in range(2, 8)},
    "int4:scale=f32,group=32,rule=minmax,arith=recip,epsilon=1.1754943508222875e-38": lambda x: intx(x, 4, (1, 32), ASYM),
    "int4:scale=f32,group=32,rule=noclip,arith=recip,epsilon=1.1754943508222875e-38": lambda x: intx(x, 4, (1, 32), CLIPLESS),
    "int4:format=uint4,group=32,scale=f32,rule=minmax": None, "int4": None, "int4:scale=bf16,group=64": None, "int8:scale=bf16": None,
}
RECIPES = {r.replace("mxfp8:format=e5m2:", "mxfp8:format=e5m2,"): make for r, make in RECIPES.items()}


def as_bytes(t):
    return np.frombuffer(t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(), np.uint8)


@pytest.mark.parametrize("recipe", RECIPES)
def test_torchao_opens_what_is_written_and_has_the_same_values(tmp_path, recipe):
    path = written(tmp_path, X.numpy(), recipe)
    found = load(path)
    assert set(found) == {NAME, "norm.weight"}
    with files.Checkpoint(path) as c:
        c.usable()
        assert not c.findings
        expected = dequantized(found[NAME])
        golden_files.same(c[NAME].values(expected.dtype), expected, recipe)
    if RECIPES[recipe] is None:
        return
    arrays, metadata = flatten_tensor_state_dict({NAME: RECIPES[recipe](X)})
    own = {name: a for name, a in load_file(path).items() if name != "norm.weight"}
    for name in set(arrays) - set(own):      # torchao's symmetric int8 has zero points of 0; without them the value is the same
        assert name.endswith("_zero_point") and not arrays.pop(name).any()
    assert set(own) == set(arrays)
    for name, a in arrays.items():
        assert a.dtype == own[name].dtype and a.shape == own[name].shape
        golden_files.same(as_bytes(own[name]), as_bytes(a), name)


# MXTensor is left out: torchao's layers want its activations quantized, which a weight does not say.
@pytest.mark.parametrize("recipe", ["fp8-row", "fp8-block128", "nvfp4", "int8", "int4:group=32,scale=bf16"])
def test_a_layer_computes_with_what_is_written(tmp_path, recipe):
    x = X.bfloat16()
    path = written(tmp_path, x.view(torch.uint16).numpy().view(ml_dtypes.bfloat16), recipe)
    w, a = load(path)[NAME], weight(4, 256, seed=5).bfloat16()
    assert w.dtype == torch.bfloat16 and w.shape == x.shape         # the nominal type is that of the source
    assert isinstance(w, IntxUnpackedToInt8Tensor) or torch.equal(w.dequantize(torch.bfloat16), w.dequantize())
    got, want = torch.nn.functional.linear(a, w).float(), torch.nn.functional.linear(a.float(), torch.from_numpy(dequantized(w).astype(np.float32)))
    assert (got - want).norm() <= 0.02 * want.norm()


@pytest.mark.parametrize("shape, recipe", [((16, 100), "mxfp8"), ((130, 128), "fp8-block128"), ((16, 48), "int4:group=32")])
def test_partial_blocks_have_no_place(tmp_path, shape, recipe):
    with pytest.raises(brc.Error, match="whole blocks") as refused:
        written(tmp_path, weight(*shape).numpy(), recipe)
    assert refused.value.name == "UNSUPPORTED"


def test_a_name_without_a_module_has_no_place(tmp_path):
    source = files.write(tmp_path / "s.safetensors", {"weight": X.numpy()})
    with pytest.raises(brc.Error, match="no dot"):
        files.quantize(source, tmp_path / "t.safetensors", "fp8-row", dialect="torchao", include=["weight"])


def test_dequantizing_takes_the_descriptions_away(tmp_path):
    path = save(tmp_path / "m.safetensors", {NAME: LIVE["float8 PerRow(dim=-1) torch.float8_e4m3fn"](), "a.bias": torch.arange(4.0)})
    files.dequantize(path, tmp_path / "d.safetensors", "f32")
    arrays, metadata = files.read(tmp_path / "d.safetensors")
    assert set(arrays) == {NAME, "a.bias"} and NAME not in metadata and "tensor_names" not in metadata


@pytest.mark.parametrize("case", LIVE)
def test_read_and_written_is_the_same(tmp_path, case):
    path = save(tmp_path / "m.safetensors", {NAME: LIVE[case](), "layers.0.up.bias": torch.arange(4.0)})
    assert files.convert(path, tmp_path / "t.safetensors", "torchao")[NAME][0] == "bit-exact"
    before, after = files.read(path), files.read(tmp_path / "t.safetensors")
    files.same_arrays(before[0], after[0])
    assert before[1] == after[1]


@pytest.mark.parametrize("case", LIVE)
def test_the_value_alone_gives_the_same_arrays(tmp_path, case):
    """But for what it does not say: tiles, a scale of BF16 beside FP8, scales of activations."""
    t = LIVE[case]()
    path = save(tmp_path / "m.safetensors", {NAME: t})
    before, after = files.stored_again(path, tmp_path / "again.safetensors")
    if "tiles" in case:
        before = files.read(save(tmp_path / "plain.safetensors", {NAME: untiled(t)}))[0]
    if "bf16 scale" in case:
        before[SCALE] = ("F32", before[SCALE][1].astype(np.float32))
    if "without block_size" not in case and "one axis" not in case:
        assert json.loads(files.read(tmp_path / "again.safetensors")[1][NAME])["_data"]["block_size"] == (list(t.block_size) if isinstance(t.block_size, tuple) else t.block_size)
    before.pop("layers.0.up._weight_act_per_tensor_scale", None)
    files.same_arrays(before, after)
    again = load(tmp_path / "again.safetensors")[NAME]
    if not ("float zero points" in case and again.dtype != t.dtype):    # torchao subtracts those in the nominal type
        golden_files.same(dequantized(again), dequantized(t))


def untiled(t):
    from torchao.prototype.mx_formats.utils import from_blocked
    scale = from_blocked(t.scale, t.shape[0], t.shape[1] // t.block_size).contiguous()
    if isinstance(t, NVFP4Tensor):
        return NVFP4Tensor(t.qdata, scale, t.block_size, t.orig_dtype, t.per_tensor_scale)
    return MXTensor(t.qdata, scale, t.elem_dtype, t.block_size, t.orig_dtype, t.kernel_preference, None, False)


def test_a_class_that_stays_keeps_what_its_value_does_not_say(tmp_path):
    """Other numbers under the same class: tiles, activations and the nominal type are those of the source."""
    t = nvfp4(X, torch.tensor(0.125), act_per_tensor_scale=torch.tensor(0.5), is_swizzled_scales=True)
    t.orig_dtype = torch.bfloat16
    path = save(tmp_path / "m.safetensors", {NAME: t, "layers.0.up.bias": torch.arange(4.0)})
    files.convert(path, tmp_path / "t.safetensors", "torchao", ["nvfp4:levels=1"])
    own = load(tmp_path / "t.safetensors")
    assert set(own) == {NAME, "layers.0.up.bias"} and json.loads(files.read(tmp_path / "t.safetensors")[1]["tensor_names"]) == [NAME, "layers.0.up.bias"]
    assert own[NAME].is_swizzled_scales and own[NAME].per_tensor_scale is None and own[NAME].act_per_tensor_scale == 0.5
    assert own[NAME].dtype == torch.bfloat16
    with files.Checkpoint(tmp_path / "t.safetensors") as c:
        golden_files.same(c[NAME].values(), dequantized(own[NAME]))


# -------------------------------------------------------------------------------------------------- misreadings

def pieces(case):
    """({array: (dtype word, NumPy array)}, metadata) of one of torchao's tensors."""
    arrays, metadata = flatten_tensor_state_dict({NAME: LIVE[case]()})
    words = {E4M3: "F8_E4M3", E5M2: "F8_E5M2", torch.float8_e8m0fnu: "F8_E8M0", torch.bfloat16: "BF16"}
    plain = {}
    for name, a in arrays.items():
        word = words.get(a.dtype)
        plain[name] = files.WORD[a.numpy().dtype] if word is None else word, (a if word is None else a.view(torch.uint8 if a.dtype.itemsize == 1 else torch.uint16)).numpy()
    return plain, metadata


ROW, MX, NV, INT, PACKED = "float8 PerRow(dim=-1) torch.float8_e4m3fn", f"mx {E4M3} floor ", "nvfp4 two ", "int4 (1, 32) MappingType.ASYMMETRIC", "int4 tensor"
QDATA, SCALE, ZERO, GLOBAL = (f"layers.0.up._weight_{n}" for n in ("qdata", "scale", "zero_point", "per_tensor_scale"))


def attribute(key, value):
    def change(arrays, metadata):
        description = json.loads(metadata[NAME])
        description["_data"][key] = value
        metadata[NAME] = json.dumps(description)
    return change


def without(name, listed=True):
    def change(arrays, metadata):
        del arrays[name]
        if not listed:
            description = json.loads(metadata[NAME])
            description["_tensor_data_names"].remove(name.split("_weight_")[1])
            metadata[NAME] = json.dumps(description)
    return change


def array(name, word=None, change=lambda a: a):
    def apply(arrays, metadata):
        arrays[name] = (word or arrays[name][0], np.ascontiguousarray(change(arrays[name][1])))
    return apply


def text(value):
    def change(arrays, metadata):
        metadata[NAME] = value
    return change


def no_text(arrays, metadata):
    del metadata[NAME]


def tiled(name):
    def change(arrays, metadata):
        arrays[name] = pieces(f"mx {E4M3} floor tiles")[0][name]
    return change


MISREADINGS = {
    "scale transposed": (ROW, array(SCALE, change=np.transpose), "SHAPE", "rows and columns exchanged"),
    "scale of another tensor": (ROW, array(SCALE, change=lambda a: a[:7]), "SHAPE", r"blocks of \[1,256\]"),
    "int8 scale for fp8": (ROW, array(SCALE, "I32"), "FORMAT", "I32"),
    "codes as bytes": (ROW, array(QDATA, "U8"), "FORMAT", "has FP8"),
    "block_size of other blocks": (ROW, attribute("block_size", [1, 128]), "SHAPE", r"give \[128,2\]"),
    "block_size that does not divide": (ROW, attribute("block_size", [1, 100]), "SHAPE", "does not divide"),
    "block_size of another rank": (ROW, attribute("block_size", [256]), "MALFORMED", "no side for each"),
    "block_size of words": (ROW, attribute("block_size", [1, "x"]), "MALFORMED", "positive numbers"),
    "block_size negative": (ROW, attribute("block_size", [1, -256]), "MALFORMED", "positive numbers"),
    "block_size beyond 32 bits": (ROW, attribute("block_size", [1, 2**40]), "SHAPE", "does not divide"),
    "block_size gone, scale of no block": (ROW, lambda a, m: (attribute("block_size", None)(a, m), array(SCALE, change=lambda s: s[:7])(a, m)), "SHAPE", "no block_size"),
    "scale missing": (ROW, without(SCALE), "MALFORMED", "missing"),
    "codes missing": (ROW, without(QDATA), "MALFORMED", "missing"),
    "scale missing, not listed": (ROW, without(SCALE, listed=False), "MALFORMED", "its scale is missing"),
    "array not listed": (NV, lambda a, m: text(m[NAME].replace('"per_tensor_scale", ', ""))(a, m), "MALFORMED", "does not list it"),
    "description missing": (ROW, no_text, "MALFORMED", "its description"),
    "orphan scale": (ROW, lambda a, m: (no_text(a, m), without(QDATA)(a, m)), "MALFORMED", "without its codes"),
    "exponents as numbers": (MX, array(SCALE, "F32", lambda a: a.astype(np.float32)), "FORMAT", "has F8_E8M0"),
    "tiles taken as plain": (MX, tiled(SCALE), "SHAPE", "says is_swizzled_scales false.*shape of 128x4 tiles"),
    "plain taken as tiles": (MX, attribute("is_swizzled_scales", True), "SHAPE", "says is_swizzled_scales true.*shape of plain"),
    "tiles of another shape": (f"mx {E4M3} floor tiles", array(SCALE, change=lambda a: a[:3]), "SHAPE", "in 128x4 tiles are"),
    "tiles neither true nor false": (MX, attribute("is_swizzled_scales", "yes"), "MALFORMED", "neither true nor false"),
    "element of another type": (MX, attribute("elem_dtype", {"_type": "torch.dtype", "_data": "float8_e5m2"}), "FORMAT", "its description says float8_e5m2"),
    "element of no type": (MX, attribute("elem_dtype", {"_type": "torch.dtype", "_data": "float32"}), "MALFORMED", "elem_dtype"),
    "fp4 taken as fp8": (MX, attribute("elem_dtype", {"_type": "torch.dtype", "_data": "float4_e2m1fn_x2"}), "FORMAT", "has U8"),
    "mx block of other size": (MX, attribute("block_size", 64), "SHAPE", r"give \[128,4\]"),
    "mx scale transposed": (MX, array(SCALE, change=np.transpose), "SHAPE", "exchanged"),
    "block scales as exponents": (NV, array(SCALE, "F8_E8M0"), "FORMAT", "has F8_E4M3"),
    "global scale of every row": (NV, array(GLOBAL, change=lambda a: np.full((128, 1), a)), "SHAPE", "one number"),
    "global scale as bf16": (NV, array(GLOBAL, "BF16", lambda a: a.astype(ml_dtypes.bfloat16).view(np.uint16)), "FORMAT", "has F32"),
    "zero points missing": (INT, without(ZERO, listed=False), "MALFORMED", "zero_point is missing"),
    "zero points transposed": (INT, array(ZERO, change=np.transpose), "SHAPE", "exchanged"),
    "target of no type": (INT, attribute("target_dtype", {"_type": "torch.dtype", "_data": "uint4"}), "MALFORMED", "target_dtype"),
    "target as a string": (INT, attribute("target_dtype", "int4"), "MALFORMED", "target_dtype"),
    "groups not before rows": (PACKED, array(SCALE, change=np.transpose), "SHAPE", "rows and columns exchanged.*groups before rows"),
    "logical shape of another tensor": (PACKED, attribute("shape", [24, 64]), "SHAPE", "shape in its description"),
    "logical shape gone": (PACKED, attribute("shape", None), "SHAPE", "shape in its description"),
    "blocks for groups": (PACKED, attribute("block_size", [2, 32]), "UNSUPPORTED", "groups along rows"),
    "no JSON": (ROW, text('{"_type": "Float8Tensor", "_tensor_data_names": ["qdata"'), "MALFORMED", "no JSON object"),
    "duplicate keys": (ROW, text('{"_type": "Float8Tensor", "_type": "MXTensor", "_data": {}, "_tensor_data_names": []}'), "MALFORMED", "no JSON object"),
    "no attributes": (ROW, text('{"_type": "Float8Tensor", "_tensor_data_names": ["qdata", "scale"]}'), "MALFORMED", "no attributes"),
    "no list of arrays": (ROW, text('{"_type": "Float8Tensor", "_data": {}, "_tensor_data_names": 7}'), "MALFORMED", "no list"),
    "an unknown class": (ROW, text('{"_type": "FooTensor", "_data": {}, "_tensor_data_names": ["qdata", "scale"]}'), "UNSUPPORTED", "not known here"),
    "a device's packing": (ROW, text('{"_type": "Int4TilePackedTo4dTensor", "_data": {}, "_tensor_data_names": ["qdata", "scale"]}'), "UNSUPPORTED", "one device"),
    "a class that does not fit": (ROW, text('{"_type": "NVFP4Tensor", "_data": {}, "_tensor_data_names": ["qdata", "scale"]}'), "FORMAT", "has U8"),
    "over 1 MiB": (ROW, lambda a, m: attribute("dtype", "x" * (1 << 20))(a, m), "MALFORMED", "over 1 MiB"),
    "deep nesting": (ROW, lambda a, m: text('{"_type": "Float8Tensor", "_tensor_data_names": ' + "[" * 5000)(a, m), "MALFORMED", "no JSON object"),
}


@pytest.mark.parametrize("case", MISREADINGS)
def test_misreadings_are_refused(tmp_path, case):
    base, change, status, words = MISREADINGS[case]
    arrays, metadata = pieces(base)
    change(arrays, metadata)
    with files.Checkpoint(files.write(tmp_path / "m.safetensors", arrays, metadata)) as c:
        with pytest.raises(brc.Error, match=words) as refused:
            c.usable()
        assert refused.value.name == status and NAME in c.names()
        assert not c[NAME].scaled


def test_a_byte_beyond_the_target_is_refused_when_loaded(tmp_path):
    arrays, metadata = pieces(INT)
    arrays[QDATA][1][3, 5] = 8
    with files.Checkpoint(files.write(tmp_path / "m.safetensors", arrays, metadata)) as c:
        c.usable()
        with pytest.raises(brc.Error, match="is 8, which is no 4-bit code") as refused:
            c[NAME].values()
        assert refused.value.name == "MALFORMED"


def test_exponents_as_bytes_are_read_with_a_warning(tmp_path):
    arrays, metadata = pieces(MX)
    arrays[SCALE] = ("U8", arrays[SCALE][1])
    with files.Checkpoint(files.write(tmp_path / "m.safetensors", arrays, metadata)) as c:
        c.usable()
        assert [f.severity for f in c.findings] == ["warning"] and "read as exponents" in c.findings[0].text
        golden_files.same(c[NAME].values(), dequantized(LIVE[MX]()))


def test_a_shard_alone_says_what_is_not_in_it(tmp_path):
    arrays, metadata = pieces(ROW)
    with files.Checkpoint(files.write(tmp_path / "m.safetensors", {"a.bias": np.ones(3, np.float32)}, metadata)) as c:
        c.usable()
        assert c.names() == ["a.bias"] and [(f.severity, f.tensor) for f in c.findings] == [("warning", NAME)]


def test_asked_for_as_another_dialect(tmp_path):
    path = save(tmp_path / "m.safetensors", {NAME: LIVE[ROW]()})
    with files.Checkpoint(path, "deepseek") as c, pytest.raises(brc.Error, match="this is torchao"):
        c.usable()


BROKEN = st.recursive(st.none() | st.booleans() | st.integers(-2**63, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
                      lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["_type", "_data", "block_size", "x"]), inner, max_size=4), max_leaves=8)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([ROW, MX, NV, INT, PACKED]), st.sampled_from(["block_size", "elem_dtype", "target_dtype", "shape", "is_swizzled_scales", "dtype"]), BROKEN)
def test_any_attribute_is_read_or_refused(tmp_path_factory, case, key, value):
    arrays, metadata = PIECES[case] if case in PIECES else PIECES.setdefault(case, pieces(case))
    metadata = dict(metadata)
    attribute(key, value)(arrays, metadata)
    with files.Checkpoint(files.write(tmp_path_factory.getbasetemp() / "any.safetensors", arrays, metadata)) as c:
        try:
            c.usable()
        except brc.Error as refused:
            assert refused.name in ("SHAPE", "MALFORMED", "FORMAT", "UNSUPPORTED") and "\n" not in refused.text
            return
        golden_files.same(c[NAME].values(), dequantized(LIVE[case]()))          # what is read, is read right


PIECES = {}


@pytest.mark.parametrize("shape", ["1x1", "5x3", "128x4", "130x9", "300x7"])
def test_tiles_of_128_rows_and_4_columns(golden, tmp_path, shape):
    """The golden index matrices, 16 bits of an index in two scale tables of bytes."""
    g = golden_files.load(golden / "swizzle_128x4.safetensors")
    plain, tiles = g[f"in_{shape}"], g[f"blocked_{shape}"]
    rows, cols = plain.shape
    for byte in (0, 8):
        scale = (tiles.reshape(-(-rows // 128) * 32, -1) >> byte & 255).astype(np.uint8)
        arrays = {QDATA: ("F8_E4M3", np.full((rows, 32 * cols), 0x38, np.uint8)), SCALE: ("F8_E8M0", scale)}
        metadata = {NAME: pieces(f"mx {E4M3} floor tiles")[1][NAME]}
        with files.Checkpoint(files.write(tmp_path / "m.safetensors", arrays, metadata)) as c:
            c.usable()
            t = c[NAME].tensor()
            np.testing.assert_array_equal(t.scale.view(np.uint8).reshape(rows, cols), (plain >> byte & 255).astype(np.uint8))
