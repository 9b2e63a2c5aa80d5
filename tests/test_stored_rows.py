"""Ids, titles and kept cells of many rows are read from their file as they are asked for, and are the same as ever."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import WordEncoder, titles_like

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import sha256_file
from sentence_forge.runtime.manifests import sealed, unsealed
from sentence_forge.search import stored
from sentence_forge.search.generation import newest
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import index_corpus
from sentence_forge.search.kept import Kept
from sentence_forge.search.segments import text_hashes
from sentence_forge.search.serve.facets import facets
from sentence_forge.search.verify import verify
from sentence_forge.search.writing import Rows, same_rows

ROWS = 3 * stored.GROUP + 17
IDS = [f"n{row}" for row in range(ROWS)]
TITLES = titles_like(ROWS - 9) + titles_like(9)
KEPT = {"id": [str(row % 7) for row in range(ROWS)], "source": ["x" * (row % 3) for row in range(ROWS)]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stored, "LAZY_FROM", ROWS)
    monkeypatch.setattr(stored, "_GROUPS_KEPT", 2)  # so that a column is looked through in two parts
    index_corpus(tmp_path / "index", IDS, TITLES, WordEncoder(), kept=KEPT, fast_from=10**9)
    return tmp_path / "index"


def test_rows_read_as_asked_for_are_those_that_were_written(folder: Path) -> None:
    with Index.open(folder, WordEncoder()) as index:
        assert len(index.titles) == len(index) == ROWS
        (hits,) = index.search(["storm opera report"], 40, where=["id=3"])
        assert [hit.title for hit in hits] == [TITLES[int(hit.id[1:])] for hit in hits]
        assert all(hit.columns["id"] == "3" for hit in hits)
        assert len({int(hit.id[1:]) // stored.GROUP for hit in hits}) > 1
        assert list(index.ids) == IDS and list(index.titles) == TITLES and index.titles[-1] == TITLES[-1]
        assert index.titles_of([0, ROWS - 1, stored.GROUP]) == [TITLES[0], TITLES[-1], TITLES[stored.GROUP]]
        assert index.row_of("n3000") == 3000 and index.row_of("n") is None
        assert index.rows_of([TITLES[-1], "none", TITLES[1500]]).tolist() == [8, -1, 1500]
        assert index.count_where(["source!=x"]) == sum(cell != "x" for cell in KEPT["source"])
        assert index.pairs(1, repeats=True)[0].title1 == TITLES[0] and index.repeated_rows == 9
        assert index.pairs(1)[0].score < 1
    assert verify(folder) == []


def test_what_is_in_no_group_that_is_asked_for_is_not_read(folder: Path) -> None:
    file = folder / "rows-1.parquet"
    about = pq.ParquetFile(file).metadata.row_group(2).column(1)
    with file.open("r+b") as damaged:
        damaged.seek(about.data_page_offset)
        damaged.write(bytes(about.total_compressed_size))
    with Index.open(folder, WordEncoder()) as index:
        assert index.titles[0] == TITLES[0] and index.ids[ROWS - 1] == IDS[-1]
        with pytest.raises(UserError, match=r"rows-1\.parquet: damaged"):
            index.titles[2 * stored.GROUP]
    assert "rows-1.parquet: damaged" in verify(folder)[0]


def test_rows_are_compared_with_those_that_are_there_a_part_at_a_time(folder: Path,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "GROUP", 128)
    wide = {"source": [f"{row}" * 500 for row in range(ROWS)]}
    index_corpus(folder, IDS, TITLES, WordEncoder(), kept=wide, fast_from=10**9)
    base, usual = newest(folder), pa.default_memory_pool()
    assert base is not None
    pool = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(pool)
    try:
        for kept, same in ((wide, True), ({"source": [*wide["source"][:-1], ""]}, False), ({"other": IDS}, False)):
            assert same_rows(base, Rows(IDS, TITLES, text_hashes(TITLES), [], kept)) == same
    finally:
        pa.set_memory_pool(usual)
    assert pool.max_memory() < sum(map(len, wide["source"])) / 3


def test_a_closed_index_holds_no_file_and_says_so(folder: Path) -> None:
    def held() -> bool:
        opened = [os.readlink(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")
                  if os.path.lexists(f"/proc/self/fd/{each}")]
        return str(folder) in "".join(opened) + Path("/proc/self/maps").read_text()

    def opened_and_closed() -> weakref.ref[Kept]:
        index = Index.open(folder, WordEncoder())
        assert index.titles[0] == TITLES[0] and facets(index.kept) and held()
        index.close()
        index.close()
        assert not held()
        for read in (lambda: index.search(["storm"]), lambda: index.ids[3000], lambda: index.row_of("n3")):
            with pytest.raises(UserError, match="the index is closed; open it again"):
                read()
        return weakref.ref(index.kept)

    kept = opened_and_closed()
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("change", [lambda table: table.slice(1), lambda table: table.drop_columns("title"),
                                    lambda table: table.set_column(1, "title", pa.array([None] * ROWS, pa.string()))])
def test_a_file_of_groups_that_holds_something_else_is_refused(folder: Path, change) -> None:  # noqa: ANN001
    file, manifest = folder / "rows-1.parquet", folder / "manifest-1.json"
    pq.write_table(change(pq.read_table(file)), file, row_group_size=stored.GROUP)
    about = unsealed(manifest)
    about["files"][file.name] = {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
    manifest.write_text(sealed({name: value for name, value in about.items() if name != "sha256"}), encoding="utf-8")
    with pytest.raises(UserError, match=r"rows-1\.parquet: damaged"), Index.open(folder, WordEncoder()) as index:
        index.search(["storm"])


def test_an_open_index_reads_on_from_several_threads_after_its_file_was_removed(folder: Path) -> None:
    with Index.open(folder, WordEncoder()) as index:
        (folder / "rows-1.parquet").unlink()
        wrong: list[int] = []

        def read(seed: int) -> None:
            wrong.extend(row for row in np.random.default_rng(seed).integers(0, ROWS, 300).tolist()
                         if (index.ids[row], index.titles[row]) != (IDS[row], TITLES[row]))

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert wrong == []
