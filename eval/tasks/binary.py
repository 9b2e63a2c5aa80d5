"""Pairs that mean the same or do not (paraphrases, matching questions): average precision and the best threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sentence_forge.data_readers.formats.files import open_rows
from sentence_forge.data_readers.known_columns import say, well_known
from sentence_forge.data_readers.table import ROW, read_table
from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.eval.stats import Counts, Floats, Seed, percentile_interval, resample_counts
from sentence_forge.eval.tasks.base import Bools, TaskResult, finite_vectors, task_row
from sentence_forge.eval.tasks.file_task import FileTask
from sentence_forge.eval.tasks.sts import Pairs, scored, similarities
from sentence_forge.eval.thresholds import best_accuracy, best_threshold
from sentence_forge.runtime.errors import UserError

_FIELDS = ("sentence1", "sentence2", "score")


@dataclass(kw_only=True)
class BinaryPairs(FileTask):
    """A file of pairs with a score of 0 or 1; AFQMC, LCQMC, BQ and PAWS-X are such.

    Args:
        folder: see ``FileTask``; likewise ``split``, ``path`` and ``label``.
        columns: the file's names of the two texts and the score; None: sentence1, sentence2 and score or label, or
            other well-known names.
    """

    columns: Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.columns is not None and len(self.columns) != 3:
            raise UserError(f"columns={list(self.columns)}: give three names, of the two texts and the score")

    def read(self, data_dir: Path | None) -> Pairs:
        """Return the file's rows.

        Raises:
            UserError: the file is absent, has fewer than 10 rows, a score that is not 0 or 1, or one only.
        """
        path = self.existing_file(data_dir)
        file = open_rows(path)
        columns = {field: field for field in _FIELDS} | well_known(file.columns, _FIELDS)
        if columns["score"] not in file.columns:
            columns["score"] = well_known(file.columns, ["label"]).get("label", "score")
        columns = columns if self.columns is None else dict(zip(_FIELDS, self.columns, strict=True))
        say(path, columns, "columns=")
        column = columns["score"]
        table = read_table(file, columns)
        for row, score in zip(table[ROW], table["score"], strict=True):
            if score not in (0, 1):
                raise UserError(f"{path}, row {row}, column {column}: {score:g} is not 0 or 1; suite=binary takes "
                                f"scores 0 or 1, and graded ones are suite={path}")
        return scored(path, self.source(path), table, column, "it must hold 0 and 1")

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
        row = task_row(pairs, encoder, self.label, "average_precision", len(cosine), {
            "positives": int(positive.sum()), "average_precision": average_precision(cosine, positive),
            "average_precision_ci95": list(percentile_interval(samples)), "best_f1": best_threshold(cosine, positive),
            "best_accuracy": best_accuracy(cosine, positive), "score_range": [0.0, 1.0]})

        def on(some: Bools) -> float | None:
            chosen = positive[some]
            return average_precision(cosine[some], chosen) if chosen.any() and not chosen.all() else None

        return TaskResult(row, samples, on, cosine, pairs.gold)


def average_precision(score: Floats, positive: Bools) -> float:
    """Return the area below precision over recall as scikit-learn computes it: a step at each distinct score."""
    of_resample = precision_of_resamples(score, positive)
    return float(of_resample(np.ones((1, len(score)), dtype=np.int64))[0])


def precision_of_resamples(score: Floats, positive: Bools) -> Callable[[Counts], Floats]:
    """Return a function of a chunk of resamples: the average precision in each, [chunk]; NaN without a positive."""
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
