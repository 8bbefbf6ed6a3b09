# SPDX-License-Identifier: Apache-2.0
"""Help, man page, docs/cli.md and completions say the same: each row of options.def and commands.def is in all of them."""
import re
import shutil
import subprocess

import pytest

from breccia_c import BUILD, CLI, ROOT

OPTIONS = {name: {"long": long, "short": None if short == "0" else short[1], "argument": None if argument == "NULL" else argument[1:-1],
                  "help": help}
           for name, long, short, argument, help in
           re.findall(r'^OPTION\((\w+),\s*"([\w-]+)",\s*(0|\'.\'),\s*(NULL|"\w+"),\s*\w+,\s*(?:"(.*)"|NULL)\)$',
                      (ROOT / "cli" / "options.def").read_text(), re.M)}
ROWS = re.findall(r'^COMMAND\((\w+), "([A-Z ]*)",(.*?)\n {8}"', (ROOT / "cli" / "commands.def").read_text(), re.M | re.S)
COMMANDS = {name: {"operands": operands.split(), "options": ["HELP", *re.findall(r"OPT\((\w+)\)", options)]}
            for name, operands, options in ROWS}
SHOWN = {name: row for name, row in OPTIONS.items() if row["help"]}


def generated(breccia, kind):
    done = breccia("--generate", kind)
    assert done.returncode == 0, done.stderr
    return done.stdout


def flat(text):
    return " ".join(text.split())


def test_the_tables_are_read_whole():
    assert len(OPTIONS) == (ROOT / "cli" / "options.def").read_text().count("\nOPTION(")
    assert len(COMMANDS) == (ROOT / "cli" / "commands.def").read_text().count("\nCOMMAND(")
    assert set(SHOWN) == set(OPTIONS) - {"GENERATE"}
    assert {o for c in COMMANDS.values() for o in c["options"]} | {"VERSION"} == set(SHOWN), "an option that no command takes"


def test_every_command_is_a_file():
    for command in COMMANDS:
        assert (ROOT / "cli" / f"{command}.c").is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_help(breccia, command):
    done = breccia(command, "--help")
    assert done.returncode == 0 and done.stderr == ""
    for operand in COMMANDS[command]["operands"]:
        assert f" {operand}" in done.stdout.splitlines()[0]
    listed = re.findall(r"^  (?:-(\w), |    )--([\w-]+)(?: ([A-Z]+))?", done.stdout, re.M)
    assert {long for _, long, _ in listed} == {OPTIONS[o]["long"] for o in COMMANDS[command]["options"]}
    for option in COMMANDS[command]["options"]:
        row = OPTIONS[option]
        assert (row["short"] or "", row["long"], row["argument"] or "") in listed
        assert row["help"] in flat(done.stdout)
    assert done.stdout == breccia(command, "-h").stdout


def test_program_help(breccia):
    text = breccia("--help").stdout
    for command in COMMANDS:
        assert re.search(rf"^  {command} +\w", text, re.M)
    assert all(len(line) <= 100 for line in text.splitlines())


def test_man_page(breccia):
    text = generated(breccia, "man")
    sections = re.split(r"^\.SS breccia (\w+).*$", text, flags=re.M)
    pages = dict(zip(sections[1::2], sections[2::2]))
    assert list(pages) == list(COMMANDS)
    for command, row in COMMANDS.items():
        for option in row["options"]:
            long = OPTIONS[option]["long"].replace("-", r"\-")
            assert rf"\fB\-\-{long}\fR" in pages[command]
    for code in (0, 1, 2, 3, 4, 5, 130):
        assert re.search(rf"^\.B {code}$", text, re.M)
    for variable in ("BRECCIA_THREADS", "BRECCIA_ISA", "NO_COLOR"):
        assert re.search(rf"^\.B {variable}$", text, re.M)


def test_man_page_has_no_warnings(breccia, tmp_path):
    if not shutil.which("man"):
        pytest.skip("no man here")
    (tmp_path / "breccia.1").write_text(generated(breccia, "man"))
    done = subprocess.run(["man", "--warnings", "-l", tmp_path / "breccia.1"], capture_output=True, text=True,
                          env={"LC_ALL": "C.UTF-8", "MANWIDTH": "100", "PATH": "/usr/bin:/bin"})
    if done.returncode != 0:
        pytest.skip(f"man does not work here: {done.stderr.strip()}")
    assert done.stderr == ""
    for row in SHOWN.values():
        assert f"--{row['long']}" in done.stdout


def test_markdown_is_the_one_in_docs(breccia):
    assert (ROOT / "docs" / "cli.md").read_text() == generated(breccia, "markdown"), \
        "make it anew: breccia --generate markdown > docs/cli.md"


def complete_bash(script, *words):
    """What bash offers for the last word."""
    quoted = " ".join(f"'{w}'" for w in words)
    program = (f'source {script}\nCOMP_WORDS=({quoted})\nCOMP_CWORD={len(words) - 1}\ncompopt() {{ :; }}\n_breccia\n'
               'printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, cwd=script.parent)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return set(done.stdout.split("\n")) - {""}


def test_bash_completion(breccia, tmp_path):
    script = tmp_path / "complete"
    script.write_text(generated(breccia, "bash"))
    assert subprocess.run(["bash", "-n", script], capture_output=True, text=True).stderr == ""
    assert complete_bash(script, "breccia", "") >= set(COMMANDS)
    assert complete_bash(script, "breccia", "qua") == {"quantize"}
    for command, row in COMMANDS.items():
        offered = complete_bash(script, "breccia", command, "-")
        assert {o for o in offered if o.startswith("--")} == {f"--{OPTIONS[o]['long']}" for o in row["options"]}
        assert {o for o in offered if not o.startswith("--")} == {f"-{OPTIONS[o]['short']}" for o in row["options"] if OPTIONS[o]["short"]}
    assert complete_bash(script, "breccia", "quantize", "x", "--recipe", "mxfp6") == {"mxfp6-e3m2", "mxfp6-e2m3"}
    assert complete_bash(script, "breccia", "dequantize", "--dtype", "") == {"bf16", "f16", "f32"}
    (tmp_path / "model.safetensors").touch()
    assert complete_bash(script, "breccia", "inspect", "mo") == {"model.safetensors"}


def test_zsh_completion(breccia, tmp_path):
    text = generated(breccia, "zsh")
    parts = re.split(r"^        (\w+)\) _arguments ", text, flags=re.M)
    functions = dict(zip(parts[1::2], parts[2::2]))
    assert list(functions) == list(COMMANDS)
    for command, row in COMMANDS.items():
        for option in row["options"]:
            assert f"--{OPTIONS[option]['long']}[" in functions[command]
    if not shutil.which("zsh"):
        pytest.skip("no zsh here: words checked, syntax not")
    (tmp_path / "_breccia").write_text(text)
    assert subprocess.run(["zsh", "-n", tmp_path / "_breccia"], capture_output=True, text=True).stderr == ""


def test_fish_completion(breccia, tmp_path):
    text = generated(breccia, "fish")
    for command, row in COMMANDS.items():
        lines = [line for line in text.splitlines() if f"__fish_seen_subcommand_from {command}'" in line]
        for option in row["options"]:
            assert any(f" -l {OPTIONS[option]['long']} " in line for line in lines)
    if not shutil.which("fish"):
        pytest.skip("no fish here: words checked, syntax not")
    (tmp_path / "breccia.fish").write_text(text)
    assert subprocess.run(["fish", "--no-execute", tmp_path / "breccia.fish"], capture_output=True, text=True).stderr == ""


def test_what_is_installed_is_what_is_generated(breccia, tmp_path):
    subprocess.run(["cmake", "--install", BUILD, "--prefix", tmp_path], check=True, capture_output=True)
    for kind, name in (("man", "breccia.1"), ("bash", "breccia"), ("zsh", "_breccia"), ("fish", "breccia.fish")):
        found = [p for p in tmp_path.rglob(name) if p.is_file() and "bin" not in p.parts and "include" not in p.parts]
        assert [p.read_text() for p in found] == [generated(breccia, kind)], f"{kind}: {found}"


def test_the_binary_runs_alone():
    """Jansson is linked in: the command line runs where only libc is."""
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", subprocess.run(["readelf", "-d", CLI], capture_output=True, text=True, check=True).stdout)
    assert not [name for name in needed if "jansson" in name or "breccia" in name]
