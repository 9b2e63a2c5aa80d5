"""What another model changes, as a page: the summary, then each query's two lists, the most changed first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sentence_forge.search.changes import Change, Move, summary

MOST_SHOWN = 300


class Line(NamedTuple):
    """A hit on the page: its title, how it is coloured (``good``, ``bad`` or not), and how it moved."""

    title: str
    kind: str = ""
    moved: str = ""


def page(found: Sequence[Change], k: int, new: str, old: str, note: str = "") -> str:
    """Return the page on what ``new`` changes against ``old``."""
    from sentence_forge.eval.report.html import render

    most = sorted(found, key=lambda change: change.overlap)[:MOST_SHOWN]
    left_out = f"The {len(most)} most changed are shown." if len(most) < len(found) else ""
    return render("changes", title="What changed", new=new, old=old, note=note, lines=summary(found, k),
                  bins=_bins([change.overlap for change in found]), left_out=left_out, queries=[
                      {"text": change.query, "overlap": f"{100 * change.overlap:.0f}", "before": _before(change),
                       "after": [_after(move) for move in change.moves if move.new is not None]} for change in most])


def _bins(overlaps: Sequence[float]) -> list[tuple[int, str]]:
    """Return how many queries are in each of eleven bins of overlap, and how high its bar is in %."""
    if len(overlaps) < 2:
        return []
    counts = np.histogram(overlaps, bins=11, range=(-0.05, 1.05))[0]
    return [(int(count), f"{100 * count / counts.max():.0f}") for count in counts]


def _before(change: Change) -> list[Line]:
    gone = {move.old for move in change.left}
    return [Line(hit.title, "bad", "left") if hit.rank in gone else Line(hit.title) for hit in change.old]


def _after(move: Move) -> Line:
    return {"entered": Line(move.title, "good", "entered"), "same": Line(move.title)}.get(
        move.what, Line(move.title, "", move.mark))
