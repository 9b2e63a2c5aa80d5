"""The kept columns on the page: which of them can be filtered by, with which values, and what a form asks for."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

from sentence_forge.search.text_search import KeptColumns

_MOST_LISTED = 30  # values that a list is chosen from; of more, one types and picks
_MOST_OFFERED = 1000
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Facet:
    """A kept column on the form.

    Args:
        column: its name.
        kind: ``dates`` from and to, one of a ``list`` of values, or one that is ``typed``.
        values: the commonest and in how many rows each is; of dates the first and the last.
    """

    column: str
    kind: Literal["dates", "list", "typed"]
    values: tuple[tuple[str, int], ...]


_known: WeakKeyDictionary[KeptColumns, list[Facet]] = WeakKeyDictionary()  # it keeps no index that was closed
_lock = threading.Lock()  # counting the values of many rows takes seconds, and who asks meanwhile waits for them


def facets(kept: KeptColumns) -> list[Facet]:
    """Return the kept columns that a person can filter by: dates, and those whose values repeat."""
    with _lock:
        if (found := _known.get(kept)) is None:
            found = _known[kept] = _facets(kept)
        return found


def _facets(kept: KeptColumns) -> list[Facet]:
    found = []
    for column in kept.names:
        values = kept.values_of(column, _MOST_OFFERED)
        named = tuple((value, count) for value, count in values.items() if value)
        if named and all(_DATE.match(value) for value, _ in named):
            found.append(Facet(column, "dates", tuple((day[:10], 0) for day in kept.bounds_of(column))))
        elif 1 < len(values) <= _MOST_LISTED:
            found.append(Facet(column, "list", named))
        elif len(values) > 1 and sum(count for _, count in named) >= 2 * len(named):  # not ids, addresses, summaries
            found.append(Facet(column, "typed", named))
    return found


def where_of(fields: Iterable[tuple[str, str]]) -> list[str]:
    """Return the conditions that a form's fields say.

    ``is.<column>``, ``from.<column>`` and ``to.<column>`` are those of the facets, ``filter`` is a condition itself.
    """
    operators = {"is": "=", "from": ">=", "to": "<="}
    where = []
    for name, value in fields:
        kind, _, column = name.partition(".")
        if name == "filter":
            where.append(value)
        elif kind in operators and value.strip():
            day = kind == "to" and _DATE.fullmatch(value)  # to the end of it, where cells hold a time, too
            where.append(f"{column}{operators[kind]}{value}{'T~' if day else ''}")
    return where
