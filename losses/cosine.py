"""Mean squared error between a pair's cosine and its gold score."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
from torch import Tensor

from sentence_forge.losses.base import NO_MODEL, Loss


class Cosine(Loss):
    """``mean((cos(u, v) - score)^2)``: the regression set-up of SBERT for STS.

    Reimers & Gurevych 2019 (https://arxiv.org/abs/1908.10084), section 3. Delegates to sentence-transformers'
    ``CosineSimilarityLoss``. The reader has already mapped the source's range to [0, 1] or kept [-1, 1].

    >>> u, v = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])
    >>> Cosine()([u, v], torch.tensor([1.0]), None)  # (0.6 - 1)^2
    tensor(0.1600)
    """

    def __init__(self) -> None:
        super().__init__()
        self.loss = CosineSimilarityLoss(model=NO_MODEL)

    def encode_labels(self, labels: Sequence[float]) -> Tensor:
        """Return float32 gold scores.

        Raises:
            ValueError: a score is outside [-1, 1]; the message begins with its 0-based position.
        """
        for position, score in enumerate(labels):
            if not -1.0 <= score <= 1.0:
                raise ValueError(f"{position}: score {score} is outside [-1, 1]; set data.score_range= to the source's")
        return torch.tensor(labels, dtype=torch.float32)

    def forward(self, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """Return the mean squared error; two ``[batch, dim]`` embeddings, float32 scores ``[batch]``."""
        assert labels is not None, "rows of this shape carry a label"
        return self.loss.compute_loss_from_embeddings(embeddings, labels)
