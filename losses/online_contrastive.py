"""Online contrastive loss: pairs that match drawn together and others pushed apart, the hard ones of a batch only."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sentence_forge.losses.base import Loss
from sentence_forge.runtime.errors import UserError, one_of

DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": lambda u, v: 1 - F.cosine_similarity(u, v),
    "euclidean": F.pairwise_distance,
    "manhattan": functools.partial(F.pairwise_distance, p=1.0),
}


class OnlineContrastive(Loss):
    """``sum d(positive)^2 + sum max(margin - d(negative), 0)^2`` over the batch's hard pairs.

    Hard is a positive farther apart than the nearest negative, and a negative nearer than the farthest positive. The
    contrastive loss is Hadsell et al. 2006 ("Dimensionality Reduction by Learning an Invariant Mapping"); the choice of
    hard pairs is that of sentence-transformers' ``OnlineContrastiveLoss``; where all pairs match or none does, hard are
    those farther apart or nearer than their mean.

    Args:
        distance: cosine (1 - cos), euclidean or manhattan.
        margin: in units of the distance.
        threshold: a pair whose score is at least this is a positive, any other a negative. Scores are as the reader
            maps them, to [0, 1] mostly: labels 0 and 1 need nothing but ``data.score_range=[0,1]``.

    >>> loss = OnlineContrastive()
    >>> u, v = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    >>> loss([u, v], loss.encode_labels([1.0, 0.0]), None)  # 1^2 for the positives, (0.5 - 0)^2 for the negatives
    tensor(1.2500)
    """

    def __init__(self, distance: str = "cosine", margin: float = 0.5, threshold: float = 0.5) -> None:
        super().__init__()
        if distance not in DISTANCES:
            raise UserError(f"loss.distance: there is no distance {distance!r}; {one_of(DISTANCES, distance)}")
        self.distance, self.margin, self.threshold = DISTANCES[distance], margin, threshold

    def encode_labels(self, labels: Sequence[float]) -> Tensor:
        """Return int64 1 for positives and 0 for negatives.

        Raises:
            UserError: all pairs are positives, or all negatives.
        """
        positive = torch.tensor(labels) >= self.threshold
        if positive.all() or not positive.any():
            raise UserError(f"loss.threshold={self.threshold:g}: {'every' if positive.all() else 'no'} pair scores at "
                            "least that (scores are mapped to 0..1), so there is nothing to contrast; set "
                            "data.score_range= to the source's range, or another loss.threshold=")
        return positive.long()

    def forward(self, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """Return the sum over the batch's hard pairs; two ``[batch, dim]`` embeddings, int64 labels ``[batch]``.

        Masks instead of indexing: a GPU need not tell how many pairs are hard.
        """
        assert labels is not None, "rows of this shape carry a score"
        distance, positive = self.distance(*embeddings), labels == 1
        mean = distance.mean()
        nearest = torch.where(positive.all(), mean, distance.where(~positive, math.inf).min())
        farthest = torch.where(positive.any(), distance.where(positive, -math.inf).max(), mean)
        drawn = distance.where(positive & (distance > nearest), 0.0)
        pushed = (self.margin - distance).relu().where(~positive & (distance < farthest), 0.0)
        return drawn.square().sum() + pushed.square().sum()
