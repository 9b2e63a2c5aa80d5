"""Every loss, and its gradient, against a few lines of NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from sentence_forge.losses.batch_hard import BatchHard
from sentence_forge.losses.cosine import Cosine
from sentence_forge.losses.mnrl import MultipleNegativesRanking
from sentence_forge.losses.softmax import Softmax
from sentence_forge.losses.supcon import SupervisedContrastive
from sentence_forge.losses.triplet import Triplet
from sentence_forge.runtime.errors import UserError

ROWS, DIM = 6, 5


@pytest.fixture
def columns() -> list[np.ndarray]:
    generator = np.random.default_rng(3)
    return [generator.normal(size=(ROWS, DIM)) for _ in range(4)]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def cross_entropy(scores: np.ndarray, target: np.ndarray) -> float:
    log_z = np.log(np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)) + scores.max(axis=1)
    return float((log_z - scores[np.arange(len(scores)), target]).mean())


def numpy_mnrl(columns: list[np.ndarray], scale: float = 20.0) -> float:
    return cross_entropy(scale * unit(columns[0]) @ unit(np.concatenate(columns[1:])).T, np.arange(ROWS))


def numpy_triplet(columns: list[np.ndarray], distance: Callable, margin: float) -> float:
    anchor, positive, *negatives = columns
    return float(np.mean([np.maximum(distance(anchor, positive) - distance(anchor, n) + margin, 0) for n in negatives]))


def agrees(loss: torch.nn.Module, reference: Callable[[list[np.ndarray]], float], columns: list[np.ndarray],
           labels: torch.Tensor | None = None, text_ids: torch.Tensor | None = None) -> None:
    """Value to 1e-9 and gradient to 1e-6 (central differences) in float64."""
    tensors = [torch.tensor(column, requires_grad=True) for column in columns]
    value = loss.double()(tensors, labels, text_ids)
    assert value.item() == pytest.approx(reference(columns), rel=1e-7)
    value.backward()
    for number, tensor in enumerate(tensors):
        numeric = np.zeros_like(columns[number])
        for index in np.ndindex(numeric.shape):
            ends = []
            for sign in (1, -1):
                moved = [column.copy() for column in columns]
                moved[number][index] += sign * 1e-6
                ends.append(reference(moved))
            numeric[index] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(tensor.grad.numpy(), numeric, atol=2e-6)


@pytest.mark.parametrize("parts", [["u", "v", "|u-v|"], ["u", "v"], ["|u-v|"], ["u*v"], ["u", "v", "u*v"]])
def test_softmax(columns: list[np.ndarray], parts: list[str]) -> None:
    names = ["entailment", "neutral", "contradiction"]
    loss = Softmax(parts, dim=DIM, labels=names).double()
    weight, bias = (p.detach().numpy() for p in loss.classifier.parameters())
    labels = loss.encode_labels(["neutral", "entailment", "contradiction"] * 2)
    assert labels.tolist() == [1, 0, 2, 1, 0, 2]

    def reference(pair: list[np.ndarray]) -> float:
        u, v = pair
        made = {"u": u, "v": v, "|u-v|": np.abs(u - v), "u*v": u * v}
        return cross_entropy(np.concatenate([made[p] for p in parts], axis=1) @ weight.T + bias, labels.numpy())

    agrees(loss, reference, columns[:2], labels)


def test_softmax_names_what_it_cannot_take() -> None:
    with pytest.raises(UserError, match=r"u\*w.*did you mean 'u\*v'"):
        Softmax(["u*w"], dim=DIM, labels=["a", "b"])
    with pytest.raises(ValueError, match="1: label 'maybe'"):
        Softmax(dim=DIM, labels=["yes", "no"]).encode_labels(["yes", "maybe"])
    with pytest.raises(UserError, match="at least two labels"):
        Softmax(dim=DIM, labels=["yes"])


def test_cosine(columns: list[np.ndarray]) -> None:
    gold = np.linspace(-1, 1, ROWS)

    def reference(pair: list[np.ndarray]) -> float:
        return float((((unit(pair[0]) * unit(pair[1])).sum(axis=1) - gold) ** 2).mean())

    agrees(Cosine(), lambda pair: reference(pair), columns[:2], torch.tensor(gold).float().double())
    with pytest.raises(ValueError, match=r"1: score 3\.4 is outside"):
        Cosine().encode_labels([0.5, 3.4])


@pytest.mark.parametrize("negatives", [1, 2])
@pytest.mark.parametrize(("name", "distance"), [
    ("euclidean", lambda a, b: np.linalg.norm(a - b + 1e-6, axis=1)),  # torch's pairwise_distance adds eps
    ("manhattan", lambda a, b: np.abs(a - b).sum(axis=1)),
    ("cosine", lambda a, b: 1 - (unit(a) * unit(b)).sum(axis=1)),
])
def test_triplet(columns: list[np.ndarray], name: str, distance: Callable, negatives: int) -> None:
    agrees(Triplet(name, margin=0.7), lambda c: numpy_triplet(c, distance, 0.7), columns[: 2 + negatives])


def test_batch_hard(columns: list[np.ndarray]) -> None:
    loss = BatchHard("cosine", margin=0.4, labels=["a", "b", "c"])
    names = ["a", "a", "b", "b", "c", "a"]
    labels = loss.encode_labels(names)

    def reference(single: list[np.ndarray]) -> float:
        distance = 1 - unit(single[0]) @ unit(single[0]).T
        hinges = []
        for i, name in enumerate(names):
            same = [distance[i, j] for j in range(ROWS) if names[j] == name and j != i]
            other = [distance[i, j] for j in range(ROWS) if names[j] != name]
            hinges.append(max((max(same) if same else 0.0) - min(other) + 0.4, 0.0))
        return float(np.mean(hinges))

    agrees(loss, reference, columns[:1], labels)


def test_supcon(columns: list[np.ndarray]) -> None:
    loss = SupervisedContrastive(scale=5.0, labels=["a", "b", "c"])
    names = ["a", "a", "b", "b", "c", "a"]  # c is alone in its class

    def reference(single: list[np.ndarray]) -> float:
        scores = 5.0 * unit(single[0]) @ unit(single[0]).T
        means = []
        for i, name in enumerate(names):
            others = [j for j in range(ROWS) if j != i]
            same = [j for j in others if names[j] == name]
            total = np.log(sum(np.exp(scores[i, j]) for j in others))
            means += [np.mean([total - scores[i, j] for j in same])] if same else []
        return float(np.mean(means))

    agrees(loss, reference, columns[:1], loss.encode_labels(names))
    alone = [torch.tensor(columns[0], requires_grad=True)]
    value = loss(alone, torch.arange(ROWS), None)
    value.backward()
    assert value == 0 and torch.equal(alone[0].grad, torch.zeros_like(alone[0]))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_mnrl_with_any_number_of_negatives(columns: list[np.ndarray], count: int) -> None:
    agrees(MultipleNegativesRanking(scale=7.0), lambda c: numpy_mnrl(c, 7.0), columns[:count])


def test_mnrl_agrees_with_sentence_transformers(columns: list[np.ndarray]) -> None:
    tensors = [torch.tensor(column) for column in columns]
    stock = MultipleNegativesRankingLoss(None).compute_loss_from_embeddings(tensors, None)
    assert MultipleNegativesRanking()(tensors, None, None).item() == pytest.approx(stock.item(), rel=1e-9)
    stock = MultipleNegativesRankingLoss(None, directions=("query_to_doc", "doc_to_query"),
                                         partition_mode="per_direction").compute_loss_from_embeddings(tensors, None)
    ours = MultipleNegativesRanking(symmetric=True)(tensors, None, None)
    assert ours.item() == pytest.approx(stock.item(), rel=1e-9)


@pytest.mark.parametrize("symmetric", [False, True])
def test_mnrl_leaves_equal_texts_out_of_the_denominator(columns: list[np.ndarray], symmetric: bool) -> None:
    # row 1's positive is row 0's positive again; row 2's negative is row 3's anchor; row 5's anchor is row 4's again
    text_ids = np.array([[0, 10, 20], [1, 10, 21], [2, 12, 3], [3, 13, 23], [4, 14, 24], [4, 15, 25]])
    candidates = np.concatenate([text_ids[:, 1], text_ids[:, 2]])

    def reference(triple: list[np.ndarray]) -> float:
        anchors, positives, negatives = map(unit, triple)
        scores = 20 * anchors @ np.concatenate([positives, negatives]).T
        for i in range(ROWS):
            for j, text in enumerate(candidates):
                if j != i and text in (text_ids[i, 0], text_ids[i, 1]):
                    scores[i, j] = -1e9
        forward = cross_entropy(scores, np.arange(ROWS))
        if not symmetric:
            return forward
        back = 20 * positives @ anchors.T
        for i in range(ROWS):
            for j in range(ROWS):
                if j != i and text_ids[j, 0] in (text_ids[i, 0], text_ids[i, 1]):
                    back[i, j] = -1e9
        return (forward + cross_entropy(back, np.arange(ROWS))) / 2

    loss = MultipleNegativesRanking(symmetric=symmetric)
    agrees(loss, reference, columns[:3], text_ids=torch.tensor(text_ids))
    masked = loss([torch.tensor(c) for c in columns[:3]], None, torch.tensor(text_ids))
    assert masked < loss([torch.tensor(c) for c in columns[:3]], None, None)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.1, 0.4])
def test_mnrl_leaves_out_what_is_nearer_than_the_positive(columns: list[np.ndarray], margin: float,
                                                          symmetric: bool) -> None:
    # row 1's positive is row 0's again: left out by its text, whatever its cosine
    text_ids = np.array([[row, 10 + max(row, 1), 20 + row] for row in range(ROWS)])
    left_out = 0

    def loop(queries: np.ndarray, candidates: np.ndarray, own_texts: list, texts: list) -> float:
        nonlocal left_out
        losses = []
        for i, query in enumerate(queries):
            kept = []
            for j, candidate in enumerate(candidates):
                near = query @ candidate > query @ candidates[i] + margin
                left_out += bool(j != i and near)
                if j == i or not (near or texts[j] in own_texts[i]):
                    kept.append(np.exp(20 * query @ candidate))
            losses.append(np.log(sum(kept)) - 20 * query @ candidates[i])
        return float(np.mean(losses))

    def reference(triple: list[np.ndarray]) -> float:
        anchors, positives, negatives = map(unit, triple)
        anchor_ids, positive_ids, negative_ids = text_ids.T.tolist()
        own = list(zip(anchor_ids, positive_ids, strict=True))
        value = loop(anchors, np.concatenate([positives, negatives]), own, positive_ids + negative_ids)
        return (value + loop(positives, anchors, own, anchor_ids)) / 2 if symmetric else value

    loss = MultipleNegativesRanking(symmetric=symmetric, false_negative_margin=margin)
    agrees(loss, reference, columns[:3], text_ids=torch.tensor(text_ids))
    assert left_out
    with pytest.raises(UserError, match=r"loss\.false_negative_margin: is 3"):
        MultipleNegativesRanking(false_negative_margin=3)


def test_mnrl_of_a_text_with_itself_keeps_its_own_positive(columns: list[np.ndarray]) -> None:
    text_ids = torch.arange(ROWS)[:, None].repeat(1, 2)
    pair = [torch.tensor(columns[0]), torch.tensor(columns[1])]
    assert MultipleNegativesRanking()(pair, None, text_ids).item() == pytest.approx(numpy_mnrl(columns[:2]), rel=1e-9)


def test_a_candidate_that_is_a_row_s_own_anchor_is_no_negative_of_it() -> None:
    """Where a row's anchor stands elsewhere as a positive, it would be its own hardest negative."""
    anchors, positives = torch.eye(3)[:2], torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    text_ids = torch.tensor([[0, 2], [1, 0]])  # the second row's positive is the first one's anchor
    loss = MultipleNegativesRanking(scale=5.0)([anchors, positives], None, text_ids)
    # the first row has no negative left (0), the second one two candidates of cosine 0 (log 2)
    assert float(loss) == pytest.approx(math.log(2) / 2, abs=1e-6)
