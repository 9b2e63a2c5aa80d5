"""Read the folder of a sweep's job: its settings, how it ended, and its results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sentence_forge.encoders.card import read_about

FILE = "job.json"  # overrides, error, seconds; written by train.sweep
COLUMNS = ("dev", "dev measure", "steps", "seconds", "status")


def read_job(folder: Path) -> dict[str, Any] | None:
    """Return a folder's ``job.json``; None where there is none."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("overrides"), dict) else None


def is_done(folder: Path) -> bool:
    """Whether a run came to its end."""
    return (folder / "report" / "report.json").is_file()


def outcome(folder: Path, job: Mapping[str, Any]) -> dict[str, str]:
    """Return a job's ``COLUMNS``: its best dev measure, the steps and seconds it took, and how it ended."""
    done = is_done(folder)
    training = read_about(folder / "model").get("training", {}) if done else {}
    error = str(job.get("error") or "")
    return {
        "dev": f"{training['after']:.4f}" if done else "",
        "dev measure": training["measure"].replace("_", " ") if done else "",
        "steps": str(training.get("steps", "")),
        "seconds": f"{job['seconds']:.0f}" if job.get("seconds") else "",
        "status": "done" if done else f"failed: {error}" if error else "unfinished",
    }


def expanded(folders: Iterable[Path]) -> list[Path]:
    """Return ``folders`` with a sweep's folder replaced by those of its jobs, in their order."""
    found: list[Path] = []
    for folder in folders:
        jobs = [] if (folder / FILE).exists() else [file.parent for file in folder.glob(f"*/{FILE}")]
        found += sorted(jobs, key=lambda job: (not job.name.isdigit(), job.name.zfill(9))) or [folder]
    return found
