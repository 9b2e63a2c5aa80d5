"""``loop.compile``: whether a run compiles its model, and the compiling of a few shapes before its first step."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sentence_forge.encoders.computing.plan import Stream
from sentence_forge.train.mixing import Batch
from sentence_forge.train.rows import BatchLoss

log = logging.getLogger(__name__)
REPAYS = 5_000  # steps; an estimate for a bert-base on a recent GPU: a minute or less, repaid by 10 ms a step
SAMPLE = 64  # batches, whose shapes decide


def compiles(wanted: bool | str, *, device: str, left: int, before: Mapping[str, Any]) -> bool:
    """Return whether a run compiles its model: ``loop.compile``, where ``auto`` is yes on CUDA if it repays.

    Args:
        wanted: ``loop.compile``.
        device: the type of device.
        left: optimiser steps to go.
        before: the environment that a resumed run began in: on the same kind of device it goes on as it began.
    """
    if isinstance(wanted, bool):
        return wanted
    if isinstance(before.get("compiled"), bool) and before.get("device") == device:
        return bool(before["compiled"])
    return device == "cuda" and left >= REPAYS


def compile_shapes(loss_of: BatchLoss, sample: Sequence[Batch]) -> None:
    """Compile the shapes that most batches have, and say how long it took; other batches aren't compiled.

    Args:
        loss_of: settled, with a model that is to be compiled.
        sample: the first batches of the run, also when it is resumed: the same shapes are the same rounding.
    """
    begun = time.perf_counter()
    loss_of.fix_shapes(sample)
    done: set[tuple[bool, int]] = set()
    fitting = 0
    for batch in sample:
        planned = loss_of.plan(batch)
        streams = [stream for _, plan in planned.plans for stream in plan.streams]
        shapes = {_shape(stream) for stream in streams if stream.compiled}
        fitting += all(stream.compiled for stream in streams)
        if shapes - done:
            try:
                loss_of.rehearse(planned)
            except RuntimeError as error:  # of torch's compiler; a shape that was tried is no guarantee for the next
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                log.warning("loop.compile isn't used: %s: %s", type(error).__name__,
                            (str(error).strip() or "?").splitlines()[0])
                loss_of.compile_nothing(batch)
                return
            done |= shapes
    log.info("loop.compile: %d shape%s of batches in %.0f s; %d of the first %d batches fit, the others are computed "
             "without; kept for other runs in %s (TORCHINDUCTOR_CACHE_DIR)", len(done), "s" * (len(done) != 1),
             time.perf_counter() - begun, fitting, len(sample), _cache())


def _shape(stream: Stream) -> tuple[bool, int]:
    return "ids" in stream.arrays, stream.layout.size


def _cache() -> str:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return cache_dir()
