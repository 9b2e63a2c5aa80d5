"""Hold the rows of a file while it is read: a few in memory, many in a file that has no name and is memory-mapped."""

from __future__ import annotations

import contextlib
import mmap
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from sentence_forge.data_readers.lazy import BLOCK, LazyStrings
from sentence_forge.runtime.disk import naming_a_full_disk
from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


class StagedRows:
    """Rows of strings that come one by one and are given back as columns; to be used as a context.

    More than a block of them go to a file, a block at a time. It has no name, so that nothing is left of it however the
    process ends, and its room is free again once the columns are no longer used.

    Args:
        width: strings in a row.
        folder: where the file goes; by default the system's folder for temporary files, ``$TMPDIR``.
    """

    def __init__(self, width: int, folder: Path | None = None) -> None:
        self._names, self._folder = [str(number) for number in range(width)], folder
        self._block: list[Sequence[str]] = []
        self._file: IO[bytes] | None = None
        self._writer: pa.RecordBatchStreamWriter | None = None

    def __enter__(self) -> StagedRows:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # of a full disk, which was reported; closed it is all the same
                self._file.close()

    def add(self, row: Sequence[str]) -> None:
        """Take a row.

        Raises:
            UserError: the disk is full, or there is no folder for temporary files.
        """
        if len(self._block) == BLOCK:
            self._write()
        self._block.append(row)

    def columns(self) -> list[Sequence[str]]:
        """Return the columns, once all rows were added: lists, or what is read from the file when asked for.

        Raises:
            UserError: as ``add``.
        """
        if self._writer is None:
            return list(map(list, zip(*self._block, strict=True))) or [[] for _ in self._names]
        import pyarrow as pa

        self._write()
        assert self._file is not None
        with naming_a_full_disk(self._place()):
            self._writer.close()
            self._file.flush()
        mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)  # which outlasts the open file
        table = pa.ipc.open_stream(pa.py_buffer(mapped)).read_all()
        return [LazyStrings(table[name].chunks) for name in self._names]

    def _write(self) -> None:
        import pyarrow as pa

        place = self._place()
        with naming_a_full_disk(place):
            if self._writer is None:
                self._file = tempfile.TemporaryFile(dir=place.parent)  # noqa: SIM115 - closed by __exit__
                schema = pa.schema([(name, pa.large_string()) for name in self._names])
                self._writer = pa.ipc.new_stream(self._file, schema)
            cells = [pa.array(column, pa.large_string()) for column in zip(*self._block, strict=True)]
            self._writer.write_batch(pa.record_batch(cells, self._names))
        self._block.clear()

    def _place(self) -> Path:
        """Return what an error calls the file."""
        try:
            return (self._folder or Path(tempfile.gettempdir())) / "corpus"
        except FileNotFoundError as error:
            raise UserError(f"no folder for temporary files can be written to ({error}); name one in $TMPDIR") from None
