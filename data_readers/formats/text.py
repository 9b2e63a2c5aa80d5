"""Read a text file line by line, in the encoding that it has."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TextIO

from sentence_forge.data_readers.formats.encoding import encoding_of
from sentence_forge.data_readers.formats.packed import open_bytes
from sentence_forge.data_readers.formats.reading import Reading
from sentence_forge.data_readers.formats.rows import MAX_CELL, shown
from sentence_forge.runtime.errors import UserError


class TextFile:
    """A text file whose encoding is known.

    Args:
        path: the file, packed or not.
        reading: what a person says of it.

    Raises:
        UserError: it can't be read, or its encoding is ambiguous.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path = path
        with open_bytes(path) as raw:
            self.encoding = encoding_of(path, raw, reading)

    @contextlib.contextmanager
    def open(self) -> Iterator[TextIO]:
        """Open the file with its line ends kept and a byte order mark dropped.

        A byte that can't be decoded comes as a lone surrogate (``surrogateescape``), so that it costs one row.
        """
        name = "utf-8-sig" if self.encoding.replace("_", "-").lower() in ("utf-8", "utf8") else self.encoding
        with open_bytes(self.path) as raw:
            try:
                yield io.TextIOWrapper(raw, name, "surrogateescape", newline="")
            except UnicodeError as error:  # where not even surrogateescape helps
                raise UserError(f"{self.path}: is not {self.encoding} ({error}); save it as UTF-8") from None

    def lines(self, file: TextIO) -> Iterator[str]:
        """Yield the lines of the opened file.

        Raises:
            UserError: a line has more than ``MAX_CELL`` characters.
        """
        for line in iter(partial(file.readline, MAX_CELL), ""):
            if len(line) == MAX_CELL:
                raise UserError(f"{self.path}: has a line longer than {MAX_CELL:,} characters "
                                f"({shown(line)[:60]!r}...)")
            yield line
