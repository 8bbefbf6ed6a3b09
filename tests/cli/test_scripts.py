# SPDX-License-Identifier: Apache-2.0
"""Each NAME.sh beside this file, run in a folder of samples (cli_samples.py), against what stands next to it:
NAME.sh.stdout.exact or .glob (a shell pattern a line), NAME.sh.stderr.exact or .glob (not looked at if absent), NAME.sh.exit
(0 if absent). BRECCIA_REWRITE=1 writes the .exact and .exit files anew: read the difference before committing it."""
import fnmatch
import os
import subprocess
from pathlib import Path

import pytest

import breccia_c
import cli_samples

HERE = Path(__file__).resolve().parent
REWRITE = os.environ.get("BRECCIA_REWRITE") == "1"


def matches(text, pattern):
    lines, patterns = text.splitlines(), pattern.splitlines()
    return len(lines) == len(patterns) and all(map(fnmatch.fnmatchcase, lines, patterns))


def check(script, stream, text):
    exact, glob = (Path(f"{script}.{stream}.{kind}") for kind in ("exact", "glob"))
    if glob.exists():
        assert matches(text, glob.read_text()), f"{script.name}: {stream} does not match {glob.name}:\n{text}"
    elif REWRITE and (stream == "stdout" or exact.exists()):
        exact.write_text(text)
    elif exact.exists():
        assert text == exact.read_text(), f"{script.name}: {stream} differs from {exact.name}"
    else:
        assert stream == "stderr", f"{script.name}: neither {exact.name} nor {glob.name}"


@pytest.mark.parametrize("script", sorted(HERE.glob("*.sh")), ids=lambda p: p.stem)
def test_script(script, tmp_path, breccia):
    cli_samples.make(tmp_path)
    environment = {"PATH": f"{breccia_c.CLI.parent}:{os.environ['PATH']}", "LC_ALL": "C", "BRECCIA_THREADS": "1",
                   "HOME": str(tmp_path), **{k: v for k, v in os.environ.items() if "SAN_OPTIONS" in k}}
    done = subprocess.run(["bash", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    check(script, "stdout", done.stdout)
    check(script, "stderr", done.stderr)
    expected = Path(f"{script}.exit")
    if REWRITE:
        expected.unlink(missing_ok=True)
        if done.returncode != 0:
            expected.write_text(f"{done.returncode}\n")
    else:
        assert done.returncode == (int(expected.read_text()) if expected.exists() else 0), done.stderr
