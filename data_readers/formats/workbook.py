"""Read a sheet of an .xlsx workbook as rows of strings, by openpyxl."""

from __future__ import annotations

import contextlib
import datetime
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sentence_forge.data_readers.formats.packed import MOST_RATIO, MOST_UNPACKED
from sentence_forge.data_readers.formats.reading import Reading
from sentence_forge.data_readers.formats.rows import BadRow, Row, RowFile, check_header, first_fault, shown
from sentence_forge.runtime.errors import UserError, one_of


class Workbook(RowFile):
    """A sheet of a workbook. Lines are the sheet's rows.

    A whole number comes without its ``.0``, a date as ISO 8601, the value of a formula as it was last saved. A blank
    row is no row, and columns without a name that hold nothing are no columns.

    Raises:
        UserError: openpyxl is not installed; no workbook, or a damaged or protected one; no such sheet; no header.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        super().__init__(path)
        self._reading = reading
        lines = self._lines()
        self._start, names = next(lines, (0, []))
        if not names:
            raise UserError(f"{path}: its sheet is empty{reading.hint('sheet')}")
        if reading.header is not None:
            self._start, names = 0, list(reading.header)
        names = [name.strip() or f"column{number}" for number, name in enumerate(names, 1)]
        self.columns = check_header(path, names, reading.key)

    def rows(self, columns: Sequence[str]) -> Iterator[Row | BadRow]:
        """Yield the rows."""
        places, number, width = [self.columns.index(column) for column in columns], 0, len(self.columns)
        for line, cells in self._lines():
            if line <= self._start:
                continue
            number += 1
            cells += [""] * (width - len(cells))
            values = [cells[place] for place in places]
            reason = first_fault(columns, values, nul=self._reading.nul)
            if len(cells) > width:
                reason = f"has {len(cells)} cells where the header has {width}"
            yield (Row(line, number, values) if reason is None else
                   BadRow(line, number, reason, shown(",".join(cells))))

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number and the cells of each row that is not blank, up to the last cell that is filled."""
        with self._sheet() as sheet:
            for line, cells in enumerate(sheet.iter_rows(values_only=True), 1):
                texts = [_text(cell) for cell in cells]
                while texts and not texts[-1]:
                    texts.pop()
                if texts:
                    yield line, texts

    @contextlib.contextmanager
    def _sheet(self) -> Iterator[Any]:
        try:
            from openpyxl import load_workbook
        except ModuleNotFoundError:
            raise UserError(f"{self.path}: reading .xlsx needs openpyxl; pip install openpyxl (or sentence-forge[xlsx])"
                            ", or save the sheet as CSV UTF-8") from None
        if not self.path.exists():
            raise UserError(f"{self.path}: no such file")
        self._refuse_bombs()
        try:
            book = load_workbook(self.path, read_only=True, data_only=True)
        except Exception as error:  # of many kinds, since any part of it may be damaged
            raise UserError(f"{self.path}: is no .xlsx workbook, or damaged ({_first_line(error)}); save it again, or "
                            "as CSV UTF-8") from None
        try:
            names = [sheet.title for sheet in book.worksheets]
            wanted = self._reading.sheet or next(iter(names), "")
            if wanted not in names:
                raise UserError(f"{self.path}: has no sheet {wanted!r}; {one_of(names, wanted)}")
            sheet = book[wanted]
            sheet.reset_dimensions()  # what the file says of its size may be wrong
            if self._reading.sheet is None and len(names) > 1:
                self.detected["sheet"] = wanted
            yield sheet
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{self.path}: is damaged ({_first_line(error)}); save it again, or as CSV UTF-8") from None
        finally:
            book.close()

    def _refuse_bombs(self) -> None:
        try:
            with zipfile.ZipFile(self.path) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{self.path}: is no .xlsx workbook, damaged, or protected by a password ({error}); save "
                            "it again without one, or as CSV UTF-8") from None
        if unpacked > max(MOST_UNPACKED, MOST_RATIO * self.path.stat().st_size):
            raise UserError(f"{self.path}: unpacks to {unpacked:,} bytes: a zip bomb? If it is sound, save it as CSV")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        return cell.date().isoformat()
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    return str(cell)
