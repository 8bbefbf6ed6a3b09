# SPDX-License-Identifier: Apache-2.0
"""Where output goes, what becomes of it when nobody takes it, and interruption."""
import json
import os
import pty
import re
import resource
import select
import signal
import subprocess
import time

import numpy as np
import pytest

import cli_samples
from breccia_c import CLI

QUIET = [["--help"], ["--version"], ["formats"], ["formats", "--json"], ["recipes", "--json"]]


def run(*arguments, **options):
    return subprocess.run([CLI, *map(os.fspath, arguments)], stderr=subprocess.PIPE, text=True, timeout=60, **options)


@pytest.mark.parametrize("arguments", QUIET, ids=" ".join)
def test_full_disk(breccia, arguments):
    with open("/dev/full", "w") as full:
        done = run(*arguments, stdout=full)
    assert done.returncode == 5 and re.fullmatch(r"breccia: standard output: .*\n", done.stderr)


def test_full_disk_in_the_middle(breccia, tmp_path):
    path = cli_samples.write(tmp_path / "many.safetensors", {f"tensor.{i}": np.zeros(1, np.float32) for i in range(5000)})
    with open("/dev/full", "w") as full:
        done = run("inspect", path, stdout=full)
    assert done.returncode == 5 and done.stderr.startswith("breccia: standard output: ")


def test_closed_standard_output(breccia, tmp_path):
    cli_samples.make(tmp_path)
    done = run("formats", preexec_fn=lambda: os.close(1))
    assert done.returncode == 5 and done.stderr.startswith("breccia: standard output: ")
    # The result's file must not get the descriptor of standard output, and what is printed with it.
    target = tmp_path / "new.safetensors"
    done = run("quantize", tmp_path / "plain.safetensors", "-o", target, "-r", "mxfp8", preexec_fn=lambda: os.close(1))
    assert done.returncode == 5
    assert done.stderr == f"breccia: standard output: Bad file descriptor; {target} is complete, but the summary is not\n"
    assert breccia("inspect", target).returncode == 0


@pytest.mark.parametrize("size", [1, 20000])
def test_reader_that_goes_away(breccia, tmp_path, size):
    """Like `| head`: quiet, and no error."""
    path = cli_samples.write(tmp_path / "many.safetensors", {f"tensor.{i}": np.zeros(1, np.float32) for i in range(size)})
    reader, writer = os.pipe()
    os.close(reader)
    done = run("inspect", path, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def on_terminal(*arguments, env=None):
    """Runs with stderr on a terminal; returns the exit code, stdout and what the terminal saw."""
    master, slave = pty.openpty()
    process = subprocess.Popen([CLI, *map(os.fspath, arguments)], stdout=subprocess.PIPE, stderr=slave,
                               env={"PATH": os.environ["PATH"], "TERM": "xterm", **(env or {})})
    os.close(slave)
    seen = b""
    while select.select([master], [], [], 60)[0]:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    output = process.stdout.read().decode()
    code = process.wait(60)
    os.close(master)
    return code, output, seen.decode()


@pytest.fixture
def model(tmp_path):
    cli_samples.write(tmp_path / "model.safetensors", cli_samples.weights())
    return tmp_path / "model.safetensors"


def test_progress_on_a_terminal(breccia, model, tmp_path):
    code, output, seen = on_terminal("quantize", model, "-o", tmp_path / "a.safetensors", "-r", "mxfp8")
    assert code == 0 and "\r" in seen and "%" in seen and "\033[" in seen
    assert "\r" not in output and "\033" not in output and "quantized" in output
    assert seen.endswith("\r"), "the line is left clear"


def test_no_color(breccia, model, tmp_path):
    code, _, seen = on_terminal("quantize", model, "-o", tmp_path / "a.safetensors", "-r", "mxfp8", env={"NO_COLOR": "1"})
    assert code == 0 and "%" in seen and "\033" not in seen


def test_dumb_terminal_and_no_terminal(breccia, model, tmp_path):
    code, _, seen = on_terminal("quantize", model, "-o", tmp_path / "a.safetensors", "-r", "mxfp8", env={"TERM": "dumb"})
    assert (code, seen) == (0, "")
    done = breccia("quantize", model, "-o", tmp_path / "b.safetensors", "-r", "mxfp8")
    assert (done.returncode, done.stderr) == (0, "")


def default_signals():
    """As a shell starts a program in the foreground, whatever the tests themselves were started with."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGXCPU, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGXCPU])
def test_interrupted(breccia, tmp_path, number):
    """A conversion that is stopped leaves nothing behind, and what was there before."""
    draw = np.random.default_rng(0)
    source = cli_samples.write(tmp_path / "source.safetensors",
                               {f"layers.{i}.weight": draw.standard_normal((1024, 1024), np.float32) for i in range(48)})
    target = tmp_path / "out" / "target.safetensors"
    target.parent.mkdir()
    target.write_bytes(b"before")
    for _ in range(5):      # it may be done before the signal comes, but not each time
        process = subprocess.Popen([CLI, "quantize", source, "-o", target, "-r", "nvfp4", "--force", "--threads", "1"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=default_signals)
        while process.poll() is None and len(list(target.parent.iterdir())) == 1:
            time.sleep(0.001)
        process.send_signal(number)
        if number in (signal.SIGHUP, signal.SIGXCPU):   # these come more than once
            time.sleep(0.002)
            process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        if process.returncode != 0:
            break
        target.write_bytes(b"before")
    assert process.returncode == 130 and output == ""
    assert re.fullmatch(r"breccia: .*(interrupted|stopped).*\n", errors)
    assert [p.name for p in target.parent.iterdir()] == [target.name] and target.read_bytes() == b"before"


def test_interrupted_where_nothing_is_written(breccia, tmp_path):
    """The program ends at once, with the same code: here while it waits for a reader of its output."""
    path = cli_samples.write(tmp_path / "many.safetensors", {f"tensor.{i}": np.zeros(1, np.float32) for i in range(20000)})
    process = subprocess.Popen([CLI, "inspect", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=default_signals)
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130 and process.stderr.read() == b""


def test_hangup_that_is_ignored(breccia, model, tmp_path):
    """As `nohup` asks for."""
    done = run("quantize", model, "-o", tmp_path / "a.safetensors", "-r", "mxfp8", stdout=subprocess.DEVNULL,
               preexec_fn=lambda: (signal.signal(signal.SIGHUP, signal.SIG_IGN), os.kill(os.getpid(), signal.SIGHUP)))
    assert (done.returncode, done.stderr) == (0, "")


def test_file_size_limit(breccia, model, tmp_path):
    def limit():
        default_signals()
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
    (tmp_path / "out").mkdir()
    done = run("quantize", model, "-o", tmp_path / "out" / "a.safetensors", "-r", "mxfp8", stdout=subprocess.DEVNULL,
               preexec_fn=limit)
    assert done.returncode == 5 and "File too large" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("threads", ["1", "4"])
@pytest.mark.parametrize("weights", [True, False], ids=["quantized", "copied"])
def test_source_that_becomes_shorter(breccia, tmp_path, threads, weights):
    """The file is cut while the program stands still in the middle of it."""
    source = tmp_path / "source.safetensors"
    shape = (1024, 1024) if weights else (1024 * 1024,)
    target = tmp_path / "out" / "target.safetensors"
    target.parent.mkdir()
    for _ in range(5):      # it may be done before it is stopped, but not each time
        cli_samples.write(source, {f"layers.{i}.weight": np.ones(shape, np.float32) for i in range(64)})
        target.unlink(missing_ok=True)
        process = subprocess.Popen([CLI, "quantize", source, "-o", target, "-r", "nvfp4", "--threads", threads],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not list(target.parent.iterdir()):
            time.sleep(0.0005)
        process.send_signal(signal.SIGSTOP)
        os.truncate(source, 100_000)
        process.send_signal(signal.SIGCONT)
        output, errors = process.communicate(timeout=60)
        if process.returncode != 0:
            break
    assert (process.returncode, output) == (5, "")
    assert errors == f"breccia: {source}: became shorter while it was read; nothing was written to {target}\n"
    assert list(target.parent.iterdir()) == []


def test_source_that_becomes_shorter_within_its_last_page(breccia, tmp_path):
    """No page is missing, so that no signal comes: its size tells."""
    source = tmp_path / "source.safetensors"
    target = tmp_path / "out" / "target.safetensors"
    target.parent.mkdir()
    for _ in range(5):      # it may be done before it is stopped, but not each time
        cli_samples.write(source, {f"layers.{i}.weight": np.ones((1024, 1024), np.float32) for i in range(32)})
        target.unlink(missing_ok=True)
        process = subprocess.Popen([CLI, "quantize", source, "-o", target, "-r", "nvfp4", "--threads", "1"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not list(target.parent.iterdir()):
            time.sleep(0.0005)
        process.send_signal(signal.SIGSTOP)
        os.truncate(source, source.stat().st_size - 1)
        process.send_signal(signal.SIGCONT)
        output, errors = process.communicate(timeout=60)
        if process.returncode != 0:
            break
    assert (process.returncode, output) == (5, "")
    assert errors == f"breccia: {source}: became shorter while it was read; {target} is not to be trusted\n"


def test_source_that_becomes_shorter_where_nothing_is_written(breccia, tmp_path):
    source = cli_samples.write(tmp_path / "source.safetensors",
                               {f"layers.{i}.weight": np.ones((1024, 1024), np.float32) for i in range(64)})
    process = subprocess.Popen([CLI, "compare", source, source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)
    os.truncate(source, 100_000)
    process.send_signal(signal.SIGCONT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (5, "") and errors == "breccia: a file became shorter while it was read\n"


def test_json_is_one_ascii_object(breccia, tmp_path):
    cli_samples.make(tmp_path)
    for arguments in (["inspect", tmp_path / "hostile.safetensors"], ["verify", tmp_path / "hostile.safetensors"],
                      ["compare", tmp_path / "hostile.safetensors", tmp_path / "hostile.safetensors"]):
        done = breccia(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(r"[\n\x20-\x7e]*", done.stdout)
        names = [row["name"] for row in json.loads(done.stdout).get("tensors", [])] if arguments[0] != "verify" else None
        assert names is None or set(names) == set(cli_samples.HOSTILE.values())


def test_path_that_is_no_utf8(breccia, tmp_path):
    path = os.fsencode(tmp_path) + b"/bad\xff.safetensors"
    cli_samples.write(os.fsdecode(path), {"a": np.zeros(2, np.float32)})
    assert json.loads(breccia("inspect", path, "--json").stdout)["path"].endswith("bad\ufffd.safetensors")
    done = breccia("inspect", path + b"x")
    assert done.returncode != 0 and "bad\\xff.safetensors" in done.stderr
