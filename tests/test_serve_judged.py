"""Marks become files: triplets and pairs that train takes, judgements that eval takes, and what to mark next."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from math import sqrt
from pathlib import Path

import pytest
from conftest import TINY, Done
from corpora import build
from serving import Tags, served

from sentence_forge.search.serve.judged import held_out, judged
from sentence_forge.search.serve.marks import Mark, Marks
from sentence_forge.search.serve.proposals import enough

Command = Callable[..., Done]


def marked(folder: Path, queries: int = 40) -> None:
    """Two right, one near and one wrong hit of each query; the last query has only right ones."""
    marks = Marks(folder)
    for number in range(queries):
        for text, kind in [("a", "right"), ("b", "right"), ("c", "near"), ("d", "wrong")]:
            if kind == "right" or number < queries - 1:
                marks.set(f"query {number}", text, f"storm text {text} of {number}", kind, "ann")
    marks.close()


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_fixed_tenth_of_the_queries_is_held_out() -> None:
    queries = [f"query {number}" for number in range(5000)]
    tested = [query for query in queries if held_out(query)]
    assert 420 < len(tested) < 580
    assert held_out(f"  {tested[0].upper()} ") and tested == [query for query in queries if held_out(query)]


def test_files_hold_every_text_once_and_no_query_twice(tmp_path: Path, command: Command) -> None:
    build(tmp_path / "index", ["storm hits"])
    marked(tmp_path / "index")
    done = command("search", "marks", "index", "--export", "marks.csv", "--json")
    assert done.code == 0, done.err
    train, test = rows(tmp_path / "marks.csv"), rows(tmp_path / "marks.test.csv")
    assert list(train[0]) == ["anchor", "positive", "negative"] and list(test[0]) == ["query", "title", "grade"]
    learnt, tested = {row["anchor"] for row in train}, {row["query"] for row in test}
    assert not learnt & tested and len(learnt | tested) >= 39 and 2 <= len(tested) < 10
    assert len(train) == 2 * len(learnt) and all(row["negative"].split()[2] == "d" for row in train)
    assert {row["positive"].split()[2] for row in train} == {"a", "b"}
    assert {row["title"].split()[2]: row["grade"] for row in test} == {"a": "2", "b": "2", "c": "1", "d": "0"}
    said = json.loads(done.out)
    assert said["rows"] == len(train) and said["test_rows"] == len(test) and said["one_sided"] <= 1
    assert command("search", "marks", "index", "--export", "pairs.csv", "--as", "pairs").code == 0
    pairs = rows(tmp_path / "pairs.csv")
    assert {row["sentence2"].split()[2]: row["score"] for row in pairs} == {"a": "5", "b": "5", "c": "2.5", "d": "0"}
    counted = json.loads(command("search", "marks", "index", "--json").out)
    assert counted["right"] == 80 and counted["queries"] == 40 and counted["test_queries"] == len(tested)


def test_both_files_train_and_the_held_out_marks_test(tmp_path: Path, command: Command) -> None:
    build(tmp_path / "index", ["storm hits"])
    marked(tmp_path / "index")
    for form, loss in (("triplets", "mnrl"), ("pairs", "cosine")):
        assert command("search", "marks", "index", "--export", "marks.csv", "--as", form).code == 0
        done = command("train", f"loss={loss}", *TINY, "data=marks.csv", "loop.max_steps=2", f"hydra.run.dir={form}")
        assert done.code == 0, done.err
    done = command("eval", "model=triplets", "baseline=pairs", "suite=marks", "file=marks.test.csv", "output=report",
                   "resamples=50")
    assert done.code == 0, done.err
    task = json.loads((tmp_path / "report" / "report.json").read_text())["tasks"]["marks"]
    assert {"ndcg@10", "precision@5", "average_precision"} <= set(task) and len(task["precision@5_ci95"]) == 2


@pytest.mark.parametrize(("words", "said"), [
    (["marks", "index"], "has no marks yet"), (["marks", "nowhere"], "no such folder"),
    (["marks", "index", "--export", "x.txt"], "has no marks yet"), (["marks"], "see python -m search marks --help"),
    (["serve", "nowhere"], "no such folder"), (["serve", "index", "--host", "0.0.0.0"], "--token"),
    (["serve", "index", "--host", "::", "--token", "short"], "too short"),
    (["serve", "index", "--port", "x"], "--port"),
    (["serve", "index", "--port", "99999"], "0 to 65535"), (["serve", "index", "--rate", "-1"], "0 or more"),
    (["serve", "index", "--port", "0"], "is no export"),
    (["serve", "index", "--host", "0.0.0..0", "--token", "open sesame"], "can't listen there"),
])
def test_a_mistake_is_said_in_a_line(tmp_path: Path, command: Command, words: list[str], said: str) -> None:
    build(tmp_path / "index", ["storm hits"])
    done = command("search", *words)
    assert done.code == 2 and said in done.err and "Traceback" not in done.err


def test_most_labellers_decide_and_ties_are_left_out() -> None:
    def given(*kinds: str) -> list[Mark]:
        return [Mark("q", "1", "t", kind, f"labeller {number}", "now") for number, kind in enumerate(kinds)]

    assert judged(given("right", "wrong", "right")).queries["q"]["right"] == ["t"]
    assert judged(given("right", "wrong")) == ({}, 1)
    assert judged([Mark("q", "1", "q", "right", "ann", "now")]).queries == {}  # the query itself teaches nothing


def test_how_many_marks_are_enough() -> None:
    assert enough({"right": 0}).needed == 385  # 1.96 ** 2 * 0.25 / 0.05 ** 2
    some = enough({"right": 80, "near": 10, "wrong": 10})
    low, high = ((0.8 + 1.92 / 100 + sign * 1.96 * sqrt(0.8 * 0.2 / 100 + 0.96 / 100**2)) / (1 + 3.8416 / 100)
                 for sign in (-1, 1))
    assert some.half == pytest.approx((high - low) / 2, abs=1e-4) and 240 < some.needed < 260
    assert enough({"right": 5}).needed > 30


def test_the_queue_proposes_what_is_unsure_and_not_yet_marked(tmp_path: Path) -> None:
    titles = [f"storm {first} {second} report" for first in "abcdef" for second in "ghijkl"]
    build(tmp_path, titles)
    with served(tmp_path) as client:
        page = Tags(client.get("/queue").text)
        forms = [(query["value"], row["value"]) for query, row in zip(
            page.named("input", name="query"), page.named("input", name="id"), strict=True)]
        assert 10 < len(forms) <= 30 and len(set(forms)) == len(forms)
        assert max(sum(query == each for query, _ in forms) for each, _ in forms) <= 3
        query, row = forms[0]
        assert client.form("/marks", {"query": query or "", "id": row or "", "mark": "wrong"}).status == 303
        after = Tags(client.get("/queue").text)
        assert (query, row) not in zip([each["value"] for each in after.named("input", name="query")],
                                       [each["value"] for each in after.named("input", name="id")], strict=True)
        assert any(text.startswith("1 of 30 marks for a first training.") for text in after.texts)
