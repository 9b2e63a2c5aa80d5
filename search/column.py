"""Strings that stay in Arrow until they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    import pyarrow as pa


class Column(Sequence[str]):
    """A column of strings that stays in Arrow; a row becomes a Python string when it is asked for."""

    def __init__(self, values: pa.Array) -> None:
        self._values = values

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._values)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        """Return a row's string, or a slice's as a list."""
        if isinstance(row, slice):
            return self._values[row].to_pylist()
        return self._values[int(row)].as_py()

    def __iter__(self) -> Iterator[str]:
        """Yield every row's string."""
        for start in range(0, len(self), 65_536):
            yield from self._values[start:start + 65_536].to_pylist()
