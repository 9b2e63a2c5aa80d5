"""Batch-hard triplet loss over labelled texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sentence_transformers.sentence_transformer.losses import BatchHardTripletLoss
from sentence_transformers.sentence_transformer.losses.batch_hard_triplet import BatchHardTripletLossDistanceFunction
from torch import Tensor

from sentence_forge.losses.base import NO_MODEL, Loss
from sentence_forge.runtime.errors import UserError, one_of

DISTANCES = {
    "cosine": BatchHardTripletLossDistanceFunction.cosine_distance,
    "euclidean": BatchHardTripletLossDistanceFunction.euclidean_distance,
}


class BatchHard(Loss):
    """For each text: the farthest of its own class and the nearest of another, a margin apart.

    Hermans et al. 2017, "In Defense of the Triplet Loss" (https://arxiv.org/abs/1703.07737), equation 5. Delegates to
    sentence-transformers' ``BatchHardTripletLoss``. Needs batches of P classes x K texts (``loss.sampler``): a batch
    of one class, or with one text a class, has no gradient.

    Args:
        distance: euclidean or cosine (1 - cos).
        margin: in units of the distance.
        labels: the distinct labels (offered by the run).

    >>> loss = BatchHard(labels=["a", "b"])
    >>> texts = torch.tensor([[0.0], [2.0], [3.0], [4.0]])
    >>> loss([texts], loss.encode_labels(["a", "a", "b", "b"]), None)  # of 2-3+1, 2-1+1, 1-1+1, 1-2+1
    tensor(0.7500)
    """

    def __init__(self, distance: str = "euclidean", margin: float = 1.0, *, labels: Sequence[str]) -> None:
        super().__init__()
        if distance not in DISTANCES:
            raise UserError(f"loss.distance: there is no distance {distance!r}; {one_of(DISTANCES, distance)}")
        self.labels = tuple(labels)
        self.loss = BatchHardTripletLoss(model=NO_MODEL, distance_metric=DISTANCES[distance], margin=margin)

    def encode_labels(self, labels: Sequence[str]) -> Tensor:
        """Return int64 class indices."""
        index = {name: number for number, name in enumerate(self.labels)}
        return torch.tensor([index[name] for name in labels])

    def forward(self, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """Return the mean hinge over the batch; one ``[batch, dim]`` tensor, int64 labels ``[batch]``."""
        assert labels is not None, "rows of this shape carry a label"
        return self.loss.compute_loss_from_embeddings(embeddings, labels)
