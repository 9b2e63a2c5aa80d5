"""Read JSON lines or a JSON array strictly: each object or string is a row, and every value comes as a string."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sentence_forge.data_readers.formats.reading import Reading
from sentence_forge.data_readers.formats.rows import BadRow, Row, RowFile, check_header, first_fault, shown
from sentence_forge.data_readers.formats.text import TextFile
from sentence_forge.runtime.errors import UserError

_MOST_ARRAY = 1 << 29  # characters of a file that is one array, which is in memory while it is read
_LOOKED_AT = 100  # objects, for lists that the first one hasn't
_TEXT = "title"  # the column of strings without any
_JSON_SPACE = re.compile(r"[ \t\r\n]*")

_Object = dict[str, Any]


class JsonFile(RowFile):
    """A file of JSON lines, or of one array; its columns are the first object's keys, and others' keys of lists.

    Numbers come as they are spelled in the file; null, true and objects are bad cells, and so are lists, except those
    of a column whose first cell is one.

    Raises:
        UserError: it is empty or holds something else.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        super().__init__(path)
        self._text, self._nul = TextFile(path, reading), reading.nul
        if not self._text.encoding.startswith("utf-8"):
            self.detected["encoding"] = self._text.encoding
        with self._text.open() as file:
            self._is_array = file.read(4096).lstrip().startswith("[")
        line, _, first = next(self._values(), (1, "", None))
        if first is None:
            raise UserError(f"{path}: is empty")
        if isinstance(first, ValueError):
            raise UserError(f"{path}, line {line}: {first}; one JSON object a line is expected, or an array of them")
        start = [found for _, _, found in islice(self._values(), _LOOKED_AT) if isinstance(found, dict)]
        lists = {name: None for found in start for name, value in found.items() if isinstance(value, list)}
        self.lists = frozenset(name for name in lists if isinstance(first.get(name, []), list))
        more = [name for name in lists if name not in first]
        self.columns = check_header(path, [*first, *more], reading.key)

    def rows(self, columns: Sequence[str]) -> Iterator[Row | BadRow]:
        """Yield the rows."""
        for number, (line, text, found) in enumerate(self._values(), 1):
            try:
                if isinstance(found, ValueError):
                    raise found
                values = _cells(found, columns, self.lists)
                reason = first_fault(columns, values, self._text.encoding, nul=self._nul)
            except ValueError as error:
                reason = str(error)
            yield Row(line, number, values) if reason is None else BadRow(line, number, reason, shown(text.strip()))

    def _values(self) -> Iterator[tuple[int, str, _Object | ValueError]]:
        """Yield the objects, or why there is none, each with its line and text."""
        with self._text.open() as file:
            if not self._is_array:
                for line, text in enumerate(self._text.lines(file), 1):
                    if not text.isspace():
                        value, end = _decoded(text, _JSON_SPACE.match(text).end())  # type: ignore[union-attr]
                        if end >= 0 and text[end:].strip():
                            value = ValueError(f"not JSON (extra data at character {end + 1})")
                        yield line, text, value
                return
            text = file.read(_MOST_ARRAY)
            if file.read(1):
                raise UserError(f"{self.path}: is an array of more than {_MOST_ARRAY:,} characters; save it as JSON "
                                "lines, one object a line")
        yield from self._elements(text)

    def _elements(self, text: str) -> Iterator[tuple[int, str, _Object | ValueError]]:
        """Yield the elements of an array, each with the line on which it begins."""
        end, line, counted = text.index("["), 1, 0
        while True:
            at = _JSON_SPACE.match(text, end + 1).end()  # type: ignore[union-attr]
            line, counted = line + text.count("\n", counted, at), at
            if text[at:at + 1] == "]" and text[end] == "[":
                break
            value, end = _decoded(text, at)
            if end < 0:
                raise UserError(f"{self.path}, line {line}: {value}; the rest of the array can't be read")
            yield line, text[at:min(end, at + 1000)], value
            end = _JSON_SPACE.match(text, end).end()  # type: ignore[union-attr]
            if text[end:end + 1] == "]":
                at = end
                break
            if text[end:end + 1] != ",":
                raise UserError(f"{self.path}, line {line}: neither comma nor ] after this element of the array")
        if text[at + 1:].strip():
            raise UserError(f"{self.path}: has more after the end of its array; give one array, or one object a line")


def _decoded(text: str, at: int) -> tuple[_Object | ValueError, int]:
    """Return the object at a place of a text and where it ends, or why there is none and -1."""
    try:
        found, end = _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" starting at")
        if error.pos >= len(text.rstrip()) or what.startswith("Unterminated"):
            return ValueError(f"not JSON ({what}); it is cut short"), -1
        return ValueError(f"not JSON ({what} at character {error.colno})"), -1
    except RecursionError:
        return ValueError("not JSON that can be read (nested too deeply)"), -1
    except ValueError as error:
        return error, -1
    found = {_TEXT: found} if isinstance(found, str) else found
    return found if isinstance(found, dict) else ValueError("not a JSON object"), end


def _refuse(constant: str) -> str:
    raise ValueError(f"{constant} is not JSON; write a number or a string")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse, object_pairs_hook=_unique)


def _cells(found: _Object, columns: Sequence[str], lists: frozenset[str]) -> list[str]:
    values = []
    for column in columns:
        value = found.get(column)
        if column in lists and (value is None or isinstance(value, list | str)):
            value = json.dumps([value] if isinstance(value, str) else value or [])
        if not isinstance(value, str):
            what = json.dumps(value)[:40] if column in found else "missing"
            raise ValueError(f"column {column}: is {what}, not a string or number")
        values.append(value)
    return values
