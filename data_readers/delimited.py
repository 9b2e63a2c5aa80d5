"""A strict reader of csv, tsv, jsonl and parquet files: strings only, and every row accounted for.

``.csv``, ``.tsv`` and ``.txt`` (tabs), ``.jsonl`` and ``.json`` (one object a line), each also as ``.gz``, and
``.parquet``. Over the standard library's ``csv``, made strict: no cell becomes a number or a null (``NA``, ``007``), a
row with a cell too many or too few is bad, and so is a quote that is never closed, without the rows it would swallow.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, TextIO

from sentence_forge.data_readers import jsonl, parquet
from sentence_forge.data_readers.rows import (
    MAX_CELL,
    BadRow,
    Row,
    check_columns,
    check_header,
    first_fault,
    is_utf8,
    open_text,
    shown,
)
from sentence_forge.runtime.errors import UserError

_CSV: dict[str, Any] = {"strict": True}
_TSV: dict[str, Any] = {"strict": True, "delimiter": "\t", "quoting": csv.QUOTE_NONE}
_KINDS = {".csv": "csv", ".tsv": "tsv", ".txt": "tsv", ".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
SUFFIXES = tuple(_KINDS)
"""The suffixes that can be read; all but ``.parquet`` also with ``.gz`` behind."""


def header(path: Path) -> list[str]:
    """Return a file's column names; of JSON lines, the first object's keys.

    Raises:
        UserError: missing, empty, of unknown suffix, not what the suffix promises, or a name stands twice.
    """
    kind = _kind(path)
    if kind == "parquet":
        return parquet.header(path)
    if kind == "jsonl":
        return jsonl.header(path)
    return _header(path, _dialect(kind))


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[Row | BadRow]:
    """Return an iterator over the rows of a file, good and bad, with the cells of ``columns`` as strings.

    Faults of a row are yielded as ``BadRow``, so that the caller decides; blank lines are skipped and not counted.

    Raises:
        UserError: for what concerns the whole file, such as a missing column, no rows at all, a cut gzip stream; those
            of the header at once, the rest while reading.
    """
    kind = _kind(path)
    names = header(path)
    check_columns(path, names, columns)
    if kind == "parquet":
        rows = parquet.rows(path, columns)
    elif kind == "jsonl":
        rows = jsonl.rows(path, columns)
    else:
        rows = _rows(path, _dialect(kind), names, columns)
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path}: has a header but no rows")
    return chain([first], rows)


def _kind(path: Path) -> str:
    packed = path.suffix == ".gz"
    suffix = (Path(path.stem).suffix if packed else path.suffix).lower()
    kind = _KINDS.get(suffix)
    if kind is None or (packed and kind == "parquet"):
        raise UserError(f"{path}: can't tell the format from the name; give a file that ends in {', '.join(SUFFIXES)} "
                        "(.gz may follow, but for .parquet)")
    return kind


def _dialect(kind: str) -> dict[str, Any]:
    # the limit is one for the whole process; it is only ever raised
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
    return _TSV if kind == "tsv" else _CSV


def _header(path: Path, dialect: dict[str, Any]) -> list[str]:
    with open_text(path) as file:
        try:
            names = next(filter(None, csv.reader(_lines(path, file, deque(), []), **dialect)), None)
        except csv.Error as error:
            raise UserError(f"{path}, line 1: the header can't be read: {_why(error)}") from None
    if names is None:
        raise UserError(f"{path}: is empty")
    return check_header(path, names)


def _lines(path: Path, file: TextIO, again: deque[str], taken: list[str]) -> Iterator[str]:
    """Yield the lines to parse ``again``, then the file's; note in ``taken`` what was handed out."""
    while again:
        taken.append(line := again.popleft())
        yield line
    for line in iter(partial(file.readline, MAX_CELL), ""):
        if len(line) == MAX_CELL:
            raise UserError(f"{path}: has a line longer than {MAX_CELL:,} characters ({shown(line)[:60]!r}...)")
        taken.append(line)
        yield line


def _rows(path: Path, dialect: dict[str, Any], names: list[str], columns: Sequence[str]) -> Iterator[Row | BadRow]:
    again: deque[str] = deque()
    taken: list[str] = []
    positions = [names.index(column) for column in columns]
    # a slice, because itemgetter of a single position gives a cell and not a sequence of cells
    pick = itemgetter(*positions) if len(positions) > 1 else itemgetter(slice(positions[0], positions[0] + 1))
    width = len(names)
    number, done = 0, 0  # `done` physical lines came before the present csv.reader
    with open_text(path) as file:
        reader = csv.reader(_lines(path, file, again, taken), **dialect)
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
                        if "\0" not in text and (text.isascii() or is_utf8(text)):
                            yield Row(line, number, values)
                        else:
                            yield BadRow(line, number, str(first_fault(columns, values)), _raw(taken))
                    elif cells:
                        number += 1
                        yield BadRow(line, number, _count(len(cells), width), _raw(taken))
                    taken.clear()
                return
            except csv.Error as error:
                # the row that can't be parsed is its first line; what its quote swallowed is parsed again
                number += 1
                done += last + 1
                yield BadRow(done, number, _why(error, len(taken)), _raw(taken[:1]))
                again.extendleft(reversed(taken[1:]))
                reader = csv.reader(_lines(path, file, again, taken), **dialect)


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
