"""Writes checkpoints while training goes on."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from sentence_forge.losses.loss_set import LossSet
from sentence_forge.train import checkpoint
from sentence_forge.train.checkpoint import Snapshot

Module = TypeVar("Module", bound=nn.Module)


class Saver:
    """Takes a snapshot at once and writes it in a thread; one at a time.

    Args:
        model: is copied once, to the CPU and without its weights, as the form that snapshots are saved in.
        losses: likewise.
        optimizer: its state is part of a checkpoint.
    """

    def __init__(self, model: SentenceTransformer, losses: LossSet, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.losses, self.optimizer = model, losses, optimizer
        self._twins = _shell(model), _shell(losses)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save(self, folder: Path, state: Mapping[str, Any], *, best: Path | None = None, keep: int = 2,
             others: Sequence[Mapping[str, Tensor]] = ()) -> None:
        """Begin to write a checkpoint, and remove all but the newest ``keep`` once it is there.

        Args:
            folder: ``<run>/checkpoints/step-N``.
            state: the loop's own, JSON-ready.
            best: see ``checkpoint.write``; must stay as it is until ``wait``.
            keep: of the run's checkpoints.
            others: the random generators of the other processes that train this model.

        Raises:
            UserError: the disk was full at the one before.
        """
        self.wait()
        parts: dict[str, Any] = {"model": self.model, "losses": self.losses, "optimizer": self.optimizer,
                                 "state": state, "others": others}
        try:
            taken = checkpoint.snapshot(**parts)
        except torch.OutOfMemoryError:  # a GPU too full for a copy waits for the one on the CPU
            taken = checkpoint.snapshot(**parts, to="cpu")
        ready = torch.cuda.Event() if self.model.device.type == "cuda" else None
        if ready is not None:
            ready.record()
        self._writing = self._thread.submit(self._write, folder, [taken], ready, best, keep)

    def wait(self) -> None:
        """Return when what was begun is on the disk.

        Raises:
            UserError: the disk is full.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def check(self) -> None:
        """Raise what went wrong so far, without waiting."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def _write(self, folder: Path, taken: list[Snapshot], ready: torch.cuda.Event | None, best: Path | None,
               keep: int) -> None:
        on_cpu = _on_cpu(taken.pop(), ready)  # popped, so that the GPU's copy is freed before the files are written
        model, losses = self._twins
        checkpoint.write(folder, on_cpu, model=model, losses=losses, best=best)
        checkpoint.prune(folder.parent.parent, keep)


def _shell(module: Module) -> Module:
    """Return a copy of a module on the CPU: tensors of its state are not filled yet, and tokenizers are shared."""
    state = [each for each in module.state_dict(keep_vars=True).values() if isinstance(each, Tensor)]
    empty: dict[int, Any] = {id(each): torch.empty_like(each, device="cpu") for each in state}
    for each in state:
        if isinstance(each, nn.Parameter):
            empty[id(each)] = nn.Parameter(empty[id(each)], each.requires_grad)
    tokenizers = [getattr(part, "tokenizer", None) for part in module.modules()]
    shared = {id(each): each for each in tokenizers if each is not None and not isinstance(each, nn.Module)}
    return copy.deepcopy(module, empty | shared).cpu()


def _on_cpu(taken: Snapshot, ready: torch.cuda.Event | None) -> Snapshot:
    """Copy a snapshot's tensors to the CPU on a stream of their own, beside the training's."""
    if ready is None:
        return taken

    def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.cpu() for name, tensor in tensors.items()}

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        stream.wait_event(ready)
        return dataclasses.replace(taken, model=copied(taken.model), losses=copied(taken.losses),
                                   optimizer=copied(taken.optimizer))
