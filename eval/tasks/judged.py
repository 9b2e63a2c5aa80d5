"""Evaluate retrieval on your own queries, documents and judgements: nDCG@10, MRR@10 and recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from sentence_forge.encoders.protocol import Role, TextEncoder
from sentence_forge.eval.ranking import K, Ranking, rank
from sentence_forge.eval.stats import Floats, Seed, bootstrap_mean, percentile_interval
from sentence_forge.eval.tasks.base import Task, TaskResult, TaskRows, mean_result
from sentence_forge.eval.tasks.judgements import files_of, is_beir, read_judgements
from sentence_forge.eval.tasks.marked import marked_measures
from sentence_forge.eval.tasks.retrieval import query_and_document_vectors
from sentence_forge.runtime.errors import UserError

_SHOWN = 12  # queries that are shown because they miss most


class MissedQuery(TypedDict):
    """A query with a low nDCG: its best document, that one's rank (None: far down), the document that came first."""

    query: str
    ndcg: float
    expected: str
    rank: int | None
    first: str


@dataclass(frozen=True, kw_only=True)
class Judged(TaskRows):
    """Queries that have something relevant, documents, and the grades of some of the documents for each query."""

    queries: list[str]
    documents: list[str]
    grades: list[dict[int, float]]
    without_relevant: int

    @property
    def texts(self) -> list[str]:
        """All texts, each once."""
        return list(dict.fromkeys([*self.documents, *self.queries]))

    @property
    def texts_by_role(self) -> dict[Role, list[str]]:
        """The texts as they are searched."""
        return {"query": self.queries, "document": self.documents}

    @property
    def units(self) -> list[tuple[str, ...]]:
        """The queries, each with the document that is best for it."""
        return [(query, self.documents[max(grades, key=lambda document: grades[document])])
                for query, grades in zip(self.queries, self.grades, strict=True)]


@dataclass(kw_only=True)
class JudgedRetrieval(Task):
    """Queries over documents with judgements, from a BEIR folder, a JSON file or a table; ``suite=mine``.

    Args:
        path: a folder with corpus.jsonl, queries.jsonl and qrels/<split>.tsv, as BEIR has it; a .json with
            ``queries``, ``corpus`` and ``relevant_docs``, as LlamaIndex's generator writes it; or a table (.csv,
            .tsv, .xlsx, .jsonl, .parquet) with a row for each judgement. None: ``data_dir`` is the folder.
        split: of a folder, which judgements.
        columns: of a table, its names of the query, the document and the grade; None: ``query``, ``title``, ``grade``
            or other well-known names (``eval.tasks.judgements.KNOWN``).
        recalls: at which ranks recall is taken.
        marks: the grades are marks of hits, so measure too what ``eval.tasks.marked`` has; ``suite=marks``.
        label: the task's name in headings.
    """

    path: str | None = None
    split: str = "test"
    columns: Sequence[str] | None = None
    recalls: Sequence[int] = (1, 10, 100)
    marks: bool = False
    label: str | None = None

    def __post_init__(self) -> None:
        if self.columns is not None and len(self.columns) != 3:
            raise UserError(f"columns={list(self.columns)}: give three names, of the query, the document and the grade")
        if not self.recalls or min(self.recalls) < 1:
            raise UserError(f"recalls={list(self.recalls)}: give ranks from 1, such as [1,10,100]")

    def where(self, data_dir: Path | None) -> str:
        """Say which file is meant, found or not."""
        return self.path or str(data_dir or "file=")

    def locate(self, data_dir: Path | None) -> Path:
        """Return the file or folder.

        Raises:
            UserError: there is none, or a folder that is not as BEIR has it.
        """
        path = data_dir if self.path is None else Path(self.path).expanduser()
        if path is None or (self.path is None and not is_beir(path)):
            raise UserError("suite=mine: give file=<table of query, title and grade; .json of LlamaIndex; folder as "
                            "BEIR has it>")
        if path.is_dir() and not is_beir(path):
            raise UserError(f"{path}: a folder of judgements needs corpus.jsonl, queries.jsonl and qrels/; "
                            "else give a file")
        if not path.exists():
            raise UserError(f"{path}: no such file; give your queries and judgements by file=")
        return path

    def read(self, data_dir: Path | None) -> Judged:
        """Return the queries, documents and grades; queries without anything relevant are left out and counted.

        Raises:
            UserError: a file is absent or has a bad row, an id is unknown, or fewer than two queries have anything
                relevant; the message names file, row and what to do.
        """
        path = self.locate(data_dir)
        files = files_of(path, self.split)
        found = read_judgements(path, files, self.columns)
        kept = [number for number, grades in enumerate(found.grades) if any(grade > 0 for grade in grades.values())]
        if len(kept) < 2:
            raise UserError(f"{path}: {len(kept)} of {len(found.queries)} queries have a document with a grade above "
                            "0; at least two are needed")
        return Judged(path=path.name, sha256=_hash(files), queries=[found.queries[number] for number in kept],
                      documents=found.documents, grades=[found.grades[number] for number in kept],
                      without_relevant=len(found.queries) - len(kept))

    def score(self, rows: Judged, encoder: TextEncoder, *, resamples: int = 2000, seed: Seed = 0) -> TaskResult:
        """Return nDCG@10, MRR@10 and recall, each with an interval over the queries, and the queries that miss most.

        Raises:
            UserError: a vector is not finite.
        """
        def gains(chunk: NDArray[np.int_]) -> tuple[Floats, None]:
            grades = np.zeros((len(chunk), len(rows.documents)))
            for row, query in enumerate(chunk):
                grades[row, list(rows.grades[query])] = list(rows.grades[query].values())
            return grades, None

        queries, documents = query_and_document_vectors(rows, encoder)
        ranking = rank(queries, documents, gains, self.recalls)
        marked = marked_measures(queries, documents, rows.grades, ranking.top) if self.marks else {}
        ranking.measures.update(marked)
        names = [f"mrr@{K}", *(f"recall@{k}" for k in self.recalls), *marked]
        samples = {name: bootstrap_mean(ranking.measures[name], resamples=resamples, seed=seed) for name in names}
        found: dict[str, Any] = {"also": names, "documents": len(rows.documents),
                                 "without_relevant": rows.without_relevant, "missed": _missed(rows, ranking)}
        for name in names:
            found |= {name: float(ranking.measures[name].mean()),
                      f"{name}_ci95": list(percentile_interval(samples[name]))}
        return mean_result(rows, encoder, self.label, f"ndcg@{K}", ranking.measures[f"ndcg@{K}"], found,
                           resamples=resamples, seed=seed, also=samples)


def _missed(rows: Judged, ranking: Ranking) -> list[MissedQuery]:
    """Return the queries with the lowest nDCG: their best document, its rank if it is near, and what came first."""
    ndcg = ranking.measures[f"ndcg@{K}"]
    found: list[MissedQuery] = []
    for query in np.argsort(ndcg, kind="stable")[:_SHOWN]:
        if ndcg[query] > 1 - 1e-9:
            break
        grades, top = rows.grades[query], ranking.top[query].tolist()
        best = min(grades, key=lambda document: (-grades[document], top.index(document) if document in top else
                                                 len(rows.documents)))
        found.append({"query": rows.queries[query], "ndcg": round(float(ndcg[query]), 6),
                      "expected": rows.documents[best], "rank": top.index(best) + 1 if best in top else None,
                      "first": rows.documents[top[0]]})
    return found


def _hash(files: Sequence[Path]) -> str:
    import hashlib

    from sentence_forge.runtime.files import sha256_file

    hashes = [sha256_file(file) for file in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
