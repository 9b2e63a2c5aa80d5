"""Read well-known data sets by their names, from the released file or from the hub; both give the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.data_readers.file import FileSource
from sentence_forge.data_readers.formats.rows import BadRow
from sentence_forge.data_readers.hub import HubSource, Unreadable, refuse_if_unreachable
from sentence_forge.data_readers.row_source import RowSource
from sentence_forge.data_readers.source import check_request
from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

_ADVICE = "or give the released file, or a folder in the hub's layout, as data.path="


class NamedSource:
    """A data set by its name: the hub's, or the released file.

    Args:
        name: what ``data=`` calls it.
        path: the released file, or a folder in the hub's layout. None means the hub.
        released: the arguments of ``FileSource`` for the released file.
        hub: the arguments of ``HubSource`` for the hub's data set, ``path`` among them.
        on_bad_row: ``stop`` at the first one, or ``skip`` them and go on.
        reverse: of triplets for training also (positive, anchor, negative).
    """

    def __init__(self, name: str, path: str | Path | None = None, *, released: Mapping[str, Any],
                 hub: Mapping[str, Any], on_bad_row: str = "skip", reverse: bool = False) -> None:
        self._name, self._released, self._hub = name, released, hub
        self._path = None if path is None else Path(path).expanduser()
        self._options: dict[str, Any] = {"on_bad_row": on_bad_row, "reverse": reverse}

    def shapes(self) -> list[str]:
        """Return the shapes that the released file or the hub's set gives.

        Raises:
            UserError: it is neither here nor to be had.
        """
        try:
            return self._source.shapes()
        except Unreadable as error:
            raise UserError(f"data={self._name}: {error}; mend that, {_ADVICE}") from None

    def read(self, shape: str, split: str) -> Dataset:
        """Return the rows of a split in a shape; see ``data_readers.source.Source``."""
        check_request(f"data={self._name}", self.shapes(), shape, split)
        return self._source.read(shape, split)

    def rejected(self) -> dict[Path, list[BadRow]]:
        """Return the bad rows that were skipped."""
        return self._source.rejected()

    def paths(self) -> list[Path]:
        """Return the released file, or those of the hub's set."""
        return self._source.paths()

    def detected(self) -> dict[str, dict[str, object]]:
        """Return how the files are read where that isn't usual."""
        return self._source.detected()

    @cached_property
    def _source(self) -> RowSource:
        if self._path is not None and self._path.is_file():
            return FileSource(self._path, **self._released, **self._options)
        if self._path is not None and not self._path.exists():
            raise UserError(f"{self._path}: no such file or folder; leave it out to take the hub's, {_ADVICE}")
        if self._path is None:
            try:
                refuse_if_unreachable(self._hub["path"])
            except UserError as error:
                raise UserError(f"data={self._name}: {error}, {_ADVICE}") from None
        return HubSource(**{**self._hub, **self._options, "path": self._path or self._hub["path"]})
