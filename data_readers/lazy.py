"""Read rows and strings of a data set a block at a time: what lies on disk is never in memory at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset
    from numpy.typing import NDArray

_BLOCK = 8192


class LazyStrings(Sequence[str]):
    """The strings of several parts, numbered from one part to the next; fast front to back, slower one by one.

    Args:
        parts: sequences of strings, or Arrow arrays of strings, such as those of a memory-mapped file.
        at: int64, ascending: the numbers of the strings that are meant; None means all of them.

    >>> LazyStrings([["a", "b"], ["c"]])[1:]
    ['b', 'c']
    """

    def __init__(self, parts: Sequence[Sequence[str] | pa.Array], at: NDArray[np.int64] | None = None) -> None:
        self._parts, self._at = parts, at
        self._starts = [0, *accumulate(map(len, parts))]

    @classmethod
    def of_dataset(cls, dataset: Dataset, names: Sequence[str], at: NDArray[np.int64] | None = None) -> LazyStrings:
        """Return the cells of a dataset's columns ``names``, one column behind the other."""
        table = dataset.select_columns(list(names)).with_format("arrow")[:]  # copies nothing
        return cls([chunk for name in names for chunk in table[name].chunks], at)

    def __len__(self) -> int:
        return self._starts[-1] if self._at is None else len(self._at)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        numbers = range(len(self))[index]
        return self._one(numbers) if isinstance(numbers, int) else [self._one(number) for number in numbers]

    def __iter__(self) -> Iterator[str]:
        for part, start in zip(self._parts, self._starts, strict=False):
            for first in range(start, start + len(part), _BLOCK):
                cells = _strings(part, first - start, _BLOCK)
                if self._at is None:
                    yield from cells
                else:
                    low, high = self._at.searchsorted([first, first + len(cells)])
                    yield from (cells[position] for position in (self._at[low:high] - first).tolist())

    def _one(self, number: int) -> str:
        if self._at is not None:
            number = int(self._at[number])
        part = bisect_right(self._starts, number) - 1
        return _strings(self._parts[part], number - self._starts[part], 1)[0]


def _strings(part: Sequence[str] | pa.Array, start: int, count: int) -> list[str]:
    some: Any = part[start:start + count]
    return list(some) if isinstance(some, list | tuple) else some.to_pylist()


def blocks_of(dataset: Dataset, names: Sequence[str]) -> Iterator[tuple[list[Any], ...]]:
    """Yield the columns ``names`` as tuples of equally long lists, block after block, in the order of the rows."""
    if len(dataset):
        for block in dataset.select_columns(list(names)).with_format("arrow").iter(_BLOCK):
            yield tuple(block.column(name).to_pylist() for name in names)


def column_of(dataset: Dataset, name: str) -> Iterator[Any]:
    """Yield the cells of a column."""
    for (cells,) in blocks_of(dataset, [name]):
        yield from cells


def rows_of(dataset: Dataset, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows, each with the cells of the columns ``names``."""
    for block in blocks_of(dataset, names):
        yield from zip(*block, strict=True)
