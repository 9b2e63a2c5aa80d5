"""The end of a load, in its transaction: the HNSW index, its recall, the counts, and the switch."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sentence_forge.data_readers.lazy import side_by_side
from sentence_forge.encoders.similarity import ROUNDING, normalise
from sentence_forge.search.kept import Kept
from sentence_forge.search.postgres.binary import vectors_of
from sentence_forge.search.postgres.nearest import MOST_EF, nearest
from sentence_forge.search.postgres.tables import About, Names, statement, switch
from sentence_forge.search.writing import Rows

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger(__name__)

RECALL, LEAST_RECALL = 0.999, 0.995  # at 10: what is aimed at, and below which a scan answers
_EFS = (64, 128, 256, 512, MOST_EF)
_AT = 10
_SAMPLE = 100  # queries
MOST_VALUES = 1000  # of a kept column, listed for the page


def finish(connection: psycopg.Connection[Any], names: Names, about: About, rows: Rows, model: str, *, changed: bool,
           switch_to: bool, fast_from: int) -> About:
    """Build the index if it pays, measure it, write down what the generation is now, and switch to it.

    Args:
        connection: in the load's transaction.
        names: of the index.
        about: the generation before this load.
        rows: what its tables hold now.
        model: the export's folder.
        changed: whether the load changed anything in them.
        switch_to: make it the current one.
        fast_from: distinct titles from which an index pays.
    """
    from psycopg.types.json import Json

    if changed or list(about.kept) != list(rows.kept):
        titles = len(np.unique(rows.hashes))
        about = dataclasses.replace(about, loads=about.loads + 1, rows=len(rows.ids), titles=titles,
                                    kept=kept_columns(rows.kept))
        parts = names.of(about.generation)
        connection.execute(statement("ANALYZE {rows}, {vectors}", **parts))
        ef, recall = None, None
        if titles >= fast_from:
            _build(connection, names, about)
            ef, recall = _measured(connection, names, about)
        about = dataclasses.replace(about, ef_search=ef, recall=recall)
    about = dataclasses.replace(about, model=model)
    values = dataclasses.asdict(about) | {"kept": Json(about.kept), "current": False}
    columns = list(values)
    connection.execute(statement(
        f"INSERT INTO {{generations}} ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))}) "
        "ON CONFLICT (generation) DO UPDATE SET loaded_at = now(), "
        + ", ".join(f"{name} = excluded.{name}" for name in columns if name not in ("generation", "current")),
        **names.of()), list(values.values()))
    if switch_to and not about.current:
        switch(connection, names, about.generation)
        about = dataclasses.replace(about, current=True)
    return about


def kept_columns(kept: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return what filters and facets ask of the kept columns: bounds, commonest values, whether they are numbers."""
    import pyarrow as pa

    about = {}
    for name, cells in kept.items():  # one at a time is in memory, and as Arrow's strings
        blocks = [pa.array(block, pa.large_string()) for block, in side_by_side([cells])]
        whole = pa.chunked_array(blocks, pa.large_string()).combine_chunks()
        column = Kept({name: cells}, {name: pa.chunked_array([whole])}.__getitem__, len(cells))
        about[name] = {"numbers": column.are_numbers(name), "bounds": column.bounds_of(name),
                       "values": list(column.values_of(name, MOST_VALUES).items())}
    return about


def _build(connection: psycopg.Connection[Any], names: Names, about: About) -> None:
    """Build the HNSW index where there is none."""
    from psycopg.sql import SQL, Identifier

    index = f"{names.table}_vectors_{about.generation}_hnsw"
    connection.execute(statement(
        "CREATE INDEX IF NOT EXISTS {index} ON {vectors} USING hnsw (embedding {operators})", index=Identifier(index),
        operators=SQL(f"{about.kind}_cosine_ops"), **names.of(about.generation)))


def _measured(connection: psycopg.Connection[Any], names: Names, about: About) -> tuple[int | None, float]:
    """Return how many candidates the index must look at, None where it doesn't find enough, and its recall@10.

    Counted by score: of several equal titles at the tenth place any one is right.
    """
    # hashes are as good as drawn by chance
    cells = connection.execute(statement("SELECT vector_send(embedding::vector) FROM {vectors} ORDER BY sha LIMIT %s",
                                         **names.of(about.generation)), [_SAMPLE], binary=True).fetchall()
    queries = normalise(vectors_of([cell for cell, in cells], about.dim))
    tenth = [nearest(connection, names, about, query, _AT, ef=None)[0][-1] for query in queries]
    recall = 0.0
    for ef in _EFS:
        found = [nearest(connection, names, about, query, _AT, ef=ef)[0] for query in queries]
        recall = float(np.mean([(scores >= least - ROUNDING).sum() / _AT
                                for scores, least in zip(found, tenth, strict=True)]))
        if recall >= RECALL:
            return ef, recall
    return (ef if recall >= LEAST_RECALL else None), recall
