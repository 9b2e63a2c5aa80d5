"""AdamW and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn


def adamw(modules: Iterable[nn.Module], *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW over everything trainable in ``modules``, without decay on biases and normalisation weights.

    Those are the parameters with fewer than two dimensions. The kernel is the fused one, a single pass over the
    parameters on CPU and GPU alike.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim >= 2]
    rest = [p for p in parameters if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, fused=True)


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
