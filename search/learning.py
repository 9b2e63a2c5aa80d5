"""Learn the centres of cells by k-means, and find each row's cell: the long parts of building a large fast index.

At ten million rows that is a quarter of an hour, so a killed run goes on from the last round of k-means, or from the
last million rows that have their cell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from sentence_forge.encoders.similarity import FloatArray, IntArray, VectorRows
from sentence_forge.search import codes
from sentence_forge.search.codes import BLOCK, drawn, sub_quantisers
from sentence_forge.search.steps import Steps

CELLS_A_ROOT = 4  # cells for each square root of the rows
_ROWS_A_CELL = 40  # that centres are learnt from
_ROUNDS = 8  # of k-means
_SEED = 20_190_829
PART = 16 * BLOCK  # rows whose cells are kept in one step


class Learnt(NamedTuple):
    """What a new index of the same corpus takes over: centres, float32 [cells, dim], and the code book's centroids."""

    centres: FloatArray
    book: FloatArray


def cells_for(rows: int) -> int:
    """Return how many cells that many rows are put in."""
    return round(CELLS_A_ROOT * rows ** 0.5)


def about_right(cells: int, rows: int) -> bool:
    """Return whether ``cells`` are about as many as are learnt for ``rows`` rows."""
    return 2 / 3 < cells / cells_for(rows) < 3 / 2


def learn_cells(vectors: VectorRows, steps: Steps | None = None) -> Learnt:
    """Return centres and code book for ``vectors``.

    Args:
        vectors: float32 [n, dim], unit length; may be a memory map.
        steps: keeps each round's centres, for a run that goes on from there.
    """
    import faiss

    steps = steps or Steps(None)
    rows, dim = vectors.shape
    cells = cells_for(rows)

    @cache
    def sample() -> FloatArray:
        return np.asarray(vectors[drawn(rows, _ROWS_A_CELL * cells, _SEED)])

    def next_round(centres: FloatArray | None = None) -> FloatArray:
        means = faiss.Kmeans(dim, cells, niter=1, spherical=True, seed=_SEED, min_points_per_centroid=1,
                             max_points_per_centroid=_ROWS_A_CELL)
        means.train(sample(), init_centroids=centres)
        return np.ascontiguousarray(means.centroids)

    def book() -> FloatArray:
        few = np.asarray(vectors[drawn(rows, codes.TRAINING_ROWS, _SEED + 1)])
        quantiser = faiss.ProductQuantizer(dim, sub_quantisers(dim), 4)
        quantiser.train(few - centres[cells_of(few, centres)])
        return faiss.vector_to_array(quantiser.centroids)

    how = _digest(f"{_ROWS_A_CELL} {_SEED} {codes.TRAINING_ROWS} {sub_quantisers(dim)} {faiss.__version__}".encode())
    centres = steps.array(f"centres-{how}-0", (cells, dim), np.float32, next_round)
    for number in range(1, _ROUNDS):
        centres = steps.array(f"centres-{how}-{number}", (cells, dim), np.float32, partial(next_round, centres))
    name = f"book-{how}-{_digest(centres.tobytes())}"
    return Learnt(centres, steps.array(name, (16 * dim,), np.float32, book))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def cells_of(vectors: VectorRows, centres: FloatArray) -> IntArray:
    """Return the number of the centre nearest to each vector, int64 [n]."""
    import faiss

    exact = faiss.IndexFlatIP(centres.shape[1])
    exact.add(centres)
    return exact.search(np.ascontiguousarray(vectors), 1)[1][:, 0]


def cells_of_rows(vectors: VectorRows, centres: FloatArray, known: IntArray | None = None,
                  steps: Steps | None = None) -> Iterator[IntArray]:
    """Yield the cell of each row, int64 [<= 65,536], block by block.

    Args:
        vectors: float32 [n, dim], unit length; may be a memory map.
        centres: float32 [cells, dim].
        known: int64 [n], the cells of rows where they are known, else -1.
        steps: keeps them, a million rows at a time.
    """
    rows, steps = len(vectors), steps or Steps(None)
    name = f"cells-{_digest(centres.tobytes())}"

    def part(start: int, stop: int) -> IntArray:
        cell = np.full(stop - start, -1) if known is None else known[start:stop].copy()
        for first in range(0, len(cell), BLOCK):
            mine = cell[first:first + BLOCK]
            new = np.flatnonzero(mine < 0)
            if len(new):
                mine[new] = cells_of(vectors[start + first:start + first + len(mine)][new], centres)
        return cell

    for start in range(0, rows, PART):
        stop = min(start + PART, rows)
        found = steps.array(f"{name}-{start}", (stop - start,), np.int32, partial(part, start, stop),
                            below=len(centres))
        found = found.astype(np.int64)
        yield from (found[first:first + BLOCK] for first in range(0, len(found), BLOCK))
