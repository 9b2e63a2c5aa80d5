"""An index in a database, opened for searching: the same questions and answers as of one in a folder."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.encoders.similarity import FloatArray, IntArray, normalise
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.kept import conditions
from sentence_forge.search.postgres import rows
from sentence_forge.search.postgres.address import Address, connect, parse
from sentence_forge.search.postgres.errors import database_errors
from sentence_forge.search.postgres.nearest import nearest
from sentence_forge.search.postgres.tables import About, Names, find, generations
from sentence_forge.search.queries import check_k
from sentence_forge.search.text_search import Hit, Pair, TextSearch

if TYPE_CHECKING:
    import psycopg

_CONNECTIONS = 8
_PATIENCE = 15.0  # seconds to wait for a connection


class DatabaseColumns:
    """What a load has noted of the kept columns; see `search.kept.Kept`."""

    def __init__(self, about: About) -> None:
        self.names = list(about.kept)
        self._about = about.kept

    def values_of(self, column: str, most: int) -> dict[str, int]:
        """Return the ``most`` commonest values of a column, of a thousand, and in how many rows each is."""
        return {value: count for value, count in self._about[column]["values"][:most]}

    def bounds_of(self, column: str) -> tuple[str, str]:
        """Return the first and the last value of a column in the order of texts; of cells that are not empty."""
        first, last = self._about[column]["bounds"]
        return first, last


class PostgresIndex(TextSearch):
    """One generation of an index in a database; loads of its model are seen by the next `reading`.

    Made by `open_index`. Safe to search from several threads. Rows are known by the numbers in the tables' column
    ``row``: of equal scores the row that was loaded first comes first.
    """

    def __init__(self, address: Address, names: Names, about: About, export: Path,
                 encoder: TextEncoder | None) -> None:
        from psycopg import IsolationLevel
        from psycopg_pool import ConnectionPool

        def configure(connection: psycopg.Connection[Any]) -> None:
            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            connection.read_only = True

        super().__init__(address.shown, export, about.fingerprint, encoder)
        self._names, self._generation = names, about.generation
        self._known = (about, DatabaseColumns(about))
        self._here = threading.local()  # .connection: that of this thread's block of `reading`
        self._closed = False
        self._pool = ConnectionPool(address.conninfo, min_size=0, max_size=_CONNECTIONS, timeout=_PATIENCE, open=True,
                                    configure=configure, check=ConnectionPool.check_connection, max_idle=60)

    @classmethod
    def open(cls, text: str, encoder: TextEncoder | None = None, *, model: str | None = None,
             generation: int | None = None) -> Self:
        """Open a generation of the index at an address; see `open_index`."""
        address = parse(text)
        with connect(address) as connection, database_errors(address.shown):
            names = find(connection, address)
            every = {each.generation: each for each in generations(connection, names)}
        current = next((each.generation for each in every.values() if each.current), None)
        wanted = current if generation is None else generation
        if wanted is None:
            raise UserError(f"{address.shown}: no load of this index has ended yet")
        if wanted not in every:
            raise UserError(f"{address.shown}: has no generation {wanted}; there are {', '.join(map(str, every))}")
        about = every[wanted]
        return cls(address, names, about, Path(about.model if model is None else model), encoder)

    @property
    def generation(self) -> int:
        """The number of the generation: of the model that made its vectors."""
        return self._generation

    @property
    def state(self) -> tuple[int, int]:
        """The generation's number and how many loads have changed it."""
        return self._generation, self._about.loads

    @property
    def kept(self) -> DatabaseColumns:  # type: ignore[override]
        """The kept columns; the same object until the rows change."""
        return getattr(self._here, "known", self._known)[1]

    @property
    def encoder(self) -> TextEncoder:
        """The encoder of the queries, loaded at first use."""
        if self._encoder is None and not (self.export / "manifest.json").is_file():
            raise UserError(f"{self.place}: its model is not in {self.export} on this machine; give the export's "
                            "folder as --model")
        return super().encoder

    @property
    def repeated_rows(self) -> int:
        """How many rows have a title that an earlier row has."""
        return self._about.rows - self._about.titles

    def __len__(self) -> int:
        return self._about.rows

    @property
    def _about(self) -> About:
        return getattr(self._here, "known", self._known)[0]

    def newest(self) -> int:
        """Return the number of the current generation, which may be another than this one."""
        self.check_open()
        with database_errors(self.place), self._pool.connection() as connection:  # this one may be gone by now
            return next((each.generation for each in generations(connection, self._names) if each.current), 0)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Self]:
        """Read one state of the rows until the block ends: all of it is one transaction of the database."""
        if getattr(self._here, "connection", None) is not None:
            yield self
            return
        self.check_open()
        with database_errors(self.place), self._pool.connection() as connection:
            self._here.connection = connection
            try:
                self._take_up(connection)
                yield self
            finally:
                del self._here.connection
                self._here.__dict__.pop("known", None)

    def prepare(self, *, exact: bool = False, dim: int | None = None) -> None:
        """Load the encoder and connect now."""
        _ = self.encoder
        with self.reading():
            pass

    def search_vectors(self, queries: npt.NDArray[np.floating], k: int = 10, *, exact: bool = False,
                       dim: int | None = None, where: Sequence[str] = ()) -> tuple[FloatArray, IntArray]:
        """Return the scores and numbers of the ``k`` nearest rows of each query vector; see `Index.search_vectors`."""
        queries = normalise(np.atleast_2d(np.asarray(queries)))
        check_k(k)
        with self.reading():
            about = self._about
            if queries.shape[1] != about.dim:
                raise UserError(f"query vectors: shape {queries.shape}, but the index holds {about.dim} dimensions")
            if dim is not None and not 1 <= dim <= about.dim:
                raise UserError(f"dim {dim}: the index's vectors have {about.dim} numbers; give 1 to {about.dim}")
            if dim is not None:
                queries = normalise(queries[:, :dim])
            found = [nearest(self._connection, self._names, about, query, k, ef=None if exact else about.ef_search,
                             dim=dim, where=conditions(where, self.kept.names)) for query in queries]
        shape = (len(queries), min(map(len, (rows for _, rows in found)), default=0))
        return (np.array([scores for scores, _ in found], np.float32).reshape(shape),
                np.array([rows for _, rows in found], np.int64).reshape(shape))

    def hits(self, scores: FloatArray, positions: IntArray) -> list[list[Hit]]:
        """Return the hits for what `search_vectors` returned in the same block of `reading`."""
        with self.reading():
            of = rows.by_number(self._connection, self._names, self._generation, positions.ravel())
            names = self.kept.names
        return [[Hit(rank, float(score), of[row][0], of[row][1],
                     {name: of[row][2][name] for name in names if name in of[row][2]})
                 for rank, (score, row) in enumerate(zip(*found, strict=True), start=1)]
                for found in zip(scores, positions.tolist(), strict=True)]

    def titles_of(self, rows_: Sequence[int] | IntArray) -> list[str]:
        """Return the titles of rows."""
        with self.reading():
            of = rows.by_number(self._connection, self._names, self._generation, rows_)
        return [of[int(row)][1] for row in rows_]

    def vectors_of(self, rows_: Sequence[int] | IntArray) -> FloatArray:
        """Return the vectors of rows, float32 [len(rows), dim], unit length."""
        with self.reading():
            return rows.vectors(self._connection, self._names, self._about, rows_)

    def row_of(self, name: str) -> int | None:
        """Return the row whose id is ``name``, or None."""
        with self.reading():
            return rows.of_id(self._connection, self._names, self._generation, name)

    def rows_of(self, texts: Sequence[str]) -> IntArray:
        """Return the first row whose title is each of ``texts``, int64 [len(texts)]; -1 where there is none."""
        with self.reading():
            return rows.of_texts(self._connection, self._names, self._generation, texts)

    def count_where(self, where: Sequence[str]) -> int:
        """Return how many rows meet all conditions."""
        with self.reading():
            return rows.count(self._connection, self._names, self._about, conditions(where, self.kept.names))

    def drawn(self, count: int, seed: int | None = None) -> list[tuple[str, str]]:
        """Return ids and titles of at most ``count`` rows drawn by chance, others each time without ``seed``."""
        with self.reading():
            return rows.drawn(self._connection, self._names, self._generation, count, seed)

    def pairs(self, k: int = 10, *, repeats: bool = False, check: Callable[[], None] = lambda: None) -> list[Pair]:
        """Return the ``k`` most similar pairs of rows, each once, best first; see `Index.pairs`."""
        check_k(k)
        with self.reading():
            return rows.pairs(self._connection, self._names, self._about, k, repeats=repeats, check=check)

    def check_open(self) -> None:
        """Raise a UserError where the index is closed."""
        if self._closed:
            raise UserError("the index is closed; open it again")

    def close(self) -> None:
        """Close the connections; the index can't be searched afterwards."""
        self._closed = True
        self._pool.close()

    @property
    def _connection(self) -> psycopg.Connection[Any]:
        return self._here.connection

    def _take_up(self, connection: psycopg.Connection[Any]) -> None:
        """Begin the transaction, and know its rows' counts and kept columns from now on."""
        about, columns = self._known
        loads = rows.loads(connection, self._names, self._generation, self.fingerprint)
        if loads is None:
            raise UserError(f"{self.place}: generation {self._generation} was removed meanwhile; open the index again")
        if loads != about.loads:
            about = next(each for each in generations(connection, self._names) if each.generation == self._generation)
            columns = DatabaseColumns(about)
            self._known = (about, columns)
        self._here.known = (about, columns)
