"""Grading what searches find: the pool tells nobody who found what, grades are kept without titles, measures agree."""

from __future__ import annotations

import csv
import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from corpora import build
from sklearn.metrics import ndcg_score

from bench import judge
from sentence_forge.data_readers.sample import sample_path
from sentence_forge.eval.evaluate import evaluate
from sentence_forge.eval.tasks.judged import JudgedRetrieval
from sentence_forge.search.index import Index

QUERIES = ["storm coast", "markets fall", "opera night"]
TITLES = [f"{query} {word} {number}" for number, (query, word) in enumerate(
    (query, word) for query in QUERIES for word in ["report", "news", "again", "today", "city"])]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "queries.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("query", "relevant"), *((query, f"about {query}") for query in QUERIES)])
    for name, step in (("one", 1), ("two", -2)):  # the titles in two orders
        lines = [json.dumps({"query": query, "hits": [{"title": title} for title in TITLES[::step]]})
                 for query in QUERIES]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    return tmp_path


def run(*words: str) -> int:
    return judge.main([*words, "--queries", "queries.csv", "--grades", "kept/grades.csv", "--out", "pool.csv"])


def graded(path: Path, grade: object) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["grade"] = grade(row)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def rule(row: dict[str, str]) -> str:
    return "2" if row["query"] in row["title"] else "1" if row["title"].endswith(("3", "8")) else "0"


def test_queries_are_shown_with_the_grades_of_their_first_five(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pool", "one.jsonl", "two.jsonl") == 0
    graded(here / "pool.csv", lambda row: "" if row["title"].endswith("14") else rule(row))
    assert run("keep", "pool.csv") == 0
    assert run("show", "one.jsonl", "two.jsonl") == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "| query | one | two |" and len(rows) == 2 + len(QUERIES)
    assert rows[2] == "| storm coast | 2 2 2 2 2 | - 0 0 1 0 |"  # the titles from the first, and from the last by twos
    assert run("show", "one.jsonl", "--titles") == 0
    assert "| storm coast | 2 storm coast report 0<br>2 storm coast news 1<br>" in capsys.readouterr().out


def test_from_pool_to_scores(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pool", "one.jsonl", "two.jsonl") == 0
    rows = graded(here / "pool.csv", rule)
    for query in QUERIES:
        titles = [row["title"] for row in rows if row["query"] == query]
        assert set(titles) == {*TITLES[:10], *TITLES[::-2]} and titles == sorted(
            titles, key=lambda title: sha256(title.encode()).hexdigest())
    assert run("keep", "pool.csv") == 0
    kept = (here / "kept" / "grades.csv").read_text()
    assert len(kept.splitlines()) == len(rows) + 1 and not any(title in kept for title in TITLES)
    capsys.readouterr()
    assert run("score", "one.jsonl", "two.jsonl") == 0
    lines = [json.loads(each) for each in capsys.readouterr().out.splitlines()]
    of = {(row["query"], row["title"]): float(row["grade"]) for row in rows}
    for found, step in zip(lines, (1, -2), strict=True):
        ranked = [[of[query, title] for title in TITLES[::step][:10]] for query in QUERIES]
        all_of = [[grade for (asked, _), grade in of.items() if asked == query] for query in QUERIES]
        best = [np.sum(np.sort(row)[::-1][:10] / np.log2(np.arange(2, 2 + len(row[:10])))) for row in all_of]
        ndcg = [sum(grade / np.log2(at + 2) for at, grade in enumerate(row)) / top
                for row, top in zip(ranked, best, strict=True)]
        assert found["value"] == pytest.approx(100 * np.mean(ndcg), abs=1e-3) and found["judged"] == 1
        assert found["precision@10"] == pytest.approx(100 * np.mean(np.array(ranked) > 0) * len(ranked[0]) / 10,
                                                      abs=0.01)
        low, high = found["ndcg@10_ci95"]
        assert low <= found["value"] <= high
    assert lines[1]["ndcg@10_delta"] == pytest.approx(lines[1]["value"] - lines[0]["value"], abs=0.01)
    assert lines[1]["ndcg@10_delta_ci95"][0] <= lines[1]["ndcg@10_delta"] and "ndcg@10_delta" not in lines[0]
    assert run("pool", "one.jsonl") == 0  # graded titles need not be graded again
    with (here / "pool.csv").open(newline="", encoding="utf-8") as file:
        assert all(row["grade"] == rule(row) for row in csv.DictReader(file))


def test_an_index_is_measured_as_suite_mine_measures_its_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = build(here / "export", TITLES)
    encoder.name = "words"
    with Index.open(here / "export", encoder) as index:
        ranked = [[hit.as_json() for hit in hits] for hits in index.search(QUERIES, len(TITLES))]
    for name, step in (("three", 1), ("four", -1)):  # between them they find all titles
        lines = [json.dumps({"query": query, "hits": hits[::step]})
                 for query, hits in zip(QUERIES, ranked, strict=True)]
        (here / f"{name}.jsonl").write_text("\n".join(lines))
    assert run("pool", "three.jsonl", "four.jsonl") == 0
    graded(here / "pool.csv", rule)
    assert run("keep", "pool.csv") == 0
    capsys.readouterr()
    assert run("score", "three.jsonl") == 0
    found = json.loads(capsys.readouterr().out)
    row = evaluate(encoder, {"mine": JudgedRetrieval(path="pool.csv")}, None, resamples=20).json["tasks"]["mine"]
    assert found["value"] == pytest.approx(100 * row["ndcg@10"], abs=0.01)
    assert found["mrr@10"] == pytest.approx(100 * row["mrr@10"], abs=0.01)
    grades = np.array([[float(rule({"query": query, "title": title})) for title in TITLES] for query in QUERIES])
    cosine = np.array([[encoder.encode([query])[0] @ vector / np.linalg.norm(vector)
                        for vector in encoder.encode(TITLES)] for query in QUERIES])
    assert found["value"] == pytest.approx(100 * ndcg_score(grades, cosine, k=10), abs=0.01)


def test_mistakes_are_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("score", "one.jsonl") == 2 and "no grades above 0" in capsys.readouterr().err
    assert run("pool", "one.jsonl") == 0
    graded(here / "pool.csv", lambda row: "3")
    assert run("keep", "pool.csv") == 2 and "row 1, column grade: '3' is none" in capsys.readouterr().err
    (here / "one.jsonl").write_text(json.dumps({"query": QUERIES[0], "hits": []}))
    assert run("pool", "one.jsonl") == 2 and "has no hits of 'markets fall'" in capsys.readouterr().err


def test_the_sample_has_fifty_chinese_queries() -> None:
    with sample_path("zh", "queries").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["query"] for row in rows}) == 50 and all(row["relevant"].strip() for row in rows)
