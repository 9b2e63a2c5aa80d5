"""Training rows as the loop takes them, and the loss of one batch of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sentence_forge.encoders.computing.tokens import Tokens, joined
from sentence_forge.encoders.encoder import Encoder
from sentence_forge.losses.base import Loss
from sentence_forge.train.distributed import World


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


def batch_loss(encoder: Encoder, part: Part, chosen: np.ndarray, world: World, *, bf16: bool) -> Tensor:
    """Return a batch's loss: this process embeds its share of the rows in one forward, the loss sees all rows."""
    rows = part.rows
    text_ids = rows.text_ids[chosen]
    device = encoder.model.device
    own = chosen[world.share(len(chosen))]
    some = own if len(own) else chosen[:1]  # every process runs a forward; one without rows drops its result
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        embeddings = encoder.forward(rows.batch(some), queries=0 if rows.queries is None else len(some))
    columns = [world.gather(column[: len(own)], len(chosen)) for column in embeddings.float().split(len(some))]
    labels = None if rows.labels is None else encoder.forward.to_device(rows.labels.numpy()[chosen])
    return part.loss(columns, labels, encoder.forward.to_device(text_ids))
