"""The part of a report about the models between a run's beginning and its end: a table, and gain against loss."""

from __future__ import annotations

from sentence_forge.eval.report import plots
from sentence_forge.eval.report.formatting import hundred, measure_name
from sentence_forge.eval.report.tables import Cell, Table, columns, gain
from sentence_forge.eval.schema import ReportJson, Score


def blends_table(about: ReportJson) -> Table | None:
    """Return a row a share of the way from the beginning to the end, a task a column; None where none was measured."""
    rows = about.get("blends")
    if not rows:
        return None
    names = list(rows[0]["tasks"])
    several = len(names) > 2
    cells = [[Cell(f"{row['share']:g}", row["share"]), *(_score(row["tasks"][name]) for name in names),
              *[gain(row["others"]["delta"], row["others"]["delta_ci95"])] * several] for row in rows]
    heads = columns("share of the end", *names, *[f"mean of all but {names[0]}"] * several)
    return Table("blends", "Between its beginning and its end", heads, cells,
                 caption="Each weight so much of the way from the model that the training began with (0) to the one it "
                         "ended with (1). Below each score: the difference from the beginning, with its 95 % interval. "
                         "python -m export model=... blend=<share> keeps one of them.")


def _score(score: Score) -> Cell:
    """Return the cell of a number, with its difference from the beginning below it."""
    found = gain(score["delta"], score["delta_ci95"])
    return Cell(hundred(score["value"]), score["value"], found.line, found.kind)


def blends_plot(about: ReportJson) -> tuple[str, list[tuple[str, str]]] | None:
    """Return what is gained on the first task and what that costs on the others by share, and its legend."""
    rows = about.get("blends")
    if not rows:
        return None
    first, *others = rows[0]["tasks"]
    measure = measure_name(rows[0]["tasks"][first]["measure"])
    lines = [("high", f"{first} ({measure})", [100 * row["tasks"][first]["delta"] for row in rows])]
    if others:
        what = others[0] if len(others) == 1 else f"mean of the other {len(others)} tasks"
        lines.append(("low", what, [100 * row["others"]["delta"] for row in rows]))
    drawn = plots.by_share([row["share"] for row in rows], [(hue, values) for hue, _, values in lines])
    return drawn, [(hue, name) for hue, name, _ in lines]
