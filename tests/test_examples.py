"""Examples are run: those in docstrings (``>>>``), in README and docs/, and the scripts in examples/.

They find a pairs.csv and a titles.csv of the sample in their folder, and a tiny model in place of MiniLM.
"""

from __future__ import annotations

import csv
import doctest
import io
import re
from importlib import import_module
from pathlib import Path

import pytest
import tiny_models

import sentence_forge as sf

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sentence_forge"
SAMPLE = PACKAGE / "data_readers" / "sample" / "en"
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
        with (SAMPLE / source).open(encoding="utf-8", newline="") as file:
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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    with (SAMPLE / "titles.csv").open(encoding="utf-8", newline="") as file:
        texts = [row[0] for row in csv.reader(file)]
    return str(tiny_models.make("bert", tmp_path_factory.mktemp("tiny"), texts))


SHOWN = {"train_on_a_csv.py": "refused: broken.csv, line 2 (row 1), column score", "is_it_better.py": "sample-en-dev: ",
         "search_a_corpus.py": "found now: "}


def test_every_script_is_run() -> None:
    assert {file.name for file in (ROOT / "examples").glob("*.py")} == set(SHOWN)


@pytest.mark.usefixtures("folder_of_the_examples")
@pytest.mark.parametrize("name", SHOWN)
def test_a_script_runs(name: str, tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = (ROOT / "examples" / name).read_text(encoding="utf-8")
    assert code.count('MODEL = "minilm"') == 1
    exec(compile(code.replace('MODEL = "minilm"', f"MODEL = {tiny!r}"), name, "exec"), {})
    assert SHOWN[name] in capsys.readouterr().out


PAGES = ("README.md", "docs/data.md", "docs/python.md")


@pytest.mark.usefixtures("folder_of_the_examples")
@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page: str, tiny: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block.replace('"data=pairs.csv"', f'"data=pairs.csv", "model={tiny}"'), page, "exec"), {})


def test_the_face_has_all_that_it_names() -> None:
    assert [name for name in sf.__all__ if not hasattr(sf, name)] == []
