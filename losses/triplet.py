"""Triplet loss: an anchor closer to its positive than to its negative, by a margin."""

from __future__ import annotations

import torch
from sentence_transformers.sentence_transformer.losses import TripletLoss
from sentence_transformers.sentence_transformer.losses.triplet import TripletDistanceMetric
from torch import Tensor

from sentence_forge.losses.base import NO_LABELS, NO_MODEL, Loss
from sentence_forge.runtime.errors import UserError, one_of

DISTANCES = {
    "cosine": TripletDistanceMetric.COSINE,
    "euclidean": TripletDistanceMetric.EUCLIDEAN,
    "manhattan": TripletDistanceMetric.MANHATTAN,
}


class Triplet(Loss):
    """``mean(max(d(a, p) - d(a, n) + margin, 0))``, averaged over the negatives where a row has several.

    Reimers & Gurevych 2019 (https://arxiv.org/abs/1908.10084), section 3, uses Euclidean distance and margin 1.
    Delegates to sentence-transformers' ``TripletLoss`` (whose own default margin is 5).

    Args:
        distance: cosine (1 - cos), euclidean or manhattan.
        margin: in units of the distance.

    >>> anchor, positive, negative = torch.tensor([[0.0]]), torch.tensor([[2.0]]), torch.tensor([[2.5]])
    >>> Triplet()([anchor, positive, negative], None, None)  # 2 - 2.5 + 1
    tensor(0.5000)
    """

    def __init__(self, distance: str = "euclidean", margin: float = 1.0) -> None:
        super().__init__()
        if distance not in DISTANCES:
            raise UserError(f"loss.distance: there is no distance {distance!r}; {one_of(DISTANCES, distance)}")
        self.loss = TripletLoss(model=NO_MODEL, distance_metric=DISTANCES[distance], triplet_margin=margin)

    def forward(self, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """Return the mean hinge; ``embeddings`` are anchor, positive and one or more negatives."""
        anchor, positive, *negatives = embeddings
        return torch.stack([self.loss.compute_loss_from_embeddings([anchor, positive, negative], NO_LABELS)
                            for negative in negatives]).mean()
