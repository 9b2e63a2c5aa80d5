"""``sf.evaluate``: what the command says, without its process, its logging or its files."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_report import Page

from sentence_forge.encoders.encoder import Encoder
from sentence_forge.encoders.making.build import from_scratch
from sentence_forge.eval.api import evaluate
from sentence_forge.runtime.errors import UserError

HOSTILE = "a\x1b[2Jb\u202etxt\x07"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    texts = ["a cat sat on the mat", "a dog ran over there", "prices climbed", "一只猫", "一条狗"]
    return Encoder(from_scratch(lambda: texts, hidden=32, layers=1, heads=2), name="tiny")


def test_it_gives_what_the_command_writes(command: Callable, tmp_path: Path, encoder: Encoder) -> None:
    encoder.model.save(str(tmp_path / "tiny"))
    done = command("eval", "model=tiny", "baseline=tiny", "suite=sample", "resamples=30", "output=out")
    assert done.code == 0, done.err
    before = sorted(path.name for path in tmp_path.iterdir())
    run = SimpleNamespace(folder=tmp_path / "tiny")
    for model in (encoder, "tiny", tmp_path / "tiny", run):
        report = evaluate(model, baseline=run, suite=["sample"], resamples=30)
        written = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
        for key in ("tasks", "averages", "average", "resamples", "fingerprint"):
            assert report.json[key] == written[key] or key == "tasks"
        assert {name: row["spearman_cosine"] for name, row in report.json["tasks"].items()} == {
            name: row["spearman_cosine"] for name, row in written["tasks"].items()}
    assert str(report) in done.err and report.json["baseline"]["delta"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == before  # nothing was written
    page = report.save("saved")
    assert page == Path("saved/report.html") and (tmp_path / "saved" / "report.md").is_file()


def test_the_caller_s_process_stays_as_it_is(encoder: Encoder) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    evaluate(encoder, resamples=20)
    with pytest.raises(UserError):
        evaluate(encoder, suite="nowhere")
    assert before == (list(root.handlers), root.level, signal.getsignal(signal.SIGINT),
                      signal.getsignal(signal.SIGTERM))


@pytest.mark.parametrize(("words", "keywords"), [
    (["model=nowhere"], {"model": "nowhere"}),
    (["model=m", "suite=nowhere"], {"model": "m", "suite": "nowhere"}),
    (["model=m", "suite=[sample,nowhere]"], {"model": "m", "suite": ["sample", "nowhere"]}),
    (["model=m", "suite=sts", "data_dir=gone"], {"model": "m", "suite": "sts", "data_dir": "gone"}),
    (["model=m", "resamples=0"], {"model": "m", "resamples": 0}),
    (["model=m", "resample=3"], {"model": "m", "resample": 3}),
    (["model=m", "suite=bad.csv"], {"model": "m", "suite": "bad.csv"}),
    (["model=m", "dims=[9999]"], {"model": "m", "dims": [9999]}),
])
def test_bad_input_is_the_command_s_own_line(command: Callable, tmp_path: Path, encoder: Encoder, words: list[str],
                                             keywords: dict) -> None:
    encoder.model.save(str(tmp_path / "m"))
    (tmp_path / "bad.csv").write_text("sentence1,sentence2,score\na,b,9\n", encoding="utf-8")
    done = command("eval", *words)
    with pytest.raises(UserError) as refused:
        evaluate(**keywords)
    assert done.code == 2 and f"error: {refused.value}\n" in done.err
    with pytest.raises(UserError, match="int is no model"):
        evaluate(3)  # type: ignore[arg-type]


def test_a_notebook_s_piece_is_whole_and_no_form_obeys_a_text(tmp_path: Path, encoder: Encoder) -> None:
    said = ["a cat sat", "a dog ran over there", "prices climbed", "一只猫"]
    rows = "\n".join(f'"{HOSTILE} {said[row % 4]} <img src=x>|",{said[row % 3]} mat,{row % 6}' for row in range(20))
    (tmp_path / "p|<b>a.csv").write_text(f"sentence1,sentence2,score\n{rows}\n", encoding="utf-8")
    named = Encoder(encoder.model, name=f"model {HOSTILE} | <i>")
    report = evaluate(named, suite="file", file=str(tmp_path / "p|<b>a.csv"), resamples=20)
    shown = report._repr_html_()
    Page(shown)  # its tags are in balance
    assert "<script" not in shown and "http" not in shown and "@scope (.sentence-forge)" in shown
    report.save(tmp_path / "out")
    forms = [shown, str(report), *((tmp_path / "out" / f"report.{end}").read_text(encoding="utf-8")
                                   for end in ("html", "md", "json"))]
    for form in forms:
        assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(form)
    assert "<img" not in forms[0] + forms[2] + forms[3] and "<b>" not in forms[3] and "<i>" not in forms[3]
    about = json.loads(forms[4])
    assert HOSTILE in about["model"] and any(HOSTILE in pair["text1"] for pair in about["tasks"]["file"]["failures"])
    for block in forms[3].split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in lines}) <= 1
