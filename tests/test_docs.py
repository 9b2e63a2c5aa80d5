"""README and docs/: every command composes as typed, every option is named, every name of the face is there."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
from conftest import TINY, Done
from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

import sentence_forge as sf
from sentence_forge.configs import schema
from sentence_forge.runtime.overrides import friendly, options
from sentence_forge.search.cli import _COMMANDS as SUBCOMMANDS

Command = Callable[..., Done]
ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "RESULTS.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?:python -m|torchrun --nproc-per-node \d+ -m) (?P<words>(?:train|eval|export|search)\b[^`\n]*)")
PLACES = {"<run>": "run", "<first run>": "run", "<that folder>": "sweep", "<folder with stsb>": "data",
          "<owner>/<name>": "owner/name", "$SENTENCE_FORGE_DATA": "data", "$D": "data", "<folder>": "data",
          "loss=mine": "loss=cosine", "suite=ours": "suite=triplets",  # what one adds
          "=<name>": None}  # of every name the house test tries it
FILES = ("pairs.csv", "titles.csv", "hard.csv", "news.csv", "news.xlsx", "marks.csv", "marks.test.csv",
         "passages.jsonl", "judged.csv", "questions.csv", "SICK.txt", "data/news_en_agnews/test.csv.gz",
         "data/news_zh_all/corpus.csv.gz", "data/news_en_all/corpus.csv.gz", "data/nli_en_lingnli/train.csv.gz",
         "data/nli_zh_cmnli/dev.csv.gz", "data/bq/dev.csv.gz", "data/stsb/train.csv.gz",
         "data/sick/train.csv.gz", "silver.csv")
FOLDERS = ("run", "outputs/train/run", "data", "sweep", "snli_1.0", "QQP", "tnews", "data/stsb",
           "data/news_en_uci", "data/nli_en_snli", "mypackage", "runs/s-mnrl-1/untouched", "tuned-1")


def commands() -> Iterator[tuple[str, str]]:
    """Yield each command of the pages, with the page's name."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fenced = re.findall(r"```(?:sh|bash)?\n(.*?)```", text, re.DOTALL)
        spans = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        for code in [*"\n".join(fenced).splitlines(), *(" ".join(span.split()) for span in spans)]:
            if found := COMMAND.match(code.strip().removeprefix(". .venv/bin/activate && ")):
                yield page.name, found["words"]


EVERY = sorted(set(commands()), key=str)


@pytest.fixture
def typed_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the files that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    for name in FOLDERS:
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()


def test_the_pages_show_commands() -> None:
    assert len(EVERY) > 50


@pytest.mark.usefixtures("typed_here")
@pytest.mark.parametrize(("page", "words"), EVERY, ids=[f"{page}: {words}" for page, words in EVERY])
def test_a_command_of_the_pages_is_understood(page: str, words: str) -> None:
    for place, there in PLACES.items():
        if place in words and there is None:
            return
        words = words.replace(place, str(there))
    name, *arguments = shlex.split(words, comments=True)
    if "--config-dir" in arguments:  # is typed in tests/test_own_loss.py, with the folder
        return
    if "--help" in arguments or "--cfg" in arguments:
        arguments = [each for each in arguments if each not in ("--help", "--cfg", "job")]
    if name == "search" and (module := SUBCOMMANDS.get(next(iter(arguments), ""))):
        import_module(f"sentence_forge.search.{module}").parser().parse_args(arguments[1:])
        return
    if name in ("search", "search.mine", "search.compare", "eval.compare"):
        module = import_module(f"sentence_forge.{name if '.' in name else 'search.cli'}")
        parser = getattr(module, "parser", None) or module._parser
        parser().parse_args(arguments or ["news"] * {"eval.compare": 1, "search": 1}.get(name, 2))
        return
    several = "-m" in arguments
    typed = friendly(arguments)
    schema.register()
    overrides = [each for each in typed if each != "-m"]
    if several:
        parsed = OverridesParser.create().parse_overrides(overrides)
        overrides = list(BasicSweeper.split_arguments(parsed, None)[0][0])
    with initialize_config_module("sentence_forge.configs", version_base="1.3"):
        compose(name, overrides)


TABLES = {"loss": "losses", "model": "models", "data": "data", "suite": "evaluation", "experiment": "training"}


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in TABLES for name in options(group)])
def test_every_option_has_its_row(group: str, name: str) -> None:
    page = (ROOT / "docs" / f"{TABLES[group]}.md").read_text(encoding="utf-8")
    first_cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("|")]
    assert any(f"`{name}`" in cell for cell in first_cells), f"docs/{TABLES[group]}.md names no {group}={name}"


def block_of(page: str, language: str, begins: str) -> str:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    (found,) = [block for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if begins in block]
    return found


def test_the_loss_the_data_set_and_the_task_that_internals_adds_work(command: Command, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docspackage").mkdir()
    (tmp_path / "docspackage" / "__init__.py").touch()
    (tmp_path / "docspackage" / "mine.py").write_text(block_of("internals.md", "python", "class Mine"))
    for group, name, begins in (("loss", "mine", "losses.mine.Mine"), ("data", "questions", "defaults: [file]"),
                                ("suite", "ours", "TripletAccuracy")):
        (tmp_path / "configs" / group).mkdir(parents=True)
        yaml = block_of("internals.md", "yaml", begins).replace("losses.mine.", "docspackage.mine.")
        (tmp_path / "configs" / group / f"{name}.yaml").write_text(yaml)
    (tmp_path / "ours").mkdir()
    for split in ("train", "dev"):
        rows = [f"{split} one {number} ?,{split} other {number} ?,{number % 2}\n" for number in range(40)]
        (tmp_path / "ours" / f"{split}.csv").write_text("question1,question2,same\n" + "".join(rows))
    triplets = [f"one {number} .,same {number} .,other {number} .\n" for number in range(20)]
    (tmp_path / "ours" / "test.csv").write_text("anchor,positive,negative\n" + "".join(triplets))
    monkeypatch.syspath_prepend(tmp_path)
    done = command("train", "--config-dir", str(tmp_path / "configs"), "loss=mine", "plugins=[docspackage]",
                   "loop.max_steps=2", *TINY)
    assert done.code == 0, done.err
    done = command("train", "--config-dir", str(tmp_path / "configs"), "loss=softmax", "data=questions",
                   f"data.path={tmp_path / 'ours'}", "loop.max_steps=2", *TINY, "hydra.run.dir=run")
    assert done.code == 0, done.err
    done = command("eval", "--config-dir", str(tmp_path / "configs"), "model=folder", "model.path=run", "suite=ours",
                   f"data_dir={tmp_path}", "resamples=20")
    assert done.code == 0 and "our-triplets" in done.err + done.out, done.err


def short(value: float) -> str:
    return f"{value:,.2f}" if value < 1 else f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def test_the_tables_of_scaling_follow_from_its_formulas_and_these_from_the_results() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    given: dict = {}
    exec(block_of("scaling.md", "python", "fp32 ="), given)  # what the page shows to be computed with
    counts = (300_000, 10_000_000, 1_000_000_000)
    for speed, price, machines in (("fp32", "CPU", 1), ("int8", "CPU", 1), ("gpu", "GPU", 1), ("fp32", "CPU", 64)):
        cells = [f"{short(given['hours'](n, given[speed]) / machines)} h, "
                 f"${short(given['hours'](n, given[speed]) * given[price])}" for n in counts]
        assert " | ".join(cells[machines > 1:]) + " |" in page, (speed, machines)
    for size in (1536, 768, 384, 96, 48):
        held = size + given["graph"]  # GB of a billion titles
        assert " | ".join([f"| {size:,}", *(short(n * size / 1e9) for n in counts),
                           f"{held:,} GB, ${short(held * given['RAM'])} |"]) in page, size
    small, middle, large = map(given["one_ms"], counts)
    assert f"{short(small)} ms at 300 thousand, {short(middle)} ms at 10 million, {short(large / 1000)} s at a" in page

    kept = {(file.stem, line["name"]): line for file in sorted((ROOT / "bench" / "results").glob("amd-26*/*.json"))
            for line in json.loads(file.read_text(encoding="utf-8"))["lines"]}
    first = kept["reindex_269k", "reindex"]
    assert given["fp32"] == pytest.approx(first["rows"] / first["peer_value"])
    assert given["int8"] / given["fp32"] == pytest.approx(
        kept["encode_all", "encode, onnx int8"]["value"] / kept["encode_all", "encode, onnx fp32"]["value"])
    for rows, name in ((20_000, "search"), (269_089, "search_269k")):
        assert given["one_ms"](rows) == pytest.approx(kept[name, "fast_query"]["value"], abs=1e-3)
    held: dict[int, list[float]] = {}
    for file in (ROOT / "bench" / "results").glob("*/scale.json"):
        for line in json.loads(file.read_text(encoding="utf-8"))["lines"]:
            if line["name"] == "resident_memory":
                held.setdefault(line["rows"], []).append(line["value"] * 2**20 / 1e9)
    least, most = min(held[10_000_000]), max(held[10_000_000])
    assert f"held {max(held[300_000]):.1f} GB at 300 thousand rows" in page
    assert f"and {least:.1f} to {most:.1f} GB at 10 million" in page


def test_every_option_of_a_table_is_there() -> None:
    for group, page in TABLES.items():
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        table = text.partition(f"| `{group}=` |")[2].partition("\n\n")[0]
        named = {name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])}
        assert named and named <= set(options(group)), named - set(options(group))


def test_python_in_the_pages_is_of_the_face() -> None:
    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            compile(block, page.name, "exec")
            assert set(re.findall(r"\bsf\.(\w+)", block)) <= set(sf.__all__)
    guide = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert set(sf.__all__) <= set(re.findall(r"\bsf\.(\w+)", guide))


def test_readme_is_short_and_names_its_pages() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert [name for name in linked if not (ROOT / name).exists()] == []
    guides = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} - {"docs/index.md"}
    assert guides <= set(linked), guides - set(linked)
