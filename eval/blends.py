"""Measure the models between a run's beginning and its end: what the training gained, and what it cost elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast

from sentence_forge.eval.schema import Score, limits
from sentence_forge.eval.tasks.base import gain

if TYPE_CHECKING:
    from sentence_forge.encoders.encoder import Encoder
    from sentence_forge.eval.evaluate import Evaluation

log = logging.getLogger(__name__)


class BlendRow(TypedDict):
    """Every task at one share of the way from a run's beginning to its end, with the differences from the beginning.

    ``others`` is the mean difference of all tasks but the first, where there are several.
    """

    share: float
    fingerprint: str
    tasks: dict[str, Score]
    others: NotRequired[Score]


def with_blends(end: Evaluation, node: Mapping[str, Any], shares: Sequence[float], plugins: Collection[str],
                measured: Callable[[Encoder], Evaluation]) -> Evaluation:
    """Return the evaluation of a run's model with those of the models between its beginning and it in the JSON.

    Args:
        end: of the run's model.
        node: its config.
        shares: of the way, from 0 to 1; both ends are measured in any case.
        plugins: the user's packages.
        measured: evaluates a model on the same tasks, with the same resamples.

    Raises:
        UserError: the model is no run's, or nothing lies between its beginning and its end.
    """
    from sentence_forge.encoders.encoder import Encoder
    from sentence_forge.encoders.making.blend import between
    from sentence_forge.encoders.making.lora import merged
    from sentence_forge.runtime import targets

    found = between(node, merged(targets.build(node, "model", plugins=plugins, texts=lambda: [])), plugins)
    rows: list[BlendRow] = []
    start = None
    for share in sorted({0.0, *map(float, shares), 1.0}):
        now = end if share == 1 else measured(Encoder(found.at(share), name=f"{node.get('path')} blend={share:g}"))
        start = start or now
        rows.append(_row(share, now, start))
        log.info("blend=%g: %s", share, ", ".join(
            f"{name} {100 * score['value']:.2f} ({100 * score['delta']:+.2f})"
            for name, score in rows[-1]["tasks"].items()))
    return replace(end, json={**end.json, "blends": rows})


def _row(share: float, now: Evaluation, start: Evaluation) -> BlendRow:
    pairs = {name: (result, start.results[name]) for name, result in now.results.items()}
    tasks = {name: cast("Score", {"measure": result.row["measure"], "value": result.value, "ci95": limits(result.row),
                                  **gain([(result, before)])}) for name, (result, before) in pairs.items()}
    row = BlendRow(share=share, fingerprint=now.json["fingerprint"], tasks=tasks)
    if others := list(pairs.values())[1:]:
        row["others"] = cast("Score", gain(others))
    return row
