"""Distillation: a student learns the vectors that a teacher gives the same texts."""

from __future__ import annotations

from torch import Tensor, nn, stack
from torch.nn.functional import cosine_similarity

from sentence_forge.losses.base import Loss


class Distill(Loss):
    """Mean cosine distance between the student's and the teacher's vector of each text.

    Reimers and Gurevych 2020 (https://arxiv.org/abs/2004.09813) teach vectors by their squared distance, which for
    vectors of length 1 is twice the cosine distance; that one asks nothing of a student's length, and search compares
    by cosine, too. sentence-transformers' ``EmbedDistillLoss(distance_metric="cosine")`` computes the same. The run
    encodes each text by the teacher once, before the first step.

    Args:
        dim: size of the student's vectors (offered by the run).
        teacher_dim: size of the teacher's (offered by the run); where it is another, a linear layer that is trained,
            too, maps the student's to it, and the student is used without.

    >>> import torch
    >>> teacher = torch.eye(2)[:, None]  # two rows of one text
    >>> Distill(dim=2, teacher_dim=2)([torch.tensor([[3.0, 0.0], [1.0, 0.0]])], teacher, None)
    tensor(0.5000)
    """

    def __init__(self, *, dim: int, teacher_dim: int) -> None:
        super().__init__()
        self.projection = nn.Identity() if dim == teacher_dim else nn.Linear(dim, teacher_dim, bias=False)

    def forward(self, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """Return the mean distance.

        Args:
            embeddings: the student's, of any number of columns.
            labels: the teacher's vectors of the same texts, ``[batch, columns, teacher_dim]``.
            text_ids: not needed.
        """
        assert labels is not None
        students = self.projection(stack(embeddings, dim=1))
        return (1 - cosine_similarity(students, labels, dim=-1)).mean()
