"""What to know about data before training on it: labels counted, and what train and dev share."""

from __future__ import annotations

import logging
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from runtime.shapes import SHAPES

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


class Overlap(NamedTuple):
    """How many texts also stand in another set: to the letter, and after :func:`normalise` (those included)."""

    exact: int
    normalised: int


def label_counts(dataset: Dataset) -> dict[str, int]:
    """Return how often each label of the column ``label`` occurs, the most frequent first."""
    return dict(Counter(dataset["label"]).most_common())


def normalise(text: str) -> str:
    """Return ``text`` after NFKC, in lower case, without punctuation, with runs of white space made one space.

    A text of nothing but punctuation keeps it, so that "?!" and "..." stay apart.

    >>> normalise("The  cat's out!")
    'the cats out'
    """
    text = unicodedata.normalize("NFKC", text).lower()
    return " ".join(text.translate(_punctuation()).split() or text.split())


@cache
def _punctuation() -> dict[int, None]:
    codes = range(sys.maxunicode + 1)
    return dict.fromkeys(code for code in codes if unicodedata.category(chr(code)).startswith("P"))


def overlap(texts_a: Iterable[str], texts_b: Iterable[str]) -> Overlap:
    """Count the texts of ``texts_b``, repeated ones each time, that are also in ``texts_a``."""
    return _overlap(((text,) for text in texts_a), ((text,) for text in texts_b))


def leakage(train: Dataset, dev: Dataset, shape: str) -> int:
    """Return how many dev rows are also train rows after normalising; a warning in the log says so if there are any.

    Rows are compared by all their texts together, in any order: a scored pair is the same either way round, and that is
    how the overlap of STS sets is counted.

    Args:
        train: rows of ``shape``.
        dev: rows of ``shape``.
        shape: a name from :data:`runtime.shapes.SHAPES`.
    """
    shared = _overlap(_texts(train, shape), _texts(dev, shape))
    if shared.normalised:
        logger.warning("%d of %d dev rows are also in the train data (%d to the letter): the dev measure is too high",
                       shared.normalised, len(dev), shared.exact)
    return shared.normalised


def _texts(dataset: Dataset, shape: str) -> Iterable[tuple[str, ...]]:
    columns = SHAPES[shape].text_columns(dataset.column_names)
    return zip(*(dataset[column] for column in columns), strict=True)


def _overlap(rows_a: Iterable[tuple[str, ...]], rows_b: Iterable[tuple[str, ...]]) -> Overlap:
    exact, normal = set(), set()
    for row in rows_a:
        exact.add(tuple(sorted(row)))
        normal.add(_normal(row))
    found_exact = found_normal = 0
    for row in rows_b:
        found_exact += tuple(sorted(row)) in exact
        found_normal += _normal(row) in normal
    return Overlap(found_exact, found_normal)


def _normal(row: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(map(normalise, row)))
