# SPDX-License-Identifier: Apache-2.0
"""GPTQ checkpoints: recorded words decoded, every width and version, and what must not be read."""
import json

import numpy as np
import pytest

import breccia_c as brc
import checkpoint_files as files
import golden_files

NAME = "model.layers.0.q_proj"


def config(bits=4, group=32, version="gptq", **more):
    settings = {"quant_method": "gptq", "bits": bits, "group_size": group, **more}
    return {"quantization_config": settings | ({} if version is None else {"checkpoint_format": version})}


def checkpoint(folder, arrays, settings, file="config.json"):
    if settings is not None:
        (folder / file).write_text(json.dumps(settings))
    return files.write(folder / "model.safetensors", {f"{NAME}.{part}": array for part, array in arrays.items()})


def golden_arrays(golden, bits, version=1):
    g = golden_files.load(golden / "gptq_awq.safetensors")
    p = f"gptq{bits}."
    return {"qweight": g[p + "qweight"], "qzeros": g[p + f"qzeros_v{version}"], "scales": g[p + "scales"], "g_idx": g[p + "g_idx"]}, g[p + "deq"].T


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_golden_words(golden, tmp_path, bits, version):
    arrays, expected = golden_arrays(golden, bits, version)
    with files.Checkpoint(checkpoint(tmp_path, arrays, config(bits, version={1: "gptq", 2: "gptq_v2"}[version]))) as c:
        c.usable()
        assert not c.findings and c.names() == [NAME + ".weight"]
        golden_files.same(c[NAME + ".weight"].values(), expected, f"{bits} bits")
        assert f"{bits} bits" in c[NAME + ".weight"].evidence and ("less one" in c[NAME + ".weight"].evidence) == (version == 1)


def stream(codes, bits):
    """[rows, n] codes -> [rows, n * bits / 32] words, by way of single bits."""
    rows, n = codes.shape
    single = (codes[:, :, None] >> np.arange(bits)) & 1
    packed = np.packbits(single.reshape(rows, n * bits).astype(np.uint8), axis=1, bitorder="little")
    return packed.view(np.uint32).view(np.int32)


def made(n, k, group, bits, seed=0, version=1):
    rng = np.random.default_rng(seed)
    codes, zeros = rng.integers(0, 1 << bits, (n, k)), rng.integers(1, 1 << bits, (-(-k // group), n))
    scales = rng.uniform(0.001, 0.1, zeros.shape).astype(np.float16)
    arrays = {"qweight": np.ascontiguousarray(stream(codes, bits).T), "qzeros": stream(zeros - (version == 1), bits), "scales": scales}
    of = np.arange(k) // group
    values = (codes - zeros[of].T).astype(np.float32) * scales[of].T.astype(np.float32)
    return arrays, values


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("n, k, group, said", [(32, 64, 32, 32), (64, 96, 96, -1), (32, 96, 64, 64), (96, 32, 128, 128)])
def test_groups_without_an_index(tmp_path, bits, n, k, group, said):
    arrays, values = made(n, k, min(group, k), bits)
    with files.Checkpoint(checkpoint(tmp_path, arrays, config(bits, said, version=None))) as c:
        c.usable()
        np.testing.assert_array_equal(c[NAME + ".weight"].values(), values)


@pytest.mark.parametrize("file", ["config.json", "quantize_config.json"])
def test_where_the_description_stands(tmp_path, file):
    arrays, values = made(32, 64, 32, 4)
    settings = config() if file == "config.json" else {"bits": 4, "group_size": 32, "desc_act": False, "sym": False}
    with files.Checkpoint(checkpoint(tmp_path, arrays, settings, file)) as c:
        c.usable()
        np.testing.assert_array_equal(c[NAME + ".weight"].values(), values)


def test_a_forced_dialect_reads_version_1(tmp_path):
    arrays, values = made(32, 64, 32, 4)
    path = checkpoint(tmp_path, arrays, None)
    with files.Checkpoint(path) as c, pytest.raises(brc.Error, match="two readings fit: qzeros hold zero points less one") as stopped:
        c.usable()
    assert stopped.value.name == "AMBIGUOUS"
    with files.Checkpoint(path, "gptq") as c:
        c.usable()
        np.testing.assert_array_equal(c[NAME + ".weight"].values(), values)


ARRAYS, _ = made(32, 64, 32, 4)
MISREADINGS = {
    "zeros missing": ({k: v for k, v in ARRAYS.items() if k != "qzeros"}, config(), "MALFORMED", "qzeros is missing"),
    "scales missing": ({k: v for k, v in ARRAYS.items() if k != "scales"}, config(), "MALFORMED", "scales is missing"),
    "other bits in the config": (ARRAYS, config(8), "SHAPE", "have 4 bits, config.json says 8"),
    "other groups in the config": (ARRAYS, config(group=16), "SHAPE", "group_size 16 gives 4"),
    "scales transposed": (ARRAYS | {"scales": np.ascontiguousarray(ARRAYS["scales"].T)}, config(), "SHAPE", "do not fit each other"),
    "zeros of another width": (ARRAYS | {"qzeros": np.ones((2, 8), np.int32)}, config(), "SHAPE", "have 8 bits|do not fit"),
    "index of another length": (ARRAYS | {"g_idx": np.zeros(32, np.int32)}, config(), "SHAPE", "there are 64 columns"),
    "index as numbers": (ARRAYS | {"g_idx": np.zeros(64, np.float32)}, config(), "SHAPE", "there are 64 columns"),
    "planar bits": (ARRAYS, config(version="gptq_p"), "UNSUPPORTED", "neither gptq nor gptq_v2"),
    "words of another type": (ARRAYS | {"qzeros": ARRAYS["qzeros"].astype(np.int64)}, config(), "SHAPE", "do not fit each other"),
}


@pytest.mark.parametrize("misreading", MISREADINGS)
def test_no_misreading_passes(tmp_path, misreading):
    arrays, settings, status, words = MISREADINGS[misreading]
    with files.Checkpoint(checkpoint(tmp_path, arrays, settings)) as c:
        with pytest.raises(brc.Error, match=words) as stopped:
            c.usable()
        assert stopped.value.name == status
        with pytest.raises(brc.Error):
            c[NAME + ".weight"].tensor()


def test_a_field_that_readers_disagree_about_is_not_guessed(tmp_path):
    arrays, _ = made(32, 64, 32, 4)
    arrays["qzeros"][1, 2] = -1                                       # all fields 15
    with files.Checkpoint(checkpoint(tmp_path, arrays, config())) as c:
        c.usable()
        with pytest.raises(brc.Error, match="the field 15 of group 1, column 16: some readers take the zero point for 0") as stopped:
            c[NAME + ".weight"].tensor()
        assert stopped.value.name == "AMBIGUOUS"
        assert any(f.severity == "error" and "field 15" in f.text for f in c.verify()), c.verify()


def test_an_index_out_of_range(tmp_path):
    with files.Checkpoint(checkpoint(tmp_path, ARRAYS | {"g_idx": np.full(64, 2, np.int32)}, config())) as c:
        c.usable()
        with pytest.raises(brc.Error, match="column 0 is of group 2; there are 2"):
            c[NAME + ".weight"].tensor()


def test_symmetric_int4_written_and_read_back(tmp_path):
    w = np.random.default_rng(3).standard_normal((64, 256)).astype(np.float32)
    files.write(tmp_path / "model.safetensors", {NAME + ".weight": w})
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    files.quantize(tmp_path, tmp_path / "breccia", "int4")
    files.quantize(tmp_path, tmp_path / "gptq", "int4", "gptq")
    arrays, _ = files.read(tmp_path / "gptq" / "model.safetensors")
    settings = json.loads((tmp_path / "gptq" / "config.json").read_text())["quantization_config"]
    assert {name.removeprefix(NAME + "."): (word, a.shape) for name, (word, a) in arrays.items()} == {
        "qweight": ("I32", (32, 64)), "qzeros": ("I32", (2, 8)), "scales": ("F16", (2, 64)), "g_idx": ("I32", (256,))}
    assert settings == {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True, "checkpoint_format": "gptq"}
    assert json.loads((tmp_path / "gptq" / "quantize_config.json").read_text()) == settings
    assert (arrays[NAME + ".qzeros"][1] == 0x77777777).all()          # zero points 8, less one
    words, scales, of = arrays[NAME + ".qweight"][1], arrays[NAME + ".scales"][1], np.arange(256) // 128
    codes = np.stack([(words.view(np.uint32) >> (4 * i)) & 15 for i in range(8)], axis=1).reshape(256, 64)
    values = (codes.astype(np.int32) - 8).astype(np.float32) * scales.astype(np.float32)[of]
    for made_by in ("breccia", "gptq"):
        with files.Checkpoint(tmp_path / made_by) as c:
            c.usable()
            np.testing.assert_array_equal(c[NAME + ".weight"].values(), values.T)
