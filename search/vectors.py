"""Unit vectors that lie in several files, or in half precision, read as one float32 array."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sentence_forge.encoders.similarity import FloatArray, IntArray, VectorRows, normalise
from sentence_forge.runtime.errors import UserError

_BLOCK = 65_536
_ADVISE = getattr(os, "posix_fadvise", None)  # not on macOS


class Vectors:
    """The rows of several arrays of unit vectors, one array behind the other; what is asked for is read as float32.

    Those of float16, which are not quite of unit length, are brought to it as they are read. ``np.asarray`` reads all.

    Args:
        parts: float32 or float16 [n, dim] each, such as memory maps.

    >>> Vectors([np.eye(2, 3, dtype=np.float16), np.eye(1, 3, dtype=np.float32)])[np.array([1, 2])]
    array([[0., 1., 0.],
           [1., 0., 0.]], dtype=float32)
    """

    dtype = np.dtype(np.float32)

    def __init__(self, parts: Sequence[npt.NDArray[np.floating]]) -> None:
        self.parts = [np.asarray(part) for part in parts]  # as `as_read` says
        self._ends = np.cumsum([len(part) for part in parts])
        self.shape = (int(self._ends[-1]), self.parts[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | IntArray) -> FloatArray:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._between(start, stop)
            rows = np.arange(start, stop, step)
        rows = np.asarray(rows)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        if not rows.ndim:
            return self[rows[None]][0]
        rows = np.where(rows < 0, rows + len(self), rows)
        owner = np.searchsorted(self._ends, rows, side="right")
        found = np.empty((len(rows), self.shape[1]), np.float32)
        for number in np.unique(owner):
            mine = owner == number
            part = self.parts[number]
            found[mine] = _full(part[rows[mine] - (self._ends[number] - len(part))])
        return found

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self[:].astype(dtype or np.float32, copy=False)

    @property
    def nbytes(self) -> int:
        """The bytes of all parts, as they are stored."""
        return sum(part.nbytes for part in self.parts)

    def _between(self, start: int, stop: int) -> FloatArray:
        found = []
        for part, end in zip(self.parts, self._ends.tolist(), strict=True):
            first = max(0, start - (end - len(part)))
            some = part[first:max(first, stop - (end - len(part)))]
            found += [_full(some)] if len(some) else []
        return found[0] if len(found) == 1 else np.concatenate([np.empty((0, self.shape[1]), np.float32), *found])


def _full(vectors: npt.NDArray[np.floating]) -> FloatArray:
    """Return float32 vectors as they are, and those of float16 as float32 of unit length."""
    if vectors.dtype == np.float32:
        return vectors
    wide = vectors.astype(np.float32)
    length = np.sqrt(np.einsum("nd,nd->n", wide, wide, dtype=np.float64))
    return np.asarray(wide / np.where(length > 0, length, 1)[:, None], np.float32)


class RowFile:
    """Single rows of a file of vectors, read from it, so that their pages do not become part of the process.

    Through a memory map each row of a large file would bring the sixteen pages around it (Linux's fault-around), and a
    process that answers many queries would seem to hold all of the file. The file may be removed meanwhile.

    Args:
        path: an npy file.
        vectors: what is mapped of it, float32 or float16 [n, dim].

    Raises:
        FileNotFoundError: there is no such file.
    """

    def __init__(self, path: Path, vectors: np.memmap) -> None:
        self._path, self._offset, self._dtype, self.shape = path, vectors.offset, vectors.dtype, vectors.shape
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | IntArray) -> FloatArray:
        places = list(range(len(self))[rows]) if isinstance(rows, slice) else rows.tolist()
        found = np.empty((len(places), self.shape[1]), self._dtype)
        size = found.itemsize * self.shape[1]
        if _ADVISE is not None:  # of all rows first: a disk brings a hundred in the time of a few
            for place in places:
                _ADVISE(self._file, self._offset + place * size, size, os.POSIX_FADV_WILLNEED)
        for vector, place in zip(found, places, strict=True):
            if os.preadv(self._file, [vector], self._offset + place * size) != size:
                raise UserError(f"{self._path}: damaged, it is shorter than it was")
        return _full(found)


def as_read(vectors: VectorRows) -> VectorRows:
    """Return the same vectors, a memory map as a plain array: its own indexing costs more than what it gathers."""
    return np.asarray(vectors) if isinstance(vectors, np.ndarray) else vectors


def joined(parts: Sequence[VectorRows]) -> VectorRows:
    """Return one array of rows; a single part as it is."""
    if len(parts) == 1:
        return parts[0]
    return Vectors([array for part in parts
                    for array in (part.parts if isinstance(part, Vectors) else [np.asarray(part)])])


def shortened(vectors: VectorRows, dim: int) -> FloatArray:
    """Return the first ``dim`` numbers of each vector, at length 1, float32 [n, dim]."""
    found = np.empty((len(vectors), dim), np.float32)
    for start in range(0, len(vectors), _BLOCK):
        found[start:start + _BLOCK] = normalise(vectors[start:start + _BLOCK][:, :dim])
    return found
