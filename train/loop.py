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
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from encoders.encoder import Encoder
from encoders.forward import Work
from encoders.tokens import Tokens
from losses.base import Loss
from runtime.errors import UserError
from train import checkpoint
from train.batches import Batches
from train.optim import learning_rate_at
from train.tracking import Tracker

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
    """

    tokens: Tokens
    text_ids: np.ndarray
    labels: Tensor | None
    numbers: np.ndarray


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
    seconds: float = 0.0
    baseline: dict[str, float] = field(default_factory=dict)


class Interrupted(Exception):
    """A signal asked the run to end; a checkpoint was written."""

    def __init__(self, number: int, folder: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number, self.folder = number, folder


def train(
    *,
    run: Path,
    encoder: Encoder,
    loss: Loss,
    rows: Rows,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    settings: Settings,
    state: State,
    evaluate: Callable[[], dict[str, float]],
    on_better: Callable[[int], None],
    tracker: Tracker,
) -> dict[str, float]:
    """Train from ``state`` to the end, and return the last evaluation.

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
        on_better: told the step when the measure is the best so far, step 0 excepted.
        tracker: is told everything.

    Raises:
        UserError: the loss or its gradient is not finite; names the step and the rows.
        Interrupted: SIGINT or SIGTERM; the step was finished and a checkpoint written.
    """
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    pending: list[tuple[int, np.ndarray, Tensor, Tensor]] = []  # not yet looked at: looking makes a GPU wait
    look_at_once = encoder.model.device.type == "cpu"
    measured: dict[str, float] = {}
    started, rows_at_start = time.perf_counter(), state.rows_seen
    seconds_before, paused = state.seconds, 0.0
    encoder.forward.work = Work()

    def measure() -> None:
        nonlocal measured, paused
        begun = time.perf_counter()
        measured = evaluate()
        encoder.forward.work = Work()
        name, value = next(iter(measured.items()))
        tracker.scalars(state.step, {f"dev/{key}": number for key, number in measured.items()})
        if state.step == 0:
            state.baseline = dict(measured)
            log.info("step 0 (untouched): dev %s %.4f", name, value)
        else:
            better = math.isfinite(value) and (state.best is None or value > state.best)
            log.info("step %d of %d: dev %s %.4f%s", state.step, settings.total, name, value, " *" if better else "")
            if better:
                state.best, state.best_step, state.evaluations_without_better = value, state.step, 0
                on_better(state.step)
            else:
                state.evaluations_without_better += 1
        paused += time.perf_counter() - begun

    def save() -> Path:
        nonlocal paused
        begun = time.perf_counter()
        state.epoch, state.position = batches.epoch, batches.position
        state.seconds = seconds_before + time.perf_counter() - started - paused
        folder = run / "checkpoints" / f"step-{state.step}"
        checkpoint.save(folder, model=encoder.model, loss=loss, optimizer=optimizer, state=vars(state))
        checkpoint.prune(run, settings.keep)
        paused += time.perf_counter() - begun
        return folder

    def look() -> float:
        """Return the mean loss since the last look, or stop the run on one that is no number."""
        losses, norms = (torch.stack([each[i] for each in pending]).float().cpu().numpy() for i in (2, 3))
        for (step, numbers, _, _), value, norm in zip(pending, losses, norms, strict=True):
            if not (math.isfinite(value) and math.isfinite(norm)):
                what = "loss" if not math.isfinite(value) else "gradient"
                raise UserError(
                    f"the {what} of step {step} is not finite; its rows were {', '.join(map(str, numbers.tolist()))}; "
                    "a smaller loop.learning_rate or loop.precision=fp32 may help, the last checkpoint is whole")
        pending.clear()
        return float(losses.mean())

    if state.step == 0:
        measure()
    encoder.model.train()
    bar = tqdm(total=settings.total, initial=state.step, unit="step", disable=None, dynamic_ncols=True)
    sums: list[float] = []
    with _Signals() as signals:
        while state.step < settings.total:
            numbers = []
            total_loss = torch.zeros((), device=encoder.model.device)
            for _ in range(settings.accumulate):
                chosen = next(batches)
                numbers.append(rows.numbers[chosen])
                state.rows_seen += len(chosen)
                value = _loss(encoder, loss, rows, chosen, bf16=settings.bf16) / settings.accumulate
                value.backward()
                total_loss += value.detach()
            norm = torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm or math.inf)
            rate = learning_rate_at(state.step, peak=settings.learning_rate, warmup=settings.warmup,
                                    total=settings.total, schedule=settings.schedule)
            for group in optimizer.param_groups:
                group["lr"] = rate
            state.step += 1
            pending.append((state.step, np.concatenate(numbers), total_loss, norm))
            last = state.step == settings.total
            logs = state.step % settings.log_every == 0 or last or state.step == 1
            evaluates = state.step % settings.evaluate_every == 0 or last
            saves = state.step % settings.checkpoint_every == 0 or last or signals.received is not None
            if look_at_once or logs or evaluates or saves:
                sums.append(look())  # before the step is taken: a weight that is no number would spread
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            bar.update()
            if logs:
                speed = (state.rows_seen - rows_at_start) / (time.perf_counter() - started - paused)
                work = encoder.forward.work
                tracker.scalars(state.step, {
                    "train/loss": float(np.mean(sums)), "train/learning_rate": rate, "train/gradient_norm": float(norm),
                    "train/epoch": batches.done, "speed/pairs_per_second": speed,
                    "speed/tokens_per_second": speed * work.real / max(1, work.texts) * rows.text_ids.shape[1],
                    "speed/padding_share": work.padding_share})
                bar.set_postfix_str(f"loss {np.mean(sums):.4f}, {speed:.0f} pairs/s")
                sums = []
            if evaluates:
                measure()
                encoder.model.train()
            if saves or signals.received is not None:
                folder = save()
                if signals.received is not None and not last:
                    bar.close()
                    raise Interrupted(signals.received, folder)
            if settings.patience is not None and state.evaluations_without_better >= settings.patience:
                log.info("stopped at step %d: %d evaluations without a better one", state.step, settings.patience)
                save()
                break
    bar.close()
    encoder.model.eval()
    return measured


def _loss(encoder: Encoder, loss: Loss, rows: Rows, chosen: np.ndarray, *, bf16: bool) -> Tensor:
    """One forward over all text columns of the chosen rows, and the loss on its pieces."""
    text_ids = rows.text_ids[chosen]
    device = encoder.model.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        embeddings = encoder.forward(rows.tokens.take(text_ids.T.reshape(-1)))
    columns = list(embeddings.float().split(len(chosen)))
    labels = None if rows.labels is None else rows.labels[torch.from_numpy(chosen)].to(device, non_blocking=True)
    return loss(columns, labels, torch.from_numpy(text_ids).to(device, non_blocking=True))


class _Signals:
    """Remembers a SIGINT or SIGTERM instead of dying by it; a second one dies."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self._before[number])
        log.info("%s: finishing this step, then a checkpoint", signal.Signals(number).name)
