"""The corpus: a file of titles, where a bad row is rejected and counted, never lost and never fatal."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sentence_forge.data_readers.delimited import read_rows
from sentence_forge.data_readers.rejected import Rejected
from sentence_forge.data_readers.rows import BadRow, shown
from sentence_forge.runtime.errors import UserError


@dataclass(frozen=True)
class Corpus:
    """What was read: ``ids[i]`` belongs to ``titles[i]``, and ``rows == len(ids) + len(rejected)``."""

    ids: list[str]
    titles: list[str]
    rejected: list[Rejected]
    rows: int


def read_corpus(
    path: Path, *, column: str = "title", id_column: str | None = None, limit: int | None = None
) -> Corpus:
    """Read a corpus of titles.

    A row is rejected if it is malformed, its title blank, or its id blank or that of an earlier row (the first one
    wins). Equal titles are kept, each under its own id.

    Args:
        path: csv, tsv, jsonl or parquet; see ``data_readers.delimited``.
        column: the column that holds the title.
        id_column: the column that holds the id, any string; None takes the 1-based data row as the id.
        limit: how many data rows are looked at, rejected ones among them; None for all.

    Raises:
        UserError: the file as a whole can't be read, has no rows or lacks a column, or ``limit`` is below 1.
    """
    if limit is not None and limit < 1:
        raise UserError(f"corpus.limit is {limit}; give a number of rows from 1, or null for all")
    ids: list[str] = []
    titles: list[str] = []
    rejected: list[Rejected] = []
    first_line: dict[str, int] = {}
    rows = 0
    for row in islice(read_rows(path, [column] if id_column is None else [column, id_column]), limit):
        rows += 1
        if isinstance(row, BadRow):
            rejected.append(Rejected(row.line, row.number, row.reason, row.text))
            continue
        title = row.values[0]
        name = str(row.number) if id_column is None else row.values[1]
        reason = None
        if not title or title.isspace():
            reason = f"column {column}: is empty"
        elif id_column is not None:
            earlier = first_line.setdefault(name, row.line)
            if not name or name.isspace():
                reason = f"column {id_column}: is empty"
            elif earlier != row.line:
                reason = f"column {id_column}: {shown(name)!r} is already the id of line {earlier}"
        if reason is None:
            ids.append(name)
            titles.append(title)
        else:
            rejected.append(Rejected(row.line, row.number, reason, shown(title)))
    return Corpus(ids, titles, rejected, rows)
