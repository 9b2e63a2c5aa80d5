"""How numbers and findings are worded, the same in report.md and report.html: fractions become x 100."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MEASURES = {"spearman_cosine": "Spearman", "pearson_cosine": "Pearson",
            "average_precision": "average precision", "accuracy": "accuracy",
            "triplet_accuracy": "triplet accuracy", "precision@10": "precision@10", "mrr@10": "MRR@10",
            "mteb_main_score": "MTEB's main score", "ndcg@10": "nDCG@10", "recall@1": "recall@1",
            "recall@10": "recall@10"}
_MEANINGS = {
    "spearman_cosine": "Spearman is of the cosine similarity with human scores; protocol “all”: the sub-sets of a test "
                       "set are joined and ranked together, not averaged.",
    "average_precision": "Average precision is of the cosine against the pairs that match.",
    "accuracy": "Accuracy is of the model's own head.",
    "triplet_accuracy": "Triplet accuracy: the positive is nearer to the anchor than every negative.",
    "precision@10": "Precision@10: how many of a title's ten nearest are of its category.",
    "mrr@10": "MRR@10: one by the rank at which a description finds its title.",
}


def hundred(value: float | None) -> str:
    """Return a fraction times 100 with two decimals; a dash for what could not be measured."""
    return "–" if value is None else f"{100 * value:.2f}".replace("-", "−")


def change(value: float) -> str:
    """Return a difference times 100 with its sign."""
    return f"{100 * value:+.2f}".replace("-", "−")


def interval(limits: Sequence[float] | None, *, sign: bool = False) -> str:
    """Return an interval times 100; a dash where there is none."""
    if limits is None:
        return "–"
    low, high = (change(limit) if sign else hundred(limit) for limit in limits)
    return f"{low} to {high}"


def p_value(p: float | None) -> str:
    """Return a p-value to three decimals, never as zero; a dash where there is none."""
    if p is None:
        return "–"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def verdict(row: Mapping[str, Any]) -> str:
    """Return ``good``, ``bad`` or ``same``: whether the interval of the difference excludes zero, and on which side."""
    if row["delta_ci95"] is None:
        return "same"
    low, high = row["delta_ci95"]
    return "good" if low > 0 else "bad" if high < 0 else "same"


def task_title(name: str, row: Mapping[str, Any]) -> str:
    """Return what a heading calls a task."""
    label = row.get("label")
    return f"{label} ({name})" if label else name


def measure_name(measure: str) -> str:
    """Return how people call a measure of report.json."""
    return MEASURES.get(measure, measure.replace("_", " "))


def value(row: Mapping[str, Any]) -> float:
    """Return a task's one number that counts."""
    return row[row["measure"]]


def limits(row: Mapping[str, Any]) -> Sequence[float] | None:
    """Return that number's interval; None where there is none."""
    return row.get(f"{row['measure']}_ci95")


def measures(about: Mapping[str, Any]) -> list[str]:
    """Return the measures of a report, in the order of its tasks."""
    return list(about["averages"])


def headline(about: Mapping[str, Any]) -> str:
    """Return what the column of numbers is headed by: the one measure, or a word for several."""
    only = measures(about)
    return measure_name(only[0]) if len(only) == 1 else "score"


def protocol(about: Mapping[str, Any]) -> str:
    """Say what the numbers are."""
    said = " ".join(_MEANINGS.get(measure, "") for measure in measures(about)).strip()
    return (f"Everything × 100. {said} 95 % intervals are percentiles of {about['resamples']:,} bootstrap resamples "
            "over what is scored (pairs, triplets, queries).")


def story(about: Mapping[str, Any]) -> str:
    """Say in a sentence or two how the model compares with its baseline."""
    before = about["baseline"]
    if not before["tasks"]:
        return f"{before['model']} can do none of these tasks, so there is nothing to compare."
    verdicts = [verdict(row) for row in before["tasks"].values()]
    parts = []
    for measure, row in before["averages"].items():
        on = "" if len(before["averages"]) == 1 else f" {measure_name(measure)}"
        mean = " on average" if row["tasks"] > 1 else ""
        parts.append(f"{change(row['delta'])}{on}{mean} (95 % interval {interval(row['delta_ci95'], sign=True)}, "
                     f"{p_value(row['p'])})")
    told = f"Against {before['model']}: {'; '.join(parts)}."
    told += _without_overlap(about)
    if len(verdicts) == 1:
        return told
    found = [f"{say} on {verdicts.count(kind)}" for kind, say in
             (("good", "better"), ("bad", "worse"), ("same", "no clear difference")) if kind in verdicts]
    return f"{told} Of {len(verdicts)} tasks: {', '.join(found)}."


def _without_overlap(about: Mapping[str, Any]) -> str:
    """Say how the first measure's difference stands when the test rows that were trained on are left out."""
    before, measure = about["baseline"], next(iter(about["averages"]))
    deltas, seen = [], 0
    for name, row in before["tasks"].items():
        known = (about["tasks"][name].get("honesty") or {}).get("trained_on") or {}
        without = known.get("without") or {}
        seen += known.get("normalised", 0)
        if row["measure"] == measure:
            deltas.append(without.get("delta", row["delta"]))
    if not seen or not deltas:
        return ""
    return (f" It was trained on {seen:,} of the test rows; without them: {change(sum(deltas) / len(deltas))} "
            f"{measure_name(measure)}{' on average' if len(deltas) > 1 else ''}.")


def trained_on(about: Mapping[str, Any]) -> str:
    """Say what is known of what the model was trained on."""
    known = about.get("trained_on")
    if known is None:
        return ("No training is recorded in the model's folder, so the tests can't be searched for it; what a model "
                "was trained on elsewhere is not known here.")
    return ("Overlap is with every stage that was trained here, by hashes that travel in the model's folder; what the "
            "base model was trained on elsewhere is not known here.")


def dims_table(about: Mapping[str, Any]) -> list[list[str]]:
    """Return the table of dimensions as cells, its heads first; empty where there is none but the model's own."""
    rows = about.get("dims") or []
    if len(rows) < 2:
        return []
    names = list(rows[0]["tasks"])
    several = len(names) > 1
    lines = [["dimensions", *names, *(["average"] if several else []), "difference", "95 %"]]
    for row in rows:
        cells = [hundred(row["tasks"].get(name, {}).get("value")) for name in names]
        average = row.get("average", {})
        delta = average.get("delta")
        lines.append([str(row["dim"]), *cells, *([hundred(average.get("value"))] if several else []),
                      "" if delta is None else change(delta),
                      interval(average["delta_ci95"], sign=True) if average.get("delta_ci95") else ""])
    return lines
