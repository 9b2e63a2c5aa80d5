"""Resume a run: find it and its checkpoint, and check that it will end as an unbroken run would have."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sentence_forge.runtime.errors import UserError

log = logging.getLogger(__name__)

DECIDING_PACKAGES = ("torch", "numpy", "transformers", "sentence-transformers", "tokenizers")
WITHOUT_EFFECT = ("loop.log_every", "loop.checkpoint_every", "loop.keep", "loop.projector", "resume", "resume_anyway")
"""Keys whose change leaves every weight as it would have been."""


def find_run(given: str) -> tuple[Path, Path | None]:
    """Return the run that ``resume=`` means and, if one was named, its checkpoint.

    Raises:
        UserError: there is no such run; for ``auto``, none that is unfinished.
    """
    if given == "auto":
        runs = [file.parent for file in Path("outputs/train").glob("*/config.yaml")
                if not is_finished(file.parent)]
        if not runs:
            raise UserError("resume=auto: there is no unfinished run below outputs/train")
        return max(runs, key=lambda each: (each / "config.yaml").stat().st_mtime), None
    path = Path(given).expanduser()
    if path.parent.name == "checkpoints" and (path.parent.parent / "config.yaml").is_file():
        return path.parent.parent, path
    if not (path / "config.yaml").is_file():
        raise UserError(f"resume={given}: is no run (it has no config.yaml, which is written before the first step); "
                        "where a training ended before that, type its command again")
    return path, None


def is_finished(run: Path) -> bool:
    """Whether a run has a report, and no checkpoint that is newer: a finished run may have been gone on with."""
    report = run / "report" / "report.json"
    return report.exists() and all(folder.stat().st_mtime <= report.stat().st_mtime
                                   for folder in (run / "checkpoints").glob("step-*"))


def has_checkpoints(run: Path) -> bool:
    """Whether a run has a checkpoint, damaged or not."""
    return any((run / "checkpoints").glob("step-*"))


def read_environment(run: Path) -> dict[str, Any]:
    """Return a run's ``environment.json``; empty, with a warning, where it can't be read."""
    try:
        found = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        log.warning("%s: unreadable (%s), so what changed since the run began can't be told",
                    run / "environment.json", type(error).__name__)
        return {}
    return found if isinstance(found, dict) else {}


def same_threads(before: Mapping[str, Any]) -> None:
    """Compute on a CPU with as many threads as the run began with: another number adds up in another order."""
    import torch

    wanted = before.get("threads")
    if before.get("device") == "cpu" and isinstance(wanted, int) and 0 < wanted != torch.get_num_threads():
        log.info("threads: %d, as the run began (here it would be %d)", wanted, torch.get_num_threads())
        torch.set_num_threads(wanted)


def check_config(run: Path, config: Mapping[str, Any], *, anyway: bool) -> None:
    """Compare a run's ``config.yaml`` with the config it was trained with.

    Raises:
        UserError: a key that decides the result was changed in the file, and ``anyway`` wasn't said.
    """
    before = read_environment(run)
    versions = [before[key] for key in ("config", "config_before") if isinstance(before.get(key), dict)]
    if versions:
        changed = min((_changed(version, config) for version in versions), key=len)
        _say(run, changed, [key for key in changed if key not in WITHOUT_EFFECT], f"{run / 'config.yaml'} was edited",
             anyway)


def log_changes(before: Any, now: Any) -> None:  # noqa: ANN401 - what YAML holds
    """Log which keys this command line changed."""
    for text in _changed(before, now).values():
        log.info("changed: %s", text)


def check_environment(run: Path, before: Mapping[str, Any], now: Mapping[str, Any], *, given: Collection[str],
                      anyway: bool) -> None:
    """Say what differs between the run's environment and this one; see ``environment.json``.

    Args:
        run: for messages.
        before: as it was recorded.
        now: as it is.
        given: config keys given on this command line; the user knows of them.
        anyway: go on although something differs.

    Raises:
        UserError: other training data, teachers, device or deciding packages, and ``anyway`` wasn't said.
    """
    if not before:
        return
    recorded = ["python", "versions", "device", "data", "processes"]
    recorded += ["teachers"] * ("teachers" in before)  # earlier versions kept none
    changed = _changed({key: before.get(key) for key in recorded}, {key: now.get(key) for key in recorded})
    deciding = [key for key in changed if key.startswith(("data.", "teachers."))
                or (key == "device" and "device" not in given) or key == "processes"  # each draws its own dropout
                or key.removeprefix("versions.") in DECIDING_PACKAGES]
    _say(run, changed, deciding, "since the run began", anyway)
    if before.get("processor") not in (None, now.get("processor")):
        log.warning("processor %s -> %s: another kind rounds otherwise, so the run ends near where an unbroken one "
                    "would, and not exactly there", before["processor"], now.get("processor"))


def flat(config: Any, path: str = "") -> dict[str, Any]:  # noqa: ANN401 - what YAML holds
    """Return a nested config as ``{"loop.epochs": 1.0, ...}``."""
    if not isinstance(config, Mapping):
        return {path: config}
    return {key: value for name, below in config.items()
            for key, value in flat(below, f"{path}.{name}" if path else str(name)).items()}


def _changed(before: Any, now: Any) -> dict[str, str]:  # noqa: ANN401 - what JSON holds
    old, new = flat(before), flat(now)
    return {key: f"{key} {old.get(key)} -> {new.get(key)}" for key in sorted({*old, *new})
            if old.get(key) != new.get(key)}


def _say(run: Path, changed: Mapping[str, str], deciding: Collection[str], why: str, anyway: bool) -> None:
    if deciding and not anyway:
        how = "start as many processes by torchrun, or " if "processes" in deciding else ""
        raise UserError(f"{run}: {why}: {'; '.join(changed[key] for key in deciding)}. The result would not be that of "
                        f"an unbroken run; {how}resume_anyway=true goes on all the same")
    for key, text in changed.items():
        log.info("%s: %s%s", why, text, " (resume_anyway)" if key in deciding else "")
