"""One thread that encodes and searches for all requests: those that arrive together are encoded together."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from starlette.exceptions import HTTPException

from sentence_forge.encoders.protocol import Role
from sentence_forge.encoders.similarity import FloatArray, IntArray, bad_row, normalise
from sentence_forge.search.serve.live import LiveIndex
from sentence_forge.search.serve.meters import Meters
from sentence_forge.search.text_search import Hit, TextSearch
from sentence_forge.search.thresholds import Thresholds

log = logging.getLogger(__name__)

CACHED = 10_000  # vectors of texts
MOST_WAITING = 512  # jobs; more are refused, so that a flood costs no memory
WINDOW = 0.002  # seconds in which jobs are gathered while several come at once
_TEXTS_A_BATCH = 64
ALIKE = 0.93  # hits are folded from this cosine where the export calibrated none


class Encoded(NamedTuple):
    """Unit vectors of texts, float32 [n, dim], and how many tokens the model read of them."""

    vectors: FloatArray
    tokens: int


class Found(NamedTuple):
    """What a query found.

    Args:
        hits: best first.
        under: for each hit the place of an earlier one that it nearly repeats, or its own.
        generation: of the index that was searched.
        rows: of that index.
        thresholds: from which cosine texts mean the same; None where the index doesn't know.
    """

    hits: list[Hit]
    under: list[int]
    generation: int
    rows: int
    thresholds: Thresholds | None


@dataclass(eq=False)
class _Job:
    """Texts to encode in a ``role`` or their vectors, float32 [n, dim]; searched where ``k`` is a number."""

    texts: Sequence[str]
    role: Role | None = "query"
    vectors: FloatArray | None = None
    k: int | None = None
    exact: bool = False
    where: tuple[str, ...] = ()
    vector_future: Future[Encoded] = field(default_factory=Future)
    future: Future[list[Found]] = field(default_factory=Future)

    @property
    def result(self) -> Future[Encoded] | Future[list[Found]]:
        """What the caller waits for."""
        return self.vector_future if self.k is None else self.future


class Searcher:
    """Encodes and searches in a thread of its own.

    Args:
        live: the index.
        meters: where batches and cached texts are counted.
    """

    def __init__(self, live: LiveIndex, meters: Meters) -> None:
        self._live = live
        self._meters = meters
        self._jobs: queue.Queue[_Job | None] = queue.Queue(MOST_WAITING)
        self._cache: OrderedDict[bytes, FloatArray] = OrderedDict()
        self._several = False
        self._thread = threading.Thread(target=self._work, name="searcher", daemon=True)
        self._thread.start()

    def encode(self, texts: Sequence[str], role: Role | None) -> Future[Encoded]:
        """Return, once they are there, the texts' vectors.

        Raises:
            HTTPException: too many requests are waiting; in the future: the model can't encode one of the texts.
        """
        job = _Job(texts, role)
        self._put(job)
        return job.vector_future

    def search(self, texts: Sequence[str], k: int, *, vectors: FloatArray | None = None,
               exact: bool = False, where: Sequence[str] = ()) -> Future[list[Found]]:
        """Return, once it is there, what each text finds.

        Args:
            texts: the queries.
            k: hits a query.
            vectors: of the queries, float32 [len(texts), dim], if they are known.
            exact: scan every vector.
            where: conditions on kept columns.

        Raises:
            HTTPException: as `encode`.
        """
        job = _Job(texts, vectors=vectors, k=k, exact=exact, where=tuple(where))
        self._put(job)
        return job.future

    def close(self) -> None:
        """Finish what is waiting and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _put(self, job: _Job) -> None:
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise HTTPException(503, "too many requests are waiting; try again in a second") from None

    def _work(self) -> None:
        while (first := self._jobs.get()) is not None:
            jobs, ended = self._gather(first)
            jobs = [job for job in jobs if job.result.set_running_or_notify_cancel()]
            try:
                self._answer(jobs)
            except Exception:
                for job in jobs:  # one by one: only the one to blame fails
                    try:
                        self._answer([job])
                    except Exception as error:
                        job.result.set_exception(error)
            if ended:
                return

    def _gather(self, first: _Job) -> tuple[list[_Job], bool]:
        """Return the jobs to do together, and whether the thread is to end then.

        Only where jobs came together a moment ago is it worth to wait for more.
        """
        jobs, texts = [first], len(first.texts)
        until = time.monotonic() + (WINDOW if self._several else 0)
        while texts < _TEXTS_A_BATCH:
            left = until - time.monotonic()
            try:
                job = self._jobs.get(timeout=left) if left > 0 else self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return jobs, True
            jobs.append(job)
            texts += len(job.texts)
        self._several = len(jobs) > 1
        return jobs, False

    def _answer(self, jobs: Sequence[_Job]) -> None:
        self._meters.add("batches")
        self._meters.add("batched_requests", by=len(jobs))
        with self._live.reading() as index:
            vectors = self._vectors(index, jobs)
            found = self._found(index, jobs, vectors)
            tokens = [index.encoder.count_tokens(job.texts, role=job.role) if job.k is None else 0 for job in jobs]
        for job, made, read, hits in zip(jobs, vectors, tokens, found, strict=True):
            if job.k is None:
                job.vector_future.set_result(Encoded(made, read))
            else:
                job.future.set_result(hits)

    def _vectors(self, index: TextSearch, jobs: Sequence[_Job]) -> list[FloatArray]:
        """Return each job's vectors, from the cache where they are in it."""
        by_role: dict[Role | None, dict[str, FloatArray | None]] = defaultdict(dict)
        for job in jobs:
            if job.vectors is None:
                by_role[job.role] |= dict.fromkeys(job.texts)
        for role, texts in by_role.items():
            for text in texts:
                texts[text] = self._cached(_key(index.fingerprint, role, text))
            missing = [text for text, vector in texts.items() if vector is None]
            self._meters.add("texts", 'from="cache"', len(texts) - len(missing))
            self._meters.add("texts", 'from="model"', len(missing))
            if missing:
                made = index.encoder.encode(missing, role=role)
                if bad_row(made) is not None:
                    raise HTTPException(422, "the model can't encode this text: it finds no word in it")
                for text, vector in zip(missing, normalise(made), strict=True):
                    texts[text] = self._cache[_key(index.fingerprint, role, text)] = vector.copy()  # not its batch
            while len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        return [np.stack([by_role[job.role][text] for text in job.texts]) if job.vectors is None  # type: ignore[misc]
                else job.vectors for job in jobs]

    def _cached(self, key: bytes) -> FloatArray | None:
        vector = self._cache.get(key)
        if vector is not None:
            self._cache.move_to_end(key)
        return vector

    def _found(self, index: TextSearch, jobs: Sequence[_Job], vectors: Sequence[FloatArray]) -> list[list[Found]]:
        """Return what each job's vectors find; those that ask for as many hits are searched together."""
        alike: dict[tuple[int, bool, tuple[str, ...]], list[int]] = defaultdict(list)
        for number, job in enumerate(jobs):
            if job.k is not None:
                alike[job.k, job.exact, job.where].append(number)
        found: list[list[Found]] = [[] for _ in jobs]
        for (k, exact, where), numbers in alike.items():
            scores, rows = index.search_vectors(np.concatenate([vectors[number] for number in numbers]), k, exact=exact,
                                                where=where)
            hits = [Found(hits, folded(index, near), index.generation, len(index), index.thresholds)
                    for hits, near in zip(index.hits(scores, rows), rows, strict=True)]
            start = 0
            for number in numbers:
                found[number] = hits[start:start + len(vectors[number])]
                start += len(vectors[number])
        return found


def _key(fingerprint: str, role: Role | None, text: str) -> bytes:
    """Return what the cache knows a text by: no text itself, for 10,000 of 50,000 characters are up to 2 GB."""
    return hashlib.sha256(f"{fingerprint} {role} {text}".encode()).digest()


def folded(index: TextSearch, rows: IntArray) -> list[int]:
    """Return for each of ``rows`` (int64 [n]) the place of the first of them that it nearly repeats, or its own place.

    From the cosine on that the export calibrated as ``same``, or `ALIKE`, whichever is higher.
    """
    if not len(rows):
        return []
    least = ALIKE if index.thresholds is None else max(ALIKE, index.thresholds.same)
    vectors = index.vectors_of(rows)
    near = vectors @ vectors.T >= least - 1e-6
    under: list[int] = []
    for place in range(len(rows)):
        first = next((each for each in range(place) if under[each] == each and near[each, place]), place)
        under.append(first)
    return under
