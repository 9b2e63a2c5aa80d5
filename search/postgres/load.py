"""Load a corpus into a database: encode what is new, then change rows, vectors and index in one transaction."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sentence_forge.data_readers.formats.rows import BadRow
from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.encoders.similarity import IntArray
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.locks import writer_lock
from sentence_forge.search.corpus_checks import check_lost, check_rows
from sentence_forge.search.generation import check_links
from sentence_forge.search.indexing import FAST_FROM, IndexReport, Spread, encode_rows
from sentence_forge.search.postgres.address import Address, connect, parse
from sentence_forge.search.postgres.binary import HEADER, TRAILER, copied
from sentence_forge.search.postgres.errors import database_errors
from sentence_forge.search.postgres.finish import finish
from sentence_forge.search.postgres.locks import loader_lock
from sentence_forge.search.postgres.tables import About, Names, create, generations, prepare, statement
from sentence_forge.search.segments import (
    HASH_BYTES,
    Hashes,
    Segment,
    drop_segments,
    known_hashes,
    read_segments,
    text_hashes,
)
from sentence_forge.search.shard_writing import gathered
from sentence_forge.search.writing import Rows

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger(__name__)

MOST_NUMBERS = {"vector": 2000, "halfvec": 4000}  # that pgvector's HNSW takes
_INCOMING = ("CREATE TEMP TABLE incoming (n bigint PRIMARY KEY, id text NOT NULL, title text NOT NULL, "
             "sha bytea NOT NULL, kept jsonb NOT NULL)")
_MERGE = [
    "DELETE FROM {rows} r WHERE NOT EXISTS (SELECT FROM pg_temp.incoming i WHERE i.id = r.id)",
    "UPDATE {rows} r SET title = i.title, sha = i.sha, kept = i.kept FROM pg_temp.incoming i "
    "WHERE i.id = r.id AND (i.sha <> r.sha OR i.kept <> r.kept)",
    "INSERT INTO {rows} (id, title, sha, kept) SELECT i.id, i.title, i.sha, i.kept FROM pg_temp.incoming i "
    "WHERE NOT EXISTS (SELECT FROM {rows} r WHERE r.id = i.id) ORDER BY i.n",
    "DELETE FROM {vectors} v WHERE NOT EXISTS (SELECT FROM {rows} r WHERE r.sha = v.sha)",
]


class Loaded(NamedTuple):
    """What `load_corpus` did: the counts, and what the database now says of the generation."""

    report: IndexReport
    about: About


def check_loadable(url: str) -> None:
    """Make what an index needs in a database, so that what it refuses is refused before anything slow.

    Raises:
        UserError: the server isn't there, lets this user not in or not make tables, or has no pgvector.
    """
    address = parse(url)
    with database_errors(address.shown), connect(address) as connection:
        prepare(connection, address)


def load_corpus(address: Address, work: Path, ids: Sequence[str], titles: Sequence[str], encoder: TextEncoder, *,
                model: Path, rejected: Sequence[BadRow] = (), kept: Mapping[str, Sequence[str]] | None = None,
                kind: str = "vector", switch_to: bool = True, segment_rows: int = 4096, fast_from: int = FAST_FROM,
                progress: Callable[[int, int], None] | None = None, spread: Spread | None = None,
                most_lost: float = 1.0) -> Loaded:
    """Make a database's index hold exactly these rows, encoded by this encoder.

    The generation of this encoder is brought up to date; where there is none, a new one is made beside the others.
    Texts that it holds are not encoded again, and neither are those that a run which was killed has left in ``work``.
    All changes are one transaction: whoever searches sees the old rows or the new ones.

    Args:
        address: of the index.
        work: a folder for encoded texts until they are committed; removed then.
        ids: unique, one a row.
        titles: one a row; may repeat.
        encoder: as `index_corpus` takes it, and so are ``segment_rows``, ``progress``, ``spread`` and ``most_lost``.
        model: the export's folder; whoever searches from this machine finds the model there.
        rejected: rows of the corpus left out; counted.
        kept: further columns by name, one cell a row.
        kind: the column's type, ``vector`` (float32) or ``halfvec`` (float16); of a new generation.
        switch_to: make it the current generation, if it isn't.
        segment_rows: see ``encoder``.
        fast_from: distinct titles from which an HNSW index is built; below, a scan answers.
        progress: see ``encoder``.
        spread: see ``encoder``.
        most_lost: see ``encoder``.

    Raises:
        UserError: the database refuses it, another load is under way, or as `index_corpus`.
    """
    begun = time.monotonic()
    check_rows(ids, titles)
    rows = Rows(ids, titles, text_hashes(titles), rejected, kept or {})
    _check_texts(rows)
    check_links(work)
    with writer_lock(work), database_errors(address.shown), connect(address) as connection:
        names = prepare(connection, address)
        with loader_lock(connection, names, address.shown):
            every = generations(connection, names)
            base = next((each for each in every if each.fingerprint == encoder.fingerprint), None)
            _stage(connection, rows)
            old = base or next((each for each in every if each.current), None)
            changes = _difference(connection, names, old, len(ids))
            check_lost(0 if old is None else old.rows, changes[2], rejected, most_lost)
            wanted = _wanted(connection, names, base)
            missing = wanted[~np.isin(rows.hashes[wanted], known_hashes(read_segments(work, encoder.fingerprint)))]
            encode_rows(work, rows, missing, encoder, segment_rows, progress, spread)
            segments = read_segments(work, encoder.fingerprint)
            with connection.transaction():
                about = base or _create(connection, names, segments[0], encoder.fingerprint, kind)
                merged = _merge(connection, names, about, rows.hashes[wanted], work, segments)
                about = finish(connection, names, about, rows, str(model.resolve()), changed=merged,
                               switch_to=switch_to, fast_from=fast_from)
        drop_segments(work)
    with contextlib.suppress(OSError):  # of a load that was killed it stays; other files in it are somebody's
        work.rmdir()
    known = len(np.unique(rows.hashes)) - len(missing)
    changes = changes if base else (len(ids), 0, 0)  # to a generation that was made now, every row was added
    return Loaded(IndexReport(len(ids), len(missing), known, *changes, len(rejected), time.monotonic() - begun), about)


def _check_texts(rows: Rows) -> None:
    """Refuse what PostgreSQL's texts can't hold: the character NUL."""
    for name, cells in [("id", rows.ids), ("title", rows.titles), *rows.kept.items()]:
        for number, cell in zip(rows.ids, cells, strict=True):
            if "\0" in cell:
                raise UserError(f"corpus: the {name} of the row {number!r} holds the character NUL, which PostgreSQL "
                                "can't; corpus.clean=[nul] takes it out of titles")


def _stage(connection: psycopg.Connection[Any], rows: Rows) -> None:
    """Copy the corpus's rows into a table that this session alone sees."""
    from psycopg.types.json import Jsonb

    connection.execute(_INCOMING)
    hashes = np.ascontiguousarray(rows.hashes).view(np.uint8).reshape(-1, HASH_BYTES)
    with connection.cursor() as cursor, cursor.copy("COPY pg_temp.incoming FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int8", "text", "text", "bytea", "jsonb"])
        for number, (name, title, *cells) in enumerate(zip(rows.ids, rows.titles, *rows.kept.values(), strict=True)):
            kept = {column: cell for column, cell in zip(rows.kept, cells, strict=True) if cell}
            copy.write_row((number, name, title, hashes[number].tobytes(), Jsonb(kept)))
    connection.execute("ANALYZE pg_temp.incoming")


def _difference(connection: psycopg.Connection[Any], names: Names, old: About | None,
                count: int) -> tuple[int, int, int]:
    """Return how many rows are added, changed and removed against a generation, by id."""
    if old is None:
        return count, 0, 0
    found = connection.execute(statement(
        "SELECT count(*) FILTER (WHERE r.id IS NULL), count(*) FILTER (WHERE r.sha <> i.sha), count(r.id) "
        "FROM pg_temp.incoming i LEFT JOIN {rows} r USING (id)", **names.of(old.generation))).fetchone()
    assert found is not None
    return found[0], found[1], old.rows - found[2]


def _wanted(connection: psycopg.Connection[Any], names: Names, base: About | None) -> IntArray:
    """Return the first places of the titles that have no vector in the database, int64, rising."""
    unknown = "" if base is None else " WHERE NOT EXISTS (SELECT FROM {vectors} v WHERE v.sha = i.sha)"
    with connection.cursor() as cursor:
        # streamed, since all rows as Python objects would be several times the array
        found = cursor.stream(statement(
            f"SELECT min(i.n) FROM pg_temp.incoming i{unknown} GROUP BY i.sha ORDER BY 1",
            **names.of(1 if base is None else base.generation)), binary=True)
        return np.fromiter((place for place, in found), np.int64)


def _create(connection: psycopg.Connection[Any], names: Names, first: Segment, fingerprint: str, kind: str) -> About:
    """Create the tables of a new generation, with vectors as long as those of a segment.

    Raises:
        UserError: an index can't be built over vectors so long.
    """
    dim = first.vectors.shape[1]
    if dim > MOST_NUMBERS[kind]:
        other = "to.column=halfvec takes up to 4,000, or " if kind == "vector" and dim <= 4000 else ""
        raise UserError(f"to.column={kind}: pgvector's index takes vectors of up to {MOST_NUMBERS[kind]:,} numbers, "
                        f"and the model's have {dim:,}; {other}give a shorter dim=")
    return About(create(connection, names, kind, dim), False, fingerprint, "", dim, kind, 0, 0, 0, {}, None, None)


def _merge(connection: psycopg.Connection[Any], names: Names, about: About, wanted: Hashes, work: Path,
           segments: Sequence[Segment]) -> bool:
    """Make the tables hold the incoming rows and their vectors, and return whether anything changed."""
    parts = names.of(about.generation)
    if len(wanted):
        with connection.cursor() as cursor, cursor.copy(
                statement("COPY {vectors} FROM STDIN (FORMAT binary)", **parts)) as copy:
            copy.write(HEADER)
            start = 0
            for vectors in gathered(work, segments, wanted):
                copy.write(copied(wanted[start:start + len(vectors)], vectors, about.kind))
                start += len(vectors)
            copy.write(TRAILER)
    touched = [connection.execute(statement(text, **parts)).rowcount for text in _MERGE]
    return bool(len(wanted) or any(touched))
