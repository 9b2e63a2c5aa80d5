"""The training loop, written out: step, accumulate, clip, schedule, log, evaluate, checkpoint, stop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sentence_forge.encoders.computing.forward import Work
from sentence_forge.encoders.encoder import Encoder
from sentence_forge.losses.loss_set import LossSet
from sentence_forge.runtime.errors import UserError
from sentence_forge.train.ahead import Ahead
from sentence_forge.train.batches import Batches
from sentence_forge.train.compiling import SAMPLE, compile_shapes
from sentence_forge.train.distributed import ALONE, World
from sentence_forge.train.generators import torch_generators
from sentence_forge.train.interrupt import Interrupted, Signals
from sentence_forge.train.mixing import Batch
from sentence_forge.train.optim import Plan, learning_rate_at
from sentence_forge.train.rows import BatchLoss, Part
from sentence_forge.train.saver import Saver
from sentence_forge.train.table import by_rows, gradients
from sentence_forge.train.tracking import Tracker

log = logging.getLogger(__name__)


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
    mined: dict[str, Any] | None = None  # the step whose mined negatives the rows hold, and its file's sha256


class _Step(NamedTuple):
    """A step's loss and gradient norm, still on the device, and the batches they are of."""

    number: int
    batches: list[Batch]
    loss: Tensor
    norm: Tensor


class Training:
    """A run's loop, from ``state`` to the end.

    Args:
        run: the run's folder; checkpoints go below it.
        encoder: is trained in place.
        losses: those of the parts, trained in place where they have weights.
        parts: what batches are taken from.
        batches: begins where ``state`` says.
        optimizer: over model and losses.
        plan: how long, how fast, how often.
        state: is kept up to date in place.
        evaluate: gives the dev measures; the first one decides what is best, and larger is better.
        on_better: called with the step when the measure is the best so far or equals it, step 0 excepted.
        tracker: logs the numbers.
        world: the processes that train together; all but the first one write nothing.
        renew: called with ``state`` before a batch of the next step is planned; may change the parts' rows.
    """

    def __init__(self, *, run: Path, encoder: Encoder, losses: LossSet, parts: Sequence[Part], batches: Batches[Batch],
                 optimizer: torch.optim.Optimizer, plan: Plan, state: State,
                 evaluate: Callable[[], dict[str, float]], on_better: Callable[[int], None], tracker: Tracker,
                 world: World = ALONE, renew: Callable[[State], None] = lambda state: None) -> None:
        self.run, self.encoder, self.parts, self.batches = run, encoder, parts, batches
        self.optimizer, self.plan, self.state = optimizer, plan, state
        self.evaluate, self.on_better, self.renew, self.tracker, self.world = evaluate, on_better, renew, tracker, world
        self.saver = Saver(encoder.model, losses, optimizer)
        self.measured: dict[str, float] = {}
        self._batch_loss = BatchLoss(encoder, losses, parts, world, bf16=plan.bf16)
        self._loss_of = world.together(self._batch_loss)
        threaded = encoder.model.device.type == "cuda" and plan.remine_every is None  # else rows change as it plans
        self._ahead = Ahead(batches, plan=self._batch_loss.plan, settle=self._settle, threaded=threaded,
                            left=(plan.total - state.step) * plan.accumulate)
        if encoder.model.device.type == "cpu" and world.size == 1 and not encoder.forward.compiled:
            by_rows(encoder.model)
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._unchecked: list[_Step] = []  # reading their numbers makes a GPU wait
        self._norm = math.nan  # the last step's
        self._seconds, self._rows = 0.0, 0  # of steps, without evaluations and checkpoints; rows in those seconds

    def train(self) -> dict[str, float]:
        """Train, and return the last evaluation.

        Raises:
            UserError: the loss or its gradient is not finite; names the step and the rows.
            Interrupted: SIGINT, SIGTERM or SIGHUP; the step was finished and a checkpoint written.
        """
        plan, state = self.plan, self.state
        if state.step == 0:
            self._measure()
        self.encoder.model.train()
        bar = tqdm(total=plan.total, initial=state.step, unit="step",
                   disable=None if self.world.first else True, dynamic_ncols=True)
        with bar, Signals() as signals, self._ahead:
            self.encoder.forward.work = Work()
            while state.step < plan.total and not self._given_up():
                self.renew(state)
                begun = time.perf_counter()
                rate = self._step()
                last = state.step == plan.total
                logs, evaluates, saves = (last or state.step % every == 0 for every in (
                    plan.log_every, plan.evaluate_every, plan.checkpoint_every))
                if logs or evaluates or saves or signals.received:
                    self._check_finite()
                self._seconds += time.perf_counter() - begun
                bar.update()
                if logs or state.step == 1:
                    bar.set_postfix_str(self._log(rate))
                if evaluates:
                    self._measure()
                stop = self.world.largest(signals.received or 0)  # it may come at any moment, so read it once
                if saves or stop or self._given_up():
                    folder = self._save()
                if stop:
                    self.saver.wait()
                    raise Interrupted(stop, folder)
                if self._given_up():
                    log.info("stopped at step %d: %d evaluations without a better one", state.step, plan.patience)
        self.saver.wait()
        self.encoder.model.eval()
        return self.measured

    def _settle(self, batch: Batch) -> None:
        """Choose how texts are embedded, and compile it where that is wanted, before the first step's clock."""
        self._batch_loss.settle(batch)
        if self.encoder.forward.compiled and self.encoder.forward.way == "flat":
            compile_shapes(self._batch_loss, self.batches.first(SAMPLE))
        self.renew(self.state)

    def _given_up(self) -> bool:
        return self.plan.patience is not None and self.state.evaluations_without_better >= self.plan.patience

    def _step(self) -> float:
        """Take one optimiser step, and return its learning rate."""
        plan, state = self.plan, self.state
        taken = []
        total = torch.zeros((), device=self.encoder.model.device)
        for number in range(1, plan.accumulate + 1):
            planned = next(self._ahead)
            batch = planned.batch
            taken.append(batch)
            with self.world.reducing(self._loss_of, number == plan.accumulate):
                value = self._loss_of(planned) / plan.accumulate
                self._ahead.plan_next()
                value.backward()
            total += value.detach()
            self._rows += len(batch.rows)
            state.rows_seen += len(batch.rows)
        total = self.world.mean(total)
        found = gradients(self._parameters)
        norm = torch.nn.utils.get_total_norm(found)
        if plan.max_grad_norm:
            torch._foreach_mul_(found, (plan.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        rate = learning_rate_at(state.step, peak=plan.learning_rate, warmup=plan.warmup,
                                total=plan.total, schedule=plan.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        state.step += 1
        self._unchecked.append(_Step(state.step, taken, total, norm))
        if self.encoder.model.device.type == "cpu":
            self._check_finite()  # before the step is taken; a GPU would have to wait, so there it is done when logging
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return rate

    def _check_finite(self) -> None:
        """Check the steps since the last check, and stop the run at one whose loss or gradient is not finite."""
        for step in self._unchecked:
            loss, norm = float(step.loss), float(step.norm)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                what = "gradient" if math.isfinite(loss) else "loss"
                rows = [name for batch in step.batches for name in self.parts[batch.part].row_names(batch.rows)]
                raise UserError(f"the {what} of step {step.number} is not finite; its rows were {', '.join(rows)}; a "
                                "smaller loop.learning_rate or loop.precision=fp32 may help, the last checkpoint is "
                                "good")
            self.state.losses.append(loss)
            self._norm = norm
        self._unchecked.clear()

    def _log(self, rate: float) -> str:
        """Tell the tracker how the last steps went, and return it in short."""
        self._check_finite()
        self.saver.check()
        work, speed = self.encoder.forward.work, self._rows / self._seconds
        loss = float(np.mean(self.state.losses))
        self.state.losses.clear()
        self.tracker.scalars(self.state.step, {
            "train/loss": loss, "train/learning_rate": rate, "train/gradient_norm": self._norm,
            "train/epoch": self._ahead.done, "speed/pairs_per_second": speed,
            "speed/tokens_per_second": sum(self.world.collect(work.real)) / self._seconds,
            "speed/padding_share": work.padding_share})
        return f"loss {loss:.4f}, {speed:.0f} pairs/s"

    def _measure(self) -> None:
        """Evaluate on dev, and keep the model if it is the best."""
        state, work = self.state, self.encoder.forward.work
        self.encoder.forward.work = Work()  # the evaluation's own texts don't count
        self.measured = self.world.collect(self.evaluate())[0]  # the first one's, so that all decide alike
        self.encoder.forward.work = work
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
        log.info("step %d of %d: dev %s %.4f%s", state.step, self.plan.total, name, value,
                 ", kept as the best so far" if best else "")
        if best:
            state.best, state.best_step = value, state.step
            self.saver.wait()  # a checkpoint being written holds the best so far
            if self.world.first:
                self.on_better(state.step)

    def _save(self) -> Path:
        """Begin a checkpoint, which is written while training goes on."""
        self._check_finite()
        state = self.state
        state.epoch, state.position = self._ahead.epoch, self._ahead.position
        folder = self.run / "checkpoints" / f"step-{state.step}"
        others = self.world.collect(torch_generators())[1:]
        if self.world.first:
            self.saver.save(folder, vars(state), best=self.run / "model" if state.best_step is not None else None,
                            keep=self.plan.keep, others=others)
        return folder
