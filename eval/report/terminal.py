"""A report's tables over all tasks, as a terminal shows them."""

from __future__ import annotations

from sentence_forge.eval.report.formatting import plain, width
from sentence_forge.eval.report.overview import overview
from sentence_forge.eval.report.sentences import left_out
from sentence_forge.eval.report.tables import Table
from sentence_forge.eval.schema import ReportJson


def terminal(about: ReportJson) -> str:
    """Return one aligned line a task, measures x 100, the averages, further models, and how far to trust it."""
    tasks, *others = overview(about)
    lines = [*aligned(tasks), *map(plain, left_out(about))]
    for table in others:
        lines += ["", table.title, *aligned(table)]
        if any(cell.text == "?" for row in table.rows for cell in row):
            lines.append("?: no training is recorded in the model's folder")
    return "\n".join(lines)


def aligned(table: Table) -> list[str]:
    """Return a table's lines in columns, the first one's texts to the left, numbers to the right."""
    cells = [[plain(text) for text in line] for line in table.lines()]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(_padded(cell, size, left=left) for cell, size, left in
                      zip(row, widths, table.texts(), strict=True)).rstrip() for row in cells]


def _padded(cell: str, size: int, *, left: bool) -> str:
    blanks = " " * (size - width(cell))
    return cell + blanks if left else blanks + cell
