"""The interface of evaluation tasks: a task, its rows, its result, and texts that are encoded once for all tasks."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from sentence_forge.encoders.protocol import Role, TextEncoder
from sentence_forge.eval.schema import TaskRow, value
from sentence_forge.eval.stats import Floats, Seed, bootstrap_mean, difference, percentile_interval
from sentence_forge.runtime.errors import UserError

Bools = NDArray[np.bool_]
Head = Callable[[NDArray[np.float32], NDArray[np.float32]], Sequence[str] | NDArray[Any]]
"""A trained classifier: the vectors of premises and hypotheses [n, dim] to the label names it predicts [n]."""
FEWEST = 10  # rows below which a score says nothing


@dataclass(frozen=True, kw_only=True)
class TaskRows(ABC):
    """The base class of the rows that a task reads.

    Args:
        path: the file's name in a report.
        sha256: the hash of the file's bytes.
        domains: the sub-set of each unit, where a file names them.
    """

    path: str
    sha256: str
    domains: list[str] | None = None

    @property
    @abstractmethod
    def units(self) -> Sequence[tuple[str, ...]]:
        """What is scored, such as pairs: the bootstrap draws these units, and training data is searched for them."""

    @property
    def texts(self) -> list[str]:
        """All texts, each once."""
        return list(dict.fromkeys(text for unit in self.units for text in unit))

    @property
    def texts_by_role(self) -> Mapping[Role, Sequence[str]]:
        """The texts of a search: queries below ``query``, what is searched below ``document``; else empty."""
        return {}


class EncodedTexts(TextEncoder):
    """An encoder that looks up vectors computed before, so that several tasks share one pass over their texts.

    Args:
        encoder: encodes every distinct text once in each way that it has for its roles, and counts what it cuts.
        texts: everything that will be asked for without a role.
        head: the model's classifier of pairs, if it has one.
        texts_by_role: everything that will be asked for as a query or as a document.
    """

    def __init__(self, encoder: TextEncoder, texts: Iterable[str], head: Head | None = None, *,
                 texts_by_role: Mapping[Role, Iterable[str]] | None = None) -> None:
        self.name = encoder.name
        self.fingerprint = encoder.fingerprint
        self.head = head
        self.source = encoder
        self._keys: dict[Role | None, str] = {role: encoder.role_key(role) for role in (None, "query", "document")}
        wanted: dict[str, tuple[Role | None, dict[str, None]]] = {self._keys[None]: (None, dict.fromkeys(texts))}
        for role, some in (texts_by_role or {}).items():
            wanted.setdefault(self._keys[role], (role, {}))[1].update(dict.fromkeys(some))
        self._row = {cell: row for row, cell in enumerate((key, text) for key, (_, distinct) in wanted.items()
                                                          for text in distinct)}
        made = [encoder.encode(list(distinct)) if role is None else encoder.encode(list(distinct), role=role)
                for role, distinct in wanted.values() if distinct or not self._row]
        self._vectors = np.concatenate(made).astype(np.float32, copy=False)
        self._truncated: dict[tuple[str, ...], int] = {}

    @property
    def max_length(self) -> int | None:
        """Tokens that the model reads of a text; None is all of them."""
        return self.source.max_length

    @property
    def dim(self) -> int:
        """Numbers a vector."""
        return self._vectors.shape[1]

    def cut(self, dim: int) -> EncodedTexts:
        """Return the same texts with the first ``dim`` numbers of each vector, at length 1; nothing is encoded."""
        made = copy.copy(self)
        made._vectors = unit_vectors(self._vectors[:, :dim]).astype(np.float32)
        return made

    def encode(self, texts: Sequence[str], *, role: Role | None = None) -> NDArray[np.float32]:
        """Return the vectors of ``texts``, float32 [n, dim]; a text not given beforehand is a ``KeyError``."""
        return self._vectors[[self._row[self._keys[role], text] for text in texts]]

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Return how many of ``texts`` are longer than the model reads; counted once, however often they are cut."""
        key = tuple(texts)
        if key not in self._truncated:
            self._truncated[key] = self.source.count_truncated(texts)
        return self._truncated[key]


@dataclass(frozen=True)
class TaskResult:
    """The result of one task.

    Args:
        row: its part of report.json.
        samples: the bootstrap samples behind the interval, float64 [resamples]; None where there is no interval.
        measure_on: computes the measure again on some of the units; gives None where it is not defined there.
        cosine: the similarity of each pair, float64 [n], where the units are pairs with a score.
        gold: the score of each pair in the range of the file, float64 [n], likewise.
        also: further measures that are compared with a baseline, each with its bootstrap samples.
    """

    row: TaskRow
    samples: Floats | None
    measure_on: Callable[[Bools], float | None]
    cosine: Floats | None = None
    gold: Floats | None = None
    also: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The one number that counts."""
        return value(self.row)


class Task(Protocol):
    """An evaluation: one file of code, one YAML in ``configs/suite``."""

    needs_head: bool = False
    """Whether only a model with a classifier of pairs can do it."""

    def where(self, data_dir: Path | None) -> str:
        """Say which file is meant, found or not."""
        ...

    def locate(self, data_dir: Path | None) -> Path | None:
        """Return the file, or None where the data folder has none."""
        ...

    def read(self, data_dir: Path | None) -> Any:  # noqa: ANN401 - TaskRows, of the task's own kind
        """Return the file's rows."""
        ...

    def score(self, rows: Any, encoder: EncodedTexts, /, *, resamples: int, seed: Seed) -> TaskResult:  # noqa: ANN401
        """Return the encoder's score on the rows."""
        ...


def task_row(rows: TaskRows, encoder: TextEncoder, label: str | None, measure: str, n: int | None,
             measures: Mapping[str, Any]) -> TaskRow:
    """Return a task's row of report.json: its own ``measures``, and the keys that every task has."""
    texts = rows.texts
    return cast("TaskRow", {
        **({"label": label} if label else {}), "measure": measure, "n": n, "domains": {}, **measures,
        "truncated": int(encoder.count_truncated(texts)) if texts else None, "texts": len(texts),
        "data": {"path": rows.path, "sha256": rows.sha256}})


def mean_result(rows: TaskRows, encoder: TextEncoder, label: str | None, measure: str, values: Floats,
                measures: Mapping[str, Any], *, resamples: int, seed: Seed,
                also: Mapping[str, Floats] | None = None) -> TaskResult:
    """Return the result of a task whose number is the mean of ``values`` [n], one for each unit."""
    samples = bootstrap_mean(values, resamples=resamples, seed=seed)
    row = task_row(rows, encoder, label, measure, len(values), {
        measure: float(values.mean()), f"{measure}_ci95": list(percentile_interval(samples)), **measures})

    def mean_of(some: Bools) -> float | None:
        return float(values[some].mean()) if some.any() else None

    return TaskResult(row, samples, mean_of, also=also or {})


def finite_vectors(encoder: TextEncoder, texts: Sequence[str], path: str,
                   role: Role | None = None) -> NDArray[np.float32]:
    """Return the vectors of ``texts``, float32 [n, dim].

    Raises:
        UserError: one is not finite; the message names the first text.
    """
    made = encoder.encode(texts) if role is None else encoder.encode(texts, role=role)
    vectors = np.asarray(made, dtype=np.float32)
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise UserError(f"{path}: the model {encoder.name} gives NaN or infinite vectors for {len(broken)} of "
                        f"{len(texts)} texts, first {texts[broken[0]][:60]!r}; its weights are damaged")
    return vectors


def unit_vectors(vectors: NDArray[np.float32]) -> Floats:
    """Return ``vectors`` [n, dim] at length 1, float64; a zero vector stays zero."""
    norm = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return vectors / np.where(norm == 0, 1.0, norm)


def gain(pairs: Sequence[tuple[TaskResult, TaskResult]]) -> dict[str, Any]:
    """Return the mean difference of results now and before, with its interval and p where all have samples."""
    delta = float(np.mean([now.value - before.value for now, before in pairs]))
    samples = [now.samples - before.samples for now, before in pairs
               if now.samples is not None and before.samples is not None]
    if len(samples) < len(pairs):
        return {"delta": delta, "delta_ci95": None, "p": None}
    found = difference(delta, np.mean(samples, axis=0))
    return {"delta": delta, "delta_ci95": list(found.ci95), "p": found.p}
