"""An index opened for searching: texts or vectors in, ranked rows out."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.encoders.similarity import FloatArray, IntArray, VectorRows, cosine_top_k, normalise
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.fast import FastIndex
from sentence_forge.search.generation import NO_INDEX, Generation, index_folder, marks_folder, newest, numbers
from sentence_forge.search.kept import Kept
from sentence_forge.search.pairs import most_similar_pairs
from sentence_forge.search.queries import check_k
from sentence_forge.search.sharded import ShardedIndex, load_fast
from sentence_forge.search.stored import ShardedRows, StoredRows
from sentence_forge.search.text_search import Hit, Pair, TextSearch
from sentence_forge.search.vectors import as_read, joined, shortened

_OPEN_ATTEMPTS = 100


class Index(TextSearch):
    """An index, open for searching; it stays as it is while a newer generation is written.

    Made by `Index.open`. Safe to search from several threads.

    >>> index = Index.open("news")                                          # doctest: +SKIP
    >>> index.search(["winter air in Beijing"], k=3)[0][0].title            # doctest: +SKIP
    """

    def __init__(self, generation: Generation, export: Path, encoder: TextEncoder | None) -> None:
        super().__init__(str(generation.folder), export, generation.manifest["fingerprint"], encoder)
        self._generation, self._shards = generation, generation.shards
        count, kept = generation.manifest["rows"], dict(zip(generation.kept, generation.kept_columns, strict=True))
        rows = self._rows = ShardedRows([StoredRows(shard.rows, ["id", "title", *kept.values()], shard.count)
                                         for shard in self._shards])
        self.kept: Kept = Kept({name: self._rows.texts(column) for name, column in kept.items()},
                               lambda name: rows.column(kept[name]), count)
        self.ids: Sequence[str] = self._rows.texts("id")
        self.titles: Sequence[str] = self._rows.texts("title")
        self._parts = [as_read(shard.map_vectors(generation.manifest["dim"])) for shard in self._shards]
        self.vectors: VectorRows = joined(self._parts)
        self._dim = self.vectors.shape[1]
        # By the time they are needed, a writer may have removed the files.
        self._opened = [(shard.map_fast(), shard.open_single()) for shard in self._shards]
        self._cut: FloatArray | None = None

    @classmethod
    def open(cls, folder: str | Path, encoder: TextEncoder | None = None) -> Self:
        """Open the newest intact generation of an index.

        Args:
            folder: an export's output folder, or the ``index`` folder in it.
            encoder: encodes the queries; by default the export's own, loaded when the first text is searched.

        Raises:
            UserError: there is no index here, no generation of it is intact, or ``encoder`` isn't the one that made it.
        """
        if not isinstance(folder, str | os.PathLike):
            raise UserError(f"folder: takes an export's folder, not {folder!r}")
        index = index_folder(folder)
        for _ in range(_OPEN_ATTEMPTS):
            generation = newest(index)
            if generation is None:
                raise UserError(f"{folder}: {NO_INDEX}")
            try:
                return cls(generation, index.parent, encoder)
            except FileNotFoundError:
                continue  # a writer went on by two generations between our reading the manifest and opening its files
        raise UserError(f"{folder}: is replaced again and again as it is opened; try again")

    @property
    def generation(self) -> int:
        """The number of this state of the index; each re-indexing makes the next one."""
        return self._generation.number

    @property
    def state(self) -> tuple[int, int]:
        """The generation's number."""
        return self.generation, 0

    @property
    def marks_folder(self) -> Path:
        """The export's folder, or the index's own where it is in none."""
        return marks_folder(self._generation.folder)

    def newest(self) -> int:
        """Return the number of the newest generation in the folder, intact or not."""
        return max(numbers(self._generation.folder), default=0)

    def __len__(self) -> int:
        return len(self.ids)

    def prepare(self, *, exact: bool = False, dim: int | None = None) -> None:
        """Load now instead of at the first query: the encoder and, unless ``exact`` or cut, the fast index."""
        if dim is not None:
            self.cut(dim)
        _ = self.encoder
        if not exact and dim is None:
            _ = self.fast

    def cut(self, dim: int) -> FloatArray:
        """Return the first ``dim`` numbers of each vector, at length 1, float32 [rows, dim]; the last cut is cached.

        Raises:
            UserError: ``dim`` is below 1 or above the index's, or nothing is left of a vector.
        """
        if not 1 <= dim <= self._dim:
            raise UserError(f"dim {dim}: the index's vectors have {self._dim} numbers; give 1 to {self._dim}")
        cut = self._cut  # another thread may store another
        if cut is None or cut.shape[1] != dim:
            cut = self._cut = shortened(self.vectors, dim)
        return cut

    def search_vectors(self, queries: npt.NDArray[np.floating], k: int = 10, *, exact: bool = False,
                       dim: int | None = None, where: Sequence[str] = ()) -> tuple[FloatArray, IntArray]:
        """Return the ``k`` nearest rows of each query vector.

        Args:
            queries: floating [q, dim], or [dim] for one; of any length but zero.
            k: hits a query; more than there are rows gives all rows.
            exact: scan every vector: what ``sentence_transformers.util.semantic_search`` returns, to 1e-6.
            dim: compare the first ``dim`` numbers of the vectors alone, each cut brought to length 1, by scanning all
                of them: for models trained to be cut (Matryoshka).
            where: conditions on kept columns, such as ``source=x`` and ``date>=2026-01-01``: only rows that meet all of
                them are compared, each of them; see `search.kept`.

        Returns:
            scores, float32 [q, min(k, rows)], falling; positions in ``ids``, ``titles`` and ``vectors``, int64, alike.

        Raises:
            UserError: k below 1, vectors of another dimension, or one that is zero or not finite; ``dim`` as `cut`.
        """
        queries = np.atleast_2d(np.asarray(queries))
        check_k(k)
        self.check_open()
        if queries.ndim != 2 or queries.shape[1] != self._dim:
            raise UserError(f"query vectors: shape {queries.shape}, but the index holds {self._dim} dimensions")
        rows = self.kept.rows_where(where) if where else None
        if dim is not None:
            return cosine_top_k(self.cut(dim), queries[:, :dim], k, rows=rows)
        if rows is not None:
            return cosine_top_k(self.vectors, queries, k, rows=rows)
        fast = None if exact else self.fast
        if fast is None or fast.candidates(k) >= len(self.vectors):
            return cosine_top_k(self.vectors, queries, k)
        return fast.search(normalise(queries), k)

    @functools.cached_property
    def fast(self) -> FastIndex | ShardedIndex | None:
        """The fast index, loaded at first use; None where the exact scan answers."""
        return load_fast(self._shards, self._parts, self._opened)

    def hits(self, scores: FloatArray, positions: IntArray) -> list[list[Hit]]:
        """Return the hits for the scores and positions that `search_vectors` returned."""
        return [[Hit(rank, float(score), self.ids[row], self.titles[row], self.kept.of_row(row))
                 for rank, (score, row) in enumerate(zip(*found, strict=True), start=1)]
                for found in zip(scores, positions, strict=True)]

    def pairs(self, k: int = 10, *, repeats: bool = False, check: Callable[[], None] = lambda: None) -> list[Pair]:
        """Return the ``k`` most similar pairs of rows, each once, best first.

        Exact up to 50,000 titles; of more, those with distant neighbourhoods are not compared (see `search.pairs`).

        Args:
            k: how many; more than there are gives all.
            repeats: also pair rows with equal titles. Otherwise only the first row of each title is paired, so that the
                pairs are near-duplicates rather than duplicates.
            check: called again and again meanwhile; what it raises ends the search.

        Raises:
            UserError: k below 1.
        """
        check_k(k)
        self.check_open()
        rows = np.arange(len(self.vectors)) if repeats else self._first_rows()
        scores, left, right = most_similar_pairs(self.vectors, rows, k, check=check)
        return [Pair(float(score), self.ids[i], self.titles[i], self.ids[j], self.titles[j])
                for score, i, j in zip(scores, left, right, strict=True)]

    def rows_of(self, texts: Sequence[str]) -> IntArray:
        """Return the first row whose title is each of ``texts``, int64 [len(texts)]; -1 where there is none."""
        return self._rows.first("title", texts)

    def row_of(self, name: str) -> int | None:
        """Return the row whose id is ``name``, or None."""
        row = int(self._rows.first("id", [name])[0])
        return None if row < 0 else row

    def titles_of(self, rows: Sequence[int] | IntArray) -> list[str]:
        """Return the titles of rows."""
        return [self.titles[row] for row in rows]

    def vectors_of(self, rows: Sequence[int] | IntArray) -> FloatArray:
        """Return the vectors of rows, float32 [len(rows), dim], unit length."""
        return self.vectors[np.asarray(rows)]

    def count_where(self, where: Sequence[str]) -> int:
        """Return how many rows meet all conditions."""
        return len(self.kept.rows_where(where))

    def drawn(self, count: int, seed: int | None = None) -> list[tuple[str, str]]:
        """Return ids and titles of at most ``count`` rows drawn by chance, others each time without ``seed``."""
        rows = sorted(random.Random(seed).sample(range(len(self)), min(count, len(self))))
        return [(self.ids[row], self.titles[row]) for row in rows]

    @property
    def repeated_rows(self) -> int:
        """How many rows have a title that an earlier row has."""
        return len(self.titles) - self._generation.manifest["distinct"]

    def _first_rows(self) -> IntArray:
        """Return the first row of each distinct title, ascending."""
        import pyarrow.compute as pc

        codes = pc.dictionary_encode(self._rows.column("title").chunk(0)).indices.to_numpy()
        return np.sort(np.unique(codes, return_index=True)[1])

    def check_open(self) -> None:
        """Raise a UserError where the index is closed."""
        if not self._parts:
            raise UserError("the index is closed; open it again")

    def close(self) -> None:
        """Let go of the mapped files; the index can't be searched afterwards."""
        self._cut = self.__dict__["fast"] = None
        self._parts, self._opened = [], []
        self.__dict__.pop("vectors", None)
        self._rows.close()
