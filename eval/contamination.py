"""What a score hides: rows that repeat, texts that were cut, and test rows that the model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sentence_forge.data_readers.checks import normalise
from sentence_forge.data_readers.training_hashes import Seen
from sentence_forge.eval.stats import paired_bootstrap
from sentence_forge.eval.tasks.base import Bools, TaskResult, TaskRows


def honesty(rows: TaskRows, result: TaskResult, seen: Seen | None, before: TaskResult | None = None,
            resamples: int = 2000) -> dict[str, Any]:
    """Return what report.json says of a task's rows.

    Args:
        rows: the task's.
        result: its score.
        seen: what the model was trained on here; None where nothing is recorded.
        before: the baseline's score of the same rows.
        resamples: of the bootstrap.

    Returns:
        ``duplicates``, how many units repeat an earlier one (normalised, in any order); ``trained_on``, None or
        ``exact``, ``normalised``, ``texts`` (how many were in the training rows, of how many) and, where any unit was,
        ``without``: the measure over the units that were not, and their number; the baseline's over the same, the
        difference and, of scored pairs, its interval.
    """
    found: dict[str, Any] = {"duplicates": duplicates(rows.units), "trained_on": None}
    if seen is None:
        return found
    exact, normal = seen.exact(rows.units), seen.normalised(rows.units)
    found["trained_on"] = {"exact": int(exact.sum()), "normalised": int(normal.sum()),
                           "texts": int(seen.texts(rows.texts).sum()), "of_texts": len(rows.texts)}
    if normal.any():
        found["trained_on"]["without"] = {"n": int((~normal).sum()), "value": result.on(~normal),
                                          **_against(result, before, ~normal, resamples)}
    return found


def _against(result: TaskResult, before: TaskResult | None, rest: Bools, resamples: int) -> dict[str, Any]:
    if before is None:
        return {}
    now, then = result.on(rest), before.on(rest)
    if now is None or then is None:
        return {}
    found: dict[str, Any] = {"before": then, "delta": now - then}
    if result.row["measure"] == "spearman_cosine" and result.cosine is not None and before.cosine is not None:
        assert result.gold is not None
        sure = paired_bootstrap(result.cosine[rest], before.cosine[rest], result.gold[rest], resamples=resamples)
        found["delta_ci95"] = list(sure.ci95)
    return found


def duplicates(units: Sequence[tuple[str, ...]]) -> int:
    """Return how many units repeat an earlier one, normalised and in any order of their texts."""
    keys = {tuple(sorted(map(normalise, unit))) for unit in units}
    return len(units) - len(keys)
