"""How many times a training step makes the GPU start something."""

from __future__ import annotations

from torch.profiler import profile, supported_activities

from bench.arms import Arm
from bench.tasks import Task

STARTS = ("LaunchKernel", "LaunchCooperativeKernel", "GraphLaunch")  # calls of the CUDA runtime or driver hold these


def launches_a_step(arm: Arm, task: Task, *, few: int, many: int) -> float:
    """Return kernel and graph launches of one step, from the difference of two turns: what is done once drops out."""
    arm.turn(task.turn(0, many))  # whatever is compiled or captured for these batches is by now
    return (_launches(arm, task, many) - _launches(arm, task, few)) / (many - few)


def _launches(arm: Arm, task: Task, steps: int) -> int:
    with profile(activities=supported_activities()) as profiler:
        arm.turn(task.turn(0, steps))
    return sum(event.count for event in profiler.key_averages() if any(name in event.key for name in STARTS))
