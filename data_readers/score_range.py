"""The lowest and the highest score that a file can have, found from all the scores that it has."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from sentence_forge.data_readers.formats.rows import shown

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class Scores(NamedTuple):
    """The scores of a file: how many there are, the lowest and the highest, and the line of the highest."""

    number: int
    low: float
    high: float
    line: int


def parse_score(text: str, score_range: tuple[float, float] | None = None, *, comma: bool = False) -> float:
    """Return a score.

    Args:
        text: as the file spells it.
        score_range: the lowest and the highest there may be; None means any.
        comma: whether a decimal comma is meant, as in files whose cells are separated by semicolons.

    Raises:
        ValueError: not a finite decimal number, or outside ``score_range``.
    """
    text = text.strip()
    if re.fullmatch(r"[+-]?\d+,\d+", text, re.ASCII) and comma:
        text = text.replace(",", ".")
    if not _NUMBER.fullmatch(text):
        hint = "; write it with a point, not a comma" if "," in text else ""
        raise ValueError(f"{shown(text)[:40]!r} is not a number{hint}")
    score = float(text)
    low, high = score_range or (-math.inf, math.inf)
    if not math.isfinite(score) or not low <= score <= high:
        raise ValueError(f"score {text} is outside {low:g} to {high:g}; if the source's range is another, say so with "
                         "score_range=[low,high]")
    return score


def scores_of(found: Iterable[tuple[int, float]]) -> Scores:
    """Return what there is to know of scores, which come with their lines."""
    count, low, high, at = 0, math.inf, -math.inf, 0
    for line, score in found:
        count += 1
        low = min(low, score)
        if score > high:
            high, at = score, line
    return Scores(count, low, high, at)


def range_of(scores: Scores, key: str = "data") -> tuple[float, float]:
    """Return the range that scores have: -1 to 1, 0 to 1, 0 to 5 or 1 to 5.

    Raises:
        ValueError: it is none of these, or can't be told; says what to type.
    """
    _, low, high, line = scores
    has = f"its scores go from {low:g} to {high:g} (line {line})"
    if low == high:
        raise ValueError(f"all its scores are {low:g}, so their range can't be told; give {key}.score_range=[0,1], or "
                         "whatever it is")
    if low < 0:
        if low >= -1 and high <= 1:
            return -1.0, 1.0
        raise ValueError(f"{has}; give their range, as {key}.score_range=[{math.floor(low)},{math.ceil(high)}]")
    if 0.5 < high <= 1:
        return 0.0, 1.0
    if 4 < high <= 5 and (low < 1 or low == 1):
        return (1.0, 5.0) if low == 1 else (0.0, 5.0)
    if high <= 1:
        likely = ["[0,1]", "[0,5]"]
    elif high <= 5:
        likely = [f"[0,{math.ceil(high)}]", *(["[1,5]"] if low >= 1 else []), *(["[0,5]"] if high <= 4 else [])]
    else:
        likely = [f"[{0 if low < 1 else 1},{10 if high <= 10 else 100 if high <= 100 else math.ceil(high)}]"]
    raise ValueError(f"{has}, which doesn't tell what the highest can be; give it as "
                     f"{' or '.join(f'{key}.score_range={each}' for each in likely)}")
