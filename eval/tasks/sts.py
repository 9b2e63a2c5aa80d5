"""Semantic textual similarity: one file of scored pairs, its correlation with what the vectors say.

The protocol is "all", as in Reimers and Gurevych (2019), Gao et al. (2021) and MTEB: the sub-sets (domains) of a file
are joined and ranked together; a domain's own correlation is extra.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentence_forge.data_readers.delimited import header
from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.eval.stats import Floats, Seed, Statistic, bootstrap, correlation, percentile_interval
from sentence_forge.eval.tasks.base import Bools, TaskResult, finite_vectors
from sentence_forge.eval.tasks.file_task import FileTask, strict_rows
from sentence_forge.runtime.errors import UserError, one_of
from sentence_forge.runtime.files import sha256_file

FEWEST = 10  # pairs below which a correlation says nothing
_FIELDS = ("sentence1", "sentence2", "score")
STATISTICS: tuple[Statistic, ...] = ("spearman", "pearson")
_FLAT = 1e-6  # cosines of float32 vectors that differ by less than this are rounding


@dataclass(frozen=True)
class Pairs:
    """The rows of one file: texts and gold scores, float64 [n], in the file's order."""

    sentence1: list[str]
    sentence2: list[str]
    gold: Floats
    domains: list[str] | None
    path: str
    sha256: str

    @property
    def texts(self) -> list[str]:
        """All texts of both sides, each once."""
        return list(dict.fromkeys([*self.sentence1, *self.sentence2]))

    @property
    def units(self) -> list[tuple[str, ...]]:
        """The pairs."""
        return list(zip(self.sentence1, self.sentence2, strict=True))


class ScoredPairs(FileTask):
    """A file of scored pairs as a task: ``path``, or ``<data_dir>/<folder>/<split>`` with an ending.

    Args:
        folder: where the file lies in the data folder.
        split: the file's name without its ending.
        path: a file anywhere, instead of ``folder`` and ``split``.
        sample: the language of the sample whose dev pairs are meant, instead of both.
        score_range: the lowest and the highest score there may be; anything outside is refused.
        columns: the file's names of ``sentence1``, ``sentence2`` and ``score``, where they differ.
        domain_column: the column that names a row's sub-set, if the file has it.
        label: what a report's heading calls the task.
    """

    def __init__(self, *, folder: str | None = None, split: str = "test", path: str | None = None,
                 sample: str | None = None, score_range: Sequence[float] = (0, 5),
                 columns: Mapping[str, str] | None = None, domain_column: str = "domain",
                 label: str | None = None) -> None:
        super().__init__(folder=folder, split=split, path=path, sample=sample, sample_file="sts_dev", label=label)
        bounds = [float(bound) for bound in score_range]
        if len(bounds) != 2 or not bounds[0] < bounds[1]:
            raise UserError(f"score_range={list(score_range)}: give the lowest and the highest score, such as [0, 5]")
        unknown = sorted(set(columns or {}) - set(_FIELDS))
        if unknown:
            raise UserError(f"columns: {unknown[0]!r} is not a field of scored pairs; {one_of(_FIELDS, unknown[0])}")
        self.low, self.high = bounds
        self.domain_column = domain_column
        self.columns = [(columns or {}).get(field, field) for field in _FIELDS]

    def read(self, data_dir: Path | None) -> Pairs:
        """Return the file's rows.

        Raises:
            UserError: the file is absent, lacks a column, has fewer than 10 rows or only one score, or holds a bad
                row; the message names file, line and column.
        """
        path = self.found(data_dir)
        with_domains = self.domain_column in header(path)
        wanted = [*self.columns, *([self.domain_column] if with_domains else [])]
        rows = [(self._score(place, values[2]), values)
                for place, values in strict_rows(path, wanted, self.columns[:2])]
        if len(rows) < FEWEST:
            raise UserError(f"{path}: has {len(rows)} rows; a correlation needs at least {FEWEST}")
        gold = np.array([row[0] for row in rows], dtype=np.float64)
        if gold.min() == gold.max():
            raise UserError(f"{path}: column {self.columns[2]!r} holds {gold[0]:g} in every row; "
                            "a correlation needs scores that differ")
        return Pairs([row[1][0] for row in rows], [row[1][1] for row in rows], gold,
                     [row[1][3] for row in rows] if with_domains else None, self.shown(path), sha256_file(path))

    def run(self, encoder: TextEncoder, data_dir: Path | None, *, resamples: int = 2000, seed: Seed = 0) -> TaskResult:
        """Read the file, encode its texts and return what ``score`` says.

        Raises:
            UserError: as ``read`` and ``score``.
        """
        return self.score(self.read(data_dir), encoder, resamples=resamples, seed=seed)

    def score(self, pairs: Pairs, encoder: TextEncoder, *, resamples: int = 2000, seed: Seed = 0) -> TaskResult:
        """Return the correlations of the encoder's similarities with the pairs' scores.

        Raises:
            UserError: a vector is not finite, or all cosines are equal.
        """
        texts = pairs.texts
        vectors = finite_vectors(encoder, texts, pairs.path)
        row_of = {text: row for row, text in enumerate(texts)}
        similarity = similarities(vectors, np.array([row_of[text] for text in pairs.sentence1]),
                                  np.array([row_of[text] for text in pairs.sentence2]))
        cosine = similarity["cosine"]
        if np.ptp(cosine) < _FLAT:
            raise UserError(f"{pairs.path}: the model {encoder.name} gives every pair the cosine {cosine[0]:.4f}; "
                            "its vectors have collapsed, so there is nothing to correlate")
        row: dict[str, Any] = {"measure": "spearman_cosine", "n": len(pairs.gold)}
        if self.label:
            row = {"label": self.label, **row}
        found, samples = _correlations(similarity, pairs.gold, resamples, seed)
        row |= {f"{statistic}_{name}": found.pop(f"{statistic}_{name}", None) for name in similarity
                for statistic in STATISTICS}
        domains = _by_domain(cosine, pairs, resamples, seed)
        alone = [domain["spearman_cosine"] for domain in domains.values() if "spearman_cosine" in domain]
        if len(alone) > 1:  # SentEval's protocol, beside the one that counts
            row["spearman_cosine_mean_of_domains"] = float(np.mean(alone))
        row |= {**found, "truncated": int(encoder.count_truncated(texts)), "texts": len(texts),
                "score_range": [self.low, self.high], "domains": domains,
                "data": {"path": pairs.path, "sha256": pairs.sha256}}

        def on(some: Bools) -> float | None:
            return _or_none(cosine[some], pairs.gold[some], "spearman") if some.sum() >= FEWEST else None

        return TaskResult(row, samples, on, cosine, pairs.gold, self.label)

    def _score(self, place: str, value: str) -> float:
        try:
            score = float(value) if "_" not in value else math.nan
        except ValueError:
            score = math.nan
        if not self.low <= score <= self.high:
            raise UserError(f"{place}, column {self.columns[2]}: {value[:40]!r} is not a number from {self.low:g} to "
                            f"{self.high:g}; correct it or set score_range=")
        return score


def similarities(vectors: NDArray[np.float32], left: NDArray[np.int_], right: NDArray[np.int_]) -> dict[str, Floats]:
    """Return cosine, dot, and negated Euclidean and Manhattan distance of row pairs of ``vectors`` [texts, dim].

    ``left`` and ``right`` [n] are row numbers. Sums are float64. A zero vector has cosine 0 with everything.
    """
    found: dict[str, list[Floats]] = {"cosine": [], "dot": [], "euclidean": [], "manhattan": []}
    norm = np.linalg.norm(vectors.astype(np.float64), axis=1)
    norm[norm == 0] = 1.0
    for start in range(0, len(left), 8192):
        i, j = left[start:start + 8192], right[start:start + 8192]
        u, v = vectors[i].astype(np.float64), vectors[j].astype(np.float64)
        dot = np.einsum("nd,nd->n", u, v)
        # A text with itself is exactly 1: rounding must not rank identical pairs among themselves.
        found["cosine"].append(np.where((i == j) & (dot > 0), 1.0, dot / (norm[i] * norm[j])))
        found["dot"].append(dot)
        found["euclidean"].append(-np.linalg.norm(u - v, axis=1))
        found["manhattan"].append(-np.abs(u - v).sum(axis=1))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _by_domain(cosine: Floats, pairs: Pairs, resamples: int, seed: Seed) -> dict[str, dict[str, Any]]:
    found = {}
    for domain in sorted(set(pairs.domains or [])):
        of_domain = np.array([name == domain for name in pairs.domains or []])
        row: dict[str, Any] = {"n": int(of_domain.sum())}
        if row["n"] >= FEWEST:
            row |= _correlations({"cosine": cosine[of_domain]}, pairs.gold[of_domain], resamples, seed)[0]
        found[domain] = row
    return found


def _correlations(similarity: Mapping[str, Floats], gold: Floats, resamples: int,
                  seed: Seed) -> tuple[dict[str, Any], Floats]:
    """Return every correlation that is defined with its interval, and Spearman's bootstrap samples of the cosine."""
    row: dict[str, Any] = {}
    of_cosine = np.full(resamples, np.nan)
    for statistic in STATISTICS:
        values = {name: _or_none(x, gold, statistic) for name, x in similarity.items()}
        defined = [name for name, value in values.items() if value is not None]
        if not defined:
            continue
        drawn = bootstrap([similarity[name] for name in defined], gold, statistic, resamples=resamples, seed=seed)
        for name, samples in zip(defined, drawn, strict=True):
            row[f"{statistic}_{name}"] = values[name]
            if np.isfinite(samples).any():
                row[f"{statistic}_{name}_ci95"] = list(percentile_interval(samples))
            if (statistic, name) == ("spearman", "cosine"):
                of_cosine = samples
    return row, of_cosine


def _or_none(x: Floats, y: Floats, statistic: Statistic) -> float | None:
    try:
        return correlation(x, y, statistic)
    except ValueError:  # a constant side: JSON has no NaN
        return None
