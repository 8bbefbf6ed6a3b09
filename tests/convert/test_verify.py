# SPDX-License-Identifier: Apache-2.0
"""What verify reads beyond names and shapes. (Scales of a single tensor: tests/dialect/test_deepseek.py.)"""
import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import breccia_c as brc
import checkpoint_files as files


def quantized(tmp_path, recipe):
    """arrays and metadata of a sound file; tests break one number."""
    x = np.random.default_rng(3).standard_normal((8, 64)).astype(np.float32)
    files.quantize(files.write(tmp_path / "a.safetensors", {"w": x}), tmp_path / "b.safetensors", recipe)
    return files.read(tmp_path / "b.safetensors")


def verified(tmp_path, arrays, metadata):
    with files.Checkpoint(files.write(tmp_path / "c.safetensors", arrays, metadata)) as c:
        c.usable()
        return [(f.severity, f.tensor, f.text) for f in c.verify()]


BROKEN = {   # recipe, array, place, number -> severity, words
    "a global scale that is NaN": ("nvfp4", "w.global_scale", (), np.nan, "error", "1 of 1 global scales are NaN"),
    "a negative global scale": ("nvfp4", "w.global_scale", (), -1, "error", "1 of 1 global scales are negative"),
    "a global scale of zero": ("nvfp4", "w.global_scale", (), 0, "error", "1 of 1 global scales are zero, their elements are not"),
    "a block scale of zero": ("nvfp4", "w.scale", (2, 1), 0, "error", "1 of 32 scales are zero, their elements are not"),
    "a divisor of zero": ("nvfp4:arith=div", "w.global_scale", (), 0, "error", "1 of 1 global scales are zero"),
    "a block scale that is NaN": ("nvfp4", "w.scale", (2, 1), np.nan, "error", "1 of 32 scales are NaN"),
    "a negative block scale": ("nvfp4", "w.scale", (2, 1), -2, "error", "1 of 32 scales are negative"),
    "a zero point beyond the codes": ("int4:format=uint4,rule=minmax,group=32", "w.zero_point", (1, 1), 16, "warning", "1 of 16 zero points"),
    "a code that is NaN": ("fp8-row", "w.data", (0, 0), np.nan, "warning", "1 of 512 values are NaN"),
    "a scale that is infinite": ("int8", "w.scale", (7, 0), np.inf, "error", "1 of 8 scales are NaN or infinite"),
    "an exponent that is NaN": ("mxfp4", "w.scale", (0, 0), 255, "error", "1 of 16 scales are NaN"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_one_broken_number_is_found(tmp_path, case):
    recipe, name, place, number, severity, words = BROKEN[case]
    arrays, metadata = quantized(tmp_path, recipe)
    assert verified(tmp_path, arrays, metadata) == []
    word, array = arrays[name]
    array = array.copy()
    array[place] = number
    found = verified(tmp_path, {**arrays, name: (word, array)}, metadata)
    assert any(f[:2] == (severity, "w") and words in f[2] for f in found), found


def test_zeros_of_a_zero_scale_are_only_doubted(tmp_path):
    arrays, metadata = quantized(tmp_path, "nvfp4")
    for name in ("w.data", "w.scale"):
        arrays[name] = (arrays[name][0], np.zeros_like(arrays[name][1]))
    assert [f[:2] for f in verified(tmp_path, arrays, metadata)] == [("warning", "w")]


@pytest.mark.parametrize("code, factor, words", [(0x38, 999, None), (0x38, 1001, "over 1000"), (0x38, 1.1e-8, None), (0x38, 0.9e-8, "under 1e-08"),
                                                 (0xB8, 1001, "over 1000"), (0x00, 1, None)])
def test_magnitudes_of_no_weight_are_doubted(tmp_path, code, factor, words):
    arrays = {"w.weight": ("F8_E4M3", np.full((4, 4), code, np.uint8)), "w.weight_scale_inv": np.full((1, 1), factor, np.float32)}
    found = verified(tmp_path, arrays, None)
    assert [f[0] for f in found] == ([] if words is None else ["warning"]) and all(words in f[2] for f in found)


@pytest.mark.parametrize("case", [c for c, row in BROKEN.items() if row[4] == "error"])
def test_dequantize_refuses_what_is_an_error_unless_told_to_keep_it(tmp_path, case):
    recipe, name, place, number, _, words = BROKEN[case]
    arrays, metadata = quantized(tmp_path, recipe)
    array = arrays[name][1].copy()
    array[place] = number
    broken = files.write(tmp_path / "c.safetensors", {**arrays, name: (arrays[name][0], array)}, metadata)
    with pytest.raises(brc.Error, match="^NONFINITE: c.safetensors: w: " + words):
        files.dequantize(broken, tmp_path / "d.safetensors")
    assert not (tmp_path / "d.safetensors").exists()
    files.dequantize(broken, tmp_path / "d.safetensors", keep=True)
    assert (tmp_path / "d.safetensors").exists()


def test_an_index_that_disagrees_with_its_shards(tmp_path):
    for shard in "ab":
        files.write(tmp_path / f"{shard}.safetensors", {f"{shard}.weight": np.ones((2, 2), np.float32), f"{shard}.more": np.ones(1, np.float32)}, {"k": shard})
    places = {"a.weight": "a.safetensors", "b.weight": "b.safetensors", "a.more": "a.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    with files.Checkpoint(tmp_path) as c:
        c.usable()
        found = c.verify()
    assert all(f.severity == "error" for f in found)
    assert any(f.tensor == "b.more" for f in found) and any("total_size" in f.text for f in found) and any('"k"' in f.text for f in found)


def test_what_opening_found_comes_first(tmp_path):
    arrays = {"w.weight": ("F8_E4M3", np.full((4, 4), 0x38, np.uint8)), "w.weight_scale_inv": np.full((1, 1), np.nan, np.float32),
              "a.weight_scale_inv": np.ones((1, 1), np.float32)}
    with files.Checkpoint(files.write(tmp_path / "c.safetensors", arrays)) as c:
        assert [(f.tensor, f.severity) for f in c.verify()][:2] == [("a.weight", "error"), ("w.weight", "error")]


def test_threads_change_nothing(tmp_path):
    arrays, metadata = quantized(tmp_path, "nvfp4")
    with files.Checkpoint(files.write(tmp_path / "c.safetensors", {**arrays, "w.global_scale": np.float32(1e6)}, metadata)) as c:
        assert [vars(f) for f in c.verify(1)] == [vars(f) for f in c.verify(4)] != []


def test_memory_of_compare_and_verify_is_bounded_by_a_slab_not_by_the_tensor(tmp_path):
    source = files.write(tmp_path / "a.safetensors", {"w": np.full((8192, 4096), 0.5, ml_dtypes.bfloat16)})      # 128 MiB as F32
    files.quantize(source, tmp_path / "b.safetensors", "fp8-row")
    script = f"""
import resource, sys
sys.path.insert(0, {str(Path(files.__file__).parent)!r})
import checkpoint_files as files
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + (64 << 20),) * 2)
_, _, total = files.compare({str(tmp_path / 'b.safetensors')!r}, {str(tmp_path / 'b.safetensors')!r}, threads=1)
assert total.noise == 0 and total.elements == 8192 * 4096
with files.Checkpoint({str(tmp_path / 'b.safetensors')!r}) as c:
    assert c.verify() == []
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "MALLOC_ARENA_MAX": "1"})
    assert done.returncode == 0, done.stderr
