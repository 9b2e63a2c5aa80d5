"""AnglE: CoSENT's ranking on an angle in complex space instead of the cosine."""

from __future__ import annotations

from sentence_transformers.sentence_transformer.losses import AnglELoss
from torch import Tensor

from sentence_forge.losses.base import NO_MODEL, Loss


class AnglE(Loss):
    """CoSENT's ranking, by the angle of a vector's halves as real and imaginary part, which keeps its gradient.

    Li & Li 2024, "AoE: Angle-optimized Embeddings for Semantic Textual Similarity"
    (https://arxiv.org/abs/2309.12871): the cosine's gradient vanishes near -1 and 1, the angle's does not. Delegates to
    sentence-transformers' ``AnglELoss``, which follows the authors' code. Triplets are taken as pairs scored 1
    (positive) and 0 (negative).

    Args:
        scale: factor on the similarities, the inverse of the temperature.

    >>> import torch
    >>> u = torch.tensor([[1.0, 2.0], [1.0, 0.0]])
    >>> v = torch.tensor([[1.0, 2.0], [1.0, 1.0]])  # the first pair is equal, the second is not
    >>> AnglE()([u, v], torch.tensor([1.0, 0.0]), None) < AnglE()([u, v], torch.tensor([0.0, 1.0]), None)
    tensor(True)
    """

    def __init__(self, scale: float = 20.0) -> None:
        super().__init__()
        self.loss = AnglELoss(model=NO_MODEL, scale=scale)

    def forward(self, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """Return the batch's loss, a sum and not a mean.

        Args:
            embeddings: two of ``[batch, dim]``; or anchors, positives and negatives.
            labels: of two, their scores, float ``[batch]``; None of triplets.
            text_ids: not used.
        """
        return self.loss.compute_loss_from_embeddings(embeddings, labels)
