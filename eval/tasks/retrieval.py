"""Retrieval over titles: by label (a title finds others of its category) and of a known item (a text finds its title).

Precision, nDCG and MRR at 10, as sentence-transformers' InformationRetrievalEvaluator has them; cosines that agree to
1e-6 tie, and ties count against the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentence_forge.encoders.protocol import Role, TextEncoder
from sentence_forge.eval.stats import Floats, Seed, bootstrap_mean, percentile_interval
from sentence_forge.eval.tasks.base import Bools, TaskResult, finite_vectors, unit_vectors
from sentence_forge.eval.tasks.file_task import FileTask, strict_rows
from sentence_forge.eval.tasks.sts import FEWEST
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import sha256_file

K = 10
_CHUNK = 512
_DISCOUNT = 1 / np.log2(np.arange(2, K + 2))
Relevance = Callable[[NDArray[np.int_]], tuple[Bools, Bools]]


@dataclass(frozen=True)
class Titles:
    """Distinct titles with a category each, and the texts that should find them: themselves, or a description each."""

    titles: list[str]
    labels: list[str]
    queries: list[str]
    path: str
    sha256: str
    repeats: int

    @property
    def texts(self) -> list[str]:
        """All texts, each once."""
        return list(dict.fromkeys([*self.titles, *self.queries]))

    @property
    def by_role(self) -> dict[Role, list[str]]:
        """The texts as they are searched."""
        return {"query": self.queries, "document": self.titles}

    @property
    def units(self) -> list[tuple[str, ...]]:
        """The queries, each with its title where that is another text."""
        return [(query,) if query == title else (query, title)
                for query, title in zip(self.queries, self.titles, strict=True)]


class LabelledRetrieval(FileTask):
    """Each title as a query among all others: those of its category are right.

    Args:
        folder: where the file lies in the data folder.
        split: the file's name without its ending.
        path: a file anywhere, instead of both.
        sample: the language of the sample's titles, instead of either.
        columns: the file's names of the title and its category.
        limit: the first so many distinct titles.
        label: what a report's heading calls the task.
    """

    def __init__(self, *, folder: str | None = None, split: str = "test", path: str | None = None,
                 sample: str | None = None, columns: tuple[str, str] | list[str] = ("title", "label"),
                 limit: int | None = 10_000, label: str | None = None) -> None:
        super().__init__(folder=folder, split=split, path=path, sample=sample, sample_file="titles", label=label)
        self.columns, self.limit = list(columns), limit

    def read(self, data_dir: Path | None) -> Titles:
        """Return the file's titles that have a label, each once.

        Raises:
            UserError: the file is absent, has fewer than 10 titles, a bad row, or one category only.
        """
        return _read(self, data_dir, self.columns, self.limit)

    def score(self, rows: Titles, encoder: TextEncoder, *, resamples: int = 2000, seed: Seed = 0) -> TaskResult:
        """Return precision@10, nDCG@10 and MRR@10, over all titles and by category.

        Raises:
            UserError: a vector is not finite.
        """
        queries, titles = _vectors(rows, encoder)
        _, label = np.unique(rows.labels, return_inverse=True)

        def relevance(chunk: NDArray[np.int_]) -> tuple[Bools, Bools]:
            candidates = chunk[:, None] != np.arange(len(titles))
            return (label[chunk, None] == label) & candidates, candidates

        found = _ranked(queries, titles, relevance)
        return _result(self, rows, encoder, found, f"precision@{K}", resamples, seed)


class KnownItem(FileTask):
    """Each description as a query among all titles: its own title alone is right.

    Args:
        folder: where the file lies in the data folder.
        split: the file's name without its ending.
        path: a file anywhere, instead of both.
        columns: the file's names of the title, its category and the description.
        limit: the first so many distinct titles.
        label: what a report's heading calls the task.
    """

    def __init__(self, *, folder: str | None = None, split: str = "test", path: str | None = None,
                 columns: tuple[str, str, str] | list[str] = ("title", "label", "description"),
                 limit: int | None = 10_000, label: str | None = None) -> None:
        super().__init__(folder=folder, split=split, path=path, sample=None, sample_file="", label=label)
        self.columns, self.limit = list(columns), limit

    def read(self, data_dir: Path | None) -> Titles:
        """Return the file's titles that have a description, each once.

        Raises:
            UserError: as ``LabelledRetrieval.read``.
        """
        return _read(self, data_dir, self.columns, self.limit)

    def score(self, rows: Titles, encoder: TextEncoder, *, resamples: int = 2000, seed: Seed = 0) -> TaskResult:
        """Return MRR@10, nDCG@10 and recall@1 and @10, over all titles and by category.

        Raises:
            UserError: a vector is not finite.
        """
        queries, titles = _vectors(rows, encoder)

        def relevance(chunk: NDArray[np.int_]) -> tuple[Bools, Bools]:
            own = chunk[:, None] == np.arange(len(titles))
            return own, np.ones_like(own)

        found = _ranked(queries, titles, relevance)
        found = {name: found[name] for name in (f"mrr@{K}", f"ndcg@{K}", "recall@1", f"recall@{K}")}
        return _result(self, rows, encoder, found, f"mrr@{K}", resamples, seed)


def _read(task: FileTask, data_dir: Path | None, columns: list[str], limit: int | None) -> Titles:
    path = task.found(data_dir)
    rows: dict[str, list[str]] = {}
    repeats = 0
    for _, values in strict_rows(path, columns, columns[:1]):
        if not all(cell.strip() for cell in values):
            continue  # a title without a label or a description is no query
        repeats += values[0] in rows
        rows.setdefault(values[0], values)
        if limit is not None and len(rows) >= limit:
            break
    if len(rows) < FEWEST:
        raise UserError(f"{path}: has {len(rows)} titles with all of {', '.join(columns)}; retrieval needs at least "
                        f"{FEWEST}")
    labels = [values[1] for values in rows.values()]
    if len(set(labels)) < 2:
        raise UserError(f"{path}: column {columns[1]!r} holds {labels[0]!r} in every row; categories must differ")
    queries = [values[2] if len(columns) > 2 else values[0] for values in rows.values()]
    return Titles(list(rows), labels, queries, task.shown(path), sha256_file(path), repeats)


def _vectors(rows: Titles, encoder: TextEncoder) -> tuple[Floats, Floats]:
    """Return the unit vectors of the queries and of the titles, each as what it is in a search."""
    return (unit_vectors(finite_vectors(encoder, rows.queries, rows.path, "query")),
            unit_vectors(finite_vectors(encoder, rows.titles, rows.path, "document")))


def _ranked(queries: Floats, titles: Floats, relevance: Relevance) -> dict[str, Floats]:
    """Return each query's measures [n]; NaN where nothing is relevant to it."""
    parts: dict[str, list[Floats]] = {}
    for start in range(0, len(queries), _CHUNK):
        chunk = np.arange(start, min(start + _CHUNK, len(queries)))
        relevant, candidates = relevance(chunk)
        # What is relevant gives way to what ties with it, so that a model which maps all to one vector finds nothing.
        key = np.where(candidates, np.round(queries[chunk] @ titles.T, 6) - 1e-7 * relevant, -np.inf)
        top = np.argpartition(-key, K - 1, axis=1)[:, :K] if key.shape[1] > K else np.argsort(-key, axis=1)
        top = np.take_along_axis(top, np.argsort(-np.take_along_axis(key, top, axis=1), axis=1, kind="stable"), axis=1)
        hit = np.take_along_axis(relevant, top, axis=1)
        right = relevant.sum(axis=1)
        ideal = np.append(0.0, np.cumsum(_DISCOUNT))[np.minimum(right, K)]
        first = np.where(hit.any(axis=1), 1 / (1 + hit.argmax(axis=1)), 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            measured = {f"precision@{K}": hit.sum(axis=1) / K,
                        f"ndcg@{K}": (hit * _DISCOUNT[:hit.shape[1]]).sum(axis=1) / ideal, f"mrr@{K}": first,
                        "recall@1": hit[:, 0] / right, f"recall@{K}": hit.sum(axis=1) / right}
        for name, values in measured.items():
            parts.setdefault(name, []).append(np.where(right > 0, values, np.nan))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _result(task: FileTask, rows: Titles, encoder: TextEncoder, found: dict[str, Floats], measure: str, resamples: int,
            seed: Seed) -> TaskResult:
    asked = np.isfinite(found[measure])
    values = np.where(asked, found[measure], 0.0)  # the only title of its category: nothing to find, counted as missed
    samples = bootstrap_mean(values, resamples=resamples, seed=seed)
    shown = {name: column for name, column in found.items()
             if not (measure.startswith("precision") and name.startswith("recall"))}
    labels = np.array(rows.labels)
    domains = {name: {"n": int((labels == name).sum()),
                      **{each: float(np.nan_to_num(column[labels == name]).mean()) for each, column in shown.items()}}
               for name in sorted(set(rows.labels))}
    row: dict[str, Any] = {
        **({"label": task.label} if task.label else {}), "measure": measure, "n": len(values),
        **{name: float(np.nan_to_num(column).mean()) for name, column in shown.items()},
        f"{measure}_ci95": list(percentile_interval(samples)), "repeats": rows.repeats,
        "truncated": int(encoder.count_truncated(rows.texts)), "texts": len(rows.texts), "domains": domains,
        "data": {"path": rows.path, "sha256": rows.sha256},
    }

    def on(some: Bools) -> float | None:
        return float(values[some].mean()) if some.any() else None

    return TaskResult(row, samples, on, label=task.label)
