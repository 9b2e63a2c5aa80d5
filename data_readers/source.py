"""The interface of a source of training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from sentence_forge.data_readers.formats.rows import BadRow
from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "dev")


class Source(Protocol):
    """Rows for training and for measuring while training, in one or more of the six shapes."""

    def shapes(self) -> list[str]:
        """Return the names of the shapes it can give, its own first. Imports nothing heavy."""
        ...

    def read(self, shape: str, split: str) -> Dataset:
        """Return the rows of a split, ``train`` or ``dev``.

        The columns are the shape's (texts and label str; score float64 in [0, 1], or in [-1, 1] where that is the
        source's range), then ``row``
        (int64): the 1-based data row of the file, for error messages.
        """
        ...

    def rejected(self) -> Mapping[Path, Sequence[BadRow]]:
        """Return the rows that were left out of what was read so far, by file."""
        ...

    def paths(self) -> list[Path]:
        """Return the files that are read, for their hashes."""
        ...


@runtime_checkable
class DetectsFormat(Protocol):
    """A source that detects how its files are to be read, where nobody says it."""

    def detected(self) -> Mapping[str, Mapping[str, object]]:
        """Return what was detected, by file: its encoding, separator, range of scores; JSON-ready."""
        ...


def check_request(name: str, shapes: list[str], shape: str, split: str) -> None:
    """Refuse a shape or a split that a source can't give.

    Raises:
        UserError: names the source and what it can give.
    """
    if shape not in shapes:
        raise UserError(f"{name}: gives {', '.join(shapes)}, not {shape}")
    if split not in SPLITS:
        raise UserError(f"{name}: no split {split!r}; there are: {', '.join(SPLITS)}")
