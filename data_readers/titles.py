"""Read a corpus, a file of titles; bad rows are listed with their reasons and don't stop the reading."""

from __future__ import annotations

import logging
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import attrgetter
from pathlib import Path

from sentence_forge.data_readers.cleaning import Cleaner
from sentence_forge.data_readers.formats.files import file_of, open_rows, rows_of
from sentence_forge.data_readers.formats.reading import Reading
from sentence_forge.data_readers.formats.rows import BadRow, Row, RowFile, looks_like_a_row, shown
from sentence_forge.data_readers.known_columns import all_known, say
from sentence_forge.data_readers.lazy import BLOCK, only, taken
from sentence_forge.data_readers.repeats import repeats
from sentence_forge.data_readers.staged import StagedRows
from sentence_forge.runtime.errors import UserError

logger = logging.getLogger(__name__)

_LOOKED_AT = 100  # rows
_NO_TEXT = re.compile(r"[\d\W_]*|[!-~]*\d[!-~]*|https?://\S+")  # a number, a date, an id, an address


@dataclass(frozen=True)
class Corpus:
    """The rows of a corpus: ``ids[i]`` belongs to ``titles[i]``, and ``rows == len(ids) + len(rejected)``.

    ``column`` is the file's name of the titles' column, ``kept`` holds the other columns that were asked for, one cell
    a title, and ``detected`` how the file was read where that isn't usual. Ids, titles and kept cells are lists where
    they are few; many lie in a temporary file and are read as they are asked for, fast from front to back.
    """

    ids: Sequence[str]
    titles: Sequence[str]
    rejected: list[BadRow]
    rows: int
    column: str = "title"
    detected: dict[str, object] = field(default_factory=dict)
    kept: dict[str, Sequence[str]] = field(default_factory=dict)


def read_corpus(path: Path, *, column: str | None = None, id_column: str | None = None, limit: int | None = None,
                reading: Reading | None = None, clean: Sequence[str] = (), keep: Sequence[str] = (),
                folder: Path | None = None) -> Corpus:
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
        folder: for temporary files; None is the system's, ``$TMPDIR``.

    Raises:
        UserError: the file as a whole can't be read, has no rows or lacks a column, ``limit`` is below 1, there is no
            such cleaning, or the disk of temporary files is full.
    """
    if limit is not None and limit < 1:
        raise UserError(f"corpus.limit is {limit}; give a number of rows from 1, or null for all")
    cleaner = Cleaner(clean)
    reading = replace(reading or Reading(), key="corpus", nul="nul" in cleaner.names)
    file = open_rows(file_of(path), reading)
    column = _title_column(file) if column is None else column
    if id_column is None and "id" in file.columns:
        logger.info("%s: ids are the rows' numbers; corpus.id_column=id takes the column id", file.path)
    keep = list(dict.fromkeys(keep))
    columns = list(dict.fromkeys([column, *([] if id_column is None else [id_column]), *keep]))
    id_place, places = columns.index(id_column or column), [columns.index(name) for name in keep]
    rejected: list[BadRow] = []
    lines, numbers = array("q"), array("q")  # of the rows that are staged; only repeated ids need them
    rows = 0
    with StagedRows(2 + len(keep), folder) as staged:
        for row in islice(rows_of(file, columns, reading), limit):
            rows += 1
            if isinstance(row, BadRow):
                rejected.append(row)
                continue
            title = cleaner.clean(row.values[0])
            name = str(row.number) if id_column is None else row.values[id_place]
            empty = column if not title or title.isspace() else id_column if not name or name.isspace() else None
            if empty is not None:
                rejected.append(BadRow(row.line, row.number, f"column {empty}: is empty", shown(title)))
                continue
            staged.add((name, title, *[row.values[place] for place in places]))
            if id_column is not None:
                lines.append(row.line)
                numbers.append(row.number)
        found = staged.columns()
    if id_column is not None:
        found = _without_repeats(found, lines, numbers, id_column, rejected)
    for name in cleaner.names:
        logger.info("corpus.clean=%s: changed %d titles", name, cleaner.changed[name])
    return Corpus(found[0], found[1], rejected, rows, column, file.detected, dict(zip(keep, found[2:], strict=True)))


def _without_repeats(columns: list[Sequence[str]], lines: Sequence[int], numbers: Sequence[int], id_column: str,
                     rejected: list[BadRow]) -> list[Sequence[str]]:
    """Return the columns (ids, titles, others) without rows whose id an earlier row has; those join the rejected ones.

    Args:
        columns: of all good rows.
        lines: of these rows in the file.
        numbers: of these rows in the file.
        id_column: what the file calls the ids.
        rejected: in the order of the file; stays so.
    """
    import numpy as np  # so that reading a small file needs no more than Python

    later, first = repeats(columns[0])
    if not len(later):
        return columns
    for start in range(0, len(later), BLOCK):
        some, before = later[start:start + BLOCK], first[start:start + BLOCK]
        for place, earlier, name, title in zip(some.tolist(), before.tolist(), taken(columns[0], some),
                                               taken(columns[1], some), strict=True):
            reason = f"column {id_column}: {shown(name)!r} is already the id of line {lines[earlier]}"
            rejected.append(BadRow(lines[place], numbers[place], reason, shown(title)))
    rejected.sort(key=attrgetter("number"))
    left = np.delete(np.arange(len(columns[0])), later)
    return [only(column, left) for column in columns]


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
