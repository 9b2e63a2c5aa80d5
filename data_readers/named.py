"""Data sets that everyone calls by name, wherever they lie: a released file, what was fetched, or the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_readers.file import FileSource
from data_readers.get_data import fetched
from data_readers.hub import HubSource, refuse_if_unreachable
from data_readers.rejected import Rejected
from data_readers.source import check_request
from runtime.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

    from data_readers.source import Source


class NamedSource:
    """A data set by its name: the released file or the hub's, which has a subset for each shape.

    Args:
        name: as ``python -m data_readers.get_data`` calls it.
        path: the released file, or a folder in the hub's layout. None takes what was fetched, else the hub.
        released: what :class:`FileSource` must know of the released file.
        hub: what :class:`HubSource` must know of the hub's, ``path`` among it; in ``subsets``, for each shape, what is
            to be known besides.
        on_bad_row: ``stop`` at the first one, or ``skip`` them and go on.
        reverse: of triplets for training also (positive, anchor, negative).
    """

    def __init__(self, name: str, path: str | Path | None = None, *, released: Mapping[str, Any],
                 hub: Mapping[str, Any], on_bad_row: str = "skip", reverse: bool = False) -> None:
        self._name, self._released, self._hub = name, released, hub
        self._path = None if path is None else Path(path).expanduser()
        self._options: dict[str, Any] = {"on_bad_row": on_bad_row, "reverse": reverse}
        self._found: dict[str, Source] = {}

    def shapes(self) -> list[str]:
        """Return the shapes that the released file or the hub's subsets give.

        Raises:
            UserError: it is nowhere.
        """
        return list(self._sources())

    def read(self, shape: str, split: str) -> Dataset:
        """Return the rows of a split in a shape; see :class:`data_readers.source.Source`."""
        check_request(f"data={self._name}", self.shapes(), shape, split)
        try:
            return self._sources()[shape].read(shape, split)
        except UserError as error:
            if "through datasets" not in str(error):
                raise
            raise UserError(f"data={self._name}: {error}; {self._advice()}") from None

    def rejected(self) -> dict[Path, Sequence[Rejected]]:
        """Return the bad rows that were skipped."""
        return {file: rows for source in self._distinct() for file, rows in source.rejected().items()}

    def files(self) -> list[Path]:
        """Return the released file; of the hub's, what was read so far."""
        return [file for source in self._distinct() for file in source.files()]

    def _distinct(self) -> list[Source]:
        read = [source for source in self._sources().values() if not isinstance(source, HubSource) or source.loaded]
        return list({id(source): source for source in read}.values())

    def _sources(self) -> dict[str, Source]:
        """Return the source of each shape."""
        if not self._found:
            file = self._path or fetched(self._name)
            if file is not None and not file.exists():
                raise UserError(f"{file}: no such file or folder; {self._advice()}")
            if file is not None and file.is_file():
                source = FileSource(file, **self._released, **self._options)
                self._found = dict.fromkeys(source.shapes(), source)
            else:
                self._found = self._of_hub(file)
        return self._found

    def _of_hub(self, folder: Path | None) -> dict[str, Source]:
        options = {key: value for key, value in self._hub.items() if key not in ("path", "subsets")} | self._options
        if folder is None:
            try:
                refuse_if_unreachable(self._hub["path"])
            except UserError as error:
                raise UserError(f"data={self._name}: {error}, or {self._advice()}") from None
        return {shape: HubSource(folder or self._hub["path"], **{**options, **more})
                for shape, more in self._hub["subsets"].items()}

    def _advice(self) -> str:
        return f"fetch it by python -m data_readers.get_data {self._name}, or give the released file as data.path="
