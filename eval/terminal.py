"""The report's table as a terminal shows it."""

from __future__ import annotations

from eval.evaluate import Report
from eval.wording import change, hundred, interval


def terminal(report: Report) -> str:
    """Return one aligned line a task, correlations x 100, and the average."""
    about = report.json
    before = about.get("baseline")
    rows = [["task", "pairs", "Spearman", "95 %", "Pearson", "cut", *(["before", "change", "95 %"] if before else [])]]
    for name, row in about["tasks"].items():
        cells = [name, str(row["n"]), hundred(row["spearman_cosine"]), interval(row["spearman_cosine_ci95"]),
                 hundred(row["pearson_cosine"]), str(row["truncated"])]
        rows.append(cells + (_against(before["tasks"][name]) if before else []))
    if len(about["tasks"]) > 1:
        cells = ["average", "", hundred(about["average"]), interval(about["average_ci95"]), "", ""]
        rows.append(cells + (_against({**before, "spearman_cosine": before["average"]}) if before else []))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) if number == 0 else cell.rjust(width)
                       for number, (cell, width) in enumerate(zip(row, widths, strict=True))) for row in rows]
    if about["absent"]:
        lines.append(f"absent, not averaged over: {', '.join(about['absent'])}")
    return "\n".join(lines)


def _against(row: dict) -> list[str]:
    return [hundred(row["spearman_cosine"]), change(row["delta"]), interval(row["delta_ci95"], sign=True)]
