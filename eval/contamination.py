"""Count test rows that repeat and test rows that the model was trained on, and score a task without the latter."""

from __future__ import annotations

from collections.abc import Sequence

from sentence_forge.data_readers.checks import normalise
from sentence_forge.data_readers.training_hashes import Seen
from sentence_forge.eval.schema import Contamination, TrainedOn, Without
from sentence_forge.eval.stats import paired_bootstrap
from sentence_forge.eval.tasks.base import Bools, TaskResult, TaskRows


def contamination(rows: TaskRows, result: TaskResult, seen: Seen | None, before: TaskResult | None = None,
                  resamples: int = 2000) -> Contamination:
    """Return how many rows repeat an earlier one, how many were trained on, and the score without those.

    Args:
        rows: the task's.
        result: its score.
        seen: what the model was trained on here; None where nothing is recorded.
        before: the baseline's score of the same rows.
        resamples: of the bootstrap.
    """
    found = Contamination(duplicates=duplicates(rows.units), trained_on=None)
    if seen is not None:
        normal = seen.normalised(rows.units)
        known = found["trained_on"] = TrainedOn(
            exact=int(seen.exact(rows.units).sum()), normalised=int(normal.sum()),
            texts=int(seen.texts(rows.texts).sum()), of_texts=len(rows.texts))
        if normal.any():
            known["without"] = _without(result, before, ~normal, resamples)
    return found


def _without(result: TaskResult, before: TaskResult | None, rest: Bools, resamples: int) -> Without:
    """Return the measure over ``rest``, the baseline's over the same, the difference and, of pairs, its interval."""
    now = result.measure_on(rest)
    found = Without(n=int(rest.sum()), value=now)
    then = None if before is None else before.measure_on(rest)
    if before is None or now is None or then is None:
        return found
    found |= {"before": then, "delta": now - then}
    if result.row["measure"] == "spearman_cosine" and result.cosine is not None and before.cosine is not None:
        assert result.gold is not None
        sure = paired_bootstrap(result.cosine[rest], before.cosine[rest], result.gold[rest], resamples=resamples)
        found["delta_ci95"] = list(sure.ci95)
    return found


def duplicates(units: Sequence[tuple[str, ...]]) -> int:
    """Return how many units repeat an earlier one, normalised and in any order of their texts."""
    keys = {tuple(sorted(map(normalise, unit))) for unit in units}
    return len(units) - len(keys)
