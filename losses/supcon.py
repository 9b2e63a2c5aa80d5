"""Supervised contrastive loss over labelled texts: a softmax of all of the same class among those of the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sentence_forge.losses.base import Loss


class SupervisedContrastive(Loss):
    """For each text: the mean cross-entropy of each other text of its class against all other texts of the batch.

    Khosla et al. 2020 (https://arxiv.org/abs/2004.11362), equation 2. Every text of the class counts, where batch_hard
    takes the farthest alone, so one wrong label or one text of two topics moves little. Needs batches of P classes x K
    texts (``loss.sampler``): a text that is alone in its class has no loss and is left out of the mean.

    Args:
        scale: factor on the cosines, the inverse of the temperature; 20 is temperature 0.05.
        labels: the distinct labels (offered by the run).

    >>> loss = SupervisedContrastive(scale=1.0, labels=["a", "b"])
    >>> texts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> loss([texts], loss.encode_labels(["a", "a", "b"]), None)  # log(e^1 + e^0) - 1, for the two of class a
    tensor(0.3133)
    """

    def __init__(self, scale: float = 20.0, *, labels: Sequence[str]) -> None:
        super().__init__()
        self.scale = scale
        self.labels = tuple(labels)

    def encode_labels(self, labels: Sequence[str]) -> Tensor:
        """Return int64 class indices."""
        index = {name: number for number, name in enumerate(self.labels)}
        return torch.tensor([index[name] for name in labels])

    def forward(self, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """Return the mean over the texts; one ``[batch, dim]`` tensor, int64 labels ``[batch]``."""
        assert labels is not None, "rows of this shape carry a label"
        texts_ND = normalize(embeddings[0], dim=-1)
        itself_NN = torch.eye(len(texts_ND), dtype=torch.bool, device=texts_ND.device)
        scores_NN = (texts_ND @ texts_ND.T * self.scale).masked_fill(itself_NN, float("-inf"))
        alike_NN = (labels[:, None] == labels) & ~itself_NN
        alike_N = alike_NN.sum(dim=1)
        losses_NN = (scores_NN.logsumexp(dim=1, keepdim=True) - scores_NN).masked_fill(~alike_NN, 0.0)
        return (losses_NN.sum(dim=1) / alike_N.clamp(min=1)).sum() / (alike_N > 0).sum().clamp(min=1)
