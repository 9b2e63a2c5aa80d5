"""Retrieval of a known item and by category, against sentence-transformers and against loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_tasks import encoder, run, sentences, stock, write

from sentence_forge.data_readers.file import FileSource
from sentence_forge.encoders.encoder import Encoder
from sentence_forge.eval.tasks.retrieval import KnownItem, LabelledRetrieval
from sentence_forge.eval.tasks.sts import ScoredPairs
from sentence_forge.runtime.errors import UserError

__all__ = ["encoder"]  # a fixture


def test_a_known_item_is_that_of_sentence_transformers(encoder: Encoder, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    titles = sentences(120, 10)
    queries = [" ".join(title.split()[:2] + other.split()[:2])
               for title, other in zip(titles, sentences(120, 11), strict=True)]
    rows = [(title, f"kind {number % 3}", query)
            for number, (title, query) in enumerate(zip(titles, queries, strict=True))]
    found = run(KnownItem(path=write(tmp_path / "a.csv", "title label description", rows)), encoder)
    ids = [str(number) for number in range(120)]
    theirs = stock(InformationRetrievalEvaluator(
        dict(zip(ids, queries, strict=True)), dict(zip(ids, titles, strict=True)), {name: {name} for name in ids},
        mrr_at_k=[10], ndcg_at_k=[10], accuracy_at_k=[1, 10], precision_recall_at_k=[1, 10], map_at_k=[10],
        write_csv=False), encoder)
    for ours, name in (("mrr@10", "mrr@10"), ("ndcg@10", "ndcg@10"), ("recall@1", "recall@1"),
                       ("recall@10", "recall@10")):
        assert found[ours] == pytest.approx(theirs[f"cosine_{name}"], abs=1e-6)
    parts = found["domains"].values()
    assert sum(part["n"] * part["mrr@10"] for part in parts) / 120 == pytest.approx(found["mrr@10"])


def test_a_file_that_is_sorted_by_category_is_read_in_strides(tmp_path: Path) -> None:
    titles = sentences(60, 12)
    path = write(tmp_path / "a.csv", "title label", [(title, f"kind {row // 15}") for row, title in enumerate(titles)])
    for task in (LabelledRetrieval(path=path, every=4, limit=14),
                 KnownItem(path=path, columns=["title", "label"], shorten=0.5, every=4, limit=14)):
        read = task.read(None)
        assert read.titles == titles[::4][:14] and len(set(read.labels)) == 4
    with pytest.raises(UserError, match="every=0: must be at least 1"):
        LabelledRetrieval(path=path, every=0)


def test_retrieval_by_category_against_loops(encoder: Encoder, tmp_path: Path) -> None:
    titles = sentences(60, 12)
    labels = [f"kind {number % 4}" for number in range(59)] + ["alone"]
    found = run(LabelledRetrieval(path=write(tmp_path / "a.csv", "title label", [
        *zip(titles, labels, strict=True), (titles[0], "kind 3"), ("no label", "")])), encoder)
    vectors = encoder.encode(titles).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    precision, ndcg, mrr = [], [], []
    for row in range(60):
        order = [other for other in np.argsort(-vectors @ vectors[row]) if other != row][:10]
        hits = [labels[other] == labels[row] for other in order]
        right = sum(label == labels[row] for label in labels) - 1
        ideal = sum(1 / np.log2(rank + 2) for rank in range(min(10, right)))
        precision.append(sum(hits) / 10)
        ndcg.append(sum(hit / np.log2(rank + 2) for rank, hit in enumerate(hits)) / ideal if right else 0)
        mrr.append(1 / (1 + hits.index(True)) if any(hits) else 0)
    assert found["n"] == 60 and found["repeats"] == 1
    assert found["precision@10"] == pytest.approx(np.mean(precision))
    assert found["ndcg@10"] == pytest.approx(np.mean(ndcg))
    assert found["mrr@10"] == pytest.approx(np.mean(mrr))
    first = [number for number, label in enumerate(labels) if label == "kind 0"]
    assert found["domains"]["kind 0"]["mrr@10"] == pytest.approx(np.mean(np.array(mrr)[first]))


def test_half_a_title_finds_the_whole(encoder: Encoder, tmp_path: Path) -> None:
    titles = sentences(40, 13)
    path = write(tmp_path / "a.csv", "title label", [(title, f"kind {row % 2}") for row, title in enumerate(titles)])
    halves = [title[:-(-len(title) // 2)].strip() for title in titles]
    found = run(KnownItem(path=path, columns=("title", "label"), shorten=0.5), encoder)
    u, v = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            for vectors in (encoder.encode(halves), encoder.encode(titles)))
    cosine = np.round(u @ v.T, 6)
    ranks = (cosine >= np.diag(cosine)[:, None]).sum(axis=1)
    assert found["mrr@10"] == pytest.approx(np.where(ranks > 10, 0, 1 / ranks).mean(), abs=1e-6)
    for wrong in ({"shorten": 0.5}, {"columns": ("title", "label")}, {"columns": ("title", "label"), "shorten": 1}):
        with pytest.raises(UserError, match="shorten"):
            KnownItem(path=path, **wrong)


def test_what_a_training_held_out_is_measured_and_nothing_else(encoder: Encoder, tmp_path: Path) -> None:
    first = sentences(30, 14)
    rows = [(text, other, row % 6) for row, (text, other) in enumerate(zip([*first, *first], sentences(60, 15),
                                                                           strict=True))]
    path = write(tmp_path / "a.csv", "sentence1 sentence2 score", rows)
    source = FileSource(path, dev_fraction=0.5)
    dev, train = (source.read("pair_score", split) for split in ("dev", "train"))
    half = ScoredPairs(path=path, held_out=0.5).read(None)
    assert half.sentence2 == dev["sentence2"][:] and 20 < len(half.sentence2) < 40
    assert not set(half.sentence1) & set(train["sentence1"][:])
    with pytest.raises(UserError, match="held_out=2"):
        ScoredPairs(path=path, held_out=2)
