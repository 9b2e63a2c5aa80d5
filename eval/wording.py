"""How numbers and findings are worded, the same in report.md and report.html: fractions become x 100."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def hundred(value: float | None) -> str:
    """Return a fraction times 100 with two decimals; a dash for what could not be measured."""
    return "–" if value is None else f"{100 * value:.2f}".replace("-", "−")


def change(value: float) -> str:
    """Return a difference times 100 with its sign."""
    return f"{100 * value:+.2f}".replace("-", "−")


def interval(limits: Sequence[float], *, sign: bool = False) -> str:
    """Return an interval times 100."""
    low, high = (change(limit) if sign else hundred(limit) for limit in limits)
    return f"{low} to {high}"


def p_value(p: float) -> str:
    """Return a p-value to three decimals, never as zero."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def verdict(row: Mapping[str, Any]) -> str:
    """Return ``good``, ``bad`` or ``same``: whether the interval of the difference excludes zero, and on which side."""
    low, high = row["delta_ci95"]
    return "good" if low > 0 else "bad" if high < 0 else "same"


def task_title(name: str, row: Mapping[str, Any]) -> str:
    """Return what a heading calls a task."""
    label = row.get("label")
    return f"{label} ({name})" if label else name


def protocol(about: Mapping[str, Any]) -> str:
    """Say what the numbers are."""
    return ("Spearman × 100 of the cosine similarity with human scores. Protocol “all”: the sub-sets of a test set are "
            "joined and ranked together, not averaged. 95 % intervals are percentiles of "
            f"{about['resamples']:,} bootstrap resamples over pairs.")


def story(about: Mapping[str, Any]) -> str:
    """Say in a sentence or two how the model compares with its baseline."""
    before = about["baseline"]
    verdicts = [verdict(row) for row in before["tasks"].values()]
    told = (f"{change(before['delta'])} against {before['model']}"
            f"{' on average' if len(verdicts) > 1 else ''} (95 % interval {interval(before['delta_ci95'], sign=True)}, "
            f"{p_value(before['p'])}).")
    if len(verdicts) == 1:
        return told
    found = [f"{say} on {verdicts.count(kind)}" for kind, say in
             (("good", "better"), ("bad", "worse"), ("same", "no clear difference")) if kind in verdicts]
    return f"{told} Of {len(verdicts)} tasks: {', '.join(found)}."
