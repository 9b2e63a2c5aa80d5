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
    """

    def __init__(self, scale: float = 20.0) -> None:
        super().__init__()
        self.loss = AnglELoss(model=NO_MODEL, scale=scale)

    def forward(self, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """Return the batch's loss, a sum and not a mean.

        Two ``[batch, dim]`` embeddings with float scores ``[batch]``; or anchor, positive and negatives without.
        """
        return self.loss.compute_loss_from_embeddings(embeddings, labels)
