"""One loader at a time: a lock in the database that ends with the loader, however that ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sentence_forge.runtime.errors import UserError
from sentence_forge.search.postgres.tables import Names

if TYPE_CHECKING:
    import psycopg

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


def _taken(connection: psycopg.Connection[Any], key: str) -> bool:
    row = connection.execute(f"SELECT pg_try_advisory_lock({_KEY})", [key]).fetchone()
    return row is not None and bool(row[0])


def _holder(connection: psycopg.Connection[Any], key: str) -> str:
    row = connection.execute(_HOLDER, [key]).fetchone()
    if row is None:
        return "another session"
    return f"the session {row[0]} of {row[1]} from {row[2]}, begun {row[3]},"
