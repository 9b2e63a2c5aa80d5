"""Open a data file in the format that its name ends with; ``-`` is the standard input."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path

from sentence_forge.data_readers.formats.delimited import Delimited
from sentence_forge.data_readers.formats.jsonl import JsonFile
from sentence_forge.data_readers.formats.packed import PACKINGS, inner_name
from sentence_forge.data_readers.formats.reading import Reading
from sentence_forge.data_readers.formats.rows import BadRow, Row, RowFile, check_columns
from sentence_forge.runtime.errors import UserError

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet", ".xlsx")
"""The suffixes that can be read; those of text also with one of ``PACKINGS`` behind."""

_BINARY = (".parquet", ".xlsx")
_STARTS = {b"PAR1": ".parquet", b"PK\x03\x04": ".xlsx", b"\x1f\x8b": ".csv.gz", b"\x28\xb5\x2f\xfd": ".csv.zst"}


def open_rows(path: Path, reading: Reading | None = None) -> RowFile:
    """Open a file and read its header.

    Args:
        path: csv, tsv, txt, jsonl, json, parquet or xlsx, or a packed text file.
        reading: what a person says of it.

    Raises:
        UserError: missing, empty, of unknown suffix, not what the suffix promises, or a name stands twice.
    """
    reading = reading or Reading()
    inner = inner_name(path)
    suffix = inner.suffix.lower()
    if suffix not in SUFFIXES or (inner is not path and suffix in _BINARY):
        raise UserError(f"{path}: can't tell the format from the name; give a file that ends in {', '.join(SUFFIXES)} "
                        f"({', '.join(PACKINGS)} may follow, but not behind {' or '.join(_BINARY)})")
    if suffix == ".parquet":
        from sentence_forge.data_readers.formats.parquet import ParquetFile

        return ParquetFile(path, reading)
    if suffix == ".xlsx":
        from sentence_forge.data_readers.formats.workbook import Workbook

        return Workbook(path, reading)
    return JsonFile(path, reading) if suffix in (".json", ".jsonl", ".ndjson") else Delimited(path, reading, suffix)


def header(path: Path) -> list[str]:
    """Return a file's column names; of JSON, the first object's keys."""
    return open_rows(path).columns


def read_rows(path: Path, columns: Sequence[str], reading: Reading | None = None) -> Iterator[Row | BadRow]:
    """Return an iterator over the rows of a file, good and bad; see ``rows_of``."""
    return rows_of(open_rows(path, reading), columns, reading)


def rows_of(file: RowFile, columns: Sequence[str], reading: Reading | None = None) -> Iterator[Row | BadRow]:
    """Return an iterator over the rows of an opened file, with the cells of ``columns`` as strings.

    Faults of a row are yielded as ``BadRow``, so that the caller decides; blank lines are skipped and not counted.

    Raises:
        UserError: for what concerns the whole file: a missing column or no rows at all, at once; a cut or damaged
            stream, while reading.
    """
    check_columns(file.path, file.columns, columns, (reading or Reading()).key)
    if lists := file.lists & set(columns):
        raise UserError(f"{file.path}, column {min(lists)}: holds lists, not strings or numbers")
    rows = file.rows(columns)
    first = next(rows, None)
    if first is None:
        raise UserError(f"{file.path}: has a header but no rows")
    return chain([first], rows)


def file_of(path: str | Path) -> Path:
    """Return the path of a file that a person named: ``~`` is the home, and ``-`` what comes by the standard input."""
    if not str(path).strip():
        raise UserError("the path is empty; give a file")
    return _standard_input() if str(path) == "-" else Path(path).expanduser()


def as_named(file: Path) -> str:
    """Return the path of a file as a person named it, for records that another process compares."""
    return "-" if _standard_input.cache_info().currsize and file == _standard_input() else str(file)


@cache
def _standard_input() -> Path:
    """Keep the standard input in a file, with the suffix of what it looks like."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("-: several processes can't share one standard input; give a file")
    if sys.stdin is None or sys.stdin.closed:
        raise UserError("-: there is no standard input; give a file")
    folder = Path(tempfile.mkdtemp(prefix="sentence-forge-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / "stdin"
    with file.open("wb") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
    with file.open("rb") as copied:
        start = copied.read(4096)
    text = start.decode("utf-8-sig", "ignore").lstrip()
    suffix = next((suffix for magic, suffix in _STARTS.items() if start.startswith(magic)),
                  ".json" if text.startswith(("{", "[")) else ".csv" if _is_table(text) else ".txt")
    return file.rename(folder / f"stdin{suffix}")


def _is_table(text: str) -> bool:
    from sentence_forge.data_readers.known_columns import is_known

    first = text.partition("\n")[0].strip()
    return any(is_known(name.strip('"')) for mark in ",;\t|" for name in first.split(mark)) or first.startswith("sep=")
