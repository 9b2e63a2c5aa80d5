"""How well documents are ranked for queries: nDCG, MRR, precision and recall from the top of each ranking.

Gains are linear: a document's grade itself, as in trec_eval's ``ndcg_cut`` (and so in BEIR) and in scikit-learn's
``ndcg_score``, not 2**grade - 1. nDCG is Järvelin and Kekäläinen's (2002). A grade above 0 is relevant. Cosines that
agree to 1e-6 tie, and ties count against the model, so that one that maps all texts to one vector finds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sentence_forge.eval.stats import Floats

K = 10  # of nDCG, MRR and precision
_CELLS = 1 << 24  # cosines held at once
_MOST_QUERIES = 512
_DISCOUNT = 1 / np.log2(np.arange(2, K + 2))

Gains = Callable[[NDArray[np.int_]], tuple[Floats, NDArray[np.bool_] | None]]
"""Row numbers of queries [chunk] to the documents' grades and which of them compete, both [chunk, documents]."""


class Ranking(NamedTuple):
    """Each query's measures by name, [queries], NaN where nothing is relevant; and its documents, best first."""

    measures: dict[str, Floats]
    top: NDArray[np.int_]


def rank(queries: Floats, documents: Floats, gains: Gains, recalls: Sequence[int] = (1, K)) -> Ranking:
    """Rank all documents for each query by cosine.

    Args:
        queries: unit vectors [queries, dim].
        documents: unit vectors [documents, dim].
        gains: the grades; see ``Gains``. None for all compete.
        recalls: at which ranks recall is taken.
    """
    most = min(max(K, *recalls), len(documents))
    size = max(1, min(_MOST_QUERIES, _CELLS // len(documents)))
    parts: list[dict[str, Floats]] = []
    tops = []
    for start in range(0, len(queries), size):
        chunk = np.arange(start, min(start + size, len(queries)))
        grades, competes = gains(chunk)
        relevant = grades > 0
        key = np.round(queries[chunk] @ documents.T, 6) - 1e-7 * grades / max(1.0, grades.max())
        if competes is not None:
            key = np.where(competes, key, -np.inf)
        top = _top(key, most)
        tops.append(top)
        ideal = -np.sort(np.partition(-grades, min(K, len(documents)) - 1, axis=1)[:, :K], axis=1)
        parts.append(measured(np.take_along_axis(grades, top, axis=1), ideal, relevant.sum(axis=1), recalls))
    return Ranking({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, np.concatenate(tops))


def measured(found: Floats, ideal: Floats, right: NDArray[np.int_], recalls: Sequence[int] = ()) -> dict[str, Floats]:
    """Return each query's measures by name, [queries], NaN where nothing is relevant.

    Args:
        found: the grades of the documents as they were ranked, the first ones first [queries, ranks].
        ideal: the highest grades that a query's documents have, falling [queries, at most ``K``].
        right: how many relevant documents there are [queries].
        recalls: at which ranks recall is taken.
    """
    hit = found > 0
    first = np.where(hit[:, :K].any(axis=1), 1 / (1 + hit[:, :K].argmax(axis=1)), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {f"precision@{K}": hit[:, :K].sum(axis=1) / K, f"ndcg@{K}": _dcg(found) / _dcg(ideal),
                  f"mrr@{K}": first, **{f"recall@{k}": hit[:, :k].sum(axis=1) / right for k in recalls}}
    return {name: np.where(right > 0, each, np.nan) for name, each in values.items()}


def _top(key: Floats, most: int) -> NDArray[np.int_]:
    """Return the columns of the ``most`` highest keys of each row, the highest first."""
    top = np.argpartition(-key, most - 1, axis=1)[:, :most] if most < key.shape[1] else np.argsort(-key, axis=1)
    order = np.argsort(-np.take_along_axis(key, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)


def _dcg(grades: Floats) -> Floats:
    """Return the discounted gain of the first ``K`` grades of each row."""
    first = grades[:, :K]
    return np.cumsum(first * _DISCOUNT[:first.shape[1]], axis=1)[:, -1]
