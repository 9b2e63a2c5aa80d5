"""Several processes training one model: started by ``torchrun --nproc-per-node N -m train ...``.

A batch is of all processes together. Each embeds its share of the rows, all embeddings are gathered, and each process
computes the loss of the whole batch, so that a row's negatives are those of all processes, whatever the loss. The
gradient of an embedding flows back to the process that made it; the parameters' gradients are summed. So N processes
compute what one would on the whole batch (dropout and rounding aside).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from sentence_forge.encoders.encoder import Encoder


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Args:
        rank: this one's number, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return this process's part of ``count`` things: consecutive ones, as evenly as can be."""
        ends = np.cumsum([0, *(len(part) for part in np.array_split(np.arange(count), self.size))])
        return slice(int(ends[self.rank]), int(ends[self.rank + 1]))

    def gather(self, own: Tensor, count: int) -> Tensor:
        """Return the ``[count, dim]`` rows of all processes, given this one's ``share``; differentiable."""
        return own if self.size == 1 else _Gather.apply(own, self, count)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up the gradients of all processes, in place."""
        if self.size == 1:
            return
        # every process embeds a row at least, so all have gradients for the same parameters
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, total in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))

    def same_everywhere(self, modules: Iterable[torch.nn.Module]) -> None:
        """Give every process the first one's weights."""
        if self.size > 1:
            for module in modules:
                for tensor in module.state_dict().values():
                    dist.broadcast(tensor, src=0)

    def largest(self, value: int) -> int:
        """Return the largest of all processes' values, on the CPU, so that no GPU waits."""
        if self.size == 1:
            return value
        values = torch.tensor([value])
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return int(values)

    def collect(self, value: Any) -> list[Any]:  # noqa: ANN401 - whatever is sent
        """Return every process's value, in the order of their numbers."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found


ALONE = World()


class _Gather(torch.autograd.Function):
    """Gathers the rows of all processes; the gradient of each process's own rows goes back to it."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, world: World, count: int) -> Tensor:  # noqa: ANN401 - torch's context
        ctx.share = world.share(count)
        shares = [World(rank, world.size).share(count) for rank in range(world.size)]
        most = max(share.stop - share.start for share in shares)
        padded = own.new_zeros((most, *own.shape[1:]))
        padded[: len(own)] = own
        found = [torch.empty_like(padded) for _ in shares]
        dist.all_gather(found, padded)
        return torch.cat([rows[: share.stop - share.start] for rows, share in zip(found, shares, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return gradients[0][ctx.share].contiguous(), None, None


class SharedEncoder(Encoder):
    """An encoder of which each process encodes its share of the texts, and all get all vectors."""

    def __init__(self, encoder: Encoder, world: World) -> None:
        super().__init__(encoder.model, encoder.name)
        self.forward = encoder.forward
        self.world = world

    def encode(self, texts: Iterable[str], **how: Any) -> np.ndarray:  # noqa: ANN401 - as Encoder.encode
        """Return all vectors; to be called by every process, with the same texts."""
        texts = texts if isinstance(texts, Sequence) else list(texts)
        own = super().encode(texts[self.world.share(len(texts))], **how)
        return np.concatenate(self.world.collect(own))


def started() -> World:
    """Return the processes that ``torchrun`` started; this one alone without it."""
    return World(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


def join(world: World, device: str) -> None:
    """Join the other processes' group.

    Not before the model is built: once they have met, transformers writes files in the first process only, and a
    model made in memory goes through a folder.

    Args:
        world: what ``started`` gave.
        device: cpu or cuda.
    """
    if world.size > 1:
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")


def leave(world: World) -> None:
    """Leave the other processes' group."""
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()
