"""Several sources in one run: whose turn it is, and whose loss. Each batch comes from one source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from sentence_forge.losses.base import Loss
from sentence_forge.runtime.errors import UserError
from sentence_forge.train.batches import Batches, Sampler


class Mixed(Sampler):
    """Batches of several samplers in random order, each batch of one of them.

    An epoch has as many batches as one epoch of each sampler together. Without weights and at temperature 1 that is
    each of them once; else a sampler gives more or fewer, goes on in the next epoch where it stopped, and begins anew
    whenever it is exhausted. Its share is in proportion to ``weight``, or to ``batches ** (1 / temperature)``: at 1 to
    its size, and the larger the temperature the more equal (Arivazhagan et al. 2019, https://arxiv.org/abs/1907.05019).

    Args:
        samplers: by the name of the source; rows are numbered on from one to the next.
        rows: how many each source has.
        seed: of the order.
        weights: of each source; None goes by size.
        temperature: see above.

    Raises:
        UserError: a weight is missing or not above 0, or a source makes no batch.
    """

    def __init__(self, samplers: Mapping[str, Sampler], *, rows: Sequence[int], seed: int,
                 weights: Mapping[str, float] | None = None, temperature: float = 1.0) -> None:
        self.samplers, self.seed = dict(samplers), seed
        self.starts = np.cumsum([0, *rows])[:-1]
        self._rewind()
        sizes = np.array([each.per_epoch for each in self._sources], dtype=np.float64)
        shares = sizes ** (1 / temperature) if weights is None else np.array([weights[name] for name in samplers])
        self.counts = _shared_out(int(sizes.sum()), shares)

    def epoch(self, number: int) -> list[np.ndarray]:
        """Return the batches of an epoch, a function of the seed and its number alone."""
        if number < self._next:
            self._rewind()
        while self._next < number:  # what the epochs before took
            self._take()
        return self._take()

    def _rewind(self) -> None:
        self._sources, self._next = [], 0
        for name, sampler in self.samplers.items():
            try:
                self._sources.append(Batches(sampler))
            except UserError as error:
                raise UserError(f"data.sources.{name}: {error}") from None

    def _take(self) -> list[np.ndarray]:
        turns = np.repeat(np.arange(len(self.counts)), self.counts)
        np.random.default_rng([self.seed, self._next]).shuffle(turns)
        self._next += 1
        return [next(self._sources[turn]) + self.starts[turn] for turn in turns]


def _shared_out(total: int, shares: np.ndarray) -> np.ndarray:
    """Return ``total`` whole things in proportion to ``shares``, by largest remainder, and one at least to each."""
    exact = total * shares / shares.sum()
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return np.maximum(counts, 1)


class MixedLoss(Loss):
    """The losses of a mix: which one a batch takes is told by its part.

    Args:
        losses: by the name of the first source that takes it.
        of_part: for each part the name in ``losses``.
    """

    def __init__(self, losses: Mapping[str, Loss], of_part: Sequence[str]) -> None:
        super().__init__()
        self._names = list(losses)
        self.losses = nn.ModuleList(losses.values())  # not a ModuleDict, which refuses names such as "type" or "a.b"
        self._of_part = [self._names.index(name) for name in of_part]
        dims = {loss.dims for loss in losses.values()}
        self.dims = dims.pop() if len(dims) == 1 else ()

    def of_part(self, number: int) -> Loss:
        """Return the loss of a part."""
        loss = self.losses[self._of_part[number]]
        assert isinstance(loss, Loss)
        return loss

    def forward(self, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """Never called: a batch is of one part, whose loss is."""
        raise NotImplementedError("ask of_part for the loss of a batch")

    def describe(self) -> dict[str, Any]:
        """Return what each loss says of itself, by the name of its source."""
        return {"sources": {name: loss.describe() for name, loss in zip(self._names, self.losses, strict=True)
                            if isinstance(loss, Loss)}}
