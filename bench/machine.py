"""What a measurement was taken on: facts of the machine and of what ran, no paths and no names."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "sentence-transformers", "tokenizers", "datasets", "accelerate", "numpy",
            "faiss-cpu", "onnxruntime", "openvino", "fastapi", "uvicorn")


def facts() -> dict[str, Any]:
    """Return processor and what it can do, cores, threads, memory in GiB, GPU, versions and the commit, JSON-ready."""
    import torch

    rows = _processor()
    flags = rows.get("flags", "").split()
    return {
        "kind": kind(), "cpu": rows.get("model name", platform.machine()), "family": rows.get("cpu family"),
        "model": rows.get("model"), "capability": torch.backends.cpu.get_cpu_capability(),
        "avx512_bf16": "avx512_bf16" in flags, "amx_bf16": "amx_bf16" in flags,
        "cores": _cores(), "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(), "cuda": torch.version.cuda, "commit": commit(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def kind() -> str:
    """Return the kind of this machine, by which results are kept apart.

    Maker, family and model of the processor, what it can do, and cores: ``amd-25-17-avx512-2cores``; or the GPU:
    ``nvidia-h100``.
    """
    import torch

    if torch.cuda.is_available():
        return "-".join(torch.cuda.get_device_name().lower().split()[:2])
    rows = _processor()
    maker = rows.get("vendor_id", platform.machine()).removeprefix("Authentic").removeprefix("Genuine")
    words = [maker, rows.get("cpu family"), rows.get("model"), torch.backends.cpu.get_cpu_capability()]
    return "-".join([*(word.lower() for word in words if word), f"{_cores()}cores"])


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _processor() -> dict[str, str]:
    """Return what the system says of its first processor; empty where it says nothing."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    rows = (row.partition(":") for row in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in rows}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit(root: Path = Path(__file__).parent.parent) -> str | None:
    """Return the commit, marked where files differ from it, but for the results, which a bench writes as it runs."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
    except FileNotFoundError:
        return None
    return f"{head}{'-dirty' if changed else ''}" if head else None
