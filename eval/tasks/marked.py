"""Measure rankings by hits that people marked right (grade 2), near (1) or wrong (0)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sentence_forge.eval.stats import Floats
from sentence_forge.eval.tasks.binary import average_precision

PRECISION_AT = 5


def marked_measures(queries: Floats, documents: Floats, grades: Sequence[Mapping[int, float]],
                    top: NDArray[np.int_]) -> dict[str, Floats]:
    """Return precision@5 of each query, and the average precision of its right hits against its wrong ones.

    Args:
        queries: unit vectors [queries, dim].
        documents: unit vectors [documents, dim].
        grades: of each query's marked documents, by position.
        top: each query's documents, best first [queries, >= 5 where there are as many].

    Returns:
        ``precision@5`` [queries]; ``average_precision`` of the queries that have a right and a wrong hit, where there
        are any. Near hits are neither; where grades are of another scale, the highest of all are the right ones.
    """
    precision = [np.mean([found.get(int(document), 0) > 0 for document in best[:PRECISION_AT]])
                 for found, best in zip(grades, top, strict=True)]
    ranked = []
    best = max((grade for found in grades for grade in found.values()), default=0)  # a query may have near hits alone
    for query, found in zip(queries, grades, strict=True):
        judged = [document for document, grade in found.items() if grade in (0, best)]
        right = np.array([found[document] > 0 for document in judged])
        if right.any() and not right.all():
            ranked.append(average_precision(np.round(documents[judged] @ query, 6), right))
    return {f"precision@{PRECISION_AT}": np.array(precision),
            **({"average_precision": np.array(ranked)} if ranked else {})}
