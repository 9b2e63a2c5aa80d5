"""CoSENT, AnglE and online contrastive, values and gradients, against a few lines of NumPy; and by their commands."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from sentence_transformers.sentence_transformer.losses import OnlineContrastiveLoss
from test_losses import DIM, ROWS, agrees, columns, unit  # noqa: F401 - columns is a fixture

from sentence_forge.losses.angle import AnglE
from sentence_forge.losses.cosent import CoSENT
from sentence_forge.losses.cosine import Cosine
from sentence_forge.losses.mnrl import MultipleNegativesRanking
from sentence_forge.losses.online_contrastive import OnlineContrastive
from sentence_forge.losses.softmax import Softmax
from sentence_forge.losses.supcon import SupervisedContrastive
from sentence_forge.losses.triplet import Triplet
from sentence_forge.runtime.errors import UserError

GOLD = np.array([0.0, 0.4, 0.4, 1.0, 0.2, 0.8])  # two tie


def ranking(similarity: np.ndarray, gold: np.ndarray, scale: float) -> float:
    """log(1 + sum over all pairs of pairs), written as the papers write it."""
    total = 1.0
    for i in range(len(gold)):
        for j in range(len(gold)):
            if gold[i] > gold[j]:
                total += np.exp(scale * (similarity[j] - similarity[i]))
    return float(np.log(total))


def cosines(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (unit(u) * unit(v)).sum(axis=1)


def angles(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """AnglE's similarity: halves as real and imaginary parts, z = u / v at length 1, |Re z + Im z|."""
    half = u.shape[1] // 2
    a, b = unit(u)[:, :half], unit(u)[:, half:]
    c, d = unit(v)[:, :half], unit(v)[:, half:]
    return np.abs((a * c + b * d).sum(axis=1) + (b * c - a * d).sum(axis=1))


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_cosent(columns: list[np.ndarray], scale: float) -> None:  # noqa: F811
    agrees(CoSENT(scale), lambda pair: ranking(cosines(*pair), GOLD, scale), columns[:2], torch.tensor(GOLD))


def even(columns: list[np.ndarray]) -> list[np.ndarray]:  # noqa: F811
    return [column[:, :4] for column in columns]


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_angle(columns: list[np.ndarray], scale: float) -> None:  # noqa: F811
    agrees(AnglE(scale), lambda pair: ranking(angles(*pair), GOLD, scale), even(columns)[:2], torch.tensor(GOLD))


@pytest.mark.parametrize("negatives", [1, 2])
def test_angle_of_triplets_ranks_every_positive_above_every_negative(columns: list[np.ndarray],  # noqa: F811
                                                                     negatives: int) -> None:
    def reference(triplet: list[np.ndarray]) -> float:
        anchor, positive, *others = triplet
        found = np.concatenate([angles(anchor, other) for other in (positive, *others)])
        return ranking(found, np.concatenate([np.ones(ROWS), np.zeros(ROWS * negatives)]), 5.0)

    agrees(AnglE(5.0), reference, even(columns)[:2 + negatives])


DISTANCES = {
    "cosine": lambda u, v: 1 - cosines(u, v),
    "euclidean": lambda u, v: np.linalg.norm(u - v + 1e-6, axis=1),  # torch's pairwise_distance adds eps
    "manhattan": lambda u, v: np.abs(u - v + 1e-6).sum(axis=1),
}


@pytest.mark.parametrize("name", DISTANCES)
def test_online_contrastive_counts_hard_pairs_only(columns: list[np.ndarray], name: str) -> None:  # noqa: F811
    margin = {"cosine": 1.2, "euclidean": 3.5, "manhattan": 7.0}[name]
    loss = OnlineContrastive(name, margin)
    labels = loss.encode_labels(GOLD.tolist())
    assert labels.tolist() == [0, 0, 0, 1, 0, 1]
    skipped = []

    def reference(pair: list[np.ndarray]) -> float:
        distance = DISTANCES[name](*pair)
        positive, negative = distance[labels == 1], distance[labels == 0]
        hard = positive[positive > negative.min()], negative[negative < positive.max()]
        skipped.append(ROWS - sum(map(len, hard)))
        return float((hard[0] ** 2).sum() + (np.maximum(margin - hard[1], 0) ** 2).sum())

    agrees(loss, reference, columns[:2], labels)
    assert skipped[0] > 0  # else the choice was never tried


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 1, 0], [1] * ROWS, [0] * ROWS], ids=["both", "match", "differ"])
def test_online_contrastive_is_the_stock_one_also_where_a_batch_has_one_kind(columns: list[np.ndarray],  # noqa: F811
                                                                             labels: list[int]) -> None:
    found = []
    stock = OnlineContrastiveLoss(None, margin=1.2)  # type: ignore[arg-type]  # its maths only
    for loss in (functools.partial(OnlineContrastive(margin=1.2), text_ids=None), stock.compute_loss_from_embeddings):
        pair = [torch.tensor(column, requires_grad=True) for column in columns[:2]]
        value = loss(pair, torch.tensor(labels))
        value.backward()
        found.append([value.detach(), *(each.grad for each in pair)])
    assert found[0][0] > 0
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(("loss", "count", "labels"), [
    (MultipleNegativesRanking(), 3, None), (Triplet(), 3, None), (AnglE(), 3, None), (Cosine(), 2, torch.ones(ROWS)),
    (CoSENT(), 2, torch.ones(ROWS)), (OnlineContrastive(), 2, torch.ones(ROWS, dtype=torch.int64)),
    (SupervisedContrastive(labels=["a", "b"]), 1, torch.ones(ROWS, dtype=torch.int64)),
    (Softmax(dim=DIM + 1, labels=["a", "b"]), 2, torch.ones(ROWS, dtype=torch.int64))],
    ids=lambda each: type(each).__name__)
def test_no_loss_makes_a_gpu_wait_for_a_number(loss: torch.nn.Module, count: int, labels: torch.Tensor | None) -> None:
    """Tensors on ``meta`` have shapes and no values, so whatever must know a value fails there.

    Without batch_hard, in which sentence-transformers asks for the device's autocast; ``meta`` has none.
    """
    embeddings = [torch.ones(ROWS, DIM + 1, device="meta", requires_grad=True) for _ in range(count)]
    ids = torch.ones(ROWS, count, dtype=torch.int64, device="meta")
    loss.to("meta")(embeddings, None if labels is None else labels.to("meta"), ids).backward()
    assert all(each.grad is not None for each in embeddings)


def test_online_contrastive_takes_a_threshold_and_refuses_one_that_parts_nothing() -> None:
    assert OnlineContrastive(threshold=0.3).encode_labels([0.2, 0.3, 0.9]).tolist() == [0, 1, 1]
    assert OnlineContrastive().encode_labels([0.0, 1.0]).tolist() == [0, 1]
    with pytest.raises(UserError, match=r"loss\.threshold=0\.5: no pair"):
        OnlineContrastive().encode_labels([0.0, 0.2])
    with pytest.raises(UserError, match=r"loss\.threshold=0\.5: every pair"):
        OnlineContrastive().encode_labels([0.8, 1.0])
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        OnlineContrastive("cosin")


@pytest.mark.parametrize("name", ["cosent", "angle", "online_contrastive"])
def test_each_trains_by_its_name_alone(command: Callable, tmp_path: Path, name: str) -> None:
    done = command("train", f"loss={name}", *TINY, "loop.max_steps=15", "loop.learning_rate=0.003", "loop.log_every=1",
                   f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert np.isfinite(losses).all() and np.mean(losses[-4:]) < np.mean(losses[:4])
    about = json.loads((tmp_path / "run" / "model" / "sentence_forge.json").read_text())
    assert about["training"]["shape"] == "pair_score" and about["training"]["measure"] == "spearman_cosine"


def test_pairs_labelled_0_and_1_are_taken_as_they_are(command: Callable, tmp_path: Path) -> None:
    rows = [f"question {number} about {topic},another {topic} question {number},{number % 2}"
            for number in range(40) for topic in ("rain", "trade")]
    data = tmp_path / "duplicates.csv"
    data.write_text("sentence1,sentence2,label\n" + "\n".join(rows) + "\n")
    done = command("train", "loss=online_contrastive", f"data={data}", "data.columns.score=label",
                   "data.score_range=[0,1]", *TINY, "loop.max_steps=2", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 0, done.err
