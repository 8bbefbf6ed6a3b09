# SPDX-License-Identifier: Apache-2.0
"""Every dialect in each of its recipes, into every dialect: as the dialect's own list decides, and under each recipe of that list. What is
read and written is decoded by tests/convert/decoders.py, and the class that convert states is checked on those numbers.

The cells come from the tables (brc_dialect_get, brc_dialect_recipe, brc_recipe_get): a new dialect enters by itself, and fails here until
decoders.py can read it. The ordinary run looks at a sample (matrix.py); `make test-exhaustive` at all. docs/conversions.md is made from all
cells, and each of either run is compared with it; BRECCIA_REWRITE=1 pytest -m exhaustive writes it anew, in one process."""
import os
import re
from pathlib import Path

import numpy as np
import pytest
from convert.decoders import DECODERS, File
from convert.matrix import CACHE, DENSE, MADE, NORM, SOURCES, W, every, place, rows_of, sample, write_source, written

import breccia_c as brc
import checkpoint_files as files

PAGE = Path(brc.ROOT) / "docs" / "conversions.md"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """{(dialect, recipe): path}, each made once."""
    folder, made = tmp_path_factory.mktemp("sources"), {}

    def of(*source):
        if source not in made:
            made[source] = write_source(folder / str(len(made)), *source)
        return made[source]

    return of


def decode(dialect, path):
    assert dialect in DECODERS, f"{dialect}: tests/convert/decoders.py has no decoder for it"
    return DECODERS[dialect](File(path), W)


def sqnr(before, after):
    before, after = before.astype(np.float64), after.astype(np.float64)
    with np.errstate(divide="ignore"):
        return 10 * np.log10((before ** 2).sum() / ((before - after) ** 2).sum())


def check_class(outcome, before, after):
    old, new = before.value, after.value
    same = np.array_equal(old, new)
    if outcome.exactness == "bit-exact":
        zero = lambda d: 0 if d.add is None else d.add
        assert np.array_equal(before.x, after.x) and np.array_equal(before.m, after.m) and np.array_equal(zero(before), zero(after)) and same
    elif outcome.exactness == "value-exact":
        assert same and outcome.sqnr == np.inf
    elif outcome.exactness == "one-ulp":
        assert not same and (np.abs(new - old) <= 5 * 2.0**-24 * np.abs(old)).all()
    else:
        assert not same and abs(outcome.sqnr - sqnr(old, new)) < 1e-6


def convert(source, origin, target, recipes, folder):
    """One cell: outcome, or the text of a refusal."""
    path, warnings = place(folder, target), []
    kind = "dense" if target in DENSE else target
    try:
        outcomes = files.conversion(origin, path, kind, recipes, format=target if kind == "dense" else None, warnings=warnings)
    except brc.Error as refused:
        assert refused.name == "UNSUPPORTED" and not path.exists(), refused.text
        return refused.text.split(": ")[-1]
    assert not warnings
    assert {n for n in outcomes} == {W, NORM, CACHE}
    assert outcomes[NORM].exactness == outcomes[CACHE].exactness == "bit-exact" and outcomes[NORM].to == "F32"
    before, after = decode(source[0], origin), decode("plain" if kind == "dense" else target, path)
    check_class(outcomes[W], before, after)
    with files.Checkpoint(path) as c:
        c.usable()
        assert c[NORM].dialect == c[CACHE].dialect == "plain" and (kind == "dense" or c[W].dialect == target)
        if kind != "dense":
            golden = after.value
            assert np.array_equal(c[W].values(), golden), "breccia reads other values than it wrote"
            assert not [f for f in c.verify() if f.severity in ("error", "ambiguity")]
    return outcomes[W]


def walk(cells, sources, source, folder):
    """The cells of a source; those as the list decides, for the page."""
    made, targets = {}, [(t, r) for (s, t), recipes in cells.items() if s == source for r in recipes]
    assert targets
    for i, (target, recipes) in enumerate(targets):
        (folder / str(i)).mkdir()
        try:
            outcome = convert(source, sources(*source), target, recipes, folder / str(i))
        except Exception as e:
            raise AssertionError(f"{source} -> {target}: {recipes}: {e!r}") from e
        assert not (recipes and isinstance(outcome, str)), (source, target, recipes, outcome)
        if not recipes:
            made[target] = cell(outcome)
    return made


def check_page(source, made):
    for target, text in made.items():
        assert CELLS[source, target] == text, f"{source} -> {target}: docs/conversions.md says otherwise; see how it is made"


@pytest.mark.parametrize("source", SOURCES, ids="-".join)
def test_every_class_is_true(sources, tmp_path, source):
    check_page(source, walk(sample(), sources, source, tmp_path))


@pytest.mark.exhaustive
@pytest.mark.parametrize("source", SOURCES, ids="-".join)
def test_every_class_of_all_is_true(sources, tmp_path, source):
    made = walk(every(), sources, source, tmp_path)
    if not REWRITE:
        check_page(source, made)
    REMADE.update({(source, target): text for target, text in made.items()})


@pytest.mark.parametrize("source", [s for s in SOURCES if s[0] in written() and s[0] != "gguf"], ids="-".join)       # GGUF: test_gguf.py
def test_the_value_alone_gives_the_same_arrays(sources, tmp_path, source):
    """Read, and written again: with what the file says beyond the value, and without."""
    path = sources(*source)
    outcomes = files.conversion(path, tmp_path / "again", source[0])
    assert {o.exactness for o in outcomes.values()} == {"bit-exact"}
    files.same_arrays(files.read(path / "model.safetensors")[0], files.read(tmp_path / "again" / "model.safetensors")[0])
    files.same_arrays(*files.stored_again(path, tmp_path / "alone"))
    with files.Checkpoint(path) as c:
        own = files.read(path / "model.safetensors")[0]
        files.save(tmp_path / "kept", source[0], {W: c[W].tensor()}, origins={W: c[W]})
        files.same_arrays({n: own[n] for n in c[W].parts.values()}, files.read(tmp_path / "kept" / "model.safetensors")[0])


def test_the_sample_has_every_pair_and_every_recipe():
    seen = sample()
    assert {(s[0], t) for (s, t), recipes in seen.items() if () in recipes} == {(d, t) for d, _ in SOURCES for t in (*written(), *DENSE)}
    assert {(t, r[0]) for (_, t), recipes in seen.items() for r in recipes if r} == set(SOURCES) - set(MADE)
    assert {s for s, _ in seen} == set(SOURCES)


# ------------------------------------------------------------------------------------------------------- the page

HEAD = """<!-- SPDX-License-Identifier: Apache-2.0 -->
<!-- Made by tests/convert/test_matrix.py (BRECCIA_REWRITE=1); do not edit. -->
# What `breccia convert` makes of what

A row is a dialect's file in one recipe (or as its own tools make it), a column what it was converted to. The weight: 256 x 384 normal
numbers, rows of six magnitudes, some zeros. The class is what `convert` stated, and the test that makes this page checked it on the
values with decoders of its own:

- `=` bit-exact: the same codes and scales, under other names or in another order
- **recipe** value-exact: every value is the same number, in the named recipe
- *recipe* one-ulp: the global scale became its reciprocal, rounded
- recipe, and a number: lossy; the ratio of signal to noise in dB, the least that this dialect's list allows
- `-` refused: the dialect has no place for it
"""


def cell(made):
    if isinstance(made, str):
        return "-"
    name = made.to.replace("|", "\\|")
    return {"bit-exact": "=", "value-exact": f"**{name}**", "one-ulp": f"*{name}*"}.get(made.exactness, f"{name} {made.sqnr:.0f}")


def page(cells):
    targets = [*written(), *DENSE]
    lines = [HEAD]
    for dialect in dict(SOURCES):
        lines += [f"## From {dialect}", "", "| recipe | " + " | ".join(targets) + " |", "|---" * (len(targets) + 1) + "|"]
        lines += [f"| {r} | " + " | ".join(cells[(dialect, r), t] for t in targets) + " |" for r in rows_of(dialect)]
        lines.append("")
    return "\n".join(lines)


def cells_of_page():
    """{(source, target): text} of the page."""
    found, dialect, targets = {}, None, []
    for line in PAGE.read_text().splitlines():
        row = [text.strip() for text in re.split(r"(?<!\\)\|", line)[1:-1]]
        if line.startswith("## From "):
            dialect = line.removeprefix("## From ")
        elif row and row[0] == "recipe":
            targets = row[1:]
        elif row and not row[0].startswith("---"):
            found |= {((dialect, row[0]), target): text for target, text in zip(targets, row[1:], strict=True)}
    return found


REWRITE = os.environ.get("BRECCIA_REWRITE") == "1"
CELLS, REMADE = cells_of_page(), {}


@pytest.mark.exhaustive
def test_the_page_is_written():
    if REWRITE and len({s for s, _ in REMADE}) == len(SOURCES):
        PAGE.write_text(page(REMADE))


def test_the_page_has_all_cells_and_nothing_else():
    assert set(CELLS) == set(every()), "BRECCIA_REWRITE=1 pytest -m exhaustive tests/convert/test_matrix.py writes the page anew"
    assert PAGE.read_text() == page(CELLS)
