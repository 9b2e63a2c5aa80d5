"""Write one generation of the index: rows, contiguous vectors, fast index, rejected rows, and last the manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sentence_forge.data_readers.csv_writer import write_rejected
from sentence_forge.data_readers.formats.rows import BadRow
from sentence_forge.data_readers.lazy import LazyStrings, equal, only, side_by_side
from sentence_forge.runtime.disk import naming_a_full_disk
from sentence_forge.runtime.files import sha256_file
from sentence_forge.search.generation import SEGMENTS, Generation, commit, numbers, remove_files
from sentence_forge.search.segments import Hashes, Segment, hash_column, hashes_of
from sentence_forge.search.shard_writing import ShardTask, lost, write_shard
from sentence_forge.search.shards import SHARD_ROWS, Shard, counts_of, entries, shards_of
from sentence_forge.search.stored import ShardedRows, StoredRows, write_rows

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 8192  # rows in memory at once; a multiple of `stored.GROUP`


class Rows(NamedTuple):
    """The rows for a new generation: ids, titles, the titles' hashes, kept columns; and the corpus's rejected rows."""

    ids: Sequence[str]
    titles: Sequence[str]
    hashes: Hashes
    rejected: Sequence[BadRow]
    kept: Mapping[str, Sequence[str]]


class Writing(NamedTuple):
    """How a generation is written.

    Args:
        fast_from: rows from which a shard gets a fast index.
        shard_rows: rows of a shard; None as before, else `SHARD_ROWS`.
        half: whether vectors are to be stored as float16; None as before, else not.
        spread: writes several shards elsewhere, such as on a cluster; None writes them here.
    """

    fast_from: int
    shard_rows: int | None = None
    half: bool | None = None
    spread: Callable[[Sequence[ShardTask]], list[Shard]] | None = None

    def asked(self, base: Generation | None) -> dict[str, Any]:
        """Return what is asked for, by this or when ``base`` was written; a shard may still come out in float32."""
        before = asked_of(base)
        return {"shard_rows": self.shard_rows or before["shard_rows"],
                "half": before["half"] if self.half is None else self.half}


def asked_of(base: Generation | None) -> dict[str, Any]:
    """Return the rows of a shard and the precision that a generation was asked for."""
    return {"shard_rows": SHARD_ROWS, "half": False, **({} if base is None else base.manifest.get("asked", {}))}


def same_rows(base: Generation, rows: Rows) -> bool:
    """Tell whether ``base`` already holds exactly these rows, in this order, with these rejected."""
    if base.manifest["rows"] != len(rows.ids) or not np.array_equal(hashes_of(base.read_rows(["sha"])), rows.hashes):
        return False
    staged = base.folder / f".tmp-rejected-{os.getpid()}"
    try:
        write_rejected(staged, rows.rejected)
        same_rejected = sha256_file(staged) == base.manifest["files"][base.rejected.name]["sha256"]
    finally:
        staged.unlink(missing_ok=True)
    if not same_rejected or base.kept != list(rows.kept):
        return False
    columns = {"id": rows.ids, **dict(zip(base.kept_columns, rows.kept.values(), strict=True))}
    for name, cells in columns.items():
        with closing(ShardedRows([StoredRows(shard.rows, [name], shard.count) for shard in base.shards])) as stored:
            if not equal(stored.texts(name), cells):
                return False
    return True


def tables_of(rows: Rows) -> Iterator[pa.Table]:
    """Yield the rows as tables of `BLOCK` rows, as `write_rows` takes them."""
    import pyarrow as pa

    start = 0
    for columns in side_by_side([rows.ids, rows.titles, *rows.kept.values()], BLOCK):
        ids, titles, *kept = (pa.array(cells, pa.large_string()) for cells in columns)
        yield pa.table({"id": ids, "title": titles, "sha": hash_column(rows.hashes[start:start + len(ids)]),
                        **{f"kept-{place}": cells for place, cells in enumerate(kept)}})
        start += len(ids)


def write_generation(folder: Path, rows: Rows, how: Writing, fingerprint: str, sources: Sequence[Segment],
                     base: Generation | None = None, damaged: Sequence[Path] = ()) -> Generation:
    """Write and commit the generation after the newest one.

    Args:
        folder: the index.
        rows: the rows to write.
        how: in which form.
        fingerprint: of the encoder that made the vectors.
        sources: hold a vector for each of ``rows.hashes``: those of ``intact(base, damaged)``, then segments.
        base: the generation that there was.
        damaged: those of its files that are not to be used.

    Raises:
        UserError: the disk is full, or no source holds one of the vectors; nothing of the new generation is left.
    """
    if not sources:
        raise lost(folder)
    asked, number = how.asked(base), max(numbers(folder), default=0) + 1
    shards = [replace(shard, half=asked["half"])
              for shard in shards_of(folder, number, counts_of(len(rows.ids), asked["shard_rows"]))]
    new = Generation(folder, number, entries(shards))
    # A run that was killed here may have left files under the same number, of other shards, too.
    remove_files(folder, number)
    (folder / SEGMENTS).mkdir(exist_ok=True)  # what fast indexes learn goes there, too
    try:
        with naming_a_full_disk(new.rejected):
            write_rejected(new.rejected, rows.rejected)
            _write_rows(rows, shards)
        tasks = _tasks(shards, base, intact(base, damaged), how.fast_from, fingerprint, sources)
        starts = [0, *accumulate(shard.count for shard in shards)]
        written = how.spread(tasks) if how.spread and len(tasks) > 1 else [
            write_shard(task, sources, rows.hashes[start:start + task.shard.count])
            for task, start in zip(tasks, starts, strict=False)]
        return commit(replace(new, manifest={
            **entries(written), "fingerprint": fingerprint, "dim": tasks[0].dim,
            "distinct": len(np.unique(rows.hashes)), "rejected": len(rows.rejected),
            **({"asked": asked} if asked != asked_of(None) else {}),
            **({"kept": list(rows.kept)} if rows.kept else {})}))
    except BaseException:
        if not new.path.exists():
            remove_files(folder, number)
        raise


def _tasks(shards: Sequence[Shard], base: Generation | None, there: Sequence[Shard], fast_from: int,
           fingerprint: str, sources: Sequence[Segment]) -> list[ShardTask]:
    """Return what is to be done for each shard."""
    old = [shard.rows for shard in base.shards] if base else []
    places = {old.index(shard.rows): number for number, shard in enumerate(there)}
    alike = base is not None and asked_of(base)["half"] == shards[0].half
    dim = sources[0].vectors.shape[1]
    return [ShardTask(shard, tuple(there), fingerprint, fast_from, dim, places.get(place), alike)
            for place, shard in enumerate(shards)]


def intact(base: Generation | None, damaged: Sequence[Path]) -> list[Shard]:
    """Return the shards whose rows and vectors are as they were; a fast index that isn't is left out.

    Copying vectors without looking would give damaged ones a fresh checksum.
    """
    bad = set(damaged)
    return [replace(shard, about=None if shard.fast in bad else shard.about)
            for shard in (base.shards if base else []) if not {shard.rows, shard.vectors} & bad]


def _write_rows(rows: Rows, shards: Sequence[Shard]) -> None:
    """Write the files of rows."""
    start = 0
    for shard in shards:
        write_rows(shard.rows, tables_of(rows if len(shards) == 1 else _part(rows, start, start + shard.count)),
                   len(rows.ids))
        start += shard.count


def _part(rows: Rows, start: int, stop: int) -> Rows:
    """Return consecutive rows; what is read from disk still is."""
    def of(cells: Sequence[str]) -> Sequence[str]:
        return only(cells, np.arange(start, stop)) if isinstance(cells, LazyStrings) else cells[start:stop]

    return Rows(of(rows.ids), of(rows.titles), rows.hashes[start:stop], rows.rejected,
                {name: of(cells) for name, cells in rows.kept.items()})


def show_rejected(generation: Generation) -> None:
    """Let ``rejected.csv`` be this generation's list, under a name that people find."""
    staged = generation.folder / f".tmp-rejected-{os.getpid()}"
    staged.unlink(missing_ok=True)
    try:
        os.link(generation.rejected, staged)
    except OSError:  # a file system without hard links
        staged.write_bytes(generation.rejected.read_bytes())
    # Where both names are one file already, rename does nothing and leaves the staged name.
    staged.replace(generation.folder / "rejected.csv")
    staged.unlink(missing_ok=True)
