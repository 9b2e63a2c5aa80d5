"""Write one generation of the index: rows, contiguous vectors, fast index, rejected rows, and last the manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sentence_forge.data_readers.csv_writer import write_rejected
from sentence_forge.data_readers.formats.rows import BadRow
from sentence_forge.data_readers.lazy import LazyStrings, equal, side_by_side
from sentence_forge.encoders.similarity import FloatArray, IntArray
from sentence_forge.runtime.disk import naming_a_full_disk
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import remove, sha256_file
from sentence_forge.search.fast import FastIndex
from sentence_forge.search.fast_build import Before, build_fast
from sentence_forge.search.generation import Generation, commit, numbers
from sentence_forge.search.segments import Hashes, Segment, hash_column, hashes_of, known_hashes
from sentence_forge.search.stored import write_rows

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 8192  # vectors, or rows, in memory at once; a multiple of `stored.GROUP`


class Rows(NamedTuple):
    """The rows for a new generation: ids, titles, the titles' hashes, kept columns; and the corpus's rejected rows."""

    ids: Sequence[str]
    titles: Sequence[str]
    hashes: Hashes
    rejected: Sequence[BadRow]
    kept: Mapping[str, Sequence[str]]


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
    return all(equal(LazyStrings(base.read_rows([name])[name].chunks), cells) for name, cells in columns.items())


def tables_of(rows: Rows) -> Iterator[pa.Table]:
    """Yield the rows as tables of `BLOCK` rows, as `write_rows` takes them."""
    import pyarrow as pa

    start = 0
    for columns in side_by_side([rows.ids, rows.titles, *rows.kept.values()], BLOCK):
        ids, titles, *kept = (pa.array(cells, pa.large_string()) for cells in columns)
        yield pa.table({"id": ids, "title": titles, "sha": hash_column(rows.hashes[start:start + len(ids)]),
                        **{f"kept-{place}": cells for place, cells in enumerate(kept)}})
        start += len(ids)


def write_generation(folder: Path, rows: Rows, sources: Sequence[Segment], fingerprint: str, fast_from: int,
                     before: FastIndex | None = None) -> Generation:
    """Write and commit the generation after the newest one.

    Args:
        folder: the index.
        rows: the rows to write.
        sources: hold a vector for each of ``rows.hashes``.
        fingerprint: of the encoder that made the vectors.
        fast_from: rows from which a fast index is built.
        before: the fast index of the first source's vectors; see `search.fast_build`.

    Raises:
        UserError: the disk is full, or no source holds one of the vectors; nothing of the new generation is left.
    """
    places = located(folder, sources, rows.hashes)
    old = None if before is None else Before(before, np.where(places < len(sources[0].hashes), places, -1))
    new = Generation(folder, max(numbers(folder), default=0) + 1, {})
    dim = sources[0].vectors.shape[1]
    # A run that was killed here may have left some of them, under the same number.
    _remove(new)
    try:
        with naming_a_full_disk(new.vectors, needs=4 * dim * len(rows.ids)):
            fast = _write_data(new, rows, gather(sources, places), dim, fast_from, old)
        return commit(new, {
            "format": 1, "fingerprint": fingerprint, "rows": len(rows.ids), "dim": dim,
            "distinct": len(np.unique(rows.hashes)), "rejected": len(rows.rejected), "fast": fast,
            **({"kept": list(rows.kept)} if rows.kept else {}),
        })
    except BaseException:
        if not new.path.exists():
            _remove(new)
        raise


def _write_data(new: Generation, rows: Rows, blocks: Iterator[FloatArray], dim: int, fast_from: int,
                before: Before | None) -> dict[str, Any] | None:
    """Write all files but the manifest; return the manifest's entry on the fast index."""
    write_rejected(new.rejected, rows.rejected)
    write_rows(new.rows, tables_of(rows), len(rows.ids))
    _write_npy(new.vectors, (len(rows.ids), dim), blocks)
    vectors = np.load(new.vectors, mmap_mode="r", allow_pickle=False)
    return build_fast(vectors, new.fast, before=before) if len(vectors) >= fast_from else None


def _remove(generation: Generation) -> None:
    for path in generation.data:
        remove(path)


def gathered(folder: Path, sources: Sequence[Segment], hashes: Hashes) -> Iterator[FloatArray]:
    """Return the vectors of ``hashes``, in their order, in blocks of float32 [<= 8192, dim]; see `located`."""
    return gather(sources, located(folder, sources, hashes))


def located(folder: Path, sources: Sequence[Segment], hashes: Hashes) -> IntArray:
    """Return where the vector of each of ``hashes`` is, counted through all sources, the first that holds it.

    Raises:
        UserError: no source holds one of them.
    """
    known = known_hashes(sources)
    if len(known):
        order = np.argsort(known, kind="stable")
        places = order.take(np.searchsorted(known, hashes, sorter=order), mode="clip")
        if np.array_equal(known[places], hashes):
            return places
    raise UserError(f"{folder}: vectors were damaged or removed after they were encoded, before they could be "
                    "committed; start again, the other segments are reused")


def gather(sources: Sequence[Segment], places: IntArray) -> Iterator[FloatArray]:
    """Yield the vectors at ``places``, float32 [<= 8192, dim], each from the source that holds it."""
    starts = np.cumsum([0, *(len(source.hashes) for source in sources)])
    for start in range(0, len(places), BLOCK):
        wanted = places[start:start + BLOCK]
        block = np.empty((len(wanted), sources[0].vectors.shape[1]), np.float32)
        owner = np.searchsorted(starts, wanted, side="right") - 1
        for number in np.unique(owner):
            mine = owner == number
            block[mine] = sources[number].vectors[wanted[mine] - starts[number]]
        yield block


def _write_npy(path: Path, shape: tuple[int, int], blocks: Iterator[FloatArray]) -> None:
    """Write a float32 npy file from blocks of rows.

    By plain writes: through a memory map a full disk would kill the process (SIGBUS) where this raises.
    """
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for block in blocks:
            file.write(np.ascontiguousarray(block, "<f4").data)


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
