"""An encoder over a suite of tasks: one pass over all texts, one report, a baseline beside it where there is one."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np

from eval.stats import Floats, bootstrap, difference, percentile_interval
from eval.sts import Pairs, ScoredPairs
from eval.tasks import EncodedTexts, TaskResult, TextEncoder
from runtime.errors import UserError


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Args:
        json: report.json as it will be written: fractions, no NaN.
        results: each present task's result, with the arrays behind the numbers.
        baseline: the report on the same rows by the model this one is held against.
    """

    json: Mapping[str, Any]
    results: Mapping[str, TaskResult]
    baseline: Report | None = None


def evaluate(encoder: TextEncoder, tasks: Mapping[str, ScoredPairs], data_dir: Path | None, *, resamples: int = 2000,
             seed: int = 0, baseline: Report | None = None) -> Report:
    """Return the report on every task whose file is there; an absent one is named and not averaged over.

    Every distinct text of all tasks is encoded once, in one call. With a ``baseline``, a report on the same rows, each
    task also has the paired difference.

    Raises:
        UserError: no task's file is there; a file or the vectors are bad (see ``ScoredPairs``); the baseline was
            evaluated on other rows.
    """
    began = time.monotonic()
    present = {name: task.read(data_dir) for name, task in tasks.items() if task.locate(data_dir) is not None}
    absent = [name for name in tasks if name not in present]
    if not present:
        looked_for = ", ".join(task.where(data_dir) for task in tasks.values()) or "no task was given"
        raise UserError(f"nothing to evaluate on ({looked_for}); set data_dir= or SENTENCE_FORGE_DATA to the folder "
                        "that holds them")
    if baseline is not None:
        _check_same_rows(baseline, present)
    encoded = EncodedTexts(encoder, (text for pairs in present.values() for text in pairs.texts))
    results = {name: tasks[name].score(pairs, encoded, resamples=resamples, seed=_seed_of(name, seed))
               for name, pairs in present.items()}
    report: dict[str, Any] = {
        "model": encoder.name, "fingerprint": encoder.fingerprint, "protocol": "all",
        "tasks": {name: dict(result.row) for name, result in results.items()}, "absent": absent,
        "average": float(np.mean([result.row["spearman_cosine"] for result in results.values()])),
        "average_ci95": _interval([result.samples for result in results.values()]),
        "max_length": getattr(encoder, "max_length", None),
    }
    if baseline is not None:
        report["baseline"] = _against(baseline, results, resamples, seed)
    report |= {"resamples": resamples, "seed": seed, "seconds": round(time.monotonic() - began, 2),
               "versions": _versions()}
    return Report(report, results, baseline)


def _check_same_rows(baseline: Report, present: Mapping[str, Pairs]) -> None:
    for name, pairs in present.items():
        if name not in baseline.results:
            raise UserError(f"{name}: the baseline {baseline.json['model']} was not evaluated on it; "
                            "evaluate both on the same suite and data_dir")
        if baseline.results[name].row["data"]["sha256"] != pairs.sha256:
            raise UserError(f"{name}: the baseline {baseline.json['model']} was evaluated on other rows than "
                            f"{pairs.path}; evaluate both on the same file")


def _against(baseline: Report, results: Mapping[str, TaskResult], resamples: int, seed: int) -> dict[str, Any]:
    """Return the baseline's numbers and by how much ``results`` differ, a task at a time and on average."""
    tasks: dict[str, Any] = {}
    deltas, samples = [], []
    for name, result in results.items():
        before = baseline.results[name]
        of_both = bootstrap([result.cosine, before.cosine], result.gold, resamples=resamples, seed=_seed_of(name, seed))
        deltas.append(result.row["spearman_cosine"] - before.row["spearman_cosine"])
        samples.append(of_both[0] - of_both[1])
        found = difference(deltas[-1], samples[-1])
        tasks[name] = {"spearman_cosine": before.row["spearman_cosine"],
                       "spearman_cosine_ci95": before.row["spearman_cosine_ci95"],
                       "delta": found.delta, "delta_ci95": list(found.ci95), "p": found.p}
    mean = difference(float(np.mean(deltas)), np.mean(samples, axis=0))
    return {"model": baseline.json["model"], "fingerprint": baseline.json["fingerprint"], "tasks": tasks,
            "average": float(np.mean([row["spearman_cosine"] for row in tasks.values()])),
            "average_ci95": _interval([baseline.results[name].samples for name in results]),
            "delta": mean.delta, "delta_ci95": list(mean.ci95), "p": mean.p}


def _seed_of(task: str, seed: int) -> list[int]:
    # Tasks of equal length must not draw the same row numbers, or their samples could not be averaged as independent.
    return [seed, zlib.crc32(task.encode())]


def _interval(samples: list[Floats]) -> list[float]:
    return list(percentile_interval(np.mean(samples, axis=0)))


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for package in ("numpy", "torch", "transformers", "sentence-transformers", "onnxruntime"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
