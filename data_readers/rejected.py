"""Rows that were left out, and the list of them that a person can mend the file by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sentence_forge.data_readers.csv_writer import write_csv


@dataclass(frozen=True)
class Rejected:
    """A row that was left out: its physical line, its data row (both 1-based), why, and what it holds."""

    line: int
    row: int
    reason: str
    text: str


def write_rejected(path: Path, rejected: Iterable[Rejected]) -> None:
    """Write the rejected rows of a file as CSV with the columns line, row, reason, text: all of it or nothing."""
    write_csv(path, ("line", "row", "reason", "text"), ((bad.line, bad.row, bad.reason, bad.text) for bad in rejected))


def write_rejected_by_file(path: Path, rejected: Mapping[Path, Iterable[Rejected]]) -> None:
    """Write the rejected rows of several files, with the column file before the others."""
    write_csv(path, ("file", "line", "row", "reason", "text"),
           ((file, bad.line, bad.row, bad.reason, bad.text) for file, rows in rejected.items() for bad in rows))
