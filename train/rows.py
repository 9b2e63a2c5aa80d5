"""Training rows as the loop takes them, and the loss of one batch of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sentence_forge.encoders.computing.tokens import Tokens, joined
from sentence_forge.encoders.encoder import Encoder
from sentence_forge.losses.base import Loss
from sentence_forge.train.distributed import ALONE, World
from sentence_forge.train.mixing import Batch


@dataclass(frozen=True)
class Rows:
    """Training rows, as the loop needs them.

    Args:
        tokens: every distinct text's tokens.
        text_ids: int64 ``[rows, columns]``, positions in ``tokens``.
        labels: what the loss made of the label column, ``[rows]`` first; None without labels.
        numbers: int64 ``[rows]``, the 1-based data row in the file each came from, for messages.
        queries: every distinct text's tokens as a query, where the first column's are encoded otherwise than the rest.
    """

    tokens: Tokens
    text_ids: np.ndarray
    labels: Tensor | None
    numbers: np.ndarray
    queries: Tokens | None = None

    def batch(self, chosen: np.ndarray) -> Tokens:
        """Return the chosen rows' texts as one stream, column by column."""
        ids = self.text_ids[chosen].T
        if self.queries is None:
            return self.tokens.take(ids.reshape(-1))
        return joined([self.queries.take(ids[0]), self.tokens.take(ids[1:].reshape(-1))])


@dataclass(frozen=True)
class Part:
    """Rows and the loss that trains on them. A run has one part, and a mix of sources several; a batch is of one part.

    Args:
        rows: the training rows.
        loss: on the CPU or where the model is; parts may share one.
        name: of the source, for messages; empty where it is the only one.
    """

    rows: Rows
    loss: Loss
    name: str = ""

    def row_names(self, chosen: np.ndarray) -> list[str]:
        """Return how messages call the chosen rows."""
        return [f"{self.name} {number}".lstrip() for number in self.rows.numbers[chosen].tolist()]


class BatchLoss(nn.Module):
    """From the rows of a batch to its loss: model and losses as one module, so that torch can reduce its gradients.

    Each process embeds its share of the rows and gets the embeddings of all; the mean of what the processes return is
    the loss of the batch, and the mean of the gradients is its gradient.

    Args:
        encoder: is trained in place.
        losses: likewise; those of the parts.
        parts: what batches are taken from.
        world: the processes that compute a batch together.
        bf16: whether the embeddings are computed in bf16.
    """

    def __init__(self, encoder: Encoder, losses: nn.Module, parts: Sequence[Part], world: World = ALONE, *,
                 bf16: bool = False) -> None:
        super().__init__()
        self.model, self.losses = encoder.model, losses
        self._encoder, self._parts, self._world, self._bf16 = encoder, parts, world, bf16

    def forward(self, batch: Batch) -> Tensor:
        """Return this process's scalar, from one forward over all text columns of its share of the rows."""
        chosen, part, world, forward = batch.rows, self._parts[batch.part], self._world, self._encoder.forward
        rows = part.rows
        share = world.share(len(chosen))
        own = chosen[share]
        some = own if len(own) else chosen[:1]  # every process runs a forward; one without rows drops its result
        device = self._encoder.model.device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self._bf16):
            embeddings = forward(rows.batch(some), queries=0 if rows.queries is None else len(some))
        given = (world.gather(embeddings.float().split(len(some)), len(chosen)),
                 None if rows.labels is None else forward.to_device(rows.labels.numpy()[chosen]),
                 forward.to_device(rows.text_ids[chosen]))
        added = part.loss.of_rows(share, *given) if world.size > 1 else None
        return part.loss(*given) if added is None else added * world.size
