"""The tables over all tasks of a report: scores, models, dimensions, and how far to trust them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from sentence_forge.eval.report.blends import blends_table
from sentence_forge.eval.report.formatting import count, headline, hundred, interval, mean_sd, measure_name
from sentence_forge.eval.report.sentences import trained_on
from sentence_forge.eval.report.tables import Bar, Cell, Column, Table, columns, gain, number
from sentence_forge.eval.schema import ReportJson, Score, TaskGain, TaskRow, TrainedOn, limits, value


def overview(about: ReportJson) -> list[Table]:
    """Return the tables over all tasks, those that would be empty left out."""
    made = (tasks_table(about), models_table(about), dims_table(about), blends_table(about), trust_table(about))
    return [table for table in made if table is not None]


def task_title(name: str, row: TaskRow) -> str:
    """Return a task's title in headings."""
    return f"{row['label']} ({name})" if row.get("label") else name


def tasks_table(about: ReportJson) -> Table:
    """Return a row a task, then the averages, with the difference from the baseline where there is one."""
    baseline = about.get("baseline")
    several = len(about["averages"]) > 1
    pearson = any("pearson_cosine" in row for row in about["tasks"].values())
    heads = [Column("task", texts=True), Column(headline(about["averages"])), Column("", drawn=True),
             *[Column("baseline"), Column("difference")] * bool(baseline), *[Column("Pearson")] * pearson,
             Column("scored"), Column("texts cut")]

    def line(title: Cell, now: Score, then: Score | None, last: Sequence[Cell]) -> list[Cell]:
        bars = [Bar(now["value"], now["ci95"])]
        compared = [Cell("–", kind="baseline"), Cell("–", kind="change same")]
        if then:
            bars.insert(0, Bar(then["value"], then["ci95"], old=True))
            compared = [number(then["value"], kind="baseline"),
                        gain(then["delta"], then["delta_ci95"], then["p"], "change")]
        return [title, number(now["value"], now["ci95"], "value"), Cell("", kind="span", bars=bars),
                *compared * bool(baseline), *last]

    rows = []
    for name, row in about["tasks"].items():
        r = hundred(row["pearson_cosine"]) if "pearson_cosine" in row else ""
        title = Cell(task_title(name, row), note=measure_name(row["measure"]) if several else "", link=f"#{name}")
        old = baseline["tasks"].get(name) if baseline else None
        rows.append(line(title, _score(row), old and _score(old), [
            *[Cell(r, kind="minor first")] * pearson, Cell(count(row["n"]), kind="minor second"),
            Cell(count(row["truncated"]), kind="minor third")]))
    for measure, mean in about["averages"].items():
        if mean["tasks"] > 1:
            title = Cell(f"average {measure_name(measure)}" if several else "average", kind="total")
            rows.append(line(title, mean, baseline["averages"].get(measure) if baseline else None,
                             [Cell("", kind="minor")] * (2 + pearson)))
    return Table("tasks", "Tasks", heads, rows, kind="summary",
                 caption="Filled: this model. Hollow: the baseline." if baseline else "")


def _score(row: TaskRow | TaskGain) -> Score:
    """Return a task's number, and the difference where the row has one, as averages have them."""
    return cast("Score", {**row, "value": value(row), "ci95": limits(row)})


def models_table(about: ReportJson) -> Table | None:
    """Return a row a model and a task a column; runs that differ in their seed alone as mean and sd."""
    models = about.get("models")
    if not models:
        return None
    names = list(about["tasks"])
    best = {name: max((row["tasks"][name]["value"] for row in models if name in row["tasks"]), default=0.0)
            for name in names}

    def cell(name: str, found: Score | None) -> Cell:
        if found is None:
            return Cell("–")
        note = gain(found["delta"], found["delta_ci95"]).line if "delta" in found else interval(found["ci95"])
        return Cell(hundred(found["value"]), found["value"], note, "best" if found["value"] == best[name] else "")

    rows = [[Cell(row["model"]), *(cell(name, row["tasks"].get(name)) for name in names), number(row["average"])]
            for row in models]
    rows += [[Cell(f"{row['model']}, mean ± sd of {len(row['seeds'])} seeds", kind="total"),
              *(Cell(mean_sd(row["tasks"].get(name))) for name in names), Cell(mean_sd(row["average"]))]
             for row in about.get("seeds", ())]
    note = "the difference from the baseline, with its 95 % interval" if about.get("baseline") else "the 95 % interval"
    return Table("models", "Models", columns("model", *names, f"average {measure_name(next(iter(about['averages'])))}"),
                 rows, caption=f"Below each score: {note}. The highest of each task is bold.")


def dims_table(about: ReportJson) -> Table | None:
    """Return what cutting the vectors loses, a row a dimension; None where there is none but the model's own."""
    found = about.get("dims", [])
    if len(found) < 2:
        return None
    names = list(found[0]["tasks"])
    several = len(names) > 1
    rows = []
    for row in found:
        average = row.get("average")
        scores = [*(row["tasks"].get(name) for name in names), *[average] * several]
        rows.append([Cell(str(row["dim"]), row["dim"]), *(number(score["value"] if score else None)
                                                          for score in scores),
                     gain(average["delta"], average["delta_ci95"]) if average and "delta" in average else Cell("")])
    return Table("dims", "Cut to fewer dimensions", columns("dimensions", *names, *["average"] * several, "difference"),
                 rows, caption="The first numbers of each vector, as many as the row says, brought to length 1. "
                               "Difference: from whole vectors, of the average, over the same resamples.")


def trust_table(about: ReportJson) -> Table | None:
    """Return how far each score can be trusted: what repeats, what was cut, what was trained on, the score without."""
    tasks = {name: (row, row["honesty"]) for name, row in about["tasks"].items() if "honesty" in row}
    if not tasks:
        return None
    means = any("spearman_cosine_mean_of_domains" in row for row, _ in tasks.values())
    rows = []
    for name, (row, found) in tasks.items():
        mean = row.get("spearman_cosine_mean_of_domains")
        rows.append([Cell(name), _share(row["truncated"], row["texts"]), _share(found["duplicates"], row["n"]),
                     *_overlap(found["trained_on"], row), *[Cell("" if mean is None else hundred(mean))] * means])
    heads = columns("task", "texts cut", "repeated", "rows trained on, word for word", "normalised", "texts trained on",
                    "score", "score without", "difference without", *["mean of sub-sets"] * means)
    return Table("trust", "How far to trust it", heads, rows,
                 caption=f"{trained_on(about)} Normalised: without case, punctuation and runs of spaces, the texts of "
                         "a pair in any order. The score that counts is over all rows, sub-sets joined (“all”); the "
                         "mean of sub-sets is SentEval's other protocol.")


def _overlap(known: TrainedOn | None, row: TaskRow) -> list[Cell]:
    score = number(value(row))
    if known is None:
        return [*[Cell("?", kind="same")] * 3, score, Cell("?", kind="same"), Cell("")]
    without = known.get("without")
    last = [Cell("same", kind="same"), Cell("")]
    if without:
        last = [Cell(f"{hundred(without['value'])} of {without['n']:,}"),
                gain(without["delta"], without.get("delta_ci95")) if "delta" in without else Cell("")]
    return [_share(known["exact"], row["n"]), _share(known["normalised"], row["n"]),
            _share(known["texts"], known["of_texts"]), score, *last]


def _share(found: int | None, of: int | None) -> Cell:
    if not found:
        return Cell(count(found), kind="same")
    return Cell(count(found), found, note=f"{100 * found / max(1, of or 0):.1f} %")
