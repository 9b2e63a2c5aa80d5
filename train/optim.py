"""AdamW, its learning rate, and a run's plan: how many steps, and what happens how often."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from sentence_forge.configs.choices import Precision
from sentence_forge.configs.schema import Loop
from sentence_forge.encoders.computing.device import multiplies_in_bf16
from sentence_forge.runtime.errors import UserError
from sentence_forge.train.table import AdamW


@dataclass(frozen=True)
class Plan:
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
    remine_every: int | None = None


def make_plan(loop: Loop, batches_per_epoch: int, device: torch.device) -> Plan:
    """Return the plan of a run on ``device`` whose first epoch has so many batches.

    Raises:
        UserError: bf16 is asked for where there is none.
    """
    steps_per_epoch = max(1, batches_per_epoch // loop.accumulate)
    total = loop.max_steps or max(1, round(loop.epochs * steps_per_epoch))

    def steps(value: float) -> int:
        return max(1, round(value * total) if value < 1 else round(value))

    here = multiplies_in_bf16(device)
    if loop.precision is Precision.bf16 and not here:
        raise UserError(f"loop.precision=bf16: this {device.type} doesn't multiply in bf16 (a CPU with avx512_bf16 or "
                        "AMX does, and newer GPUs); use auto or fp32")
    return Plan(
        total=total, warmup=round(loop.warmup * total) if loop.warmup < 1 else round(loop.warmup),
        accumulate=loop.accumulate, learning_rate=loop.learning_rate, schedule=loop.schedule.value,
        max_grad_norm=loop.max_grad_norm, log_every=loop.log_every, evaluate_every=steps(loop.evaluate_every),
        checkpoint_every=steps(loop.checkpoint_every), keep=loop.keep, patience=loop.patience,
        remine_every=None if loop.remine_every is None else steps(loop.remine_every),
        bf16=here and (loop.precision is Precision.bf16
                       or (loop.precision is Precision.auto and device.type == "cuda")))


def adamw(modules: Iterable[nn.Module], *, learning_rate: float, weight_decay: float) -> AdamW:
    """Return AdamW over everything trainable in ``modules``, without decay on biases and normalisation weights.

    Those are the parameters with fewer than two dimensions.

    Raises:
        UserError: nothing is trainable.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise UserError("model: none of its weights train (word embeddings may be fixed, a bag of words has none); add "
                        "a layer that does: 'model.dense=[{out_features: 256}]'")
    decayed = [p for p in parameters if p.ndim >= 2]
    rest = [p for p in parameters if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return AdamW([group for group in groups if group["params"]], lr=learning_rate)


def learning_rate_at(step: int, *, peak: float, warmup: int, total: int, schedule: str) -> float:
    """Return the learning rate of the 0-based optimiser step: linear warm-up, then the schedule down to 0 at ``total``.

    The same as transformers' ``get_scheduler`` (linear, cosine, constant_with_warmup).
    """
    if step < warmup:
        return peak * step / max(1, warmup)
    done = (step - warmup) / max(1, total - warmup)
    if schedule == "linear":
        return peak * max(0.0, 1.0 - done)
    if schedule == "cosine":
        return peak * max(0.0, 0.5 * (1.0 + math.cos(math.pi * done)))
    return peak
