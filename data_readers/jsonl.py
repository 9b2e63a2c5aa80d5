"""JSON lines: one object a line, strict, every value as a string."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from sentence_forge.data_readers.rows import MAX_CELL, BadRow, Row, check_header, first_fault, open_text, shown
from sentence_forge.runtime.errors import UserError


def header(path: Path) -> list[str]:
    """Return the keys of the first object.

    Raises:
        UserError: the file is empty or its first line is no JSON object.
    """
    with open_text(path) as file:
        for line, text in _lines(path, file):
            try:
                return check_header(path, list(_parse(text)))
            except ValueError as error:
                raise UserError(f"{path}, line {line}: {error}; one JSON object a line is expected") from None
    raise UserError(f"{path}: is empty")


def rows(path: Path, columns: Sequence[str]) -> Iterator[Row | BadRow]:
    """Yield the rows; numbers come as they are spelled in the file, and null, true, lists and objects are bad."""
    number = 0
    with open_text(path) as file:
        for line, text in _lines(path, file):
            number += 1
            try:
                values = _values(_parse(text), columns)
                reason = first_fault(columns, values)
            except ValueError as error:
                reason = str(error)
            yield Row(line, number, values) if reason is None else BadRow(line, number, reason, shown(text.strip()))


def _lines(path: Path, file: TextIO) -> Iterator[tuple[int, str]]:
    for line, text in enumerate(iter(partial(file.readline, MAX_CELL), ""), 1):
        if len(text) == MAX_CELL:
            raise UserError(f"{path}, line {line}: is longer than {MAX_CELL:,} characters")
        if not text.isspace():
            yield line, text


def _parse(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.colno})") from None
    except RecursionError:
        raise ValueError("not JSON that can be read (nested too deeply)") from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def _refuse(constant: str) -> str:
    raise ValueError(f"{constant} is not JSON; write a number or a string")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _values(found: dict[str, Any], columns: Sequence[str]) -> list[str]:
    values = []
    for column in columns:
        value = found.get(column)
        if not isinstance(value, str):
            what = json.dumps(value)[:40] if column in found else "missing"
            raise ValueError(f"column {column}: is {what}, not a string or number")
        values.append(value)
    return values
