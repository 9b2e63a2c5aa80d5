"""How many times a training step makes the GPU start something, and the host wait for the GPU."""

from __future__ import annotations

import warnings

import torch
from torch.profiler import profile, supported_activities

from bench.arms import Arm
from bench.tasks import Task

STARTS = ("LaunchKernel", "LaunchCooperativeKernel", "GraphLaunch")  # calls of the CUDA runtime or driver hold these


def launches_a_step(arm: Arm, task: Task, *, few: int, many: int) -> float:
    """Return kernel and graph launches of one step, from the difference of two turns: what is done once drops out."""
    arm.turn(task.turn(0, many))  # whatever is compiled or captured for these batches is by now
    return (_launches(arm, task, many) - _launches(arm, task, few)) / (many - few)


def waits_a_step(arm: Arm, task: Task, *, few: int, many: int) -> float:
    """Return how many calls of one step make the host wait for the GPU, likewise."""
    return (_waits(arm, task, many) - _waits(arm, task, few)) / (many - few)


def _waits(arm: Arm, task: Task, steps: int) -> int:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            arm.turn(task.turn(0, steps))
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in told)


def _launches(arm: Arm, task: Task, steps: int) -> int:
    with profile(activities=supported_activities()) as profiler:
        arm.turn(task.turn(0, steps))
    return sum(event.count for event in profiler.key_averages() if any(name in event.key for name in STARTS))
