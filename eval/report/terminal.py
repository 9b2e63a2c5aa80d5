"""The report's table as a terminal shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sentence_forge.eval.evaluate import Report
from sentence_forge.eval.report.formatting import (
    change,
    dims_table,
    headline,
    hundred,
    interval,
    limits,
    measure_name,
    p_value,
    value,
)


def terminal(report: Report) -> str:
    """Return one aligned line a task, measures x 100, the averages, the honesty rows and further models."""
    about = report.json
    before = about.get("baseline")
    rows = [["task", "n", headline(about), "95 %", "Pearson", "cut", *(["before", "change", "95 %", "p"] if before
                                                                        else [])]]
    several = len(about["averages"]) > 1
    for name, row in about["tasks"].items():
        shown = f"{name} ({measure_name(row['measure'])})" if several else name
        n, cut = ("–" if row[name] is None else str(row[name]) for name in ("n", "truncated"))
        cells = [shown, n, hundred(value(row)), interval(limits(row)),
                 hundred(row["pearson_cosine"]) if "pearson_cosine" in row else "", cut]
        rows.append(cells + (_against(before["tasks"].get(name)) if before else []))
    for measure, average in about["averages"].items():
        if average["tasks"] > 1:
            cells = [f"average {measure_name(measure)}" if several else "average", "", hundred(average["value"]),
                     interval(average["ci95"]), "", ""]
            old = before["averages"].get(measure) if before else None
            rows.append(cells + (_against(old and {**old, "measure": "value"}) if before else []))
    lines = _aligned(rows)
    if about["absent"]:
        lines.append(f"absent, not averaged over: {', '.join(about['absent'])}")
    lines += [f"{name}: skipped, {why}" for name, why in about["skipped"].items()]
    if dims := dims_table(about):
        lines += ["", *_aligned(dims)]
    lines += _honesty(about)
    if about.get("models"):
        lines += ["", *_models(about)]
    return "\n".join(lines)


def _against(row: Mapping[str, Any] | None) -> list[str]:
    if row is None:
        return ["–", "", "", ""]
    return [hundred(value(row)), change(row["delta"]), interval(row["delta_ci95"], sign=True),
            p_value(row["p"]).removeprefix("p = ").removeprefix("p ")]


def _honesty(about: Mapping[str, Any]) -> list[str]:
    told = {name: row["honesty"] for name, row in about["tasks"].items() if "honesty" in row}
    if not told:
        return []
    rows = [["honesty", "cut", "repeated", "trained on", "to the letter", "score without", "change without"]]
    for name, row in told.items():
        known = row["trained_on"]
        without = known.get("without") if known else None
        rows.append([name, str(about["tasks"][name]["truncated"]), str(row["duplicates"]),
                     str(known["normalised"]) if known else "?", str(known["exact"]) if known else "?",
                     hundred(without["value"]) if without else "same" if known else "?",
                     change(without["delta"]) if without and "delta" in without else ""])
    note = [] if about["trained_on"] else ["?: no training is recorded in the model's folder"]
    return ["", *_aligned(rows), *note]


def _models(about: Mapping[str, Any]) -> list[str]:
    names = list(about["tasks"])
    rows = [["model", *names, "average"]]
    rows += [[row["model"], *(hundred(row["tasks"].get(name, {}).get("value")) for name in names),
              hundred(row["average"])] for row in about["models"]]
    rows += [[f"{row['model']} ({len(row['seeds'])} seeds)",
              *(mean_sd(row["tasks"].get(name)) for name in names), mean_sd(row["average"])]
             for row in about.get("seeds", ())]
    return _aligned(rows)


def mean_sd(found: Mapping[str, float] | None) -> str:
    """Return a mean and its standard deviation over seeds, x 100."""
    return "–" if found is None else f"{hundred(found['mean'])} ± {hundred(found['sd'])}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) if number == 0 else cell.rjust(width)
                      for number, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]
