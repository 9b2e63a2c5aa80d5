"""Codes in cells: those of the rows around the query's nearest centres are scanned, however many rows there are.

An inverted file (Jégou, Douze and Schmid, "Product quantization for nearest neighbor search", 2011): k-means gives the
centres, each row is in the cell of its nearest one, and what it differs from it is coded as `search.codes` does. A
query's nearest centres are found by codes, too, and scored exactly. FAISS scans the cells' codes in the mapped file:
opening an index reads the centres alone.

FAISS reads none of the lists' structure; sizes are checked here, and any bytes are codes.
"""

from __future__ import annotations

import math
import struct
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sentence_forge.encoders.similarity import FloatArray, IntArray, VectorRows
from sentence_forge.search import codes
from sentence_forge.search.codes import codes_size, strange, sub_quantisers
from sentence_forge.search.learning import Learnt, cells_of_rows
from sentence_forge.search.steps import Steps

if TYPE_CHECKING:
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]

_LINE = 64  # every part of the file begins at a multiple of it
_TOGETHER = 32  # rows whose codes FAISS scans at once


class Cells:
    """The codes of a file that `write_cells` wrote; searched as a FAISS index is.

    Args:
        path: the file, for errors.
        data: its bytes, a memory map.
        rows: how many vectors it must hold.
        dim: their size.
        about: what the manifest says: ``cells``, and ``probes``, how many of them are scanned for ``least`` candidates.
        least: candidates that the fewest hits need; for more, cells are added in proportion to the root.

    Raises:
        UserError: the file holds anything else.
    """

    def __init__(self, path: Path, data: Bytes, rows: int, dim: int, about: Mapping[str, Any], least: int) -> None:
        self.probes, self._least, self._data, self._rows = min(about["probes"], about["cells"]), least, data, rows
        parts = _Parts(rows, dim, about["cells"])
        if len(data) < parts.lists or data[:parts.centres].tobytes() != parts.head:
            raise strange(path)
        centres = data[parts.centres:parts.names].view("<f4")[:about["cells"] * dim].reshape(-1, dim)
        book = data[parts.book:parts.sizes].view("<f4")[:16 * dim]
        sizes = data[parts.sizes:parts.lists].view("<i8")[:about["cells"]]
        if not np.isfinite(centres).all() or not np.isfinite(book).all() or sizes.min() < 0 or sizes.max() > rows \
                or sizes.sum() != rows:
            raise strange(path)
        self._begins, self._room, end = parts.places(sizes)
        if end != len(data):
            raise strange(path)
        self._sizes, self._code_size = sizes, parts.code_size
        self.learnt = Learnt(np.array(centres), np.array(book))
        self._names = codes.read_codes(path, data[parts.names:parts.names + codes_size(about["cells"], dim)],
                                 about["cells"], dim)
        self._scan = self._mapped(dim)

    def _mapped(self, dim: int) -> Any:  # noqa: ANN401 - as `_empty`
        """Return FAISS's index whose lists are the mapped file's."""
        import faiss

        cells = len(self._sizes)
        lists: Any = faiss.OnDiskInvertedLists(cells, self._code_size, "")  # its types lack what is needed here
        lists.read_only = True
        # FAISS's own list of where each begins: size, capacity, offset.
        places = np.stack([self._sizes, self._room, self._begins], axis=1).astype(np.uint64)
        faiss.memcpy(lists.lists.data(), faiss.swig_ptr(places), places.nbytes)
        lists.ptr, lists.totsize = faiss.swig_ptr(self._data), len(self._data)
        weakref.finalize(self, setattr, lists, "ptr", None)  # the map is NumPy's, so FAISS must not unmap it
        scan = _empty(dim, cells)
        faiss.copy_array_to_vector(self.learnt.book, scan.pq.centroids)
        scan.is_trained, scan.ntotal = True, self._rows
        scan.replace_invlists(lists, False)
        self._lists = lists
        return scan

    def search(self, queries: FloatArray, count: int) -> tuple[FloatArray, IntArray]:
        """Return FAISS's approximate scores [q, count] and rows [q, count], -1 (or, of a crafted file, any) for none.

        Args:
            queries: float32 [q, dim], unit length.
            count: how many candidates to name.
        """
        import faiss

        queries = np.ascontiguousarray(queries, np.float32)
        cells = len(self._sizes)
        probes = min(cells, math.ceil(self.probes * math.sqrt(max(1, count / self._least))))
        scores, near = self._nearest_centres(queries, probes)
        found = np.empty((len(queries), count), np.float32), np.empty((len(queries), count), np.int64)
        # As FAISS's own method, which takes the number of probes from the index, that other threads use.
        how = faiss.SearchParametersIVF()
        how.nprobe = probes
        pointers = [faiss.swig_ptr(each) for each in (near, scores, *found)]
        self._scan.search_preassigned_c(len(queries), faiss.swig_ptr(queries), count, *pointers, False, how)
        return found

    def _nearest_centres(self, queries: FloatArray, probes: int) -> tuple[FloatArray, IntArray]:
        """Return cosines, float32 [q, probes], and numbers, int64 [q, probes], of the centres nearest to each query."""
        cells = len(self._sizes)
        if 8 * probes >= cells:  # reading all centres in order costs less than gathering so many
            cosines = queries @ self.learnt.centres.T
            near = np.ascontiguousarray(np.argpartition(-cosines, probes - 1, axis=1)[:, :probes])
            return np.take_along_axis(cosines, near, axis=1), near
        _, named = self._names.search(queries, 2 * probes)
        scores, near = np.empty((len(queries), probes), np.float32), np.empty((len(queries), probes), np.int64)
        for place, (query, names) in enumerate(zip(queries, named, strict=True)):
            cosines = self.learnt.centres[names] @ query
            best = np.argpartition(-cosines, probes - 1)[:probes]
            scores[place], near[place] = cosines[best], names[best]
        return scores, near

    def cell_of_rows(self) -> IntArray:
        """Return the cell of each row, int64 [rows]; -1 of one that is in none, in a crafted file."""
        found = np.full(self._rows, -1, np.int64)
        for cell, (size, room, begin) in enumerate(zip(self._sizes, self._room, self._begins, strict=True)):
            start = begin + room * self._code_size
            ids = self._data[start:start + 8 * size].view("<i8")
            found[ids[(ids >= 0) & (ids < self._rows)]] = cell
        return found


class _Parts:
    """Where each part of a file begins, in bytes: centres, their codes, code book, sizes of cells, lists."""

    def __init__(self, rows: int, dim: int, cells: int) -> None:
        self.head = struct.pack("<4sqqq", b"cell", rows, dim, cells).ljust(_LINE, b"\0")
        self.code_size = -(-sub_quantisers(dim) // 2)
        self.centres = len(self.head)
        self.names = self.centres + _padded(4 * cells * dim)
        self.book = self.names + _padded(codes_size(cells, dim))
        self.sizes = self.book + _padded(64 * dim)
        self.lists = self.sizes + _padded(8 * cells)

    def places(self, sizes: IntArray) -> tuple[IntArray, IntArray, int]:
        """Return where each list begins, how many rows it has room for, and where the last one ends."""
        room = -(-sizes // _TOGETHER) * _TOGETHER
        ends = self.lists + np.cumsum(room * (self.code_size + 8))
        return np.concatenate([[self.lists], ends[:-1]]), room, int(ends[-1])


def _padded(size: int) -> int:
    return -(-size // _LINE) * _LINE


def _empty(dim: int, cells: int) -> Any:  # noqa: ANN401 - FAISS's types lack what is called
    import faiss

    index = faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(dim), dim, cells, sub_quantisers(dim), 4,
                                     faiss.METRIC_INNER_PRODUCT, _TOGETHER, False)
    index.by_residual = True
    return index


def write_cells(path: Path, vectors: VectorRows, learnt: Learnt, known: IntArray | None = None,
                steps: Steps | None = None) -> None:
    """Write the file of ``vectors``' codes.

    Args:
        path: the file.
        vectors: float32 [n, dim], unit length; may be a memory map.
        learnt: centres and code book.
        known: int64 [n], the cells of rows where they are known, else -1.
        steps: keeps the rows' cells as they are found, for a run that goes on from there.
    """
    import faiss

    (rows, dim), cells = vectors.shape, len(learnt.centres)
    coded = faiss.IndexIVFPQ(faiss.IndexFlatIP(dim), dim, cells, sub_quantisers(dim), 4, faiss.METRIC_INNER_PRODUCT)
    coded.quantizer.add(learnt.centres)
    faiss.copy_array_to_vector(learnt.book, coded.pq.centroids)
    coded.is_trained = True
    start = 0
    for cell in cells_of_rows(vectors, learnt.centres, known, steps):
        block, numbers = np.ascontiguousarray(vectors[start:start + len(cell)]), np.arange(start, start + len(cell))
        coded.add_core(len(block), *(faiss.swig_ptr(each) for each in (block, numbers, cell)))
        start += len(cell)
    packed = faiss.IndexIVFPQFastScan(coded, _TOGETHER)
    lists = packed.invlists
    assert lists is not None
    parts = _Parts(rows, dim, cells)
    sizes = np.array([packed.get_list_size(cell) for cell in range(cells)], np.int64)
    names = faiss.serialize_index(codes.make_codes(learnt.centres))
    with path.open("wb") as file:
        file.write(parts.head)
        for part in (learnt.centres, names, learnt.book, sizes):
            file.write(part.tobytes().ljust(_padded(part.nbytes), b"\0"))
        for number, room in enumerate(parts.places(sizes)[1].tolist()):
            if room:
                file.write(faiss.rev_swig_ptr(lists.get_codes(number), room * parts.code_size).tobytes())
                ids = faiss.rev_swig_ptr(lists.get_ids(number), int(sizes[number]))
                file.write(np.pad(ids, (0, room - len(ids))).tobytes())
