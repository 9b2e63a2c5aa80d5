"""BM25 beside the vectors: scores against the formula, fusion against a loop, files for the judge, the measures."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from corpora import WordEncoder, build, titles_like
from test_tasks import encoder, run, sentences, write

from bench import bm25, curve, judge, plot, recipe_tables, recipes
from sentence_forge.encoders.encoder import Encoder
from sentence_forge.eval.tasks.retrieval import KnownItem, LabelledRetrieval
from sentence_forge.search.index import Index

__all__ = ["encoder"]  # a fixture

CHINESE = ["央行下调存款准备金率", "台风登陆广东，航班取消", "GPT-4 发布会：央行回应", "台风！", "航班 航班取消了",
           "a_b ﾃｽﾄ"]


def test_tokens_are_pairs_of_characters_or_words() -> None:
    assert bm25.pairs("GPT-4发布，跌 Ｎｅｗｓ台风登陆") == ["gpt", "4", "发布", "跌", "news", "台风", "风登", "登陆"]
    assert bm25.pairs("a_b ﾃｽﾄ") == ["a", "b", "テス", "スト"] and bm25.pairs("，！ _") == []
    assert bm25.words("Apple发布新手机") == ["apple", "发布", "新手机"]


@pytest.mark.parametrize("titles", [CHINESE, titles_like(60)])
def test_scores_are_those_of_the_formula(titles: list[str]) -> None:
    index = bm25.Bm25(titles, bm25.pairs)
    documents = [bm25.pairs(title) for title in titles]
    mean = sum(map(len, documents)) / len(documents)
    for query in ["台风航班 航班", "storm markets report 7", "nothing of it", ""]:
        expected = []
        for document in documents:
            score = 0.0
            for token in bm25.pairs(query):
                having = sum(token in other for other in documents)
                idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
                count = document.count(token)
                score += idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * len(document) / mean)) if count else 0.0
            expected.append(score)
        np.testing.assert_allclose(index.scores(query), expected, rtol=1e-5, atol=1e-6)
        rows = [row for row in np.argsort(-index.scores(query), kind="stable") if index.scores(query)[row] > 0]
        assert bm25.best(index.scores(query), 4) == rows[:4] and bm25.best(index.scores(query), 99) == rows


def test_fusion_adds_reciprocal_ranks() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        rankings = [draw.permutation(30)[:draw.integers(0, 20)].tolist() for _ in range(2)]
        sums = {row: sum(1 / (61 + ranking.index(row)) for ranking in rankings if row in ranking)
                for row in rankings[0] + rankings[1]}
        found = bm25.fused(*rankings)
        assert sorted(found) == sorted(sums)
        assert [sums[row] for row in found] == sorted(sums.values(), reverse=True)
    assert bm25.fused([4, 7], [7, 4]) == [4, 7]  # a tie: as the first ranking has them


def test_each_system_writes_a_file_that_the_judge_reads(tmp_path: Path) -> None:
    titles = titles_like(150)
    encoder = build(tmp_path / "index", titles)
    queries = ["storm election", "opera report 9", "robots"]
    with (tmp_path / "queries.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("query", "relevant"), *((query, "") for query in queries)])
    bm25.write_hits(tmp_path / "index", tmp_path / "hits", tmp_path / "queries.csv", WordEncoder())
    found = {name: judge.hits(tmp_path / "hits" / f"{name}.jsonl", queries)
             for name in ("vectors", "bm25_bigrams", "bm25_words", "fused", "fused_words")}
    with Index.open(tmp_path / "index", encoder) as index:
        assert found["vectors"] == {query: [hit.title for hit in hits]
                                    for query, hits in zip(queries, index.search(queries, 10), strict=True)}
        near = [[int(hit.id) - 1 for hit in hits] for hits in index.search(queries, 100)]
    words = bm25.Bm25(titles, bm25.pairs)
    for query, ranking in zip(queries, near, strict=True):
        lexical = bm25.best(words.scores(query))
        assert found["bm25_bigrams"][query] == [titles[row] for row in lexical[:10]]
        assert found["fused"][query] == [titles[row] for row in bm25.fused(ranking, lexical)[:10]]
    assert found["bm25_words"] == found["bm25_bigrams"] and found["fused"] != found["vectors"]  # no Chinese here
    hit = json.loads((tmp_path / "hits" / "fused.jsonl").read_text().splitlines()[1])["hits"][0]
    assert titles[int(hit["id"]) - 1] == hit["title"] and hit["title"].endswith("report 9")


def test_measures_are_those_of_eval_and_of_a_loop(encoder: Encoder, tmp_path: Path) -> None:
    titles = sentences(130, 12)
    rows = [(title, f"kind {number % 4}") for number, title in enumerate(titles)]
    path = write(tmp_path / "a.csv", "title label", rows)
    for task in (LabelledRetrieval(path=path), KnownItem(path=path, columns=["title", "label"], shorten=0.5)):
        read = task.read(None)
        found = bm25.compared(task, read, encoder)
        for measure, value in run(task, encoder).items():
            if measure in found["vectors"]:
                assert found["vectors"][measure].mean() == pytest.approx(value)
        words, known = bm25.Bm25(titles, bm25.pairs), isinstance(task, KnownItem)
        for query, text in enumerate(read.queries):
            right = {query} if known else {row for row in range(130) if row % 4 == query % 4 and row != query}
            scores = words.scores(text).astype(float)
            order = sorted((row for row in range(130) if scores[row] > 0 and (known or row != query)),
                           key=lambda row, scores=scores, right=right: (-round(scores[row], 4), row in right, row))
            hits = [row in right for row in order[:10]]
            assert found["bm25_bigrams"]["mrr@10"][query] == (1 / (1 + hits.index(True)) if True in hits else 0)
            assert found["bm25_bigrams"]["precision@10"][query] == sum(hits) / 10


def test_the_command_prints_what_each_system_gains(encoder: Encoder, tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.csv", "title label description", [
        (title, f"kind {number % 3}", title.split()[-1]) for number, title in enumerate(sentences(40, 3))])
    encoder.model.save(str(tmp_path / "model"))
    typed = ["tasks", f"model={tmp_path / 'model'}"]
    task = f"{{_target_: eval.tasks.retrieval.KnownItem, path: {path}, columns: [title, label], shorten: 0.5}}"
    assert bm25.main([*typed, "suite=none", f"+suite.items={task}"]) == 0
    lines = [json.loads(each) for each in capsys.readouterr().out.splitlines()]
    assert [each["name"] for each in lines] == [f"items, {name}" for name in (
        "vectors", "bm25_bigrams", "bm25_words", "fused", "fused_words")]
    assert lines[1]["mrr@10_delta"] == pytest.approx(lines[1]["mrr@10"] - lines[0]["mrr@10"], abs=0.02)
    assert lines[1]["mrr@10_delta_ci95"][0] <= lines[1]["mrr@10_delta"] <= lines[1]["mrr@10_delta_ci95"][1]
    assert "mrr@10_delta" not in lines[0] and lines[0]["queries"] == 40
    (tmp_path / "lines").write_text("\n".join(map(json.dumps, lines)))
    assert recipes.main(["searches", str(tmp_path / "lines"), "--results", str(tmp_path)]) == 0
    header, _, vectors, *_ = capsys.readouterr().out.splitlines()
    value, (low, high) = lines[0]["mrr@10"], lines[0]["mrr@10_ci95"]
    assert header == "|  | items, mrr@10 |" and vectors == f"| vectors | {value:.1f} [{low:.1f}, {high:.1f}] |"
    assert bm25.main([*typed, "suite=none", f"+suite.items={task}", "baseline=minilm"]) == 2
    assert "baseline: is for python -m eval" in capsys.readouterr().err
    assert bm25.main([*typed, "suite=stsb_dev"]) == 2 and "no task of retrieval" in capsys.readouterr().err


def test_speed_beside_quality_of_some_models(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTENCE_FORGE_DATA", str(tmp_path))
    for folder, split in curve.FILES.items():
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / f"{split}.csv", "title label", [
            (f"{title} {number % 3}", f"kind {number % 3}") for number, title in enumerate(sentences(40, 3))])
    encoder.model.save(str(tmp_path / "model"))
    model = tmp_path / "model"
    assert curve.main([f"one={model}", f"two={model}", "--every=1", "--timed=20", "--results", str(tmp_path)]) == 0
    lines = json.loads((tmp_path / "curve.json").read_text())["lines"]
    assert [line["name"] for line in lines] == ["one", "two", "bm25"] and lines[0]["queries"] == 80
    task = LabelledRetrieval(path=str(tmp_path / "news_zh_tnews" / "dev.csv"))
    value = task.score(task.read(None), encoder, resamples=10).row["ndcg@10"]
    assert lines[0]["ndcg@10"] == pytest.approx(100 * value, abs=0.01) and lines[1]["ndcg@10_delta"] == 0
    assert all(line["value"] > 0 for line in lines) and plot.draw(tmp_path) == [tmp_path / "curve.svg"]
    made = recipe_tables.table(lines).splitlines()
    assert made[0] == "|  | titles/s | ndcg@10 |" and made[3].endswith("+0.0 [+0.0, +0.0] |")
    assert curve.main(["one", "--results", str(tmp_path)]) == 2
