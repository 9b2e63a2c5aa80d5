"""The corpus's further columns that an index keeps, and conditions on them: ``source=x``, ``date>=2026-01-01``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sentence_forge.encoders.similarity import IntArray
from sentence_forge.runtime.errors import UserError, one_of

if TYPE_CHECKING:
    import pyarrow as pa

_REMEMBERED = 16  # filters whose rows are kept in memory
_CONDITION = re.compile(r"(.+?)\s*(>=|<=|!=|=|>|<)\s*(.*)", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_COMPARE = {"=": "equal", "!=": "not_equal", ">=": "greater_equal", "<=": "less_equal", ">": "greater", "<": "less"}
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


class Kept:
    """Kept columns, a cell a row; safe to read from several threads.

    Args:
        texts: the cells by column, to read single ones.
        column: returns all cells of a column, strings without nulls in one chunk; called as a question needs them.
        rows: how many there are.
    """

    def __init__(self, texts: Mapping[str, Sequence[str]], column: Callable[[str], pa.ChunkedArray],
                 rows: int) -> None:
        self.names = list(texts)
        self._texts, self._column, self._rows = texts, column, rows
        self._matching: dict[tuple[str, ...], NDArray[np.uint8]] = {}  # a bit a row: numbers would be 64 times as long

    def of_row(self, row: int) -> dict[str, str]:
        """Return a row's cells by column, those that are empty left out."""
        return {name: cell for name, texts in self._texts.items() if (cell := texts[row])}

    def rows_where(self, where: Sequence[str]) -> IntArray:
        """Return the rows that meet all conditions, int64, rising; those of the last few calls are remembered.

        Raises:
            UserError: one is no condition, or on a column that isn't kept.
        """
        key = tuple(where)
        if (bits := self._matching.get(key)) is None:
            bits = np.packbits(matching_rows(conditions(where, self.names), self._column, self._rows))
            self._matching = {**dict([*self._matching.items()][1 - _REMEMBERED:]), key: bits}
        return np.flatnonzero(np.unpackbits(bits, count=self._rows).view(bool))

    def values_of(self, column: str, most: int) -> dict[str, int]:
        """Return the ``most`` commonest values of a column, and in how many rows each is."""
        import pyarrow as pa
        import pyarrow.compute as pc

        found = pc.value_counts(self._column(column).combine_chunks())
        table = pa.table({"value": found.field("values"), "rows": found.field("counts")})
        # chosen before they become Python's strings, of which a column of ids has as many as there are rows
        first = pc.select_k_unstable(table, most, [("rows", "descending"), ("value", "ascending")])
        return dict(zip(*table.take(first).to_pydict().values(), strict=True))

    def bounds_of(self, column: str) -> tuple[str, str]:
        """Return the first and the last value of a column in the order of texts; of cells that are not empty."""
        import pyarrow.compute as pc

        cells = self._column(column)
        found = pc.min_max(cells.filter(pc.not_equal(cells, ""))).as_py()
        return found["min"], found["max"]

    def are_numbers(self, column: str) -> bool:
        """Return whether most cells of a column that are not empty are numbers, so that it is ordered as such."""
        return _are_numbers(self._column(column))


class Condition(NamedTuple):
    """A kept column, one of ``= != >= <= > <``, and a value."""

    column: str
    operator: str
    value: str


def conditions(texts: Sequence[str], columns: Sequence[str]) -> list[Condition]:
    """Return the conditions that texts such as ``source=x`` say.

    Raises:
        UserError: one is no condition, or is on a column that isn't kept.
    """
    found = []
    for text in texts:
        if _SURROGATE.search(text):
            raise UserError(f"filter {text!r}: holds a lone surrogate, as of bytes that are not UTF-8; give it as "
                            "UTF-8")
        match = _CONDITION.fullmatch(text.strip())
        if match is None:
            raise UserError(f"filter {text!r}: is no condition; give such as source=x or date>=2026-01-01")
        if match[1] not in columns:
            said = one_of(columns, match[1]) if columns else "it keeps none; export with corpus.keep=[...]"
            raise UserError(f"filter {text!r}: the index keeps no column {match[1]!r}; {said}")
        found.append(Condition(match[1], match[2], match[3]))
    return found


def matching_rows(wanted: Sequence[Condition], cells_of: Callable[[str], pa.ChunkedArray],
                  rows: int) -> NDArray[np.bool_]:
    """Return of each row whether it meets all conditions, bool [rows].

    Order is that of numbers where the value and most of the column's cells are numbers, and cells that are none are
    then left out; else it is that of texts, as ISO dates need it. Empty cells meet no ``>= <= > <``.

    Args:
        wanted: the conditions.
        cells_of: returns a column's strings, without nulls.
        rows: how many there are.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    keep = np.ones(rows, bool)
    for column, operator, value in wanted:
        cells, compare = cells_of(column), getattr(pc, _COMPARE[operator])
        if operator in ("=", "!="):
            meets = compare(cells, pa.scalar(value, cells.type))
        elif re.match(_NUMBER, value) and _are_numbers(cells):
            numbers = pc.if_else(pc.match_substring_regex(cells, _NUMBER), cells, pa.scalar(None, cells.type))
            meets = pc.fill_null(compare(pc.cast(numbers, pa.float64()), float(value)), False)
        else:
            meets = pc.and_(compare(cells, pa.scalar(value, cells.type)), pc.not_equal(cells, ""))
        keep &= meets.to_numpy()
    return keep


def _are_numbers(cells: pa.ChunkedArray) -> bool:
    """Return whether most cells that are not empty are numbers."""
    import pyarrow.compute as pc

    return 2 * pc.sum(pc.match_substring_regex(cells, _NUMBER)).as_py() > pc.sum(pc.not_equal(cells, "")).as_py()
