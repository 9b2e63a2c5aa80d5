"""What to mark next: the hits whose marks would say most, and how many marks are enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import median

from sentence_forge.search.text_search import Hit
from sentence_forge.search.thresholds import Thresholds

QUERIES = 24
LOOKED_AT = 10  # hits of a query
SHOWN = 30
_A_QUERY = 3  # hits proposed of one query
AIM = 0.05  # half the width of the interval that is wanted
_Z = 1.96  # of 95 %
TO_TRAIN = 30  # marks from which a training is worth a try


@dataclass(frozen=True)
class Proposal:
    """A hit to mark, and why: ``unsure`` (near the threshold) or ``differ`` (only one of two models finds it)."""

    query: str
    hit: Hit
    why: str
    distance: float


@dataclass(frozen=True)
class Enough:
    """How sure the share of right hits is, by the Wilson interval (Wilson 1927).

    Args:
        marks: that stand.
        share: of the right ones.
        half: half the width of its 95 % interval; 1 without marks.
        needed: marks that make it `AIM`, at this share.
    """

    marks: int
    share: float
    half: float
    needed: int


def enough(counts: dict[str, int]) -> Enough:
    """Return how many marks there are and how many more are worth giving."""
    n = sum(counts.values())
    right = counts.get("right", 0)
    if n == 0:
        return Enough(0, 0.0, 1.0, _needed(0.5))
    share = right / n
    half = _Z / (1 + _Z**2 / n) * sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)  # of the interval: never quite 0 or 1
    return Enough(n, share, half, max(_needed(centre), TO_TRAIN))


def _needed(share: float) -> int:
    return ceil(_Z**2 * share * (1 - share) / AIM**2)


def queries_to_ask(marked: Sequence[str], drawn: Sequence[str]) -> list[str]:
    """Return texts to propose hits of: queries that people asked, newest first, then titles drawn by chance.

    Args:
        marked: queries of marks, newest first; may repeat.
        drawn: `QUERIES` titles of the index drawn by chance, or all where there are fewer.
    """
    asked = list(dict.fromkeys(marked))[:QUERIES // 2]
    return list(dict.fromkeys([*asked, *drawn[:QUERIES - len(asked)]]))


def propose(found: Mapping[str, Sequence[Hit]], other: Mapping[str, Sequence[Hit]] | None,
            thresholds: Thresholds | None, known: Mapping[str, set[str]]) -> list[Proposal]:
    """Return hits to mark: those that one of two models finds first, then those of ambiguous score.

    Args:
        found: each query's hits.
        other: another model's, if there is one.
        thresholds: from which cosine texts mean the same; without, the middle of all scores stands for it.
        known: each query's texts that are marked already.
    """
    line = thresholds.same if thresholds is not None else median(
        [hit.score for hits in found.values() for hit in hits] or [0.0])
    best: list[Proposal] = []
    for query, hits in found.items():
        theirs = list(other[query]) if other is not None else list(hits)
        either = {hit.title: hit for hit in [*theirs, *hits] if hit.title not in known[query] | {query}}
        both = {hit.title for hit in hits} & {hit.title for hit in theirs}
        best += sorted((Proposal(query, hit, "unsure" if hit.title in both else "differ", abs(hit.score - line))
                        for hit in either.values()), key=_most_telling)[:_A_QUERY]
    best = sorted(best, key=_most_telling)[:SHOWN]
    place = {query: number for number, query in reversed(list(enumerate(proposal.query for proposal in best)))}
    return sorted(best, key=lambda proposal: place[proposal.query])  # one query's together: easier to judge


def _most_telling(proposal: Proposal) -> tuple[bool, float]:
    return proposal.why != "differ", proposal.distance
