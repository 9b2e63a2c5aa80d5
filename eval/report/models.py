"""Several models in one table, and runs that differ in their seed alone as mean and standard deviation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sentence_forge.eval.evaluate import Report

_OF_ONE_RUN = ("seed", "before", "after", "best_step", "steps", "epochs")  # what may differ between seeds


def with_models(report: Report, others: Sequence[Report], abouts: Sequence[Mapping[str, Any]]) -> Report:
    """Return ``report`` with a table of itself, its baseline and ``others`` in its JSON.

    Args:
        report: of the model the page is about.
        others: of further models on the same tasks.
        abouts: what the folders of ``report``'s model and of the others say of their training
            (``encoders.card.read_about``), in that order; runs whose training differs in the seed alone are joined.
    """
    if not others:
        return report
    every = [report, *others]
    rows = [_row(each) for each in every]
    groups: dict[str, list[int]] = {}
    for number, about in enumerate(abouts):
        training = about.get("training")
        if training:
            key = json.dumps({name: value for name, value in training.items() if name not in _OF_ONE_RUN},
                             sort_keys=True)
            groups.setdefault(key, []).append(number)
    seeds = [_joined([rows[number] for number in members], [abouts[number]["training"] for number in members])
             for members in groups.values() if len(members) > 1]
    first = [] if report.baseline is None else [_row(report.baseline)]
    return Report({**report.json, "models": [*first, *rows], "seeds": seeds}, report.results, report.baseline)


def mean_and_sd(values: Sequence[float]) -> dict[str, float]:
    """Return ``mean`` and sample standard deviation ``sd`` (0 for a single value)."""
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}


def _row(report: Report) -> dict[str, Any]:
    about = report.json
    tasks = {}
    for name, row in about["tasks"].items():
        tasks[name] = {"measure": row["measure"], "value": row[row["measure"]],
                       "ci95": row.get(f"{row['measure']}_ci95")}
        old = about.get("baseline", {}).get("tasks", {}).get(name)
        if old:
            tasks[name] |= {"delta": old["delta"], "delta_ci95": old["delta_ci95"], "p": old["p"]}
    return {"model": about["model"], "fingerprint": about["fingerprint"], "tasks": tasks, "average": about["average"],
            "average_ci95": about["average_ci95"]}


def _joined(rows: Sequence[Mapping[str, Any]], trainings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = [name for name in rows[0]["tasks"] if all(name in row["tasks"] for row in rows)]
    first = trainings[0]
    return {"model": f"{first['loss']} from {first['base']}", "runs": [row["model"] for row in rows],
            "seeds": [training["seed"] for training in trainings],
            "tasks": {name: mean_and_sd([row["tasks"][name]["value"] for row in rows]) for name in names},
            "average": mean_and_sd([row["average"] for row in rows])}
