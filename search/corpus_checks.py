"""Check a corpus before it is indexed: ids that repeat, and what it changes against the rows of the last index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sentence_forge.data_readers.formats.rows import BadRow
from sentence_forge.data_readers.lazy import LazyStrings, side_by_side
from sentence_forge.data_readers.repeats import repeats
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.generation import Generation
from sentence_forge.search.segments import hashes_of, text_hashes
from sentence_forge.search.shards import read_shards
from sentence_forge.search.writing import Rows


def check_rows(ids: Sequence[str], titles: Sequence[str]) -> None:
    """Refuse rows that are none, or whose ids repeat.

    Raises:
        UserError: says which.
    """
    if len(ids) != len(titles):
        raise ValueError(f"{len(ids)} ids for {len(titles)} titles")
    if not len(ids):
        raise UserError("corpus: no titles to index; the index stays as it was")
    later, first = repeats(ids)
    if len(later):
        row, earlier = int(later[0]), int(first[0])
        raise UserError(f"corpus: id {ids[row]!r} is that of rows {earlier + 1} and {row + 1}; ids must be unique")


def difference(base: Generation | None, rows: Rows, damaged: Sequence[Path]) -> tuple[int, int, int]:
    """Return how many rows were added, changed and removed against ``base``, by id.

    Args:
        base: the last generation; None where there is none.
        rows: of the corpus.
        damaged: files of ``base``; rows in them count as if they hadn't been there.
    """
    shards = [] if base is None else [shard for shard in base.shards if shard.rows not in damaged]
    if not shards:
        return len(rows.ids), 0, 0
    # one column of one shard at a time, since each takes memory until it is hashed
    before = np.concatenate([text_hashes(LazyStrings(read_shards([shard], ["id"])["id"].chunks)) for shard in shards])
    titles_before = hashes_of(read_shards(shards, ["sha"]))
    order = np.argsort(before, kind="stable")
    before, titles_before = before[order], titles_before[order]
    known = changed = start = 0
    for (ids,) in side_by_side([rows.ids]):
        names, titles = text_hashes(ids), rows.hashes[start:start + len(ids)]
        places = np.searchsorted(before, names).clip(max=len(before) - 1)
        there = before[places] == names
        known += int(there.sum())
        changed += int((titles_before[places] != titles)[there].sum())
        start += len(ids)
    return len(rows.ids) - known, changed, len(before) - known


def check_lost(before: int, removed: int, rejected: Sequence[BadRow], most: float) -> None:
    """Refuse a corpus without many of the index's rows: most often a file that was cut short or is read wrongly.

    Args:
        before: rows of the index.
        removed: how many of them are not in the corpus.
        rejected: rows of the corpus.
        most: the share of ``before`` that may be removed.

    Raises:
        UserError: more are.
    """
    if removed <= most * before:
        return
    bad = f" ({len(rejected):,} of its rows can't be indexed; line {rejected[0].line}: {rejected[0].reason})" \
        if rejected else ""
    ids = "give the corpus.id_column= that the index was made with, or, " if removed > 0.9 * before else ""
    raise UserError(f"corpus: {removed:,} of the index's {before:,} rows, by their ids, are not in it any more{bad}; "
                    f"{ids}if that is meant, type corpus.most_lost=1. The index stays as it was")
