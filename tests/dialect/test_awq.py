# SPDX-License-Identifier: Apache-2.0
"""AWQ checkpoints: recorded words decoded, both orders, and what must not be read."""
import json

import numpy as np
import pytest

import breccia_c as brc
import checkpoint_files as files
import golden_files

NAME = "model.layers.0.q_proj"
ORDER = [0, 2, 4, 6, 1, 3, 5, 7]                     # AutoAWQ: nibble i of a GEMM word holds column 8c + ORDER[i]


def config(group=32, version="gemm", **more):
    return {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": version, **more}}


def checkpoint(folder, arrays, settings, file="config.json"):
    if settings is not None:
        (folder / file).write_text(json.dumps(settings))
    return files.write(folder / "model.safetensors", {f"{NAME}.{part}": array for part, array in arrays.items()})


def words(nibbles, order):
    """[rows, 8c] codes -> [rows, c] words."""
    by_word = nibbles.reshape(nibbles.shape[0], -1, 8)[:, :, order].astype(np.uint64)
    return (by_word << (4 * np.arange(8, dtype=np.uint64))).sum(axis=2).astype(np.uint32).view(np.int32)


def made(n, k, group, version="gemm", padded=0):
    rng = np.random.default_rng(n + k)
    codes, zeros = rng.integers(0, 16, (n, k)), rng.integers(0, 16, (-(-k // group), n))
    scales = rng.uniform(0.001, 0.1, zeros.shape).astype(np.float16)
    of = np.arange(k) // group
    values = (codes - zeros[of].T).astype(np.float32) * scales[of].T.astype(np.float32)
    if version == "gemm":
        return {"qweight": words(codes.T, ORDER), "qzeros": words(zeros, ORDER), "scales": scales}, values
    width = -(-len(zeros) // 8) * 8 + padded
    wide = lambda a: np.pad(a.T, ((0, 0), (0, width - len(a))))
    plain = list(range(8))
    return {"qweight": words(codes, plain), "qzeros": words(wide(zeros), plain), "scales": wide(scales)}, values


def test_golden_words(golden, tmp_path):
    g = golden_files.load(golden / "gptq_awq.safetensors")
    arrays = {part: g["awq." + part] for part in ("qweight", "qzeros", "scales")}
    with files.Checkpoint(checkpoint(tmp_path, arrays, config())) as c:
        c.usable()
        assert not c.findings and c.names() == [NAME + ".weight"]
        golden_files.same(c[NAME + ".weight"].values(), g["awq.deq"].T, "awq")


@pytest.mark.parametrize("settings, file", [(config(), "config.json"), (config(version="GEMM"), "config.json"), (None, None),
                                            ({"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}, "quant_config.json")])
@pytest.mark.parametrize("n, k", [(64, 96), (8, 32), (24, 64)])
def test_gemm(tmp_path, settings, file, n, k):
    arrays, values = made(n, k, 32)
    with files.Checkpoint(checkpoint(tmp_path, arrays, settings, file)) as c:
        c.usable()
        np.testing.assert_array_equal(c[NAME + ".weight"].values(), values)
        assert "gemm order" in c[NAME + ".weight"].evidence


@pytest.mark.parametrize("n, k, group, padded", [(6, 64, 32, 0), (16, 512, 32, 8), (8, 128, 128, 0)])
def test_gemv(tmp_path, n, k, group, padded):
    arrays, values = made(n, k, group, "gemv", padded)
    with files.Checkpoint(checkpoint(tmp_path, arrays, config(group, "GEMV"))) as c:
        c.usable()
        np.testing.assert_array_equal(c[NAME + ".weight"].values(), values)
        assert "gemv order" in c[NAME + ".weight"].evidence


ARRAYS, _ = made(64, 96, 32)
GEMV, _ = made(16, 512, 32, "gemv")
MISREADINGS = {
    "zeros missing": ({k: v for k, v in ARRAYS.items() if k != "qzeros"}, config(), "MALFORMED", "qzeros is missing"),
    "scales missing": ({k: v for k, v in ARRAYS.items() if k != "scales"}, config(), "MALFORMED", "scales is missing"),
    "the other order in the config": (ARRAYS, config(version="gemv"), "AMBIGUOUS", 'those of awq gemm.*"gemv"'),
    "an order that is not read": (ARRAYS, config(version="gemv_fast"), "UNSUPPORTED", "gemv_fast.*gemm and gemv are read"),
    "other groups in the config": (ARRAYS, config(group=48), "SHAPE", "group_size 48 gives 2"),
    "gemv without its group": (GEMV, {"quantization_config": {"quant_method": "awq", "version": "gemv"}}, "SHAPE", "group_size is missing"),
    "other bits": (ARRAYS, config(bits=8), "UNSUPPORTED", "8 bits; awq has 4"),
    "scales transposed": (ARRAYS | {"scales": np.ascontiguousarray(ARRAYS["scales"].T)}, config(), "SHAPE", "do not fit each other"),
    "scales of another type": (ARRAYS | {"scales": ARRAYS["scales"].astype(np.float32)}, config(), "SHAPE", "do not fit each other"),
    "config of gptq": (ARRAYS, {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}}, "SHAPE", "do not fit each other"),
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


def test_symmetric_int4_written_and_read_back(tmp_path):
    w = np.random.default_rng(3).standard_normal((64, 256)).astype(np.float32)
    files.write(tmp_path / "model.safetensors", {NAME + ".weight": w})
    files.quantize(tmp_path, tmp_path / "breccia", "int4")
    files.quantize(tmp_path, tmp_path / "awq", "int4", "awq")
    arrays, _ = files.read(tmp_path / "awq" / "model.safetensors")
    assert json.loads((tmp_path / "awq" / "config.json").read_text())["quantization_config"] == {
        "quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
    assert (arrays[NAME + ".qzeros"][1].view(np.uint32) == 0x88888888).all() and arrays[NAME + ".qweight"][1].shape == (256, 8)
    nibbles = np.stack([(arrays[NAME + ".qweight"][1].view(np.uint32) >> (4 * i)) & 15 for i in range(8)], axis=2)
    codes = np.empty_like(nibbles)
    codes[:, :, ORDER] = nibbles
    scales = arrays[NAME + ".scales"][1].astype(np.float32)[np.arange(256) // 128]
    values = (codes.reshape(256, 64).astype(np.int32) - 8).astype(np.float32) * scales
    for made_by in ("breccia", "awq"):
        with files.Checkpoint(tmp_path / made_by) as c:
            c.usable()
            np.testing.assert_array_equal(c[NAME + ".weight"].values(), values.T)
