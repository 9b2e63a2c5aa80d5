"""How measurements are taken and printed: interleaved repeats, medians, one JSON object a line."""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def line(name: str, value: float, unit: str, *, peer: str | None = None, peer_value: float | None = None,
         **more: object) -> dict[str, Any]:
    """Print one measurement and return it; ``ratio`` is value / peer_value, whichever is better when larger."""
    ratio = None if peer_value is None else value / peer_value
    entry = {"name": name, "value": _short(value), "unit": unit, "peer": peer,
             "peer_value": None if peer_value is None else _short(peer_value),
             "ratio": None if ratio is None else round(ratio, 4), **more}
    sys.stdout.write(json.dumps(entry, ensure_ascii=False) + "\n")
    sys.stdout.flush()
    return entry


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def seconds(call: Callable[[], object]) -> float:
    """Return the wall-clock seconds of one call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def own_memory() -> float:
    """Return the MiB of memory that this process has for itself: what it has mapped of files is left out."""
    fields = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


def interleaved(calls: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Time ``calls`` one after the other, ``repeats`` times round: noise falls on all alike."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for times, call in zip(taken, calls, strict=True):
            times.append(seconds(call))
    return taken


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def slope(values: Mapping[float, float]) -> float:
    """Return the slope of log(value) over log(size), by least squares: 1 is a value that grows as the size does."""
    return statistics.linear_regression([math.log(size) for size in values],
                                        [math.log(value) for value in values.values()]).slope
