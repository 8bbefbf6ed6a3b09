# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint's files say beside its arrays: an index and its neighbours, a config.json that cannot be used."""
import json
import os

import numpy as np
import pytest

import checkpoint_files as files

INDEX = "model.safetensors.index.json"


def sharded(folder, weights):
    for name in set(weights.values()):
        files.write(folder / name, {n: np.ones(2, np.float32) for n, f in weights.items() if f == name})
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 8 * len(weights)}, "weight_map": weights}))


def findings(path, verify=False):
    with files.Checkpoint(path) as c:
        c.usable()
        return [(f.severity, f.file, f.tensor, f.text) for f in (c.verify() if verify else c.findings)]


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("weights, beside, told", [
    ({"a": "0.safetensors", "b": "1.safetensors"}, [], None),
    ({"a": "0.safetensors", "b": "1.safetensors"}, ["model.safetensors"], "model.safetensors"),
    ({}, ["model.safetensors"], "model.safetensors"),
    ({}, ["z.safetensors", "model.safetensors"], "model.safetensors, z.safetensors"),
    ({"a": "0.safetensors"}, [f"{i}.safetensors" for i in range(1, 9)], ", ".join(f"{i}.safetensors" for i in range(1, 6)) + " and 3 more"),
    ({"a": "model.safetensors"}, [], None),
])
def test_files_that_the_index_does_not_name_are_named(tmp_path, weights, beside, told, verify):
    sharded(tmp_path, weights)
    for name in beside:
        files.write(tmp_path / name, {"other": np.ones(2, np.float32)})
    (tmp_path / "notes.txt").write_text("x")
    for path in (tmp_path, tmp_path / INDEX):
        text = f"the index {INDEX} does not name what lies beside it, so it is not read: {told}"
        assert findings(path, verify) == ([] if told is None else [("warning", str(path), "", text)])


def test_a_single_file_has_no_neighbours(tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        files.write(tmp_path / name, {"w": np.ones(2, np.float32)})
    assert findings(tmp_path / "a.safetensors") == []


def test_an_index_that_disagrees_is_a_warning_and_an_error_of_verify(tmp_path):
    sharded(tmp_path, {"a": "0.safetensors", "b": "1.safetensors"})
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {"total_size": 17}, "weight_map": {"a": "1.safetensors", "b": "1.safetensors"}}))
    files.write(tmp_path / "1.safetensors", {"b": np.ones(2, np.float32), "a": np.ones(2, np.float32)})
    for verify, severity in ((False, "warning"), (True, "error")):
        found = findings(tmp_path, verify)
        assert [(s, f, t) for s, f, t, _ in found if "total_size is 17" in _] == [(severity, str(tmp_path / INDEX), "")]
        assert len(found) == 2                            # and 0.safetensors, which nothing names any longer


@pytest.mark.parametrize("make, words", [
    (lambda p: p.write_bytes(b"{}\0"), "NUL bytes"),
    (lambda p: p.mkdir(), "not a regular file"),
    (lambda p: os.mkfifo(p), "not a regular file"),
    (lambda p: (p.touch(), os.truncate(p, 3 << 30)), "at most"),
    (lambda p: p.write_text('{"quantization_config": '), "not one JSON object"),
    (lambda p: p.write_text("[]"), "not one JSON object"),
    (lambda p: p.write_text('{"quantization_config": {}, "quantization_config": {}}'), "not one JSON object"),
    (lambda p: p.write_text('{"quantization_config": 7}'), "quantization_config cannot be read"),
    (lambda p: p.write_text('{"compression_config": 7}'), "compression_config cannot be read"),
])
def test_a_config_that_cannot_be_used_is_told_once(tmp_path, make, words):
    path = files.write(tmp_path / "model.safetensors", {"w": np.ones(2, np.float32)})
    make(tmp_path / "config.json")
    found = findings(path)
    assert [f[0] for f in found] == ["warning"] and words in found[0][3]
    assert found[0][3].count("config.json") + (found[0][1] == str(tmp_path / "config.json")) == 1
