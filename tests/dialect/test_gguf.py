# SPDX-License-Identifier: Apache-2.0
"""GGUF's blocks: what gguf-py decodes and encodes, bit for bit; read, written back, and refused where they mean nothing."""
import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import quants

import breccia_c as brc
import checkpoint_files as files
import ggml_c
import golden_files

PLAIN = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4", "NVFP4"]
SUPER = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "TQ1_0", "TQ2_0"]
FP4 = ("MXFP4", "NVFP4")           # ggml decodes the code of -0 as +0: their zeros are compared by value


def same(got, want, word):
    if word.upper() in FP4:
        got, want = got + np.float32(0), want + np.float32(0)
    golden_files.same(got, want, word)


def write(path, tensors, pairs=()):
    """A GGUF file by gguf-py: {name: (type, bytes of rows)} or {name: array}; pairs: (method, key, value)."""
    writer = gguf.GGUFWriter(path, "llama")
    for method, key, value in pairs:
        getattr(writer, "add_" + method)(key, value)
    for name, tensor in tensors.items():
        if isinstance(tensor, tuple):
            writer.add_tensor(name, tensor[1], raw_dtype=Type[tensor[0]])
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def finite_halves(r, *shape):
    return (r.standard_normal(shape) * 0.05).astype(np.float16).view(np.uint8).reshape(*shape[:-1], -1)


def random_blocks(word, rows, blocks, seed=1):
    """Any bytes at all, but for half-precision numbers that are finite and scale bytes that mean the same everywhere."""
    r = np.random.default_rng(seed)
    numbers, size = gguf.GGML_QUANT_SIZES[Type[word]]
    raw = r.integers(0, 256, (rows, blocks, size), dtype=np.uint8)
    halves = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "TQ1_0": (52,), "TQ2_0": (64,),
              "Q4_1": (0, 2), "Q5_1": (0, 2), "MXFP4": (), "NVFP4": ()}.get(word, (0,))
    for at in halves:
        raw[..., at:at + 2] = finite_halves(r, rows, blocks, 1)
    if word == "MXFP4":
        raw[..., 0] = r.integers(0, 255, (rows, blocks))           # 255 is NaN in OCP MX, 2^128 in ggml
    if word == "NVFP4":
        raw[..., :4] = r.integers(0, 0x7F, (rows, blocks, 4))
    return raw.reshape(rows, blocks * size)


@pytest.fixture(scope="module")
def reference(golden):
    return golden_files.load(golden / "gguf_ref.safetensors")


# ------------------------------------------------------------------------------------------------- reading

def test_golden_values(golden, reference):
    with files.Checkpoint(golden / "blocks.gguf") as c:
        c.usable()
        assert not c.findings and not [f for f in c.verify() if f.severity == "error"]
        for name in c.names():
            if name not in ("f32", "bf16"):
                assert c[name].dialect == "gguf"
                same(c[name].values(), reference[name + ".deq"], name.removesuffix("_all_e"))


@pytest.mark.parametrize("word", PLAIN + SUPER)
def test_values_of_any_bytes(tmp_path, word):
    raw = random_blocks(word, 3, 5)
    path = write(tmp_path / "x.gguf", {"a.weight": (word, raw), "b.weight": np.ones((2, 3), np.float32)})
    with files.Checkpoint(path) as c:
        c.usable()
        entry = c["a.weight"]
        want = quants.dequantize(raw, Type[word])
        assert (entry.tensor().shape, entry.parts) == (want.shape, {"data": "a.weight"})
        assert word in entry.evidence and entry.meaning.startswith("value = ")
        same(entry.values(), want, word)
        assert c["b.weight"].dialect == "plain"
        assert not [f for f in c.verify() if f.severity == "error"]


def test_one_and_two_bits(tmp_path):
    """gguf-py knows no values of Q1_0 and nothing of Q2_0 (type 42): d or -d, and d*(q-1), by NumPy."""
    r = np.random.default_rng(3)
    d = finite_halves(r, 4, 1)
    ones = np.concatenate([d, r.integers(0, 256, (4, 16), dtype=np.uint8)], 1).reshape(2, 36)
    path = write(tmp_path / "x.gguf", {"one": ("Q1_0", ones), "two": ("Q1_0", ones)})
    raw = bytearray(path.read_bytes())
    at = raw.index(b"two") + 3 + 4                             # Q2_0 has blocks of 64 numbers, in as many bytes
    raw[at:at + 8] = (128).to_bytes(8, "little")
    raw[at + 16:at + 20] = (42).to_bytes(4, "little")
    path.write_bytes(raw)
    blocks = ones.reshape(4, 18)
    scales = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)
    signs = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little").astype(np.float32) * 2 - 1
    fields = (blocks[:, 2:, None] >> np.array([0, 2, 4, 6], np.uint8) & 3).reshape(4, 64).astype(np.float32)
    with files.Checkpoint(path) as c:
        c.usable()
        golden_files.same(c["one"].values(), (scales * signs).reshape(2, 256))
        golden_files.same(c["two"].values(), (scales * (fields - 1)).reshape(2, 128))


# ------------------------------------------------------------------------------------------------- writing

RECIPES = {"Q4_0": "q4_0", "Q4_1": "q4_1", "Q5_0": "q5_0", "Q5_1": "q5_1", "Q8_0": "q8_0", "IQ4_NL": "iq4_nl",
           "MXFP4": "mxfp4:rule=floor,arith=ggml", "NVFP4": "nvfp4:levels=1,arith=ggml"}


def weights(rows=48, cols=128, seed=11):
    return (np.random.default_rng(seed).standard_normal((rows, cols)) * 0.02).astype(np.float32)


def read(path):
    """({name: (type word, logical shape, bytes)}, {key: value}) by gguf-py."""
    reader = gguf.GGUFReader(path)
    tensors = {t.name: (t.tensor_type.name, tuple(int(n) for n in t.shape[::-1]), t.data.tobytes()) for t in reader.tensors}
    return tensors, {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}


@pytest.mark.parametrize("word", PLAIN)
def test_quantized_files_are_those_of_ggml(tmp_path, word):
    """From safetensors: gguf-py and ggml open the file, its blocks are what ggml makes of the weights."""
    w, path = weights(), tmp_path / "m.gguf"
    source = files.write(tmp_path / "s.safetensors", {"blk.0.ffn_up.weight": w, "output_norm.weight": np.ones(128, np.float32)}, {"general.name": "x"})
    outcomes = files.quantize(source, path, RECIPES[word], "plain")
    assert outcomes["blk.0.ffn_up.weight"].quantized and ggml_c.opens(path)
    tensors, pairs = read(path)
    assert tensors == {"blk.0.ffn_up.weight": (word, (48, 128), ggml_c.quantize(w, word).tobytes()),
                       "output_norm.weight": ("F32", (128,), np.ones(128, np.float32).tobytes())}
    assert pairs == {"general.name": "x", "general.quantization_version": 2,
                     "general.file_type": int(gguf.LlamaFileType["MOSTLY_" + word + ("_MOE" if word == "MXFP4" else "")])}
    with files.Checkpoint(path) as c:
        c.usable()
        same(c["blk.0.ffn_up.weight"].values(), ggml_c.dequantize(ggml_c.quantize(w, word), word), word)


@pytest.mark.parametrize("word", PLAIN)
def test_blocks_come_back_from_the_value_alone(tmp_path, word):
    """Any bytes: read as a tensor, written from that tensor, without what the file was."""
    raw = random_blocks(word, 4, 6, 5)
    with files.Checkpoint(write(tmp_path / "x.gguf", {"a.weight": (word, raw)})) as c:
        files.save(tmp_path / "y.gguf", "gguf", {"a.weight": c["a.weight"].tensor()})
    assert read(tmp_path / "y.gguf")[0]["a.weight"][2] == raw.tobytes()
