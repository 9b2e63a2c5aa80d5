"""The training loop, written out: step, accumulate, clip, schedule, log, evaluate, checkpoint, stop."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sentence_forge.encoders.computing.forward import Work
from sentence_forge.encoders.computing.tokens import Tokens, joined
from sentence_forge.encoders.encoder import Encoder
from sentence_forge.losses.base import Loss
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.process import silence_a_closed_terminal
from sentence_forge.train import checkpoint
from sentence_forge.train.batches import Batches
from sentence_forge.train.distributed import ALONE, World
from sentence_forge.train.mixing import MixedLoss
from sentence_forge.train.optim import learning_rate_at
from sentence_forge.train.saver import Saver
from sentence_forge.train.tracking import Tracker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How long, how fast, how often; counts are optimiser steps (see ``configs.schema.Loop``)."""

    total: int
    warmup: int
    accumulate: int
    learning_rate: float
    schedule: str
    max_grad_norm: float
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    keep: int
    patience: int | None
    bf16: bool


@dataclass(frozen=True)
class Rows:
    """The training split, as the loop needs it.

    Args:
        tokens: every distinct text's tokens.
        text_ids: int64 ``[rows, columns]``, positions in ``tokens``.
        labels: what the loss made of the label column, ``[rows]`` first; None without labels.
        numbers: int64 ``[rows]``, the 1-based data row in the file each came from, for messages.
        queries: every distinct text's tokens as a query, where the first column's are encoded otherwise than the rest.
        parts: of a mix, the rows of each source, which are numbered on from one to the next; above are then only
            ``numbers``.
    """

    tokens: Tokens
    text_ids: np.ndarray
    labels: Tensor | None
    numbers: np.ndarray
    queries: Tokens | None = None
    parts: tuple[Rows, ...] = ()

    def batch(self, chosen: np.ndarray) -> Tokens:
        """Return the chosen rows' texts as one stream, column by column."""
        ids = self.text_ids[chosen].T
        if self.queries is None:
            return self.tokens.take(ids.reshape(-1))
        return joined([self.queries.take(ids[0]), self.tokens.take(ids[1:].reshape(-1))])

    def part_of(self, chosen: np.ndarray) -> tuple[int, np.ndarray]:
        """Return which part the chosen rows are of, and their numbers there; a batch is of one part."""
        starts = np.cumsum([0, *(len(part.numbers) for part in self.parts)])
        part = int(np.searchsorted(starts, chosen[0], side="right")) - 1
        return part, chosen - starts[part]


@dataclass
class State:
    """What a resumed run must know besides weights, optimizer and generators; JSON-ready."""

    step: int = 0
    epoch: int = 0
    position: int = 0
    best: float | None = None
    best_step: int | None = None
    evaluations_without_better: int = 0
    rows_seen: int = 0
    losses: list[float] = field(default_factory=list)  # of the steps since the last logged one
    baseline: dict[str, float] = field(default_factory=dict)


class _Step(NamedTuple):
    """What a step came to, still on the device."""

    number: int
    rows: np.ndarray
    loss: Tensor
    norm: Tensor


class Interrupted(Exception):
    """A signal asked the run to end; a checkpoint was written."""

    def __init__(self, number: int, folder: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number, self.folder = number, folder


class Training:
    """A run's loop, from ``state`` to the end.

    Args:
        run: the run's folder; checkpoints go below it.
        encoder: is trained in place.
        loss: likewise, where it has weights.
        rows: the training split.
        batches: stands where ``state`` says.
        optimizer: over model and loss.
        settings: see there.
        state: is kept up to date in place.
        evaluate: gives the dev measures; the first one decides what is best, and larger is better.
        on_better: told the step when the measure is the best so far or equals it, step 0 excepted.
        tracker: is told everything.
        world: the processes that train together; all but the first one write nothing.
    """

    def __init__(self, *, run: Path, encoder: Encoder, loss: Loss, rows: Rows, batches: Batches,
                 optimizer: torch.optim.Optimizer, settings: Settings, state: State,
                 evaluate: Callable[[], dict[str, float]], on_better: Callable[[int], None], tracker: Tracker,
                 world: World = ALONE) -> None:
        self.run, self.encoder, self.loss, self.rows, self.batches = run, encoder, loss, rows, batches
        self.optimizer, self.settings, self.state = optimizer, settings, state
        self.evaluate, self.on_better, self.tracker, self.world = evaluate, on_better, tracker, world
        self.saver = Saver(encoder.model, loss, optimizer)
        self.measured: dict[str, float] = {}
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._pending: list[_Step] = []  # not yet looked at: looking makes a GPU wait
        self._norm = math.nan  # the last step's
        self._seconds = 0.0  # of steps, without evaluations and checkpoints
        self._rows = 0  # in those seconds

    def train(self) -> dict[str, float]:
        """Train, and return the last evaluation.

        Raises:
            UserError: the loss or its gradient is not finite; names the step and the rows.
            Interrupted: SIGINT, SIGTERM or SIGHUP; the step was finished and a checkpoint written.
        """
        settings, state = self.settings, self.state
        if state.step == 0:
            self._measure()
        self.encoder.forward.work = Work()
        self.encoder.model.train()
        bar = tqdm(total=settings.total, initial=state.step, unit="step",
                   disable=None if self.world.first else True, dynamic_ncols=True)
        with bar, _Signals() as signals:
            while state.step < settings.total and not self._given_up():
                begun = time.perf_counter()
                rate = self._step()
                last = state.step == settings.total
                logs, evaluates, saves = (last or state.step % every == 0 for every in (
                    settings.log_every, settings.evaluate_every, settings.checkpoint_every))
                if logs or evaluates or saves or signals.received:
                    self._look()
                self._seconds += time.perf_counter() - begun
                bar.update()
                if logs or state.step == 1:
                    bar.set_postfix_str(self._log(rate))
                if evaluates:
                    self._measure()
                stop = self.world.largest(signals.received or 0)  # read once: it may come at any moment
                if saves or stop or self._given_up():
                    folder = self._save()
                if stop:
                    self.saver.wait()
                    raise Interrupted(stop, folder)
                if self._given_up():
                    log.info("stopped at step %d: %d evaluations without a better one", state.step, settings.patience)
        self.saver.wait()
        self.encoder.model.eval()
        return self.measured

    def _given_up(self) -> bool:
        patience = self.settings.patience
        return patience is not None and self.state.evaluations_without_better >= patience

    def _step(self) -> float:
        """Take one optimiser step, and return its learning rate."""
        settings, state = self.settings, self.state
        numbers = []
        total = torch.zeros((), device=self.encoder.model.device)
        for _ in range(settings.accumulate):
            chosen = next(self.batches)
            numbers.append(self.rows.numbers[chosen])
            value = batch_loss(self.encoder, self.loss, self.rows, chosen, self.world, bf16=settings.bf16)
            value = value / settings.accumulate
            value.backward()
            total += value.detach()
            self._rows += len(chosen)
            state.rows_seen += len(chosen)
        self.world.sum_gradients(p for p in self.encoder.model.parameters() if p.requires_grad)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, settings.max_grad_norm or math.inf)
        rate = learning_rate_at(state.step, peak=settings.learning_rate, warmup=settings.warmup,
                                total=settings.total, schedule=settings.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        state.step += 1
        self._pending.append(_Step(state.step, np.concatenate(numbers), total, norm))
        if self.encoder.model.device.type == "cpu":
            self._look()  # before the step is taken; a GPU would have to wait, so there it is looked at when logging
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return rate

    def _look(self) -> None:
        """Look at the steps since the last look, and stop the run at one whose loss or gradient is no number."""
        for step in self._pending:
            loss, norm = float(step.loss), float(step.norm)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                what = "gradient" if math.isfinite(loss) else "loss"
                raise UserError(
                    f"the {what} of step {step.number} is not finite; its rows were "
                    f"{', '.join(map(str, step.rows.tolist()))}; a smaller loop.learning_rate or loop.precision=fp32 "
                    "may help, the last checkpoint is whole")
            self.state.losses.append(loss)
            self._norm = norm
        self._pending.clear()

    def _log(self, rate: float) -> str:
        """Tell the tracker how the last steps went, and return it in short."""
        self._look()
        self.saver.check()
        work, speed = self.encoder.forward.work, self._rows / self._seconds
        loss = float(np.mean(self.state.losses))
        self.state.losses.clear()
        self.tracker.scalars(self.state.step, {
            "train/loss": loss, "train/learning_rate": rate, "train/gradient_norm": self._norm,
            "train/epoch": self.batches.done, "speed/pairs_per_second": speed,
            "speed/tokens_per_second": sum(self.world.collect(work.real)) / self._seconds,
            "speed/padding_share": work.padding_share})
        return f"loss {loss:.4f}, {speed:.0f} pairs/s"

    def _measure(self) -> None:
        """Evaluate on dev, and keep the model if it is the best."""
        state, work = self.state, self.encoder.forward.work
        self.measured = self.world.collect(self.evaluate())[0]  # the first one's, lest two decide differently
        self.encoder.forward.work = work  # the evaluation's own texts don't count
        self.encoder.model.train()
        name, value = next(iter(self.measured.items()))
        self.tracker.scalars(state.step, {f"dev/{key}": number for key, number in self.measured.items()})
        if state.step == 0:
            state.baseline = dict(self.measured)
            log.info("step 0 (untouched): dev %s %.4f", name, value)
            return
        better = math.isfinite(value) and (state.best is None or value > state.best)
        state.evaluations_without_better = 0 if better else state.evaluations_without_better + 1
        best = better or value == state.best  # of equals the one that was trained longer: small dev sets tie often
        log.info("step %d of %d: dev %s %.4f%s", state.step, self.settings.total, name, value, " *" if best else "")
        if best:
            state.best, state.best_step = value, state.step
            self.saver.wait()  # a checkpoint being written holds the best so far
            if self.world.first:
                self.on_better(state.step)

    def _save(self) -> Path:
        """Begin a checkpoint, which is written while training goes on."""
        self._look()
        state = self.state
        state.epoch, state.position = self.batches.epoch, self.batches.position
        folder = self.run / "checkpoints" / f"step-{state.step}"
        others = self.world.collect(checkpoint.generators())[1:]
        if self.world.first:
            self.saver.save(folder, vars(state), best=self.run / "model" if state.best_step is not None else None,
                            keep=self.settings.keep, others=others)
        return folder


def batch_loss(encoder: Encoder, loss: Loss, rows: Rows, chosen: np.ndarray, world: World, *, bf16: bool) -> Tensor:
    """One forward over all text columns of this process's share of the rows, and the loss on all processes' pieces."""
    if isinstance(loss, MixedLoss):
        part, chosen = rows.part_of(chosen)
        loss, rows = loss.of_part(part), rows.parts[part]
    text_ids = rows.text_ids[chosen]
    device = encoder.model.device
    own = chosen[world.share(len(chosen))]
    some = own if len(own) else chosen[:1]  # a process without a row embeds one all the same, and gives none of it
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        embeddings = encoder.forward(rows.batch(some), queries=0 if rows.queries is None else len(some))
    columns = [world.gather(column[: len(own)], len(chosen)) for column in embeddings.float().split(len(some))]
    labels = None if rows.labels is None else encoder.forward.to_device(rows.labels.numpy()[chosen])
    return loss(columns, labels, encoder.forward.to_device(text_ids))


class _Signals:
    """Remembers a SIGINT, SIGTERM or SIGHUP instead of dying by it; a second one dies."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self._before[number])
        silence_a_closed_terminal(number)
        log.info("%s: finishing this step, then a checkpoint", signal.Signals(number).name)
