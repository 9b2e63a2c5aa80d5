"""Write the HTML page of a report: a summary, then a card for each task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from sentence_forge.eval.evaluate import Evaluation
from sentence_forge.eval.report import plots
from sentence_forge.eval.report.blends import blends_plot, blends_table
from sentence_forge.eval.report.formatting import measure_name
from sentence_forge.eval.report.html import render
from sentence_forge.eval.report.overview import dims_table, models_table, task_title, tasks_table, trust_table
from sentence_forge.eval.report.tables import Table
from sentence_forge.eval.report.task_tables import task_line, task_tables
from sentence_forge.eval.report.training import Training, dev_sentence, training_table
from sentence_forge.eval.schema import ReportJson, value
from sentence_forge.eval.tasks.base import TaskResult


@dataclass(frozen=True)
class ScorePlots:
    """The two plots of scored pairs, and what is said below them."""

    scatter: Markup
    dots: str
    histogram: Markup
    legend: list[tuple[str, str]]


@dataclass(frozen=True)
class TaskCard:
    """A task's part of the page: tables that stand open, tables on a click, plots of scored pairs."""

    name: str
    title: str
    value: float
    line: str
    plots: ScorePlots | None
    tables: list[Table]
    folded: list[Table]
    significance: dict[str, dict[str, float]] | None


def page(evaluation: Evaluation, training: Training | None = None) -> str:
    """Return report.html."""
    about = evaluation.json
    return render("report", **_summary(evaluation), training=training and _training(training), trust=trust_table(about),
                  cards=[_card(evaluation, name) for name in about["tasks"]])


def fragment(evaluation: Evaluation) -> str:
    """Return the summary as a piece of HTML with its own style, for a notebook."""
    return render("fragment", **_summary(evaluation))


def _summary(evaluation: Evaluation) -> dict[str, Any]:
    about = evaluation.json
    measure, first = next(iter(about["averages"].items()))
    over = (f"average of {first['tasks']} tasks" if first["tasks"] > 1 else
            next(task_title(name, row) for name, row in about["tasks"].items() if row["measure"] == measure))
    drawn = blends_plot(about)
    return {"title": f"{about['model']}: evaluation", "about": about, "measure": measure, "first": first, "over": over,
            "tasks": tasks_table(about), "models": models_table(about), "dims": dims_table(about),
            "blends": blends_table(about), "blends_plot": drawn and (Markup(drawn[0]), drawn[1]),
            "multiples": _small_multiples(evaluation), "compared": evaluation.baseline is not None}


def _small_multiples(evaluation: Evaluation) -> list[tuple[str, float, Markup]]:
    """Return a small plot for each task of scored pairs; none where there is only one such task."""
    drawn = []
    for name, result in evaluation.results.items():
        if result.cosine is not None and result.gold is not None:
            old = evaluation.baseline.results.get(name) if evaluation.baseline else None
            drawn.append((name, result.value, Markup(plots.small(result.gold, result.cosine,
                                                                 None if old is None else old.cosine))))
    return drawn if len(drawn) > 1 else []


def _card(evaluation: Evaluation, name: str) -> TaskCard:
    about, result = evaluation.json, evaluation.results.get(name)
    row, baseline = about["tasks"][name], about.get("baseline")
    old = baseline["tasks"].get(name) if baseline else None
    tables = task_tables(about, name)
    tests = {"williams": old["williams"], "steiger": old["steiger"]} if old and "williams" in old else None
    return TaskCard(name, task_title(name, row), value(row), task_line(row, old), _score_plots(about, name, result),
                    [table for table in tables if not table.folded], [table for table in tables if table.folded], tests)


def _score_plots(about: ReportJson, name: str, result: TaskResult | None) -> ScorePlots | None:
    if result is None or result.gold is None or result.cosine is None:
        return None
    gold, cosine = result.gold, result.cosine
    groups = plots.thirds(gold)
    drawn = min(len(gold), plots.MOST_DOTS)
    dots = f"{drawn:,} of {len(gold):,} pairs, drawn by chance" if drawn < len(gold) else f"all {len(gold):,} pairs"
    if len(np.unique(gold)) <= plots.FEW_SCORES:
        dots += ", spread sideways to be seen"
    low, high = about["tasks"][name]["score_range"]
    legend = [(plots.hue(number, len(groups)), f"score {label} ({mask.sum():,})")
              for number, (label, mask) in enumerate(groups)]
    return ScorePlots(Markup(plots.scatter(gold, cosine, (low, high))), dots,
                      Markup(plots.histogram(cosine, groups)), legend)


def _training(training: Training) -> dict[str, Any]:
    curve, dev = training.get("curve") or {}, training.get("baseline")
    charts = []
    if curve.get("dev"):
        steps, values = zip(*curve["dev"], strict=True)
        name = f"dev {measure_name(curve.get('measure', 'measure'))} × 100"
        level = 100 * dev["before"] if dev else None
        charts.append((name, Markup(plots.curve(steps, [100 * value for value in values], name, before=level,
                                                knots=True, ringed=curve.get("kept"))),
                       "Ringed: the step whose weights were kept."))
    if curve.get("step"):
        charts.append(("Loss", Markup(plots.curve(curve["step"], curve["loss"], "loss")), ""))
    return {"table": training_table(training), "sentence": dev_sentence(training), "charts": charts}
