"""The sentences of a report: what its numbers are, how the model compares, what it was trained on."""

from __future__ import annotations

from sentence_forge.eval.report.formatting import change, interval, measure_name, p_value, verdict
from sentence_forge.eval.schema import ReportJson

_MEANINGS = {
    "spearman_cosine": "Spearman is of the cosine similarity with human scores; protocol “all”: the sub-sets of a test "
                       "set are joined and ranked together, not averaged.",
    "average_precision": "Average precision is of the cosine against the pairs that match.",
    "accuracy": "Accuracy is of the model's own head.",
    "triplet_accuracy": "Triplet accuracy: the positive is nearer to the anchor than every negative.",
    "precision@10": "Precision@10: how many of a title's ten nearest are of its category.",
    "mrr@10": "MRR@10: one by the rank at which a description finds its title.",
    "ndcg@10": "nDCG@10: the graded worth of the first ten documents, each discounted by its rank, as a share of the "
               "best possible order.",
}

_FEW_MEASURES = 2


def protocol(about: ReportJson) -> str:
    """Say what the numbers are."""
    meanings = " ".join(_MEANINGS.get(measure, "") for measure in about["averages"]).strip()
    return (f"Everything × 100. {meanings} 95 % intervals are percentiles of {about['resamples']:,} bootstrap "
            "resamples over what is scored (pairs, triplets, queries).")


def story(about: ReportJson) -> str:
    """Say in a sentence or two how the model compares with its baseline; empty where there is none."""
    before = about.get("baseline")
    if before is None:
        return ""
    if not before["tasks"]:
        return f"{before['model']} can do none of these tasks, so there is nothing to compare."
    verdicts = [verdict(row["delta_ci95"]) for row in before["tasks"].values()]
    counts = [f"{words} on {verdicts.count(kind)}" for kind, words in
              (("good", "better"), ("bad", "worse"), ("same", "no clear difference")) if kind in verdicts]
    of_all = f" Of {len(verdicts)} tasks: {', '.join(counts)}." if len(verdicts) > 1 else ""
    if len(before["averages"]) > _FEW_MEASURES:  # the table has them
        return f"Against {before['model']}: {', '.join(counts)} of {len(verdicts)} tasks.{_without_overlap(about)}"
    parts = []
    for measure, row in before["averages"].items():
        on = "" if len(before["averages"]) == 1 else f" {measure_name(measure)}"
        mean = " on average" if row["tasks"] > 1 else ""
        parts.append(f"{change(row['delta'])}{on}{mean} (95 % interval {interval(row['delta_ci95'], sign=True)}, "
                     f"{p_value(row['p'])})")
    return f"Against {before['model']}: {'; '.join(parts)}.{_without_overlap(about)}{of_all}"


def _without_overlap(about: ReportJson) -> str:
    """Say how the first measure's difference changes when the test rows that were trained on are left out."""
    before, measure = about["baseline"], next(iter(about["averages"]))
    deltas, overlap = [], 0
    for name, row in before["tasks"].items():
        found = about["tasks"][name].get("honesty")
        known = found["trained_on"] if found else None
        without = known.get("without") if known else None
        overlap += known["normalised"] if known else 0
        if row["measure"] == measure:
            deltas.append(without["delta"] if without and "delta" in without else row["delta"])
    if not overlap or not deltas:
        return ""
    return (f" It was trained on {overlap:,} of the test rows; without them: {change(sum(deltas) / len(deltas))} "
            f"{measure_name(measure)}{' on average' if len(deltas) > 1 else ''}.")


def trained_on(about: ReportJson) -> str:
    """Say what is known of what the model was trained on."""
    if about["trained_on"] is None:
        return ("No training is recorded in the model's folder, so the tests can't be searched for it; what a model "
                "was trained on elsewhere is not known here.")
    return ("Overlap is with every stage that was trained here, by hashes that travel in the model's folder; what the "
            "base model was trained on elsewhere is not known here.")


def left_out(about: ReportJson) -> list[str]:
    """Say which tasks have no score, and why."""
    absent = about["absent"]
    return ([f"Not in the data folder and not averaged over: {', '.join(absent)}."] if absent else []) + [
        f"{name}: skipped, {why}." for name, why in about["skipped"].items()]
