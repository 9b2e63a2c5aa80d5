"""Triplet accuracy: how often an anchor is nearer to its positive than to any of its negatives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sentence_forge.data_readers.derive import triplets
from sentence_forge.data_readers.formats.files import open_rows
from sentence_forge.data_readers.shapes import TRIPLET
from sentence_forge.data_readers.table import read_table
from sentence_forge.encoders.protocol import Role, TextEncoder
from sentence_forge.eval.stats import Seed
from sentence_forge.eval.tasks.base import TaskResult, TaskRows, finite_vectors, mean_result, unit_vectors
from sentence_forge.eval.tasks.file_task import FileTask, check_enough

_NLI = ("premise", "hypothesis", "label")
_TIE = 1e-7  # cosines of float32 vectors that are nearer to each other are equal
_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Triplets(TaskRows):
    """The rows of one file, each an anchor, its positive and one or more negatives."""

    rows: list[tuple[str, ...]]

    @property
    def texts(self) -> list[str]:
        """All texts, each once."""
        return list(dict.fromkeys(text for row in self.rows for text in row))

    @property
    def texts_by_role(self) -> dict[Role, list[str]]:
        """Anchors as queries, the others as documents."""
        return {"query": [row[0] for row in self.rows], "document": [text for row in self.rows for text in row[1:]]}

    @property
    def units(self) -> list[tuple[str, ...]]:
        """The anchors with their positives."""
        return [row[:2] for row in self.rows]


@dataclass(kw_only=True)
class TripletAccuracy(FileTask):
    """A file of anchor, positive and negative (and negative_2, ...), or of NLI rows that give such.

    The arguments are those of ``FileTask``.
    """

    sample_file = "nli_dev"

    def read(self, data_dir: Path | None) -> Triplets:
        """Return the file's triplets; NLI rows are joined as for training (``data_readers.derive.triplets``).

        Raises:
            UserError: the file is absent, has fewer than 10 triplets or a bad row.
        """
        path = self.existing_file(data_dir)
        file = open_rows(path)
        columns = file.columns
        if set(_NLI) <= set(columns):
            table, names = triplets(read_table(file, {name: name for name in _NLI})), ["anchor", "positive", "negative"]
        else:
            names = TRIPLET.text_columns(columns)
            table = read_table(file, {name: name for name in names})
        rows = list(zip(*(table[name] for name in names), strict=True))
        check_enough(path, len(rows), "triplets", "an accuracy")
        return Triplets(rows=rows, **self.source(path))

    def score(self, rows: Triplets, encoder: TextEncoder, *, resamples: int = 2000, seed: Seed = 0) -> TaskResult:
        """Return the share of triplets whose positive has a higher cosine than every negative; ties count against.

        Raises:
            UserError: a vector is not finite.
        """
        anchor, positive, *negatives = (
            unit_vectors(finite_vectors(encoder, column, rows.path, "document" if number else "query"))
            for number, column in enumerate(zip(*rows.rows, strict=True)))
        near = np.einsum("nd,nd->n", anchor, positive)
        margin = np.min([near - np.einsum("nd,nd->n", anchor, negative) for negative in negatives], axis=0)
        won = (margin > _TIE).astype(np.float64)
        order = np.argsort(margin, kind="stable")[:_SHOWN]
        found: dict[str, Any] = {
            "margin": {"mean": float(margin.mean()), "median": float(np.median(margin))},
            "lost": [{"row": int(number) + 1, "texts": list(rows.rows[number]),
                      "margin": round(float(margin[number]), 6)} for number in order if not won[number]]}
        return mean_result(rows, encoder, self.label, "triplet_accuracy", won, found, resamples=resamples, seed=seed)
