"""Runs and an export of version 0.1.0 (commit d6de60c) still resume, evaluate, index and search.

``before.tar.gz`` was made by that version from two small files written for it: four trainings of eight steps with a
tiny model (cosine, softmax, matryoshka, a mix), each left with its checkpoint of step 4, and an export of the first.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sentence_forge.encoders.computing.matmul import ROWS

ARCHIVE = Path(__file__).parent / "before.tar.gz"


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        known = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # from Python 3.11.4 on
        archive.extractall(tmp_path, **known)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def losses(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}


@pytest.mark.parametrize("name", ["cosine", "softmax", "matryoshka", "mix"])
def test_a_run_of_the_version_before_resumes(name: str, before: Path, command: Callable,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    # dropout is drawn for whole streams, and the processor of the runs fills them up
    monkeypatch.setattr("sentence_forge.encoders.computing.flat_way.rows_at_once", lambda device: ROWS)
    os.chdir(before)  # where its data lies, by a relative path
    old = losses(before / name)
    assert sorted(old) == list(range(1, 9))
    done = command("train", f"resume={name}")
    assert done.code == 0, done.err
    new = losses(before / name)
    assert "going on from" in done.err and [new[step] for step in range(1, 5)] == [old[step] for step in range(1, 5)]
    assert new == pytest.approx(old, rel=1e-4)  # another processor rounds otherwise
    assert (before / name / "report" / "report.json").is_file()


@pytest.mark.parametrize("name", ["cosine", "softmax", "matryoshka", "mix"])
def test_a_run_of_the_version_before_is_evaluated(name: str, before: Path, command: Callable) -> None:
    done = command("eval", f"model={name}", "suite=pairs.csv", "output=found")
    assert done.code == 0, done.err
    report = json.loads((before / "found" / "report.json").read_text(encoding="utf-8"))
    assert report["tasks"]["file"]["n"] == 96
    if name == "matryoshka":
        assert [each["dim"] for each in report["dims"]] == [16, 8]


def test_an_export_of_the_version_before_is_searched_and_brought_up_to_date(before: Path, command: Callable) -> None:
    old = json.loads((before / "hits.json").read_text(encoding="utf-8"))
    assert command("search", "news", "--verify").code == 0
    done = command("search", "news", old["query"], "--json", "-k", "3")
    assert done.code == 0, done.err
    hits = json.loads(done.out)["hits"]
    assert [hit["id"] for hit in hits] == [hit["id"] for hit in old["hits"]]
    assert [hit["score"] for hit in hits] == pytest.approx([hit["score"] for hit in old["hits"]], abs=1e-5)
    titles = (before / "titles.csv").read_text(encoding="utf-8")
    (before / "titles.csv").write_text(titles + "The lighthouse keeper sails home\n", encoding="utf-8")
    done = command("export", "only=index", "corpus=titles.csv", "out=news")
    assert done.code == 0 and "1 titles encoded, 40 reused" in done.err, done.err
