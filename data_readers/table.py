"""Read training data into columns and check them against their shape; a bad row stops the reading, or is left out."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.data_readers.formats.files import open_rows, rows_of
from sentence_forge.data_readers.formats.rows import BadRow, Row, RowFile, place, shown
from sentence_forge.data_readers.score_range import parse_score
from sentence_forge.data_readers.shapes import NLI_LABELS, SHAPES
from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset, Features

logger = logging.getLogger(__name__)

Table = dict[str, list[Any]]
"""Columns by name, all of one length: texts and labels as str, ``score`` as float, ``row`` the 1-based data row."""

ROW = "row"


class NoRows(UserError):
    """No row of a table can be used."""


NO_LABEL = ("-1", "-")
"""What sets of premises and hypotheses write where the annotators did not agree: no gold label."""


def read_table(
    source: Path | RowFile,
    columns: Mapping[str, str],
    *,
    score_range: tuple[float, float] | None = None,
    labels: Sequence[str] | Mapping[str, str | None] | None = None,
    may_be_empty: Sequence[str] = (),
    rejected: list[BadRow] | None = None,
    rows: Iterator[Row | BadRow] | None = None,
    key: str | None = None,
) -> Table:
    """Read the columns of a shape from a file, with the column ``row`` added.

    Args:
        source: the file, or its path.
        columns: the shape's columns and the file's column for each. ``score`` is parsed as a number and kept in the
            source's own range; all others are text.
        score_range: lowest and highest score allowed; None allows any.
        labels: the names allowed in ``label``, see ``_with_labels``; None allows any.
        may_be_empty: columns that may hold blank cells.
        rejected: takes the bad rows, and reading goes on; None stops at the first.
        rows: some of the file's, with the cells of ``columns``; None reads all.
        key: the part of the config that holds these options, for errors; None where none does.

    Raises:
        UserError: no row is good, or without ``rejected`` the first bad row, with file, line, row and column.
    """
    file = open_rows(source) if isinstance(source, Path) else source
    path, comma = file.path, file.detected.get("separator") == ";"
    parsers = [_parser(name, score_range, name in may_be_empty, comma, key) for name in columns]
    names = list(columns)
    table: Table = {name: [] for name in (*names, ROW)}
    lists, numbers, lines = [table[name] for name in names], table[ROW], []
    left_out: list[BadRow] = []
    for row in rows_of(file, list(columns.values())) if rows is None else rows:
        if isinstance(row, BadRow):
            if rejected is None:
                raise UserError(f"{place(path, row.line, row.number)}: {row.reason}")
            left_out.append(row)
            continue
        cells = []
        for name, value, parse in zip(names, row.values, parsers, strict=True):
            try:
                cells.append(parse(value))
            except ValueError as error:
                if rejected is None:
                    raise UserError(f"{place(path, row.line, row.number, columns[name])}: {error}") from None
                left_out.append(BadRow(row.line, row.number, f"column {columns[name]}: {error}", shown(value)))
                break
        else:
            for column, cell in zip(lists, cells, strict=True):
                column.append(cell)
            numbers.append(row.number)
            lines.append(row.line)
    if labels is not None and "label" in table:
        table = _with_labels(path, columns["label"], table, lines, labels, None if rejected is None else left_out, key)
    if rejected is not None and left_out:
        rejected += sorted(left_out, key=lambda bad: bad.number)
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


def _parser(name: str, score_range: tuple[float, float] | None, may_be_empty: bool, comma: bool,
            key: str | None) -> Callable[[str], Any]:
    if name == "score":
        return lambda text: parse_score(text, score_range, comma=comma, key=key)
    return str if may_be_empty else _not_blank


def _not_blank(text: str) -> str:
    if not text or text.isspace():
        raise ValueError("is empty; fill it or remove the row")
    return text


def _report(path: Path, left_out: Sequence[BadRow], good: int) -> None:
    first = min(left_out, key=lambda bad: bad.number)
    if not good:
        raise NoRows(f"{path}: none of its {len(left_out)} rows can be used; the first, "
                        f"line {first.line}: {first.reason}")
    logger.warning("%s: %d of %d rows are left out; the first, line %d: %s", path, len(left_out), good + len(left_out),
                   first.line, first.reason)


def _with_labels(path: Path, column: str, table: Table, lines: list[int], labels: Sequence[str] | Mapping[
        str, str | None], left_out: list[BadRow] | None, key: str | None) -> Table:
    """Return the table with known labels only; the rows of others go to ``left_out``, or the first one stops.

    NLI's three are also understood as 0, 1, 2 (entailment, neutral, contradiction: the order of the Hugging Face and
    SBERT releases) if the file has no other, and rows without a gold label (-1 or -) are then left out. A mapping gives
    the file's labels their names; the rows of one mapped to None are left out.
    """
    names = dict(labels) if isinstance(labels, Mapping) else {label: label for label in labels}
    found = [label if label in names else _without_fraction(label) for label in table["label"]]
    if set(names) == set(NLI_LABELS):
        if not set(found) & set(names) and set(found) & {"0", "1", "2"}:
            logger.info("%s: labels 0, 1, 2 are read as %s", path, ", ".join(NLI_LABELS))
            names = dict(zip("012", NLI_LABELS, strict=True))
        names |= dict.fromkeys(NO_LABEL)
    kept: list[int] = []
    nameless: list[int] = []
    for position, label in enumerate(found):
        if label in names:
            (nameless if names[label] is None else kept).append(position)
            continue
        known = [name for name in names if name not in NO_LABEL] or names
        reason = f"label {shown(label)[:40]!r} is not one of {', '.join(known)}"
        if left_out is None:
            advice = "" if key is None else _advice(key, found, names)
            raise UserError(f"{place(path, lines[position], table[ROW][position], column)}: {reason}; remove or mend "
                            f"the row{advice}")
        left_out.append(BadRow(lines[position], table[ROW][position], f"column {column}: {reason}", shown(label)))
    if nameless:
        which = ", ".join(sorted({found[at] for at in nameless}))
        why = " (no gold label)" if {found[at] for at in nameless} <= set(NO_LABEL) else ""
        logger.warning("%s: %d of %d rows are labelled %s%s and are left out; the first, line %d", path,
                       len(nameless), len(found), which, why, lines[nameless[0]])
    return rows_at(table | {"label": [names.get(label, label) for label in found]}, kept)


def checked_labels(labels: Sequence[str] | Mapping[str, str | None]) -> Sequence[str] | Mapping[str, str | None]:
    """Return the allowed labels of a config, or the mapping of labels to names, with labels as strings.

    Raises:
        UserError: it is one string.
    """
    if isinstance(labels, str):
        raise UserError(f"data.labels is {labels!r}; give a list, as [same,other], or names, as {{0: no, 1: yes}}")
    if isinstance(labels, Mapping):
        return {str(label): name for label, name in labels.items()}
    return [str(label) for label in labels]


def _without_fraction(label: str) -> str:
    """Return 1 for 1.0, as pandas writes whole numbers where some are missing."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", label.strip())


def _advice(key: str, found: Sequence[str], names: Mapping[str, str | None]) -> str:
    others = sorted(set(found) - set(names))
    named = ", ".join([*(f"{label}: {name or 'null'}" for label, name in names.items() if label not in NO_LABEL),
                       *(f"{label}: null" for label in others)])
    plain = len(named) < 150 and all(re.fullmatch(r"[\w.-]+", label) for label in others)
    return f", or leave such rows out by {key}.on_bad_row=skip" + (
        f", or name all labels, as '{key}.labels={{{named}}}'" if plain else "")
