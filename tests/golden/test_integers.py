# SPDX-License-Identifier: Apache-2.0
"""INT8 and INT4: torchao's integers (arith=recip) and compressed-tensors' (arith=div)."""
import numpy as np
import pytest
from golden_files import load, same

BLOCK = {"tensor": "block=tensor", "row": "block=row", "group32": "group=32"}
TINY = "1.17549435e-38"     # the scale's lower bound in IntxUnpackedToInt8Tensor; Int8Tensor has 2^-23, the default


def signed4(packed, n):
    """INT4 codes of packed rows, one a byte."""
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:-1], -1)[..., :n]
    return ((codes ^ 8).astype(np.int8) - 8).astype(np.int8)


def compare(brc, file, key, recipe):
    x = file["x"]
    t = brc.cast(x, recipe)
    want = file[key + ".scale"]
    same(t.scale.reshape(want.shape), want, "scale")
    codes = signed4(t.data, x.shape[1]) if recipe.startswith("int4") else t.data
    same(codes, file[key + ".data"], "data")
    if t.zero is not None:
        same(t.zero.reshape(want.shape), file[key + ".zero_point"], "zero point")
    else:
        assert (file[key + ".zero_point"] == 0).all()
    same(brc.dequantize(t), file[key + ".deq"], "dequantized")


@pytest.mark.parametrize("mapping", ["sym", "asym"])
@pytest.mark.parametrize("tag", BLOCK)
def test_int8_torchao(brc, golden, tag, mapping):
    recipe = f"int8:{BLOCK[tag]},arith=recip" + (",rule=minmax" if mapping == "asym" else "")
    compare(brc, load(golden / "int_torchao.safetensors"), f"int8.{tag}.{mapping}", recipe)


@pytest.mark.parametrize("mapping, rule", [("sym", ""), ("sym_noclip", ",rule=noclip"), ("asym", ",rule=minmax")])
def test_int4_torchao(brc, golden, mapping, rule):
    recipe = f"int4:group=32,scale=f32,arith=recip,epsilon={TINY}{rule}"
    compare(brc, load(golden / "int_torchao.safetensors"), f"intx4.group32.{mapping}", recipe)


@pytest.mark.parametrize("tag, bits, rule", [("pack4_sym", 4, ""), ("pack4_asym", 4, ",rule=minmax"), ("pack8_sym", 8, ""),
                                             ("pack2_sym", 2, ""), ("pack3_sym", 3, ""), ("pack5_sym", 5, ""), ("pack6_sym", 6, ""),
                                             ("pack3_asym", 3, ",rule=minmax")])
def test_compressed_tensors_groups(brc, golden, tag, bits, rule):
    file = load(golden / "compressed_tensors.safetensors")
    x = file["w"]
    t = brc.cast(x, f"int4:format=int{bits},group=32,scale=f32{rule}")
    want = file[tag + ".weight_scale"]
    same(t.scale.reshape(want.shape), want, "scale")
    # Their words: code = value + 2^(bits-1), element i at bit i*bits of the row's little-endian stream.
    stream = np.unpackbits(file[tag + ".weight_packed"].view(np.uint8).reshape(x.shape[0], -1), axis=1, bitorder="little")
    stream = stream[:, :x.shape[1] * bits].reshape(*x.shape, bits)
    theirs = (stream << np.arange(bits)).sum(-1) - (1 << (bits - 1))
    mine = np.unpackbits(t.data.view(np.uint8), axis=1, bitorder="little")[:, :x.shape[1] * bits].reshape(*x.shape, bits)
    mine = (mine << np.arange(bits)).sum(-1)
    mine = np.where(mine >= 1 << (bits - 1), mine - (1 << bits), mine)
    same(mine, theirs, "data")
    same(brc.dequantize(t), file[tag + ".decompressed"], "dequantized")


def test_compressed_tensors_int8_channel(brc, golden):
    file = load(golden / "compressed_tensors.safetensors")
    t = brc.cast(file["w"], "int8")
    same(t.scale.reshape(-1, 1), file["int8_channel.weight_scale"], "scale")
    same(t.data, file["int8_channel.weight"], "data")
    same(brc.dequantize(t), file["int8_channel.decompressed"], "dequantized")
