"""Write a shard's vectors and its fast index, in this process or on another machine that sees the index's folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copyfile

import numpy as np

from sentence_forge.encoders.similarity import FloatArray, IntArray, cosine_top_k, normalise
from sentence_forge.runtime.disk import naming_a_full_disk
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import remove
from sentence_forge.search.fast import RECALL, RECALL_AT, FastIndex
from sentence_forge.search.fast_build import Before, build_fast
from sentence_forge.search.segments import Hashes, Segment, finished_segments, hashes_of, steps_of
from sentence_forge.search.shards import Shard
from sentence_forge.search.steps import Steps

log = logging.getLogger(__name__)

BLOCK = 8192  # vectors in memory at once
_ASKED = 200  # queries that tell what half precision loses


@dataclass(frozen=True)
class ShardTask:
    """What a process needs to write a shard whose file of rows is there.

    Args:
        shard: the one to write.
        base: the shards of the generation before it whose files are intact, to take vectors from.
        fingerprint: of the encoder that made the vectors.
        fast_from: rows from which a fast index is built.
        dim: of the vectors.
        before: the place in ``base`` of the shard whose fast index it may go on with; None for none.
        alike: whether the shards of ``base`` were asked to be stored in the same precision.
    """

    shard: Shard
    base: tuple[Shard, ...]
    fingerprint: str
    fast_from: int
    dim: int
    before: int | None
    alike: bool


def sources_of(task: ShardTask) -> list[Segment]:
    """Return where vectors are: the shards that there were, then the segments."""
    return [*(live(shard, task.dim) for shard in task.base), *finished_segments(task.shard.folder, task.fingerprint)]


def live(shard: Shard, dim: int) -> Segment:
    """Return a written shard as a source of vectors."""
    return Segment(hashes_of(shard.read_rows(["sha"])), shard.map_vectors(dim))


def write_shard(task: ShardTask, sources: Sequence[Segment] | None = None, hashes: Hashes | None = None) -> Shard:
    """Write a shard's vectors and fast index; return the shard with what the manifest says of them.

    Args:
        task: what to write.
        sources: as `sources_of` returns them, where they are open already.
        hashes: of the shard's titles, where they are in memory already.

    Raises:
        UserError: no source holds one of the vectors, or the disk is full.
    """
    shard, sources = task.shard, sources_of(task) if sources is None else sources
    hashes = hashes_of(shard.read_rows(["sha"])) if hashes is None else hashes
    same = next((place for place, each in enumerate(task.base) if len(task.base) > 1 and task.alike
                 and _is_same(each, shard, task.fast_from) and np.array_equal(sources[place].hashes, hashes)), None)
    if same is not None:
        return _taken_over(task.base[same], shard)
    places = located(shard.folder, sources, hashes)
    with naming_a_full_disk(shard.vectors, needs=(2 if shard.half else 4) * task.dim * shard.count):
        return _written(shard, task, sources, places, steps_of(
            shard.folder, f"{task.fingerprint} {'half' * shard.half}", hashes))


def _written(shard: Shard, task: ShardTask, sources: Sequence[Segment], places: IntArray, steps: Steps) -> Shard:
    shard = _write_vectors(shard, sources, places)
    vectors = shard.map_vectors()
    if len(vectors) < task.fast_from:
        return replace(shard, about=None)
    return replace(shard, about=build_fast(vectors, shard.fast, before=_before(task, sources, places),
                                           steps=steps))


def _is_same(old: Shard, new: Shard, fast_from: int) -> bool:
    return old.count == new.count and (old.about is not None or old.count < fast_from)


def _taken_over(old: Shard, new: Shard) -> Shard:
    """Give a shard the vectors and the fast index of one with the same texts: files never change, so both have them."""
    new = replace(new, half=old.half)
    for before, after in ((old.vectors, new.vectors), *([] if old.about is None else [(old.fast, new.fast)])):
        remove(after)
        try:
            os.link(before, after)
        except OSError:  # a file system without hard links
            copyfile(before, after)
    return replace(new, about=old.about)


def _before(task: ShardTask, sources: Sequence[Segment], places: IntArray) -> Before | None:
    """Return the fast index to go on with, to learn nothing anew; None where there is none or it can't be used."""
    if task.before is None:
        return None
    old = task.base[task.before]
    if old.about is None:
        return None
    try:
        fast = FastIndex.load(old.fast, sources[task.before].vectors, old.about)
    except UserError as error:
        log.warning("%s; it will be made anew", error)
        return None
    start = sum(each.count for each in task.base[:task.before])
    there = (places >= start) & (places < start + old.count)
    return Before(fast, np.where(there, places - start, -1))


def _write_vectors(shard: Shard, sources: Sequence[Segment], places: IntArray) -> Shard:
    """Write the vectors at ``places``; in half precision only if nearly all of the nearest ten stay those."""
    shape = (len(places), sources[0].vectors.shape[1])
    write_npy(shard.vectors, shape, gather(sources, places), half=shard.half)
    if shard.half and (recall := _recall_of_half(shard, sources, places)) < RECALL:
        log.warning("corpus.half: recall@%d of float16 is %.4f, under %s; the vectors are stored as float32", RECALL_AT,
                    recall, RECALL)
        shard = replace(shard, half=False)
        write_npy(shard.vectors, shape, gather(sources, places))
    return shard


def _recall_of_half(shard: Shard, sources: Sequence[Segment], places: IntArray) -> float:
    """Return the share of some rows' true ten nearest that are found among the vectors as float16."""
    full = Gathered(sources, places)
    rows = np.sort(np.random.default_rng(0).permutation(len(full))[:_ASKED])
    queries = normalise(full[rows])
    tenth = cosine_top_k(full, queries, RECALL_AT)[0][:, -1:]
    _, found = cosine_top_k(shard.map_vectors(), queries, RECALL_AT)
    scores = np.stack([full[each] @ query for each, query in zip(found, queries, strict=True)])
    recall = float((scores >= tenth - 1e-6).mean())
    log.info("vectors as float16: recall@%d %.4f against float32", RECALL_AT, recall)
    return recall


class Gathered:
    """The vectors at places of several sources, read as one array."""

    def __init__(self, sources: Sequence[Segment], places: IntArray) -> None:
        self._sources, self._places = sources, places
        self.shape = (len(places), sources[0].vectors.shape[1])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, rows: slice | IntArray, /) -> FloatArray:
        return np.concatenate([np.empty((0, self.shape[1]), np.float32), *gather(self._sources, self._places[rows])])


def located(folder: Path, sources: Sequence[Segment], hashes: Hashes) -> IntArray:
    """Return where the vector of each of ``hashes`` is, counted through all sources, the first that holds it.

    Raises:
        UserError: no source holds one of them.
    """
    wanted, of_wanted = np.unique(hashes, return_inverse=True)
    places = np.full(len(wanted), -1, np.int64)
    start = 0
    for source in sources:  # one by one: the hashes of all of them may be many times those of a shard
        at = np.searchsorted(wanted, source.hashes).clip(max=len(wanted) - 1)
        found = np.flatnonzero((wanted[at] == source.hashes) & (places[at] < 0))[::-1]  # the first of equal ones stays
        places[at[found]] = start + found
        start += len(source.hashes)
    if (places < 0).any():
        raise lost(folder)
    return places[of_wanted]


def lost(folder: Path) -> UserError:
    """Return the error on vectors that were there a while ago."""
    return UserError(f"{folder}: vectors were damaged or removed after they were encoded, before they could be "
                     "committed; start again, the other segments are reused")


def gathered(folder: Path, sources: Sequence[Segment], hashes: Hashes) -> Iterator[FloatArray]:
    """Return the vectors of ``hashes``, in their order, in blocks of float32 [<= 8192, dim]; see `located`."""
    return gather(sources, located(folder, sources, hashes))


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


def write_npy(path: Path, shape: tuple[int, int], blocks: Iterator[FloatArray], *, half: bool = False) -> None:
    """Write an npy file of float32 (or float16) from blocks of rows.

    By plain writes: through a memory map a full disk would kill the process (SIGBUS) where this raises.
    """
    stored = "<f2" if half else "<f4"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": stored, "fortran_order": False, "shape": shape})
        for block in blocks:
            file.write(np.ascontiguousarray(block, stored).data)
