"""Find the cosine from which pairs are best called the same.

A threshold lies half-way to the next lower score, so that scores which tie are never parted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sentence_forge.eval.schema import Threshold
from sentence_forge.eval.stats import Floats

Bools = NDArray[np.bool_]


def best_threshold(score: Floats, positive: Bools) -> Threshold:
    """Return the threshold with the best F1 of ``score >= threshold``: ``cosine``, ``precision``, ``recall``, ``f1``.

    Of several with the same F1 it is the highest.

    Args:
        score: [n].
        positive: [n], at least one of them.
    """
    ranked, right, ends = _ranked(score, positive)
    taken = np.arange(1, len(score) + 1)
    best = int(np.argmax(np.where(ends, 2 * right / (taken + right[-1]), -1.0)))
    return {"cosine": _below(ranked, best), "precision": float(right[best] / taken[best]),
            "recall": float(right[best] / right[-1]), "f1": float(2 * right[best] / (taken[best] + right[-1]))}


def best_accuracy(score: Floats, positive: Bools) -> Threshold:
    """Return the ``cosine`` from which calling a pair positive is right most often, and that ``accuracy``."""
    ranked, right, ends = _ranked(score, positive)
    wrong = np.arange(1, len(score) + 1) - right
    accuracy = np.where(ends, (right + wrong[-1] - wrong) / len(score), -1.0)
    best = int(np.argmax(accuracy))
    none = float((~positive).mean())  # calling nothing positive
    if none > accuracy[best]:
        return {"cosine": float(np.nextafter(ranked[0], 2)), "accuracy": none}
    return {"cosine": _below(ranked, best), "accuracy": float(accuracy[best])}


def _ranked(score: Floats, positive: Bools) -> tuple[Floats, NDArray[np.int_], Bools]:
    """Return the scores from the highest, how many positives there are down to each, and where equal scores end."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    return ranked, np.cumsum(positive[order]), np.append(ranked[1:] < ranked[:-1], True)


def _below(ranked: Floats, best: int) -> float:
    below = ranked[best + 1] if best + 1 < len(ranked) else ranked[best]
    return round(float((ranked[best] + below) / 2), 6)
