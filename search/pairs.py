"""Find the most similar pairs among many vectors: all against all, or cell by cell beyond 50,000 rows.

Half a million rows have more than 10^11 pairs. Beyond ``EXACT_UP_TO`` rows the vectors are therefore grouped around
k-means centres, as an inverted file does, and a row is compared with those that have its cell among their nearest few.
Near-duplicates have the same centres nearby, so that only less similar pairs can be missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from sentence_forge.encoders.similarity import ROUNDING, FloatArray, IntArray, VectorRows

EXACT_UP_TO = 50_000
_CELLS_A_ROW = 8
_BLOCK = 2048
_SEED = 20_190_827


def most_similar_pairs(vectors: VectorRows, rows: IntArray, k: int,
                       exact_up_to: int = EXACT_UP_TO,
                       check: Callable[[], None] = lambda: None) -> tuple[FloatArray, IntArray, IntArray]:
    """Find the ``k`` pairs of highest cosine among ``rows`` of ``vectors``, each unordered pair once.

    Args:
        vectors: float32 [n, dim], unit length; may be a memory map.
        rows: int64 [m], rising: the rows to pair.
        k: how many pairs; more than m (m - 1) / 2 gives all.
        exact_up_to: rows up to which all pairs are compared; beyond, those in neighbouring cells.
        check: called before each block; what it raises ends the work, which takes minutes for millions of rows.

    Returns:
        scores, float32 [<= k], falling; the earlier row and the later row of each pair, int64. Ties in row order.
    """
    best = _Best(k)
    blocks = _all_blocks(rows) if len(rows) <= exact_up_to else _cell_blocks(vectors, rows, check)
    for left, right in blocks:
        check()
        best.add(vectors[left] @ vectors[right].T, left, right)
    pairs = best.pairs()
    scores = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _BLOCK):
        some = pairs[start:start + _BLOCK]
        scores[start:start + _BLOCK] = np.einsum("nd,nd->n", vectors[some[:, 0]], vectors[some[:, 1]],
                                                 dtype=np.float64)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -scores))[:k]
    return scores[order], pairs[order, 0], pairs[order, 1]


class _Best:
    """The ``k`` best pairs so far, and those within rounding of the last of them."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._floor = -np.inf
        self._scores = np.empty(0, np.float32)
        self._pairs = np.empty(0, np.int64)  # lower row << 32 | higher row

    def add(self, cosines: FloatArray, left: IntArray, right: IntArray) -> None:
        """Take in a block of cosines [len(left), len(right)]; a pair may come again, either way round."""
        enough = 2 * self._k + min(cosines.shape)
        if np.isneginf(self._floor) and cosines.size > enough:
            # Even if rows meet themselves and each pair is counted twice, k pairs reach this score.
            self._floor = np.partition(cosines, -enough, axis=None)[-enough] - ROUNDING
        if cosines.max() < self._floor:
            return
        i, j = np.nonzero(cosines >= self._floor)
        lower, higher = np.minimum(left[i], right[j]), np.maximum(left[i], right[j])
        other = lower != higher
        self._scores = np.concatenate([self._scores, cosines[i, j][other]])
        self._pairs = np.concatenate([self._pairs, (lower << 32 | higher)[other]])
        if len(self._scores) > 2 * self._k + _BLOCK:
            self._cut()

    def _cut(self) -> None:
        # A pair that came twice must not count twice: the floor would rise above pairs that belong to the best.
        self._pairs, first = np.unique(self._pairs, return_index=True)
        self._scores = self._scores[first]
        if len(self._scores) > self._k:
            self._floor = np.partition(self._scores, -self._k)[-self._k] - ROUNDING
            keep = self._scores >= self._floor
            self._scores, self._pairs = self._scores[keep], self._pairs[keep]

    def pairs(self) -> IntArray:
        """Return the best pairs [>= k where there are as many, 2], the lower row first, in no order."""
        self._cut()
        return np.stack([self._pairs >> 32, self._pairs & 0xFFFFFFFF], axis=1)


def _all_blocks(rows: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield blocks of rows so that every pair is in one of them."""
    for start in range(0, len(rows), _BLOCK):
        for other in range(start, len(rows), _BLOCK):
            yield rows[start:start + _BLOCK], rows[other:other + _BLOCK]


def _cell_blocks(vectors: VectorRows, rows: IntArray,
                 check: Callable[[], None]) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield, a cell at a time, the rows nearest to its centre and all rows that have it among their nearest few."""
    centres = _centres(vectors, rows, max(1, int(len(rows) ** 0.5)), check)
    few = min(_CELLS_A_ROW, len(centres))
    nearest = np.empty((len(rows), few), np.int64)
    for start in range(0, len(rows), _BLOCK):
        check()
        cosines = vectors[rows[start:start + _BLOCK]] @ centres.T
        some = np.argpartition(-cosines, few - 1, axis=1)[:, :few]
        order = np.argsort(-np.take_along_axis(cosines, some, axis=1), axis=1)
        nearest[start:start + _BLOCK] = np.take_along_axis(some, order, axis=1)
    by_cell = np.argsort(nearest, axis=None, kind="stable")
    ends = np.searchsorted(nearest.ravel()[by_cell], np.arange(len(centres) + 1))
    for cell in range(len(centres)):
        members = by_cell[ends[cell]:ends[cell + 1]]
        own, all_ = rows[members[members % few == 0] // few], rows[members // few]
        for start in range(0, len(own), _BLOCK):
            for other in range(0, len(all_), _BLOCK):
                yield own[start:start + _BLOCK], all_[other:other + _BLOCK]


def _centres(vectors: VectorRows, rows: IntArray, count: int, check: Callable[[], None]) -> FloatArray:
    """Return ``count`` spherical k-means centres of a sample of ``rows``, unit length, float32 [count, dim]."""
    draw = np.random.default_rng(_SEED)
    sample = np.asarray(vectors[np.sort(draw.permutation(rows)[:64 * count])])
    centres = sample[draw.permutation(len(sample))[:count]]
    for _ in range(5):
        check()
        cell = np.concatenate([np.argmax(sample[start:start + _BLOCK] @ centres.T, axis=1)
                               for start in range(0, len(sample), _BLOCK)])
        order = np.argsort(cell, kind="stable")
        present, starts = np.unique(cell[order], return_index=True)
        sums = np.add.reduceat(sample[order], starts, axis=0)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        centres[present] = np.where(length > 0, sums / np.maximum(length, 1e-12), centres[present])
    return centres
