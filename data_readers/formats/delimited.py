"""Read CSV, TSV and other separated files strictly, by the standard library's ``csv``.

No cell becomes a number or a null (``NA``, ``007``). A row with a cell too many or too few is bad, and so is a row with
a quote that is never closed, without the rows that the quote would swallow.
"""

from __future__ import annotations

import contextlib
import csv
import logging
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from sentence_forge.data_readers.csv_writer import GUARD
from sentence_forge.data_readers.formats.reading import SEPARATORS, Reading
from sentence_forge.data_readers.formats.rows import (
    MAX_CELL,
    BadRow,
    Row,
    RowFile,
    check_header,
    first_fault,
    is_text,
    shown,
)
from sentence_forge.data_readers.formats.text import TextFile
from sentence_forge.data_readers.known_columns import is_known
from sentence_forge.runtime.errors import UserError

logger = logging.getLogger(__name__)

_SNIFFED = 101  # lines
_SEP_LINE = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)
_GUARDED = re.compile(rf"{GUARD}+[=+\-@\t\r]")


class Delimited(RowFile):
    """A file of separated cells.

    The separator is the one that the suffix says (.csv a comma; .tsv and .txt a tab), unless the header and the first
    100 rows fit another one better, or the first line is Excel's ``sep=;``. Tabs in .tsv and .txt know no quotes,
    except in UTF-16, which only Excel writes. A .txt of one column without a known name has a text in each line and no
    header.

    Raises:
        UserError: it can't be read, is empty, or a name stands twice in its header.
    """

    def __init__(self, path: Path, reading: Reading, suffix: str) -> None:
        super().__init__(path)
        self._reading, self._text = reading, TextFile(path, reading)
        if not self._text.encoding.startswith("utf-8"):
            self.detected["encoding"] = self._text.encoding
        # the limit is one for the whole process; it is only ever raised
        csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
        with self._text.open() as file:
            start = list(islice(self._text.lines(file), _SNIFFED))
        first = next((line for line in start if line.strip()), "")
        said = _SEP_LINE.fullmatch(first)
        self._skipped = 0 if said is None else start.index(first) + 1
        usual = "," if suffix == ".csv" else "\t"
        separator = reading.delimiter or (said[1] if said else _separator(start, usual, named=suffix == ".txt"))
        if separator != usual:
            self.detected["separator"] = separator
            name = next((name for name, mark in SEPARATORS.items() if mark == separator), repr(separator))
            logger.info("%s: its cells are separated by %s%s", path, name, reading.hint("separator"))
        self._dialect: dict[str, Any] = {"strict": True, "delimiter": separator}
        if separator == "\t" and suffix != ".csv" and not self._text.encoding.startswith("utf-16"):
            self._dialect["quoting"] = csv.QUOTE_NONE
        self._has_header = reading.header is None
        names = self._names() if reading.header is None else list(reading.header)
        if self._has_header and suffix == ".txt" and len(names) == 1 and not is_known(names[0]):
            names, self._has_header = ["title"], False
            self._dialect = {"strict": True, "delimiter": "\x1f", "quoting": csv.QUOTE_NONE}
            self.detected["header"] = names
            logger.info("%s: has no header; each of its lines is a title%s", path, reading.hint("header"))
        self.columns = check_header(path, names, reading.key)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Iterator[str]]:
        with self._text.open() as file:
            yield islice(self._text.lines(file), self._skipped, None)

    def _names(self) -> list[str]:
        with self._opened() as lines:
            try:
                names = next(filter(None, csv.reader(lines, **self._dialect)), None)
            except csv.Error as error:
                raise UserError(f"{self.path}, line 1: the header can't be read: {_why(error)}") from None
        if names is None:
            raise UserError(f"{self.path}: is empty")
        return names

    def rows(self, columns: Sequence[str]) -> Iterator[Row | BadRow]:
        r"""Yield the rows.

        Where a quote is never closed, ``csv`` takes everything up to the next quote for one cell, and then fails. That
        costs one row: the line that began the cell is bad, and the lines that it swallowed are parsed again::

            1,fine            -> Row
            2,"never closed   -> BadRow, since csv fails three lines on
            3,fine            -> Row, parsed again
            4,"fine"          -> Row, parsed again
        """
        again: deque[str] = deque()
        taken: list[str] = []
        pick = _picker([self.columns.index(column) for column in columns])
        width, nul = len(self.columns), self._reading.nul
        number, done = 0, self._skipped  # `done` physical lines came before the present csv.reader
        with self._opened() as lines:
            reader = csv.reader(_noted(lines, again, taken), **self._dialect)
            if self._has_header:
                next(filter(None, reader))
            while True:
                last = reader.line_num
                taken.clear()
                try:
                    for cells in reader:
                        line, last = done + last + 1, reader.line_num
                        if len(cells) == width:
                            number += 1
                            values = list(pick(cells))
                            text = "".join(values)
                            if ("\0" in text and not nul) or not (text.isascii() or is_text(text)):
                                reason = str(first_fault(columns, values, self._text.encoding, nul=nul))
                                yield BadRow(line, number, reason, _raw(taken))
                            else:
                                if GUARD in text:
                                    values = unguarded(values)
                                yield Row(line, number, values)
                        elif cells:
                            number += 1
                            yield BadRow(line, number, _count(len(cells), width), _raw(taken))
                        taken.clear()
                    return
                except csv.Error as error:
                    number += 1
                    done += last + 1
                    yield BadRow(done, number, _why(error, len(taken)), _raw(taken[:1]))
                    again.extendleft(reversed(taken[1:]))
                    reader = csv.reader(_noted(lines, again, taken), **self._dialect)


def _noted(lines: Iterator[str], again: deque[str], taken: list[str]) -> Iterator[str]:
    """Yield the lines to parse ``again``, then ``lines``; note in ``taken`` what was handed out."""
    while again:
        taken.append(line := again.popleft())
        yield line
    for line in lines:
        taken.append(line)
        yield line


def _picker(places: list[int]) -> Callable[[list[str]], Sequence[str]]:
    # a slice, because itemgetter of a single place gives a cell and not a sequence of cells
    return itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))


def _separator(lines: Sequence[str], usual: str, *, named: bool) -> str:
    """Return the separator by which the header has several cells and the rows as many; ``usual`` where none has.

    Args:
        lines: the first ones of the file.
        usual: goes before others that fit as well.
        named: whether another one must give the header a well-known name.
    """
    best, best_share = usual, 0.0
    for mark in dict.fromkeys((usual, ",", ";", "\t", "|")):
        try:
            header, *rows = [row for row in csv.reader(lines, delimiter=mark) if row]
        except (ValueError, csv.Error):  # no line, or a cell as long as a file
            continue
        if len(header) < 2 or (named and mark != usual and not any(map(is_known, header))):
            continue
        share = sum(len(row) == len(header) for row in rows) / max(1, len(rows))
        if share > best_share + (0.1 if best_share else 0) and (mark == usual or share >= 0.5 or not rows):
            best, best_share = mark, share
    return best


def unguarded(cells: list[str]) -> list[str]:
    """Return cells as they were before ``csv_writer`` guarded those that a spreadsheet would compute."""
    return [cell[1:] if _GUARDED.match(cell) else cell for cell in cells]


def _raw(lines: Sequence[str]) -> str:
    return shown("".join(lines)).rstrip("\r\n")


def _count(found: int, expected: int) -> str:
    hint = "; a cell that holds the separator must be quoted" if found > expected else ""
    return f"has {found} cells where the header has {expected}{hint}"


def _why(error: csv.Error, lines: int = 1) -> str:
    """Return csv's complaint in words that say what to look for."""
    text = str(error)
    if "unexpected end of data" in text:
        return "a quote that opens here is never closed"
    if "field larger than" in text:
        return f"a cell has more than {MAX_CELL:,} characters; is a quote that opens here never closed?"
    if "expected after" in text:
        swallowed = " or the one that opens here is never closed" if lines > 1 else ""
        return f'a quote inside a quoted cell is not doubled (""){swallowed}'
    return text
