"""The rows of a generation as they lie in their file: a few are in memory whole, of many a thousand are read at a time.

Whoever shows ten hits of ten million titles needs ten of them. So a file of `LAZY_FROM` rows or more is written in
groups of `GROUP` rows, not compressed, and opened as a memory map: a title costs the reading of its group, some 0.1 ms.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, overload

from sentence_forge.data_readers.lazy import LazyStrings
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.checked import checked_columns, naming_damage, read_columns

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sentence_forge.encoders.similarity import IntArray

GROUP = 1024
LAZY_FROM = 300_000
_GROUPS_KEPT = 256


def write_rows(path: Path, tables: Iterable[pa.Table], of: int) -> None:
    """Write the file of a generation's rows: id, title, sha and the kept columns.

    Args:
        path: the file.
        tables: the rows, block after block, at least one; each block but the last of a multiple of `GROUP` rows.
        of: rows of all files of the generation, which say whether they are read a group at a time.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if of < LAZY_FROM:
        pq.write_table(pa.concat_tables(tables).combine_chunks(), path, use_dictionary=False)
        return
    left = iter(tables)
    first = next(left)
    with pq.ParquetWriter(path, first.schema, use_dictionary=False, compression="none",
                          write_statistics=False) as writer:
        for table in chain([first], left):
            writer.write_table(table, row_group_size=GROUP)


class StoredRows:
    """Columns of strings by name; safe to read from several threads. The file may be removed meanwhile: it stays open.

    Args:
        path: the file of rows.
        columns: their names.
        rows: how many rows it must hold.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged, or holds something else; where rows are read later, then.
    """

    def __init__(self, path: Path, columns: Sequence[str], rows: int) -> None:
        import pyarrow.parquet as pq

        self._path, self._columns, self._rows = path, list(columns), rows
        self._lock = threading.Lock()  # an open Parquet file is for one thread at a time
        self._table: pa.Table | None = None
        with naming_damage(path):
            file = pq.ParquetFile(path, memory_map=True)
            about = file.metadata
            groups = [about.row_group(number).num_rows for number in range(about.num_row_groups)]
        self._file: pq.ParquetFile | None = file
        if len(groups) < 2 or groups[:-1] != [GROUP] * (len(groups) - 1) or groups[-1] > GROUP:
            self._file = None  # few rows, or written by an earlier version
            self._table = read_columns(path, columns, rows)
        elif sum(groups) != rows:
            raise UserError(f"{path}: damaged, it holds {sum(groups)} rows, but the manifest says {rows}")
        self._group = lru_cache(_GROUPS_KEPT)(self._read_group)
        self._sizes = groups

    def texts(self, name: str) -> Sequence[str]:
        """Return a column as a sequence of strings that are read as they are asked for."""
        return LazyStrings(self.parts(name))

    def parts(self, name: str) -> list[Sequence[str] | pa.Array]:
        """Return a column in the parts that it is read in."""
        if self._table is not None:
            return list(self._table[name].chunks)
        return [_Cells(self, number, name, size) for number, size in enumerate(self._sizes)]

    def column(self, name: str) -> pa.ChunkedArray:
        """Return all of a column in one chunk; where rows are read as asked for, it is read anew each time."""
        if self._table is not None:
            return self._table[name]
        with self._opened() as file:
            table = file.read(columns=[name])
        return checked_columns(table, self._path, [name], self._rows)[name]

    def blocks(self, name: str) -> Iterator[pa.Array]:
        """Yield a column from the front, some hundred thousand cells at a time where rows are read as asked for."""
        if self._table is not None:
            yield from self._table[name].chunks
            return
        for start in range(0, len(self._sizes), _GROUPS_KEPT):
            groups = range(start, min(start + _GROUPS_KEPT, len(self._sizes)))
            with self._opened() as file:
                table = file.read_row_groups(list(groups), columns=[name])
            yield checked_columns(table, self._path, [name], sum(self._sizes[group] for group in groups))[name].chunk(0)

    def cells(self, group: int, name: str) -> pa.Array:
        """Return a column's cells in one group of rows."""
        return self._group(group)[name].chunk(0)

    def close(self) -> None:
        """Let go of the file, and so of the disk space of one that was removed; it can't be read afterwards."""
        with self._lock:
            self._file = None  # a reader that is closed alone still maps it
            self._group.cache_clear()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        with self._lock, naming_damage(self._path):
            if self._file is None:
                raise UserError("the index is closed; open it again")
            yield self._file

    def _read_group(self, number: int) -> pa.Table:
        with self._opened() as file:
            table = file.read_row_group(number, columns=self._columns, use_threads=False)
        return checked_columns(table, self._path, self._columns, self._sizes[number])


class ShardedRows:
    """The rows of several shards, one behind the other, read as `StoredRows` reads those of one."""

    def __init__(self, shards: Sequence[StoredRows]) -> None:
        self._shards = shards

    def texts(self, name: str) -> Sequence[str]:
        """Return a column as a sequence of strings that are read as they are asked for."""
        return LazyStrings([part for shard in self._shards for part in shard.parts(name)])

    def first(self, name: str, wanted: Sequence[str]) -> IntArray:
        """Return the first row whose cell is each of ``wanted``, int64 [len(wanted)]; -1 where there is none."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        found, start = np.full(len(wanted), -1, np.int64), 0
        for block in chain.from_iterable(shard.blocks(name) for shard in self._shards):
            places = pc.fill_null(pc.index_in(pa.array(wanted, block.type), block), -1).to_numpy()
            new = (found < 0) & (places >= 0)
            found[new] = start + places[new]
            start += len(block)
            if (found >= 0).all():
                break
        return found

    def column(self, name: str) -> pa.ChunkedArray:
        """Return all of a column in one chunk; see `StoredRows.column`."""
        import pyarrow as pa

        if len(self._shards) == 1:
            return self._shards[0].column(name)
        chunks = [chunk.cast(pa.large_string()) for shard in self._shards for chunk in shard.column(name).chunks]
        return pa.chunked_array([pa.concat_arrays(chunks)])

    def close(self) -> None:
        """Let go of the files; see `StoredRows.close`."""
        for shard in self._shards:
            shard.close()


class _Cells(Sequence[str]):
    """A column's strings in one group of rows."""

    def __init__(self, rows: StoredRows, group: int, name: str, size: int) -> None:
        self._of = (group, name)
        self._rows, self._size = rows, size

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        cells = self._rows.cells(*self._of)
        return cells[index].to_pylist() if isinstance(index, slice) else cells[index].as_py()
