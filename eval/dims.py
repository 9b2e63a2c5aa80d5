"""Score every task again on shortened vectors, to show what cutting them loses; nothing is encoded again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NotRequired, TypedDict, cast

import numpy as np

from sentence_forge.eval.schema import Score
from sentence_forge.eval.tasks.base import EncodedTexts, TaskResult, gain
from sentence_forge.runtime.errors import UserError


class DimRow(TypedDict):
    """Every task with the vectors cut to ``dim`` numbers."""

    dim: int
    tasks: dict[str, Score]
    average: NotRequired[Score]


def at_dims(results: Mapping[str, TaskResult], encoded: EncodedTexts, dims: Sequence[int],
            score: Callable[[str, EncodedTexts], TaskResult]) -> list[DimRow]:
    """Return the part of report.json about each dimension, the model's own first, with which the others are compared.

    A task whose vectors collapse at a dimension is left out there; one that needs the model's head is left out
    everywhere, since the head takes uncut vectors.

    Args:
        results: of the uncut vectors, by task.
        encoded: the texts' vectors.
        dims: how many numbers of each to keep.
        score: scores a task, by its name, on other vectors of the same texts.
    """
    results = {name: result for name, result in results.items() if "confusion" not in result.row}
    if not results:
        return []
    measure = next(iter(results.values())).row["measure"]
    averaged = [name for name, result in results.items() if result.row["measure"] == measure]
    found = []
    for dim in sorted({encoded.dim, *dims}, reverse=True):
        cut = results if dim == encoded.dim else _scored(results, encoded.cut(dim), score)
        entry = DimRow(dim=dim, tasks={name: _score(result.row["measure"], result.value, [] if cut is results else
                                                    [(result, results[name])]) for name, result in cut.items()})
        if all(name in cut for name in averaged):
            entry["average"] = _score(measure, float(np.mean([cut[name].value for name in averaged])), [] if cut is
                                      results else [(cut[name], results[name]) for name in averaged])
        found.append(entry)
    return found


def _score(measure: str, value: float, pairs: Sequence[tuple[TaskResult, TaskResult]]) -> Score:
    found = Score(measure=measure, value=value)
    return cast("Score", found | gain(pairs)) if pairs else found


def _scored(results: Mapping[str, TaskResult], cut: EncodedTexts,
            score: Callable[[str, EncodedTexts], TaskResult]) -> dict[str, TaskResult]:
    found = {}
    for name in results:
        try:
            found[name] = score(name, cut)
        except UserError:  # every cosine the same: there is no number to give
            continue
    return found
