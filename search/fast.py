"""The fast index: FAISS scans product-quantised codes for candidates, which are scored again at full precision.

FAISS holds 4 bits for every two dimensions (``PQ{dim/2}x4fs``, scanned in SIMD registers; André et al., "Quicker ADC",
2019), a sixteenth of the vectors' size. It names k x k_factor candidates; their cosines are then computed from the
memory-mapped float32 vectors, so that scores are exact and only recall could suffer. Recall is measured when the index
is built, and k_factor raised until it holds.
"""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sentence_forge.encoders.similarity import FloatArray, IntArray, cosine_top_k, rank
from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    import faiss
    import numpy.typing as npt

log = logging.getLogger(__name__)

RECALL = 0.999
RECALL_AT = 10
K_FACTORS = (20, 40, 80, 160, 320)
_SAMPLE_QUERIES = 500
_TRAINING_ROWS = 65_536
_BLOCK = 65_536
_SEED = 20_190_827


class FastIndex:
    """Codes in memory, vectors on disk; answers like `cosine_top_k`, much sooner, at the recall measured.

    Args:
        codes: a FAISS index of the rows of ``vectors``, by inner product.
        vectors: float32 [n, dim], unit length; may be a memory map.
        k_factor: candidates re-scored for each hit asked for.
    """

    def __init__(self, codes: faiss.Index, vectors: FloatArray, k_factor: int) -> None:
        self.codes = codes
        self.k_factor = k_factor
        self._vectors = np.asarray(vectors)  # a memmap's own indexing costs more than the gather

    @classmethod
    def load(cls, path: Path, vectors: FloatArray, k_factor: int,
             data: npt.NDArray[np.uint8] | None = None) -> FastIndex:
        """Return the index that `build_fast` wrote to a file.

        FAISS trusts the files it reads: a crafted one makes it allocate any amount of memory, or write to another file.
        So every byte but those of the centroids and the codes must be exactly as `build_fast` writes it.

        Args:
            path: the file.
            vectors: float32 [n, dim], whose codes they are.
            k_factor: candidates re-scored for each hit asked for.
            data: the file's bytes, uint8 [size], where it was opened before; may be a memory map.

        Raises:
            UserError: the file holds anything else.
        """
        import faiss

        data = np.fromfile(path, np.uint8) if data is None else data
        head, middle, codes = _frame(*vectors.shape)
        learnt = slice(len(head), len(head) + 64 * vectors.shape[1])  # 16 centroids of each part of a vector
        if (len(data) != learnt.stop + len(middle) + codes or data[:learnt.start].tobytes() != head
                or data[learnt.stop:learnt.stop + len(middle)].tobytes() != middle
                or not np.isfinite(data[learnt].view("<f4")).all()):
            raise UserError(f"{path}: is not a fast index of these vectors as it is written here; index the corpus "
                            "again in another folder (out=)")
        return cls(faiss.deserialize_index(np.array(data)), vectors, k_factor)

    def candidates(self, k: int) -> int:
        """Return how many rows are re-scored for ``k`` hits."""
        return min(len(self._vectors), max(k, RECALL_AT) * self.k_factor)

    def search(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Return scores, float32 [q, min(k, n)], falling, and rows, int64 [q, min(k, n)].

        Args:
            queries: float32 [q, dim], unit length.
            k: how many to return.
        """
        k = min(k, len(self._vectors))
        scores = np.empty((len(queries), k), np.float32)
        rows = np.empty((len(queries), k), np.int64)
        for start in range(0, len(queries), 1024):
            _, found = self.codes.search(queries[start:start + 1024], self.candidates(k))
            for query, near in enumerate(found, start=start):
                near = near[near >= 0]
                if len(near) < k:  # codes that lead nowhere, in an index that somebody changed
                    near = np.arange(len(self._vectors))
                scores[query], rows[query] = rank(self._vectors, queries[query], near, k)
        return scores, rows


def build_fast(vectors: FloatArray, path: Path, promise: float = RECALL,
               before: FastIndex | None = None) -> dict[str, Any] | None:
    """Build the fast index of ``vectors``, write it to ``path`` and measure it.

    Args:
        vectors: float32 [n, dim], unit length; may be a memory map.
        path: where the codes go.
        promise: recall@10 against the exact scan that must be reached.
        before: the fast index that there was. Where its code book still keeps the promise none is learnt anew.

    Returns:
        What the manifest keeps: ``factory``, ``k_factor``, ``recall_at_10`` and the number of ``queries`` it was
        measured with. None, and no file, if no k_factor keeps the promise: the exact scan answers then.
    """
    import faiss

    factory = f"PQ{sub_quantisers(vectors.shape[1])}x4fs"
    queries, tenth = sample_queries(vectors)
    for old, k_factors in [*([] if before is None else [(before.codes, (before.k_factor,))]), (None, K_FACTORS)]:
        codes = _codes(vectors, factory, old)
        for k_factor in k_factors:
            recall = recall_at_10(FastIndex(codes, vectors, k_factor), queries, tenth)
            log.info("fast index %s: recall@%d %.4f at k_factor %d", factory, RECALL_AT, recall, k_factor)
            if recall >= promise:
                faiss.write_index(codes, str(path))
                return {"factory": factory, "k_factor": k_factor, "recall_at_10": recall, "queries": len(queries)}
    log.warning("fast index: recall@%d stays at %.4f, under %s; every query will scan all vectors", RECALL_AT, recall,
                promise)
    return None


def _codes(vectors: FloatArray, factory: str, codes: faiss.Index | None) -> faiss.Index:
    """Return the codes of ``vectors``, by the code book of ``codes``, which are emptied, or one learnt from them."""
    import faiss

    if codes is None:
        codes = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        sample = np.random.default_rng(_SEED).permutation(len(vectors))[:_TRAINING_ROWS]
        codes.train(vectors[np.sort(sample)])
    else:
        codes.reset()
    for start in range(0, len(vectors), _BLOCK):
        codes.add(np.ascontiguousarray(vectors[start:start + _BLOCK]))
    return codes


def _frame(rows: int, dim: int) -> tuple[bytes, bytes, int]:
    """Return the fixed bytes of FAISS's file: before the centroids, between them and the codes; and the codes' size.

    That is ``write_index`` of an ``IndexPQFastScan``: dimension, rows, metric, sizes; then implementation, block size,
    and rows and sub-quantisers rounded up to 32 and 2.
    """
    parts = sub_quantisers(dim)
    padded_rows, padded_parts = -(-rows // 32) * 32, parts + parts % 2
    codes = padded_rows * padded_parts // 2
    return (struct.pack("<4siqqqBi4Q", b"IPfs", dim, rows, 1 << 20, 1 << 20, True, 0, dim, parts, 4, 16 * dim),
            struct.pack("<i4Q", 0, 32, padded_rows, padded_parts, codes), codes)


def sample_queries(vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the live vectors that recall is measured with, float32 [q, dim], and each one's exact 10th score [q]."""
    sample = np.random.default_rng(_SEED + 1).permutation(len(vectors))[:_SAMPLE_QUERIES]
    queries = np.ascontiguousarray(vectors[np.sort(sample)])
    scores, _ = cosine_top_k(vectors, queries, RECALL_AT)
    return queries, scores[:, -1]


def recall_at_10(index: FastIndex, queries: FloatArray, tenth: FloatArray) -> float:
    """Return the share of the true ten nearest that ``index`` finds.

    Counted by score, not by row: of several equal titles at the tenth place any one is right.
    """
    scores, _ = index.search(queries, RECALL_AT)
    return float((scores >= tenth[:, None]).mean())


def sub_quantisers(dim: int) -> int:
    """Return the divisor of ``dim`` nearest to half of it: two dimensions to each 4-bit code where that divides."""
    return min((size for size in range(1, dim + 1) if dim % size == 0), key=lambda size: abs(size - dim / 2))
