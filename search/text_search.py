"""Searching by text, wherever the vectors are kept: queries are encoded by the model that made the index."""

from __future__ import annotations

import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from sentence_forge.encoders.fingerprint import BY_OPENVINO, query_fingerprint
from sentence_forge.encoders.protocol import Role, TextEncoder
from sentence_forge.encoders.similarity import FloatArray, IntArray, bad_row, normalise
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.encoder import check_fingerprint, load_query_encoder
from sentence_forge.search.queries import check_k, check_text, check_texts
from sentence_forge.search.thresholds import Thresholds, read_thresholds


class Hit(NamedTuple):
    """One row found: rank from 1, cosine, what the corpus calls it, and the corpus's other columns that were kept."""

    rank: int
    score: float
    id: str
    title: str
    columns: Mapping[str, str] = {}

    def as_json(self) -> dict[str, Any]:
        """Return what JSON holds of it; ``columns`` only where the index keeps some."""
        return {name: value for name, value in self._asdict().items() if name != "columns"} | (
            {"columns": dict(self.columns)} if self.columns else {})


class Pair(NamedTuple):
    """Two rows and their cosine; the first is the earlier one in the corpus."""

    score: float
    id1: str
    title1: str
    id2: str
    title2: str


class KeptColumns(Protocol):
    """The corpus's further columns that an index keeps."""

    names: list[str]

    def __hash__(self) -> int: ...

    def values_of(self, column: str, most: int) -> dict[str, int]:
        """Return the ``most`` commonest values of a column, and in how many rows each is."""

    def bounds_of(self, column: str) -> tuple[str, str]:
        """Return the first and the last value of a column in the order of texts; of cells that are not empty."""


class TextSearch(ABC):
    """An index that texts are searched in; subclasses say where its vectors lie and how the nearest are found.

    Rows are known by numbers, which hold as long as a block of `reading` lasts. ``len`` is how many there are.

    Args:
        place: where the index is, for people; without a password.
        export: the export's output folder, which holds the encoder of the queries.
        fingerprint: that of the encoder that made the vectors.
        encoder: encodes the queries; by default the export's own, loaded when the first text is searched.

    Raises:
        UserError: ``encoder`` isn't the one that made the index.
    """

    kept: KeptColumns

    def __init__(self, place: str, export: Path, fingerprint: str, encoder: TextEncoder | None) -> None:
        self.place, self.export = place, export
        self.fingerprint = fingerprint
        """The fingerprint of the encoder that made the vectors."""
        self._encoder: TextEncoder | None = None
        if encoder is not None:
            self.use(encoder)

    @property
    def marks_folder(self) -> Path:
        """Where the marks that people give its hits are."""
        return self.export

    @property
    @abstractmethod
    def generation(self) -> int:
        """The number of what is searched; see `newest`."""

    @property
    @abstractmethod
    def state(self) -> tuple[int, int]:
        """Numbers that are others after each change of the rows."""

    @abstractmethod
    def newest(self) -> int:
        """Return the number of the generation that who opens the index now would search."""

    @contextlib.contextmanager
    def reading(self) -> Iterator[Self]:
        """Read one and the same state of the rows until the block ends, whatever a writer does meanwhile."""
        yield self

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def prepare(self, *, exact: bool = False, dim: int | None = None) -> None:
        """Load now what the first query would."""

    @property
    def encoder(self) -> TextEncoder:
        """The encoder of the queries, loaded at first use."""
        if self._encoder is None:
            self.use(load_query_encoder(self.export, query_fingerprint(self.fingerprint)))
        assert self._encoder is not None
        return self._encoder

    @functools.cached_property
    def thresholds(self) -> Thresholds | None:
        """From which cosine texts mean the same, as the export found; None where it says nothing of this model."""
        return read_thresholds(self.export, self.fingerprint)

    @functools.cached_property
    def asymmetric(self) -> bool:
        """Whether a query is encoded otherwise than a document; False where there is no encoder to ask."""
        if self._encoder is None and not (self.export / "manifest.json").is_file():
            return False
        return self.encoder.role_key("query") != self.encoder.role_key("document")

    def use(self, encoder: TextEncoder) -> None:
        """Encode queries by this encoder.

        Raises:
            UserError: it isn't the one that made the index.
        """
        check_fingerprint(self.place, query_fingerprint(self.fingerprint),
                          encoder.fingerprint.removesuffix(BY_OPENVINO))  # in fp32 the same vectors
        self._encoder = encoder

    def encode(self, texts: Sequence[str], role: Role = "query") -> FloatArray:
        """Return the unit vectors of queries, float32 [len(texts), dim]; or of documents, as the index holds them.

        Raises:
            UserError: a text that is empty or no valid Unicode, or whose vector is zero or not finite.
        """
        for text in texts:
            check_text(text, role)
        vectors = self.encoder.encode(list(texts), role=role)
        bad = bad_row(vectors)
        if bad is not None:
            raise UserError(f"{role}: the vector of {texts[bad[0]][:80]!r} {bad[1]}; the model can't encode it")
        return normalise(vectors)

    def search(self, texts: Sequence[str], k: int = 10, *, exact: bool = False,
               dim: int | None = None, where: Sequence[str] = ()) -> list[list[Hit]]:
        """Return the ``k`` nearest rows of each text, best first.

        Args:
            texts: the queries.
            k: hits a query; more than there are rows gives all rows.
            exact: scan every vector instead of asking the fast index.
            dim: as `search_vectors` takes it.
            where: as `search_vectors` takes it.

        Raises:
            UserError: as `encode` and `search_vectors`.
        """
        check_texts(texts)
        check_k(k)
        self.check_open()
        if not texts:
            return []
        vectors = self.encode(texts)
        with self.reading():
            return self.hits(*self.search_vectors(vectors, k, exact=exact, dim=dim, where=where))

    @abstractmethod
    def search_vectors(self, queries: npt.NDArray[np.floating], k: int = 10, *, exact: bool = False,
                       dim: int | None = None, where: Sequence[str] = ()) -> tuple[FloatArray, IntArray]:
        """Return the cosines and the places of the ``k`` nearest rows of each query vector; see `Index`."""

    @abstractmethod
    def hits(self, scores: FloatArray, positions: IntArray) -> list[list[Hit]]:
        """Return the hits for the scores and positions that `search_vectors` returned."""

    @abstractmethod
    def check_open(self) -> None:
        """Refuse an index that is closed.

        Raises:
            UserError: it is.
        """

    @abstractmethod
    def titles_of(self, rows: Sequence[int] | IntArray) -> list[str]:
        """Return the titles of rows."""

    @abstractmethod
    def vectors_of(self, rows: Sequence[int] | IntArray) -> FloatArray:
        """Return the vectors of rows, float32 [len(rows), dim], unit length."""

    @abstractmethod
    def row_of(self, name: str) -> int | None:
        """Return the row whose id is ``name``, or None."""

    @abstractmethod
    def rows_of(self, texts: Sequence[str]) -> IntArray:
        """Return the first row whose title is each of ``texts``, int64 [len(texts)]; -1 where there is none."""

    @abstractmethod
    def count_where(self, where: Sequence[str]) -> int:
        """Return how many rows meet all conditions."""

    @abstractmethod
    def drawn(self, count: int, seed: int | None = None) -> list[tuple[str, str]]:
        """Return ids and titles of at most ``count`` rows drawn by chance, others each time without ``seed``."""

    @abstractmethod
    def pairs(self, k: int = 10, *, repeats: bool = False, check: Callable[[], None] = lambda: None) -> list[Pair]:
        """Return the ``k`` most similar pairs of rows, each once, best first; see `Index`."""

    @property
    @abstractmethod
    def repeated_rows(self) -> int:
        """How many rows have a title that an earlier row has."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections; the index can't be searched afterwards."""

    def __enter__(self) -> Self:
        """Return the index itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Close it."""
        self.close()
