"""Write CSV files whose cells no spreadsheet takes for formulas; our readers give the cells back unchanged."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sentence_forge.data_readers.formats.rows import BadRow
from sentence_forge.runtime.files import write_atomic

GUARD = "\u2060"  # WORD JOINER: nothing to see, and no beginning of a formula; a ' may be a person's own
_COMPUTED = re.compile(rf"{GUARD}*[=+\-@\t\r]")
_QUOTED = re.compile(r'[",\r\n]')


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file in UTF-8: all of it or nothing.

    A cell that begins with =, +, -, @ or a tab gets ``GUARD`` before it, which ``data_readers.formats`` takes off
    again. A number is left as it is.
    """
    text = io.StringIO(newline="")
    for row in (header, *rows):
        text.write((",".join(map(_cell, row)) or '""') + "\n")  # a blank line would be no row
    write_atomic(path, text.getvalue())


def write_rejected(path: Path, rejected: Iterable[BadRow]) -> None:
    """Write the rejected rows of a file as CSV with the columns line, row, reason, text: all of it or nothing."""
    write_csv(path, ("line", "row", "reason", "text"), rejected)


def write_rejected_by_file(path: Path, rejected: Mapping[Path, Iterable[BadRow]]) -> None:
    """Write the rejected rows of several files, with the column file before the others."""
    write_csv(path, ("file", "line", "row", "reason", "text"),
              ((file, *bad) for file, rows in rejected.items() for bad in rows))


def _cell(value: object) -> str:
    text = str(value)
    if isinstance(value, int | float):
        return text
    guarded = f"{GUARD}{text}" if _COMPUTED.match(text) else text
    return '"' + guarded.replace('"', '""') + '"' if _QUOTED.search(text) else guarded
