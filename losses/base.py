"""The base class of losses: a function of sentence embeddings and of labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

# sentence-transformers' losses hold a model and take labels even where, as here, only their maths is used
NO_MODEL: Any = None
NO_LABELS: Any = None


class Loss(nn.Module, ABC):
    """A loss on embeddings.

    A loss never sees text or tokens: the loop hands it one ``[batch, dim]`` float tensor a text column. What a loss
    needs to know of the run (``dim``, the distinct ``labels``) it names in its constructor; the run offers it there.
    The shapes of data it takes are listed in its YAML (``shapes``), so that a mismatch is known before torch is
    imported. A loss with weights is saved with the model: as its ``_target_`` and arguments, from which it is built
    again, and its ``state_dict``.

    Attributes:
        classes: the label names that ``predict`` tells apart; empty for a loss without a classifying head.

    >>> class MeanSquaredDistance(Loss):
    ...     def forward(self, embeddings, labels, text_ids):
    ...         return (embeddings[0] - embeddings[1]).square().sum(dim=-1).mean()
    >>> MeanSquaredDistance()([torch.zeros(3, 2), torch.ones(3, 2)], None, None)
    tensor(2.)
    """

    classes: tuple[str, ...] = ()

    def __init_subclass__(cls, **more: Any) -> None:  # noqa: ANN401 - passed on
        """Forget the parts of the loss that a class extends where it computes another one."""
        super().__init_subclass__(**more)
        if "forward" in vars(cls) and "of_rows" not in vars(cls):
            cls.of_rows = Loss.of_rows  # type: ignore[method-assign]

    def encode_labels(self, labels: Sequence[Any]) -> Tensor | None:
        """Turn a split's label column into the tensor ``forward`` takes, one entry a row: scores as float32.

        Raises:
            ValueError: a label this loss can't take; the message begins with its 0-based position.
        """
        return torch.tensor(labels, dtype=torch.float32) if labels and isinstance(labels[0], float) else None

    @abstractmethod
    def forward(self, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """Return the scalar loss of one batch.

        Args:
            embeddings: one ``[batch, dim]`` tensor a text column, in the shape's column order.
            labels: the batch's entries of what ``encode_labels`` made, or None.
            text_ids: ``[batch, columns]`` int64, equal where and only where texts are equal; None if unknown.
        """

    def of_rows(self, rows: slice, embeddings: list[Tensor], labels: Tensor | None,
                text_ids: Tensor | None) -> Tensor | None:
        """Return what some rows of the batch add to its loss, so that several processes share the work of a large one.

        Over all rows these add up to what ``forward`` returns. None where a loss has no such parts, or they would not
        save work: then every process computes the loss of the whole batch.

        Args:
            rows: consecutive ones; may be empty.
            embeddings: of the whole batch, as the other arguments are, see ``forward``.
            labels: likewise.
            text_ids: likewise.
        """
        return None

    def predict(self, u: Tensor, v: Tensor) -> list[str]:
        """Return the most probable class of each pair of ``[batch, dim]`` embeddings, if the loss has ``classes``."""
        raise NotImplementedError(f"{type(self).__name__} has no head that classifies")
