"""A measure over queries, as the files of ``bench`` have it: x 100, with its interval, and what it gains."""

from __future__ import annotations

from typing import Any

from sentence_forge.eval.stats import Floats, bootstrap_mean, difference, percentile_interval


def with_gain(name: str, values: Floats, before: Floats | None = None) -> dict[str, Any]:
    """Return a measure's mean and 95 % interval, both x 100, and its paired difference from that of another system.

    Args:
        name: of the measure; the keys begin with it.
        values: float64 [queries].
        before: those of the other system, of the same queries; None where there is none to compare with.

    >>> with_gain("mrr@10", np.array([1.0, 1.0]), np.array([0.5, 0.5]))
    {'mrr@10': 100.0, 'mrr@10_ci95': [100.0, 100.0], 'mrr@10_delta': 50.0, 'mrr@10_delta_ci95': [50.0, 50.0]}
    """
    samples = bootstrap_mean(values)
    found = {name: _x100(float(values.mean())), f"{name}_ci95": list(map(_x100, percentile_interval(samples)))}
    if before is None:
        return found
    gain = difference(float((values - before).mean()), samples - bootstrap_mean(before))
    return {**found, f"{name}_delta": _x100(gain.delta), f"{name}_delta_ci95": list(map(_x100, gain.ci95))}


def _x100(value: float) -> float:
    return round(100 * value, 2)
