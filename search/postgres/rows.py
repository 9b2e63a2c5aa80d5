"""Rows of an index in a database: by number, id or title, drawn by chance, and the most similar pairs of them."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sentence_forge.encoders.similarity import FloatArray, IntArray, normalise
from sentence_forge.search.kept import Condition
from sentence_forge.search.pairs import most_similar_pairs
from sentence_forge.search.postgres.binary import vectors_of
from sentence_forge.search.postgres.nearest import condition
from sentence_forge.search.postgres.tables import About, Names, statement
from sentence_forge.search.segments import HASH_BYTES, text_hashes
from sentence_forge.search.shard_writing import BLOCK
from sentence_forge.search.text_search import Pair

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[Any]

_DRAWN = """SELECT DISTINCT r.row, r.id, r.title FROM unnest(%s::float8[]) AS share,
LATERAL (SELECT * FROM {rows}
         WHERE row >= (SELECT min(row) + floor(share * (max(row) - min(row) + 1)) FROM {rows})::bigint
         ORDER BY row LIMIT 1) r ORDER BY r.row"""
_ALL = """SELECT r.row, vector_send(v.embedding::vector) FROM {rows} r JOIN {vectors} v USING (sha) ORDER BY r.row"""
_FIRST = """SELECT r.row, vector_send(v.embedding::vector)
FROM (SELECT sha, min(row) AS row FROM {rows} GROUP BY sha) r JOIN {vectors} v USING (sha) ORDER BY r.row"""


def loads(connection: Connection, names: Names, number: int, fingerprint: str) -> int | None:
    """Return how many loads have changed a generation; None where there is none of that number and model."""
    found = connection.execute(statement("SELECT loads FROM {generations} WHERE generation = %s AND fingerprint = %s",
                                         **names.of()), [number, fingerprint]).fetchone()
    return None if found is None else found[0]


def by_number(connection: Connection, names: Names, number: int,
              rows: Sequence[int] | IntArray) -> dict[int, tuple[str, str, dict[str, str]]]:
    """Return id, title and kept cells of rows, by their number."""
    wanted = np.unique(np.asarray(rows, np.int64)).tolist()
    found = connection.execute(statement("SELECT row, id, title, kept FROM {rows} WHERE row = ANY(%s)",
                                         **names.of(number)), [wanted])
    return {row: (name, title, kept) for row, name, title, kept in found}


def vectors(connection: Connection, names: Names, about: About, rows: Sequence[int] | IntArray) -> FloatArray:
    """Return the vectors of rows, float32 [len(rows), dim], unit length."""
    wanted = np.asarray(rows, np.int64)
    found = connection.execute(statement(
        "SELECT r.row, vector_send(v.embedding::vector) FROM {rows} r JOIN {vectors} v USING (sha) "
        "WHERE r.row = ANY(%s) ORDER BY r.row", **names.of(about.generation)), [np.unique(wanted).tolist()],
        binary=True).fetchall()
    made = vectors_of([cells for _, cells in found], about.dim)
    made = made if about.kind == "vector" or not len(made) else normalise(made)
    return made[np.searchsorted([row for row, _ in found], wanted)]


def of_id(connection: Connection, names: Names, number: int, name: str) -> int | None:
    """Return the row whose id is ``name``, or None."""
    if "\0" in name:  # which no text of the database holds
        return None
    found = connection.execute(statement("SELECT row FROM {rows} WHERE id = %s", **names.of(number)), [name]).fetchone()
    return None if found is None else found[0]


def of_texts(connection: Connection, names: Names, number: int, texts: Sequence[str]) -> IntArray:
    """Return the first row whose title is each of ``texts``, int64 [len(texts)]; -1 where there is none."""
    hashes = text_hashes(texts).tobytes()
    keys = [hashes[start:start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)]
    found = dict(connection.execute(statement("SELECT sha, min(row) FROM {rows} WHERE sha = ANY(%s) GROUP BY sha",
                                              **names.of(number)), [keys]).fetchall())
    return np.array([found.get(key, -1) for key in keys], np.int64)


def count(connection: Connection, names: Names, about: About, where: Sequence[Condition]) -> int:
    """Return how many rows meet all conditions."""
    from psycopg.sql import SQL

    meets = SQL("").join(statement(" AND {one}", one=condition(each, about.kept)) for each in where)
    found = connection.execute(statement("SELECT count(*) FROM {rows} r WHERE true{meets}", meets=meets,
                                         **names.of(about.generation))).fetchone()
    assert found is not None
    return int(found[0])


def drawn(connection: Connection, names: Names, number: int, count: int, seed: int | None) -> list[tuple[str, str]]:
    """Return ids and titles of at most ``count`` rows drawn by chance."""
    draw = random.Random(seed)
    found = connection.execute(statement(_DRAWN, **names.of(number)), [[draw.random() for _ in range(count)]])
    return [(name, title) for _, name, title in found]


def pairs(connection: Connection, names: Names, about: About, k: int, *, repeats: bool,
          check: Callable[[], None]) -> list[Pair]:
    """Return the ``k`` most similar pairs of rows, as `Index.pairs` does.

    The vectors are read in one pass into a file that has no name, and compared from there.

    Args:
        connection: in a transaction that sees one state of the rows.
        names: of the index.
        about: the generation.
        k: how many.
        repeats: also pair rows with equal titles.
        check: see `Index.pairs`.
    """
    total = about.rows if repeats else about.titles
    numbers = np.empty(total, np.int64)
    with tempfile.TemporaryFile() as file:
        start = 0
        with connection.cursor("vectors", binary=True) as cursor:
            cursor.itersize = BLOCK
            cursor.execute(statement(_ALL if repeats else _FIRST, **names.of(about.generation)))
            while block := cursor.fetchmany(BLOCK):
                check()
                some = vectors_of([cells for _, cells in block], about.dim)
                file.write((some if about.kind == "vector" else normalise(some)).data)
                numbers[start:start + len(block)] = [row for row, _ in block]
                start += len(block)
        file.flush()
        mapped = np.memmap(file, np.float32, "r", shape=(total, about.dim))
        scores, left, right = most_similar_pairs(np.asarray(mapped), np.arange(total), k, check=check)
        del mapped
    of = by_number(connection, names, about.generation, numbers[np.concatenate([left, right])])
    return [Pair(float(score), *of[int(numbers[i])][:2], *of[int(numbers[j])][:2])
            for score, i, j in zip(scores, left, right, strict=True)]
