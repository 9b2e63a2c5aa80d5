"""The first part of the GPU set: is what the fast ways compute right, and is the training the stock trainer's."""

from __future__ import annotations

import copy

import numpy as np
import torch

from bench.agreement import curve, first_steps
from bench.arms import Arm
from bench.gpu_setting import Setting
from bench.lines import line
from bench.ours import Ours
from bench.stock import Stock
from bench.tasks import Task, without_dropout
from sentence_forge.encoders.encoder import Encoder

SLACK = 1.2  # in bf16 both round: ours may be off by so many times what padding is


def checks(setting: Setting) -> None:
    """Print how far the fast path is from float32 beside the padded one, and our training from the stock one.

    Without dropout.
    """
    task = setting.tasks[min(setting.tasks)]
    model = without_dropout(setting.model())
    batch = np.unique(task.text_ids[task.batches[0]])
    exact = _learnt(Encoder(model, fast=False), task, batch, bf16=False)
    for precision in ("fp32", "bf16", "bf16, without the varlen kernel"):
        fast, padded = Encoder(model), Encoder(model, fast=False)
        bf16 = precision != "fp32"
        if "without" in precision:  # as it is with dropout
            _learnt(fast, task, batch, bf16=bf16)
            fast.forward.kernel = False
        ours, theirs = (_learnt(way, task, batch, bf16=bf16) for way in (fast, padded))
        for what, own, other, right in zip(("vectors", "gradients"), ours, theirs, exact, strict=True):
            off, beside = (float((each - right).norm() / right.norm()) for each in (own, other))
            limit = SLACK * beside if bf16 else 1e-5
            setting.failed += not off <= limit
            line(f"check: {precision}, {what}, off from padded fp32", off, "relative difference", peer="padded",
                 peer_value=beside or None, limit=limit, within=off <= limit)
    ours, stock = Ours(copy.deepcopy(model), task), Stock(copy.deepcopy(model), task)
    _prepared(ours, stock)
    setting.failed += not first_steps("check: fp32", ours, stock, task)
    ours, stock = (Ours(copy.deepcopy(model), task, bf16=setting.bf16),
                   Stock(copy.deepcopy(model), task, tuned=True))
    _prepared(ours, stock)
    curve(f"check: {'bf16' if setting.bf16 else 'fp32'}", ours, stock, task, setting.scale.curve)


def _prepared(*arms: Arm) -> None:
    for arm in arms:
        arm.prepare()


def _learnt(encoder: Encoder, task: Task, texts: np.ndarray, *, bf16: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the texts' vectors, and the gradient of a fixed function of them, all parameters in one."""
    model = encoder.model.train()
    model.zero_grad()
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
        vectors = encoder.forward(encoder.tokenize([task.texts[number] for number in texts])).float()
    direction = torch.from_numpy(np.random.default_rng(0).normal(size=vectors.shape).astype(np.float32))
    (vectors * direction.to(vectors.device)).sum().backward()
    gradient = torch.cat([p.grad.float().reshape(-1) for p in model.parameters() if p.grad is not None])
    return vectors.detach(), gradient
