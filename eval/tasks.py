"""What evaluators and encoders agree on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eval.stats import Floats


class TextEncoder(Protocol):
    """What turns texts into vectors, as far as an evaluation needs to know."""

    @property
    def name(self) -> str:
        """What the report calls the model."""
        ...

    @property
    def fingerprint(self) -> str:
        """What the vectors depend on, as one hash."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of ``texts``, float32 [n, dim]."""
        ...

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Return how many of ``texts`` are longer than the model reads."""
        ...


class EncodedTexts:
    """Texts whose vectors are known already, as an encoder: several tasks share one pass over their texts.

    Args:
        encoder: encodes every distinct one of ``texts`` once, and counts what it truncates.
        texts: everything that will be asked for.
    """

    def __init__(self, encoder: TextEncoder, texts: Iterable[str]) -> None:
        self.name = encoder.name
        self.fingerprint = encoder.fingerprint
        self._encoder = encoder
        distinct = list(dict.fromkeys(texts))
        self._row = {text: row for row, text in enumerate(distinct)}
        self._vectors = np.asarray(encoder.encode(distinct), dtype=np.float32)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of ``texts``, float32 [n, dim]; a text not given beforehand is a ``KeyError``."""
        return self._vectors[[self._row[text] for text in texts]]

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Return how many of ``texts`` are longer than the model reads."""
        return self._encoder.count_truncated(texts)


@dataclass(frozen=True)
class TaskResult:
    """What one task found.

    Args:
        row: its part of report.json: ``n``, ``spearman_cosine``, ... as fractions.
        cosine: the predicted similarity of each pair, float64 [n].
        gold: the score of each pair in the range of the file, float64 [n].
        samples: the bootstrap samples behind ``spearman_cosine_ci95``, float64 [resamples].
        label: what a heading calls the task, if its name does not say it all.
    """

    row: Mapping[str, Any]
    cosine: Floats
    gold: Floats
    samples: Floats
    label: str | None = None
