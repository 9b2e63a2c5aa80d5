"""Several processes training one model: started by ``torchrun --nproc-per-node N -m train ...``.

A batch is of all processes together. Each embeds its share of the rows, and all embeddings are gathered, so that a
row's negatives are those of all processes, whatever the loss. Then each computes what its own rows add to the loss,
where the loss has such parts, else the loss of the whole batch. The gradient of an embedding flows back to the process
that made it, and torch's DistributedDataParallel reduces those of model and heads while the backward still runs. So N
processes compute what one would on the whole batch (dropout and rounding aside).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sentence_forge.encoders.encoder import Encoder
from sentence_forge.runtime.errors import UserError
from sentence_forge.train.meeting import BEGINNING, by_torchrun, meet, starts_before, store


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

    def gather(self, columns: Sequence[Tensor], count: int) -> list[Tensor]:
        """Return columns of all processes' ``count`` rows, given those that begin with this one's; differentiable."""
        if self.size == 1:
            return list(columns)
        share = self.share(count)
        own = torch.stack(list(columns), dim=1)[: share.stop - share.start]  # in one go
        return list(_Gather.apply(own, self, count).unbind(1))

    def together(self, module: nn.Module) -> nn.Module:
        """Return a module that has the first process's weights, and whose backward gives the mean of all gradients.

        ``find_unused_parameters``, since a batch of a mix uses one of several heads. ``static_graph`` would lay out its
        buckets anew after a first step, and of three processes or more each sum is then rounded in another order: a
        resumed run would not end bit for bit where an unbroken one does.
        """
        if self.size == 1:
            return module
        return DistributedDataParallel(module, find_unused_parameters=True, gradient_as_bucket_view=True)

    def reducing(self, module: nn.Module, now: bool) -> AbstractContextManager[None]:
        """Return a context in which a backward of ``together``'s module reduces gradients, or only adds up its own."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) and not now else nullcontext()

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor of all processes; no GPU waits."""
        if self.size > 1:
            dist.all_reduce(value)
            value = value / self.size
        return value

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
    """Gathers the rows of all processes; their gradients, too, are added up over all processes."""

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
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.share], None, None


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


def own_gpu(world: World) -> int:
    """Return the number of the GPU that this process computes on.

    Raises:
        UserError: this machine has fewer than it has processes.
    """
    there = torch.cuda.device_count()
    if there == 1 and not by_torchrun():  # as srun --gpus-per-task=1 shows each process its own alone
        return 0
    mine = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", world.rank)))
    if mine >= there:
        started = f"torchrun --nproc-per-node={os.environ.get('LOCAL_WORLD_SIZE')}: each" if by_torchrun() else "each"
        raise UserError(f"{started} process wants a GPU, and this machine has {there}; start as many as that, or give "
                        "device=cpu")
    return mine


def join(world: World, device: str, limit: float = BEGINNING) -> None:
    """Join the other processes' group.

    Not before the model is built: once they have met, transformers writes files in the first process only, and a
    model made in memory goes through a folder.

    Args:
        world: what ``started`` gave.
        device: cpu or cuda.
        limit: seconds to wait for the others.

    Raises:
        UserError: another one doesn't come, or this machine has fewer GPUs than processes.
    """
    if world.size == 1:
        return
    if device == "cuda":
        torch.cuda.set_device(own_gpu(world))
    # of its own for each start: after a restart another one would still have the addresses of those who died
    where = store(world, f"start-{starts_before()}")
    where.set(str(world.rank), "")
    meet(world, where, limit)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", store=where, rank=world.rank,
                            world_size=world.size)


def leave(world: World) -> None:
    """Leave the other processes' group."""
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()
