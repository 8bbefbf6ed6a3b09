# SPDX-License-Identifier: Apache-2.0
"""The numbers that inspect, show and compare print, against NumPy and ml_dtypes on the bytes of the files."""
import json
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import checkpoint_files
import cli_samples
from breccia_c import CLI

WEIGHT = "model.layers.0.attn.q_proj.weight"
QUANTIZED = {WEIGHT, "model.layers.2.mlp.up_proj.weight", "model.layers.10.mlp.up_proj.weight"}


@pytest.fixture
def samples(tmp_path):
    cli_samples.make(tmp_path)
    return tmp_path


def inspect(breccia, path, *more):
    done = breccia("inspect", path, "--json", *more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ------------------------------------------------------------------------------------------------ inspect

def test_inspect_plain(breccia, samples):
    found = inspect(breccia, samples / "plain.safetensors")
    arrays = checkpoint_files.read(samples / "plain.safetensors")[0]
    assert {t["name"]: (t["dtype"], tuple(t["shape"]), t["bytes"]) for t in found["tensors"]} == \
        {name: (dtype, array.shape, array.nbytes) for name, (dtype, array) in arrays.items()}
    assert not any(t["quantized"] or t["recipe"] or t["scale"] or t["layout"] for t in found["tensors"])
    elements = sum(array.size for _, array in arrays.values())
    size = sum(array.nbytes for _, array in arrays.values())
    assert found["totals"] == {"tensors": 7, "quantized": 0, "elements": elements, "bytes": size, "bits": 8 * size / elements,
                               "quantized_elements": 0, "quantized_bytes": 0, "quantized_bits": 0.0}
    order = [t["name"] for t in found["tensors"]]
    assert order.index("model.layers.2.mlp.up_proj.weight") < order.index("model.layers.10.mlp.up_proj.weight")


@pytest.mark.parametrize("path", ["deepseek", "deepseek/model.safetensors", "sharded", "sharded/model.safetensors.index.json"])
def test_inspect_deepseek(breccia, samples, path):
    found = inspect(breccia, samples / path)
    row, = found["tensors"]
    assert (row["name"], row["dialect"], row["quantized"], row["dtype"], row["element"]) == ("layers.0.weight", "deepseek", True, "F8_E4M3", "e4m3")
    assert (row["shape"], row["elements"], row["bytes"]) == ([140, 264], 140 * 264, 140 * 264 + 2 * 3 * 4)
    assert (row["layout"], row["block"][1:]) == ("per_block_mn", [128, 128])
    assert row["scale"] == {"tensor": "layers.0.weight_scale_inv", "format": "f32", "kind": "multiplier", "block": row["block"]}
    assert row["global"] is None and row["zero"] is None
    assert "element * scale" in row["meaning"] and "weight_scale_inv" in row["evidence"]
    parts = {p["tensor"]: p for p in row["parts"]}
    assert parts["layers.0.weight_scale_inv"]["shape"] == [2, 3] and parts["layers.0.weight"]["role"] == "data"
    assert len(found["files"]) == (2 if "sharded" in path else 1)
    assert {p["file"] for p in row["parts"]} == set(found["files"])
    text = breccia("inspect", samples / path).stdout
    for word in ("layers.0.weight_scale_inv", "[140, 264]", "F8_E4M3", row["meaning"], row["evidence"], row["recipe"]):
        assert word in text


def test_inspect_ambiguous(breccia, samples):
    found = inspect(breccia, samples / "ambiguous")
    assert [f["severity"] for f in found["findings"]] == ["ambiguity"]
    done = breccia("inspect", samples / "ambiguous")
    assert done.returncode == 0 and done.stderr.startswith("breccia: warning: ") and "--from" in done.stderr
    assert inspect(breccia, samples / "ambiguous", "--from", "deepseek")["tensors"][0]["quantized"]
    for command in (["verify"], ["show", "layers.0.weight"], ["quantize", "-o", samples / "x", "-r", "mxfp8"], ["dequantize", "-o", samples / "x"]):
        done = breccia(command[0], samples / "ambiguous", *command[1:])
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert breccia("compare", samples / "plain.safetensors", samples / "ambiguous").returncode == 4


def test_dialects_that_are_not_read_yet(breccia, samples):
    path = samples / "foreign.safetensors"
    found = inspect(breccia, path)
    assert any("no system known here" in f["text"] and "not read yet" in f["text"] for f in found["findings"])
    for command in (["verify"], ["show", "l"], ["quantize", "-o", samples / "x", "-r", "mxfp8"], ["dequantize", "-o", samples / "x"]):
        done = breccia(command[0], path, *command[1:])
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1) and "not read yet" in done.stderr


def test_inspect_200000_tensors(breccia, tmp_path):
    """Bounded memory: under 16 times the header and 64 MiB."""
    count = 200_000
    path = cli_samples.write(tmp_path / "many.safetensors", {f"model.layers.{i // 7}.block.{i % 7}.weight": np.zeros(1, np.float32) for i in range(count)})
    header = int.from_bytes(path.read_bytes()[:8], "little")
    # A child's peak begins with that of the process it was made in: a small one stands between.
    measure = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); " \
              "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    for arguments in (["inspect", path], ["inspect", path, "--json"]):
        peak = subprocess.run([sys.executable, "-S", "-c", measure, CLI, *map(os.fspath, arguments)], capture_output=True, text=True, check=True)
        if b"__asan_init" not in CLI.read_bytes():
            assert int(peak.stdout) * 1024 - path.stat().st_size < 16 * header + 64 * 2**20
    assert len(inspect(breccia, path)["tensors"]) == count


# --------------------------------------------------------------------------------------------------- show

def show(breccia, path, tensor, *more):
    """{label: words} of the head, and the rows of the table."""
    done = breccia("show", path, tensor, *more)
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.partition("\n\n")
    lines = done.stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:3] == ["column", "code", "bits"])
    rows = [line.split() for line in lines[start + 1:] if not line.startswith("...")]
    return {line.split()[0]: line for line in lines[:start] if line}, rows


def check_rows(rows, columns, codes, bits, elements, values):
    assert [int(r[0]) for r in rows] == list(columns)
    for r, code, element, value in zip(rows, codes, elements, values, strict=True):
        assert (int(r[1], 16), r[2]) == (int(code), f"{int(code):0{bits}b}")
        assert np.float32(r[-2]) == element and np.float32(r[-1]) == value


@pytest.mark.parametrize("row,block", [(0, 0), (127, 1), (128, 0), (139, 2)])
def test_show_deepseek(breccia, samples, row, block):
    arrays, values = cli_samples.deepseek()
    codes, scale = arrays.values()
    head, rows = show(breccia, samples / "deepseek", "layers.0.weight", "--row", str(row), "--block", str(block), "--all")
    columns = range(block * 128, min(block * 128 + 128, 264))
    picked = codes[row, columns.start:columns.stop]
    check_rows(rows, columns, picked.view(np.uint8), 8, picked.astype(np.float32), values[row, columns.start:columns.stop])
    words = head["scale"].split()
    stored = scale[row // 128, block]
    assert int(words[2], 16) == stored.view(np.uint32) and words[3] == f"{stored.view(np.uint32):032b}"
    assert np.float32(words[5]) == stored and f"number {row // 128 * 3 + block} of layers.0.weight_scale_inv" in head["scale"]
    assert f"row {row} of 140, block {block} of 3" in head["row"]


def test_show_stops_at_64(breccia, samples):
    done = breccia("show", samples / "deepseek", "layers.0.weight")
    assert done.stdout.endswith("... 64 more; --all prints them\n") and "\n    63  " in done.stdout and "\n    64  " not in done.stdout


@pytest.mark.parametrize("name,dtype", [("model.layers.2.mlp.up_proj.weight", ml_dtypes.bfloat16), ("model.layers.10.mlp.up_proj.weight", np.float16)])
def test_show_plain(breccia, samples, name, dtype):
    array = cli_samples.weights()[name]
    _, rows = show(breccia, samples / "plain.safetensors", name, "--row", "5", "--block", "1")
    stop = min(64, array.shape[1])
    for r, column in zip(rows, range(32, stop), strict=True):
        x = array[5, column]
        assert (int(r[0]), int(r[1], 16), r[2]) == (column, x.view(np.uint16), f"{x.view(np.uint16):016b}")
        assert np.float32(r[3]) == np.float32(x)


def nibbles(data, rows, cols):
    packed = data.view(np.uint8).reshape(rows, -1)
    return np.stack([packed & 15, packed >> 4], -1).reshape(rows, -1)[:, :cols]


E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6], np.float32)
E2M1 = np.concatenate([E2M1, -E2M1])


@pytest.mark.parametrize("row,block", [(0, 0), (95, 9), (17, 3)])
def test_show_nvfp4(breccia, samples, row, block):
    """Two levels: m = f32(scale * global)."""
    path = samples / "nvfp4.safetensors"
    assert breccia("quantize", samples / "plain.safetensors", "-o", path, "-r", "nvfp4").returncode == 0
    arrays = cli_samples.values(path)
    codes = nibbles(arrays[f"{WEIGHT}.data"], 96, 160)[row, block * 16:block * 16 + 16]
    scale = arrays[f"{WEIGHT}.scale"].view(ml_dtypes.float8_e4m3fn).astype(np.float32).reshape(96, 10)[row, block]
    above = np.float32(arrays[f"{WEIGHT}.global_scale"].item())
    head, rows = show(breccia, path, WEIGHT, "--row", str(row), "--block", str(block))
    check_rows(rows, range(block * 16, block * 16 + 16), codes, 4, E2M1[codes], E2M1[codes] * (scale * above))
    assert np.float32(head["scale"].split()[5]) == scale and np.float32(head["global"].split()[5]) == above
    assert np.float32(head["m"].split()[-1]) == scale * above


def test_show_zero_point(breccia, samples):
    """An integer zero point: value = (e - z) * m."""
    path = samples / "uint4.safetensors"
    done = breccia("quantize", samples / "plain.safetensors", "-o", path, "-r", "int4:format=uint4,rule=minmax,group=32,scale=f32")
    assert done.returncode == 0, done.stderr
    arrays = cli_samples.values(path)
    codes = nibbles(arrays[f"{WEIGHT}.data"], 96, 160)[7, 64:96]
    scale = arrays[f"{WEIGHT}.scale"].reshape(96, 5)[7, 2]
    head, rows = show(breccia, path, WEIGHT, "--row", "7", "--block", "2")
    zero = np.float32(head["zero"].split()[5])
    assert 0 <= zero <= 15 and zero == int(zero)
    check_rows(rows, range(64, 96), codes, 4, codes.astype(np.float32), (codes.astype(np.float32) - zero) * scale)


def test_show_group_index(breccia, tmp_path):
    """Columns that share a scale need not stand together."""
    rng = np.random.default_rng(5)
    groups = np.array([1, 0, 1, 1, 0, 0, 1, 0], np.int32)
    codes, scale = rng.integers(-8, 8, (3, 8)).astype(np.int8), (rng.random((3, 2)) + 0.5).astype(np.float32)
    config = {"version": 2, "recipe": {"name": "int8", "fields": {"format": "int8"}}, "shape": [3, 8],
              "layout": {"name": "per_block_k", "fields": {"block_size": 4}}}
    path = cli_samples.write(tmp_path / "grouped.safetensors", {"w.data": codes, "w.scale": scale, "w.group_index": groups},
                             {"w.config": json.dumps(config)})
    head, rows = show(breccia, path, "w", "--row", "2", "--block", "1")
    columns = np.flatnonzero(groups == 1)
    picked = codes[2, columns]
    check_rows(rows, columns, picked.view(np.uint8), 8, picked.astype(np.float32), picked.astype(np.float32) * scale[2, 1])
    assert "row 2 of 3, group 1 of 2" in head["row"] and np.float32(head["scale"].split()[5]) == scale[2, 1]


def test_show_whole_numbers_and_f64_in_full(breccia, tmp_path):
    whole = np.array([-2**63, 2**53 + 1, -1, 16777217], np.int64)
    real = np.array([0.1, -1 / 3, 5e-324, 1e308])
    path = cli_samples.write(tmp_path / "wide.safetensors", {"i": whole, "d": real, "scalar": np.float32(2.5).reshape(())})
    assert [int(r[3]) for r in show(breccia, path, "i")[1]] == whole.tolist()
    assert [float(r[3]) for r in show(breccia, path, "d")[1]] == real.tolist()
    assert [float(r[3]) for r in show(breccia, path, "scalar")[1]] == [2.5]


def test_show_row_of_a_batch(breccia, tmp_path):
    """Rows are counted over all leading dimensions."""
    array = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    path = cli_samples.write(tmp_path / "batch.safetensors", {"x": array})
    _, rows = show(breccia, path, "x", "--row", "4")
    assert [float(r[3]) for r in rows] == list(array[1, 1])
    assert breccia("show", path, "x", "--row", "6").returncode == 2


# ------------------------------------------------------------------------------------ quantize and compare

def stats(a, b):
    """What compare prints, by NumPy in double."""
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    error = np.abs(a - b)
    return {"sqnr_db": 10 * np.log10((a * a).sum() / (error * error).sum()), "cosine": (a @ b) / np.sqrt((a @ a) * (b @ b)),
            "max_absolute_error": error.max(), "max_relative_error": (error[a != 0] / np.abs(a[a != 0])).max(),
            "flushed": int(((a != 0) & (b == 0)).sum())}


@pytest.mark.parametrize("recipe", ["fp8", "fp8-row", "fp8-block128", "mxfp8:rule=floor", "mxfp4", "nvfp4", "int4:group=32", "int8"])
def test_compare(breccia, samples, recipe):
    plain, small, back = samples / "plain.safetensors", samples / "small.safetensors", samples / "back.safetensors"
    assert breccia("quantize", plain, "-o", small, "-r", recipe).returncode == 0
    assert breccia("dequantize", small, "-o", back, "--dtype", "f32").returncode == 0
    done = breccia("compare", plain, small, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = {row["name"]: row for row in found["tensors"]}
    original, restored = cli_samples.values(plain), cli_samples.values(back)
    assert set(rows) == set(original) == set(restored) and found["missing"] == [] and found["ok"]
    assert {name for name, row in rows.items() if row["quantized"]} == QUANTIZED
    for name, row in rows.items():
        assert row["equal"] == (name not in QUANTIZED) and row["elements"] == original[name].size
        if row["equal"]:
            assert row["sqnr_db"] is None and original[name].tobytes() == restored[name].tobytes()
            continue
        for key, value in stats(original[name], restored[name]).items():
            assert row[key] == pytest.approx(value, rel=1e-9), (name, key)
    total = stats(*(np.concatenate([np.float64(side[n]).ravel() for n in sorted(QUANTIZED)]) for side in (original, restored)))
    for key in ("sqnr_db", "cosine", "max_absolute_error", "flushed"):
        assert found["total"][key] == pytest.approx(total[key], rel=1e-9)
    order = [row["sqnr_db"] for row in found["tensors"]]
    assert order[:3] == sorted(order[:3]) and order[3:] == [None] * 4
    again = json.loads(breccia("compare", plain, back, "--json").stdout)
    for row in again["tensors"]:
        assert not row["quantized"] and row["sqnr_db"] == pytest.approx(rows[row["name"]]["sqnr_db"]) or row["equal"]


def test_compare_fails_under(breccia, samples):
    plain, small = samples / "plain.safetensors", samples / "small.safetensors"
    breccia("quantize", plain, "-o", small, "-r", "mxfp8")
    total = json.loads(breccia("compare", plain, small, "--json").stdout)["total"]["sqnr_db"]
    assert breccia("compare", plain, small, "--fail-under", f"{total - 0.01}").returncode == 0
    done = breccia("compare", plain, small, "--json", "--fail-under", f"{total + 0.01}")
    assert done.returncode == 1 and not json.loads(done.stdout)["ok"] and "--fail-under" in done.stderr
    assert breccia("compare", plain, plain, "--fail-under", "1000").returncode == 0, "equal values: no noise at all"


def test_compare_missing_and_misshapen(breccia, tmp_path):
    a = cli_samples.write(tmp_path / "a.safetensors", {"x": np.zeros((2, 3), np.float32), "y": np.ones(4, np.float32), "z": np.ones(2, np.float32)})
    b = cli_samples.write(tmp_path / "b.safetensors", {"x": np.zeros((3, 2), np.float32), "y": np.ones(4, np.float32), "w": np.ones(2, np.float32)})
    done = breccia("compare", a, b, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1 and {m["name"] for m in found["missing"]} == {"x", "z", "w"} and [t["name"] for t in found["tensors"]] == ["y"]


def test_quantize_keeps_what_it_does_not_quantize(breccia, samples):
    done = breccia("quantize", samples / "plain.safetensors", "-o", samples / "small.safetensors", "-r", "mxfp8")
    before, after = cli_samples.values(samples / "plain.safetensors"), cli_samples.values(samples / "small.safetensors")
    for name in set(before) - QUANTIZED:
        assert after[name].dtype == before[name].dtype and after[name].tobytes() == before[name].tobytes()
    assert not set(after) & QUANTIZED
    row = next(line.split() for line in done.stdout.splitlines() if line.startswith("quantized"))
    stored = sum(after[n].nbytes for n in after if n not in before)
    assert [int(row[1]), int(row[2]), int(row[4])] == [3, sum(before[n].size for n in QUANTIZED), stored]


@pytest.mark.parametrize("include,exclude,wanted", [
    ([], [], QUANTIZED), (["*.mlp.*"], [], QUANTIZED - {WEIGHT}), ([], ["*q_proj*"], QUANTIZED - {WEIGHT}),
    (["*.0.*", "*.2.*"], [], {WEIGHT, "model.layers.2.mlp.up_proj.weight"})])
def test_globs(breccia, samples, include, exclude, wanted):
    options = [x for g in include for x in ("--include", g)] + [x for g in exclude for x in ("--exclude", g)]
    assert breccia("quantize", samples / "plain.safetensors", "-o", samples / "small.safetensors", "-r", "fp8", *options).returncode == 0
    found = inspect(breccia, samples / "small.safetensors")
    assert {t["name"] for t in found["tensors"] if t["quantized"]} == wanted


def test_an_include_that_matches_nothing_is_an_error(breccia, samples):
    """Most likely a typing error: nothing is written."""
    done = breccia("quantize", samples / "plain.safetensors", "-o", samples / "small.safetensors", "-r", "fp8", "--include", "*q_porj*")
    assert (done.returncode, done.stdout) == (2, "") and "plain.safetensors: no weight matches" in done.stderr
    assert not (samples / "small.safetensors").exists()


def test_dequantize_warns_of_infinity(breccia, tmp_path):
    codes = np.full((128, 128), 448, ml_dtypes.float8_e4m3fn)
    scale = np.full((1, 1), 1000, np.float32)
    path = cli_samples.write(tmp_path / "big.safetensors", {"a.weight": codes, "a.weight_scale_inv": scale})
    done = breccia("dequantize", path, "-o", tmp_path / "half.safetensors", "--dtype", "f16")
    assert done.returncode == 0 and done.stderr.startswith("breccia: warning: ") and "16384 values" in done.stderr
    assert np.isinf(cli_samples.values(tmp_path / "half.safetensors")["a.weight"]).all()
    done = breccia("dequantize", path, "-o", tmp_path / "full.safetensors", "--dtype", "f32")
    assert (done.returncode, done.stderr) == (0, "")
    assert (cli_samples.values(tmp_path / "full.safetensors")["a.weight"] == 448000).all()


def test_threads_change_nothing(breccia, samples):
    for threads in (1, 3):
        assert breccia("quantize", samples / "plain.safetensors", "-o", samples / f"{threads}.safetensors", "-r", "nvfp4", "--threads", str(threads)).returncode == 0
    assert (samples / "1.safetensors").read_bytes() == (samples / "3.safetensors").read_bytes()
