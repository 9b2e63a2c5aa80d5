"""Training data as columns: read strictly, checked against its shape, stopped by the first bad row or without those."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.data_readers.delimited import read_rows
from sentence_forge.data_readers.rejected import Rejected
from sentence_forge.data_readers.rows import BadRow, Row, place, shown
from sentence_forge.data_readers.shapes import NLI_LABELS, SHAPES
from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset, Features

logger = logging.getLogger(__name__)

Table = dict[str, list[Any]]
"""Columns by name, all of one length: texts and labels as str, ``score`` as float, ``row`` the 1-based data row."""

ROW = "row"


class NoRows(UserError):
    """Nothing is left of a table."""


_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def read_table(
    path: Path,
    columns: Mapping[str, str],
    *,
    score_range: tuple[float, float] = (0.0, 5.0),
    labels: Sequence[str] | Mapping[str, str | None] | None = None,
    may_be_empty: Sequence[str] = (),
    rejected: list[Rejected] | None = None,
    read: Callable[[Path, Sequence[str]], Iterator[Row | BadRow]] = read_rows,
) -> Table:
    """Read the columns of a shape from a file, with the column ``row`` added.

    Args:
        path: the file.
        columns: the shape's columns and the file's column for each. ``score`` is parsed as a number and kept in the
            source's own range; all others are text.
        score_range: lowest and highest score allowed.
        labels: the names allowed in ``label``; None allows any. NLI's three are also understood as 0, 1, 2
            (entailment, neutral, contradiction: the order of the Hugging Face and SBERT releases) if the file has
            nothing else. A mapping gives the file's labels their names; the rows of one mapped to None are left out.
        may_be_empty: columns that may hold blank cells.
        rejected: takes the bad rows, and reading goes on; None stops at the first.
        read: gives the rows of ``path``, for what is no file.

    Raises:
        UserError: no row is good, or without ``rejected`` the first bad row: malformed, a blank text, a score that is
            no number or out of range, an unknown label; the message gives file, line, row and column.
    """
    parsers = [_parser(name, score_range, name in may_be_empty) for name in columns]
    names = list(columns)
    table: Table = {name: [] for name in (*names, ROW)}
    lists, numbers, lines = [table[name] for name in names], table[ROW], []
    left_out: list[Rejected] = []
    for row in read(path, list(columns.values())):
        if isinstance(row, BadRow):
            if rejected is None:
                raise UserError(f"{place(path, row.line, row.number)}: {row.reason}")
            left_out.append(Rejected(row.line, row.number, row.reason, row.text))
            continue
        cells = []
        for name, value, parse in zip(names, row.values, parsers, strict=True):
            try:
                cells.append(parse(value))
            except ValueError as error:
                if rejected is None:
                    raise UserError(f"{place(path, row.line, row.number, columns[name])}: {error}") from None
                left_out.append(Rejected(row.line, row.number, f"column {columns[name]}: {error}", shown(value)))
                break
        else:
            for column, cell in zip(lists, cells, strict=True):
                column.append(cell)
            numbers.append(row.number)
            lines.append(row.line)
    if labels is not None and "label" in table:
        table = _with_labels(path, columns["label"], table, lines, labels, None if rejected is None else left_out)
    if rejected is not None and left_out:
        rejected += sorted(left_out, key=lambda bad: bad.row)
        _report(path, left_out, len(table[ROW]))
    return table


def to_dataset(table: Table, shape: str) -> Dataset:
    """Return a table as a ``datasets.Dataset``: the shape's columns in its order, then ``row`` (int64).

    Texts and labels are strings, scores float64.
    """
    from datasets import Dataset

    kinds = features(table, shape)
    return Dataset.from_dict({name: table[name] for name in kinds}, features=kinds)


def features(table: Table, shape: str) -> Features:
    """Return the columns of a table that the shape has, in its order, and their types."""
    from datasets import Features, Value

    form = SHAPES[shape]
    names = [*form.text_columns(list(table)), *([form.label] if form.label else []), ROW]
    kinds = {ROW: "int64", "score": "float64"}
    return Features({name: Value(kinds.get(name, "string")) for name in names})


def rows_at(table: Table, positions: Sequence[int]) -> Table:
    """Return the rows at the given positions, in that order."""
    return {name: [column[position] for position in positions] for name, column in table.items()}


def _parser(name: str, score_range: tuple[float, float], may_be_empty: bool) -> Callable[[str], Any]:
    if name == "score":
        return lambda text: parse_score(text, score_range)
    if may_be_empty:
        return str
    return _not_blank


def _not_blank(text: str) -> str:
    if not text or text.isspace():
        raise ValueError("is empty; fill it or remove the row")
    return text


def parse_score(text: str, score_range: tuple[float, float]) -> float:
    """Return a score.

    Raises:
        ValueError: not a finite decimal number, or outside ``score_range``.
    """
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        comma = re.fullmatch(r"[+-]?\d+,\d+", text, re.ASCII)
        hint = "; write it with a point, not a comma" if comma else ""
        raise ValueError(f"{shown(text)[:40]!r} is not a number{hint}")
    score = float(text)
    low, high = score_range
    if not math.isfinite(score) or not low <= score <= high:
        raise ValueError(f"score {text} is outside {low:g} to {high:g}; if the source's range is another, say so with "
                         "score_range=[low,high]")
    return score


def _report(path: Path, left_out: Sequence[Rejected], good: int) -> None:
    first = min(left_out, key=lambda bad: bad.row)
    if not good:
        raise NoRows(f"{path}: none of its {len(left_out)} rows can be used; the first, "
                        f"line {first.line}: {first.reason}")
    logger.warning("%s: %d of %d rows are left out; the first, line %d: %s", path, len(left_out), good + len(left_out),
                   first.line, first.reason)


def _with_labels(path: Path, column: str, table: Table, lines: list[int],
                 labels: Sequence[str] | Mapping[str, str | None], left_out: list[Rejected] | None) -> Table:
    """Return the table with known labels only; the rows of others go to ``left_out``, or the first one stops."""
    found: list[str] = table["label"]
    if set(labels) == set(NLI_LABELS) and set(found) <= {"0", "1", "2"}:
        logger.info("%s: labels 0, 1, 2 are read as %s", path, ", ".join(NLI_LABELS))
        return table | {"label": [NLI_LABELS[int(label)] for label in found]}
    kept = []
    for position, (label, number, line) in enumerate(zip(found, table[ROW], lines, strict=True)):
        if not label or label in labels:
            kept.append(position)
            continue
        reason = f"label {shown(label)[:40]!r} is not one of {', '.join(labels)}"
        if left_out is None:
            raise UserError(f"{place(path, line, number, column)}: {reason}; remove the row, set "
                            "data.on_bad_row=skip, or give the set with labels=[...]")
        left_out.append(Rejected(line, number, f"column {column}: {reason}", shown(label)))
    table = table if len(kept) == len(found) else rows_at(table, kept)
    return _renamed(path, table, labels) if isinstance(labels, Mapping) else table


def _renamed(path: Path, table: Table, names: Mapping[str, str | None]) -> Table:
    """Return the table with the labels' names, without the rows whose label has none."""
    found = [names.get(label, label) for label in table["label"]]
    kept = [position for position, label in enumerate(found) if label is not None]
    if len(kept) < len(found):
        nameless = ", ".join(repr(label) for label, name in names.items() if name is None)
        logger.info("%s: %d of %d rows, labelled %s, are left out", path, len(found) - len(kept), len(found), nameless)
    return rows_at(table | {"label": found}, kept)
