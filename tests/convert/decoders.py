# SPDX-License-Identifier: Apache-2.0
"""What each dialect stores, decoded by NumPy and ml_dtypes from the published descriptions alone: DECODERS[dialect](file, name).

A Decoded is value = f32(f32(x * m) + add): x = element less its zero point, m = what it is multiplied by, both spread over the whole
shape, so that two dialects can be compared element by element. A dialect without a decoder fails the tests that need one.
"""
import json
from types import SimpleNamespace

import gguf
import ml_dtypes
import numpy as np
from core.codes import BITS, values_of

import checkpoint_files as files

F = np.float32


class File:
    """Arrays and texts of a checkpoint: one .safetensors file, a folder, or a GGUF file (its tensors by gguf-py)."""

    def __init__(self, path):
        self.config, self.gguf = {}, None
        if path.suffix == ".gguf":
            self.gguf = {t.name: t for t in gguf.GGUFReader(path).tensors}
            self.names = set(self.gguf)
            return
        single = path / "model.safetensors" if path.is_dir() else path
        self.arrays, self.metadata = files.read(single)
        self.names = set(self.arrays)
        if path.is_dir():
            self.config = {p.name: json.loads(p.read_text()) for p in path.glob("*.json")}

    def __getitem__(self, name):
        return self.arrays[name][1]

    def word(self, name):
        return self.arrays[name][0]

    def first(self, *names):
        """The first of these arrays that is there, or None."""
        return next((self[n] for n in names if n in self.names), None)

    @property
    def quantization(self):
        return self.config.get("config.json", {}).get("quantization_config", {})


class Decoded(SimpleNamespace):
    @property
    def value(self):
        product = self.x.astype(F) * self.m.astype(F)
        return product if self.add is None else product + self.add.astype(F)


def decoded(x, m, add=None):
    shape = np.shape(x)
    return Decoded(x=np.asarray(x, F), m=np.broadcast_to(np.asarray(m, F), shape), add=None if add is None else np.broadcast_to(np.asarray(add, F), shape))


# ------------------------------------------------------------------------------------------------------- pieces

def nibbles(bytes_, signed=False):
    """Two codes a byte, the first one in the low bits."""
    b = np.asarray(bytes_).view(np.uint8)
    codes = np.stack([b & 15, b >> 4], -1).reshape(*b.shape[:-1], -1)
    return ((codes ^ 8).astype(np.int8) - 8) if signed else codes


def stream(words, bits, n):
    """n codes of each row's little-endian bit stream."""
    raw = np.ascontiguousarray(words).view(np.uint8).reshape(*words.shape[:-1], -1)
    flat = np.unpackbits(raw, axis=-1, bitorder="little")[..., :n * bits].reshape(*words.shape[:-1], n, bits)
    return (flat.astype(np.int64) << np.arange(bits)).sum(-1)


def e8m0(bytes_):
    return np.ldexp(1.0, np.asarray(bytes_).view(np.uint8).astype(int) - 127).astype(F)


def e4m3(bytes_):
    return np.asarray(bytes_).view(ml_dtypes.float8_e4m3fn).astype(F)


def e2m1(bytes_):
    return values_of("e2m1", nibbles(bytes_)).astype(F)


def spread(table, shape):
    """A table of blocks, one number for each, over the whole shape: leading axes as they are, the last two ceil-divided."""
    table = np.asarray(table, F)
    if table.size == 1:
        return np.broadcast_to(table.reshape(()), shape)
    table = table.reshape((1,) * (len(shape) - table.ndim) + table.shape)
    for axis, n in enumerate(shape):
        if table.shape[axis] != n:
            table = np.repeat(table, -(-n // table.shape[axis]), axis)
        table = table.take(range(n), axis)
    return table


def swizzled(scale, rows, cols):
    """128x4 tiles -> rows."""
    i, j = np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij")
    at = ((i // 128) * -(-cols // 4) + j // 4) * 512 + (i % 32) * 16 + ((i % 128) // 32) * 4 + j % 4
    return scale.reshape(-1)[at]


def scale_numbers(file, name):
    """A scale of any type: U8 and F8_E8M0 are exponents."""
    return e8m0(file[name]) if file.word(name) in ("U8", "F8_E8M0") else file[name].astype(F)


# ------------------------------------------------------------------------------------------------------ dialects

def plain(file, name):
    return decoded(file[name].astype(F), 1)


def breccia(file, name):
    config = json.loads(file.metadata[name + ".config"])
    fields, shape = config["recipe"]["fields"], config["shape"]
    format, bits = fields["format"], BITS[fields["format"]]
    data = file[name + ".data"]
    codes = data.view(np.uint8) if bits == 8 else stream(data, bits, shape[-1])
    x = values_of(format, codes).reshape(shape)
    scale = file[name + ".scale"]
    stored = fields.get("scale", "f32")                         # stored numbers: what is not said is F32
    numbers = e8m0(scale) if stored == "e8m0" else e4m3(scale) if stored == "e4m3" else scale.astype(F)
    m, add = spread(numbers, shape), None
    if name + ".global_scale" in file.names:
        g = file[name + ".global_scale"].reshape(())
        divides = fields.get("global", "").startswith("divisor") or fields.get("arith") in ("div", "ct")
        m = m / g if divides else m * g
    if name + ".zero_point" in file.names:
        zero = spread(file[name + ".zero_point"].astype(F), shape)
        if "real" in fields.get("zero", "") or fields.get("arith") == "ggml":       # ggml's offset, in units of the value
            add = zero
        else:
            x = x - zero
    if name + ".group_index" in file.names:
        index = file[name + ".group_index"]
        m = numbers[:, index]
        if add is None and name + ".zero_point" in file.names:
            x = values_of(format, codes).reshape(shape) - file[name + ".zero_point"].astype(F)[:, index]
    return decoded(x, m, add)


def deepseek(file, name):
    w, shape = file[name], file[name].shape
    scale = next(n for n in (name + "_scale_inv", name.removesuffix(".weight") + ".scale") if n in file.names)
    if file.word(name) == "I8":
        x = e2m1(w)
        return decoded(x, spread(scale_numbers(file, scale), x.shape))
    block = np.ceil(np.array(shape[-2:]) / np.array(file.quantization.get("weight_block_size", [128, 128])))
    numbers = scale_numbers(file, scale)
    assert numbers.shape[-2:] == tuple(block.astype(int))
    m = np.repeat(np.repeat(numbers, 128, -2), 128, -1)[..., :shape[-2], :shape[-1]]
    return decoded(e4m3(w), m)


def compressed_tensors(file, name):
    module = name.removesuffix(".weight")
    group = next(iter(file.quantization["config_groups"].values())) if len(file.quantization["config_groups"]) == 1 else _group_of(file, module)
    weights, format = group["weights"], group.get("format") or file.quantization["format"]
    bits, kind = weights.get("num_bits", 8), weights.get("type", "int")
    if "nvfp4" in format:
        x = e2m1(file[module + ".weight_packed"])
        return decoded(x, spread(e4m3(file[module + ".weight_scale"]), x.shape) / file[module + ".weight_global_scale"].reshape(()))
    if "mxfp4" in format:
        x = e2m1(file[module + ".weight_packed"])
        return decoded(x, spread(e8m0(file[module + ".weight_scale"]), x.shape))
    if "mxfp6" in format:
        packed = file[module + ".weight_packed"]
        x = values_of("e2m3", stream(packed, 6, packed.shape[-1] * 8 // 6)).astype(F)
        return decoded(x, spread(e8m0(file[module + ".weight_scale"]), x.shape))
    if format == "pack-quantized":
        shape = tuple(int(n) for n in file[module + ".weight_shape"])
        x = stream(file[module + ".weight_packed"], bits, shape[-1]).astype(F) - 2 ** (bits - 1)
        zero, index = file.first(module + ".weight_zero_point"), file.first(module + ".weight_g_idx")
        scale = file[module + ".weight_scale"].astype(F)
        of_columns = (lambda table: spread(table, shape)) if index is None else lambda table: table[:, index]
        if zero is not None:
            x = x - of_columns(stream(zero.T, bits, shape[0]).T.astype(F) - 2 ** (bits - 1))
        return decoded(x, of_columns(scale))
    w, scale = file[module + ".weight"], module + ".weight_scale"
    x = w.astype(F) if kind == "int" else e4m3(w)
    zero = file.first(module + ".weight_zero_point")
    if zero is not None:
        x = x - spread(zero.astype(F), x.shape)
    numbers = scale_numbers(file, scale)
    block = weights.get("block_structure")
    if block is not None and weights.get("strategy") == "block":
        return decoded(x, np.repeat(np.repeat(numbers, block[0], -2), block[1], -1)[..., :x.shape[-2], :x.shape[-1]])
    return decoded(x, spread(numbers, x.shape))


def _group_of(file, module):
    import re
    for group in file.quantization["config_groups"].values():
        for target in group["targets"]:
            if target == module or (target.startswith("re:") and re.match(target[3:], module)):
                return group
    raise KeyError(module)


def modelopt(file, name):
    module = name.removesuffix(".weight")
    w, scale = file[name], file[module + ".weight_scale"]
    second = file.first(module + ".weight_scale_2")
    if second is not None:
        x = e2m1(w)
        return decoded(x, spread(e4m3(scale), x.shape) * second.reshape(()))
    if file.word(name) == "U8" and file.word(module + ".weight_scale") in ("U8", "F8_E8M0"):
        x = e2m1(w)
        return decoded(x, spread(e8m0(scale), x.shape))
    if file.word(name) == "U8":
        half, k = w.shape                                        # W4A16: packed along N, row 2i in the low bits
        x = np.stack([nibbles(w.T.copy(), True).T[i::2] for i in (0, 1)], 1).reshape(2 * half, k)
        x = np.empty((2 * half, k), F)
        x[0::2], x[1::2] = ((w & 15) ^ 8).astype(np.int8) - 8, ((w >> 4) ^ 8).astype(np.int8) - 8
        return decoded(x, spread(scale, x.shape))
    x = w.astype(F) if file.word(name) == "I8" else e4m3(w)
    numbers = scale_numbers(file, module + ".weight_scale")
    if numbers.ndim == 1 and numbers.size == x.shape[0]:
        numbers = numbers[:, None]
    if numbers.ndim == 4:
        numbers = numbers[:, 0, :, 0]
    return decoded(x, spread(numbers, x.shape))


def torchao(file, name):
    told = json.loads(file.metadata[name])
    module, leaf = name.rsplit(".", 1)
    part = {p: file[f"{module}._{leaf}_{p}"] for p in told["_tensor_data_names"]}
    kind, attributes = told["_type"], told["_data"]
    q, scale = part["qdata"], part["scale"]

    def blocked(x, numbers):
        if attributes.get("is_swizzled_scales"):
            numbers = swizzled(numbers, x.shape[0], x.shape[1] // attributes["block_size"])
        return numbers

    if kind == "Float8Tensor":
        return decoded(e4m3(q) if file.word(f"{module}._{leaf}_qdata") == "F8_E4M3" else q.astype(F), spread(scale.astype(F), q.shape))
    if kind in ("Int8Tensor", "IntxUnpackedToInt8Tensor"):
        zero = part.get("zero_point")
        return decoded(q.astype(F) - (0 if zero is None else spread(zero.astype(F), q.shape)), spread(scale.astype(F), q.shape))
    if kind == "MXTensor":
        element = attributes["elem_dtype"]
        element = element["_data"] if isinstance(element, dict) else element
        x = (e4m3(q) if "e4m3" in element else e2m1(q) if "float4" in element else
             values_of({"fp6_e2m3": "e2m3", "fp6_e3m2": "e3m2"}[element], q) if "fp6" in element else q.astype(F))
        return decoded(x, spread(e8m0(blocked(x, scale)), x.shape))
    if kind == "NVFP4Tensor":
        x = e2m1(q)
        g = part.get("per_tensor_scale")
        return decoded(x, spread(e4m3(blocked(x, scale)), x.shape) * F(1 if g is None else g.reshape(())))
    if kind == "Int4Tensor":
        x = nibbles(q, True).astype(F)
        return decoded(x, spread(scale.T.astype(F), x.shape), spread(part["zero_point"].T.astype(F), x.shape))
    raise NotImplementedError(kind)


def gpt_oss(file, name):
    blocks, scales = file[name + "_blocks"], file[name + "_scales"]
    x = e2m1(blocks).reshape(*blocks.shape[:-2], -1)
    return decoded(x, spread(e8m0(scales), x.shape))


def gptq(file, name):
    module = name.removesuffix(".weight")
    settings = file.quantization or file.config.get("quantize_config.json", {})
    bits, older = settings["bits"], settings.get("checkpoint_format", settings.get("format", "gptq")) != "gptq_v2"
    words, scales = file[module + ".qweight"], file[module + ".scales"].astype(F)
    k, n = words.shape[0] * 32 // bits, words.shape[1]
    q = stream(words.T.copy(), bits, k)
    z = stream(file[module + ".qzeros"], bits, n).T + (1 if older else 0)
    index = file.first(module + ".g_idx")
    group = np.asarray(index) if index is not None else np.arange(k) // (k // scales.shape[0])
    return decoded(q.astype(F) - z[:, group], scales.T[:, group])


def awq(file, name):
    module = name.removesuffix(".weight")
    scales = file[module + ".scales"].astype(F)
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    if file.quantization.get("version", "gemm") != "gemm":
        words = file[module + ".qweight"]
        k = words.shape[1] * 8
        groups = k // file.quantization["group_size"]
        z = stream(file[module + ".qzeros"], 4, groups)
        return decoded(stream(words, 4, k).astype(F) - spread(z, (words.shape[0], k)), spread(scales[:, :groups], (words.shape[0], k)))

    def unpack(words):
        codes = stream(words.reshape(*words.shape, 1), 4, 8)[..., order]
        return codes.reshape(words.shape[0], -1)

    q, z = unpack(file[module + ".qweight"]), unpack(file[module + ".qzeros"])
    shape = q.T.shape
    return decoded(q.T.astype(F) - spread(z.T.astype(F), shape), spread(scales.T, shape))


def mlx(file, name):
    settings = file.config.get("config.json", {}).get("quantization", {})
    settings = {**settings, **settings.get(name.removesuffix(".weight"), {})}
    module, mode, bits = name.removesuffix(".weight"), settings.get("mode", "affine"), settings.get("bits", 4)
    words, scales = file[name], file[module + ".scales"]
    k = words.shape[-1] * 32 // bits
    codes = stream(words, bits, k)
    if mode == "affine":
        return decoded(codes, spread(scales.astype(F), codes.shape), spread(file[module + ".biases"].astype(F), codes.shape))
    x = e4m3(codes.astype(np.uint8)) if bits == 8 else values_of("e2m1", codes)
    return decoded(x, spread(e4m3(scales) if mode == "nvfp4" else e8m0(scales), codes.shape))


def fbgemm(file, name):
    return decoded(e4m3(file[name]), spread(file[name + "_scale"].reshape(-1, 1), file[name].shape))


def comfyui(file, name):
    module = name.removesuffix(".weight")
    told = file.first(module + ".comfy_quant")
    layers = json.loads(file.metadata.get("_quantization_metadata", '{"layers": {}}'))["layers"]
    format = (json.loads(told.tobytes()) if told is not None else layers.get(module, {"format": "older"}))["format"]
    w, scale = file[name], file.first(module + ".weight_scale", module + ".scale_weight")
    if format == "nvfp4":                                        # the first code of a pair in the high bits
        x = values_of("e2m1", np.stack([w >> 4, w & 15], -1).reshape(len(w), -1)).astype(F)
        m = spread(e4m3(swizzled(scale, len(x), x.shape[1] // 16)), x.shape) * file[module + ".weight_scale_2"].reshape(())
        return decoded(x, m)
    if format == "mxfp8":
        return decoded(e4m3(w), spread(e8m0(swizzled(scale, len(w), w.shape[1] // 32)), w.shape))
    return decoded(w.astype(F), spread(scale.astype(F), w.shape))


def bitsandbytes(file, name):
    scb = file.first(name.removesuffix("weight") + "SCB")
    if scb is not None:
        return decoded(file[name].astype(F), spread((scb / F(127))[:, None], file[name].shape))
    state = json.loads(file[name + ".quant_state.bitsandbytes__nf4"].tobytes())
    codes = file[name].reshape(-1)
    x = file[name + ".quant_map"][np.stack([codes >> 4, codes & 15], -1).reshape(-1)]
    absmax = file[name + ".absmax"]
    if "nested_offset" in state:
        groups = np.arange(absmax.size) // state["nested_blocksize"]
        absmax = file[name + ".nested_quant_map"][absmax] * file[name + ".nested_absmax"][groups] + F(state["nested_offset"])
    return decoded(x.reshape(state["shape"]), np.repeat(absmax, state["blocksize"])[:x.size].reshape(state["shape"]))


def _halves(qs):
    """Byte j of 16 holds elements j and j + 16."""
    return np.concatenate([qs & 15, qs >> 4], -1)


def gguf_blocks(file, name):
    t = file.gguf[name]
    kind, shape = t.tensor_type.name, tuple(int(n) for n in reversed(t.shape))
    if kind in ("F32", "F16", "BF16"):
        return decoded(gguf.quants.dequantize(t.data, t.tensor_type).reshape(shape), 1)
    size, length = gguf.GGML_QUANT_SIZES[t.tensor_type]
    raw = np.ascontiguousarray(t.data).view(np.uint8).reshape(-1, length)

    def half(at):
        return raw[:, at:at + 2].copy().view(np.float16).astype(F)

    add = None
    if kind == "Q8_0":
        x, m = raw[:, 2:].view(np.int8).astype(F), half(0)
    elif kind == "Q4_0":
        x, m = _halves(raw[:, 2:]).astype(F) - 8, half(0)
    elif kind == "IQ4_NL":
        x, m = values_of("iq4_nl", _halves(raw[:, 2:])), half(0)
    elif kind == "Q4_1":
        x, m, add = _halves(raw[:, 4:]).astype(F), half(0), half(2)
    elif kind in ("Q5_0", "Q5_1"):
        at = 2 if kind == "Q5_0" else 4
        high = np.unpackbits(raw[:, at:at + 4], axis=-1, bitorder="little")
        x = (_halves(raw[:, at + 4:]) | high << 4).astype(F) - (16 if kind == "Q5_0" else 0)
        m, add = half(0), half(2) if kind == "Q5_1" else None
    elif kind == "MXFP4":
        x, m = values_of("e2m1", _halves(raw[:, 1:])), e8m0(raw[:, :1])
    elif kind == "NVFP4":
        qs = raw[:, 4:].reshape(-1, 4, 8)
        x = values_of("e2m1", np.concatenate([qs & 15, qs >> 4], -1)).reshape(-1, 64)
        d = np.where(raw[:, :4] == 0x7F, 0, e4m3(raw[:, :4]))
        m = np.repeat(d, 16, -1)
    else:
        x, m = gguf.quants.dequantize(t.data, t.tensor_type).reshape(-1, size), 1
    extra = file.gguf.get(name.removesuffix(".weight") + ".scale")
    if kind == "NVFP4" and extra is not None:
        m = m * extra.data.astype(F).reshape(())
    spread_ = lambda a: None if a is None else np.broadcast_to(np.asarray(a, F), (len(raw), size)).reshape(shape)
    return decoded(np.asarray(x, F).reshape(shape), spread_(m), spread_(add))


DECODERS = {"plain": plain, "breccia": breccia, "deepseek": deepseek, "compressed-tensors": compressed_tensors, "modelopt": modelopt, "torchao": torchao,
            "gpt-oss": gpt_oss, "gptq": gptq, "awq": awq, "mlx": mlx, "fbgemm-fp8": fbgemm, "comfyui": comfyui, "bitsandbytes": bitsandbytes, "gguf": gguf_blocks}
