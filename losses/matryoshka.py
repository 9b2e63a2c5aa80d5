"""Matryoshka: a loss at several lengths of the vectors, so that they can be cut to any of these later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sentence_forge.losses.base import Loss


class Matryoshka(Loss):
    """``sum_d weight_d * loss_d(the first d numbers of each vector, at length 1)``; ``dims=`` makes it of any loss.

    Kusupati et al. 2022, "Matryoshka Representation Learning" (https://arxiv.org/abs/2205.13147), as
    sentence-transformers' ``MatryoshkaLoss`` does it for sentence embeddings. Each length has a loss of its own, so
    that one with a head (softmax) has a head each.

    Args:
        losses: of each length its loss, the longest first; its head, if it has one, is the one that classifies.
        weights: of each length's loss, in the same order; None is 1 each.

    >>> from sentence_forge.losses.cosine import Cosine
    >>> u, v = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])
    >>> Matryoshka({2: Cosine(), 1: Cosine()})([u, v], torch.tensor([1.0]), None)  # (1 - 0.6)^2 + (1 - 1)^2
    tensor(0.1600)
    """

    def __init__(self, losses: Mapping[int, Loss], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.dims = tuple(losses)
        self.weights = [1.0] * len(losses) if weights is None else [float(weight) for weight in weights]
        self.losses = nn.ModuleList(losses.values())
        self.classes = self.longest.classes

    @property
    def longest(self) -> Loss:
        """The loss of the longest vectors."""
        first = self.losses[0]
        assert isinstance(first, Loss)
        return first

    def encode_labels(self, labels: Sequence[Any]) -> Tensor | None:
        """Return what the loss of one length makes of the labels; they are the same at each."""
        return self.longest.encode_labels(labels)

    def forward(self, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """Return the weighted sum of the losses; all arguments are those of the loss of one length."""
        return torch.stack([weight * loss(_cut(embeddings, dim), labels, text_ids)
                            for dim, weight, loss in zip(self.dims, self.weights, self.losses, strict=True)]).sum()

    def of_rows(self, rows: slice, embeddings: list[Tensor], labels: Tensor | None,
                text_ids: Tensor | None) -> Tensor | None:
        """Return the weighted sum of what the losses return, or None where one of them has no such parts."""
        total = embeddings[0].new_zeros(())
        for dim, weight, loss in zip(self.dims, self.weights, self.losses, strict=True):
            assert isinstance(loss, Loss)
            if (part := loss.of_rows(rows, _cut(embeddings, dim), labels, text_ids)) is None:
                return None
            total = total + weight * part
        return total

    def predict(self, u: Tensor, v: Tensor) -> list[str]:
        """Return what the head of the longest vectors predicts for each pair of ``[batch, dim]`` embeddings."""
        return self.longest.predict(*_cut([u, v], self.dims[0]))


def _cut(embeddings: Sequence[Tensor], dim: int) -> list[Tensor]:
    return [normalize(embedding[:, :dim], dim=-1) for embedding in embeddings]
