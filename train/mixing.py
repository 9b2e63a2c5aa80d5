"""Order the batches of a run's parts: each batch is of one part, and shares say how often it is a part's turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from sentence_forge.runtime.errors import UserError
from sentence_forge.train.batches import Batches, Sampler


class Batch(NamedTuple):
    """The rows of one forward.

    Args:
        part: the number of the part they are of.
        rows: int64, their numbers in it.
    """

    part: int
    rows: np.ndarray


def in_turn(samplers: Mapping[str, Sampler], *, seed: int, weights: Mapping[str, float] | None = None,
            temperature: float = 1.0) -> Callable[[int], list[Batch]]:
    """Return the batches of an epoch as a function of its number.

    Args:
        samplers: of the parts, by their names.
        seed: of the order of several parts.
        weights: of several parts; see ``Mixed``.
        temperature: likewise.

    >>> from sentence_forge.train.batches import Shuffled
    >>> [batch.part for batch in in_turn({"": Shuffled(rows=5, batch_size=2, seed=1)}, seed=1)(0)]
    [0, 0, 0]
    """
    if len(samplers) > 1:
        return Mixed(samplers, seed=seed, weights=weights, temperature=temperature).epoch
    (sampler,) = samplers.values()
    return lambda number: [Batch(0, rows) for rows in sampler.epoch(number)]


class Mixed:
    """Batches of several samplers in random order, each batch of one of them.

    An epoch has as many batches as one epoch of each sampler together. Without weights and at temperature 1 that is
    each of them once; else a sampler gives more or fewer, goes on in the next epoch where it stopped, and begins anew
    whenever it is exhausted. Its share is in proportion to ``weight``, or to ``batches ** (1 / temperature)``: at 1 to
    its size, and the larger the temperature the more equal (Arivazhagan et al. 2019, https://arxiv.org/abs/1907.05019).

    Args:
        samplers: by the name of the source.
        seed: of the order.
        weights: of each source; None goes by size.
        temperature: see above.

    Raises:
        UserError: a weight is missing or not above 0, or a source makes no batch.
    """

    def __init__(self, samplers: Mapping[str, Sampler], *, seed: int, weights: Mapping[str, float] | None = None,
                 temperature: float = 1.0) -> None:
        self.samplers, self.seed = dict(samplers), seed
        self._rewind()
        sizes = np.array([each.per_epoch for each in self._sources], dtype=np.float64)
        shares = sizes ** (1 / temperature) if weights is None else np.array([weights[name] for name in samplers])
        self.counts = _shared_out(int(sizes.sum()), shares)

    def epoch(self, number: int) -> list[Batch]:
        """Return the batches of an epoch, a function of the seed and its number alone."""
        if number < self._next:
            self._rewind()
        while self._next < number:  # what the epochs before took
            self._take()
        return self._take()

    def _rewind(self) -> None:
        self._sources: list[Batches[np.ndarray]] = []
        self._next = 0
        for name, sampler in self.samplers.items():
            try:
                self._sources.append(Batches(sampler.epoch))
            except UserError as error:
                raise UserError(f"data.sources.{name}: {error}") from None

    def _take(self) -> list[Batch]:
        turns = np.repeat(np.arange(len(self.counts)), self.counts)
        np.random.default_rng([self.seed, self._next]).shuffle(turns)
        self._next += 1
        return [Batch(turn, next(self._sources[turn])) for turn in turns.tolist()]


def _shared_out(total: int, shares: np.ndarray) -> np.ndarray:
    """Divide ``total`` in proportion to ``shares`` into integers, by largest remainder; each gets at least 1."""
    exact = total * shares / shares.sum()
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return np.maximum(counts, 1)
