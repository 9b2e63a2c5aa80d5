"""What a measurement was taken on: facts of the machine and of what ran, no paths and no names."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "sentence-transformers", "tokenizers", "datasets", "accelerate", "numpy",
            "faiss-cpu", "onnxruntime")


def facts() -> dict[str, Any]:
    """Return processor, cores, threads, memory in GiB, GPU, versions and the commit, JSON-ready."""
    import torch

    return {
        "cpu": _processor(), "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(), "cuda": torch.version.cuda, "commit": _commit(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _processor() -> str:
    try:
        rows = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [row.partition(":")[2].strip() for row in rows if row.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit(root: Path = Path(__file__).parent.parent) -> str | None:
    """Return the commit, marked where files differ from it, but for the results, which a bench writes as it runs."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
    except FileNotFoundError:
        return None
    return f"{commit}{'-dirty' if changed else ''}" if commit else None
