"""Training rows as the loop takes them, and the loss of one batch of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sentence_forge.encoders.computing.chain import Chain
from sentence_forge.encoders.computing.flat_way import sent
from sentence_forge.encoders.computing.forward import Work
from sentence_forge.encoders.computing.plan import How, Packed, Plan
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


class Planned(NamedTuple):
    """A batch with all that its forward needs.

    Args:
        batch: the rows.
        plans: of this process's share of the texts; see ``Forward.plan``.
        packed: the groups ``text_ids`` and ``labels``, then those of the plans.
    """

    batch: Batch
    plans: list[tuple[Chain, Plan]]
    packed: Packed


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
        self._hows: dict[Chain, How] = {}  # until settle: nothing is planned, the forward does all

    def settle(self, batch: Batch) -> None:
        """Choose how texts are embedded, by trying it on a batch, before batches are planned."""
        tokens, queries = self._texts(batch)
        with self._precision():
            self._hows = self._encoder.forward.settle(tokens, queries=queries)

    def fix_shapes(self, sample: Sequence[Batch]) -> None:
        """Let a model that is compiled be so for the shapes that most of these batches have, and for no other."""
        self._encoder.forward.fix_shapes([each for batch in sample for each in self.plan(batch).plans])
        self.settle(sample[0])

    def compile_nothing(self, batch: Batch) -> None:
        """Give up compiling."""
        self._encoder.forward.compiled = False
        self.settle(batch)

    def rehearse(self, planned: Planned) -> None:
        """Run a batch forward and backward, and leave all as it was: no gradients, and the same random draws next."""
        encoder = self._encoder
        work, encoder.forward.work = encoder.forward.work, Work()
        devices = [torch.cuda.current_device()] if encoder.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            vectors = self._embedded(planned)[0]
            # not backward(), at which several processes would begin to reduce
            torch.autograd.grad(vectors.sum(), [p for p in self.model.parameters() if p.requires_grad],
                                allow_unused=True)
        encoder.forward.work = work

    def plan(self, batch: Batch) -> Planned:
        """Gather what a batch needs, by NumPy alone: a thread may do it while the one before is computed."""
        rows = self._parts[batch.part].rows
        tokens, queries = self._texts(batch)
        plans = self._encoder.forward.plan(tokens, self._hows, queries=queries)
        given = {"text_ids": rows.text_ids[batch.rows]}
        if rows.labels is not None:
            given["labels"] = rows.labels.numpy()[batch.rows]
        return Planned(batch, plans, Packed([given, *(group for _, plan in plans for group in plan.groups)]))

    def forward(self, planned: Planned) -> Tensor:
        """Return this process's scalar, from one forward over all text columns of its share of the rows."""
        batch, world = planned.batch, self._world
        loss = self._parts[batch.part].loss
        embeddings, given = self._embedded(planned)
        columns = world.gather(embeddings.split(len(self._own(batch))), len(batch.rows))
        args = columns, given.get("labels"), given["text_ids"]
        added = loss.of_rows(world.share(len(batch.rows)), *args) if world.size > 1 else None
        return loss(*args) if added is None else added * world.size

    def _embedded(self, planned: Planned) -> tuple[Tensor, dict[str, Tensor]]:
        given, *groups = sent(planned.packed, self._encoder.model.device)
        with self._precision():
            return self._encoder.forward.run(planned.plans, groups).float(), given

    def _texts(self, batch: Batch) -> tuple[Tokens, int]:
        """Return the texts of this process's share, column by column, and how many of them are queries."""
        rows, own = self._parts[batch.part].rows, self._own(batch)
        return rows.batch(own), 0 if rows.queries is None else len(own)

    def _own(self, batch: Batch) -> np.ndarray:
        own = batch.rows[self._world.share(len(batch.rows))]
        return own if len(own) else batch.rows[:1]  # every process runs a forward; one without rows drops its result

    def _precision(self) -> torch.autocast:
        return torch.autocast(self._encoder.model.device.type, dtype=torch.bfloat16, enabled=self._bf16)
