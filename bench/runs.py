"""What the folder of a finished run says of its training: the command, the speed and the minutes."""

from __future__ import annotations

import json
import os
import re
import statistics
from pathlib import Path

_PLAIN = re.compile(r"[\w@%+=:,./-]+")


def command_of(run: Path) -> str | None:
    """Return the command of a run as a shell takes it; None where the folder is no run's.

    ``runs/`` stands for the folder of runs and ``$SENTENCE_FORGE_DATA`` for that of public data; of other absolute
    paths the name is left.
    """
    try:
        command, *typed = json.loads((run / "environment.json").read_text(encoding="utf-8"))["command"]
    except FileNotFoundError:
        return None
    named = {os.environ.get("SENTENCE_FORGE_DATA", ""): "$SENTENCE_FORGE_DATA", str(run.parent): "runs"}

    def shown(argument: str) -> str:
        for folder, name in named.items():
            if Path(folder).is_absolute():
                argument = re.sub(rf"(?<![\w.$/]){re.escape(folder)}(?=/)", name.replace("\\", r"\\"), argument)
        return re.sub(r"(?<![\w.])/[^\s'\",:{}\[\]]+", lambda path: Path(path[0]).name, argument)

    shorter = map(shown, typed)
    return " ".join([command, *(each if _PLAIN.fullmatch(each) else _quoted(each) for each in shorter)])


def _quoted(argument: str) -> str:
    """Return an argument in quotes in which a shell still replaces ``$SENTENCE_FORGE_DATA``.

    >>> print(_quoted("data.path='$SENTENCE_FORGE_DATA/stsb'"))
    "data.path='$SENTENCE_FORGE_DATA/stsb'"
    """
    kept = re.sub(r'([\\"`]|\$(?!SENTENCE_FORGE_DATA))', r"\\\1", argument)
    return f'"{kept}"'


def rows_per_second(run: Path) -> float | None:
    """Return a run's speed in the median of its logged steps; None where the folder is no run's."""
    if not (run / "metrics.jsonl").is_file():
        return None
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    speeds = [line["speed/pairs_per_second"] for line in lines if "speed/pairs_per_second" in line]
    return round(statistics.median(speeds), 1) if speeds else None


def minutes_of(run: Path) -> float | None:
    """Return the minutes from a run's beginning to its report; None where the folder is no run's."""
    begun, ended = run / "environment.json", run / "report" / "report.json"
    if not (begun.is_file() and ended.is_file()):
        return None
    return round((ended.stat().st_mtime - begun.stat().st_mtime) / 60, 1)
