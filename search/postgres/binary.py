"""Vectors and rows as PostgreSQL's binary COPY has them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sentence_forge.encoders.similarity import FloatArray
from sentence_forge.search.segments import Hashes

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
_NUMBERS = {"vector": ">f4", "halfvec": ">f2"}
_LENGTH = 4  # bytes before a vector's numbers: how many there are, and 16 bits unused


def copied(hashes: Hashes, vectors: npt.NDArray[np.floating], kind: str) -> bytes:
    """Return rows of a hash (bytea) and a vector for ``COPY ... FROM STDIN (FORMAT binary)``.

    Args:
        hashes: S16 [n].
        vectors: floating [n, dim].
        kind: ``vector`` (float32) or ``halfvec`` (float16).
    """
    count, dim = vectors.shape
    number = np.dtype(_NUMBERS[kind])
    rows = np.zeros(count, np.dtype([("fields", ">i2"), ("hash_bytes", ">i4"), ("hash", hashes.dtype),
                                     ("vector_bytes", ">i4"), ("dim", ">u2"), ("unused", ">u2"),
                                     ("numbers", number, (dim,))]))
    rows["fields"], rows["hash_bytes"], rows["hash"] = 2, hashes.dtype.itemsize, hashes
    rows["vector_bytes"], rows["dim"], rows["numbers"] = _LENGTH + dim * number.itemsize, dim, vectors
    return rows.tobytes()


def vectors_of(cells: list[bytes], dim: int) -> FloatArray:
    """Return what ``vector_send`` gave for vectors of ``dim`` numbers, float32 [n, dim]."""
    rows = np.frombuffer(b"".join(cells), np.dtype([("head", "V4"), ("numbers", ">f4", (dim,))]))
    return np.ascontiguousarray(rows["numbers"], np.float32)


def literal(vector: npt.NDArray[np.floating]) -> str:
    """Return a vector as pgvector reads it from a text; nothing of a float32 is lost."""
    return "[" + ",".join(map(repr, np.asarray(vector, np.float32).astype(float).tolist())) + "]"
