"""Read Parquet files as rows of strings, by pyarrow."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.data_readers.formats.packed import MOST_RATIO, MOST_UNPACKED
from sentence_forge.data_readers.formats.reading import Reading
from sentence_forge.data_readers.formats.rows import BadRow, Row, RowFile, check_header, first_fault, shown
from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

BATCH = 8192
"""Rows read at a time."""

_LEAST_ROW = 8  # bytes a row takes in memory at the least


class ParquetFile(RowFile):
    """A Parquet file. A number becomes its ``str``, and null is bad.

    Raises:
        UserError: missing, or not Parquet, or cut short.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        super().__init__(path)
        self._nul = reading.nul
        with _open(path) as file:
            self._schema = file.schema_arrow
        self.columns = check_header(path, self._schema.names, reading.key)
        self.lists = list_columns(self._schema)

    def rows(self, columns: Sequence[str]) -> Iterator[Row | BadRow]:
        """Yield the rows.

        Raises:
            UserError: a column of another type, such as a date, or a damaged file.
        """
        with _open(self.path) as file:
            check_types(self.path, self._schema, columns)
            yield from rows_of(file.iter_batches(BATCH, columns=list(columns)), columns, nul=self._nul)


def list_columns(schema: pyarrow.Schema) -> frozenset[str]:
    """Return the columns of lists."""
    from pyarrow import types

    return frozenset(field.name for field in schema if types.is_list(field.type) or types.is_large_list(field.type))


def rows_of(batches: Iterable[pyarrow.RecordBatch], columns: Sequence[str], *,
            nul: bool = False) -> Iterator[Row | BadRow]:
    """Yield the rows of Arrow batches; a list comes as JSON."""
    number = 0
    for batch in batches:
        for cells in zip(*(_cells(batch.column(column)) for column in columns), strict=True):
            number += 1
            reason = next((f"column {name}: is null, not a string or number"
                           for name, cell in zip(columns, cells, strict=True) if cell is None), None)
            values = ["" if cell is None else cell for cell in cells]
            reason = reason or first_fault(columns, values, nul=nul)
            if reason is None:
                yield Row(number + 1, number, values)
            else:
                yield BadRow(number + 1, number, reason, shown(",".join(values)))


@contextlib.contextmanager
def _open(path: Path) -> Iterator[pyarrow.parquet.ParquetFile]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _refuse_bombs(path, file.metadata)
            yield file
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not Parquet, cut short or damaged ({str(error).splitlines()[0]})") from None


def _refuse_bombs(path: Path, about: pyarrow.parquet.FileMetaData) -> None:
    size = path.stat().st_size
    unpacked = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
    # equal values take almost no room in the file, however many rows there are
    if max(unpacked, about.num_rows * _LEAST_ROW) > max(MOST_UNPACKED, MOST_RATIO * size):
        raise UserError(f"{path}: {about.num_rows:,} rows and {unpacked:,} bytes unpacked in a file of {size:,} bytes: "
                        "a zip bomb? If it is sound, write it again without compression")


def check_types(path: Path, schema: pyarrow.Schema, columns: Sequence[str]) -> None:
    """Refuse a column of anything but strings, numbers or lists.

    Raises:
        UserError: names the column and what it holds.
    """
    from pyarrow import types

    lists = list_columns(schema)
    for column in columns:
        kind = schema.field(column).type
        if types.is_dictionary(kind):
            kind = kind.value_type
        text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
        number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
        if not (text or number or types.is_null(kind) or column in lists):
            raise UserError(f"{path}, column {column}: holds {kind}, not strings or numbers; cast it before writing")


def _cells(array: Any) -> list[str | None]:  # noqa: ANN401 - pyarrow's arrays carry no useful types
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if types.is_integer(array.type) or types.is_floating(array.type) or types.is_decimal(array.type):
        return [None if cell is None else str(cell) for cell in array.to_pylist()]
    try:
        cells = array.to_pylist()
    except UnicodeDecodeError:  # pyarrow lets bytes that are not UTF-8 pass until they are looked at
        if not types.is_string(array.type) and not types.is_large_string(array.type):
            return [None] * len(array)
        cells = array.cast(pyarrow.large_binary()).to_pylist()
        return [None if cell is None else cell.decode("utf-8", "surrogateescape") for cell in cells]
    if types.is_list(array.type) or types.is_large_list(array.type):
        return [json.dumps(cell or [], default=str) for cell in cells]
    return cells
