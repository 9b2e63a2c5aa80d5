"""Several models in one table, and runs that differ in their seed alone as mean and standard deviation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from sentence_forge.eval.evaluate import Evaluation
from sentence_forge.eval.schema import MeanSd, ModelRow, Score, SeedsRow, TaskGain, TaskRow, limits, value

_OF_ONE_RUN = ("seed", "before", "after", "best_step", "steps", "epochs")  # what may differ between seeds


def with_models(first: Evaluation, others: Sequence[Evaluation], abouts: Sequence[Mapping[str, Any]]) -> Evaluation:
    """Return ``first`` with a table of itself, its baseline and ``others`` in its JSON.

    Args:
        first: of the model that the report is about.
        others: of further models on the same tasks.
        abouts: what the folders of ``first``'s model and of the others say of their training
            (``encoders.card.read_about``), in that order; runs whose training differs in the seed alone are joined.
    """
    if not others:
        return first
    rows = [_row(each) for each in (first, *others)]
    groups: dict[str, list[int]] = {}
    for number, about in enumerate(abouts):
        training = about.get("training")
        if training:
            key = json.dumps({name: text for name, text in training.items() if name not in _OF_ONE_RUN}, sort_keys=True)
            groups.setdefault(key, []).append(number)
    seeds = [_joined([rows[number] for number in members], [abouts[number]["training"] for number in members])
             for members in groups.values() if len(members) > 1]
    before = [] if first.baseline is None else [_row(first.baseline)]
    return replace(first, json={**first.json, "models": [*before, *rows], "seeds": seeds})


def other_measures(row: TaskRow | TaskGain) -> dict[str, float]:
    """Return a ranking's further measures, such as ``ndcg@10``; other tasks have none."""
    return {name: cast("float", found) for name, found in row.items()
            if "@" in name and name != row["measure"] and not name.endswith("_ci95")}


def mean_and_sd(values: Sequence[float]) -> MeanSd:
    """Return ``mean`` and sample standard deviation ``sd`` (0 for a single value)."""
    return MeanSd(mean=float(np.mean(values)), sd=float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)


def _row(evaluation: Evaluation) -> ModelRow:
    about = evaluation.json
    baseline = about.get("baseline")
    tasks = {}
    for name, row in about["tasks"].items():
        tasks[name] = Score(measure=row["measure"], value=value(row), ci95=limits(row))
        if also := other_measures(row):
            tasks[name]["also"] = also
        old = baseline["tasks"].get(name) if baseline else None
        if old:
            tasks[name].update(cast("Score", {key: old[key] for key in ("delta", "delta_ci95", "p")}))
    return ModelRow(model=about["model"], fingerprint=about["fingerprint"], tasks=tasks, average=about["average"],
                    average_ci95=about["average_ci95"])


def _joined(rows: Sequence[ModelRow], trainings: Sequence[Mapping[str, Any]]) -> SeedsRow:
    names = [name for name in rows[0]["tasks"] if all(name in row["tasks"] for row in rows)]
    first = trainings[0]
    return SeedsRow(model=f"{first['loss']} from {first['base']}", runs=[row["model"] for row in rows],
                    seeds=[training["seed"] for training in trainings],
                    tasks={name: mean_and_sd([row["tasks"][name]["value"] for row in rows]) for name in names},
                    average=mean_and_sd([row["average"] for row in rows]))
