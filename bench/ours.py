"""Our side: the loop, forward, losses and optimizer of a run, without its evaluations and its last checkpoint."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from bench.arms import LEARNING_RATE, WARMUP, WEIGHT_DECAY, Stopwatch, Turn, Watch
from bench.tasks import Task
from sentence_forge.encoders.computing import matmul
from sentence_forge.encoders.computing.device import keep_freed_memory
from sentence_forge.encoders.computing.forward import Forward
from sentence_forge.encoders.encoder import Encoder
from sentence_forge.losses.loss_set import LossSet
from sentence_forge.runtime import targets
from sentence_forge.train.batches import Batches
from sentence_forge.train.compiling import SAMPLE
from sentence_forge.train.loop import State, Training
from sentence_forge.train.mixing import Batch
from sentence_forge.train.optim import Plan, adamw
from sentence_forge.train.rows import Part, Rows
from sentence_forge.train.tracking import Tracker

LOSSES = {"mnrl": "mnrl.MultipleNegativesRanking", "triplet": "triplet.Triplet", "cosine": "cosine.Cosine",
          "softmax": "softmax.Softmax", "batch_hard": "batch_hard.BatchHard"}


def our_loss(task: Task, dim: int) -> LossSet:
    """Return the task's loss, as its YAML has it."""
    labels = sorted(set(map(str, task.labels or ())))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the softmax head's weights
        return LossSet({"": targets.bound({"_target_": f"losses.{LOSSES[task.loss]}"}, "loss",
                                          offers={"dim": dim, "labels": labels})})


class Ours:
    """Trains by ``train.loop.Training``.

    Args:
        model: trained in place; every turn begins with the weights it has now.
        task: what on.
        fast: as ``loop.fast``.
        bf16: as ``loop.precision=bf16``.
        compiled: as ``loop.compile``.
        onednn: False multiplies by what torch would call.
        name: what lines call it.
    """

    def __init__(self, model: SentenceTransformer, task: Task, *, fast: bool = True, bf16: bool = False,
                 compiled: bool = False, onednn: bool = True, name: str = "ours") -> None:
        self.name, self.task, self.bf16, self.onednn = name, task, bf16, onednn
        self.encoder = Encoder(model)
        self.encoder.forward = Forward(model, fast=fast, compiled=compiled)
        self.losses = our_loss(task, self.encoder.dim).to(model.device)
        self.loss = self.losses[""]
        self._first = [{key: value.clone() for key, value in part.state_dict().items()} for part in (model, self.loss)]

    def prepare(self) -> None:
        """Tokenise every distinct text, as a run does before its first step."""
        task = self.task
        self.tokens = self.encoder.tokenize(task.texts)
        labels = None if task.labels is None else self.loss.encode_labels(task.labels)
        self.rows = Rows(tokens=self.tokens, text_ids=task.text_ids, labels=labels,
                         numbers=np.arange(len(task.text_ids)))

    def turn(self, batches: list[np.ndarray], *, skip: int = 0, watch: Watch | None = None) -> Turn:
        """See ``bench.arms.Arm``."""
        for part, first in zip((self.encoder.model, self.loss), self._first, strict=True):
            part.load_state_dict(first)
        keep_freed_memory()  # as a run does; the stock trainer in the same process gains by it, too
        clock = Stopwatch(self.encoder.model.device)
        state = State()

        def begin(*_: object) -> None:
            if state.step == skip:
                clock.start()

        def evaluate() -> dict[str, float]:
            if state.step == len(batches):
                clock.stop()
                raise _EnoughError
            begin()
            return {"none": 0.0}

        optimizer = adamw([self.encoder.model, self.losses], learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        optimizer.register_step_post_hook(begin)
        if watch is not None:
            optimizer.register_step_pre_hook(lambda *_: watch.keep(self._named()))
        total = len(batches)
        plan = Plan(total=total, warmup=round(WARMUP * total), accumulate=1, learning_rate=LEARNING_RATE,
                    schedule="linear", max_grad_norm=clip(self.task.loss), log_every=10 if watch is None else 1,
                    evaluate_every=total, checkpoint_every=total, keep=1, patience=None, bf16=self.bf16)
        with tempfile.TemporaryDirectory() as folder, Tracker(Path(folder)) as tracker:
            with contextlib.suppress(_EnoughError), contextlib.nullcontext() if self.onednn else _by_torch():
                Training(run=Path(folder), encoder=self.encoder, losses=self.losses,
                         parts=[Part(self.rows, self.losses[""])], batches=self._batches(batches),
                         optimizer=optimizer, plan=plan, state=state, evaluate=evaluate,
                         on_better=lambda step: None, tracker=tracker).train()
            if watch is not None:
                told = map(json.loads, Path(folder, "metrics.jsonl").read_text(encoding="utf-8").splitlines())
                watch.losses += [each["train/loss"] for each in told if "train/loss" in each]
        return Turn(clock.seconds, clock.cpu_seconds, self.encoder.forward.work.padding_share, clock.peak_mib)

    def _batches(self, batches: list[np.ndarray]) -> Batches[Batch]:
        """Return a turn's batches as a second epoch: the first, whose shapes are compiled, is the same every turn."""
        first = [Batch(0, rows) for rows in self.task.batches[:SAMPLE]]
        return Batches(lambda epoch: [Batch(0, rows) for rows in batches] if epoch else first, epoch=1)

    def _named(self) -> Iterable[tuple[str, nn.Parameter]]:
        yield from self.encoder.model.named_parameters()
        yield from self.loss.named_parameters()


def clip(loss: str) -> float:
    """Return the gradient norm to clip at; 0, off, for softmax, whose head the stock trainer leaves out of the norm."""
    return 0.0 if loss == "softmax" else 1.0


@contextlib.contextmanager
def _by_torch() -> Iterator[None]:
    suits = matmul._suits
    matmul._suits = lambda: False  # type: ignore[assignment]
    try:
        yield
    finally:
        matmul._suits = suits


class _EnoughError(Exception):
    """Raised behind the last step: a checkpoint is no part of what is timed."""
