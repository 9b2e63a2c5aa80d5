"""What the sides of a training bench have in common: how a turn is timed, watched and told."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

LEARNING_RATE = 2e-5
WEIGHT_DECAY = 0.01
WARMUP = 0.1  # of the steps, then linearly down


class Turn(NamedTuple):
    """One turn of training steps.

    Args:
        seconds: wall-clock, of the timed steps.
        cpu_seconds: of this process's threads.
        padding_share: of the computed positions; None where every column is padded to its longest text.
        peak_mib: on a GPU, what the turn allocated at most above what was there; elsewhere None.
    """

    seconds: float
    cpu_seconds: float
    padding_share: float | None
    peak_mib: float | None


@dataclass
class Watch:
    """Keeps every step's loss, and the gradients (after clipping) of the first ``gradients`` steps."""

    gradients: int = 0
    losses: list[float] = field(default_factory=list)
    kept: list[dict[str, Tensor]] = field(default_factory=list)

    def keep(self, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Copy the gradients that stand in the parameters now."""
        if len(self.kept) < self.gradients:
            self.kept.append({name: parameter.grad.detach().to_dense().float().cpu().clone()
                              for name, parameter in named if parameter.grad is not None})


class Arm(Protocol):
    """One side: trains the same rows from the same weights, its own way."""

    name: str

    def prepare(self) -> None:
        """Do what a run does once before its first step."""

    def turn(self, batches: list[np.ndarray], *, skip: int = 0, watch: Watch | None = None) -> Turn:
        """Train on ``batches`` from the first weights on, and time the steps after the first ``skip``."""


class Stopwatch:
    """Times from ``start`` to ``stop``, waiting for the device at both."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = self.cpu_seconds = 0.0
        self.peak_mib: float | None = None

    def start(self) -> None:
        """Begin."""
        self._wait()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._held = torch.cuda.memory_allocated()
        self._begun, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """End."""
        self._wait()
        self.seconds, self.cpu_seconds = time.perf_counter() - self._begun, time.process_time() - self._cpu
        if self.device.type == "cuda":
            self.peak_mib = (torch.cuda.max_memory_allocated() - self._held) / 2**20

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def resident_mib(*, peak: bool = False) -> float:
    """Return this process's resident memory in MiB, now or at its peak since ``forget_peak`` (Linux)."""
    rows = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = dict(row.split(":", 1) for row in rows)
    return int(fields["VmHWM" if peak else "VmRSS"].split()[0]) / 2**10


def forget_peak() -> None:
    """Let the peak of resident memory begin at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
