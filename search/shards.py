"""A shard: so many consecutive rows of a generation, with their vectors and, where it pays, a fast index.

A generation of up to `SHARD_ROWS` rows has one: ten million, which is as far as was measured (RESULTS.md). Shards are
written and searched one by one, so that no file grows without end and the machines of a cluster can write them side by
side. Three of a million rows each are the most of several that were measured.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sentence_forge.encoders.similarity import VectorRows
from sentence_forge.search.checked import map_vectors, read_columns
from sentence_forge.search.vectors import RowFile, Vectors

if TYPE_CHECKING:
    import pyarrow as pa

SHARD_ROWS = 10_000_000
SINGLE_FROM = 2**31  # bytes


@dataclass(frozen=True)
class Shard:
    """The files of a shard, there or not yet.

    Args:
        folder: the index.
        name: of its files: the generation's number, and behind a dot its own where there are several.
        count: its rows.
        about: what the manifest says of its fast index; None where the exact scan answers.
        half: whether its vectors are stored as float16.
        attempt: a number in the names of what a machine of a cluster writes, so that one that was taken for dead and
            goes on writes to files that no manifest names.
    """

    folder: Path
    name: str
    count: int
    about: Mapping[str, Any] | None = None
    half: bool = False
    attempt: int | None = None

    @property
    def rows(self) -> Path:
        """The file of id (string), title (string), sha (16 bytes) and the kept columns."""
        return self.folder / f"rows-{self.name}.parquet"

    @property
    def vectors(self) -> Path:
        """The file of unit vectors, float32 or float16 [count, dim]."""
        return self.folder / f"vectors-{self._attempted}.npy"

    @property
    def fast(self) -> Path:
        """The file of the fast index."""
        return self.folder / f"index-{self._attempted}.faiss"

    @property
    def _attempted(self) -> str:
        return self.name if self.attempt is None else f"{self.name}.{self.attempt}"

    @property
    def files(self) -> list[Path]:
        """All three, there or not."""
        return [self.rows, self.vectors, self.fast]

    def read_rows(self, columns: Sequence[str]) -> pa.Table:
        """Return columns of the rows; see `search.checked.read_columns`."""
        return read_columns(self.rows, columns, self.count)

    def map_vectors(self, dim: int | None = None) -> VectorRows:
        """Return the vectors as they are read, float32 [count, dim]; see `search.checked.map_vectors`."""
        found = self._mapped(dim)
        return Vectors([found]) if self.half else found

    def _mapped(self, dim: int | None) -> np.memmap:
        return map_vectors(self.vectors, self.count, dim, np.float16 if self.half else np.float32)

    def open_single(self) -> RowFile | None:
        """Return the vectors of a large file to read single rows from; those of a small one are as good mapped."""
        if self.vectors.stat().st_size < SINGLE_FROM or not hasattr(os, "preadv"):
            return None
        return RowFile(self.vectors, self._mapped(None))

    def map_fast(self) -> npt.NDArray[np.uint8] | None:
        """Return the bytes of the fast index as a memory map; None where the exact scan answers."""
        if self.about is None:
            return None
        return np.memmap(self.fast, np.uint8, "r") if self.fast.stat().st_size else np.empty(0, np.uint8)


def read_shards(shards: Sequence[Shard], columns: Sequence[str]) -> pa.Table:
    """Return columns of the rows of shards, one behind the other, each in one chunk."""
    import pyarrow as pa

    tables = [shard.read_rows(columns) for shard in shards]
    return pa.concat_tables(tables, promote_options="permissive").combine_chunks()


def shards_of(folder: Path, number: int, counts: Sequence[int]) -> list[Shard]:
    """Return the shards of generation ``number``, with so many rows, before they are written."""
    names = [str(number)] if len(counts) == 1 else [f"{number}.{place}" for place in range(len(counts))]
    return [Shard(folder, name, count) for name, count in zip(names, counts, strict=True)]


def shards_in(folder: Path, number: int, manifest: Mapping[str, Any]) -> list[Shard]:
    """Return the shards that a manifest names; of one that is not ours, `known_shards` has the say."""
    said = manifest.get("shards") or [manifest]
    bare = shards_of(folder, number, [each["rows"] for each in said])
    return [Shard(folder, shard.name, shard.count, each.get("fast"), bool(each.get("half")), each.get("attempt"))
            for shard, each in zip(bare, said, strict=True)]


def entries(shards: Sequence[Shard]) -> dict[str, Any]:
    """Return what a manifest says of written shards, for `shards_in` to read."""
    said = [{"rows": shard.count, "fast": shard.about, **({"half": True} if shard.half else {}),
             **({} if shard.attempt is None else {"attempt": shard.attempt})} for shard in shards]
    if len(said) == 1:
        return {"format": 1 + shards[0].half, **said[0]}
    return {"format": 2, "rows": sum(shard.count for shard in shards), "fast": None, "shards": said}


def known_shards(manifest: Mapping[str, Any]) -> bool:
    """Return whether what a manifest says of its shards has the keys and types that are written here."""
    several = manifest.get("shards")
    if several is not None and not (isinstance(several, list) and len(several) > 1
                                    and all(isinstance(each, dict) for each in several)):
        return False
    said = several or [manifest]
    asked = manifest.get("asked", {})
    if not (isinstance(asked, dict) and isinstance(asked.get("half", False), bool)):
        return False
    counts = [manifest.get("rows"), asked.get("shard_rows", SHARD_ROWS), *(each.get("rows") for each in said),
              *(each["attempt"] for each in said if "attempt" in each)]
    for fast in (each.get("fast") for each in said if each.get("fast") is not None):
        known = fast if isinstance(fast, dict) else {}
        counts += [known.get("k_factor"), *(known[key] for key in ("cells_tried",) if key in known),
                   *(known.get(key) for key in ("cells", "probes") if "cells" in known)]
    return (all(type(count) is int and 0 < count < 2**40 for count in counts)
            and all(isinstance(each.get("half", False), bool) for each in said)
            and sum(each["rows"] for each in said) == manifest["rows"])


def counts_of(rows: int, of_a_shard: int) -> list[int]:
    """Return how many rows go into each shard.

    >>> counts_of(25, 10), counts_of(10, 10)
    ([10, 10, 5], [10])
    """
    return [min(of_a_shard, rows - start) for start in range(0, rows, of_a_shard)]
