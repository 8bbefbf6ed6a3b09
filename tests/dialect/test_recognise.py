# SPDX-License-Identifier: Apache-2.0
"""Tensors of systems that are not read yet: named, never taken for plain numbers. The layouts are those systems' own."""
import json

import ml_dtypes
import numpy as np
import pytest

import breccia_c as brc
import checkpoint_files as files

F8, BF16 = ml_dtypes.float8_e4m3fn, ml_dtypes.bfloat16


def z(dtype, *shape):
    return np.ones(shape, dtype)


FOREIGN = {      # arrays, quant_method -> dialects that the finding names, and the entry's parts
    "int8 of no one": ({"q.weight.qweight": z(np.int8, 8, 4), "q.weight.scale": z(np.float32, 8, 1)}, None, "no system known here", {"data", "scale"}),
}


def store(folder, arrays, method=None):
    if method is not None:
        (folder / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": method}}))
    return files.write(folder / "model.safetensors", {**arrays, "norm.weight": z(np.float32, 4)})


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_tensors_are_named(tmp_path, case):
    arrays, method, named, roles = FOREIGN[case]
    with files.Checkpoint(store(tmp_path, arrays, method)) as c:
        assert c.names() == ["norm.weight", "q.weight"]
        assert set(c["q.weight"].parts) == roles and sorted(c["q.weight"].parts.values()) == sorted(arrays)
        findings = [f for f in c.findings if f.tensor == "q.weight"]
        assert [f.severity for f in findings] == ["error"]
        assert f"not read yet: {named} (" in findings[0].text and all(name in findings[0].text for name in arrays if name != "q.weight")
        with pytest.raises(brc.Error, match="not read yet") as stopped:
            c.usable()
        assert stopped.value.name == "UNSUPPORTED"
        with pytest.raises(brc.Error, match="not read yet"):
            c["q.weight"].tensor()


@pytest.mark.parametrize("arrays, words", [
    ({"q.weight_scale": z(np.float32, 8, 1)}, "whose weight is missing"),
    ({"q.weight_packed_scale_inv": z(np.float32, 8, 1)}, "without its weight"),
    ({"q.weight": z(F8, 8, 4)}, "without a scale"),
    ({"q.weight": ("F8_E8M0", z(np.uint8, 8, 4))}, "without a scale"),
    ({"q.weight": ("F8_E5M2", z(np.uint8, 8, 4))}, "without a scale"),
])
def test_lone_scales_and_lone_codes_stop_a_command(tmp_path, arrays, words):
    with files.Checkpoint(store(tmp_path, arrays)) as c, pytest.raises(brc.Error, match=words):
        c.usable()


@pytest.mark.parametrize("arrays, severity, words", [
    ({"q.weight": z(BF16, 8, 4), "q.weight_scale": z(np.float32, 8, 1)}, "warning", "q.weight is BF16, not codes"),
    ({"q.weight": z(BF16, 8, 4), "q.input_scale": z(np.float32, 1)}, "warning", "its weight is not quantized"),
    ({"q.weight": z(np.int8, 8, 4)}, "warning", "without a scale that is known here"),
    ({"k_proj.k_scale": z(np.float32, 1)}, "note", "key/value cache"),
])
def test_what_only_looks_quantized_is_carried_and_said(tmp_path, arrays, severity, words):
    with files.Checkpoint(store(tmp_path, arrays)) as c:
        c.usable()
        assert [(f.severity, words in f.text) for f in c.findings] == [(severity, True)], c.findings
        assert sorted(c.names()) == sorted([*arrays, "norm.weight"])
        if severity == "note":
            assert words in c["k_proj.k_scale"].meaning and c["k_proj.k_scale"].dialect == "plain"      # inspect names it


@pytest.mark.parametrize("arrays", [
    {"n.weight": z(np.float32, 8), "n.scale": z(np.float32, 8)},           # weight normalization
    {"n.scales": z(np.float32, 8), "n.weight": z(BF16, 8)}, {"n.scale": z(np.float32, 8)}, {"b_scales": z(np.uint8, 4)},
    {"n.biases": z(np.float32, 8)}, {"n.biases": z(np.float32, 8), "n.scales": z(np.float32, 8)}, {"ids": z(np.int64, 1, 8)}, {"mask": z(np.uint8, 4, 4)}, {"t.data": z(np.float32, 2)},
])
def test_ordinary_names_say_nothing(tmp_path, arrays):
    with files.Checkpoint(store(tmp_path, arrays)) as c:
        assert not c.findings


def test_codes_without_a_scale_can_be_read_as_plain_numbers_when_asked(tmp_path):
    path = store(tmp_path, {"q.weight": z(F8, 8, 4)})
    with files.Checkpoint(path, "plain") as c:
        c.usable()
        assert [f.severity for f in c.findings] == ["note"]


def test_a_file_of_modelopt_beside_the_weights_is_evidence(tmp_path):
    (tmp_path / "hf_quant_config.json").write_text("{}")
    path = store(tmp_path, {"q.weight": z(F8, 8, 4), "q.weight_scale": z(np.float32)})
    with files.Checkpoint(path) as c:
        c.usable()
        assert c["q.weight"].dialect == "modelopt"


def test_more_companions_than_a_tensor_has_room_for_are_still_listed(tmp_path):
    suffixes = ["_packed", "_shape", "_global_scale", "_zero_point", "_g_idx", "_scale", "_scale_2"]
    suffixes += [".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4"]
    arrays = {f"q.weight{s}": z(np.int32, 4) for s in suffixes}
    arrays |= {f"q.{s}": z(np.int32, 4) for s in ("scale_weight", "comfy_quant", "qweight", "qzeros", "scales", "g_idx", "SCB", "input_scale")}
    with files.Checkpoint(store(tmp_path, arrays)) as c:
        entries = [brc.lib.brc_checkpoint_at(c.c, i) for i in range(brc.lib.brc_checkpoint_count(c.c))]
        held = [brc.ffi.string(e.parts[i].array.name).decode() for e in entries for i in range(e.n_parts)]
        assert set(held) == {*arrays, "norm.weight"}


def test_one_hundred_thousand_foreign_tensors_in_time(tmp_path):
    arrays = {}
    for i in range(50_000):
        arrays[f"layers.{i}.q.weight"] = np.zeros((1, 1), np.uint8)
        arrays[f"layers.{i}.q.weight.absmax"] = np.zeros(1, np.float32)
    with files.Checkpoint(files.write(tmp_path / "m.safetensors", arrays)) as c:
        assert len(c.names()) == 50_000 and len(c.findings) == 50_000
