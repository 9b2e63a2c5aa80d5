"""The part of a report about the training of its model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

from sentence_forge.eval.report.formatting import change, hundred, interval, measure_name
from sentence_forge.eval.report.tables import Cell, Column, Table
from sentence_forge.eval.schema import Limits


class DevGain(TypedDict):
    """The dev measure before and after the training, as fractions, and the interval of the difference where known."""

    measure: str
    before: float
    after: float
    delta_ci95: NotRequired[Limits]


class Curve(TypedDict, total=False):
    """What was logged by step: losses, dev values, and the step whose weights were kept.

    ``step`` and ``loss`` are equally long; ``dev`` holds pairs of a step and a value.
    """

    step: Sequence[float]
    loss: Sequence[float]
    dev: Sequence[tuple[float, float]]
    measure: str
    kept: float | None


class Training(TypedDict, total=False):
    """A heading, facts as pairs of a name and a value, dev before and after, curves; each may be absent."""

    title: str
    rows: Sequence[tuple[str, Any]]
    baseline: DevGain
    curve: Curve


def training_json(training: Training) -> dict[str, Any]:
    """Return what report.json keeps of a training."""
    return {"title": training.get("title"), "baseline": training.get("baseline"),
            "rows": {str(name): str(value) for name, value in training.get("rows", ())}}


def training_table(training: Training) -> Table:
    """Return the training's facts."""
    rows = [[Cell(str(name)), Cell(str(value), kind="text")] for name, value in training.get("rows", ())]
    return Table("training", training.get("title", "Training"), [Column("setting", texts=True),
                                                                 Column("value", texts=True)], rows, kind="small facts")


def dev_sentence(training: Training) -> str:
    """Say how the dev measure went; empty where it was not measured before."""
    dev = training.get("baseline")
    if dev is None:
        return ""
    sure = f", 95 % interval {interval(dev['delta_ci95'], sign=True)}" if dev.get("delta_ci95") else ""
    return (f"{measure_name(dev['measure'])} on dev: {hundred(dev['before'])} before training, {hundred(dev['after'])} "
            f"after ({change(dev['after'] - dev['before'])}{sure}).")
