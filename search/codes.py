"""Product-quantised codes of vectors, as FAISS scans them: learnt, and read from a file without trusting it.

4 bits for every two dimensions (``PQ{dim/2}x4fs``, scanned in SIMD registers; André et al., "Quicker ADC", 2019), a
sixteenth of the vectors' size.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sentence_forge.encoders.similarity import IntArray, VectorRows
from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    import faiss
    import numpy.typing as npt

BLOCK = 65_536
TRAINING_ROWS = 65_536
_SEED = 20_190_827


def factory(dim: int) -> str:
    """Return what FAISS calls these codes."""
    return f"PQ{sub_quantisers(dim)}x4fs"


def make_codes(vectors: VectorRows, codes: faiss.Index | None = None) -> faiss.Index:
    """Return the codes of ``vectors``, by the code book of ``codes``, which are emptied, or one learnt from them."""
    import faiss

    if codes is None:
        codes = faiss.index_factory(vectors.shape[1], factory(vectors.shape[1]), faiss.METRIC_INNER_PRODUCT)
        codes.train(np.asarray(vectors[drawn(len(vectors), TRAINING_ROWS)]))
    else:
        codes.reset()
    for start in range(0, len(vectors), BLOCK):
        codes.add(np.ascontiguousarray(vectors[start:start + BLOCK]))
    return codes


def drawn(rows: int, count: int, seed: int = _SEED) -> IntArray:
    """Return at most ``count`` of ``rows`` row numbers, drawn by chance and always the same, rising."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:count])


def read_codes(path: Path, data: npt.NDArray[np.uint8], rows: int, dim: int) -> faiss.Index:
    """Return the codes that FAISS wrote to a file.

    FAISS trusts the files it reads: a crafted one makes it allocate any amount of memory, or write to another file.
    So every byte but those of the centroids and the codes must be exactly as they are written here.

    Args:
        path: the file, for the error.
        data: its bytes; may be a memory map.
        rows: how many vectors it must hold.
        dim: their size.

    Raises:
        UserError: it holds anything else.
    """
    import faiss

    head, middle, _ = _frame(rows, dim)
    learnt = slice(len(head), len(head) + 64 * dim)  # 16 centroids of each part of a vector
    if (len(data) != codes_size(rows, dim) or data[:learnt.start].tobytes() != head
            or data[learnt.stop:learnt.stop + len(middle)].tobytes() != middle
            or not np.isfinite(data[learnt].view("<f4")).all()):
        raise strange(path)
    return faiss.deserialize_index(np.array(data))


def strange(path: Path) -> UserError:
    """Return the error on a file that is no fast index of its vectors."""
    return UserError(f"{path}: is not a fast index of these vectors as it is written here; index the corpus again in "
                     "another folder (out=)")


def codes_size(rows: int, dim: int) -> int:
    """Return the bytes of the file of ``rows`` vectors' codes."""
    head, middle, codes = _frame(rows, dim)
    return len(head) + 64 * dim + len(middle) + codes


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


def sub_quantisers(dim: int) -> int:
    """Return the divisor of ``dim`` nearest to half of it: two dimensions to each 4-bit code where that divides."""
    return min((size for size in range(1, dim + 1) if dim % size == 0), key=lambda size: abs(size - dim / 2))
