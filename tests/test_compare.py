"""The leaderboard: what it joins, what it leaves out aloud, and its three forms."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY

from sentence_forge.data_readers.csv_writer import GUARD
from sentence_forge.eval.compare import main
from sentence_forge.eval.report.leaderboard import leaderboard
from sentence_forge.runtime.errors import UserError


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of one run, and one with another loss, trained for two steps."""
    import sys

    from sentence_forge.train.cli import main as train

    folder = tmp_path_factory.mktemp("runs")
    before = sys.argv
    for name, settings in (("seed1", ["loss=cosine", "seed=1"]), ("seed2", ["loss=cosine", "seed=2"]),
                           ("other", ["loss=mnrl", "seed=1"])):
        sys.argv = ["python -m train", *settings, *TINY, "loop.max_steps=2", f"hydra.run.dir={folder / 'train' / name}"]
        with pytest.raises(SystemExit) as leaving:
            train()
        assert not leaving.value.code
    sys.argv = before
    return folder


def test_the_three_forms_say_the_same(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*map(str, sorted(runs.glob("*/*"))), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert shown == (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8")
    with (tmp_path / "out" / "leaderboard.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["run"] for row in rows} == {"seed1", "seed2", "other"}
    scores = [float(row["average"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    for row in rows:
        about = json.loads((runs / "train" / row["run"] / "report" / "report.json").read_text(encoding="utf-8"))
        assert float(row["sample-en-dev"]) == about["tasks"]["sample-en-dev"]["spearman_cosine"]
        assert float(row["gain"]) == about["baseline"]["delta"]
    # Nothing of the config but what differs.
    assert {"loss", "seed"} <= set(rows[0]) and not {"loop.batch_size", "model.hidden", "loss.scale"} & set(rows[0])
    assert {row["run"]: row["loss"] for row in rows} == {"seed1": "Cosine", "seed2": "Cosine",
                                                         "other": "MultipleNegativesRanking"}
    page = (tmp_path / "out" / "leaderboard.html").read_text(encoding="utf-8")
    for row in rows:
        value = f"{100 * float(row['sample-en-dev']):.2f}".replace("-", "−")
        assert value in page and value in shown and row["run"] in page
    assert "http" not in page and page.count("<script>") == 1


def test_a_run_s_name_is_no_formula_no_markup_and_no_table(runs: Path, tmp_path: Path) -> None:
    name = "=cmd|<img src=x>\x1b[2J"
    shutil.copytree(runs / "train" / "seed1", tmp_path / name)
    assert main([str(tmp_path / name), str(runs / "train" / "seed2"), "--out", str(tmp_path / "out")]) == 0
    forms = {end: (tmp_path / f"out/leaderboard.{end}").read_text(encoding="utf-8") for end in ("md", "html", "csv")}
    assert "\x1b" not in "".join(forms.values()) and "<img" not in forms["md"] + forms["html"]
    assert "\n=cmd" not in forms["csv"] and f"\n{GUARD}=cmd" in forms["csv"]
    lines = [line.replace("\\|", "").count("|") for line in forms["md"].splitlines() if line.startswith("|")]
    assert len(set(lines)) == 1


def test_seeds_are_joined_and_other_losses_are_not(runs: Path) -> None:
    board = leaderboard(sorted((runs / "train").iterdir()))
    (group,) = board.seeds
    assert sorted(group.names) == ["seed1", "seed2"]
    values = [entry.tasks["sample-en-dev"]["spearman_cosine"] for entry in board.entries if "seed" in entry.name]
    assert group.tasks["sample-en-dev"] == {"mean": pytest.approx(np.mean(values)),
                                               "sd": pytest.approx(np.std(values, ddof=1))}


def test_later_evaluations_join_their_run(runs: Path, command: Callable, tmp_path: Path) -> None:
    done = command("eval", f"model={runs / 'train' / 'seed1'}", "suite=triplets", "suite.snli-triplets.folder=null",
                   "suite.snli-triplets.split=dev", "+suite.snli-triplets.sample=zh", "resamples=20", "output=more")
    assert done.code == 0, done.err
    board = leaderboard([runs / "train" / "seed1", runs / "train" / "seed2", tmp_path / "more"])
    assert sorted(entry.name for entry in board.entries) == ["seed1", "seed2"]
    joined = next(entry for entry in board.entries if entry.name == "seed1")
    assert set(joined.tasks) == {"sample-en-dev", "snli-triplets"} and board.shared == ["sample-en-dev"]
    # The same task on other rows is marked, not compared.
    report = json.loads((tmp_path / "more" / "report.json").read_text(encoding="utf-8"))
    report["fingerprint"] = "another"
    report["tasks"]["snli-triplets"]["data"]["sha256"] = "other rows"
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "report.json").write_text(json.dumps(report), encoding="utf-8")
    board = leaderboard([runs / "train" / "seed1", tmp_path / "more", tmp_path / "third"])
    assert len(board.other_rows) == 1


def test_what_holds_nothing_is_named_and_left_out(runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    caplog.set_level("INFO")
    broken = tmp_path / "broken"
    shutil.copytree(runs / "train" / "seed1", broken)
    shutil.rmtree(broken / "model")
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "report.json").write_text('{"tasks": {"a": 3}')
    (tmp_path / "a file").write_text("x")
    board = leaderboard([*sorted(tmp_path.iterdir()), runs / "train" / "seed2"])
    assert [entry.name for entry in board.entries] == ["seed2"]
    said = caplog.text
    assert "broken: a run without a model" in said and "empty: holds no report" in said and "damaged" in said
    with pytest.raises(UserError, match="nothing to compare"):
        leaderboard([broken])
    assert main([str(runs / "train" / "seed1"), "--out", str(tmp_path / "a file")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'a file'}: is no folder")
    assert main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("error: ") and main([]) == 2
