"""Test files as people have them: other ranges of scores, other names of columns, other encodings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_eval import WordSum

from sentence_forge.encoders.making.build import from_scratch
from sentence_forge.eval.evaluate import evaluate
from sentence_forge.eval.tasks.binary import BinaryPairs
from sentence_forge.eval.tasks.judged import JudgedRetrieval
from sentence_forge.eval.tasks.sts import ScoredPairs
from sentence_forge.runtime.errors import UserError


def pairs(path: Path, scores: np.ndarray, header: str = "sentence1,sentence2,score", encoding: str = "utf-8") -> Path:
    lines = [header, *(f"w{row} w{row + 1},w{row + row % 3} w{row + 2},{score:g}" for row, score in enumerate(scores))]
    separator = ";" if ";" in header else ","
    path.write_text("\n".join(line.replace(",", separator) for line in lines) + "\n", encoding=encoding)
    return path


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 5), (1, 5)])
def test_the_range_of_scores_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture, low: int, high: int) -> None:
    caplog.set_level("INFO")
    scores = np.round(np.linspace(low, high, 24), 2)
    report = evaluate(WordSum(), {"file": ScoredPairs(path=str(pairs(tmp_path / "a.csv", scores)), score_range=None)},
                      None, resamples=20)
    row = report.json["tasks"]["file"]
    assert row["score_range"] == [low, high] and f"scores from {low} to {high}" in caplog.text
    assert row["geometry"]["positives"]["n"] == (scores >= low + 0.8 * (high - low) - 1e-9).sum()


def test_a_range_that_can_t_be_told_is_asked_for(command: Callable, tmp_path: Path) -> None:
    from_scratch(lambda: [f"w{row}" for row in range(30)], hidden=32, layers=1, heads=2).save(str(tmp_path / "m"))
    pairs(tmp_path / "a.csv", np.linspace(0, 3, 24))
    done = command("eval", "model=m", "suite=a.csv", "resamples=20", "output=out")
    assert done.code == 2 and "a.csv: its scores go from 0 to 3 (row 24)" in done.err, done.err
    advised = next(word.strip(",; ") for word in done.err.split() if word.startswith("suite.file.score_range="))
    for told in (advised, "score_range=[0,4]"):
        done = command("eval", "model=m", "suite=a.csv", told, "resamples=20", f"output=out{len(told)}")
        assert done.code == 0, done.err
    about = json.loads((tmp_path / f"out{len('score_range=[0,4]')}" / "report.json").read_text(encoding="utf-8"))
    assert about["tasks"]["file"]["score_range"] == [0, 4]


def test_well_known_names_and_other_encodings_are_read(tmp_path: Path) -> None:
    scores = np.tile([0, 1], 12)
    chinese = pairs(tmp_path / "a.csv", scores, "句子1;句子2;相似度", "gb18030")
    plain = pairs(tmp_path / "b.csv", scores)
    one, other = (ScoredPairs(path=str(path), score_range=None).read(None) for path in (chinese, plain))
    assert one.units == other.units and one.gold.tolist() == other.gold.tolist() and one.score_range == (0, 1)
    labelled = BinaryPairs(path=str(pairs(tmp_path / "c.csv", scores, "text1,text2,label"))).read(None)
    assert labelled.gold.tolist() == scores.tolist()
    with pytest.raises(UserError, match=r"no column 'sentence1'; there are: a, b, other; .*suite.file.columns="):
        ScoredPairs(path=str(pairs(tmp_path / "p.csv", scores, "a,b,other"))).read(None)
    with pytest.raises(UserError, match="no column 'score'"):
        BinaryPairs(path=str(pairs(tmp_path / "d.csv", scores, "text1,text2,other"))).read(None)
    judged = tmp_path / "e.csv"
    judged.write_text("查询;标题;相关性\n猫;一只猫;2\n猫;一条狗;0\n狗;一条狗;1\n", encoding="gb18030")
    rows = JudgedRetrieval(path=str(judged)).read(None)
    assert (rows.queries, rows.documents) == (["猫", "狗"], ["一只猫", "一条狗"])
    assert rows.grades == [{0: 2, 1: 0}, {1: 1}]
