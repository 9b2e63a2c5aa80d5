"""A report as Markdown: the same tables as on the page, for a repository or a message."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sentence_forge.eval.report.formatting import plain
from sentence_forge.eval.report.tables import Table

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


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
