"""What a database refuses, in one line that says what to do."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    import psycopg

# of a connection that failed there is no code, only libpq's words, and the server's
_NOT_CONNECTED = [
    (r"password authentication failed|no password supplied|authentication failed|Peer authentication", "the server "
     "does not let this user in with this password; give it as PGPASSWORD or in ~/.pgpass ({said})"),
    (r"database \".*\" does not exist", "there is no such database; create it first (createdb)"),
    (r"role \".*\" does not exist", "the server knows no such user"),
    (r"no pg_hba.conf entry", "the server takes no connection of this user from here; see its pg_hba.conf"),
    (r"too many clients|remaining connection slots", "the server has no connection left; try again later"),
    (r"starting up|shutting down|recovery", "the server is starting or stopping; try again in a moment"),
]
_CODES = {
    "42501": "this user lacks a right: {said}; have the database's owner grant it",
    "53100": "the database's disk is full, and nothing of this load is left; make room there and start again ({said})",
    "53200": "the server is out of memory ({said})",
    "55P03": "another session holds a lock on the index's tables for more than ten seconds; try again",
    "57014": "the server ended the statement: {said}",
    "42P07": "a table of that name is there already, and is none of this index: {said}; give another name after #",
    "2BP01": "your own views or rules hang on the index's view, whose type changes with this model: {said}; drop them "
             "first and create them again afterwards",
    "25006": "the server takes no writes (a standby, or default_transaction_read_only); load into its primary",
}


@contextlib.contextmanager
def database_errors(shown: str) -> Iterator[None]:
    """Turn what a database raises in the block into a ``UserError``.

    Args:
        shown: the address, without its password, that the message begins with.
    """
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise UserError(f"{shown}: {explained(error)}") from None


def explained(error: psycopg.Error) -> str:
    """Return in one line what is wrong, and what to do."""
    import psycopg

    lines = str(error).strip().splitlines() or [type(error).__name__]
    said = error.diag.message_primary or lines[0]
    if error.sqlstate in _CODES:
        return _CODES[error.sqlstate].format(said=said)
    if "extension \"vector\"" in said or "vector.control" in said:
        return "the server has no pgvector; install it there (its package is mostly postgresql-<version>-pgvector)"
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        reasons = " ".join(lines)
        for pattern, line in _NOT_CONNECTED:
            if match := re.search(pattern, reasons):
                return line.format(said=match[0])
        return f"the server isn't there, or the connection broke off: {_last_part(lines[-1])}"
    return said


def _last_part(line: str) -> str:
    """Return the reason at the end of libpq's line, which begins with the address."""
    return line.rpartition("failed: ")[2].strip() or line
