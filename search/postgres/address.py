"""Addresses of an index in a database: ``postgresql://user@host/name#table``, shown without the password."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sentence_forge.runtime.errors import UserError
from sentence_forge.search.postgres.errors import database_errors

if TYPE_CHECKING:
    import psycopg

_TABLE = re.compile(r"(?:([a-z_][a-z0-9_]{0,62})\.)?([a-z_][a-z0-9_]{0,39})")
_FORM = "give such as postgresql://user@host:5432/database#table"
_DEFAULTS = {"application_name": "sentence-forge", "connect_timeout": "10", "keepalives_idle": "30",
             "keepalives_interval": "10", "keepalives_count": "3"}


@dataclass(frozen=True)
class Address:
    """Where an index is in a database.

    Args:
        conninfo: what libpq connects by; holds the password.
        schema: of the tables; None is the first of the server's search path that there is.
        table: the index's name; None where none was given.
        shown: the address without its password, for people.
    """

    conninfo: str = field(repr=False)
    schema: str | None
    table: str | None
    shown: str


def parse(text: str) -> Address:
    """Return the address that a text says.

    Raises:
        UserError: it is none; the message doesn't repeat the text, which may hold a password.
    """
    psycopg = import_psycopg()
    base, hash_sign, table = text.partition("#")
    if not re.match(r"postgres(ql)?://", base):
        raise UserError(f"the address of the database does not begin with postgresql://; {_FORM}")
    try:
        given = psycopg.conninfo.conninfo_to_dict(base)
    except psycopg.Error:  # whose message repeats the password, wherever a typo has put it
        raise UserError(f"the address of the database can't be read; {_FORM}, with @ : / # ? and % in a password "
                        "written as %40 %3A %2F %23 %3F and %25, or leave it to PGPASSWORD or ~/.pgpass") from None
    match = _TABLE.fullmatch(table)
    if hash_sign and match is None:
        raise UserError("the address of the database: what follows # is no name of a table; give up to 40 of a-z, 0-9 "
                        "and _, after a schema and a point if need be (a # in a password is written %23)")
    user = f"{given['user']}@" if given.get("user") else ""
    port = f":{given['port']}" if given.get("port") else ""
    host = str(given.get("host") or "")
    at, socket = ("", f"?host={host}") if host.startswith("/") else (host, "")
    shown = f"postgresql://{user}{at}{port}/{given.get('dbname') or ''}{socket}{hash_sign}{table}"
    conninfo = psycopg.conninfo.make_conninfo(**{**_DEFAULTS, **given})
    return Address(conninfo, match[1] if match else None, match[2] if match else None, shown)


def connect(address: Address) -> psycopg.Connection[Any]:
    """Return a connection that commits each statement by itself.

    Raises:
        UserError: the server isn't there, or doesn't let this user in.
    """
    psycopg = import_psycopg()
    with database_errors(address.shown):
        connection = psycopg.connect(address.conninfo, autocommit=True)
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        connection.close()
        raise UserError(f"{address.shown}: the database's encoding is {encoding}, which can't hold every title; create "
                        "one with ENCODING 'UTF8'")
    return connection


def import_psycopg() -> Any:  # noqa: ANN401 - a module
    """Return the module psycopg.

    Raises:
        UserError: it isn't installed.
    """
    try:
        import psycopg
        import psycopg_pool  # noqa: F401 - of the same extra
    except ImportError as missing:
        name = missing.name or "psycopg"
        raise UserError(f"a database needs {name}; pip install 'sentence-forge[postgres]'") from None
    return psycopg
