"""The kept columns on the page: which of them can be filtered by, with which values, and what a form asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from sentence_forge.search.index import Index

_MOST_VALUES = 30  # of a column that is filtered by one of its values
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Facet:
    """A kept column on the form: from and to for dates, else one of its values (and in how many rows each is)."""

    column: str
    is_date: bool
    values: tuple[tuple[str, int], ...]


@lru_cache(2)
def facets(index: Index) -> list[Facet]:
    """Return the columns of an index that a person can filter by: dates, and those of few values."""
    found = []
    for column in index.kept.names:
        values = index.kept.values_of(column, _MOST_VALUES + 1)
        named = tuple((value, count) for value, count in values.items() if value)
        if named and all(_DATE.match(value) for value, _ in named):
            found.append(Facet(column, True, ()))
        elif 1 < len(values) <= _MOST_VALUES:
            found.append(Facet(column, False, named))
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
