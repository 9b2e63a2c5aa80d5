"""What files of every format are read as, good rows and bad rows, and the checks of their cells and headers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sentence_forge.runtime.errors import UserError, one_of

MAX_CELL = 1 << 24
"""Characters in one cell or one physical line; a file with more in it is damaged or means harm."""

_SHOWN = 500


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
    """A row that is left out: its line and number, as ``Row`` has them, why, and what the file has there, shortened."""

    line: int
    number: int
    reason: str
    text: str


class RowFile(ABC):
    """A file whose header was read; each format is a subclass, which sets ``columns``.

    Args:
        path: what errors call the file.
        stored: the files on disk that hold its rows; None is ``path`` itself.

    Attributes:
        columns: the names of its columns, in the file's order.
        lists: those of them whose cells are lists; such a cell comes as JSON.
        detected: how it is read where that isn't usual, such as ``{"encoding": "gb18030"}``, ready for JSON.
    """

    columns: list[str]

    def __init__(self, path: Path, stored: list[Path] | None = None) -> None:
        self.path, self.stored = path, [path] if stored is None else stored
        self.lists: frozenset[str] = frozenset()
        self.detected: dict[str, object] = {}

    @abstractmethod
    def rows(self, columns: Sequence[str]) -> Iterator[Row | BadRow]:
        """Yield every row, good or bad, with the cells of ``columns``, which the file has."""


def place(path: Path, line: int, number: int, column: str | None = None) -> str:
    """Return ``<file>, line N (row M), column X``, the beginning of every error about a row."""
    tail = "" if column is None else f", column {column}"
    return f"{path}, line {line} (row {number}){tail}"


def shown(text: str) -> str:
    """Return ``text`` shortened and encodable, for an error or a list of rejected rows."""
    return text[:_SHOWN].encode("utf-8", "replace").decode()


def is_text(text: str) -> bool:
    """Whether decoded text holds no lone surrogate; a byte that could not be decoded is one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def fault(value: str, encoding: str = "utf-8", *, nul: bool = False) -> str | None:
    """Return why a decoded cell is no text, or None if it is.

    Args:
        value: the cell.
        encoding: that it was decoded from, with ``surrogateescape``.
        nul: whether it may hold NUL characters.
    """
    if "\0" in value and not nul:
        return "holds a NUL character"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        what = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"lone surrogate U+{code:04X}"
        name = "UTF-8" if encoding.startswith("utf-8") else encoding
        return f"is not {name} ({what} at character {error.start + 1}); save the file as UTF-8"
    return None


def first_fault(columns: Sequence[str], values: Sequence[str], encoding: str = "utf-8", *,
                nul: bool = False) -> str | None:
    """Return the reason of the first faulty cell, with its column, or None."""
    for column, value in zip(columns, values, strict=True):
        reason = fault(value, encoding, nul=nul)
        if reason:
            return f"column {column}: {reason}"
    return None


def check_header(path: Path, names: Sequence[str], key: str = "") -> list[str]:
    """Return ``names`` as a list after refusing those that can't be told apart or read.

    Raises:
        UserError: a name stands twice, or is not text.
    """
    for position, name in enumerate(names, 1):
        reason = fault(name)
        if reason:
            raise UserError(f"{path}, line 1: the name of column {position} {reason}")
        if name in names[: position - 1]:
            more = f", or, if that line is a row, give the columns' names as {key}.header=[...]" if key else ""
            raise UserError(f"{path}, line 1: column {name!r} stands twice in the header; rename one{more}")
    return list(names)


def check_columns(path: Path, names: Sequence[str], wanted: Sequence[str], key: str = "") -> None:
    """Refuse a file that lacks one of the ``wanted`` columns.

    Raises:
        UserError: names the column and the nearest, or all, that are there.
    """
    for column in wanted:
        if column in names:
            continue
        if key and looks_like_a_row(names):
            raise UserError(f"{path}: no column {column!r}; its first line ({shown(', '.join(names))[:60]}) looks like "
                            f"a row; give the names of its columns, as '{key}.header=[{column}"
                            f"{''.join(f',column{number}' for number in range(2, len(names) + 1))}]'")
        raise UserError(f"{path}: no column {column!r}; {one_of(names, column)}")


def looks_like_a_row(names: Sequence[str]) -> bool:
    """Whether what should be a header has a number, a blank or a sentence among its cells."""
    return any(not name.strip() or name.strip().lstrip("+-").replace(".", "", 1).isdigit() or len(name) > 40
               or len(name.split()) > 4 or name.rstrip().endswith((".", "!", "?", "。", "！", "？")) for name in names)
