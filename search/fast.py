"""The fast index: FAISS scans short codes for candidates, which are scored again at full precision.

FAISS names k x k_factor candidates by their codes (`search.codes`); their cosines are then computed from the
memory-mapped float32 vectors, so that scores are exact and only recall could suffer. Of few rows all codes are scanned,
from 300,000 rows on those in the cells nearest to the query (`search.cells`), where that was measured to be faster when
the index was built (`search.fast_build`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sentence_forge.encoders.similarity import FloatArray, IntArray, VectorRows, cosine_top_k, rank
from sentence_forge.search.cells import Cells
from sentence_forge.search.codes import read_codes
from sentence_forge.search.vectors import as_read

if TYPE_CHECKING:
    import faiss
    import numpy.typing as npt

RECALL, CELLS_RECALL = 0.999, 0.995  # promised of a scan of all codes, and of cells
RECALL_AT = 10
_SAMPLE_QUERIES = 500
_SEED = 20_190_828


class FastIndex:
    """Codes of vectors that lie on disk; answers like `cosine_top_k`, much sooner, at the recall measured.

    Args:
        codes: all of them, as FAISS's index by inner product, or cells.
        vectors: float32 [n, dim], unit length; may be a memory map.
        k_factor: candidates re-scored for each hit asked for.
        cells_tried: rows that there were when cells were last tried and not taken; 0 for never.
        single: the same vectors, from which few rows at a time are read sooner or with less memory.
    """

    def __init__(self, codes: faiss.Index | Cells, vectors: VectorRows, k_factor: int, cells_tried: int = 0,
                 single: VectorRows | None = None) -> None:
        self.codes = codes
        self.k_factor = k_factor
        self.cells_tried = cells_tried
        self._vectors = as_read(vectors)
        self._single = self._vectors if single is None else single

    @classmethod
    def load(cls, path: Path, vectors: VectorRows, about: Mapping[str, Any],
             data: npt.NDArray[np.uint8] | None = None, single: VectorRows | None = None) -> FastIndex:
        """Return the index that `search.fast_build` wrote to a file.

        Args:
            path: the file.
            vectors: float32 [n, dim], whose codes they are.
            about: what it returned for the manifest.
            data: the file's bytes, uint8 [size], where it was opened before; may be a memory map.
            single: the same vectors to read single rows from, where those of a query are in cells.

        Raises:
            UserError: the file holds anything else.
        """
        if data is None:
            data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
        (rows, dim), k_factor = vectors.shape, about["k_factor"]
        codes = Cells(path, data, rows, dim, about, RECALL_AT * k_factor) if "cells" in about else \
            read_codes(path, data, rows, dim)
        return cls(codes, vectors, k_factor, about.get("cells_tried", 0), single if "cells" in about else None)

    def candidates(self, k: int) -> int:
        """Return how many rows are re-scored for ``k`` hits."""
        return min(len(self._vectors), max(k, RECALL_AT) * self.k_factor)

    def search(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Return scores, float32 [q, min(k, n)], falling, and rows, int64 [q, min(k, n)].

        Args:
            queries: float32 [q, dim], unit length.
            k: how many to return.
        """
        rows_there = len(self._vectors)
        k = min(k, rows_there)
        scores = np.empty((len(queries), k), np.float32)
        rows = np.empty((len(queries), k), np.int64)
        for start in range(0, len(queries), 1024):
            _, found = self.codes.search(queries[start:start + 1024], self.candidates(k))
            for query, near in enumerate(found, start=start):
                near = near[(near >= 0) & (near < rows_there)]
                if len(near) >= k:
                    scores[query], rows[query] = rank(self._single, queries[query], near, k)
                else:  # cells of few rows, or codes that lead nowhere, in an index that somebody changed
                    (scores[query],), (rows[query],) = cosine_top_k(self._vectors, queries[query:query + 1], k)
        return scores, rows


def sample_queries(vectors: VectorRows) -> tuple[FloatArray, FloatArray]:
    """Return the live vectors that recall is measured with, float32 [q, dim], and each one's exact 10th score [q]."""
    sample = np.random.default_rng(_SEED).permutation(len(vectors))[:_SAMPLE_QUERIES]
    queries = np.ascontiguousarray(vectors[np.sort(sample)])
    scores, _ = cosine_top_k(vectors, queries, RECALL_AT)
    return queries, scores[:, -1]


def recall_at_10(index: FastIndex, queries: FloatArray, tenth: FloatArray) -> float:
    """Return the share of the true ten nearest that ``index`` finds.

    Counted by score, not by row: of several equal titles at the tenth place any one is right.
    """
    scores, _ = index.search(queries, RECALL_AT)
    return float((scores >= tenth[:, None]).mean())
