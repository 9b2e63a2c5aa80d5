"""A report as text: the tables of the page in Markdown, and those over all tasks for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sentence_forge.eval.report.formatting import plain, width_of
from sentence_forge.eval.report.overview import overview
from sentence_forge.eval.report.sentences import left_out
from sentence_forge.eval.report.tables import Table
from sentence_forge.eval.schema import ReportJson

_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def markdown_text(text: str) -> str:
    """Return other people's text so that Markdown shows it as it is: no table, link, image, HTML or control character.

    >>> print(markdown_text("a < b"))
    a &lt; b
    """
    return re.sub(r"([\\`*|\[\]])", r"\\\1", plain(text)).translate(_ENTITIES)


def markdown_table(table: Table) -> list[str]:
    """Return a table's lines, an empty one last."""
    heads, *rows = ([markdown_text(cell) for cell in line] for line in table.lines())
    lines = [_line(heads), "|" + "".join("---|" if texts else "---:|" for texts in table.texts())]
    for (first, *others), row in zip(rows, table.rows, strict=True):
        lines.append(_line([f"**{first}**" if row[0].kind == "total" else first, *others]))
    return [*lines, ""]


def markdown_section(table: Table, before: str = "") -> list[str]:
    """Return a table with its heading, after ``before`` and a comma where that is given, and its caption."""
    title = f"{before}, {table.title[0].lower()}{table.title[1:]}" if before else table.title
    caption = [markdown_text(table.caption), ""] if table.caption else []
    return [f"## {markdown_text(title)}", "", *markdown_table(table), *caption]


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
    widths = [max(map(width_of, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(_padded(cell, size, left=left) for cell, size, left in
                      zip(row, widths, table.texts(), strict=True)).rstrip() for row in cells]


def _padded(cell: str, size: int, *, left: bool) -> str:
    blanks = " " * (size - width_of(cell))
    return cell + blanks if left else blanks + cell


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
