"""Counters of a server, printed as Prometheus reads them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Meters:
    """What a server counts; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._buckets = [0] * (len(_SECONDS) + 1)
        self._sum = 0.0

    def add(self, name: str, labels: str = "", by: int = 1) -> None:
        """Count something: ``name`` has no prefix yet; ``labels`` is such as ``code="200"``."""
        with self._lock:
            self._counts[name, labels] += by

    def took(self, seconds: float) -> None:
        """Note how long a request was in the server."""
        with self._lock:
            self._sum += seconds
            self._buckets[sum(seconds > limit for limit in _SECONDS)] += 1

    def text(self, gauges: Mapping[str, float]) -> str:
        """Return all counters, the histogram of seconds, and ``gauges``, in Prometheus's text format."""
        with self._lock:
            counts, buckets, total = sorted(self._counts.items()), list(self._buckets), self._sum
        lines = []
        named = ""
        for (name, labels), count in counts:
            if name != named:
                lines.append(f"# TYPE sentence_forge_{name}_total counter")
            named = name
            lines.append(f"sentence_forge_{name}_total{f'{{{labels}}}' if labels else ''} {count}")
        lines.append("# TYPE sentence_forge_request_seconds histogram")
        so_far = 0
        for limit, count in zip([*map(str, _SECONDS), "+Inf"], buckets, strict=True):
            so_far += count
            lines.append(f'sentence_forge_request_seconds_bucket{{le="{limit}"}} {so_far}')
        lines += [f"sentence_forge_request_seconds_sum {total:.6f}", f"sentence_forge_request_seconds_count {so_far}"]
        for name, value in gauges.items():
            lines += [f"# TYPE sentence_forge_{name} gauge", f"sentence_forge_{name} {value:g}"]
        return "\n".join(lines) + "\n"
