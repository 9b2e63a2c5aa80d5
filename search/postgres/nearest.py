"""The nearest rows of a query in a database, by the HNSW index or by a scan, scored again as a local index does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sentence_forge.encoders.similarity import ROUNDING, FloatArray, IntArray, normalise
from sentence_forge.search.kept import Condition
from sentence_forge.search.postgres.binary import literal, vectors_of
from sentence_forge.search.postgres.tables import About, Names, statement

if TYPE_CHECKING:
    import psycopg
    from psycopg.sql import Composed

MOST_EF = 1000  # candidates that pgvector's HNSW looks at, at most
_WIDER = 4  # times as many candidates as wanted, at least
_SPARE = 16  # candidates beyond those asked for: float32 sums of the server decide among near ties otherwise than ours
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_NEAREST = """
SELECT vector_send(v.embedding::vector), ARRAY(SELECT r.row FROM {rows} r WHERE r.sha = v.sha{and_meets}
                                               ORDER BY r.row LIMIT {k})
FROM (SELECT v.sha, v.embedding FROM {vectors} v{where} ORDER BY {distance} LIMIT {limit}) v"""
_SETTINGS = ("SELECT set_config('hnsw.ef_search', %s, true), set_config('hnsw.iterative_scan', 'strict_order', true), "
             "set_config('enable_seqscan', %s, true), set_config('jit', 'off', true)")


def nearest(connection: psycopg.Connection[Any], names: Names, about: About, query: npt.NDArray[np.floating], k: int, *,
            ef: int | None, dim: int | None = None, where: Sequence[Condition] = ()) -> tuple[FloatArray, IntArray]:
    """Return the ``k`` nearest rows of one query, as the exact scan of a local index orders them.

    Args:
        connection: in a transaction; its settings are changed until its end.
        names: of the index.
        about: the generation to search.
        query: floating [dim], unit length.
        k: rows.
        ef: candidates that the HNSW index looks at, or more for a large ``k``; None scans every vector, and so does a
            ``k`` for which the index can't look at enough.
        dim: compare the first so many numbers alone.
        where: conditions on kept columns; only rows that meet them are compared.

    Returns:
        scores, float32 [<= k], falling; the rows' numbers, int64 alike. Ties go to the row that came first.
    """
    limit = k + _SPARE
    while True:
        scan = ef is None or dim is not None or bool(where) or _WIDER * limit > MOST_EF
        looked_at = None if scan else max(ef or 0, _WIDER * limit)
        connection.execute(_SETTINGS, [str(looked_at or MOST_EF), "on" if scan else "off"])
        found = connection.execute(_statement(names, about, query, k, limit, scan, dim, where), binary=True).fetchall()
        if not scan and len(found) < min(limit, about.titles):
            ef = None  # links hardly lead out of where the index has looked
            continue
        vectors = vectors_of([cells for cells, _ in found], about.dim)
        vectors = vectors if dim is None else vectors[:, :dim]
        if len(found) and (dim is not None or about.kind != "vector"):
            vectors = normalise(vectors)
        cosines = (vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
        scores = np.repeat(cosines, [len(rows) for _, rows in found])
        rows = np.array([row for _, several in found for row in several], np.int64)
        order = np.lexsort((rows, -scores))[:k]
        # rows beyond the limit may tie with the last of the k only if the last candidate does
        if len(found) < limit or cosines.min() < scores[order[-1]] - ROUNDING:
            return scores[order], rows[order]
        limit *= 4


def _statement(names: Names, about: About, query: npt.NDArray[np.floating], k: int, limit: int, scan: bool,
               dim: int | None, where: Sequence[Condition]) -> Composed:
    from psycopg.sql import SQL

    meets = SQL("").join(statement(" AND {one}", one=condition(each, about.kept)) for each in where)
    kind = "vector" if scan else about.kind
    near = "v.embedding" if not scan else "v.embedding::vector" if dim is None else \
        f"subvector(v.embedding::vector, 1, {int(dim)})"
    distance = statement(f"{near} <=> {{value}}::{kind}", value=literal(query))
    parts = names.of(about.generation)
    return statement(
        _NEAREST, **parts, k=k, limit=limit, and_meets=meets,
        # an expression that the HNSW index is not of, so that the planner scans, whatever it estimates
        distance=statement("({distance}) + 0", distance=distance) if scan else distance,
        where=statement(" WHERE EXISTS (SELECT FROM {rows} r WHERE r.sha = v.sha{meets})", meets=meets, **parts)
        if where else SQL(""))


def condition(wanted: Condition, kept: Mapping[str, Any]) -> Composed:
    """Return a condition on the kept columns of a row ``r`` in SQL; as `search.kept.matching_rows` understands it."""
    import re

    from psycopg.sql import SQL

    cell = statement("coalesce(r.kept->>{column}, '')", column=wanted.column)
    operator = SQL(f" {wanted.operator} ")
    if wanted.operator in ("=", "!="):
        return statement("{cell}{operator}{value}", cell=cell, operator=operator, value=wanted.value)
    if kept[wanted.column]["numbers"] and re.match(_NUMBER, wanted.value):
        return statement("CASE WHEN {cell} ~ {number} THEN ({cell})::numeric{operator}{value}::numeric ELSE false END",
                         cell=cell, number=_NUMBER, operator=operator, value=wanted.value)
    return statement("({cell} COLLATE \"C\"{operator}{value} AND {cell} <> '')", cell=cell, operator=operator,
                     value=wanted.value)
