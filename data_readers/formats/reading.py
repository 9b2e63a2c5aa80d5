"""The options for reading a file: its encoding, separator, sheet and the names of its columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sentence_forge.runtime.errors import UserError, one_of

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "\\t": "\t"}


@dataclass(frozen=True)
class Reading:
    """How a user says that a file is to be read; what is None is detected.

    Args:
        encoding: of a text file, one of Python's names.
        separator: of a CSV file, a character or its name.
        sheet: of a workbook, the name of a sheet; None is the first.
        header: names for the columns of a file without a header.
        key: the part of the config that holds these, for errors; empty where none does.
        nul: whether a cell may hold NUL characters, which somebody will remove.

    Raises:
        UserError: the separator is neither a character nor the name of one.
    """

    encoding: str | None = None
    separator: str | None = None
    sheet: str | None = None
    header: Sequence[str] | None = None
    key: str = ""
    nul: bool = False

    def __post_init__(self) -> None:
        if self.separator is not None and (len(self.delimiter or "") != 1 or (self.delimiter or "") in '"\r\n\0'):
            raise UserError(f"{self.key}.separator={self.separator}: is no separator; give one character, or "
                            f"{one_of(SEPARATORS, self.separator)}")

    def hint(self, option: str) -> str:
        """Return the end of a log line about what was detected: the key that overrides it."""
        return f" ({self.key}.{option}= overrides it)" if self.key else ""

    @property
    def delimiter(self) -> str | None:
        """The separator as a character."""
        return None if self.separator is None else SEPARATORS.get(self.separator, self.separator)
