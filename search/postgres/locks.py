"""Locks in a database: one loader at a time, and a view that is replaced between the questions of its readers."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    import psycopg

    from sentence_forge.search.postgres.tables import Names

log = logging.getLogger(__name__)

READERS = 600.0  # seconds that a load waits, at its end, for whoever reads the view in a long transaction
PATIENCE = 10.0  # seconds: a loader that was killed holds its lock until the server has noticed, within one
_SETTINGS = [
    ("client_connection_check_interval", "1s"),  # a server that computes looks whether its client is still there
    ("lock_timeout", "10s"),
    ("statement_timeout", "0"),  # the role's may be short, and building an index takes long
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),  # encoding takes long, too
]
_KEY = "hashtextextended(%s, 2027)"
_HOLDER = f"""SELECT a.pid, a.usename, coalesce(host(a.client_addr), 'the server''s own machine'),
    to_char(a.backend_start, 'YYYY-MM-DD HH24:MI')
FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (l.classid::bigint << 32 | l.objid::bigint) = {_KEY}"""


@contextlib.contextmanager
def loader_lock(connection: psycopg.Connection[Any], names: Names, shown: str,
                patience: float = PATIENCE) -> Iterator[None]:
    """Hold the only right to change an index in the database.

    Args:
        connection: whose session holds it; the server lets go of it when the session ends.
        names: of the index.
        shown: the address, for messages.
        patience: seconds to wait for who has it.

    Raises:
        UserError: another session has it; the message says whose it is.
    """
    import psycopg

    for name, value in _SETTINGS:
        with contextlib.suppress(psycopg.Error):  # a server too old for it, or a system without
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])
    key = f"{names.schema}.{names.table}"
    until = time.monotonic() + patience
    while not _taken(connection, key):
        if time.monotonic() > until:
            raise UserError(f"{shown}: {_holder(connection, key)} is loading here; wait for it or end it")
        time.sleep(0.1)
    try:
        yield
    finally:
        with contextlib.suppress(psycopg.Error):  # the connection may be what failed, and then the lock is gone
            connection.execute(f"SELECT pg_advisory_unlock({_KEY})", [key])


def in_between(connection: psycopg.Connection[Any], change: Callable[[], None], relation: str,
               patience: float = READERS) -> None:
    """Change a relation that others read, in the open transaction, once none of them has it.

    A lock that is waited for holds up all who come after it, so it is waited for a second at a time. A reader that
    keeps it for long, such as ``pg_dump``, doesn't cost what the transaction has done before.

    Args:
        connection: in a transaction.
        change: the statements; taken back and tried again where another session has the lock.
        relation: for the message.
        patience: seconds to try.

    Raises:
        psycopg.errors.LockNotAvailable: others still have it.
    """
    from psycopg.errors import LockNotAvailable

    until, told = time.monotonic() + patience, False
    while True:
        try:
            with connection.transaction():
                connection.execute("SET LOCAL lock_timeout = '1s'")
                change()
            return
        except LockNotAvailable:
            if time.monotonic() > until:
                raise
        if not told:
            log.warning("%s: another session reads it in a long transaction; waiting for its end", relation)
            told = True
        time.sleep(1)


def _taken(connection: psycopg.Connection[Any], key: str) -> bool:
    row = connection.execute(f"SELECT pg_try_advisory_lock({_KEY})", [key]).fetchone()
    return row is not None and bool(row[0])


def _holder(connection: psycopg.Connection[Any], key: str) -> str:
    row = connection.execute(_HOLDER, [key]).fetchone()
    if row is None:
        return "another session"
    return f"the session {row[0]} of {row[1]} from {row[2]}, begun {row[3]},"
