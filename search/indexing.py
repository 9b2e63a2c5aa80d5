"""Bring an index up to date with a corpus: encode the new titles only, then switch to a new generation in one step."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sentence_forge.data_readers.formats.rows import BadRow
from sentence_forge.data_readers.lazy import taken
from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.encoders.similarity import IntArray, bad_row, normalise
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.locks import writer_lock
from sentence_forge.search.corpus_checks import check_lost, check_rows, difference
from sentence_forge.search.encoder import check_fingerprint
from sentence_forge.search.generation import check_links, newest, prune
from sentence_forge.search.segments import (
    Hashes,
    drop_segments,
    known_hashes,
    read_segments,
    text_hashes,
    write_segment,
)
from sentence_forge.search.shard_writing import ShardTask
from sentence_forge.search.shard_writing import live as live_segment
from sentence_forge.search.shards import Shard
from sentence_forge.search.writing import Rows, Writing, asked_of, intact, same_rows, show_rejected, write_generation

log = logging.getLogger(__name__)

FAST_FROM = 20_000
_SEGMENTS = 5_000  # files of a first build; each stays open, and systems allow some ten thousand


class Block(NamedTuple):
    """Titles to be encoded and written as one segment; ``hashes`` are S16 [n]."""

    ids: list[str]
    titles: list[str]
    hashes: Hashes


# Encodes blocks and writes each as a segment of the folder; calls back with the number of titles done.
Spread = Callable[[Path, Iterator[Block], Callable[[int], None]], None]


@dataclass(frozen=True)
class IndexReport:
    """The counts of one run of `index_corpus`."""

    rows: int  # live rows in the index now
    encoded: int  # distinct titles encoded by this run
    reused: int  # distinct titles whose vector was there, from the last index or from a run that was cut short
    added: int  # rows whose id is new
    changed: int  # rows whose id was there with another title
    removed: int  # ids that have left
    rejected: int  # rows of the corpus that were not indexed
    seconds: float


def index_corpus(folder: Path, ids: Sequence[str], titles: Sequence[str], encoder: TextEncoder, *,
                 rejected: Sequence[BadRow] = (), kept: Mapping[str, Sequence[str]] | None = None,
                 segment_rows: int = 4096, fast_from: int = FAST_FROM,
                 progress: Callable[[int, int], None] | None = None, spread: Spread | None = None,
                 most_lost: float = 1.0, shard_rows: int | None = None, half: bool | None = None,
                 spread_shards: Callable[[Sequence[ShardTask]], list[Shard]] | None = None) -> IndexReport:
    """Make ``folder`` the index of exactly these rows, in this order.

    Each distinct title is encoded once; vectors known from the last generation or from a run that was killed are
    reused by the title's hash. Finished segments go to disk as they are encoded, and the new generation replaces the
    old one in one step at the end: until then readers see the old one. When this returns, all of it is on the disk.

    Args:
        folder: the index; made if it isn't there.
        ids: unique, one a row.
        titles: one a row; may repeat.
        encoder: encodes them, and later the queries.
        rejected: rows of the corpus left out, written to ``rejected.csv``.
        kept: further columns by name, one cell a row, to be shown with hits and to filter by.
        segment_rows: distinct titles encoded between two writes to disk: the most that a kill can cost. Above 20
            million titles more, since all segments are open at the end.
        fast_from: rows from which a fast index is built; below, the exact scan is quick enough.
        progress: called with (titles encoded, titles to encode) as it goes on.
        most_lost: the share of the index's rows, by id, that may not be among ``ids`` any more.
        shard_rows: rows of a shard; None as the index has it, else ten million.
        half: whether vectors are stored as float16; None as the index has it, else not.
        spread_shards: writes several shards, such as on a cluster; by default this process.
        spread: encodes in ``encoder``'s stead, with the same fingerprint, such as a cluster; by default this process.

    Raises:
        UserError: nothing to index, too many rows lost, an id that repeats, an index of another model, another process
            writing here, a title whose vector is zero or not finite, or a segment that was damaged meanwhile.
    """
    begun = time.monotonic()
    check_rows(ids, titles)
    rows = Rows(ids, titles, text_hashes(titles), rejected, kept or {})
    check_links(folder)
    with writer_lock(folder):
        base = newest(folder)
        if base is not None:
            check_fingerprint(folder, base.manifest["fingerprint"], encoder.fingerprint)
        damaged = base.damaged() if base is not None else []
        for path in damaged:
            log.warning("%s: damaged, its bytes differ from the manifest's sha256; it will be made anew", path)
        added, changed, removed = difference(base, rows, damaged)
        check_lost(0 if base is None else base.manifest["rows"], removed, rejected, most_lost)
        live = [live_segment(shard, base.manifest["dim"]) for shard in intact(base, damaged)] if base else []
        first = np.sort(np.unique(rows.hashes, return_index=True)[1])
        known = known_hashes([*live, *read_segments(folder, encoder.fingerprint)])
        missing = first[~np.isin(rows.hashes[first], known)]
        encode_rows(folder, rows, missing, encoder, segment_rows, progress, spread)
        how = Writing(fast_from, shard_rows, half, spread_shards)
        if base is None or damaged or how.asked(base) != asked_of(base) or not same_rows(base, rows):
            sources = [*live, *read_segments(folder, encoder.fingerprint)]
            base = write_generation(folder, rows, how, encoder.fingerprint, sources, base, damaged)
        show_rejected(base)
        drop_segments(folder)
        prune(folder)
    return IndexReport(len(ids), len(missing), len(first) - len(missing), added, changed, removed, len(rejected),
                       time.monotonic() - begun)


def encode_rows(folder: Path, rows: Rows, missing: IntArray, encoder: TextEncoder, segment_rows: int,
                progress: Callable[[int, int], None] | None, spread: Spread | None) -> None:
    """Encode the titles at the places ``missing`` and write them as segments of ``folder``; see `index_corpus`."""
    blocks = _blocks(rows, missing, max(segment_rows, len(missing) // _SEGMENTS))
    (spread or partial(encode_here, encoder))(folder, blocks, _counted(progress, len(missing)))


def _counted(progress: Callable[[int, int], None] | None, total: int) -> Callable[[int], None]:
    """Return a callable that adds up numbers of titles and passes the sum and ``total`` to ``progress``."""
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, total)

    tell(0)
    return tell


def _blocks(rows: Rows, missing: IntArray, segment_rows: int) -> Iterator[Block]:
    """Yield the titles at the places ``missing`` in blocks, one for each segment."""
    for start in range(0, len(missing), segment_rows):
        places = missing[start:start + segment_rows]
        yield Block(taken(rows.ids, places), taken(rows.titles, places), rows.hashes[places])


def encode_here(encoder: TextEncoder, folder: Path, blocks: Iterator[Block], tell: Callable[[int], None]) -> None:
    """Encode the blocks in this process and write them as segments."""
    taken: deque[Block] = deque()  # the encoder takes a block before it returns the vectors of the one before

    def titles() -> Iterator[list[str]]:
        for block in blocks:
            taken.append(block)
            yield block.titles

    for vectors in encoder.encode_blocks(titles(), role="document", progress=tell):
        write_block(folder, taken.popleft(), vectors, encoder.fingerprint)


def write_block(folder: Path, block: Block, vectors: npt.NDArray[np.floating], fingerprint: str) -> None:
    """Write a block's vectors as its segment.

    Raises:
        UserError: a vector is zero or not finite.
    """
    bad = bad_row(vectors)
    if bad is not None:
        row, wrong = bad
        raise UserError(f"corpus: the vector of title {block.titles[row][:80]!r} (id {block.ids[row]!r}) {wrong}; "
                        "the model can't encode it, so leave the row out")
    write_segment(folder, block.hashes, normalise(vectors), fingerprint)
