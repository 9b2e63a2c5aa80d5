"""Retrieval over titles: by label (a title finds others of its category) and of a known item (a text finds its title).

The measures are those of sentence-transformers' InformationRetrievalEvaluator; see ``eval.ranking``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sentence_forge.data_readers.formats.files import read_rows
from sentence_forge.data_readers.formats.rows import BadRow, Row
from sentence_forge.data_readers.table import read_table
from sentence_forge.encoders.protocol import Role, TextEncoder
from sentence_forge.eval.ranking import Gains, K, rank
from sentence_forge.eval.stats import Floats, Seed
from sentence_forge.eval.tasks.base import (
    Bools,
    TaskResult,
    TaskRows,
    finite_vectors,
    mean_result,
    unit_vectors,
)
from sentence_forge.eval.tasks.file_task import FileTask, check_enough
from sentence_forge.runtime.errors import UserError

_FIELDS = ("title", "label", "description")


@dataclass(frozen=True, kw_only=True)
class Titles(TaskRows):
    """Distinct titles with a category each, and the texts that should find them: themselves, or a description each."""

    titles: list[str]
    labels: list[str]
    queries: list[str]
    repeats: int

    @property
    def texts(self) -> list[str]:
        """All texts, each once."""
        return list(dict.fromkeys([*self.titles, *self.queries]))

    @property
    def texts_by_role(self) -> dict[Role, list[str]]:
        """The texts as they are searched."""
        return {"query": self.queries, "document": self.titles}

    @property
    def units(self) -> list[tuple[str, ...]]:
        """The queries, each with its title where that is another text."""
        return [(query,) if query == title else (query, title)
                for query, title in zip(self.queries, self.titles, strict=True)]


@dataclass(kw_only=True)
class _TitleTask(FileTask):
    """A file of titles.

    Args:
        columns: the file's names of the title, its category and perhaps a description.
        limit: the first so many distinct titles.
        every: takes only each so-many-th row, for files that are sorted by category.
    """

    columns: Sequence[str] = ("title", "label")
    limit: int | None = 10_000
    every: int = 1

    def __post_init__(self) -> None:
        """Check ``every``.

        Raises:
            UserError: it is below 1.
        """
        super().__post_init__()
        if self.every < 1:
            raise UserError(f"every={self.every}: must be at least 1")

    def read(self, data_dir: Path | None) -> Titles:
        """Return the file's titles that have a cell in each of ``columns``, each title once.

        Raises:
            UserError: the file is absent, has fewer than 10 such titles, a bad row, or one category only.
        """
        path = self.existing_file(data_dir)
        table = read_table(path, dict(zip(_FIELDS, self.columns, strict=False)), may_be_empty=_FIELDS[1:],
                           rows=self._first_rows(path, self.columns[:len(_FIELDS)]))
        rows: dict[str, tuple[str, ...]] = {}
        repeats = 0
        for title, *others in zip(*(table[name] for name in _FIELDS if name in table), strict=True):
            if len(rows) == self.limit:
                break
            if all(cell.strip() for cell in others):  # a title without a label or a description is no query
                repeats += title in rows
                rows.setdefault(title, (title, *others))
        check_enough(path, len(rows), f"titles with all of {', '.join(self.columns)}", "retrieval")
        labels = [row[1] for row in rows.values()]
        if len(set(labels)) < 2:
            raise UserError(f"{path}: column {self.columns[1]!r} holds {labels[0]!r} in every row; categories must "
                            "differ")
        return Titles(titles=list(rows), labels=labels, queries=[row[-1] if len(row) > 2 else row[0]
                                                                 for row in rows.values()],
                      repeats=repeats, **self.source(path))

    def _first_rows(self, path: Path, columns: Sequence[str]) -> Iterator[Row | BadRow]:
        """Yield each ``every``-th row until ``limit`` titles are sure to be among them: a large file isn't read."""
        titles = set()
        for row in islice(read_rows(path, columns), 0, None, self.every):
            yield row
            if isinstance(row, Row) and all(cell.strip() for cell in row.values):
                titles.add(row.values[0])
                if len(titles) == self.limit:
                    return


@dataclass(kw_only=True)
class LabelledRetrieval(_TitleTask):
    """Each title as a query among all others: those of its category are right.

    Args:
        folder: see ``FileTask``; likewise ``split``, ``path``, ``sample`` and ``label``.
        columns: the file's names of the title and its category.
        limit: the first so many distinct titles.
        every: takes only each so-many-th row, for files that are sorted by category.
    """

    sample_file = "titles"

    def score(self, rows: Titles, encoder: TextEncoder, *, resamples: int = 2000, seed: Seed = 0) -> TaskResult:
        """Return precision@10, nDCG@10 and MRR@10, over all titles and by category.

        Raises:
            UserError: a vector is not finite.
        """
        measures = rank(*query_and_document_vectors(rows, encoder), self.gains(rows)).measures
        found = {name: measures[name] for name in (f"precision@{K}", f"ndcg@{K}", f"mrr@{K}")}
        return _result(self.label, rows, encoder, found, resamples, seed)

    def gains(self, rows: Titles) -> Gains:
        """Return which titles are right for which: all others of its category, and a title itself does not compete."""
        _, label = np.unique(rows.labels, return_inverse=True)

        def of(chunk: NDArray[np.int_]) -> tuple[Floats, Bools]:
            others = chunk[:, None] != np.arange(len(label))
            return ((label[chunk, None] == label) & others).astype(np.float64), others

        return of


@dataclass(kw_only=True)
class KnownItem(_TitleTask):
    """Each description as a query among all titles: its own title alone is right.

    Args:
        folder: see ``FileTask``; likewise ``split``, ``path`` and ``label``.
        columns: the file's names of the title, its category and the description.
        limit: the first so many distinct titles.
        every: takes only each so-many-th row, for files that are sorted by category.
        shorten: where there are no descriptions, what share of a title's characters is the query, its first ones.
    """

    columns: Sequence[str] = _FIELDS
    shorten: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shorten is not None and not 0 < self.shorten < 1:
            raise UserError(f"shorten={self.shorten}: give a share of the title between 0 and 1")
        if (self.shorten is None) == (len(self.columns) == 2):
            raise UserError("shorten: is for titles without descriptions: columns=[title,label] beside it")

    def read(self, data_dir: Path | None) -> Titles:
        """Return the file's titles, each with its description or its own beginning; see ``Titles``."""
        found = super().read(data_dir)
        if self.shorten is None:
            return found
        return replace(found, queries=[title[:math.ceil(len(title) * self.shorten)].strip() for title in found.titles])

    def score(self, rows: Titles, encoder: TextEncoder, *, resamples: int = 2000, seed: Seed = 0) -> TaskResult:
        """Return MRR@10, nDCG@10 and recall@1 and @10, over all titles and by category.

        Raises:
            UserError: a vector is not finite.
        """
        measures = rank(*query_and_document_vectors(rows, encoder), self.gains(rows)).measures
        found = {name: measures[name] for name in (f"mrr@{K}", f"ndcg@{K}", "recall@1", f"recall@{K}")}
        return _result(self.label, rows, encoder, found, resamples, seed)

    def gains(self, rows: Titles) -> Gains:
        """Return which titles are right for which query: its own alone, among all."""
        def of(chunk: NDArray[np.int_]) -> tuple[Floats, None]:
            return (chunk[:, None] == np.arange(len(rows.titles))).astype(np.float64), None

        return of


def query_and_document_vectors(rows: TaskRows, encoder: TextEncoder) -> tuple[Floats, Floats]:
    """Return the unit vectors of the queries and of the documents, each encoded as what it is in a search."""
    return (unit_vectors(finite_vectors(encoder, rows.texts_by_role["query"], rows.path, "query")),
            unit_vectors(finite_vectors(encoder, rows.texts_by_role["document"], rows.path, "document")))


def _result(label: str | None, rows: Titles, encoder: TextEncoder, found: dict[str, Floats], resamples: int,
            seed: Seed) -> TaskResult:
    """Return the result; the first measure of ``found`` counts. A query without anything relevant counts as missed."""
    found = {name: np.nan_to_num(values) for name, values in found.items()}
    labels = np.array(rows.labels)
    domains = {name: {"n": int((labels == name).sum()),
                      **{measure: float(values[labels == name].mean()) for measure, values in found.items()}}
               for name in sorted(set(rows.labels))}
    first, *others = found
    return mean_result(rows, encoder, label, first, found[first],
                       {**{name: float(found[name].mean()) for name in others}, "repeats": rows.repeats,
                        "domains": domains}, resamples=resamples, seed=seed)
