"""The tables of RESULTS.md about recipes: rows over seeds, gains with intervals, none typed and none lost."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpora import WordEncoder, titles_like
from safetensors.torch import load_file, save_file

from bench import recipe_tables, recipes, scale_table, silver, soups, tables
from bench.head_first import HeadFirst
from sentence_forge.data_readers.csv_writer import write_csv
from sentence_forge.encoders.similarity import normalise

BEFORE = {"sts": ("spearman_cosine", 0.80), "news": ("precision@10", 0.60)}


def row(model: str, sts: float, news: float, spread: float = 0.01) -> dict[str, Any]:
    values = dict(zip(BEFORE, (sts, news), strict=True))
    return {"model": model, "fingerprint": model, "tasks": {
        task: {"measure": measure, "value": values[task], "ci95": None, "delta": values[task] - before, "p": 0.1,
               "delta_ci95": [values[task] - before - spread, values[task] - before + spread]}
        for task, (measure, before) in BEFORE.items()}}


def evaluated(folder: Path, *models: dict[str, Any], before: float = 0.80) -> Path:
    start = {task: {"measure": measure, measure: before if task == "sts" else value}
             for task, (measure, value) in BEFORE.items()}
    untouched = {"model": "start", "fingerprint": "start", "tasks": {
        task: {"measure": each["measure"], "value": each[each["measure"]], "ci95": None}
        for task, each in start.items()}}
    first = {**models[0], "tasks": {task: {"measure": score["measure"], score["measure"]: score["value"]}
                                    for task, score in models[0]["tasks"].items()}}
    gains = {task: {**start[task], **{key: score[key] for key in ("delta", "delta_ci95")}}
             for task, score in models[0]["tasks"].items()}
    report = {**first, "baseline": {"fingerprint": "start", "tasks": gains}}
    if len(models) > 1:
        report["models"] = [untouched, *models]
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_a_row_a_recipe_over_its_seeds(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mix-1"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (
        {"step": 1, "speed/pairs_per_second": 90}, {"step": 10, "speed/pairs_per_second": 20}, {"dev/mean": 1},
        {"step": 20, "speed/pairs_per_second": 22})))
    for name, at in (("environment.json", 1000), ("report/report.json", 1090)):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text(json.dumps({"command": ["python -m train", "seed=1"]}))
        os.utime(run / name, (at, at))
    several = evaluated(tmp_path / "several", row(str(run), 0.81, 0.64), row("runs/mix-2", 0.79, 0.66),
                        row("start-1", 0.80, 0.60))
    alone = evaluated(tmp_path / "alone", row("elsewhere/labels", 0.70, 0.70))
    made = recipe_tables.table(recipes.rows_of([several, alone])).splitlines()
    assert made == [
        "|  | sts, spearman_cosine | news, precision@10 | seeds | rows/s | minutes |",
        "| --- | --- | --- | --- | --- | --- |",
        "| untouched | 80.0 | 60.0 |  |  |  |",
        "| mix | 80.0 +0.0 [-2.0, +2.0] | 65.0 **+5.0 [+3.0, +7.0]** | 2 | 22 | 2 |",
        "| start | 80.0 +0.0 [-1.0, +1.0] | 60.0 +0.0 [-1.0, +1.0] | 1 |  |  |",
        "| labels | 70.0 **-10.0 [-11.0, -9.0]** | 70.0 **+10.0 [+9.0, +11.0]** | 1 |  |  |"]


def test_what_else_was_measured_of_rankings_is_a_second_table(tmp_path: Path) -> None:
    rows = [row("runs/mix-1", 0.81, 0.64), row("runs/mix-2", 0.79, 0.66)]
    for each, ndcg in zip(rows, (0.5, 0.6), strict=True):
        each["tasks"]["news"]["also"] = {"ndcg@10": ndcg, "mrr@10": 0.9, "recall@1": 0.2}
    folder = evaluated(tmp_path / "rankings", *rows)
    report = json.loads((folder / "report.json").read_text())
    report["models"][0]["tasks"]["news"]["also"] = {"ndcg@10": 0.4, "mrr@10": 0.8}
    (folder / "report.json").write_text(json.dumps(report))
    assert recipe_tables.table(recipes.rows_of([folder])).splitlines()[4:] == [
        "", "|  | news, ndcg@10 | news, mrr@10 |", "| --- | --- | --- |", "| untouched | 40.0 | 80.0 |",
        "| mix | 55.0 | 90.0 |"]


def test_a_row_a_share_of_the_way_to_a_runs_end(tmp_path: Path) -> None:
    begun = row("start", 0.80, 0.60, spread=0)
    folder = tmp_path / "blends"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps({"model": "run", "blends": [
        {"share": share, **row("x", 0.80 + 0.1 * share, 0.60 - 0.2 * share)} if share else {"share": 0.0, **begun}
        for share in (0.0, 0.25, 1.0)]}))
    assert recipe_tables.table(recipes.rows_of([folder])).splitlines()[2:] == [
        "| untouched | 80.0 | 60.0 |  |  |  |",
        "| share 0.25 | 82.5 **+2.5 [+1.5, +3.5]** | 55.0 **-5.0 [-6.0, -4.0]** | 1 |  |  |",
        "| share 1 | 90.0 **+10.0 [+9.0, +11.0]** | 40.0 **-20.0 [-21.0, -19.0]** | 1 |  |  |"]


def test_evaluations_that_differ_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = evaluated(tmp_path / "first", row("a-1", 0.8, 0.6))
    other = evaluated(tmp_path / "other", row("b-1", 0.8, 0.6), before=0.7)
    assert recipes.main(["x", str(first), str(other), "--results", str(tmp_path)]) == 2
    assert "has another baseline or other tasks than" in capsys.readouterr().err
    assert recipes.main(["x", str(tmp_path), "--results", str(tmp_path)]) == 2
    assert "has no report.json that can be read" in capsys.readouterr().err
    (tmp_path / "empty.jsonl").write_text("")
    for file, expected in (("nowhere.jsonl", "is no file of lines"), ("empty.jsonl", "holds no line")):
        assert recipes.main(["x", str(tmp_path / file), "--results", str(tmp_path)]) == 2
        assert expected in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


def test_runs_are_added_to_those_that_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = evaluated(tmp_path / "first", row("mix-1", 0.80, 0.64), row("labels-1", 0.7, 0.7))
    second = evaluated(tmp_path / "second", row("mix-2", 0.83, 0.62), row("labels-1", 0.72, 0.7))
    for folder in (first, second):
        assert recipes.main(["x", str(folder), "--results", str(tmp_path), "--add"]) == 0
    kept = json.loads((tmp_path / "x.json").read_text())["lines"]
    assert [(line["name"], line["tasks"]["sts"]["value"]) for line in kept] == [
        ("untouched", 0.80), ("mix-1", 0.80), ("mix-2", 0.83), ("labels-1", 0.72)]
    assert "| mix | 81.5 +1.5 [-1.0, +4.0] |" in capsys.readouterr().out
    other = evaluated(tmp_path / "other", row("mix-3", 0.8, 0.6), before=0.7)
    assert recipes.main(["x", str(other), "--results", str(tmp_path), "--add"]) == 2
    assert "leave --add out" in capsys.readouterr().err
    assert json.loads((tmp_path / "x.json").read_text())["lines"] == kept


def test_what_is_kept_stands_in_the_page(tmp_path: Path) -> None:
    judged = tmp_path / "judged.jsonl"
    judged.write_text("".join(json.dumps({"name": name, "judged": 1.0, **{
        f"{measure}@10{end}": value for measure in ("ndcg", "precision", "mrr") for end, value in more.items()}}) + "\n"
        for name, more in (("e5", {"": 74.4, "_ci95": [67.2, 80.7]}),
                           ("tuned", {"": 78.0, "_delta": 3.6, "_delta_ci95": [0.1, 7.0]}))))
    assert recipes.main(["judged", str(judged), "--results", str(tmp_path / "amd-1")]) == 0
    marks = "<!-- kept judged --><!-- end kept judged -->"
    page = tables.written(marks, "kept judged", tables.kept("judged", tmp_path))
    assert "| e5 | 74.4 [67.2, 80.7] |" in page and "| tuned | 78.0 **+3.6 [+0.1, +7.0]** |" in page
    assert "(amd-1, kept at `" in page


def test_a_row_keeps_the_command_of_its_run_without_a_path_of_the_machine(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTENCE_FORGE_DATA", str(tmp_path / "public data"))
    run = tmp_path / "runs" / "concat-1"
    run.mkdir(parents=True)
    (run / "environment.json").write_text(json.dumps({"command": [
        "python -m train", "loss=softmax", f"data.path='{tmp_path}/public data/nli'", "loss.concatenation=[|u-v|,u*v]",
        f"model.path='{tmp_path}/runs/nli-1'", "plugins=[/opt/mine/$own.py]", f"hydra.run.dir={run}"]}))
    [_, kept] = recipes.rows_of([evaluated(tmp_path / "one", row(str(run), 0.81, 0.64))])
    assert kept["command"] == (
        """python -m train loss=softmax "data.path='$SENTENCE_FORGE_DATA/nli'" "loss.concatenation=[|u-v|,u*v]" """
        """"model.path='runs/nli-1'" "plugins=[\\$own.py]" hydra.run.dir=runs/concat-1""")


def test_the_minutes_of_all_trainings_are_summed_by_machine(tmp_path: Path) -> None:
    for kind, name, values in (("amd-1", "a", [1.5, None]), ("amd-1", "b", [2.0]), ("intel-2", "a", [7.0])):
        (tmp_path / kind).mkdir(exist_ok=True)
        lines = [{} if value is None else {"minutes": value} for value in values]
        (tmp_path / kind / f"{name}.json").write_text(json.dumps({"lines": lines}))
    assert tables.minutes(tmp_path) == "amd-1: 4 minutes, intel-2: 7 minutes"


def test_how_an_index_grows_is_a_column_a_size(tmp_path: Path) -> None:
    (tmp_path / "amd-1").mkdir()
    lines = [{"name": name, "rows": rows, "value": value, **more} for name, rows, value, more in (
        ("fast_query", 1_000_000, 4.0, {"p95": 5.25, "recall": 0.995, "index": {"cells": 4000, "probes": 454}}),
        ("fast_query", 10_000, 0.4, {"p95": 0.5, "recall": 1.0, "index": None}),
        ("build", 1_000_000, 66.8, {}), ("build", 10_000, 0.44, {}),
        ("resident_memory", 10_000, 296.4, {"not_mapped": 83.2}),
        ("fast_query, from disk", 10_000, 2.5, {}), ("cold_start", 10_000, 0.31, {}),
        ("cold_start, from disk", 10_000, 0.4, {}), ("fast_query, hnsw", 10_000, 3.25, {"p95": 4.0, "recall": 0.99}),
        ("fast_query, hnsw, goal", 10_000, 1.25, {"p95": 2.0, "recall": 0.996}))]
    (tmp_path / "amd-1" / "scale.json").write_text(json.dumps({"machine": {"commit": "abc"}, "lines": lines}))
    assert scale_table.tables(tmp_path).splitlines() == [
        "| rows | 10,000 | 1,000,000 |", "| --- | --- | --- |",
        "| build, without the encoding | 0.44 s | 67 s |",
        "| one query, fast: median (p95), recall@10 | **0.40 ms** (0.5), 1.0000 | **4.00 ms** (5.2), 0.9950 |",
        "| one query, fast, from disk: median | **2.50 ms** |  |",
        "| the fast index | none | 454 of 4,000 cells |",
        "| resident while searching (not mapped) | 296 MiB (83) |  |",
        "| a new process's first query (from disk) | 0.31 s (0.40) |  |",
        "| FAISS HNSW, float16, at our recall: median (p95), recall@10 | **3.25 ms** (4.0), 0.9900 |  |",
        "| FAISS HNSW at 0.995 | **1.25 ms** (2.0), 0.9960 |  |", "",
        "(amd-1, kept at `abc`; slope of the time over the rows, log over log: fast 0.50)"]
    assert scale_table.tables(tmp_path / "nowhere") == "Not measured yet."


def test_averages_over_the_end_of_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "mix-2", tmp_path / "soups"
    for step, value in ((20, 1.0), (40, 2.0), (100, 6.0)):  # in the order of their numbers, not of their names
        folder = run / "checkpoints" / f"step-{step}" / "model"
        folder.mkdir(parents=True)
        save_file({"weights": torch.full((2,), value)}, folder / "model.safetensors")
    assert soups.main([str(run), str(out), "--decay", "0.5"]) == 0
    assert capsys.readouterr().out.split() == [str(out / "mix_last3-2"), str(out / "mix_ema-2")]
    found = {name: float(load_file(out / f"mix_{name}-2" / "model.safetensors")["weights"][0])
             for name in ("last3", "ema")}
    assert found == {"last3": 3.0, "ema": pytest.approx((0.25 * 1 + 0.5 * 2 + 6) / 1.75)}
    assert soups.main([str(tmp_path), str(out)]) == 2


def test_the_mean_of_several_trainings(tmp_path: Path) -> None:
    for name, value in (("a-1", 1.0), ("a-2", 2.0), ("a-3", 6.0)):
        (tmp_path / name / "model").mkdir(parents=True)
        save_file({"weights": torch.full((2,), value)}, tmp_path / name / "model" / "model.safetensors")
    out = tmp_path / "soups" / "a_of_three-1"
    assert soups.main([*(str(tmp_path / f"a-{seed}") for seed in (1, 2, 3)), str(out)]) == 0
    assert load_file(out / "model.safetensors")["weights"].tolist() == [3.0, 3.0]


def test_a_head_that_learns_first() -> None:
    """The model under the head gets no gradient in the first batches, and a step moves the scores ``factor`` times."""
    loss = HeadFirst(factor=10, steps=1, dim=4, labels=["no", "yes"])
    u, v = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    weights = 10 * loss.classifier.weight.detach()
    plain = torch.cat([u, v, (u - v).abs()], dim=-1) @ weights.T + 10 * loss.classifier.bias.detach()
    torch.testing.assert_close(loss.logits(u, v), plain)
    for first in (True, False):
        u.grad = None
        loss([u, v], torch.tensor([0, 1, 1]), None).backward()
        assert bool((u.grad == 0).all()) == first  # type: ignore[union-attr]


def test_silver_pairs_are_new_and_scored_by_the_mean_of_the_teachers(tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    teachers = {"one": WordEncoder(), "two": WordEncoder("other" * 8, dim=48)}
    monkeypatch.setattr("bench.silver.load", teachers.__getitem__)
    titles = titles_like(12)
    gold = [(one, other, "4.5") for one, other in zip(titles[::2], titles[1::2], strict=True)]
    write_csv(tmp_path / "pairs.csv", silver.COLUMNS, gold)
    assert silver.main([str(tmp_path / "pairs.csv"), str(tmp_path / "out.csv"), "one", "two", "--near", "3", "--gold",
                        "2"]) == 0
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == silver.COLUMNS and [tuple(row) for row in rows[:12]] == gold * 2
    made = [frozenset(row[:2]) for row in rows[12:]]
    assert made and len(set(made)) == len(made) and not set(made) & {frozenset(row[:2]) for row in gold}
    vectors = [normalise(each.encode(titles)) for each in teachers.values()]
    cosines = np.mean([each @ each.T for each in vectors], axis=0)
    for one, other, score in rows[12:]:
        assert float(score) == pytest.approx(5 * max(0, cosines[titles.index(one), titles.index(other)]), abs=1e-3)
    for row, title in enumerate(titles):  # its three nearest are there, or were gold
        nearest = np.argsort(-cosines[row])[1:4]
        assert all(frozenset((title, titles[near])) in {*made, *(frozenset(each[:2]) for each in gold)}
                   for near in nearest)
