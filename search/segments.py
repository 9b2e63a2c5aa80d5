"""Segments: finished blocks of encoded texts, from which a killed indexing run goes on.

A segment is a folder ``segments/<hash of its texts>/`` of ``rows.parquet`` (sha: the texts' hashes), ``vectors.npy``
(one unit vector a row) and ``manifest.json`` with their sha256. It is written once, completely or not
at all, and its name is that of its content. A run that was killed finds its segments again and encodes only the texts
that are in none of them. Beside them lies what the fast index has learnt so far (`search.steps`). All are removed once
the new generation is committed.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from sentence_forge.encoders.fingerprint import backend_of, precision_of, same_model
from sentence_forge.encoders.similarity import VectorRows
from sentence_forge.runtime.errors import UnreadableError, UserError
from sentence_forge.runtime.files import remove, staged_folder
from sentence_forge.runtime.manifests import read_manifest, write_manifest
from sentence_forge.search.checked import HASH_BYTES, map_vectors, read_columns
from sentence_forge.search.generation import SEGMENTS
from sentence_forge.search.steps import Steps

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

Hashes = npt.NDArray[np.bytes_]
_LEARNT = "learnt-"  # no hash begins so


class Segment(NamedTuple):
    """Texts by hash, S16 [n], and their unit vectors, float32 [n, dim], memory-mapped."""

    hashes: Hashes
    vectors: VectorRows


def text_hashes(texts: Iterable[str]) -> Hashes:
    """Return the first 16 bytes of each text's sha256, as S16 [n]: equal for equal texts only."""
    digests = bytearray()  # where join() would hold an object a text first
    for text in texts:
        digests += hashlib.sha256(text.encode()).digest()[:HASH_BYTES]
    return np.frombuffer(digests, dtype=f"S{HASH_BYTES}")


def segment_folder(index: Path, hashes: Hashes) -> Path:
    """Return where the segment of these texts is, or will be."""
    return index / SEGMENTS / hashlib.sha256(hashes.tobytes()).hexdigest()[:2 * HASH_BYTES]


def steps_of(index: Path, how: str, hashes: Hashes) -> Steps:
    """Return where what is learnt of the vectors of these texts is kept until they are committed.

    Args:
        index: the index's folder.
        how: by which model and in which form the vectors are made.
        hashes: of the texts, in the vectors' order.
    """
    key = hashlib.sha256(how.encode())
    key.update(np.ascontiguousarray(hashes).view(np.uint8).data)
    return Steps(index / SEGMENTS / f"{_LEARNT}{key.hexdigest()[:2 * HASH_BYTES]}")


def write_segment(index: Path, hashes: Hashes, vectors: npt.NDArray[np.float32], fingerprint: str) -> None:
    """Write one finished block of texts under ``index``, completely or not at all.

    Where another process has written it by then, such as a worker taken for dead, that one stays.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    segment = segment_folder(index, hashes)
    try:
        with staged_folder(segment) as folder:
            pq.write_table(pa.table({"sha": hash_column(hashes)}), folder / "rows.parquet")
            np.save(folder / "vectors.npy", vectors, allow_pickle=False)
            write_manifest(folder, {"fingerprint": fingerprint, "rows": len(hashes)})
    except OSError:
        if not segment.exists():
            raise


def read_segments(index: Path, fingerprint: str) -> list[Segment]:
    """Return the finished segments under ``index``; remove what is damaged or was left half-written.

    Only the holder of the writer's lock may call this.

    Raises:
        UserError: a segment was encoded by another model, or the system doesn't give it now.
    """
    segments = []
    for folder in sorted((index / SEGMENTS).glob("*")):
        if folder.name.startswith(".") or folder.is_symlink():
            remove(folder)
            continue
        if folder.name.startswith(_LEARNT):
            continue
        try:
            of, segment = _read_segment(folder)
        except UnreadableError:
            raise
        except UserError as error:
            log.warning("%s; its texts will be encoded again", error)
            remove(folder)
            continue
        if of != fingerprint:
            how = (f"in another way; go on with precision={precision_of(of)} backend={backend_of(of)}"
                   if same_model(of, fingerprint) else "of another model; go on with that model")
            raise UserError(f"{index}: holds an unfinished index {how}, remove the folder, or write to another one "
                            "(out=)")
        segments.append(segment)
    return segments


def finished_segments(index: Path, fingerprint: str) -> list[Segment]:
    """Return the finished segments under ``index`` of this encoder, as the holder of the writer's lock has found them.

    Any process may call this. Their bytes are not compared with their sha256 again.

    Raises:
        UserError: a segment is damaged.
    """
    found = [_read_segment(folder, hashed=False) for folder in sorted((index / SEGMENTS).glob("[0-9a-f]*"))]
    return [segment for of, segment in found if of == fingerprint]


def _read_segment(folder: Path, *, hashed: bool = True) -> tuple[str, Segment]:
    """Return the fingerprint of a segment's encoder, and its texts.

    Raises:
        UserError: it is damaged or was never finished.
    """
    manifest = read_manifest(folder, hashed=hashed)
    rows, of = manifest.get("rows"), manifest.get("fingerprint")
    if not isinstance(rows, int) or not isinstance(of, str) or not {"rows.parquet", "vectors.npy"} <= set(
            manifest["files"]):
        raise UserError(f"{folder}: its manifest is not that of a segment")
    hashes = hashes_of(read_columns(folder / "rows.parquet", ["sha"], rows))
    return of, Segment(hashes, map_vectors(folder / "vectors.npy", rows))


def known_hashes(segments: Sequence[Segment]) -> Hashes:
    """Return the hashes of all segments, one after the other, S16 [n]."""
    return np.concatenate([segment.hashes for segment in segments]) if segments else text_hashes([])


def drop_segments(index: Path) -> None:
    """Remove all segments, once they are committed."""
    going = index / f".tmp-{SEGMENTS}"
    remove(going)
    if (index / SEGMENTS).exists():
        # Renamed first: a kill half-way through would leave segments that look damaged.
        (index / SEGMENTS).rename(going)
        remove(going)


def hash_column(hashes: Hashes) -> pa.Array:
    """Return hashes as a pyarrow array of 16 fixed bytes."""
    import pyarrow as pa

    buffer = pa.py_buffer(np.ascontiguousarray(hashes).tobytes())
    return pa.Array.from_buffers(pa.binary(HASH_BYTES), len(hashes), [None, buffer])


def hashes_of(table: pa.Table) -> Hashes:
    """Return the ``sha`` column of a table as S16 [n]."""
    digests = table["sha"].combine_chunks()
    return np.frombuffer(digests.buffers()[1], dtype=f"S{HASH_BYTES}", count=len(digests),
                         offset=HASH_BYTES * digests.offset)
