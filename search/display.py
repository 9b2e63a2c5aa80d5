"""Hits and pairs as text: a table cut to the terminal's width, or tab-separated lines for a file or pipe."""

from __future__ import annotations

import json
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sentence_forge.eval.report.formatting import width_of

if TYPE_CHECKING:
    from sentence_forge.search.text_search import Hit, Pair
    from sentence_forge.search.thresholds import Thresholds

_DIM, _BOLD, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_ID_WIDTH = 16
_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # reorder what follows them, also beyond their own line
_HARMFUL = re.compile(f"[{_BIDI}\x7f-\x9f\u2028\u2029]")


def terminal_width() -> int | None:
    """Return the terminal's width in cells; None where standard output is a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_lines(lines: Iterable[str]) -> None:
    """Write lines to standard output as UTF-8, whatever encoding the terminal or pipe is set to."""
    sys.stdout.flush()
    sys.stdout.buffer.write("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
    sys.stdout.buffer.flush()


def print_json(value: object) -> None:
    """Write one JSON object as a line; what could steer a terminal is escaped, so that the value stays the same."""
    text = json.dumps(value, ensure_ascii=False)
    print_lines([_HARMFUL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)])


def cut(text: str, width: int) -> str:
    """Return ``text`` in at most ``width`` cells, an ellipsis at the end where something is left out."""
    if width_of(text) <= width:
        return text
    shown, used = [], 1
    for char in text:
        used += width_of(char)
        if used > width:
            break
        shown.append(char)
    return "".join(shown).rstrip() + "…"


def one_line(text: str) -> str:
    """Return ``text`` without what could break a line or steer a terminal: control characters, marks of direction."""
    shown = (" " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char for char in text)
    return " ".join(_HARMFUL.sub("", "".join(shown)).split())


def hits_table(hits: Sequence[Hit], width: int | None, thresholds: Thresholds | None = None) -> list[str]:
    """Return one line a hit: rank, score, id, title; in a terminal also whether it is the same, or related.

    Args:
        hits: of one query, best first.
        width: the terminal's width in cells; None for tab-separated values, complete.
        thresholds: from which scores two texts are the same or related.
    """
    if width is None:
        return [f"{hit.rank}\t{hit.score:.4f}\t{one_line(hit.id)}\t{one_line(hit.title)}" for hit in hits]
    ids = [cut(one_line(hit.id), _ID_WIDTH) for hit in hits]
    id_width = max(map(width_of, ids), default=0)
    rank_width = max(3, len(str(len(hits))))
    room = max(20, width - rank_width - id_width - 12 - (9 if thresholds else 0))
    return [f"{hit.rank:>{rank_width}}  {_BOLD}{hit.score:7.4f}{_PLAIN}{_mark(thresholds, hit.score)}  "
            f"{_DIM}{' ' * (id_width - width_of(name))}{name}{_PLAIN}  {cut(one_line(hit.title), room)}"
            for hit, name in zip(hits, ids, strict=True)]


def _mark(thresholds: Thresholds | None, score: float) -> str:
    return "" if thresholds is None else f"  {_DIM}{thresholds.of(score):<7}{_PLAIN}"


def pairs_table(pairs: Sequence[Pair], width: int | None, thresholds: Thresholds | None = None) -> list[str]:
    """Return a score and two ids and titles a pair: on two lines for a terminal, on one for a file."""
    if width is None:
        return ["\t".join((f"{pair.score:.4f}", one_line(pair.id1), one_line(pair.title1), one_line(pair.id2),
                           one_line(pair.title2))) for pair in pairs]
    ids = [cut(one_line(name), _ID_WIDTH) for pair in pairs for name in (pair.id1, pair.id2)]
    id_width = max(map(width_of, ids), default=0)
    room = max(20, width - id_width - 12 - (9 if thresholds else 0))
    lines = []
    for pair in pairs:
        blank = " " * (16 if thresholds else 7)
        scored = f"{pair.score:7.4f}{_PLAIN}{_mark(thresholds, pair.score)}"
        for score, name, title in ((scored, pair.id1, pair.title1), (blank, pair.id2, pair.title2)):
            name = cut(one_line(name), _ID_WIDTH)
            lines.append(f"{_BOLD}{score}{_PLAIN}  {_DIM}{' ' * (id_width - width_of(name))}{name}{_PLAIN}  "
                         f"{cut(one_line(title), room)}")
    return lines


def times_line(query: str, hits: int, rows: int, encode_ms: float, search_ms: float, width: int | None) -> str:
    """Return the line above the hits: the query, how many of how many rows, and the two times."""
    times = f"{hits} of {rows:,} titles · encode {encode_ms:.1f} ms · search {search_ms:.1f} ms"
    query = one_line(query)
    if width is None:
        return f"# {query}\t{times}"
    return f"{_BOLD}{cut(query, max(10, width - width_of(times) - 2))}{_PLAIN}  {_DIM}{times}{_PLAIN}"
