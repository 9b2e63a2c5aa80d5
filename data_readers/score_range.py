"""Find the range of a file's scores, such as 0 to 5, from all the scores in it."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sentence_forge.data_readers.formats.files import rows_of
from sentence_forge.data_readers.formats.rows import Row, RowFile, place, shown
from sentence_forge.runtime.errors import UserError

logger = logging.getLogger(__name__)

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class Scores(NamedTuple):
    """The scores of a file: how many there are, the lowest and the highest, and the line of the highest."""

    number: int
    low: float
    high: float
    line: int


def parse_score(text: str, score_range: tuple[float, float] | None = None, *, comma: bool = False,
                key: str | None = None) -> float:
    """Return a score.

    Args:
        text: as the file spells it.
        score_range: the lowest and the highest there may be; None means any.
        comma: whether a decimal comma is meant, as in files whose cells are separated by semicolons.
        key: the part of the config that has ``score_range``, for the error; None where it stands alone.

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
                         f"{'' if key is None else key + '.'}score_range=[low,high]")
    return score


def scores_of(found: Iterable[tuple[int, float]]) -> Scores:
    """Return the count, the lowest and the highest of scores that come with their lines."""
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
        ValueError: it is none of these, or ambiguous; says what to type.
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


def checked_range(score_range: Sequence[float]) -> tuple[float, float]:
    """Return a range that a user gave, checked.

    Raises:
        UserError: it is not two numbers, the lower one first.
    """
    if len(score_range) != 2 or not (all(map(math.isfinite, score_range)) and score_range[0] < score_range[1]):
        raise UserError(f"data.score_range is {list(score_range)}; give the lowest and the highest score, as [0,5]")
    return float(score_range[0]), float(score_range[1])


def warn_if_too_wide(path: Path, score_range: tuple[float, float], highest: float) -> None:
    """Warn of scores that don't reach beyond a fifth of the range that a person gave."""
    low, high = score_range
    if highest <= low + (high - low) / 5:
        logger.warning("%s: its highest score is %g, though data.score_range is %g to %g; is that the range of this "
                       "file?", path, highest, low, high)


def range_of_files(columns: Sequence[tuple[RowFile, str]], *, stop: bool) -> tuple[float, float]:
    """Return the range that the scores of the train file have, and say so.

    Args:
        columns: the train file with its column of scores, and the dev file with its own, if there is one.
        stop: whether a bad row or a score that is no number is an error here; else it is left to who reads the rows.

    Raises:
        UserError: the range is ambiguous, the dev file's scores are of another one, or with ``stop`` a row is bad.
    """
    train = columns[0][0].path
    scores, *others = (scores_of(_numbers(file, column, stop)) for file, column in columns)
    if not scores.number:
        return 0.0, 1.0  # why no row is good is said by who reads them
    try:
        low, high = range_of(scores)
    except ValueError as error:
        raise UserError(f"{train}: {error}") from None
    logger.info("%s: its scores, %g to %g, are read as %g to %g (data.score_range= overrides it)", train,
                scores.low, scores.high, low, high)
    for (file, _), other in zip(columns[1:], others, strict=True):
        # 0 to 1 is of another range than 0 to 5, though within it
        fits = low <= other.low and low + (high - low) / 5 < other.high <= high
        if other.number and not fits:
            raise UserError(f"{file.path}: its scores go from {other.low:g} to {other.high:g} (line {other.line}), but "
                            f"those of {train} from {scores.low:g} to {scores.high:g}; bring both to one range, and "
                            "give it as data.score_range=[low,high]")
    return low, high


def _numbers(file: RowFile, column: str, stop: bool) -> Iterator[tuple[int, float]]:
    comma = file.detected.get("separator") == ";"
    for row in rows_of(file, [column]):
        if isinstance(row, Row):
            try:
                yield row.line, parse_score(row.values[0], comma=comma)
            except ValueError as error:
                if stop:
                    raise UserError(f"{place(file.path, row.line, row.number, column)}: {error}") from None
        elif stop:
            raise UserError(f"{place(file.path, row.line, row.number)}: {row.reason}")
