"""Measure a model on held-out rows of the shape it is trained on: cheap enough to run every few hundred steps.

Every measure lies in [0, 1] (correlations in [-1, 1]), higher is better, and rows keep their order, so that two
measurements compare. Ties count against the model: one that maps every text to one vector must not look good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentence_forge.data_readers.shapes import SHAPES
from sentence_forge.eval.stats import Floats, pearson, spearman
from sentence_forge.eval.tasks.base import unit_vectors
from sentence_forge.runtime.errors import UserError

BATCH = 64  # rows among which an anchor ranks its positive
K = 10
_CHUNK = 512
_TIE = 1e-7  # cosines of float32 vectors that are nearer to each other are equal

Columns = Mapping[str, Sequence[Any]]
Encode = Callable[[list[str]], NDArray[np.float32]]
Predict = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[Any]]

MEASURES: dict[str, str] = {
    "pair_class": "accuracy",
    "pair_score": "spearman_cosine",
    "pair": "mrr",
    "triplet": "triplet_accuracy",
    "labelled_text": f"precision@{K}",
}


def dev_measure(shape: str, columns: Columns, encode: Encode, predict: Predict | None = None, *,
                queries: Encode | None = None) -> dict[str, float]:
    """Return the measures of a shape; the first, ``MEASURES[shape]``, decides which checkpoint is best.

    Args:
        shape: a name of ``data_readers.shapes.SHAPES``, ``titles`` excepted.
        columns: the shape's columns, each a list of n rows.
        encode: texts to vectors [n, dim]; called once, with every distinct text.
        predict: for ``pair_class``, the head: the vectors of premises and hypotheses to the labels it predicts [n],
            names or numbers as in ``columns["label"]``.
        queries: for ``pair`` and ``triplet``, encodes the anchors where a model has a prompt of their own for them;
            None: ``encode`` does.

    Raises:
        ValueError: the shape has no measure, or ``pair_class`` came without ``predict``.
        UserError: scores or cosines are all equal.
    """
    _check_shape(shape)
    if shape == "pair_class" and predict is None:
        raise ValueError("pair_class is measured by its head's accuracy: give predict=")
    rows, vectors, anchors = _encoded(shape, columns, encode, queries)
    if shape == "pair_class":
        assert predict is not None
        return {"accuracy": _accuracy(predict(anchors, vectors[rows[:, 1]]), columns["label"])}
    unit, anchor = unit_vectors(vectors), unit_vectors(anchors)
    if shape == "pair_score":
        return _correlations(_cosines(anchor, unit[rows[:, 1]]), columns["score"])
    if shape == "pair":
        return {"mrr": _mrr(anchor, unit, rows)}
    if shape == "triplet":
        return {"triplet_accuracy": _triplet_accuracy(anchor, unit, rows), "mrr": _mrr(anchor, unit, rows)}
    return {f"precision@{K}": _precision(unit, rows[:, 0], columns["label"])}


def similarity_histograms(shape: str, columns: Columns, encode: Encode, *,
                          queries: Encode | None = None) -> tuple[Floats, Floats]:
    """Return the cosines of pairs that belong together and of pairs that do not, each float64 [some].

    Together are: entailed pairs; the third of the pairs with the highest scores; an anchor and its positive; texts
    of one label. Not together: the other pairs; an anchor and the other positives of its batch, or its negatives; texts
    of different labels (all pairs among 512 texts drawn with a fixed seed).

    Raises:
        ValueError: the shape has neither (``titles``).
    """
    _check_shape(shape)
    rows, vectors, anchors = _encoded(shape, columns, encode, queries)
    unit, anchor = unit_vectors(vectors), unit_vectors(anchors)
    if shape == "labelled_text":
        return _by_label(unit, rows[:, 0], columns["label"])
    cosine = _cosines(anchor, unit[rows[:, 1]])
    if shape == "pair_class":
        together = np.array([label in ("entailment", 0) for label in columns["label"]])
        return cosine[together], cosine[~together]
    if shape == "pair_score":
        score = np.asarray(columns["score"], dtype=np.float64)
        together = score >= np.quantile(score, 2 / 3)
        if together.all():  # more than two thirds share the lowest score
            together = score > score.min()
        return cosine[together], cosine[~together]
    if shape == "triplet":
        return cosine, np.concatenate([_cosines(anchor, unit[column]) for column in rows[:, 2:].T])
    others = [(some @ candidates.T)[competes] for _, some, candidates, competes in _batches(anchor, unit, rows)]
    return cosine, np.concatenate(others)


def _check_shape(shape: str) -> None:
    if shape not in MEASURES:
        raise ValueError(f"rows of shape {shape!r} have no dev measure of their own; there are {', '.join(MEASURES)}")


def _encoded(shape: str, columns: Columns, encode: Encode, queries: Encode | None,
             ) -> tuple[NDArray[np.int_], NDArray[np.float32], NDArray[np.float32]]:
    """Return each cell's text [n, text columns], all texts' vectors [texts, dim], the first column's own [n, dim]."""
    names = SHAPES[shape].text_columns(list(columns))
    row_of: dict[str, int] = {}
    rows = np.array([[row_of.setdefault(text, len(row_of)) for text in columns[name]] for name in names]).T
    if not rows.size:
        raise UserError("the dev split has no rows; give more data or a larger dev share")
    vectors = np.asarray(encode(list(row_of)))
    return rows, vectors, vectors[rows[:, 0]] if queries is None else np.asarray(queries(list(columns[names[0]])))


def _cosines(left: Floats, right: Floats) -> Floats:
    return np.einsum("nd,nd->n", left, right)


def _accuracy(predicted: NDArray[Any], labels: Sequence[Any]) -> float:
    predicted, gold = np.asarray(predicted), np.asarray(labels)
    if predicted.shape != gold.shape or (predicted.dtype.kind in "US" and gold.dtype.kind not in "US"):
        raise ValueError(f"predict gave {predicted.dtype} {predicted.shape} for labels {gold.dtype} {gold.shape}")
    return float((predicted == gold).mean())


def _correlations(cosine: Floats, score: Sequence[Any]) -> dict[str, float]:
    if len(score) < 2:
        raise UserError("the dev split has one row, which has no Spearman correlation; give more rows, or a larger "
                        "data.dev_fraction=")
    try:
        return {"spearman_cosine": spearman(cosine, score), "pearson_cosine": pearson(cosine, score)}
    except ValueError as error:
        raise UserError(f"the dev pairs have no Spearman correlation ({error}): check column 'score' of the dev split; "
                        "if its scores differ, the model has collapsed, so lower the learning rate") from None


def _batches(anchors: Floats, unit: Floats,
             rows: NDArray[np.int_]) -> Iterator[tuple[Floats, Floats, Floats, NDArray[np.bool_]]]:
    """Yield each batch's own cosines [b], anchors [b, dim], candidates [b * (columns - 1), dim] and which compete.

    Candidates are the batch's positives, then its negatives column by column. One with the wording of the anchor or of
    its own positive is right or says nothing, so it does not compete.
    """
    for start in range(0, len(rows), BATCH):
        batch = rows[start:start + BATCH]
        anchor, positive, candidates = batch[:, 0], batch[:, 1], batch[:, 1:].T.ravel()
        competes = (candidates != positive[:, None]) & (candidates != anchor[:, None])
        some = anchors[start:start + BATCH]
        yield _cosines(some, unit[positive]), some, unit[candidates], competes


def _mrr(anchors: Floats, unit: Floats, rows: NDArray[np.int_]) -> float:
    ranks = [1 + ((some @ candidates.T >= own[:, None] - _TIE) & competes).sum(axis=1)
             for own, some, candidates, competes in _batches(anchors, unit, rows)]
    return float((1 / np.concatenate(ranks)).mean())


def _triplet_accuracy(anchors: Floats, unit: Floats, rows: NDArray[np.int_]) -> float:
    positive = _cosines(anchors, unit[rows[:, 1]])
    won = [positive > _cosines(anchors, unit[column]) + _TIE for column in rows[:, 2:].T]
    return float(np.all(won, axis=0).mean())


def _precision(unit: Floats, rows: NDArray[np.int_], labels: Sequence[Any]) -> float:
    """Return the mean share of a text's own label among its ``K`` nearest of other wording (fewer if there are fewer).

    Texts that tie for the last places count by the share of them that would get in, so order in the file is nothing.
    """
    _, label = np.unique(np.asarray(labels), return_inverse=True)
    shares = []
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start:start + _CHUNK]
        cosine = unit[chunk] @ unit[rows].T
        other = chunk[:, None] != rows
        cosine[~other] = -np.inf
        k = np.minimum(K, other.sum(axis=1))
        last = -np.take_along_axis(np.partition(-cosine, np.arange(min(K, len(rows))), axis=1),
                                   np.maximum(k - 1, 0)[:, None], axis=1)
        right = (label[start:start + _CHUNK, None] == label) & other
        inside, tied = cosine > last + _TIE, np.abs(cosine - last) <= _TIE
        places = k - inside.sum(axis=1)
        hits = (right & inside).sum(axis=1) + (right & tied).sum(axis=1) * places / np.maximum(1, tied.sum(axis=1))
        shares.append(hits / np.maximum(1, k))
    return float(np.concatenate(shares).mean())


def _by_label(unit: Floats, rows: NDArray[np.int_], labels: Sequence[Any]) -> tuple[Floats, Floats]:
    _, label = np.unique(np.asarray(labels), return_inverse=True)
    drawn = np.random.default_rng(0).permutation(len(rows))[:512]
    i, j = np.triu_indices(len(drawn), k=1)
    i, j = drawn[i], drawn[j]
    different = rows[i] != rows[j]
    i, j = i[different], j[different]
    cosine, same = _cosines(unit[rows[i]], unit[rows[j]]), label[i] == label[j]
    return cosine[same], cosine[~same]
