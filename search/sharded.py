"""The fast indexes of all shards, searched as one."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sentence_forge.encoders.similarity import FloatArray, IntArray, VectorRows, cosine_top_k
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.fast import FastIndex
from sentence_forge.search.shards import Shard
from sentence_forge.search.vectors import RowFile

log = logging.getLogger(__name__)


class ShardedIndex:
    """Answers like `FastIndex`: each shard is searched by its own, or scanned where it has none, and the best are kept.

    Args:
        parts: a shard each, in the order of the rows: its fast index or None, and its vectors.
    """

    def __init__(self, parts: Sequence[tuple[FastIndex | None, VectorRows]]) -> None:
        self.parts = list(parts)

    def candidates(self, k: int) -> int:
        """Return how many rows are scored at full precision for ``k`` hits."""
        return sum(len(vectors) if fast is None else fast.candidates(k) for fast, vectors in self.parts)

    def search(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Return scores, float32 [q, min(k, n)], falling, and rows, int64 [q, min(k, n)]; ties go to the lower row.

        Args:
            queries: float32 [q, dim], unit length.
            k: how many to return.
        """
        found, start = [], 0
        for fast, vectors in self.parts:
            scores, rows = cosine_top_k(vectors, queries, k) if fast is None or fast.candidates(k) >= len(vectors) \
                else fast.search(queries, k)
            found.append((scores, rows + start))
            start += len(vectors)
        scores, rows = (np.concatenate(each, axis=1) for each in zip(*found, strict=True))
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)


def load_fast(shards: Sequence[Shard], vectors: Sequence[VectorRows],
              opened: Sequence[tuple[npt.NDArray[np.uint8] | None, RowFile | None]]) -> FastIndex | ShardedIndex | None:
    """Return what answers queries sooner than a scan of all vectors; None where no shard has it.

    A shard whose file can't be used is scanned, and the log says so.

    Args:
        shards: all of a generation.
        vectors: theirs.
        opened: the bytes of their fast indexes and the files of their vectors, opened when the shards were.
    """
    parts = list(zip((_loaded(*each) for each in zip(shards, vectors, opened, strict=True)), vectors, strict=True))
    if all(fast is None for fast, _ in parts):
        return None
    return parts[0][0] if len(parts) == 1 else ShardedIndex(parts)


def _loaded(shard: Shard, vectors: VectorRows,
            opened: tuple[npt.NDArray[np.uint8] | None, RowFile | None]) -> FastIndex | None:
    if shard.about is None:
        return None
    try:
        return FastIndex.load(shard.fast, vectors, shard.about, *opened)
    except UserError as error:
        log.warning("%s. Until then every query scans all vectors", error)
        return None
