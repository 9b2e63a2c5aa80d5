"""The tables of an index in a database: their names, the table of generations, and the view over the current one.

An index ``news`` is the view ``news`` (id, title, kept, embedding), ``news_generations`` (one row a model: fingerprint,
counts, which one is current), and for each generation N ``news_rows_N`` (one row a title of the corpus) and
``news_vectors_N`` (one vector a distinct title). So a row that only changes its id or a kept column leaves the vectors
and their HNSW index alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sentence_forge.runtime.errors import UserError
from sentence_forge.search.postgres.address import Address
from sentence_forge.search.postgres.locks import in_between

if TYPE_CHECKING:
    import psycopg
    from psycopg.sql import Composed, Identifier

MARK = "sentence-forge: an index, format 1"  # the comment by which our tables are told from others
DEFAULT = "titles"
_COLUMNS = ("generation", "current", "fingerprint", "model", "dim", "kind", "loads", "rows", "titles", "kept",
            "ef_search", "recall")
_GENERATIONS = """
CREATE TABLE {generations} (
    generation integer PRIMARY KEY, current boolean NOT NULL, fingerprint text NOT NULL UNIQUE, model text NOT NULL,
    dim integer NOT NULL, kind text NOT NULL, loads bigint NOT NULL, rows bigint NOT NULL, titles bigint NOT NULL,
    kept json NOT NULL, ef_search integer, recall real, loaded_at timestamptz NOT NULL DEFAULT now());
CREATE UNIQUE INDEX ON {generations} (current) WHERE current;
COMMENT ON TABLE {generations} IS {mark};
"""
_OF_A_GENERATION = """
CREATE TABLE {rows} (row bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text NOT NULL UNIQUE,
                     title text NOT NULL, sha bytea NOT NULL, kept jsonb NOT NULL);
CREATE INDEX ON {rows} (sha, row);
CREATE TABLE {vectors} (sha bytea PRIMARY KEY, embedding {type} NOT NULL);
"""
_VIEW = """CREATE OR REPLACE VIEW {view} AS SELECT r.id, r.title, r.kept, v.embedding
FROM {rows} r JOIN {vectors} v USING (sha)"""
_GRANTEES = """SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
FROM pg_class c, aclexplode(c.relacl) a
WHERE c.oid = to_regclass(%s) AND a.privilege_type = 'SELECT' AND a.grantee <> c.relowner"""


@dataclass(frozen=True)
class About:
    """What the table of generations says of one; its columns."""

    generation: int
    current: bool
    fingerprint: str
    model: str  # the export's folder, on the machine that loaded
    dim: int
    kind: str  # of the column: vector or halfvec
    loads: int  # counts the changes of its rows
    rows: int
    titles: int  # distinct ones
    kept: dict[str, Any]  # of each kept column: numbers, bounds, values
    ef_search: int | None  # of the HNSW index; None where the exact scan answers
    recall: float | None  # at 10, of the HNSW index


@dataclass(frozen=True)
class Names:
    """The names of an index's tables, in one schema."""

    schema: str
    table: str

    def of(self, number: int | None = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - parts of a statement
        """Return the names as the statements here call them; ``rows`` and ``vectors`` are those of a generation."""
        found = {"view": self.one(""), "generations": self.one("_generations"), **more}
        return found if number is None else found | {"rows": self.one(f"_rows_{number}"),
                                                     "vectors": self.one(f"_vectors_{number}")}

    def one(self, suffix: str) -> Identifier:
        """Return the index's name with a suffix, quoted."""
        from psycopg.sql import Identifier

        return Identifier(self.schema, f"{self.table}{suffix}")


def statement(text: str, **parts: Any) -> Composed:  # noqa: ANN401 - identifiers, literals, SQL
    """Return a statement with its parts in place of ``{names}``."""
    from psycopg.sql import SQL

    return SQL(text).format(**parts)


def find(connection: psycopg.Connection[Any], address: Address) -> Names:
    """Return the names of the index at an address; without a table's name the only one there is.

    Raises:
        UserError: there is none, or there are several.
    """
    found = connection.execute(
        "SELECT n.nspname, left(c.relname, -length('_generations')) FROM pg_class c JOIN pg_namespace n "
        "ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND obj_description(c.oid, 'pg_class') = %s "
        "AND (n.nspname = %s OR %s::text IS NULL AND pg_table_is_visible(c.oid)) ORDER BY 1, 2",
        [MARK, address.schema, address.schema]).fetchall()
    names = [Names(*each) for each in found if address.table in (None, each[1])]
    if len(names) > 1:
        raise UserError(f"{address.shown}: holds several indexes; add one of "
                        + ", ".join(f"#{each.table}" for each in names))
    if not names:
        there = ", ".join(f"#{each[1]}" for each in found)
        raise UserError(f"{address.shown}: holds no such index" + (f"; there are {there}" if there else
                        "; make one with python -m export model=... corpus=... out=... to=postgres to.url=..."))
    return names[0]


def generations(connection: psycopg.Connection[Any], names: Names) -> list[About]:
    """Return all generations of an index, the oldest first."""
    text = f"SELECT {', '.join(_COLUMNS)} FROM {{generations}} ORDER BY generation"
    return [About(*row) for row in connection.execute(statement(text, **names.of()))]


def prepare(connection: psycopg.Connection[Any], address: Address) -> Names:
    """Make what an index needs before its first load, where it is missing: schema, pgvector, table of generations.

    Raises:
        UserError: no right to, no pgvector, or a table of somebody else's has the name.
    """
    has = connection.execute("SELECT current_schema(), EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)",
                             [address.schema]).fetchone()
    assert has is not None
    schema = address.schema or has[0]
    if schema is None:
        raise UserError(f"{address.shown}: this user has no schema to make tables in; name one, as #schema.table")
    names = Names(schema, address.table or DEFAULT)
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('sentence-forge: prepare', 2027))")
        if address.schema and not has[1]:
            connection.execute(statement("CREATE SCHEMA IF NOT EXISTS {schema}", schema=_identifier(schema)))
        _pgvector(connection, address)
        if not _ours(connection, address, names):
            connection.execute(statement(_GENERATIONS, mark=MARK, **names.of()))
    return names


def _pgvector(connection: psycopg.Connection[Any], address: Address) -> None:
    """Create the extension where the database lacks it, which takes a right that a loader need not have otherwise.

    Raises:
        UserError: it is too old.
    """
    query = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    if (found := connection.execute(query).fetchone()) is None:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        found = connection.execute(query).fetchone()
    assert found is not None
    if tuple(int(part) for part in found[0].split(".")[:2]) < (0, 8):
        raise UserError(f"{address.shown}: has pgvector {found[0]}, and 0.8 or newer is needed; update it, and in the "
                        "database ALTER EXTENSION vector UPDATE")


def _ours(connection: psycopg.Connection[Any], address: Address, names: Names) -> bool:
    """Return whether the index's table of generations is there.

    Raises:
        UserError: a relation of that name, or of the view's, is somebody else's.
    """
    found = dict(connection.execute(
        "SELECT relname, obj_description(oid, 'pg_class') FROM pg_class WHERE relnamespace = %s::regnamespace "
        "AND relname = ANY(%s)", [_identifier(names.schema).as_string(connection),
                                  [names.table, f"{names.table}_generations"]]).fetchall())
    for name, mark in found.items():
        if mark != MARK:
            raise UserError(f"{address.shown}: {names.schema}.{name} is there already and is none of ours; give "
                            "another name after # in the address")
    return f"{names.table}_generations" in found


def create(connection: psycopg.Connection[Any], names: Names, kind: str, dim: int) -> int:
    """Create the tables of a new generation and return its number, which no other has had.

    Who may read the tables of the current generation may read these, too.
    """
    from psycopg.sql import SQL

    every = generations(connection, names)
    number = _unused(connection, names, max((each.generation for each in every), default=0) + 1)
    connection.execute(statement(_OF_A_GENERATION, type=SQL(f"{kind}({dim})"), **names.of(number)))
    now = next((each.generation for each in every if each.current), None)
    for part in ("_rows_", "_vectors_") if now is not None else ():
        _grant(connection, _grantees(connection, names.one(f"{part}{now}")), names.one(f"{part}{number}"))
    return number


def _unused(connection: psycopg.Connection[Any], names: Names, least: int) -> int:
    """Return a number from ``least`` on that no generation has had; whoever has an old one open must not meet another.

    A sequence remembers the next one. It is set by ALTER, which a transaction that fails takes back.
    """
    from psycopg.sql import Literal

    parts = names.of(numbers=names.one("_generation_numbers"))
    connection.execute(statement("CREATE SEQUENCE IF NOT EXISTS {numbers} AS integer OWNED BY {generations}.generation",
                                 **parts))
    found = connection.execute(statement("SELECT last_value FROM {numbers}", **parts)).fetchone()
    assert found is not None
    number = max(least, found[0])
    connection.execute(statement("ALTER SEQUENCE {numbers} RESTART WITH {next}", next=Literal(number + 1), **parts))
    return number


def switch(connection: psycopg.Connection[Any], names: Names, number: int) -> None:
    """Make a generation the current one, in the transaction that is open: the view is of it then."""
    every = {each.generation: each for each in generations(connection, names)}
    old = next((each for each in every.values() if each.current), None)
    parts = names.of(number)
    connection.execute(statement("UPDATE {generations} SET current = false WHERE current", **parts))
    connection.execute(statement("UPDATE {generations} SET current = true WHERE generation = %s", **parts), [number])
    other = old is not None and (old.kind, old.dim) != (every[number].kind, every[number].dim)
    readers = _grantees(connection, names.one("")) if other else []

    def view() -> None:
        if other:
            connection.execute(statement("DROP VIEW IF EXISTS {view}", **parts))  # a column's type can't be replaced
        connection.execute(statement(_VIEW, **parts))
        connection.execute(statement("COMMENT ON VIEW {view} IS {mark}", mark=MARK, **parts))
        _grant(connection, readers, names.one(""))

    in_between(connection, view, f"{names.schema}.{names.table}")


def _grantees(connection: psycopg.Connection[Any], relation: Identifier) -> list[str]:
    """Return who else than its owner may read a relation, each quoted."""
    return [row[0] for row in connection.execute(_GRANTEES, [relation.as_string(connection)])]


def _grant(connection: psycopg.Connection[Any], readers: list[str], relation: Identifier) -> None:
    from psycopg.sql import SQL

    for reader in readers:
        connection.execute(statement("GRANT SELECT ON {relation} TO {reader}", relation=relation,
                                     reader=SQL(reader)))


def _identifier(name: str) -> Identifier:
    from psycopg.sql import Identifier

    return Identifier(name)
