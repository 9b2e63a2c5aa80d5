"""A ``datasets.Dataset`` a block at a time: what lies on disk is never in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

_BLOCK = 8192


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
