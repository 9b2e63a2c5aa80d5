"""Evaluate an encoder on a suite of tasks: texts are encoded once, and every score has an interval."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any, cast

import numpy as np

from sentence_forge.data_readers.training_hashes import Seen
from sentence_forge.encoders.protocol import Role, TextEncoder
from sentence_forge.eval.contamination import contamination
from sentence_forge.eval.dims import at_dims
from sentence_forge.eval.failures import changes, slices, worst
from sentence_forge.eval.geometry import geometry
from sentence_forge.eval.schema import Baseline, ReportJson, Score, TaskGain, TaskRow, limits
from sentence_forge.eval.significance import steiger, williams
from sentence_forge.eval.stats import Floats, difference, percentile_interval, spearman
from sentence_forge.eval.tasks.base import (
    EncodedTexts,
    Head,
    Task,
    TaskResult,
    TaskRows,
    gain,
    unit_vectors,
)
from sentence_forge.runtime.errors import UserError


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Args:
        json: report.json as it will be written: fractions, no NaN.
        results: each present task's result, with the arrays behind the numbers.
        baseline: the evaluation of the model that this one is compared with, on the same rows.
    """

    json: ReportJson
    results: Mapping[str, TaskResult]
    baseline: Evaluation | None = None


def evaluate(encoder: TextEncoder, tasks: Mapping[str, Task], data_dir: Path | None, *, resamples: int = 2000,
             seed: int = 0, baseline: Evaluation | None = None, head: Head | None = None, seen: Seen | None = None,
             deep: bool = True, dims: Sequence[int] = ()) -> Evaluation:
    """Evaluate on every task whose file is there; an absent one is named and not averaged over.

    Every distinct text of all tasks is encoded once, in one call.

    Args:
        encoder: the model.
        tasks: by their names in the report.
        data_dir: where their files lie.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        baseline: an evaluation of another model on the same rows with the same ``resamples`` and ``seed``; each task
            then also has the paired difference.
        head: the model's classifier of pairs; without one, tasks that need it are skipped and named.
        seen: what the model was trained on, to be looked for among the tests.
        deep: also say where it fails, what the tests share with the training and how the vectors lie.
        dims: also score the vectors cut to so many numbers each, and say what that loses.

    Raises:
        UserError: no task's file is there; a file or the vectors are bad (see the tasks); the baseline was evaluated
            on other rows.
    """
    began = time.monotonic()
    rows, absent, skipped = _read(tasks, data_dir, head)
    if baseline is not None:
        _check_same_rows(baseline, rows, resamples, seed)
    encoded = _encoded(encoder, rows.values(), head)

    def score(name: str, texts: EncodedTexts) -> TaskResult:
        return tasks[name].score(rows[name], texts, resamples=resamples, seed=_seed_of(name, seed))

    results = {name: score(name, encoded) for name in rows}
    rows_json = {name: result.row.copy() for name, result in results.items()}
    if deep:
        for name, row in rows_json.items():
            before = None if baseline is None else baseline.results.get(name)
            _add_details(row, rows[name], results[name], encoded, seen, before, resamples)
    averages = _averages(results)
    first = next(iter(averages.values()))
    report = cast("ReportJson", {
        "model": encoder.name, "fingerprint": encoder.fingerprint, "protocol": "all", "tasks": rows_json,
        "absent": absent, "skipped": skipped, "average": first["value"], "average_ci95": first["ci95"],
        "averages": averages, "max_length": encoder.max_length,
        "trained_on": None if seen is None else {"hashes": len(seen.hashes)}})
    if dims:
        report["dims"] = at_dims({name: result for name, result in results.items() if rows[name].units}, encoded, dims,
                                 score)
    if baseline is not None:
        report["baseline"] = _compared(baseline, results, rows, deep)
    report |= {"resamples": resamples, "seed": seed, "seconds": round(time.monotonic() - began, 2),
               "versions": _versions()}
    return Evaluation(report, results, baseline)


def _read(tasks: Mapping[str, Task], data_dir: Path | None,
          head: Head | None) -> tuple[dict[str, TaskRows], list[str], dict[str, str]]:
    """Return the rows of the tasks that can be done, the names of those without a file, and why others are skipped."""
    rows: dict[str, TaskRows] = {name: task.read(data_dir) for name, task in tasks.items()
                                 if task.locate(data_dir) is not None}
    absent = [name for name in tasks if name not in rows]
    if not rows:
        looked_for = ", ".join(task.where(data_dir) for task in tasks.values()) or "no task was given"
        raise UserError(f"nothing to evaluate on ({looked_for}); set data_dir= or SENTENCE_FORGE_DATA to the folder "
                        "that holds them")
    skipped = {name: "the model has no head that classifies pairs (loss=softmax trains one)"
               for name in rows if head is None and tasks[name].needs_head}
    rows = {name: read for name, read in rows.items() if name not in skipped}
    if not rows:
        name, why = next(iter(skipped.items()))
        raise UserError(f"{name}: {why}")
    return rows, absent, skipped


def _encoded(encoder: TextEncoder, tasks: Iterable[TaskRows], head: Head | None) -> EncodedTexts:
    """Encode the texts of all tasks: those of a search by their roles, the others without."""
    texts: list[str] = []
    texts_by_role: dict[Role, list[str]] = {"query": [], "document": []}
    for rows in tasks:
        texts += [] if rows.texts_by_role else rows.texts
        for role, some in rows.texts_by_role.items():
            texts_by_role[role] += some
    return EncodedTexts(encoder, texts, head, texts_by_role=texts_by_role)


def _check_same_rows(baseline: Evaluation, rows: Mapping[str, TaskRows], resamples: int, seed: int) -> None:
    about = baseline.json
    for name, read in rows.items():
        if name in about["skipped"]:
            continue
        if name not in baseline.results:
            raise UserError(f"{name}: the baseline {about['model']} was not evaluated on it; "
                            "evaluate both on the same suite and data_dir")
        if baseline.results[name].row["data"]["sha256"] != read.sha256:
            raise UserError(f"{name}: the baseline {about['model']} was evaluated on other rows than "
                            f"{read.path}; evaluate both on the same file")
    if (about["resamples"], about["seed"]) != (resamples, seed):
        raise ValueError("the baseline has other resamples or another seed, so its samples are not paired with these")


def _add_details(row: TaskRow, rows: TaskRows, result: TaskResult, encoded: EncodedTexts, seen: Seen | None,
                 before: TaskResult | None, resamples: int) -> None:
    """Add to a task's row what needs more than its number."""
    if not rows.units:  # a task that keeps its rows to itself
        return
    row["honesty"] = contamination(rows, result, seen, before, resamples)
    if result.cosine is not None:
        low, high = row["score_range"]
        row["failures"] = worst(result, rows.units)
        row["slices"] = slices(result, rows.units, rows.domains)
        row["geometry"] = geometry(result, unit_vectors(encoded.encode(rows.texts)), low, high)


def _averages(results: Mapping[str, TaskResult]) -> dict[str, Score]:
    """Return, for each measure, the mean of the tasks that share it."""
    found: dict[str, Score] = {}
    for measure in dict.fromkeys(result.row["measure"] for result in results.values()):
        alike = [result for result in results.values() if result.row["measure"] == measure]
        found[measure] = {"value": float(np.mean([result.value for result in alike])),
                          "ci95": _interval([result.samples for result in alike]), "tasks": len(alike)}
    return found


def _compared(baseline: Evaluation, results: Mapping[str, TaskResult], rows: Mapping[str, TaskRows],
              deep: bool) -> Baseline:
    """Return the baseline's numbers and by how much ``results`` differ, a task at a time and on average."""
    pairs = {name: (result, baseline.results[name]) for name, result in results.items() if name in baseline.results}
    tasks = {}
    for name, (result, before) in pairs.items():
        tasks[name] = _compared_task(result, before)
        if deep and result.cosine is not None:
            tasks[name]["changes"] = changes(result, before, rows[name].units)
            tasks[name]["slices"] = slices(before, rows[name].units, rows[name].domains)
    averages = _averages({name: before for name, (_, before) in pairs.items()})
    for measure, average in averages.items():
        average.update(cast("Score", gain([pair for pair in pairs.values() if pair[0].row["measure"] == measure])))
    about = Baseline(model=baseline.json["model"], fingerprint=baseline.json["fingerprint"], tasks=tasks,
                     averages=averages)
    if averages:
        first = next(iter(averages.values()))
        about.update({"average": first["value"], "average_ci95": first["ci95"], "delta": first["delta"],
                      "delta_ci95": first["delta_ci95"], "p": first["p"]})
    return about


def _compared_task(result: TaskResult, before: TaskResult) -> TaskGain:
    measure = result.row["measure"]
    found: dict[str, Any] = {"measure": measure, measure: before.value, f"{measure}_ci95": limits(before.row),
                             **gain([(result, before)])}
    if measure == "spearman_cosine" and result.cosine is not None and before.cosine is not None:
        three = (result.value, before.value, spearman(result.cosine, before.cosine), len(result.cosine))
        t, z = williams(*three), steiger(*three)
        found |= {"williams": {"t": t.statistic, "df": t.df, "p": t.p}, "steiger": {"z": z.statistic, "p": z.p}}
    now, then = (cast("dict[str, float]", each.row) for each in (result, before))
    also = {}
    for name in result.also:
        sure = difference(now[name] - then[name], result.also[name] - before.also[name])
        also[name] = Score(value=then[name], delta=sure.delta, delta_ci95=list(sure.ci95), p=sure.p)
    return cast("TaskGain", found | ({"also": also} if also else {}))


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
