"""Read rows and strings of a data set a block at a time: what lies on disk is never in memory at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset
    from numpy.typing import NDArray

    IntArray = NDArray[np.int64]

BLOCK = 8192  # strings


class LazyStrings(Sequence[str]):
    """The strings of several parts, numbered from one part to the next; fast front to back, slower one by one.

    Args:
        parts: sequences of strings, or Arrow arrays of strings, such as those of a memory-mapped file.
        at: int64, ascending: the numbers of the strings that are meant; None means all of them.

    >>> LazyStrings([["a", "b"], ["c"]])[1:]
    ['b', 'c']
    """

    def __init__(self, parts: Sequence[Sequence[str] | pa.Array], at: IntArray | None = None) -> None:
        self._parts, self._at = parts, at
        self._starts = [0, *accumulate(map(len, parts))]

    @classmethod
    def of_dataset(cls, dataset: Dataset, names: Sequence[str], at: IntArray | None = None) -> LazyStrings:
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
        if isinstance(numbers, int):
            return self._one(numbers)
        import numpy as np

        return self.take(np.arange(numbers.start, numbers.stop, numbers.step))

    def __iter__(self) -> Iterator[str]:
        for part, start in zip(self._parts, self._starts, strict=False):
            for first in range(start, start + len(part), BLOCK):
                if self._at is None:
                    yield from _strings(part, first - start, BLOCK)
                    continue
                low, high = self._at.searchsorted([first, min(first + BLOCK, start + len(part))])
                if low < high:
                    cells = _strings(part, first - start, BLOCK)
                    yield from (cells[position] for position in (self._at[low:high] - first).tolist())

    def take(self, places: IntArray) -> list[str]:
        """Return the strings at ``places``, int64, from 0; neighbours in one part are read together."""
        import numpy as np

        numbers = places if self._at is None else self._at[places]
        owners = np.searchsorted(self._starts, numbers, side="right") - 1
        ends = [*(np.flatnonzero(np.diff(owners)) + 1).tolist(), len(numbers)] if len(numbers) else []
        found: list[str] = []
        for end in ends:
            owner = owners[len(found)]
            found += _picked(self._parts[owner], numbers[len(found):end] - self._starts[owner])
        return found

    def only(self, at: IntArray) -> LazyStrings:
        """Return the strings at the places ``at``, int64, ascending; nothing is read."""
        return LazyStrings(self._parts, at if self._at is None else self._at[at])

    def _one(self, number: int) -> str:
        if self._at is not None:
            number = int(self._at[number])
        part = bisect_right(self._starts, number) - 1
        return _strings(self._parts[part], number - self._starts[part], 1)[0]


def _strings(part: Sequence[str] | pa.Array, start: int, count: int) -> list[str]:
    some: Any = part[start:start + count]
    return list(some) if isinstance(some, list | tuple) else some.to_pylist()


def _picked(part: Sequence[str] | pa.Array, places: IntArray) -> list[str]:
    low, high = int(places.min()), int(places.max())
    if (places[1:] - places[:-1] == 1).all():
        return _strings(part, low, len(places))
    if isinstance(part, Sequence):
        cells = _strings(part, low, high - low + 1)
        return [cells[place] for place in (places - low).tolist()]
    return part.take(places).to_pylist()


def taken(strings: Sequence[str], places: IntArray) -> list[str]:
    """Return the strings at ``places``, int64, from 0."""
    return strings.take(places) if isinstance(strings, LazyStrings) else [strings[place] for place in places.tolist()]


def only(strings: Sequence[str], at: IntArray) -> Sequence[str]:
    """Return the strings at the places ``at``, int64, ascending: in memory if they are, else still to be read."""
    return strings.only(at) if isinstance(strings, LazyStrings) else taken(strings, at)


def side_by_side(columns: Sequence[Sequence[str]], size: int | None = None) -> Iterator[tuple[list[str], ...]]:
    """Yield columns of strings as tuples of equally long lists, block after block.

    Raises:
        ValueError: they are not equally long.

    >>> list(side_by_side([["a", "b", "c"], ["d", "e", "f"]], 2))
    [(['a', 'b'], ['d', 'e']), (['c'], ['f'])]
    """
    cells = [iter(column) for column in columns]
    while any(block := tuple(list(islice(each, size or BLOCK)) for each in cells)):
        if len({len(each) for each in block}) > 1:
            raise ValueError(f"columns of {[len(column) for column in columns]} rows; they must be equally long")
        yield block


def equal(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether two sequences hold the same strings in the same order."""
    return len(one) == len(other) and all(mine == theirs for mine, theirs in side_by_side([one, other]))


def blocks_of(dataset: Dataset, names: Sequence[str]) -> Iterator[tuple[list[Any], ...]]:
    """Yield the columns ``names`` as tuples of equally long lists, block after block, in the order of the rows."""
    if len(dataset):
        for block in dataset.select_columns(list(names)).with_format("arrow").iter(BLOCK):
            yield tuple(block.column(name).to_pylist() for name in names)


def column_of(dataset: Dataset, name: str) -> Iterator[Any]:
    """Yield the cells of a column."""
    for (cells,) in blocks_of(dataset, [name]):
        yield from cells


def rows_of(dataset: Dataset, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows, each with the cells of the columns ``names``."""
    for block in blocks_of(dataset, names):
        yield from zip(*block, strict=True)
