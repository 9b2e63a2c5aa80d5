"""Every example in a docstring (``>>>``) is run, in a folder that has a pairs.csv and a titles.csv of the sample."""

from __future__ import annotations

import csv
import doctest
import io
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sentence_forge"
PROMPT = re.compile(r"^\s*>>> ", re.MULTILINE)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules() -> dict[str, int]:
    """Return the modules with examples, each with how many ``>>>`` its file has."""
    found = {}
    for folder in (PACKAGE, *(each for each in PACKAGE.iterdir() if each.is_dir())):
        for file in sorted(folder.rglob("*.py") if folder != PACKAGE else folder.glob("*.py")):
            if count := len(PROMPT.findall(file.read_text(encoding="utf-8"))):
                parts = file.relative_to(PACKAGE).with_suffix("").parts
                found[".".join(("sentence_forge", *(part for part in parts if part != "__init__")))] = count
    return found


@pytest.fixture
def folder_of_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty scored pairs and forty titles, under the names that the examples use."""
    monkeypatch.chdir(tmp_path)
    for name, source, count in (("pairs.csv", "sts_train.csv", 30), ("titles.csv", "titles.csv", 40)):
        with (PACKAGE / "data_readers" / "sample" / "en" / source).open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))[: count + 1]
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(row[:3] for row in rows)


def test_there_are_examples() -> None:
    assert len(modules()) >= 5


@pytest.mark.usefixtures("folder_of_the_examples")
@pytest.mark.parametrize(("name", "count"), modules().items(), ids=list(modules()))
def test_the_examples_of_a_module_give_what_they_show(name: str, count: int) -> None:
    tests = doctest.DocTestFinder().find(import_module(name))
    assert sum(len(test.examples) for test in tests) == count, f"{name}: an example outside docstrings is never run"
    shown = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in tests:
        runner.run(test, out=shown.write)
    assert runner.summarize(verbose=False).failed == 0, shown.getvalue()
