# SPDX-License-Identifier: Apache-2.0
"""tests/cuda/on_gpu with stand-ins for the GPU and for the checks: their cases are shared between processes, each once, and what goes wrong is said."""
import os
import select
import signal
import subprocess
import time

import pytest

from breccia_c import ROOT

CHECK = """#!/bin/sh
echo >> {folder}/started
echo "a shape: 3 ran, 0 wrong"
[ "$SHARE" = "$SLOW" ] && exec sleep 60
[ "$SHARE" = "$KILLED" ] && kill -9 $$
echo "of SHARE=$SHARE"
"""


@pytest.fixture
def on_gpu(tmp_path):
    for name, text in (("nvidia-smi", "#!/bin/sh\n"), ("python3", CHECK.format(folder=tmp_path)), ("nproc", "#!/bin/sh\necho $PROCESSORS\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def start(part, pass_fds=(), **variables):
        return subprocess.Popen([ROOT / "tests" / "cuda" / "on_gpu", tmp_path / "out", part], stdout=subprocess.PIPE, text=True, pass_fds=pass_fds,
                                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),    # ignored where the tests run in the background
                                env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "BRECCIA_SITE": str(tmp_path), **variables})
    return start


@pytest.mark.parametrize("processors, part, shares", [(1, "products", 1), (2, "casts", 1), (5, "narrow", 3), (64, "groups", 8), (64, "python", 1)])
def test_cases_are_shared(on_gpu, processors, part, shares):
    running = on_gpu(part, PROCESSORS=str(processors))
    lines = running.communicate(timeout=60)[0].splitlines()
    assert running.returncode == 0
    assert lines == ["", f"## {part}", *(f"of SHARE={i}/{shares}" for i in range(shares)), f"{part}: {3 * shares} compared, right"]


def test_a_process_that_is_killed_is_reported(on_gpu):
    running = on_gpu("products", PROCESSORS="6", KILLED="1/3")
    lines = running.communicate(timeout=60)[0].splitlines()
    assert running.returncode == 1
    assert lines[-2].startswith("products: 9 compared, WRONG (exit status 137), see ") and lines[-1] == "FAILED: products"


def test_an_interrupt_ends_the_checks(on_gpu, tmp_path):
    ended, held = os.pipe()                                            # held by every process that on_gpu starts
    running = on_gpu("products", PROCESSORS="6", SLOW="0/3", pass_fds=[held])
    os.close(held)
    started = tmp_path / "started"
    while not started.exists() or started.read_text().count("\n") < 3:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=30)
    assert running.returncode == 130
    assert select.select([ended], [], [], 20)[0] and os.read(ended, 1) == b""
    os.close(ended)
