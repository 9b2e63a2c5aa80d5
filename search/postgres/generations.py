"""The generations of an index in a database, one a model: listed, and switched between."""

from __future__ import annotations

from sentence_forge.runtime.errors import UserError
from sentence_forge.search.postgres.address import connect, parse
from sentence_forge.search.postgres.errors import database_errors
from sentence_forge.search.postgres.locks import loader_lock
from sentence_forge.search.postgres.tables import About, find, generations, switch


def listed(text: str) -> list[str]:
    """Return a line on each generation of the index at an address; the current one begins with a star.

    Raises:
        UserError: there is no index, or no server.
    """
    address = parse(text)
    with connect(address) as connection, database_errors(address.shown):
        return list(map(_line, generations(connection, find(connection, address))))


def switch_to(text: str, number: int) -> list[str]:
    """Have everybody search another generation from now on, in one transaction; return all as `listed` does.

    Raises:
        UserError: there is no such generation, or a load is under way.
    """
    address = parse(text)
    with connect(address) as connection, database_errors(address.shown):
        names = find(connection, address)
        with loader_lock(connection, names, address.shown), connection.transaction():
            there = [each.generation for each in generations(connection, names)]
            if number not in there:
                raise UserError(f"{address.shown}: has no generation {number}; there are {', '.join(map(str, there))}")
            switch(connection, names, number)
        return list(map(_line, generations(connection, names)))


def _line(about: About) -> str:
    searched = "scanned" if about.ef_search is None else f"HNSW, recall@10 {about.recall:.4f}"
    star = "*" if about.current else " "
    return (f"{star} {about.generation}  {about.rows:,} rows, {about.dim} numbers ({about.kind}), "
            f"{searched}, model {about.fingerprint[:12]} in {about.model}")
