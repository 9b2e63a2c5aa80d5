"""Pairs that mean the same or do not (paraphrases, matching questions): average precision and the best threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.eval.geometry import best_threshold
from sentence_forge.eval.stats import Counts, Floats, Seed, percentile_interval, resample_counts
from sentence_forge.eval.tasks.base import Bools, TaskResult, finite_vectors
from sentence_forge.eval.tasks.file_task import FileTask, strict_rows
from sentence_forge.eval.tasks.sts import FEWEST, Pairs, similarities
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import sha256_file


class BinaryPairs(FileTask):
    """A file of pairs with a score of 0 or 1; AFQMC, LCQMC, BQ and PAWS-X are such.

    Args:
        folder: where the file lies in the data folder.
        split: the file's name without its ending.
        path: a file anywhere, instead of both.
        columns: the file's names of the two texts and the score.
        label: what a report's heading calls the task.
    """

    def __init__(self, *, folder: str | None = None, split: str = "test", path: str | None = None,
                 columns: Sequence[str] = ("sentence1", "sentence2", "score"), label: str | None = None) -> None:
        super().__init__(folder=folder, split=split, path=path, sample=None, sample_file="", label=label)
        if len(columns) != 3:
            raise UserError(f"columns={list(columns)}: give three names, of the two texts and the score")
        self.columns = list(columns)

    def read(self, data_dir: Path | None) -> Pairs:
        """Return the file's rows.

        Raises:
            UserError: the file is absent, has fewer than 10 rows, a score that is not 0 or 1, or one only.
        """
        path = self.found(data_dir)
        rows = []
        for place, values in strict_rows(path, self.columns, self.columns[:2]):
            if values[2] not in ("0", "1"):
                raise UserError(f"{place}, column {self.columns[2]}: {values[2][:40]!r} is not 0 or 1; "
                                "suite=file takes graded scores")
            rows.append(values)
        if len(rows) < FEWEST:
            raise UserError(f"{path}: has {len(rows)} rows; a threshold needs at least {FEWEST}")
        gold = np.array([row[2] == "1" for row in rows], dtype=np.float64)
        if gold.min() == gold.max():
            raise UserError(f"{path}: column {self.columns[2]!r} holds {gold[0]:g} in every row; it must hold 0 and 1")
        return Pairs([row[0] for row in rows], [row[1] for row in rows], gold, None, self.shown(path),
                     sha256_file(path))

    def score(self, pairs: Pairs, encoder: TextEncoder, *, resamples: int = 2000, seed: Seed = 0) -> TaskResult:
        """Return the average precision of the cosine, and the threshold with the best F1.

        Raises:
            UserError: a vector is not finite.
        """
        texts = pairs.texts
        vectors = finite_vectors(encoder, texts, pairs.path)
        row_of = {text: row for row, text in enumerate(texts)}
        cosine = similarities(vectors, np.array([row_of[text] for text in pairs.sentence1]),
                              np.array([row_of[text] for text in pairs.sentence2]))["cosine"]
        positive = pairs.gold > 0
        of_resample = precision_of_resamples(cosine, positive)
        samples = np.concatenate([of_resample(counts) for counts in resample_counts(len(cosine), resamples, seed)])
        row: dict[str, Any] = {
            **({"label": self.label} if self.label else {}), "measure": "average_precision", "n": len(cosine),
            "positives": int(positive.sum()), "average_precision": average_precision(cosine, positive),
            "average_precision_ci95": list(percentile_interval(samples)), "best_f1": best_threshold(cosine, positive),
            "best_accuracy": best_accuracy(cosine, positive), "truncated": int(encoder.count_truncated(texts)),
            "texts": len(texts), "score_range": [0.0, 1.0], "domains": {},
            "data": {"path": pairs.path, "sha256": pairs.sha256},
        }

        def on(some: Bools) -> float | None:
            chosen = positive[some]
            return average_precision(cosine[some], chosen) if chosen.any() and not chosen.all() else None

        return TaskResult(row, samples, on, cosine, pairs.gold, self.label)


def average_precision(score: Floats, positive: Bools) -> float:
    """Return the area below precision over recall as scikit-learn computes it: a step at each distinct score."""
    of_resample = precision_of_resamples(score, positive)
    return float(of_resample(np.ones((1, len(score)), dtype=np.int64))[0])


def precision_of_resamples(score: Floats, positive: Bools) -> Callable[[Counts], Floats]:
    """Return what gives the average precision in each of a chunk of resamples, [chunk]; NaN without a positive."""
    order = np.argsort(-score, kind="stable")
    ranked, right = score[order], positive[order].astype(np.float64)
    ends = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))

    def of_resample(counts: Counts) -> Floats:
        drawn = counts[:, order]
        hits, taken = np.cumsum(drawn * right, axis=1)[:, ends], np.cumsum(drawn, axis=1)[:, ends]
        gained = np.diff(hits, axis=1, prepend=0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(taken > 0, hits / np.maximum(taken, 1), 0.0)
            return (gained * precision).sum(axis=1) / np.where(hits[:, -1] > 0, hits[:, -1], np.nan)

    return of_resample


def best_accuracy(score: Floats, positive: Bools) -> dict[str, float]:
    """Return the ``cosine`` from which calling a pair positive is right most often, and that ``accuracy``."""
    order = np.argsort(-score, kind="stable")
    ranked, right = score[order], positive[order]
    ends = np.append(ranked[1:] < ranked[:-1], True)
    accuracy = (np.cumsum(right) + (~right).sum() - np.cumsum(~right)) / len(score)
    accuracy = np.where(ends, accuracy, -1.0)
    best = int(np.argmax(accuracy))
    below = ranked[best + 1] if best + 1 < len(ranked) else ranked[best]
    none = float((~positive).mean())  # calling nothing positive
    if none > accuracy[best]:
        return {"cosine": float(np.nextafter(ranked[0], 2)), "accuracy": none}
    return {"cosine": round(float((ranked[best] + below) / 2), 6), "accuracy": float(accuracy[best])}
