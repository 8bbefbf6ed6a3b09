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


def test_recipes_of_others_are_blocks_where_they_fit(tmp_path):
    """Integers, FP4 and MX numbers made elsewhere: the same codes and scales, without arithmetic."""
    w = weights()
    path = tmp_path / "m.gguf"
    made = {"a.weight": brc.cast(w, "int8:group=32,scale=f16"), "b.weight": brc.cast(w, "int4:group=32"), "c.weight": brc.cast(w, "mxfp4"),
            "d.weight": brc.cast(w, "nvfp4"), "e": w}
    files.save(path, "gguf", made)
    tensors, _ = read(path)
    assert {n: t[0] for n, t in tensors.items()} == {"a.weight": "Q8_0", "b.weight": "Q4_0", "c.weight": "MXFP4", "d.weight": "NVFP4", "d.scale": "F32", "e": "F32"}
    assert tensors["d.scale"][1:] == ((1,), made["d.weight"].globals.tobytes()) and ggml_c.opens(path)
    with files.Checkpoint(path) as c:
        c.usable()
        assert c["d.weight"].parts == {"data": "d.weight", "global_scale": "d.scale"} and c["d.weight"].meaning.startswith("value = element * (scale * global_scale)")
        for name in list(made)[:4]:
            golden_files.same(c[name].values(), brc.dequantize(made[name]), name)


@pytest.mark.parametrize("text, words", [("mxfp8", "gguf stores rows of whole blocks"), ("int4", "whole blocks"), ("fp8", "whole blocks"),
                                         ("int8:group=32,scale=f16", "rows of 48 numbers"), ("nvfp4:levels=1", "rows of 48 numbers")])
def test_what_has_no_blocks_is_refused(tmp_path, text, words):
    w = weights(cols=48 if "48" in words else 128)
    with pytest.raises(brc.Error, match=words) as stopped:
        files.save(tmp_path / "m.gguf", "gguf", {"a.weight": brc.cast(w, text + (",partial=1" if ":" in text else ":partial=1"))})
    assert stopped.value.name == "UNSUPPORTED" and not list(tmp_path.iterdir())


def test_scales_that_ggml_would_read_as_others_are_refused(tmp_path):
    codes = np.zeros((1, 64), np.uint8)
    for scales, format, words in (([[0xFF, 127]], "e8m0", "NaN"), ([[0x7F, 1, 1, 1]], "e4m3", "NaN or negative"), ([[0x81, 1, 1, 1]], "e4m3", "NaN or negative")):
        cols = 64 // len(scales[0])
        t = brc.tensor("e2m1", (1, 64), codes[:, :32], scale=(np.array(scales, np.uint8), format, (1, 1, cols)), layout="per_block_mn")
        with pytest.raises(brc.Error, match=words):
            files.save(tmp_path / "m.gguf", "gguf", {"a.weight": t})
    assert not list(tmp_path.iterdir())


def test_files_go_with_their_dialects(tmp_path):
    source = files.write(tmp_path / "s.safetensors", {"a.weight": weights()})
    for target, dialect in (("m.safetensors", "gguf"), ("m", "gguf"), ("m.gguf", "breccia"), ("m.gguf", "deepseek")):
        with pytest.raises(brc.Error, match="tensors are stored in a"):
            files.quantize(source, tmp_path / target, "q8_0", dialect)
        with pytest.raises(brc.Error, match="tensors are stored in a"):
            files.convert(source, tmp_path / target, dialect)
        assert not (tmp_path / target).exists()


# ---------------------------------------------------------------------------------------------- whole checkpoints

MODEL_PAIRS = [("string", "general.name", "tiny"), ("uint32", "general.alignment", 64), ("uint32", "general.file_type", 2), ("float32", "llama.rope.freq_base", 1e4),
               ("array", "tokenizer.ggml.tokens", [f"<{i}>" for i in range(500)]), ("array", "tokenizer.ggml.scores", [0.5] * 500), ("bool", "tokenizer.ggml.add_bos_token", True)]


@pytest.fixture
def model(tmp_path):
    w = weights(64, 256)
    tensors = {"blk.0.ffn_up.weight": ("Q4_0", quants.quantize(w, Type.Q4_0)), "blk.0.ffn_down.weight": ("Q4_K", random_blocks("Q4_K", 64, 1)),
               "blk.0.attn_q.weight": ("Q6_K", random_blocks("Q6_K", 64, 1)), "output_norm.weight": np.ones(256, np.float32),
               "token_embd.weight": w.astype(np.float16)}
    return write(tmp_path / "model.gguf", tensors, MODEL_PAIRS)


def pairs_of(path):
    reader = gguf.GGUFReader(path)
    return {k: (f.types, f.contents()) for k, f in reader.fields.items() if not k.startswith("GGUF.")}


def test_gguf_to_gguf_keeps_blocks_and_typed_pairs(tmp_path, model):
    """Nothing asked for: everything bit for bit. Another recipe for one tensor: the rest stays, the pairs too, but for what they say of types."""
    found = files.convert(model, tmp_path / "same.gguf", "gguf")
    assert {c for c, _ in found.values()} == {"bit-exact"}
    assert read(tmp_path / "same.gguf")[0] == read(model)[0] and pairs_of(tmp_path / "same.gguf") == pairs_of(model)
    found = files.convert(model, tmp_path / "one.gguf", "gguf", ["q8_0"], include=["*ffn_down*"])
    assert {n: c for n, (c, _) in found.items() if c != "bit-exact"} == {"blk.0.ffn_down.weight": "lossy"}
    before, after = read(model)[0], read(tmp_path / "one.gguf")[0]
    assert after["blk.0.ffn_down.weight"][0] == "Q8_0" and all(after[n] == t for n, t in before.items() if "ffn_down" not in n)
    changed = pairs_of(tmp_path / "one.gguf")
    assert {k: v for k, v in changed.items() if k not in ("general.file_type", "general.quantization_version")} == \
           {k: v for k, v in pairs_of(model).items() if k != "general.file_type"}
    assert changed["general.file_type"][1] in (2, 7) and changed["general.quantization_version"][1] == 2


def values_of(path):
    with files.Checkpoint(path) as c:
        c.usable()
        return {n: c[n].values() for n in c.names() if c[n].scaled}


def test_q4_0_goes_to_q8_0_exactly(tmp_path, model):
    """d*q with |q| <= 8 is a Q8_0 block as it is, where no scale is negative or 0; else it is cast, and said so."""
    found = files.convert(model, tmp_path / "q8.gguf", "gguf", ["q8_0"])
    after, before = values_of(tmp_path / "q8.gguf"), values_of(model)
    for name, (kind, _) in found.items():
        if kind == "value-exact":
            golden_files.same(after[name] + np.float32(0), before[name] + np.float32(0), name)


@pytest.mark.parametrize("dialect, recipes", [("breccia", []), ("breccia", ["int4:group=32"]), ("deepseek", []), ("plain", [])])
def test_to_safetensors_and_back(tmp_path, model, dialect, recipes):
    """The pairs that safetensors can hold go along as text; arrays are named as left behind."""
    target = tmp_path / "model.safetensors"
    found = files.convert(model, target, dialect, recipes)
    arrays, metadata = files.read(target)
    assert metadata["general.name"] == "tiny" and metadata["llama.rope.freq_base"] == "10000" and metadata["tokenizer.ggml.add_bos_token"] == "true"
    assert "tokenizer.ggml.tokens" not in metadata and "general.file_type" not in metadata
    before, lossless = values_of(model), {n for n, (c, _) in found.items() if c in ("bit-exact", "value-exact")}
    if dialect == "plain":
        assert all(word in ("BF16", "F16", "F32") for word, _ in arrays.values())
        return
    after = values_of(target)
    assert set(after) == set(before)
    for name in before:
        if name in lossless:
            golden_files.same(after[name], before[name], name)
    if dialect == "breccia" and not recipes:
        assert lossless >= set(before)                          # every block type is a value
        files.convert(target, tmp_path / "back.gguf", "gguf")
        assert read(tmp_path / "back.gguf")[0]["blk.0.ffn_up.weight"] == read(model)[0]["blk.0.ffn_up.weight"]


def test_arrays_of_pairs_that_stay_behind_are_told(tmp_path, model):
    left = {}
    files.dequantize(model, tmp_path / "plain.safetensors", left=left)
    assert left == {k: "an array of metadata, which GGUF alone holds" for k in ("tokenizer.ggml.tokens", "tokenizer.ggml.scores")}


@pytest.mark.parametrize("format, word", [("f32", "F32"), ("f16", "F16"), ("bf16", "BF16")])
def test_dequantized_gguf(tmp_path, model, format, word):
    path = tmp_path / "plain.gguf"
    files.dequantize(model, path, format)
    tensors, before = read(path)[0], values_of(model)
    assert ggml_c.opens(path) and {tensors[n][0] for n in before} == {word}
    assert all(tensors[n][2] == x.astype(brc.DTYPES[format]).tobytes() for n, x in before.items())
    assert {k: v for k, v in pairs_of(path).items()} == {k: v for k, v in pairs_of(model).items() if k != "general.file_type"}


def test_compare_of_two_ggufs(tmp_path, model):
    files.convert(model, tmp_path / "q8.gguf", "gguf", ["q8_0"])
    differences, missing, total = files.compare(model, tmp_path / "q8.gguf")
    assert not missing and total.sqnr > 30 and set(differences) == set(read(model)[0])
    assert differences["token_embd.weight"].noise == 0


def test_blocks_are_read_as_such_whatever_is_asked_for(tmp_path, model):
    for dialect in ("plain", "deepseek", "gguf"):
        with files.Checkpoint(model, dialect) as c:
            c.usable()
            assert c["blk.0.ffn_up.weight"].dialect == "gguf" and not c["token_embd.weight"].scaled


# ------------------------------------------------------------------------------------------------ misreadings

def nvfp4(path, scale, shape=(2, 64), word="NVFP4"):
    raw = random_blocks(word, int(np.prod(shape[:-1])), shape[-1] // 64 if word == "NVFP4" else shape[-1] // 256)
    return write(path, {"a.weight": (word, raw.reshape(*shape[:-1], -1)), "a.scale": scale, "a.input_scale": np.ones(1, np.float32)})


def test_global_scales(tmp_path):
    """One number, or one an expert: they multiply."""
    for shape, scale in (((2, 64), np.float32([0.5])), ((3, 2, 64), np.float32([0.5, 1, 3]))):
        path = nvfp4(tmp_path / f"{len(shape)}.gguf", scale, shape)
        with files.Checkpoint(path) as c:
            c.usable()
            raw = gguf.GGUFReader(path).tensors[0].data
            want = quants.dequantize(raw, Type.NVFP4) * (scale.reshape(-1, 1, 1) if len(shape) == 3 else scale)
            same(c["a.weight"].values(), want.astype(np.float32), "NVFP4")
            assert c["a.weight"].parts == {"data": "a.weight", "global_scale": "a.scale", "input_scale": "a.input_scale"}
        files.convert(path, tmp_path / f"out{len(shape)}.gguf", "gguf")
        assert read(tmp_path / f"out{len(shape)}.gguf")[0] == read(path)[0]


@pytest.mark.parametrize("scale, shape, word, words", [
    (np.ones(2, np.float32), (2, 64), "NVFP4", "neither one number nor one an expert"), (np.ones(1, np.float16), (2, 64), "NVFP4", "no F32"),
    (np.ones((2, 1), np.float32), (2, 64), "NVFP4", "neither one number"), (np.ones(4, np.float32), (3, 2, 64), "NVFP4", "neither one number"),
    (np.ones(1, np.float32), (2, 256), "Q4_K", "multiplies a tensor of a type with minimums")])
def test_scales_that_do_not_belong(tmp_path, scale, shape, word, words):
    with files.Checkpoint(nvfp4(tmp_path / "x.gguf", scale, shape, word)) as c:
        with pytest.raises(brc.Error, match=words) as stopped:
            c.usable()
        assert stopped.value.name == "UNSUPPORTED" and any(f.severity == "error" for f in c.verify())
    with pytest.raises(brc.Error):
        files.dequantize(tmp_path / "x.gguf", tmp_path / "out.gguf")


def test_blocks_that_are_not_read_are_named(tmp_path):
    path = write(tmp_path / "x.gguf", {"a.weight": ("IQ2_XXS", np.zeros((2, 66), np.uint8)), "b": np.ones(3, np.float32)})
    with files.Checkpoint(path) as c:
        with pytest.raises(brc.Error, match="not read yet: blocks of IQ2_XXS"):
            c.usable()
        assert c.names() == ["a.weight", "b"] and any("IQ2_XXS" in f.text for f in c.verify())
    for convert in (lambda: files.convert(path, tmp_path / "y.gguf", "gguf"), lambda: files.dequantize(path, tmp_path / "y.gguf")):
        with pytest.raises(brc.Error, match="IQ2_XXS"):
            convert()


def test_exponents_that_are_nan(tmp_path):
    """Byte 255 is NaN in OCP MX and 2^128 in ggml: verify says so, dequantize refuses."""
    raw = random_blocks("MXFP4", 1, 2)
    raw[0, 0] = 0xFF
    path = write(tmp_path / "x.gguf", {"a.weight": ("MXFP4", raw)})
    with files.Checkpoint(path) as c:
        assert [f.text for f in c.verify() if f.severity == "error"] == ["1 of 2 scales are NaN or infinite"]
    with pytest.raises(brc.Error, match="1 of 2 scales are NaN or infinite"):
        files.dequantize(path, tmp_path / "y.gguf")


def test_scales_that_flushed_are_a_warning(tmp_path):
    """ggml stores 0 for a block too small for half precision: its values are 0, which is no reason to refuse the file."""
    w = np.concatenate([weights(1, 32), weights(1, 32) * np.float32(1e-9)], 1)
    path = write(tmp_path / "x.gguf", {"a.weight": ("Q8_0", ggml_c.quantize(w, "Q8_0"))})
    with files.Checkpoint(path) as c:
        assert [(f.severity, f.text) for f in c.verify()] == [("warning", "1 of 2 scales are zero, their elements are not")]
    files.dequantize(path, tmp_path / "y.gguf")


# ------------------------------------------------------------------------------------------------ a real model

def test_smollm2(tmp_path, smollm2):
    """Every fifth tensor as gguf-py decodes it (each of the nine kinds of a layer, in several layers); the file again from its values; pairs and tokens kept."""
    reader = gguf.GGUFReader(smollm2)
    with files.Checkpoint(smollm2) as c:
        c.usable()
        assert not c.findings and len(c.names()) == len(reader.tensors) == 272
        scaled = {}
        for number, t in enumerate(reader.tensors):
            entry = c[t.name]
            if entry.scaled:
                scaled[t.name] = entry.tensor()
            if entry.scaled and number % 5 == 0:
                golden_files.same(brc.dequantize(scaled[t.name]), quants.dequantize(t.data, t.tensor_type), t.name)
        assert len(scaled) == 211
        some = {n: scaled[n] for n in list(scaled)[:9]}
        files.save(tmp_path / "again.gguf", "gguf", some)
    again = {t.name: t.data.tobytes() for t in gguf.GGUFReader(tmp_path / "again.gguf").tensors}
    assert again == {t.name: t.data.tobytes() for t in reader.tensors if t.name in some}
