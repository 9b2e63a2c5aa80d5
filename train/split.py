"""The rows of a source for training or for dev, each as the numbers of its texts; texts are read when needed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sentence_forge.data_readers.lazy import LazyStrings, blocks_of, column_of
from sentence_forge.data_readers.shapes import SHAPES
from sentence_forge.data_readers.source import Source
from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

_CELLS_AT_A_TIME = 1 << 22  # sorted at once


class Split:
    """The train rows or the dev rows of a source, with equal texts numbered equally.

    Of data on disk, no more is in memory than some 32 bytes for each cell of text.

    Args:
        source: of the rows.
        shape: that they are read in.
        name: ``train`` or ``dev``.

    Attributes:
        shape: of the rows.
        dataset: the rows themselves.
        text_ids: int64 ``[rows, columns]``, positions in ``texts``.
        texts: every distinct text once; a list, or, of data on disk, read when asked for: then go through them in
            their order.
        labels: the label column, if the shape has one.
        numbers: int64 ``[rows]``, the 1-based data row in the file each came from.
    """

    def __init__(self, source: Source, shape: str, name: str) -> None:
        self.shape = shape
        self.dataset = source.read(shape, name)
        if not len(self.dataset):
            raise UserError(f"{', '.join(map(str, source.paths())) or 'data'}: has no {name} rows")
        names = SHAPES[shape].text_columns(self.dataset.column_names)
        ids, first = distinct(_hashes(self.dataset, names))
        self.text_ids = np.ascontiguousarray(ids.reshape(len(names), -1).T)
        texts = LazyStrings.of_dataset(self.dataset, names, first)
        self.texts: Sequence[str] = texts if self.dataset.cache_files else list(texts)
        label = SHAPES[shape].label
        # equal labels are one string
        self.labels: list[Any] | None = None if label is None else [
            sys.intern(cell) if isinstance(cell, str) else cell for cell in column_of(self.dataset, label)]
        self.numbers = np.fromiter(column_of(self.dataset, "row"), dtype=np.int64, count=len(self.dataset))

    @cached_property
    def columns(self) -> dict[str, list[Any]]:
        """All columns by name, in memory: for a split that is known to be small."""
        return {name: list(column_of(self.dataset, name)) for name in self.dataset.column_names}


def distinct(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number equal cells equally, in the order in which they first occur.

    Args:
        hashes: uint64 ``[cells, 2]``.

    Returns:
        The number of each cell, int64 ``[cells]``, and the first cell of each number, int64, ascending.
    """
    first = np.empty(len(hashes), dtype=np.int64)
    parts = len(hashes) // _CELLS_AT_A_TIME + 1
    part_of = (hashes[:, 0] % np.uint64(parts)).astype(np.uint16)
    for part in range(parts):  # equal hashes are in one part, and only a part is sorted at a time
        cells = np.flatnonzero(part_of == part)
        cells = cells[np.lexsort(hashes[cells].T)]  # stable, so the first of equals is the earliest
        ordered = hashes[cells]
        starts = np.ones(len(cells), dtype=bool)
        starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        first[cells] = cells[starts][np.cumsum(starts) - 1]
    is_first = first == np.arange(len(first))
    return (np.cumsum(is_first) - 1)[first], np.flatnonzero(is_first)


def _hashes(dataset: Dataset, names: Sequence[str]) -> np.ndarray:
    """Return 128 bits of every cell, uint64 ``[cells, 2]``, column after column."""
    found = np.empty((len(names) * len(dataset), 2), dtype=np.uint64)
    done = 0
    for name in names:
        for (block,) in blocks_of(dataset, [name]):
            found[done : done + len(block)] = np.frombuffer(_digests(block), dtype=np.uint64).reshape(-1, 2)
            done += len(block)
    return found


def _digests(texts: Iterable[str]) -> bytes:
    return b"".join(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts)
