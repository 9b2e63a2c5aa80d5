"""An index in several shards: the answers of one, only what changed is written, and a kill loses nothing."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Done
from corpora import ROOT, WordEncoder, answers_equal_brute_force, build, titles_like

from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.encoders.similarity import cosine_top_k, normalise
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.manifests import sealed, unsealed
from sentence_forge.search.fast import FastIndex
from sentence_forge.search.generation import newest
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import index_corpus
from sentence_forge.search.shard_writing import ShardTask, write_shard
from sentence_forge.search.sharded import ShardedIndex
from sentence_forge.search.shards import Shard
from sentence_forge.search.vectors import Vectors
from sentence_forge.search.verify import verify

Command = Callable[..., Done]
IDS = [f"n{number}" for number in range(2500)]
TITLES = [*titles_like(2400), *titles_like(100)]  # the last hundred repeat the first, in another shard
KEPT = {"year": [str(2000 + number % 20) for number in range(2500)]}


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix in (".npy", ".faiss", ".parquet"))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same corpus in one shard and in three, two of which have a fast index."""
    folders = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("three")
    for folder, rows in zip(folders, (None, 1000), strict=True):
        index_corpus(folder, IDS, TITLES, WordEncoder(), kept=KEPT, fast_from=800, shard_rows=rows)
    return folders


def test_several_shards_answer_as_one_does(both: tuple[Path, Path]) -> None:
    one, three = both
    assert [name for name in files(three) if name.startswith("vectors")] == [f"vectors-1.{n}.npy" for n in range(3)]
    assert [name for name in files(three) if name.startswith("index")] == ["index-1.0.faiss", "index-1.1.faiss"]
    encoder = WordEncoder()
    queries = encoder.encode([*TITLES[::100], "vaccine opera", "storm report 1 2 3"])
    with Index.open(one, encoder) as left, Index.open(three, encoder) as right:
        assert isinstance(right.fast, ShardedIndex)
        assert list(right.ids) == IDS and list(right.titles) == TITLES and len(right) == 2500
        np.testing.assert_array_equal(np.asarray(right.vectors), np.asarray(left.vectors))
        for how in ({}, {"exact": True}, {"dim": 8}, {"where": ["year>=2015"]}, {"k": 2500}, {"k": 1200}):
            given = {"k": 10, **how}
            expected, found = left.search_vectors(queries, **given), right.search_vectors(queries, **given)
            np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
            assert [[hit.title for hit in hits] for hits in right.hits(*found)] == [
                [hit.title for hit in hits] for hits in left.hits(*expected)]
        assert right.pairs(5) == left.pairs(5) and right.pairs(5, repeats=True) == left.pairs(5, repeats=True)
        assert right.rows_of([TITLES[2400], TITLES[1500], "nothing"]).tolist() == [0, 1500, -1]
        assert right.row_of("n1999") == 1999 and right.row_of("n") is None
        assert right.repeated_rows == 100 and right.drawn(5, seed=1) == left.drawn(5, seed=1)
        assert right.count_where(["year=2003"]) == left.count_where(["year=2003"])
    assert verify(three) == []


def test_the_ten_nearest_are_found_in_whatever_shard_they_are(both: tuple[Path, Path]) -> None:
    encoder = WordEncoder()
    queries = normalise(encoder.encode(titles_like(400, seed=3)))
    with Index.open(both[1], encoder) as index:
        tenth = cosine_top_k(normalise(encoder.encode(TITLES)), queries, 10)[0][:, -1:]
        scores, rows = index.search_vectors(queries, 10)
    assert (scores >= tenth - 1e-6).mean() >= 0.999
    assert {0, 1, 2} == set((rows // 1000).ravel().tolist())


def test_only_shards_with_other_texts_are_written_anew(tmp_path: Path) -> None:
    build(tmp_path, TITLES[:2400], fast_from=800, shard_rows=1000)
    before = {name: (tmp_path / name).stat().st_ino for name in files(tmp_path)}
    titles = [*TITLES[:1200], "a flood in the valley", *TITLES[1201:2400]]
    encoder = build(tmp_path, titles, fast_from=800)  # the size of a shard stays
    assert encoder.seen == ["a flood in the valley"]
    after = {name: (tmp_path / name).stat().st_ino for name in files(tmp_path)}
    kept = {name for name, node in after.items() if node in {before[old] for old in before}} - set(before)
    assert kept == {"vectors-2.0.npy", "vectors-2.2.npy", "index-2.0.faiss"}
    answers_equal_brute_force(tmp_path, [str(row) for row in range(1, 2401)], titles)
    build(tmp_path, titles, fast_from=800, shard_rows=2400)  # one again
    assert "vectors-3.npy" in files(tmp_path)
    answers_equal_brute_force(tmp_path, [str(row) for row in range(1, 2401)], titles)


def test_a_damaged_shard_is_named_and_its_texts_alone_are_encoded_again(tmp_path: Path) -> None:
    build(tmp_path, TITLES[:2400], fast_from=800, shard_rows=1000)
    place = tmp_path / "vectors-1.1.npy"
    data = bytearray(place.read_bytes())
    data[-1] ^= 0x40
    place.write_bytes(data)
    assert [problem for problem in verify(tmp_path) if f"{place}: damaged" in problem]
    encoder = build(tmp_path, TITLES[:2400], fast_from=800)
    assert sorted(encoder.seen) == sorted(TITLES[1000:2000])
    answers_equal_brute_force(tmp_path, [str(row) for row in range(1, 2401)], TITLES[:2400])


def test_a_shard_whose_fast_index_is_another_is_scanned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = build(tmp_path, TITLES[:2400], fast_from=800, shard_rows=1000)
    file = tmp_path / "index-1.1.faiss"
    file.write_bytes(b"x" * file.stat().st_size)
    with Index.open(tmp_path, encoder) as index, caplog.at_level(logging.WARNING):
        hits = index.search([TITLES[1500], TITLES[10]], 1)
    assert [each[0].title for each in hits] == [TITLES[1500], TITLES[10]]
    assert f"{file}: is not a fast index of these vectors" in caplog.text


@pytest.mark.parametrize("change", [
    {"shards": "all"}, {"rows": 9}, {"asked": {"half": "yes"}}, {"asked": {"shard_rows": -1}}, {"asked": 5},
    {"shards": [{"rows": 1000}, {"rows": 1000}, {"rows": 1}]}, {"shards": [{"rows": 1200}, {"rows": "1200"}]},
    {"shards": [{"rows": 1000}, {"rows": 1000, "half": 3}, {"rows": 400}]},
    {"shards": [{"rows": 1000}, {"rows": 1000}, {"rows": 800}, {"rows": -400}]},
])
def test_a_manifest_whose_shards_do_not_fit_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    build(tmp_path, TITLES[:2400], shard_rows=1000)
    path = tmp_path / "manifest-1.json"
    about = {key: value for key, value in unsealed(path).items() if key != "sha256"}
    path.write_text(sealed(about))
    Index.open(tmp_path, WordEncoder()).close()
    path.write_text(sealed({**about, **change}))
    with pytest.raises(UserError, match="is not the manifest of this generation"):
        Index.open(tmp_path, WordEncoder())


def test_half_precision_takes_half_the_bytes_and_finds_the_same(tmp_path: Path) -> None:
    full, half = tmp_path / "full", tmp_path / "half"
    encoder = build(full, TITLES[:2400], fast_from=800)
    build(half, TITLES[:2400], fast_from=800, half=True, shard_rows=1000)
    assert np.load(half / "vectors-1.0.npy").dtype == np.float16
    size = sum(file.stat().st_size for file in half.glob("vectors-*"))
    assert size < 0.51 * (full / "vectors-1.npy").stat().st_size
    queries = encoder.encode(titles_like(50, seed=9))
    with Index.open(full, encoder) as left, Index.open(half, encoder) as right:
        for exact in (True, False):
            expected, found = (index.search_vectors(queries, 10, exact=exact)[0] for index in (left, right))
            np.testing.assert_allclose(found, expected, atol=2e-4)
            assert found.max() <= 1 + 1e-6
        np.testing.assert_allclose(right.cut(8), left.cut(8), atol=2e-3)
    assert verify(half) == []
    again = build(half, [*TITLES[:2399], "a flood"], fast_from=800)  # what is stored is reused, and stays as it is
    assert again.seen == ["a flood"] and np.load(half / "vectors-2.2.npy").dtype == np.float16


def test_half_precision_can_be_left_again(tmp_path: Path) -> None:
    build(tmp_path, TITLES[:2400], fast_from=800, shard_rows=1000, half=True)
    before = [np.asarray(shard.map_vectors()) for shard in newest(tmp_path).shards]  # type: ignore[union-attr]
    assert build(tmp_path, TITLES[:2400], fast_from=800, half=False).seen == []
    assert verify(tmp_path) == []  # of unit length, not only nearly
    for shard, vectors in zip(newest(tmp_path).shards, before, strict=True):  # type: ignore[union-attr]
        assert np.load(shard.vectors).dtype == np.float32
        np.testing.assert_allclose(np.load(shard.vectors), vectors, atol=1e-7)
    assert newest(tmp_path).number == 2  # type: ignore[union-attr]
    build(tmp_path, TITLES[:2400], fast_from=800)
    assert newest(tmp_path).number == 2  # type: ignore[union-attr]


class Close(TextEncoder):
    """Vectors so near to one another that float16 changes their order."""

    fingerprint = "close" * 8

    def encode(self, texts: list[str], role: str | None = None) -> np.ndarray:
        numbers = [int(text.split()[-1]) for text in texts]
        near = np.stack([1 + 0.02 * np.random.default_rng(number).standard_normal(8) for number in numbers])
        return near.astype(np.float32)


class Mixed(WordEncoder):
    """Titles that are called so too near to one another, others as `WordEncoder` has them."""

    def encode(self, texts: list[str], role: str | None = None) -> np.ndarray:
        words = super().encode(texts)
        for row, text in enumerate(texts):
            if text.startswith("title"):
                words[row] = np.pad(Close().encode([text])[0], (0, self.dim - 8))
        return words


def test_half_precision_is_given_up_where_it_finds_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    titles = [f"title {number}" for number in range(300)]
    index_corpus(tmp_path, IDS[:300], titles, Close(), half=True)
    assert np.load(tmp_path / "vectors-1.npy").dtype == np.float32
    assert "corpus.half: recall@10 of float16 is" in caplog.text
    assert verify(tmp_path) == []
    index_corpus(tmp_path, IDS[:300], titles, Close(), half=True)
    assert newest(tmp_path).number == 1  # type: ignore[union-attr]  # the same again changes nothing


def test_a_shard_in_float32_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    """Where one shard of several can't be halved, the next indexing keeps that one and the halved ones."""
    def ids(count: int) -> list[str]:
        return [f"n{number}" for number in range(count)]

    titles = [*(f"title {number}" for number in range(300)), *titles_like(300)]
    index_corpus(tmp_path, ids(600), titles, Mixed(), half=True, shard_rows=300)
    stored = [np.load(tmp_path / f"vectors-1.{n}.npy").dtype for n in range(2)]
    nodes = [(tmp_path / f"vectors-1.{n}.npy").stat().st_ino for n in range(2)]
    assert stored == [np.float32, np.float16]
    index_corpus(tmp_path, ids(601), [*titles, "a flood"], Mixed())
    assert [(tmp_path / f"vectors-2.{n}.npy").stat().st_ino for n in range(2)] == nodes
    assert verify(tmp_path) == []


def test_vectors_read_as_one_array() -> None:
    whole = np.eye(6, dtype=np.float32)[np.arange(1000) % 6]  # float16 has them exactly
    parts = Vectors([whole[:300], whole[300:301].astype(np.float16), whole[301:]])
    draw = np.random.default_rng(0)
    for rows in (slice(None), slice(290, 310), slice(5, 5), slice(900, 2000), slice(0, 1000, 7), slice(-5, None),
                 draw.integers(0, 1000, 50), np.array([], np.int64), np.array([-1, 0]), whole[:, 0] > 0):
        np.testing.assert_array_equal(parts[rows], whole[rows])
        assert parts[rows].dtype == np.float32
    np.testing.assert_array_equal(parts[np.array(300)], whole[300])
    assert parts.shape == (1000, 6) and len(parts) == 1000
    with pytest.raises(IndexError):
        parts[np.array([1000])]


def test_what_a_machine_that_was_taken_for_dead_still_writes_is_of_no_account(tmp_path: Path) -> None:
    """A shard is written by two, each under names of its own; the one that is heard counts, the other's files go."""
    def twice(tasks: list[ShardTask]) -> list[Shard]:
        return [[write_shard(replace(task, shard=replace(task.shard, attempt=number))) for number in (7, 8)][place % 2]
                for place, task in enumerate(tasks)]

    build(tmp_path, TITLES[:2400], fast_from=800, shard_rows=1000, spread_shards=twice)
    assert [name for name in files(tmp_path) if name.startswith("vectors")] == [
        "vectors-1.0.7.npy", "vectors-1.1.8.npy", "vectors-1.2.7.npy"]
    answers_equal_brute_force(tmp_path, [str(row) for row in range(1, 2401)], TITLES[:2400])
    encoder = build(tmp_path, [*TITLES[:2399], "a flood"], fast_from=800)
    assert encoder.seen == ["a flood"] and "vectors-2.1.npy" in files(tmp_path)


@pytest.mark.parametrize("half", [False, True])
def test_rows_of_a_large_file_are_read_without_mapping_them(half: bool, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentence_forge.search.fast_build.CELLS_FROM", 1000)
    monkeypatch.setattr("sentence_forge.search.fast_build.MOST_TIME", 1e9)  # cells, however long they take
    encoder = build(tmp_path, TITLES[:2400], fast_from=800, half=half)
    queries = encoder.encode(titles_like(50, seed=9))
    with Index.open(tmp_path, encoder) as index:
        expected = index.search_vectors(queries, 10)
        assert index._opened[0][1] is None
    monkeypatch.setattr("sentence_forge.search.shards.SINGLE_FROM", 1)
    with Index.open(tmp_path, encoder) as index:
        file = newest(tmp_path).shards[0].vectors  # type: ignore[union-attr]
        single, rows = index._opened[0][1], np.array([5, 0, 2399])
        np.testing.assert_array_equal(single[rows], np.asarray(index.vectors)[rows])  # type: ignore[index]
        np.testing.assert_array_equal(single[3:5], np.asarray(index.vectors)[3:5])  # type: ignore[index]
        assert isinstance(index.fast, FastIndex) and index.fast._single is single
        file.rename(tmp_path / "elsewhere")  # as a writer that goes on removes it
        found = index.search_vectors(queries, 10)
        (tmp_path / "elsewhere").write_bytes(b"")
        with pytest.raises(UserError, match="it is shorter than it was"):
            single[rows]  # type: ignore[index]
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    np.testing.assert_array_equal(found[1], expected[1])


WRITER = """
import sys
sys.path.insert(0, "tests")
from corpora import build
from test_shards import TITLES
build(__import__("pathlib").Path(sys.argv[1]), TITLES[::-1], fast_from=800, shard_rows=300)
"""


def test_what_a_failure_has_left_goes_before_the_next_try(tmp_path: Path) -> None:
    """Workers have written shards under names of their own when the process that started them fails or is killed."""
    def failing(tasks: list[ShardTask]) -> list[Shard]:
        for task in tasks:
            write_shard(replace(task, shard=replace(task.shard, attempt=7)))
        raise UserError("cluster=ray: workers die again and again")

    build(tmp_path, TITLES[:900], shard_rows=300)
    there = files(tmp_path)
    with pytest.raises(UserError, match="again and again"):
        build(tmp_path, TITLES[:2400], spread_shards=failing)
    assert files(tmp_path) == there
    killed = {"vectors-2.0.7.npy", "index-2.5.9.faiss", "rows-2.8.parquet"}
    for name in killed:
        (tmp_path / name).write_bytes(b"half")
    build(tmp_path, TITLES[:2400])
    assert not killed & set(files(tmp_path))
    answers_equal_brute_force(tmp_path, [str(row) for row in range(1, 2401)], TITLES[:2400])


@pytest.mark.parametrize("place", range(0, 9, 2))
def test_a_writer_killed_between_shards_leaves_the_old_rows(place: int, tmp_path: Path) -> None:
    build(tmp_path, TITLES[:900], shard_rows=300)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT)
    while not (tmp_path / f"vectors-2.{place}.npy").exists():
        assert writer.poll() is None
        time.sleep(0.001)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    answers_equal_brute_force(tmp_path, [str(row) for row in range(1, 901)], TITLES[:900])
    build(tmp_path, TITLES[::-1], fast_from=800)
    assert newest(tmp_path).number == 2  # type: ignore[union-attr]
    answers_equal_brute_force(tmp_path, [str(row) for row in range(1, 2501)], TITLES[::-1])


def test_shards_by_the_command(command: Command, tmp_path: Path) -> None:
    corpus, out = tmp_path / "titles.csv", tmp_path / "news"
    corpus.write_text("title\n" + "".join(f"{title}\n" for title in titles_like(60)))
    assert command("train", *TINY, "loop.max_steps=1", f"hydra.run.dir={tmp_path / 'run'}").code == 0
    given = [f"corpus={corpus}", f"out={out}"]
    bad = command("export", f"model={tmp_path / 'run'}", *given, "corpus.shard_rows=0")
    assert bad.code == 2 and "corpus.shard_rows=0: give a number of rows from 1" in bad.err and not out.exists()
    done = command("export", f"model={tmp_path / 'run'}", *given, "corpus.shard_rows=25", "corpus.half=true")
    assert done.code == 0, done.err
    manifest = json.loads((out / "index" / "manifest-1.json").read_text())
    assert [shard["rows"] for shard in manifest["shards"]] == [25, 25, 10]
    assert all(np.load(out / "index" / f"vectors-1.{n}.npy").dtype == np.float16 for n in range(3))
    found = command("search", str(out), "storm markets", "--json")
    assert found.code == 0 and len(json.loads(found.out)["hits"]) == 10
    assert command("search", str(out), "--verify").code == 0
    assert os.path.getsize(out / "index" / "vectors-1.0.npy") == 128 + 25 * manifest["dim"] * 2
