"""Pick the device, and set up threads and memory for it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import torch

from sentence_forge.runtime.errors import UserError


def pick_device(name: str = "auto") -> str:
    """Return the device of a name; ``auto`` is the first of cuda, mps and cpu that this machine has.

    Raises:
        UserError: the device is not here.
    """
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(each for each, available in here.items() if available)
    if not here[name.partition(":")[0]]:
        raise UserError(f"device={name}: there is no {name} here; use device=auto or device=cpu")
    return name


def multiplies_in_bf16(device: torch.device) -> bool:
    """Whether a device has products in bf16 that are faster than those in float32, and not emulated."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.backends.mkldnn.is_available() and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def use_what_is_allowed(device: str) -> None:
    """Set torch's threads and the C library's memory for a training.

    torch counts the machine's cores, of which a container or a scheduler may allow fewer; here the threads are limited
    to those that may run. OMP_NUM_THREADS, if it is set, decides instead. On a CPU freed memory is kept for reuse.
    """
    if device == "cpu":
        keep_freed_memory()
    if "OMP_NUM_THREADS" in os.environ:
        return
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _control_group("cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        allowed = min(allowed, max(1, int(quota) // int(period)))
    torch.set_num_threads(min(allowed, torch.get_num_threads()))


def keep_freed_memory() -> None:
    """Keep freed memory in this process, if the C library is glibc.

    A training step on a CPU frees and asks for the same hundreds of megabytes, of which the kernel otherwise clears
    every page anew: a quarter of a step of 16 pairs.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)


def host_memory() -> int:
    """Return the bytes of memory this process may have: the machine's, or what its container allows."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _control_group("memory.max")
    return min(machine, int(limit)) if limit.isdigit() else machine


def _control_group(name: str) -> str:
    try:
        return Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
    except OSError:
        return ""
