"""Semantic textual similarity: one file of scored pairs, its correlation with what the vectors say.

The protocol is "all", as in Reimers and Gurevych (2019), Gao et al. (2021) and MTEB: the sub-sets (domains) of a file
are joined and ranked together; a domain's own correlation is extra.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentence_forge.data_readers.checks import normalise
from sentence_forge.data_readers.formats.files import open_rows
from sentence_forge.data_readers.hold_out import hold_out
from sentence_forge.data_readers.known_columns import say, well_known
from sentence_forge.data_readers.score_range import range_of, scores_of
from sentence_forge.data_readers.table import ROW, Table, read_table, rows_at
from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.eval.schema import DataFile
from sentence_forge.eval.stats import Floats, Seed, Statistic, bootstrap, correlation, percentile_interval
from sentence_forge.eval.tasks.base import FEWEST, Bools, TaskResult, TaskRows, finite_vectors, task_row
from sentence_forge.eval.tasks.file_task import FileTask, check_enough
from sentence_forge.runtime.errors import UserError, one_of

log = logging.getLogger(__name__)
_FIELDS = ("sentence1", "sentence2", "score")
STATISTICS: tuple[Statistic, ...] = ("spearman", "pearson")
_FLAT = 1e-6  # cosines of float32 vectors that differ by less than this are rounding


@dataclass(frozen=True, kw_only=True)
class Pairs(TaskRows):
    """The rows of one file: texts and gold scores, float64 [n], in the file's order."""

    sentence1: list[str]
    sentence2: list[str]
    gold: Floats
    score_range: tuple[float, float] = (0.0, 5.0)

    @property
    def texts(self) -> list[str]:
        """All texts of both sides, each once."""
        return list(dict.fromkeys([*self.sentence1, *self.sentence2]))

    @property
    def units(self) -> list[tuple[str, ...]]:
        """The pairs."""
        return list(zip(self.sentence1, self.sentence2, strict=True))


@dataclass(kw_only=True)
class ScoredPairs(FileTask):
    """A file of scored pairs.

    Args:
        folder: see ``FileTask``; likewise ``split``, ``path``, ``sample`` and ``label``.
        score_range: the lowest and the highest score there may be; anything outside is refused. None detects it from
            all scores of the file, or refuses them where they are ambiguous.
        columns: the file's names of ``sentence1``, ``sentence2`` and ``score``; usual other names are recognised.
        domain_column: the column that names a row's sub-set, if the file has it.
        held_out: only the rows that a training on this file with ``data.dev_fraction=`` of this share holds out, so
            that the others may be trained on; None takes all.
    """

    sample_file = "sts_dev"
    score_range: Sequence[float] | None = (0, 5)
    columns: Mapping[str, str] | None = None
    domain_column: str = "domain"
    held_out: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds = (0, 1) if self.score_range is None else self.score_range
        if len(bounds) != 2 or not bounds[0] < bounds[1]:
            raise UserError(f"score_range={list(bounds)}: give the lowest and the highest score, such as "
                            "[0, 5]")
        if self.held_out is not None and not 0 < self.held_out < 1:
            raise UserError(f"held_out={self.held_out}: give a share between 0 and 1, or null for all rows")
        unknown = sorted(set(self.columns or {}) - set(_FIELDS))
        if unknown:
            raise UserError(f"columns: {unknown[0]!r} is not a field of scored pairs; {one_of(_FIELDS, unknown[0])}")

    def read(self, data_dir: Path | None) -> Pairs:
        """Return the file's rows.

        Raises:
            UserError: the file is absent, lacks a column, has fewer than 10 rows or only one score, or holds a bad
                row; the message names file, line and column.
        """
        path = self.existing_file(data_dir)
        file = open_rows(path)
        columns = {field: field for field in _FIELDS} | well_known(file.columns, _FIELDS) | dict(self.columns or {})
        if missing := [name for name in columns.values() if name not in file.columns]:
            named = ", where they are called otherwise: '+suite.file.columns={sentence1: .., sentence2: .., score: ..}'"
            raise UserError(f"{path}: no column {missing[0]!r}; {one_of(file.columns, missing[0])}; scored pairs have "
                            f"sentence1, sentence2 and score{named if self.path else ''}")
        say(path, columns, "columns=")
        if self.domain_column in file.columns:
            columns["domain"] = self.domain_column
        bounds = None if self.score_range is None else (float(self.score_range[0]), float(self.score_range[1]))
        table = read_table(file, columns, score_range=bounds, may_be_empty=["domain"])
        if self.held_out is not None:
            table = rows_at(table, hold_out([normalise(text) for text in table["sentence1"]], self.held_out, 0)[1])
        pairs = scored(path, self.source(path), table, columns["score"], "a correlation needs scores that differ")
        return replace(pairs, score_range=bounds or _range(path, table))

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
        found, samples = _correlations(similarity, pairs.gold, resamples, seed)
        ordered = {f"{statistic}_{name}": found.get(f"{statistic}_{name}") for name in similarity
                   for statistic in STATISTICS}
        domains = _by_domain(cosine, pairs, resamples, seed)
        alone = [domain["spearman_cosine"] for domain in domains.values() if "spearman_cosine" in domain]
        if len(alone) > 1:  # SentEval's protocol, beside the one that counts
            found["spearman_cosine_mean_of_domains"] = float(np.mean(alone))
        row = task_row(pairs, encoder, self.label, "spearman_cosine", len(pairs.gold), {
            **ordered, **found, "score_range": list(pairs.score_range), "domains": domains})

        def on(some: Bools) -> float | None:
            return _or_none(cosine[some], pairs.gold[some], "spearman") if some.sum() >= FEWEST else None

        return TaskResult(row, samples, on, cosine, pairs.gold)


def _range(path: Path, table: Table) -> tuple[float, float]:
    """Return the range of a file's scores, detected from all of them, and log it.

    Raises:
        UserError: it is ambiguous.
    """
    try:
        found = range_of(scores_of(zip(table[ROW], table["score"], strict=True)), key="suite.file")
    except ValueError as error:
        raise UserError(f"{path}: {str(error).replace('(line ', '(row ')}") from None
    log.info("%s: scores from %g to %g by all of them (score_range= overrides it)", path, *found)
    return found


def scored(path: Path, source: DataFile, table: Table, column: str, needs: str) -> Pairs:
    """Return the pairs of a table with ``sentence1``, ``sentence2``, ``score`` and perhaps ``domain``.

    Args:
        path: the file, for errors.
        source: its name and hash in reports.
        table: its columns.
        column: the file's name of the score.
        needs: ends the error about a file that holds only one score.

    Raises:
        UserError: fewer than 10 rows, or only one score.
    """
    gold = np.array(table["score"], dtype=np.float64)
    check_enough(path, len(gold), "rows", "a score")
    if gold.min() == gold.max():
        raise UserError(f"{path}: column {column!r} holds {gold[0]:g} in every row; {needs}")
    return Pairs(sentence1=table["sentence1"], sentence2=table["sentence2"], gold=gold, domains=table.get("domain"),
                 **source)


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
