"""Triplet accuracy: how often an anchor is nearer to its positive than to any of its negatives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sentence_forge.data_readers.delimited import header
from sentence_forge.data_readers.derive import triplets
from sentence_forge.data_readers.shapes import TRIPLET
from sentence_forge.data_readers.table import ROW, Table
from sentence_forge.encoders.protocol import Role, TextEncoder
from sentence_forge.eval.stats import Seed, bootstrap_mean, percentile_interval
from sentence_forge.eval.tasks.base import Bools, TaskResult, finite_vectors, unit_vectors
from sentence_forge.eval.tasks.file_task import FileTask, strict_rows
from sentence_forge.eval.tasks.sts import FEWEST
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import sha256_file

_NLI = ("premise", "hypothesis", "label")
_TIE = 1e-7  # cosines of float32 vectors that are nearer to each other are equal


@dataclass(frozen=True)
class Triplets:
    """The rows of one file, each an anchor, its positive and one or more negatives."""

    rows: list[tuple[str, ...]]
    path: str
    sha256: str

    @property
    def texts(self) -> list[str]:
        """All texts, each once."""
        return list(dict.fromkeys(text for row in self.rows for text in row))

    @property
    def by_role(self) -> dict[Role, list[str]]:
        """Anchors look for the others."""
        return {"query": [row[0] for row in self.rows], "document": [text for row in self.rows for text in row[1:]]}

    @property
    def units(self) -> list[tuple[str, ...]]:
        """The anchors with their positives."""
        return [row[:2] for row in self.rows]


class TripletAccuracy(FileTask):
    """A file of anchor, positive and negative (and negative_2, ...), or of NLI rows that give such.

    Args:
        folder: where the file lies in the data folder.
        split: the file's name without its ending.
        path: a file anywhere, instead of both.
        sample: the language of the sample's NLI dev rows, instead of either.
        label: what a report's heading calls the task.
    """

    def __init__(self, *, folder: str | None = None, split: str = "test", path: str | None = None,
                 sample: str | None = None, label: str | None = None) -> None:
        super().__init__(folder=folder, split=split, path=path, sample=sample, sample_file="nli_dev", label=label)

    def read(self, data_dir: Path | None) -> Triplets:
        """Return the file's triplets; NLI rows are joined as for training (``data_readers.derive.triplets``).

        Raises:
            UserError: the file is absent, has fewer than 10 triplets or a bad row.
        """
        path = self.found(data_dir)
        columns = header(path)
        if set(_NLI) <= set(columns):
            read = [values for _, values in strict_rows(path, _NLI, _NLI)]
            table: Table = {name: [row[number] for row in read] for number, name in enumerate(_NLI)}
            made = triplets(table | {ROW: list(range(1, len(read) + 1))})
            rows: list[tuple[str, ...]] = list(zip(made["anchor"], made["positive"], made["negative"], strict=True))
        else:
            names = TRIPLET.text_columns(columns)
            rows = [tuple(values) for _, values in strict_rows(path, names, names)]
        if len(rows) < FEWEST:
            raise UserError(f"{path}: gives {len(rows)} triplets; an accuracy needs at least {FEWEST}")
        return Triplets(rows, self.shown(path), sha256_file(path))

    def score(self, rows: Triplets, encoder: TextEncoder, *, resamples: int = 2000, seed: Seed = 0) -> TaskResult:
        """Return the share of triplets whose positive has a higher cosine than every negative; ties count against.

        Raises:
            UserError: a vector is not finite.
        """
        texts = rows.texts
        anchor, positive, *negatives = (
            unit_vectors(finite_vectors(encoder, column, rows.path, "document" if number else "query"))
            for number, column in enumerate(zip(*rows.rows, strict=True)))
        near = np.einsum("nd,nd->n", anchor, positive)
        margin = np.min([near - np.einsum("nd,nd->n", anchor, negative) for negative in negatives], axis=0)
        won = (margin > _TIE).astype(np.float64)
        samples = bootstrap_mean(won, resamples=resamples, seed=seed)
        order = np.argsort(margin, kind="stable")[:12]
        row: dict[str, Any] = {
            **({"label": self.label} if self.label else {}), "measure": "triplet_accuracy", "n": len(won),
            "triplet_accuracy": float(won.mean()), "triplet_accuracy_ci95": list(percentile_interval(samples)),
            "margin": {"mean": float(margin.mean()), "median": float(np.median(margin))},
            "truncated": int(encoder.count_truncated(texts)), "texts": len(texts), "domains": {},
            "lost": [{"row": int(number) + 1, "texts": list(rows.rows[number]),
                      "margin": round(float(margin[number]), 6)} for number in order if not won[number]],
            "data": {"path": rows.path, "sha256": rows.sha256},
        }

        def on(some: Bools) -> float | None:
            return float(won[some].mean()) if some.any() else None

        return TaskResult(row, samples, on, label=self.label)
