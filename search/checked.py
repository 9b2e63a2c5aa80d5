"""Read rows and vectors from files that may be damaged or crafted, and check them against the manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sentence_forge.runtime.errors import UserError, damaged

if TYPE_CHECKING:
    import pyarrow as pa

HASH_BYTES = 16


def read_columns(path: Path, columns: Sequence[str], rows: int) -> pa.Table:
    """Return columns of a Parquet file (id and title: strings, sha: 16 bytes), each in one chunk without nulls.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged, or does not hold these columns with ``rows`` rows.
    """
    import pyarrow.parquet as pq

    with naming_damage(path), pq.ParquetFile(path) as file:
        table = file.read(columns=list(columns))
    return checked_columns(table, path, columns, rows)


@contextlib.contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Raise a ``UserError`` that names ``path`` where pyarrow can't read it; a missing file stays one."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, error) from None


def checked_columns(table: pa.Table, path: Path, columns: Sequence[str], rows: int) -> pa.Table:
    """Return what was read of ``path``, each column in one chunk.

    Raises:
        UserError: it is not ``rows`` rows of these columns, or a cell is null.
    """
    import pyarrow as pa

    table = table.combine_chunks()
    fits = [name in table.column_names and not table[name].null_count and table[name].type in (
        (pa.binary(HASH_BYTES),) if name == "sha" else (pa.string(), pa.large_string())) for name in columns]
    if len(table) != rows or not all(fits):
        raise UserError(f"{path}: damaged, it does not hold {rows} rows of {', '.join(columns)}")
    return table


def map_vectors(path: Path, rows: int, dim: int | None = None, dtype: type[np.floating] = np.float32) -> np.memmap:
    """Return an npy file's vectors, float32 (or ``dtype``) [rows, dim], as a memory map.

    Args:
        path: the file.
        rows: how many it must hold.
        dim: the size that they must have; None for any.
        dtype: what they must be stored as.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged, or holds something else.
    """
    try:
        vectors = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise
    except (ValueError, OSError, OverflowError, MemoryError, SyntaxError) as error:
        raise damaged(path, error) from None
    shape = (rows, vectors.shape[-1] if dim is None and vectors.ndim else dim)
    if vectors.dtype != dtype or vectors.shape != shape or not vectors.flags.c_contiguous:
        raise UserError(f"{path}: holds {vectors.dtype} {vectors.shape}, but the manifest says {np.dtype(dtype)} "
                        f"{shape}")
    return vectors
