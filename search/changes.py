"""Compare the hits of two indexes of one corpus: which entered, which left, and how far the indexes agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sentence_forge.eval.report.formatting import width_of
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.display import cut, one_line
from sentence_forge.search.index import Index
from sentence_forge.search.text_search import Hit

MOST_DRAWN = 200  # titles that are queries where none are given
_GREEN, _RED, _DIM, _BOLD, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[1m", "\x1b[0m"


class Move(NamedTuple):
    """A hit on one side or both: its rank in the old and in the new list, None where it is not in it."""

    old: int | None
    new: int | None
    id: str
    title: str

    @property
    def what(self) -> str:
        """What happened: ``entered``, ``left``, ``same`` or ``moved``."""
        if self.old is None or self.new is None:
            return "entered" if self.old is None else "left"
        return "same" if self.old == self.new else "moved"

    @property
    def mark(self) -> str:
        """The same in a sign: ``+``, ``-``, ``=``, or an arrow with the number of ranks."""
        if self.what == "moved" and self.old is not None and self.new is not None:
            return f"↑{self.old - self.new}" if self.old > self.new else f"↓{self.new - self.old}"
        return {"entered": "+", "left": "-", "same": "="}[self.what]


@dataclass(frozen=True)
class Change:
    """One query's hits before and after.

    Args:
        query: as asked.
        old: the hits of the old index, best first.
        new: those of the new one.
        moves: every hit of either, in the new order, then those that left in the old order.
        overlap: the share of the new hits that were old hits too.
    """

    query: str
    old: list[Hit]
    new: list[Hit]
    moves: list[Move]
    overlap: float

    @property
    def entered(self) -> list[Move]:
        """Hits that only the new index has."""
        return self._that("entered")

    @property
    def left(self) -> list[Move]:
        """Hits that only the old index has."""
        return self._that("left")

    @property
    def moved(self) -> list[Move]:
        """Hits of both at other ranks."""
        return self._that("moved")

    def _that(self, what: str) -> list[Move]:
        return [move for move in self.moves if move.what == what]


def changes(new: Index, old: Index, queries: Sequence[str], k: int = 10, *, exact: bool = False) -> list[Change]:
    """Return each query's hits in both indexes, each asked with its own model.

    Rows are the same by id where both indexes hold the same rows, else by title. A query that is itself a title of the
    corpus does not find itself.

    Raises:
        UserError: there is no query, or one can't be encoded.
    """
    if not queries:
        raise UserError("there are no queries; give a file with one a line")
    by_id = same_rows(new, old)
    found = []
    for before, after, query in zip(_hits(old, queries, k, exact), _hits(new, queries, k, exact), queries, strict=True):
        found.append(_change(query, before, after, (lambda hit: hit.id) if by_id else (lambda hit: hit.title)))
    return found


def same_rows(new: Index, old: Index) -> bool:
    """Return whether both indexes hold the same ids with the same titles."""
    return (len(new.ids) == len(old.ids)
            and dict(zip(new.ids, new.titles, strict=True)) == dict(zip(old.ids, old.titles, strict=True)))


def drawn_queries(index: Index, count: int = MOST_DRAWN, seed: int = 0) -> list[str]:
    """Return titles of an index to ask it with, drawn by chance, each once."""
    rows = np.random.default_rng(seed).permutation(len(index.titles))[:count]
    return list(dict.fromkeys(index.titles[int(row)] for row in rows))


def summary(found: Sequence[Change], k: int) -> list[str]:
    """Return a summary of all queries in two lines: overlap, and how many hits changed."""
    overlap = np.array([change.overlap for change in found])
    same = sum(not change.entered and not change.left and not change.moved for change in found)
    first = sum(bool(change.new and change.old) and not any(move.old == move.new == 1 for move in change.moves)
                for change in found)
    said = f"{len(found):,} queries" if len(found) > 1 else "1 query"
    low, middle, high = np.quantile(overlap, [0.25, 0.5, 0.75])
    spread = f" (quartiles {100 * low:.0f}, {100 * middle:.0f}, {100 * high:.0f} %)" if len(found) > 1 else ""
    entered, left, moved = (sum(len(getattr(each, name)) for each in found) for name in ("entered", "left", "moved"))
    return [f"{said}: the top {k} overlap by {100 * overlap.mean():.1f} %{spread}",
            f"unchanged {same:,} · another first hit {first:,} · entered {entered:,} · left {left:,} · moved {moved:,}"]


def side_by_side(change: Change, width: int) -> list[str]:
    """Return one query's lists for a terminal of ``width`` cells: the old one left, the new one right."""
    half = max(24, (width - 3) // 2)
    marks = {move.new: move.mark for move in change.moves}
    gone = {move.old: move.mark for move in change.left}
    lines = [f"{_BOLD}{cut(one_line(change.query), width - 16)}{_PLAIN}  {_DIM}overlap {100 * change.overlap:.0f} %"
             f"{_PLAIN}"]
    for rank in range(1, max(len(change.old), len(change.new)) + 1):
        left = _cell(change.old, rank, gone.get(rank, ""), half)
        right = _cell(change.new, rank, marks.get(rank, ""), half)
        lines.append(f"{left} │ {right}")
    return lines


def as_lines(change: Change) -> list[str]:
    """Return one query's hits as tab-separated values: query, what happened, old rank, new rank, id, title."""
    return ["\t".join((one_line(change.query), move.what, str(move.old or ""), str(move.new or ""),
                       one_line(move.id), one_line(move.title))) for move in change.moves]


def as_json(change: Change) -> dict[str, object]:
    """Return one query's changes as JSON holds them."""
    return {"query": change.query, "overlap": round(change.overlap, 6),
            **{name: [move._asdict() for move in getattr(change, name)] for name in ("entered", "left", "moved")}}


def _hits(index: Index, queries: Sequence[str], k: int, exact: bool) -> Iterable[list[Hit]]:
    for hits, query in zip(index.search(queries, k + 1, exact=exact), queries, strict=True):
        others = [hit for hit in hits if hit.title != query][:k]
        yield [hit._replace(rank=rank) for rank, hit in enumerate(others, start=1)]


def _change(query: str, old: list[Hit], new: list[Hit], key: Callable[[Hit], str]) -> Change:
    before: dict[str, int] = {}
    for hit in old:
        before.setdefault(key(hit), hit.rank)
    after = {key(hit) for hit in new}
    moves = [Move(before.get(key(hit)), hit.rank, hit.id, hit.title) for hit in new]
    moves += [Move(hit.rank, None, hit.id, hit.title) for hit in old if key(hit) not in after]
    common = sum(move.old is not None for move in moves if move.new is not None)
    return Change(query, old, new, moves, common / len(new) if new else 1.0)


def _cell(hits: Sequence[Hit], rank: int, mark: str, width: int) -> str:
    if rank > len(hits):
        return " " * width
    colour = _GREEN if mark[:1] in "+↑" and mark else _RED if mark[:1] in "-↓" and mark else _DIM
    title = cut(one_line(hits[rank - 1].title), width - 8)
    return f"{rank:>2} {colour}{mark:<3}{_PLAIN} {title}{' ' * max(0, width - 7 - width_of(title))}"
