"""A corpus of many rows is read, checked and indexed block by block: the same rows and reasons, without the memory."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import WordEncoder, titles_like
from faults import Acknowledge, forked, largest_file

from sentence_forge.data_readers import lazy, repeats, staged, titles
from sentence_forge.data_readers.formats.rows import BadRow
from sentence_forge.data_readers.lazy import LazyStrings
from sentence_forge.data_readers.titles import read_corpus
from sentence_forge.runtime.errors import UserError
from sentence_forge.search import stored, writing
from sentence_forge.search.generation import newest, numbers
from sentence_forge.search.indexing import index_corpus
from sentence_forge.search.postgres.finish import kept_columns
from sentence_forge.search.segments import text_hashes
from sentence_forge.search.writing import Rows, tables_of

ROOT = Path(__file__).resolve().parents[1]
HASHES = {"usual": hash, "constant": lambda text: 7, "three": lambda text: hash(text) % 3}


def small_blocks(monkeypatch: pytest.MonkeyPatch, size: int = 7) -> None:
    for module in (lazy, repeats, staged, titles):
        monkeypatch.setattr(module, "BLOCK", size)


def csv_of(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    path.write_text("id,title,source\n" + "".join(",".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def drawn(count: int, names: int) -> list[list[str]]:
    """Rows of which some repeat an id, lack an id or a title, or have a cell too few."""
    draw = random.Random(count)
    rows = [[f"n{draw.randrange(names)}", f"title {row}", f"s{row % 3}"] for row in range(count)]
    for row in rows:
        flaw = draw.random()
        if flaw < 0.2:
            row[flaw < 0.1] = " "
        elif flaw < 0.25:
            row.pop()
    return rows


def expected(rows: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[tuple[int, int, str]]]:
    """The rows to be indexed, and line, number and reason of each other one, as a plain dict finds them."""
    good, bad, lines = [], [], {}
    for line, row in enumerate(rows, start=2):
        reason = "" if len(row) == 3 else "2 cells"
        if not reason and not row[1].strip():
            reason = "column title: is empty"
        elif not reason and not row[0].strip():
            reason = "column id: is empty"
        elif not reason and lines.setdefault(row[0], line) != line:
            reason = f"column id: {row[0]!r} is already the id of line {lines[row[0]]}"
        if reason:
            bad.append((line, line - 1, reason))
        else:
            good.append(list(row))
    return good, bad


@pytest.mark.parametrize("how", HASHES)
@pytest.mark.parametrize("names", [40, 300, 10**6])
def test_repeated_ids_are_rejected_across_blocks_and_colliding_ones_are_not(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: int, how: str) -> None:
    small_blocks(monkeypatch)
    monkeypatch.setattr(repeats, "_hash", HASHES[how])
    rows = drawn(300, names)  # in 43 blocks
    good, bad = expected(rows)
    found = read_corpus(csv_of(tmp_path / "a.csv", rows), id_column="id", keep=["source"])
    assert isinstance(found.ids, LazyStrings)
    assert list(map(list, zip(found.ids, found.titles, found.kept["source"], strict=True))) == good
    assert [found.ids[row] for row in range(len(good))] == [row[0] for row in good]
    assert [(row.line, row.number) for row in found.rejected] == [(line, number) for line, number, _ in bad]
    for row, (_, _, reason) in zip(found.rejected, bad, strict=True):
        assert reason in row.reason
    assert found.rows == 300


def test_an_id_that_repeats_after_many_thousand_rows_is_found(tmp_path: Path) -> None:
    rows = [[f"n{row % 20_000}", f"title {row}", "x"] for row in range(20_003)]
    found = read_corpus(csv_of(tmp_path / "a.csv", rows), id_column="id")
    assert [row.reason for row in found.rejected] == [
        f"column id: 'n{row}' is already the id of line {row + 2}" for row in range(3)]
    assert list(found.titles) == [f"title {row}" for row in range(20_000)] and found.ids[-1] == "n19999"


def test_a_repeated_id_on_the_same_line_of_a_json_array_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"id": name, "title": f"title {row}"} for row, name in enumerate("aba")]))
    found = read_corpus(path, id_column="id")
    assert found.titles == ["title 0", "title 1"]
    assert found.rejected == [BadRow(1, 3, "column id: 'a' is already the id of line 1", "title 2")]


def test_few_rows_are_lists_and_many_are_the_same_without_ids_of_their_own(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for count, lazily in ((7, False), (8, True), (14, True), (15, True)):
        small_blocks(monkeypatch)
        rows = [[f"n{row}", f"title {row}", ""] for row in range(count)]
        found = read_corpus(csv_of(tmp_path / "a.csv", rows), keep=["source", "id", "source"])
        assert isinstance(found.titles, LazyStrings) == lazily == (not isinstance(found.ids, list))
        assert list(found.ids) == [str(row + 1) for row in range(count)]
        assert {name: list(cells) for name, cells in found.kept.items()} == {
            "source": [""] * count, "id": [row[0] for row in rows]}


def parts() -> list[Sequence[str] | pa.Array]:
    texts = [f"t{number}" for number in range(60)]
    return [texts[:10], tuple(texts[10:11]), pa.array(texts[11:40], pa.large_string()), [],
            LazyStrings([texts[40:45], texts[45:50]]), pa.array(texts[49:60])[1:]]


@pytest.mark.parametrize("at", [None, np.arange(60), np.flatnonzero(np.arange(60) % 7 != 3), np.arange(0)])
def test_strings_are_taken_in_any_order_and_by_slices(at: np.ndarray | None) -> None:
    lazily = LazyStrings(parts(), at)
    texts = [f"t{number}" for number in (range(60) if at is None else at)]
    assert list(lazily) == texts
    for wanted in (slice(None), slice(3, 9), slice(8, 44), slice(50, 2, -3), slice(0, 0), slice(-5, None)):
        assert lazily[wanted] == texts[wanted]
    draw = np.random.default_rng(0)
    for places in (draw.permutation(len(texts)), np.sort(draw.permutation(len(texts))[:20]), np.arange(0)):
        assert lazily.take(places) == [texts[place] for place in places]
    every_third = np.arange(0, len(texts), 3)
    assert list(lazily.only(every_third)) == texts[::3]
    assert lazily.only(every_third)[1:4] == texts[::3][1:4]


def both_ways(rows: int) -> tuple[dict[str, Sequence[str]], dict[str, Sequence[str]]]:
    """Ids, titles and a kept column as lists, and the same as columns of Arrow in pieces."""
    columns: dict[str, Sequence[str]] = {"ids": [f"n{row}" for row in range(rows)], "titles": titles_like(rows),
                                         "source": [f"s{row % 3}" * (row % 2) for row in range(rows)]}
    return columns, {name: LazyStrings([pa.array(cells[start:start + 700], pa.large_string())
                                        for start in range(0, rows, 700)]) for name, cells in columns.items()}


@pytest.mark.parametrize("lazy_from", [1000, 10**6])
def test_the_file_of_rows_is_that_of_one_table_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                           lazy_from: int) -> None:
    monkeypatch.setattr(stored, "LAZY_FROM", lazy_from)
    monkeypatch.setattr(writing, "BLOCK", 2 * stored.GROUP)
    for rows in (5000, 4096):
        lists, lazily = both_ways(rows)
        hashes = text_hashes(lists["titles"])
        table = pa.table({"id": pa.array(lists["ids"], pa.large_string()),
                          "title": pa.array(lists["titles"], pa.large_string()),
                          "sha": pa.array([bytes(cell).ljust(16, b"\0") for cell in hashes], pa.binary(16)),
                          "kept-0": pa.array(lists["source"], pa.large_string())})
        options = {"row_group_size": stored.GROUP, "compression": "none", "write_statistics": False}
        pq.write_table(table, tmp_path / "one", use_dictionary=False, **(options if rows >= lazy_from else {}))
        for number, each in enumerate((lists, lazily)):
            given = Rows(each["ids"], each["titles"], hashes, [], {"source": each["source"]})
            stored.write_rows(tmp_path / f"blocks {number}", tables_of(given), rows)
            assert (tmp_path / f"blocks {number}").read_bytes() == (tmp_path / "one").read_bytes()


def test_an_index_is_the_same_from_lists_and_from_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch, 100)
    monkeypatch.setattr(stored, "LAZY_FROM", 1100)
    lists, lazily = both_ways(1200)
    for name, each in (("lists", lists), ("stream", lazily)):
        report = index_corpus(tmp_path / name, each["ids"], each["titles"], WordEncoder(), segment_rows=333,
                              kept={"source": each["source"]})
        assert (report.rows, report.encoded, report.added, report.changed, report.removed) == (1200, 1200, 1200, 0, 0)
    for file in ("rows-1.parquet", "vectors-1.npy"):
        assert (tmp_path / "lists" / file).read_bytes() == (tmp_path / "stream" / file).read_bytes()
    again = index_corpus(tmp_path / "lists", lazily["ids"], lazily["titles"], WordEncoder(),
                         kept={"source": lazily["source"]})
    assert again.encoded == 0 and numbers(tmp_path / "lists") == [1]
    for name, place in (("source", 1199), ("ids", 0)):
        changed = {**lists, name: [*lists[name][:place], "other", *lists[name][place + 1:]]}
        index_corpus(tmp_path / "lists", changed["ids"], changed["titles"], WordEncoder(),
                     kept={"source": changed["source"]})
        generation = newest(tmp_path / "lists")
        assert generation.read_rows(["id"])["id"].to_pylist() == changed["ids"]
        assert generation.read_rows(["kept-0"])["kept-0"].to_pylist() == changed["source"]
    assert numbers(tmp_path / "lists")[0] == 3


def test_what_changed_is_counted_by_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch, 10)
    draw, vocabulary = random.Random(4), titles_like(30)
    before: dict[str, str] = {}
    for _ in range(6):
        names = draw.sample(range(90), draw.randrange(20, 80))
        after = {f"n{name}": before.get(f"n{name}", draw.choice(vocabulary)) for name in names}
        after |= {name: draw.choice(vocabulary) for name in after if draw.random() < 0.3}
        report = index_corpus(tmp_path, LazyStrings([list(after)]), LazyStrings([list(after.values())]), WordEncoder())
        assert report.added == len(after.keys() - before.keys())
        assert report.removed == len(before.keys() - after.keys())
        assert report.changed == sum(before[name] != after[name] for name in after.keys() & before.keys())
        before = after


def test_rows_that_cannot_be_an_index_are_refused_by_their_numbers(tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"n{row}" for row in range(9000)]
    names[8500], names[8700] = "n17", "n3"
    for how in ("usual", "constant"):
        monkeypatch.setattr(repeats, "_hash", HASHES[how])
        with pytest.raises(UserError, match="corpus: id 'n17' is that of rows 18 and 8501; ids must be unique"):
            index_corpus(tmp_path, names, names, WordEncoder())
    with pytest.raises(ValueError, match="equally long"):
        index_corpus(tmp_path, ["a", "b"], ["x", "y"], WordEncoder(), kept={"source": ["s"]})


def test_a_database_is_told_the_same_of_kept_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch, 400)
    lists, lazily = both_ways(1500)
    told = kept_columns({"source": lists["source"], "ids": lists["ids"]})
    assert told == kept_columns({"source": lazily["source"], "ids": lazily["ids"]})
    assert told["source"]["bounds"] == ("s0", "s2") and dict(told["source"]["values"]) == {
        "": 750, "s0": 250, "s1": 250, "s2": 250}


# --- the temporary file ---


def files_open_in(folder: Path) -> list[str]:
    held = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in held if os.path.lexists(link)
            and os.readlink(link).startswith(str(folder))]


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    rows = [[f"n{row}", f"title {row}", "x"] for row in range(9000)]
    found = read_corpus(csv_of(tmp_path / "a.csv", rows), id_column="id", folder=tmp_path / "temporary")
    assert os.listdir(tmp_path / "temporary") == []
    assert list(found.titles) == [row[1] for row in rows]
    if Path("/proc/self/maps").exists():
        assert files_open_in(tmp_path / "temporary")
        del found
        gc.collect()
        assert not files_open_in(tmp_path / "temporary")  # its room is free again
        assert str(tmp_path / "temporary") not in Path("/proc/self/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
def test_nothing_is_left_after_a_kill_while_rows_are_read(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "a.csv", [[f"n{row}", f"title {row}", "x"] for row in range(100_000)])
    (tmp_path / "temporary").mkdir()

    def read(acknowledge: Acknowledge) -> None:
        def kill_once_there_is_a_file() -> None:
            while not (held := files_open_in(tmp_path / "temporary")):
                time.sleep(0.001)
            acknowledge(held[0])
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=kill_once_there_is_a_file, daemon=True).start()
        read_corpus(path, id_column="id", folder=tmp_path / "temporary")
        acknowledge("read to the end")

    ended = forked(read)
    assert ended.status == -signal.SIGKILL and "read to the end" not in ended.acknowledged
    assert len(ended.acknowledged) == 1 and os.listdir(tmp_path / "temporary") == []


def test_a_full_disk_is_one_line_and_few_rows_need_no_disk(tmp_path: Path) -> None:
    few, many = (csv_of(tmp_path / f"{count}.csv", [[f"n{row}", "t" * 40, "x"] for row in range(count)])
                 for count in (8192, 30_000))
    for size in (0, 100_000, 1_500_000):  # nothing fits, not one block, only some
        with largest_file(size), pytest.raises(UserError, match=r"corpus: can't be written.*[Mm]ake room"):
            read_corpus(many, id_column="id", folder=tmp_path)
    with largest_file(0):
        assert len(read_corpus(few, id_column="id", folder=tmp_path).ids) == 8192
    assert sorted(os.listdir(tmp_path)) == ["30000.csv", "8192.csv"]


# --- memory ---


MEASURED = """
import re, sys, threading, time
from pathlib import Path
import numpy as np
from sentence_forge.data_readers.titles import read_corpus
from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.search.indexing import index_corpus

class Made(TextEncoder):
    name, fingerprint = "made", "made" * 16

    def encode(self, texts, *, role=None):
        return np.ones((len(texts), 4), np.float32)

def own():  # bytes of memory that are no file's
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

def watch():
    while True:
        peak[0] = max(peak[0], own())
        time.sleep(0.005)

def make(name):
    rows = read_corpus(Path(f"{name}.csv"), id_column="id", keep=["source"])
    yield peak[0]
    index_corpus(Path(name), rows.ids, rows.titles, Made(), kept=rows.kept, segment_rows=16384, fast_from=10**9)
    yield peak[0]

peak = [0]
threading.Thread(target=watch, daemon=True).start()
list(make("few"))  # libraries and their pools
peak[0] = begun = own()
print(*((now - begun) // int(sys.argv[1]) for now in make("many")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_of_reading_and_of_indexing_is_bounded_a_row(tmp_path: Path) -> None:
    for name, count in (("few", 20_000), ("many", 400_000)):
        csv_of(tmp_path / f"{name}.csv", [[f"{row:016d}", f"a title as long as those of news are: number {row}", "x"]
                                          for row in range(count)])
    done = subprocess.run([sys.executable, "-c", MEASURED, "400000"], cwd=tmp_path, check=False, text=True,
                          capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    reading, indexing = map(int, done.stdout.split())
    assert reading <= 60, f"{reading} bytes a row"
    assert indexing <= 150, f"{indexing} bytes a row"
