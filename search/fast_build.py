"""Build the fast index of a corpus: try its kinds, measure each by live queries, keep the first that is good enough.

From `CELLS_FROM` rows on that is cells, if some of them find what the promise says and that is measured to be sooner
than a scan of all codes; else codes alone; else nothing, and every query scans the vectors. Of each kind as few cells
and candidates are taken as keep the promise.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sentence_forge.encoders.similarity import IntArray, VectorRows
from sentence_forge.search.cells import Cells, write_cells
from sentence_forge.search.codes import factory, make_codes
from sentence_forge.search.fast import CELLS_RECALL, RECALL, RECALL_AT, FastIndex, recall_at_10, sample_queries
from sentence_forge.search.learning import about_right, cells_for, learn_cells
from sentence_forge.search.steps import Steps

if TYPE_CHECKING:
    import faiss

log = logging.getLogger(__name__)

CELLS_FROM = 300_000
K_FACTORS = (20, 40, 80, 160, 320)
_CELLS_K_FACTORS = K_FACTORS[:3]
_FEWEST_PROBES = 8
MOST_TIME = 1.0  # of a query through cells, as a share of one through all codes
_TIMED = 50

About = dict[str, Any]


class Before(NamedTuple):
    """The fast index that there was, and which of its rows each new row is, int64 [n]; -1 of one that is new."""

    fast: FastIndex
    rows: IntArray


def build_fast(vectors: VectorRows, path: Path, promise: float = RECALL, before: Before | None = None,
               cells_from: int | None = None, steps: Steps | None = None) -> About | None:
    """Build the fast index of ``vectors``, write it to ``path`` and measure it.

    Args:
        vectors: float32 [n, dim], unit length; may be a memory map.
        path: where it goes.
        promise: recall@10 against the exact scan that codes must reach; cells must reach `CELLS_RECALL`.
        before: the fast index that there was. Where what it learnt still fits and keeps the promise it is kept.
        cells_from: rows from which cells are tried; by default `CELLS_FROM`.
        steps: keeps what is learnt of the same vectors in the same order, for a run that goes on from there.

    Returns:
        What the manifest keeps: ``factory``, ``k_factor``, ``recall_at_10``, the number of ``queries`` it was measured
        with; of cells also how many there are, ``cells``, how many are scanned, ``probes``, and, when they were learnt,
        the median milliseconds of a query, ``ms``, and of one that scans all codes, ``scan_ms``; of codes that were
        better than cells ``cells_tried``, the rows at which that was found: cells are tried again when there are about
        twice as many.
        None, and no file, if nothing keeps the promise: the exact scan answers then.
    """
    trial = _Trial(vectors, path, promise, steps)
    for about in _attempts(trial, before, len(vectors) >= (CELLS_FROM if cells_from is None else cells_from)):
        if about is not None:
            return about
    path.unlink(missing_ok=True)
    log.warning("fast index: recall@%d stays at %.4f, under %s; every query will scan all vectors", RECALL_AT,
                trial.recall, promise)
    return None


def _attempts(trial: _Trial, before: Before | None, cells: bool) -> Iterator[About | None]:
    """Yield what each kind of fast index comes to, the one whose queries cost least first."""
    old, tried = (None, 0) if before is None else (before.fast.codes, before.fast.cells_tried)
    if cells and before is not None and isinstance(old, Cells) and about_right(len(old.learnt.centres), trial.rows):
        yield trial.cells_again(old, before)
    if cells and not about_right(cells_for(tried), trial.rows):
        yield trial.new_cells()
        tried = trial.rows
    trial.cells_tried = tried
    if before is not None and not isinstance(old, Cells):
        yield trial.codes(old, (before.fast.k_factor,))
    yield trial.codes(None, K_FACTORS)


class _Trial:
    """Fast indexes of ``vectors``, each built in the same file and measured with the same queries."""

    def __init__(self, vectors: VectorRows, path: Path, promise: float, steps: Steps | None) -> None:
        self.rows, self.recall, self.cells_tried = len(vectors), 0.0, 0
        self._vectors, self._path, self._promise, self._steps = vectors, path, promise, steps
        self._queries, self._tenth = sample_queries(vectors)

    def codes(self, old: faiss.Index | None, k_factors: tuple[int, ...]) -> About | None:
        """Return the first k_factor with which all codes, by ``old``'s code book or a new one, keep the promise."""
        import faiss

        codes = make_codes(self._vectors, old)
        for k_factor in k_factors:
            about: About = {"factory": factory(codes.d), "k_factor": k_factor}
            if self._keeps(FastIndex(codes, self._vectors, k_factor), about):
                faiss.write_index(codes, str(self._path))
                return about | ({"cells_tried": self.cells_tried} if self.cells_tried else {})
        return None

    def new_cells(self) -> About | None:
        """Return the fewest cells and candidates that keep the promise; None where they don't, or a scan is as fast."""
        learnt = learn_cells(self._vectors, self._steps)
        write_cells(self._path, self._vectors, learnt, steps=self._steps)
        cells, probes = len(learnt.centres), _FEWEST_PROBES
        while self._cells(cells, probes, _CELLS_K_FACTORS[-1]) is None:
            probes += probes // 2
            if 2 * probes > cells:  # with more than half of them nothing would be gained
                return None
        about = next(filter(None, (self._cells(cells, probes, k) for k in _CELLS_K_FACTORS)))
        scan = FastIndex(make_codes(self._vectors), self._vectors, K_FACTORS[0])
        about["ms"], about["scan_ms"] = self._medians(FastIndex.load(self._path, self._vectors, about), scan)
        log.info("fast index %s: a query takes %.2f ms, a scan of all codes %.2f ms", about["factory"], about["ms"],
                 about["scan_ms"])
        return about if about["ms"] < MOST_TIME * about["scan_ms"] else None

    def cells_again(self, old: Cells, before: Before) -> About | None:
        """Return the same cells with the rows that there are now; None where they don't keep the promise any more."""
        known = np.where(before.rows >= 0, old.cell_of_rows()[before.rows], -1)
        write_cells(self._path, self._vectors, old.learnt, known, self._steps)
        return self._cells(len(old.learnt.centres), old.probes, before.fast.k_factor)

    def _cells(self, cells: int, probes: int, k_factor: int) -> About | None:
        """Return what the manifest says of the cells in the file; None where they don't keep the promise."""
        name = f"IVF{cells},{factory(self._vectors.shape[1])}r"
        about: About = {"factory": name, "cells": cells, "probes": probes, "k_factor": k_factor}
        return about if self._keeps(FastIndex.load(self._path, self._vectors, about), about) else None

    def _keeps(self, index: FastIndex, about: About) -> bool:
        self.recall = recall_at_10(index, self._queries, self._tenth)
        log.info("fast index %s: recall@%d %.4f at k_factor %d%s", about["factory"], RECALL_AT, self.recall,
                 about["k_factor"], f", {about['probes']} cells" if "cells" in about else "")
        about |= {"recall_at_10": self.recall, "queries": len(self._queries)}
        return self.recall >= (CELLS_RECALL if "cells" in about else self._promise)

    def _medians(self, *indexes: FastIndex) -> list[float]:
        """Return the median milliseconds of a query of each index, asked in turn."""
        taken: list[list[float]] = [[] for _ in indexes]
        for query in self._queries[:_TIMED]:
            for times, index in zip(taken, indexes, strict=True):
                begun = time.perf_counter()
                index.search(query[None], RECALL_AT)
                times.append(1000 * (time.perf_counter() - begun))
        return [round(statistics.median(times), 4) for times in taken]
