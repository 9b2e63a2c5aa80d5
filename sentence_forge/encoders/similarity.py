"""Cosine similarity in NumPy: unit vectors and exact top-k, block by block, over arrays in memory or on disk."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from sentence_forge.runtime.errors import UserError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class VectorRows(Protocol):
    """Vectors that can be read a part at a time, float32 [n, dim]: an array, or what reads like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """How many there are, and their size."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | IntArray, /) -> FloatArray: ...


# A float32 dot product of unit vectors is off by less than this, in whatever order a BLAS adds it up.
ROUNDING = 2e-6
_SCORES = 1 << 22
_QUERIES = 256
_COPIED = 16_384  # rows


def bad_row(vectors: npt.NDArray[np.floating]) -> tuple[int, str] | None:
    """Return the first row of ``vectors`` [n, dim] that has no direction, and why; None when all have one."""
    # The squares are added up in float64: large but finite float32 values must not overflow into inf.
    squares = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(squares) | (squares == 0))
    if not len(bad):
        return None
    row = int(bad[0])
    if np.isnan(vectors[row]).any():
        return row, "holds NaN"
    return row, "holds an infinite value" if np.isinf(vectors[row]).any() else "is all zeros"


def normalise(vectors: npt.NDArray[np.floating]) -> FloatArray:
    """Return ``vectors`` [n, dim] scaled to unit length, as float32 [n, dim].

    Raises:
        UserError: a row is all zeros or holds NaN or inf; the message names the row (0-based).
    """
    vectors = np.asarray(vectors)
    bad = bad_row(vectors)
    if bad is not None:
        raise UserError(f"vectors: row {bad[0]} {bad[1]}, so it has no direction and no cosine; leave it out")
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    return np.ascontiguousarray(vectors / length[:, None], dtype=np.float32)


def rank(vectors: VectorRows, query: FloatArray, candidates: IntArray, k: int) -> tuple[FloatArray, IntArray]:
    """Score ``candidates`` (rows of ``vectors``) against one ``query`` [dim] and return the ``k`` best of them.

    Added up in float64 and then rounded, so that equal vectors get equal scores wherever they stand; ties go to the
    lower row.

    Returns:
        scores, float32 [<= k], falling; rows, int64 [<= k].
    """
    candidates = np.sort(candidates)
    scores = (vectors[candidates].astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    order = np.argsort(-scores, kind="stable")[:k]
    return scores[order], candidates[order]


def cosine_top_k(vectors: VectorRows, queries: npt.NDArray[np.floating], k: int,
                 chunk: int | None = None, rows: IntArray | None = None) -> tuple[FloatArray, IntArray]:
    """Find each query's ``k`` nearest rows by cosine, exactly.

    What ``sentence_transformers.util.semantic_search`` finds on the same vectors, scores to 1e-6. Memory beyond the
    two arrays is some 20 MB, however many rows and queries there are.

    Args:
        vectors: float32 [n, dim] of unit length (see `normalise`); may be a memory map, read once from front to back.
        queries: floating [q, dim] of any length but zero.
        k: how many to return; more than n returns all n.
        chunk: rows scored at a time; by default few for many queries and many for few, so that the scores stay within
            16 MB and a lone query is one matrix-vector product.
        rows: int64, rising: compare these alone, as if there were no others.

    Returns:
        scores, float32 [q, min(k, n)], falling; rows, int64 of the same shape. Ties go to the lower row.

    Raises:
        UserError: a query is all zeros or holds NaN or inf.
    """
    queries = normalise(queries)
    count = len(vectors) if rows is None else len(rows)
    k = min(k, count)
    if k < 1 or not len(queries):
        return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    chunk = chunk or max(8192, _SCORES // min(len(queries), _QUERIES))
    if not isinstance(vectors, np.ndarray):  # then each part is a copy, not a view
        chunk = min(chunk, _COPIED)
    # Rows are the outer loop, so that a memory map is read once; every query keeps what can still reach its top k.
    kept: list[list[tuple[FloatArray, IntArray]]] = [[] for _ in queries]
    floor = np.full(len(queries), -np.inf, dtype=np.float32)
    for start in range(0, count, chunk):
        block = np.asarray(vectors[start:start + chunk] if rows is None else vectors[rows[start:start + chunk]])
        for first in range(0, len(queries), _QUERIES):
            scores = queries[first:first + _QUERIES] @ block.T
            for query, row in enumerate(scores, start=first):
                floor[query] = _keep(kept[query], row, start, k, floor[query])
    best = [np.concatenate([places for _, places in parts]) for parts in kept]
    top = [rank(vectors, query, places if rows is None else rows[places], k)
           for query, places in zip(queries, best, strict=True)]
    shape = (len(queries), k)
    return (np.array([scores for scores, _ in top], dtype=np.float32).reshape(shape),
            np.array([found for _, found in top], dtype=np.int64).reshape(shape))


def _keep(parts: list[tuple[FloatArray, IntArray]], scores: FloatArray, start: int, k: int,
          floor: float) -> float:
    """Add the rows of one block that may be among the top k to ``parts``; return the score to reach from now on."""
    if len(scores) > k and np.isneginf(floor):
        # Rows within rounding of the k-th stay: `rank` decides among them.
        floor = np.partition(scores, -k)[-k] - ROUNDING
    rows = np.flatnonzero(scores >= floor)
    if len(rows) == 0:
        return floor
    parts.append((scores[rows], rows + start))
    if sum(len(part) for part, _ in parts) < 2 * k:
        return floor
    merged, places = (np.concatenate(column) for column in zip(*parts, strict=True))
    if len(merged) > k:
        floor = np.partition(merged, -k)[-k] - ROUNDING
        merged, places = merged[merged >= floor], places[merged >= floor]
    parts[:] = [(merged, places)]
    return floor
