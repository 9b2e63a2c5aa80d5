"""What every file format shares: a row or a bad row, opening as text, and what no cell may hold."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO, cast

from sentence_forge.runtime.errors import UserError, one_of

MAX_CELL = 1 << 24
"""Characters in one cell or one physical line; a file with more in it is damaged or means harm."""

MOST_UNPACKED = 1 << 29
"""Bytes that a packed file may become whatever its size; beyond, ``MOST_RATIO`` counts."""

MOST_RATIO = 200
"""Times its size that a packed file may become; text packs to a third or a tenth, a bomb to a thousandth."""

_SHOWN = 500
_MAGIC = {
    b"\xff\xfe": "is UTF-16, not UTF-8; save it as UTF-8",
    b"\xfe\xff": "is UTF-16, not UTF-8; save it as UTF-8",
    b"\x1f\x8b": "is gzip; let its name end in .gz",
    b"PK": "is a zip archive or a spreadsheet; unpack it, or save the sheet as CSV UTF-8",
    b"PAR1": "is Parquet; let its name end in .parquet",
}


class Row(NamedTuple):
    """A good row. A named tuple, because a frozen dataclass takes twice as long to make.

    Args:
        line: the 1-based physical line on which it starts; for Parquet, which has none, ``number + 1``.
        number: the 1-based data row; blank lines are no rows.
        values: the requested columns' cells, in the order in which they were requested.
    """

    line: int
    number: int
    values: list[str]


class BadRow(NamedTuple):
    """A row that can't be read: ``reason`` says why and ``text`` is what stands in the file, shortened."""

    line: int
    number: int
    reason: str
    text: str


def place(path: Path, line: int, number: int, column: str | None = None) -> str:
    """Return ``<file>, line N (row M), column X``, the beginning of every error about a row."""
    tail = "" if column is None else f", column {column}"
    return f"{path}, line {line} (row {number}){tail}"


def shown(text: str) -> str:
    """Return ``text`` shortened and encodable, for an error or a list of rejected rows."""
    return text[:_SHOWN].encode("utf-8", "replace").decode()


def is_utf8(text: str) -> bool:
    """Whether text decoded with ``surrogateescape`` was UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def fault(value: str) -> str | None:
    """Return why a cell decoded with ``surrogateescape`` is no text, or None if it is."""
    if "\0" in value:
        return "holds a NUL character"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        what = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"lone surrogate U+{code:04X}"
        return f"is not UTF-8 ({what} at character {error.start + 1}); save the file as UTF-8"
    return None


def first_fault(columns: Sequence[str], values: Sequence[str]) -> str | None:
    """Return the reason of the first faulty cell, with its column, or None."""
    for column, value in zip(columns, values, strict=True):
        reason = fault(value)
        if reason:
            return f"column {column}: {reason}"
    return None


def check_header(path: Path, names: Sequence[str]) -> list[str]:
    """Return ``names`` as a list after refusing those that can't be told apart or read.

    Raises:
        UserError: a name stands twice, or is not text.
    """
    for position, name in enumerate(names, 1):
        reason = fault(name)
        if reason:
            raise UserError(f"{path}, line 1: the name of column {position} {reason}")
        if name in names[: position - 1]:
            raise UserError(f"{path}, line 1: column {name!r} stands twice in the header; rename one")
    return list(names)


def check_columns(path: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse a file that lacks one of the ``wanted`` columns.

    Raises:
        UserError: names the column and the nearest, or all, that are there.
    """
    for column in wanted:
        if column in names:
            continue
        if len(names) == 1 and any(mark in names[0] for mark in ",;\t|"):
            raise UserError(f"{path}: no column {column!r}; the header is one cell, {shown(names[0])!r}: is the "
                            "separator the one that the file's suffix promises (.csv comma, .tsv tab)?")
        raise UserError(f"{path}: no column {column!r}; {one_of(names, column)}")


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a file, through gzip if its name ends in .gz, as UTF-8 text with its line ends kept and a BOM dropped.

    Bytes that are not UTF-8 come through as surrogates (``surrogateescape``), so that one bad row costs one row.

    Raises:
        UserError: missing, unreadable, another format by its first bytes, or a gzip stream cut short or damaged.
    """
    with contextlib.ExitStack() as stack:
        try:
            raw = stack.enter_context(path.open("rb"))
            if path.suffix == ".gz":
                unpacked = stack.enter_context(_Gunzip(path, raw))
                # GzipFile is written in Python: few large reads instead of many small ones
                raw = stack.enter_context(io.BufferedReader(cast("io.RawIOBase", unpacked), 1 << 20))
            _refuse_other_formats(path, raw)
            yield stack.enter_context(io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline=""))
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except EOFError:
            raise UserError(f"{path}: the gzip stream is cut short; copy or download it again") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path}: not gzip, or damaged ({error}); copy or download it again") from None
        except OSError as error:
            raise UserError(f"{path}: can't be read ({error.strerror or error})") from None


class _Gunzip(gzip.GzipFile):
    """Unpacks until it is plain that the file means harm."""

    def __init__(self, path: Path, packed: BinaryIO) -> None:
        super().__init__(fileobj=packed)
        self._path, self._unpacked = path, 0
        self._most = max(MOST_UNPACKED, MOST_RATIO * path.stat().st_size)

    def read(self, size: int | None = -1) -> bytes:
        """Return up to ``size`` unpacked bytes."""
        data = super().read(size)
        self._unpacked += len(data)
        if self._unpacked > self._most:
            raise UserError(f"{self._path}: unpacks to more than {self._most:,} bytes, over {MOST_RATIO} times its "
                            "size: a zip bomb? If it is sound, unpack it and give the unpacked file")
        return data


def _refuse_other_formats(path: Path, raw: BinaryIO | io.BufferedReader) -> None:
    start = cast("io.BufferedReader", raw).peek(4)[:4]
    for magic, what in _MAGIC.items():
        if start.startswith(magic):
            raise UserError(f"{path}: {what}")
