"""Softmax classification over a pair's two embeddings: the siamese set-up of SBERT for NLI."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sentence_forge.losses.base import Loss
from sentence_forge.runtime.errors import UserError, one_of

PARTS = {
    "u": lambda u, v: u,
    "v": lambda u, v: v,
    "|u-v|": lambda u, v: (u - v).abs(),
    "u*v": lambda u, v: u * v,
}


class Softmax(Loss):
    """Cross-entropy of a linear classifier over a concatenation of u, v, |u-v| and u*v.

    Reimers & Gurevych 2019 (https://arxiv.org/abs/1908.10084), section 3, equation ``softmax(W(u, v, |u-v|))``; table 6
    compares the concatenations. sentence-transformers' ``SoftmaxLoss`` has no ``compute_loss_from_embeddings``, so
    the few lines are here; head and default agree with it.

    Args:
        concatenation: the parts the classifier sees, of ``u``, ``v``, ``|u-v|``, ``u*v``, in this order.
        dim: size of an embedding (offered by the run).
        labels: the label names, in the order of the head's outputs (offered by the run).

    >>> loss = Softmax(dim=8, labels=["no", "yes"])
    >>> loss.predict(torch.zeros(3, 8), torch.zeros(3, 8)) in (["no"] * 3, ["yes"] * 3)
    True
    """

    def __init__(self, concatenation: Sequence[str] = ("u", "v", "|u-v|"), *, dim: int, labels: Sequence[str]) -> None:
        super().__init__()
        for part in concatenation:
            if part not in PARTS:
                raise UserError(f"loss.concatenation: there is no part {part!r}; {one_of(PARTS, part)}")
        if not concatenation:
            raise UserError("loss.concatenation: is empty; the paper's is ['u','v','|u-v|']")
        if len(labels) < 2:
            raise UserError(f"loss=softmax needs at least two labels, the training data has {list(labels)}")
        self.concatenation = tuple(concatenation)
        self.classes = self.labels = tuple(labels)
        self.classifier = nn.Linear(len(self.concatenation) * dim, len(self.labels))

    def encode_labels(self, labels: Sequence[str]) -> Tensor:
        """Return int64 class indices; a name the head doesn't know raises ValueError."""
        index = {name: number for number, name in enumerate(self.labels)}
        for position, name in enumerate(labels):
            if name not in index:
                raise ValueError(f"{position}: label {name!r} is not in the training data's set {list(self.labels)}")
        return torch.tensor([index[name] for name in labels])

    def logits(self, u: Tensor, v: Tensor) -> Tensor:
        """Return the ``[batch, labels]`` scores of pairs of ``[batch, dim]`` embeddings."""
        return self.classifier(torch.cat([PARTS[part](u, v) for part in self.concatenation], dim=-1))

    def predict(self, u: Tensor, v: Tensor) -> list[str]:
        """Return the most probable label name of each pair."""
        return [self.labels[number] for number in self.logits(u, v).argmax(dim=-1).tolist()]

    def forward(self, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """Return the mean cross-entropy; ``embeddings`` are premise and hypothesis, ``labels`` int64 ``[batch]``."""
        u, v = embeddings
        assert labels is not None, "pair_class rows carry a label"
        return nn.functional.cross_entropy(self.logits(u, v), labels)
