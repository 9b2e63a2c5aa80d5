"""What people said of hits: right, near or wrong, kept in one SQLite file beside the index.

A mark is of a query and a text, so that it survives a re-indexing in which the text's row gets another number; the
row's id is kept with it. Nothing is ever deleted: a mark that was replaced or undone has an end.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from sentence_forge.runtime.errors import UserError

FILE = "marks.sqlite"
WAIT = 30.0  # seconds for another process that writes
KINDS = ("right", "near", "wrong")
_FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS marks (
  id INTEGER PRIMARY KEY,
  query TEXT NOT NULL,
  row_id TEXT NOT NULL,
  text_sha256 TEXT NOT NULL,
  text TEXT NOT NULL,
  mark TEXT NOT NULL CHECK (mark IN ('right', 'near', 'wrong')),
  labeller TEXT NOT NULL,
  at TEXT NOT NULL,
  ended TEXT,
  replaced INTEGER REFERENCES marks (id)
) STRICT;
CREATE INDEX IF NOT EXISTS standing ON marks (query, text_sha256, labeller) WHERE ended IS NULL;
"""
_COLUMNS = "query, row_id, text, mark, labeller, at"
_SAME = "query = ? AND text_sha256 = ? AND labeller = ? AND ended IS NULL"


class Mark(NamedTuple):
    """What a labeller said of a text as an answer to a query, and when (UTC, ISO 8601)."""

    query: str
    row_id: str
    text: str
    mark: str
    labeller: str
    at: str


class Marks:
    """The marks of an index; safe to use from several threads and processes.

    A method that changes something returns when the change is on the disk.

    Args:
        folder: where the file is, or will be at the first mark.

    Raises:
        UserError: the file is a link, or no file of marks.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = threading.Lock()
        if self.path.is_symlink():
            raise UserError(f"{self.path}: is a link; put the file of marks itself there")
        try:
            self._db = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA trusted_schema = OFF")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            form = self._db.execute("PRAGMA user_version").fetchone()[0]
            if form not in (0, _FORMAT):
                raise UserError(f"{self.path}: is of format {form}, which this version does not know; update it")
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_FORMAT}; COMMIT;")
        except sqlite3.Error as error:
            raise UserError(f"{self.path}: can't be used as a file of marks ({error}); move it away") from None

    def set(self, query: str, row_id: str, text: str, mark: str, labeller: str) -> None:
        """Note what a labeller says of a text; it replaces what the same labeller said of it before.

        Raises:
            ValueError: ``mark`` is none of `KINDS`.
        """
        if mark not in KINDS:
            raise ValueError(f"mark {mark!r}: is none of {', '.join(KINDS)}")
        key, now = (query, _sha256(text), labeller), _now()
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            before = self._db.execute(f"SELECT id FROM marks WHERE {_SAME}", key).fetchone()
            self._db.execute(f"UPDATE marks SET ended = ? WHERE {_SAME}", (now, *key))
            self._db.execute("INSERT INTO marks (query, row_id, text_sha256, text, mark, labeller, at, replaced) "
                             "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                             (query, row_id, key[1], text, mark, labeller, now, before and before[0]))

    def remove(self, query: str, text: str, labeller: str) -> None:
        """Take back what a labeller says of a text."""
        with self._lock, self._db:
            self._db.execute(f"UPDATE marks SET ended = ? WHERE {_SAME}", (_now(), query, _sha256(text), labeller))

    def undo(self, labeller: str) -> Mark | None:
        """Take back a labeller's last mark, and let the one that it replaced stand again; None if there is none."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            last = self._db.execute(f"SELECT id, replaced, {_COLUMNS} FROM marks WHERE labeller = ? AND ended IS NULL "
                                    "ORDER BY id DESC LIMIT 1", (labeller,)).fetchone()
            if last is None:
                return None
            self._db.execute("UPDATE marks SET ended = ? WHERE id = ?", (_now(), last[0]))
            self._db.execute("UPDATE marks SET ended = NULL WHERE id = ?", (last[1],))
            return Mark(*last[2:])

    def of(self, query: str, texts: Iterable[str], labeller: str) -> dict[str, str]:
        """Return what a labeller says of texts as answers to a query: text to mark, those without left out."""
        wanted = set(texts)
        with self._lock:
            found = self._db.execute("SELECT text, mark FROM marks WHERE query = ? AND labeller = ? AND ended IS NULL",
                                     (query, labeller)).fetchall()
        return {text: mark for text, mark in found if text in wanted}

    def all(self, limit: int = -1) -> list[Mark]:
        """Return the marks that stand, newest first, at most ``limit`` of them."""
        with self._lock:
            found = self._db.execute(f"SELECT {_COLUMNS} FROM marks WHERE ended IS NULL ORDER BY id DESC LIMIT ?",
                                     (limit,)).fetchall()
        return [Mark(*row) for row in found]

    def counts(self) -> dict[str, int]:
        """Return how many marks of each kind stand."""
        with self._lock:
            found = dict(self._db.execute("SELECT mark, count(*) FROM marks WHERE ended IS NULL GROUP BY mark"))
        return {kind: found.get(kind, 0) for kind in KINDS}

    def copy(self, folder: Path) -> None:
        """Write all marks, those that ended too, as the marks of another folder, which has none yet."""
        with self._lock, contextlib.closing(sqlite3.connect(folder / FILE)) as copied:
            self._db.backup(copied)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
