"""An encoder over a suite of tasks: one pass over all texts, one report, a baseline beside it where there is one."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np

from sentence_forge.data_readers.training_hashes import Seen
from sentence_forge.encoders.protocol import Role, TextEncoder
from sentence_forge.eval.contamination import honesty
from sentence_forge.eval.dims import at_dims
from sentence_forge.eval.failures import changes, slices, worst
from sentence_forge.eval.geometry import geometry
from sentence_forge.eval.significance import steiger, williams
from sentence_forge.eval.stats import Floats, percentile_interval, spearman
from sentence_forge.eval.tasks.base import (
    EncodedTexts,
    Head,
    Task,
    TaskResult,
    TaskRows,
    differs,
    unit_vectors,
)
from sentence_forge.runtime.errors import UserError


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


def evaluate(encoder: TextEncoder, tasks: Mapping[str, Task], data_dir: Path | None, *, resamples: int = 2000,
             seed: int = 0, baseline: Report | None = None, head: Head | None = None, seen: Seen | None = None,
             deep: bool = True, dims: Sequence[int] = ()) -> Report:
    """Return the report on every task whose file is there; an absent one is named and not averaged over.

    Every distinct text of all tasks is encoded once, in one call. With a ``baseline``, a report on the same rows with
    the same ``resamples`` and ``seed``, each task also has the paired difference.

    Args:
        encoder: the model.
        tasks: by the name the report gives them.
        data_dir: where their files lie.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        baseline: what to hold the model against.
        head: the model's classifier of pairs; without one, tasks that need it are skipped and named.
        seen: what the model was trained on, to be looked for among the tests.
        deep: also say where it fails, what the tests share with the training and how the vectors lie.
        dims: also score the vectors cut to so many numbers each, and say what that loses.

    Raises:
        UserError: no task's file is there; a file or the vectors are bad (see the tasks); the baseline was evaluated
            on other rows.
    """
    began = time.monotonic()
    present = {name: task.read(data_dir) for name, task in tasks.items() if task.locate(data_dir) is not None}
    absent = [name for name in tasks if name not in present]
    if not present:
        looked_for = ", ".join(task.where(data_dir) for task in tasks.values()) or "no task was given"
        raise UserError(f"nothing to evaluate on ({looked_for}); set data_dir= or SENTENCE_FORGE_DATA to the folder "
                        "that holds them")
    skipped = {} if head is not None else {name: "the model has no head that classifies pairs (loss=softmax trains one)"
                                           for name in present if getattr(tasks[name], "needs_head", False)}
    present = {name: rows for name, rows in present.items() if name not in skipped}
    if not present:
        name, why = next(iter(skipped.items()))
        raise UserError(f"{name}: {why}")
    if baseline is not None:
        _check_same_rows(baseline, present, resamples, seed)
    encoded = _encoded(encoder, present.values(), head)

    def score(name: str, texts: EncodedTexts) -> TaskResult:
        return tasks[name].score(present[name], texts, resamples=resamples, seed=_seed_of(name, seed))

    results = {name: score(name, encoded) for name in present}
    rows_json = {name: dict(result.row) for name, result in results.items()}
    if deep:
        for name, rows in present.items():
            before = None if baseline is None else baseline.results.get(name)
            rows_json[name] |= _deeper(rows, results[name], encoded, seen, before, resamples)
    report: dict[str, Any] = {
        "model": encoder.name, "fingerprint": encoder.fingerprint, "protocol": "all", "tasks": rows_json,
        "absent": absent, "skipped": skipped, **_averages(results), "max_length": getattr(encoder, "max_length", None),
        "trained_on": None if seen is None else {"hashes": len(seen.hashes)},
    }
    if dims:
        report["dims"] = at_dims({name: result for name, result in results.items() if present[name].units}, encoded,
                                 dims, score)
    if baseline is not None:
        report["baseline"] = _against(baseline, results, present, deep)
    report |= {"resamples": resamples, "seed": seed, "seconds": round(time.monotonic() - began, 2),
               "versions": _versions()}
    return Report(report, results, baseline)


def _encoded(encoder: TextEncoder, tasks: Iterable[TaskRows], head: Head | None) -> EncodedTexts:
    """Encode the texts of all tasks: those of a search by their roles, the others without."""
    texts: list[str] = []
    by_role: dict[Role, list[str]] = {"query": [], "document": []}
    for rows in tasks:
        roles: Mapping[Role, list[str]] | None = getattr(rows, "by_role", None)
        texts += rows.texts if roles is None else []
        for role, some in (roles or {}).items():
            by_role[role] += some
    return EncodedTexts(encoder, texts, head, by_role=by_role)


def _check_same_rows(baseline: Report, present: Mapping[str, TaskRows], resamples: int, seed: int) -> None:
    about = baseline.json
    for name, rows in present.items():
        if name in about["skipped"]:
            continue
        if name not in baseline.results:
            raise UserError(f"{name}: the baseline {about['model']} was not evaluated on it; "
                            "evaluate both on the same suite and data_dir")
        if baseline.results[name].row["data"]["sha256"] != rows.sha256:
            raise UserError(f"{name}: the baseline {about['model']} was evaluated on other rows than "
                            f"{rows.path}; evaluate both on the same file")
    if (about["resamples"], about["seed"]) != (resamples, seed):
        raise ValueError("the baseline was resampled otherwise, so that its samples are not paired with these")


def _deeper(rows: TaskRows, result: TaskResult, encoded: EncodedTexts, seen: Seen | None, before: TaskResult | None,
            resamples: int) -> dict[str, Any]:
    """Return the parts of a task's row that need more than its number."""
    if not rows.units:  # a task that keeps its rows to itself
        return {}
    found: dict[str, Any] = {"honesty": honesty(rows, result, seen, before, resamples)}
    if result.cosine is not None:
        low, high = result.row["score_range"]
        domains = getattr(rows, "domains", None)
        found |= {"failures": worst(result, rows.units), "slices": slices(result, rows.units, domains),
                  "geometry": geometry(result, unit_vectors(encoded.encode(rows.texts)), low, high)}
    return found


def _averages(results: Mapping[str, TaskResult]) -> dict[str, Any]:
    """Return the mean of the tasks that share a measure, for each measure, and that of the first one by itself."""
    found: dict[str, Any] = {}
    for measure in dict.fromkeys(result.row["measure"] for result in results.values()):
        of_measure = [result for result in results.values() if result.row["measure"] == measure]
        found[measure] = {"value": float(np.mean([result.value for result in of_measure])),
                          "ci95": _interval([result.samples for result in of_measure]), "tasks": len(of_measure)}
    first = next(iter(found.values()))
    return {"average": first["value"], "average_ci95": first["ci95"], "averages": found}


def _against(baseline: Report, results: Mapping[str, TaskResult], present: Mapping[str, TaskRows],
             deep: bool) -> dict[str, Any]:
    """Return the baseline's numbers and by how much ``results`` differ, a task at a time and on average."""
    tasks: dict[str, Any] = {}
    shared = {name: result for name, result in results.items() if name in baseline.results}
    for name, result in shared.items():
        before = baseline.results[name]
        measure = result.row["measure"]
        tasks[name] = {"measure": measure, measure: before.value, f"{measure}_ci95": before.row[f"{measure}_ci95"],
                       **differs([(result, before)])}
        if measure == "spearman_cosine":
            tasks[name] |= _parametric(result, before)
        if deep and result.cosine is not None:
            tasks[name]["changes"] = changes(result, before, present[name].units)
            slices_before = slices(before, present[name].units, getattr(present[name], "domains", None))
            tasks[name]["slices"] = slices_before
    averages = {}
    for measure in dict.fromkeys(row["measure"] for row in tasks.values()):
        names = [name for name, row in tasks.items() if row["measure"] == measure]
        averages[measure] = {"value": float(np.mean([baseline.results[name].value for name in names])),
                             "ci95": _interval([baseline.results[name].samples for name in names]),
                             **differs([(shared[name], baseline.results[name]) for name in names]),
                             "tasks": len(names)}
    about: dict[str, Any] = {"model": baseline.json["model"], "fingerprint": baseline.json["fingerprint"],
                             "tasks": tasks, "averages": averages}
    if averages:
        first = next(iter(averages.values()))
        about |= {"average": first["value"], "average_ci95": first["ci95"], "delta": first["delta"],
                  "delta_ci95": first["delta_ci95"], "p": first["p"]}
    return about


def _parametric(result: TaskResult, before: TaskResult) -> dict[str, Any]:
    assert result.cosine is not None and before.cosine is not None
    three = (result.value, before.value, spearman(result.cosine, before.cosine), len(result.cosine))
    t, z = williams(*three), steiger(*three)
    return {"williams": {"t": t.statistic, "df": t.df, "p": t.p}, "steiger": {"z": z.statistic, "p": z.p}}


def _seed_of(task: str, seed: int) -> list[int]:
    # Tasks of equal length must not draw the same row numbers, or their samples could not be averaged as independent.
    return [seed, zlib.crc32(task.encode())]


def _interval(samples: Sequence[Floats | None]) -> list[float] | None:
    known = [each for each in samples if each is not None]
    return list(percentile_interval(np.mean(known, axis=0))) if len(known) == len(samples) else None


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for package in ("numpy", "torch", "transformers", "sentence-transformers", "onnxruntime"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
