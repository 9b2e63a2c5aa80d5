"""Read a corpus, a file of titles; bad rows are listed with their reasons and don't stop the reading."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from sentence_forge.data_readers.cleaning import Cleaner
from sentence_forge.data_readers.formats.files import file_of, open_rows, rows_of
from sentence_forge.data_readers.formats.reading import Reading
from sentence_forge.data_readers.formats.rows import BadRow, Row, RowFile, looks_like_a_row, shown
from sentence_forge.data_readers.known_columns import all_known, say
from sentence_forge.runtime.errors import UserError

logger = logging.getLogger(__name__)

_LOOKED_AT = 100  # rows
_NO_TEXT = re.compile(r"[\d\W_]*|[!-~]*\d[!-~]*|https?://\S+")  # a number, a date, an id, an address


@dataclass(frozen=True)
class Corpus:
    """The rows of a corpus: ``ids[i]`` belongs to ``titles[i]``, and ``rows == len(ids) + len(rejected)``.

    ``column`` is the file's name of the titles' column, ``kept`` holds the other columns that were asked for, one cell
    a title, and ``detected`` how the file was read where that
    isn't usual.
    """

    ids: list[str]
    titles: list[str]
    rejected: list[BadRow]
    rows: int
    column: str = "title"
    detected: dict[str, object] = field(default_factory=dict)
    kept: dict[str, list[str]] = field(default_factory=dict)


def read_corpus(path: Path, *, column: str | None = None, id_column: str | None = None, limit: int | None = None,
                reading: Reading | None = None, clean: Sequence[str] = (), keep: Sequence[str] = ()) -> Corpus:
    """Read a corpus of titles.

    A row is rejected if it is malformed, its title blank, or its id blank or that of an earlier row (the first one
    wins). Equal titles are kept, each under its own id.

    Args:
        path: see ``formats.files``; ``-`` is the standard input.
        column: the column that holds the title. None takes ``title``, another well-known name of it, or the only column
            of texts.
        id_column: the column that holds the id, any string; None takes the 1-based data row as the id.
        limit: how many data rows are looked at, rejected ones among them; None for all.
        reading: what a person says of the file.
        clean: what to clean in the titles; see ``cleaning.CLEANINGS``.
        keep: further columns to read as they are, such as date and source.

    Raises:
        UserError: the file as a whole can't be read, has no rows or lacks a column, ``limit`` is below 1, or there is
            no such cleaning.
    """
    if limit is not None and limit < 1:
        raise UserError(f"corpus.limit is {limit}; give a number of rows from 1, or null for all")
    cleaner = Cleaner(clean)
    reading = replace(reading or Reading(), key="corpus", nul="nul" in cleaner.names)
    file = open_rows(file_of(path), reading)
    column = _title_column(file) if column is None else column
    corpus = Corpus([], [], [], 0, column, file.detected, {name: [] for name in keep})
    columns = list(dict.fromkeys([column, *([] if id_column is None else [id_column]), *keep]))
    kept = [(cells, columns.index(name)) for name, cells in corpus.kept.items()]
    first_line: dict[str, int] = {}
    rows = 0
    for row in islice(rows_of(file, columns, reading), limit):
        rows += 1
        if isinstance(row, BadRow):
            corpus.rejected.append(row)
            continue
        title = cleaner.clean(row.values[0])
        name = str(row.number) if id_column is None else row.values[columns.index(id_column)]
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
            corpus.ids.append(name)
            corpus.titles.append(title)
            for cells, place in kept:
                cells.append(row.values[place])
        else:
            corpus.rejected.append(BadRow(row.line, row.number, reason, shown(title)))
    for name in cleaner.names:
        logger.info("corpus.clean=%s: changed %d titles", name, cleaner.changed[name])
    return replace(corpus, rows=rows)


def _title_column(file: RowFile) -> str:
    """Return the column of the titles.

    Raises:
        UserError: there are several that it could be, or none; says what to type.
    """
    if "title" in file.columns:
        return "title"
    if looks_like_a_row(file.columns):
        names = ",".join(["title", *(f"column{number}" for number in range(2, len(file.columns) + 1))])
        raise UserError(f"{file.path}: has no header, it seems: its first line is {shown(', '.join(file.columns))[:60]}"
                        f"; give the columns' names, as 'corpus.header=[{names}]'")
    likely = all_known(file.columns, "title") or all_known(file.columns, "text") or (
        file.columns if len(file.columns) == 1 else _text_columns(file))
    if len(likely) != 1:
        raise UserError(f"{file.path}: which column holds the titles? There are {', '.join(file.columns)}; give "
                        f"corpus.column={' or corpus.column='.join(likely[:4] or file.columns[:1])}")
    say(file.path, {"title": likely[0]}, "corpus.column=")
    return likely[0]


def _text_columns(file: RowFile) -> list[str]:
    """Return the columns of which most cells, among the first rows, are words and no numbers, ids or addresses."""
    names = [name for name in file.columns if name not in file.lists and not all_known([name], "label")]
    rows = [row.values for row in islice(file.rows(names), _LOOKED_AT) if isinstance(row, Row)]
    worded = [sum(_NO_TEXT.fullmatch(cell) is None for cell in cells) for cells in zip(*rows, strict=True)]
    return [name for name, count in zip(names, worded, strict=False) if count * 2 > len(rows)]
