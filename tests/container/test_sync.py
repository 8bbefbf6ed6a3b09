# SPDX-License-Identifier: Apache-2.0
"""That a checkpoint outlasts a crash: every file is synced before any name changes, and the folder after the last one. What
the process calls is traced by trace_calls.c."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from container.files import write
arrays = {"a": ("U8", [3], b"xyz"), "b": ("U8", [2], b"12")}
write(sys.argv[2], arrays, shards={"a": 0, "b": int(sys.argv[3])}, overwrite=True,
      texts=None if sys.argv[2].endswith(".safetensors") else {"config.json": "{}"})
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    made = tmp_path_factory.mktemp("shim") / "trace_calls.so"
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", made, HERE / "trace_calls.c", "-ldl"], check=True)
    return made


def run(shim, log, destination, shards, **environment):
    """[(call, path, path)] that one process made below the destination while it wrote a checkpoint, and how it ended."""
    log.unlink(missing_ok=True)
    ended = subprocess.run([sys.executable, "-c", CHILD, HERE.parent, destination, str(shards - 1)], capture_output=True, text=True,
                           env={**os.environ, "LD_PRELOAD": str(shim), "TRACE_CALLS": str(log), **environment})
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    return [(call, Path(a), Path(b)) for call, a, b in lines if str(destination.parent) in a], ended


WAYS = pytest.mark.parametrize("name, shards", [("m.safetensors", 1), ("m", 1), ("m", 2)])


@WAYS
@pytest.mark.parametrize("again", [False, True])
def test_files_are_synced_before_their_names_and_the_folder_after(shim, tmp_path, name, shards, again):
    destination = tmp_path / "out" / name
    destination.parent.mkdir()
    folder = destination.parent if destination.suffix else destination
    for _ in range(1 + again):
        calls, ended = run(shim, tmp_path / "calls", destination, shards)
        assert ended.returncode == 0, ended.stderr
    renames = [i for i, (call, _, _) in enumerate(calls) if call == "rename"]
    placed = {a: b for call, a, b in calls if call == "rename" and not b.name.startswith(".breccia-")}
    synced = {a: i for i, (call, a, _) in enumerate(calls) if call == "fsync"}
    assert sorted(b.name for b in placed.values()) == sorted(p.name for p in folder.iterdir())
    assert set(synced) == {*placed, folder}
    assert all(synced[temporary] < renames[0] for temporary in placed)
    assert synced[folder] > renames[-1]
    assert all(i > synced[folder] for i, (call, _, _) in enumerate(calls) if call == "unlink")   # the old ones go last


@WAYS
@pytest.mark.parametrize("failing", [".tmp", "folder"])
def test_a_sync_that_fails_leaves_what_was_there(shim, tmp_path, name, shards, failing):
    destination = tmp_path / "out" / name
    destination.parent.mkdir()
    assert run(shim, tmp_path / "calls", destination, shards)[1].returncode == 0
    marked = {p: p.stat().st_ino for p in sorted(destination.parent.rglob("*"))}
    ending = failing if failing == ".tmp" else "/out" if destination.suffix else "/m"
    _, ended = run(shim, tmp_path / "calls", destination, shards, FAIL_FSYNC=ending)
    assert ended.returncode != 0 and "Input/output error" in ended.stderr
    kept = {p: p.stat().st_ino for p in sorted(destination.parent.rglob("*"))}
    assert kept.keys() == marked.keys()
    if (failing, shards) != ("folder", 1) or not destination.suffix:     # there one file has replaced another whole
        assert kept == marked
