"""Count the rows that train and dev share, and normalise texts so that those that hardly differ are equal."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from sentence_forge.data_readers.lazy import rows_of
from sentence_forge.data_readers.shapes import SHAPES

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


class Overlap(NamedTuple):
    """How many rows are also in another set: the same word for word, and (these included) after ``normalise``."""

    exact: int
    normalised: int


def normalise(text: str) -> str:
    """Return ``text`` after NFKC, in lower case, without punctuation, with runs of white space made one space.

    A text of nothing but punctuation keeps it, so that "?!" and "..." stay apart.

    >>> normalise("The  cat's out!")
    'the cats out'
    """
    text = unicodedata.normalize("NFKC", text).lower()
    return " ".join(text.translate(_PUNCTUATION).split() or text.split())


class _Punctuation(dict[int, str | None]):
    """A table for ``str.translate`` that removes punctuation; characters are entered when they are first met."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        self[code] = None if unicodedata.category(character).startswith("P") else character
        return self[code]


_PUNCTUATION = _Punctuation()


def leakage(train: Dataset, dev: Dataset, shape: str) -> int:
    """Return how many dev rows are also train rows after normalising; a warning in the log says so if there are any.

    Rows are compared by all their texts together, in any order: a scored pair is the same either way round, and that is
    how the overlap of STS sets is counted.

    Args:
        train: rows of ``shape``.
        dev: rows of ``shape``.
        shape: a name from ``data_readers.shapes.SHAPES``.
    """
    shared = _overlap(_texts(train, shape), _texts(dev, shape))
    if shared.normalised:
        logger.warning("%d of %d dev rows are also in the train data (%d word for word): the dev measure is too high",
                       shared.normalised, len(dev), shared.exact)
    return shared.normalised


def _texts(dataset: Dataset, shape: str) -> Iterable[tuple[str, ...]]:
    return rows_of(dataset, SHAPES[shape].text_columns(dataset.column_names))


def _overlap(rows_a: Iterable[tuple[str, ...]], rows_b: Iterable[tuple[str, ...]]) -> Overlap:
    """Count the rows of ``rows_b`` that are among ``rows_a``; only ``rows_b`` need to fit into memory."""
    asked = [(tuple(sorted(row)), _normal(row)) for row in rows_b]
    exact, normal = {row for row, _ in asked}, {row for _, row in asked}
    found_exact, found_normal = set(), set()
    for row in rows_a:
        if (ordered := tuple(sorted(row))) in exact:
            found_exact.add(ordered)
        if (normalised := _normal(row)) in normal:
            found_normal.add(normalised)
    return Overlap(sum(row in found_exact for row, _ in asked), sum(row in found_normal for _, row in asked))


def _normal(row: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(map(normalise, row)))
