"""CoSENT: pairs ranked by their gold scores, all pairs of a batch against one another."""

from __future__ import annotations

from sentence_transformers.sentence_transformer.losses import CoSENTLoss
from torch import Tensor

from sentence_forge.losses.base import NO_MODEL, Loss


class CoSENT(Loss):
    """``log(1 + sum exp(scale * (cos(k, l) - cos(i, j))))`` over all pairs (i, j) scored higher than (k, l).

    Huang et al. 2024, "CoSENT: Consistent Sentence Embedding via Similarity Ranking"
    (https://doi.org/10.1109/TASLP.2024.3402087). Only the order of the scores counts, as in Spearman's correlation;
    equal scores say nothing of each other. Delegates to sentence-transformers' ``CoSENTLoss``.

    Args:
        scale: factor on the cosines, the inverse of the temperature.

    >>> import torch
    >>> u, v = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # cosines 1 and 0
    >>> CoSENT()([u, v], torch.tensor([0.9, 0.1]), None) < CoSENT()([u, v], torch.tensor([0.1, 0.9]), None)
    tensor(True)
    >>> CoSENT()([u, v], torch.tensor([0.5, 0.5]), None)  # equal scores have no order
    tensor(0.)
    """

    def __init__(self, scale: float = 20.0) -> None:
        super().__init__()
        self.loss = CoSENTLoss(model=NO_MODEL, scale=scale)

    def forward(self, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """Return the batch's loss, a sum and not a mean.

        Args:
            embeddings: two of ``[batch, dim]``.
            labels: scores, float ``[batch]``.
            text_ids: not used.
        """
        assert labels is not None, "rows of this shape carry a score"
        return self.loss.compute_loss_from_embeddings(embeddings, labels)
