"""An index is made, brought up to date, killed while it is written, and damaged."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from corpora import WordEncoder, answers_equal_brute_force, build, titles_like
from faults import end_at_last

from sentence_forge.data_readers.formats.rows import BadRow
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.locks import writer_lock
from sentence_forge.search.generation import Generation, numbers
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import Block, encode_here, index_corpus
from sentence_forge.search.segments import read_segments, segment_folder, text_hashes, write_segment
from sentence_forge.search.verify import verify

ROOT = Path(__file__).resolve().parents[1]


def test_reindexing_encodes_only_what_is_new(tmp_path: Path) -> None:
    titles = ["storm hits", "markets fall", "opera opens", "robots walk"]
    encoder = WordEncoder()
    first = index_corpus(tmp_path, ["a", "b", "c", "d"], titles, encoder)
    assert (first.rows, first.encoded, first.added, first.reused) == (4, 4, 4, 0)
    encoder.seen.clear()
    ids, changed = ["e", "a", "b", "d"], ["storm hits", "storm hits", "markets rise", "robots walk"]
    second = index_corpus(tmp_path, ids, changed, encoder)
    assert encoder.seen == ["markets rise"]
    assert (second.rows, second.encoded, second.reused) == (4, 1, 2)
    assert (second.added, second.changed, second.removed) == (1, 1, 1)
    answers_equal_brute_force(tmp_path, ids, changed)
    third = index_corpus(tmp_path, ids, changed, encoder)
    assert (third.encoded, third.reused, third.added, third.changed, third.removed) == (0, 3, 0, 0, 0)
    assert numbers(tmp_path) == [2, 1]  # nothing changed, so nothing was written


def test_repeated_titles_are_encoded_once_and_each_row_is_a_hit(tmp_path: Path) -> None:
    titles = ["storm hits"] * 5 + ["opera opens"] + ["storm hits"]
    encoder = build(tmp_path, titles, segment_rows=1)
    assert encoder.seen == ["storm hits", "opera opens"]
    with Index.open(tmp_path, encoder) as index:
        hits = index.search(["storm hits"], 6)[0]
    assert [hit.id for hit in hits] == ["1", "2", "3", "4", "5", "7"]


def test_ids_and_titles_stay_text(tmp_path: Path) -> None:
    ids, titles = ["007", "1e5", "NA", "null"], ["NA", "null", "007", 'a "b",\nc']
    build(tmp_path, titles, ids)
    with Index.open(tmp_path) as index:
        assert list(index.ids) == ids
        assert index.titles[:] == titles
        assert index.titles[-1] == titles[-1]
        with pytest.raises(IndexError):
            index.ids[4]


def test_two_generations_are_kept_and_no_others(tmp_path: Path) -> None:
    for count in (3, 4, 5, 6):
        build(tmp_path, titles_like(count))
    kept = {path.name for path in tmp_path.iterdir()} - {".lock", "rejected.csv"}
    assert kept == {f"{name}-{number}.{end}" for number in (3, 4)
                    for name, end in (("manifest", "json"), ("rows", "parquet"), ("vectors", "npy"),
                                      ("rejected", "csv"))}


def test_an_open_index_stays_as_it_was_while_newer_ones_are_written(tmp_path: Path) -> None:
    build(tmp_path, titles_like(50))
    with Index.open(tmp_path, WordEncoder()) as index:
        before = index.search(["storm report"], 50)
        for seed in (1, 2, 3):
            build(tmp_path, titles_like(20, seed))
        assert index.search(["storm report"], 50) == before


def test_an_index_opened_before_two_reindexings_has_its_fast_index(tmp_path: Path) -> None:
    build(tmp_path, titles_like(300), fast_from=40)
    with Index.open(tmp_path, WordEncoder()) as index:
        for seed in (1, 2):
            build(tmp_path, titles_like(300, seed), fast_from=40)
        assert not (tmp_path / "index-1.faiss").exists()
        assert index.fast is not None
        assert index.search(["storm report"], 5) == index.search(["storm report"], 5, exact=True)


def test_readers_always_find_an_index_while_a_writer_goes_from_one_to_the_next(tmp_path: Path) -> None:
    build(tmp_path, titles_like(20))

    writer, found = os.fork(), 0
    if not writer:
        try:
            end_at_last()
            for seed in range(1, 41):
                build(tmp_path, titles_like(20, seed))
        finally:
            os._exit(0)
    while not os.waitpid(writer, os.WNOHANG)[0]:
        with Index.open(tmp_path, WordEncoder()) as index:
            assert len(index.search(["storm report"], 3)[0]) == 3
        found += 1
    assert (tmp_path / "manifest-41.json").exists() and found > 5


def test_rejected_rows_are_listed(tmp_path: Path) -> None:
    build(tmp_path, ["storm hits"], rejected=[BadRow(3, 2, "title is empty", "")])
    assert "title is empty" in (tmp_path / "rejected.csv").read_text()
    build(tmp_path, ["storm hits"])
    assert "title is empty" not in (tmp_path / "rejected.csv").read_text()
    assert verify(tmp_path) == []


def test_what_cannot_be_indexed_is_named_and_the_old_index_stays(tmp_path: Path) -> None:
    build(tmp_path, ["storm hits"])
    with pytest.raises(UserError, match="no titles"):
        index_corpus(tmp_path, [], [], WordEncoder())
    with pytest.raises(UserError, match=r"id 'x' is that of rows 1 and 3"):
        index_corpus(tmp_path, ["x", "y", "x"], ["a", "b", "c"], WordEncoder())
    with pytest.raises(UserError, match=r"title '  ' \(id 'y'\) is all zeros"):
        index_corpus(tmp_path, ["x", "y"], ["a", "  "], WordEncoder())
    with pytest.raises(UserError, match="index is of another model"):
        index_corpus(tmp_path, ["x"], ["a"], WordEncoder("other"))
    with writer_lock(tmp_path), pytest.raises(UserError, match=str(os.getpid())):
        index_corpus(tmp_path, ["x"], ["a"], WordEncoder())
    answers_equal_brute_force(tmp_path, ["1"], ["storm hits"])


def test_an_unfinished_index_of_another_model_is_not_continued(tmp_path: Path) -> None:
    class Failing(WordEncoder):
        def encode(self, texts: Sequence[str], role: str | None = None) -> np.ndarray:
            if self.seen:
                raise KeyboardInterrupt
            return super().encode(texts)

    with pytest.raises(KeyboardInterrupt):
        index_corpus(tmp_path, ["1", "2"], ["a", "b"], Failing(), segment_rows=1)
    with pytest.raises(UserError, match=r"in another way; go on with precision=fp32 backend=onnxruntime"):
        read_segments(tmp_path, WordEncoder().fingerprint + "-bf16")
    with pytest.raises(UserError, match="unfinished index of another model"):
        index_corpus(tmp_path, ["1", "2"], ["a", "b"], WordEncoder("other"))
    assert build(tmp_path, ["a", "b"]).seen == ["b"]


CHILD = """
import os, signal, sys
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from corpora import WordEncoder, index_corpus, titles_like
import pyarrow.parquet, faiss
count = 0
def hook(event, args):
    global count
    if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.rmtree"):
        count += 1
        if count == {kill}:
            os.kill(os.getpid(), signal.SIGKILL)
titles = titles_like(60, seed={seed})
sys.addaudithook(hook)
index_corpus(Path({folder!r}), [str(i) for i in range(60)], titles, WordEncoder(), segment_rows=8, fast_from=50)
print(count)
"""


def index_in_child(folder: Path, seed: int, kill: int) -> subprocess.CompletedProcess[str]:
    script = CHILD.format(root=str(ROOT), tests=str(ROOT / "tests"), folder=str(folder), seed=seed, kill=kill)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_kill_9_at_any_file_operation_leaves_the_old_index_or_the_new(tmp_path: Path) -> None:
    start = tmp_path / "start"
    assert index_in_child(start, 0, -1).returncode == 0
    shutil.copytree(start, tmp_path / "dry")
    operations = int(index_in_child(tmp_path / "dry", 1, -1).stdout)
    ids, old, new = [str(row) for row in range(60)], titles_like(60, 0), titles_like(60, 1)
    outcomes = set()
    for kill in sorted({*range(3, operations, operations // 6), *range(operations - 12, operations + 1, 4)}):
        folder = tmp_path / f"kill-{kill}"
        shutil.copytree(start, folder)
        assert index_in_child(folder, 1, kill).returncode == -signal.SIGKILL
        with Index.open(folder) as index:
            committed = list(index.titles) == new
        outcomes.add(committed)
        answers_equal_brute_force(folder, ids, new if committed else old)
        encoder = WordEncoder()
        index_corpus(folder, ids, new, encoder, segment_rows=8, fast_from=50)
        answers_equal_brute_force(folder, ids, new)
        assert not list(folder.rglob(".tmp-*")) and not (folder / "segments").exists()
        shutil.rmtree(folder)
    assert outcomes == {False, True}


def test_a_killed_run_continues_where_it_was(tmp_path: Path) -> None:
    class Killed(WordEncoder):
        def encode(self, texts: Sequence[str], role: str | None = None) -> np.ndarray:
            if len(self.seen) >= 30:
                raise MemoryError
            return super().encode(texts)

    titles = titles_like(100)
    ids = [str(row) for row in range(100)]
    with pytest.raises(MemoryError):
        index_corpus(tmp_path, ids, titles, Killed(), segment_rows=10)
    with pytest.raises(UserError, match="no finished index"):
        Index.open(tmp_path)
    # A segment damaged meanwhile is encoded again rather than believed.
    vectors = segment_folder(tmp_path, text_hashes(titles[10:20])) / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"x")
    encoder = WordEncoder()
    report = index_corpus(tmp_path, ids, titles, encoder, segment_rows=10)
    assert encoder.seen == titles[10:20] + titles[30:]
    assert (report.encoded, report.reused) == (80, 20)
    answers_equal_brute_force(tmp_path, ids, titles)


@pytest.mark.parametrize("segment_rows", [10, 1000])
def test_a_segment_damaged_while_the_run_goes_on_is_never_stood_in_for(tmp_path: Path, segment_rows: int) -> None:
    def then_damaged(folder: Path, parts: Iterator[Block], tell: Callable[[int], None]) -> None:
        encode_here(encoder, folder, parts, tell)
        file = segment_folder(folder, text_hashes(titles[:segment_rows])) / "vectors.npy"
        file.write_bytes(file.read_bytes()[:-1] + b"x")

    encoder, titles = WordEncoder(), titles_like(30)
    ids = [str(row) for row in range(30)]
    with pytest.raises(UserError, match="start again, the other segments are reused"):
        index_corpus(tmp_path, ids, titles, encoder, segment_rows=segment_rows, spread=then_damaged)
    assert not list(tmp_path.glob("*-1.*"))
    report = index_corpus(tmp_path, ids, titles, encoder, segment_rows=segment_rows)
    assert report.encoded == min(segment_rows, 30)
    answers_equal_brute_force(tmp_path, ids, titles)


def test_a_killed_runs_orphan_that_writes_on_takes_no_other_runs_place(tmp_path: Path) -> None:
    """As a worker on another machine may, which has not heard yet that its run was killed."""
    orphans, titles = titles_like(10, seed=1), titles_like(30)
    ids = [str(row) for row in range(30)]

    def beside_an_orphan(folder: Path, parts: Iterator[Block], tell: Callable[[int], None]) -> None:
        encode_here(encoder, folder, iter([Block(ids[:10], orphans, text_hashes(orphans))]), tell)
        encode_here(encoder, folder, parts, tell)

    encoder = WordEncoder()
    index_corpus(tmp_path, ids, titles, encoder, segment_rows=10, spread=beside_an_orphan)
    answers_equal_brute_force(tmp_path, ids, titles)


def test_a_larger_corpus_has_larger_segments_not_more_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentence_forge.search.indexing._SEGMENTS", 4)
    sizes = []

    def counted(folder: Path, blocks: Iterator[Block], tell: Callable[[int], None]) -> None:
        encode_here(WordEncoder(), folder, (sizes.append(len(block.titles)) or block for block in blocks), tell)

    titles = titles_like(120)
    index_corpus(tmp_path, [*map(str, range(120))], titles, WordEncoder(), segment_rows=10, spread=counted)
    assert sizes == [30, 30, 30, 30]


def test_of_two_who_write_one_segment_the_first_is_kept(tmp_path: Path) -> None:
    hashes = text_hashes(["storm", "opera"])
    for value in (1, 2):
        write_segment(tmp_path, hashes, np.full((2, 4), value, np.float32), "words")
    (segment,) = read_segments(tmp_path, "words")
    assert (segment.vectors == 1).all() and not list(tmp_path.rglob(".tmp-*"))


def test_a_damaged_newest_manifest_rolls_back_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    build(tmp_path, ["old title"])
    build(tmp_path, ["new title"])
    good = (tmp_path / "manifest-2.json").read_bytes()
    for bad in (b"", good[:40], good.replace(b'"rows": 1', b'"rows": 2'), b"[]", b"{}"):
        (tmp_path / "manifest-2.json").write_bytes(bad)
        caplog.clear()
        with Index.open(tmp_path, WordEncoder()) as index:
            assert index.search(["title"])[0][0].title == "old title"
        assert "manifest-2.json" in caplog.text and "going back" in caplog.text
    build(tmp_path, ["newer title"])
    with Index.open(tmp_path) as index:
        assert list(index.titles) == ["newer title"]
    (tmp_path / "manifest-3.json").unlink()
    (tmp_path / "manifest-1.json").write_bytes(b"")
    with pytest.raises(UserError, match="no manifest is intact"):
        Index.open(tmp_path)


def test_vectors_damaged_on_disk_are_not_carried_into_the_next_generation(tmp_path: Path) -> None:
    build(tmp_path, ["storm hits", "opera opens"])
    path = tmp_path / "vectors-1.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    assert build(tmp_path, ["storm hits", "robots walk"]).seen == ["storm hits", "robots walk"]
    answers_equal_brute_force(tmp_path, ["1", "2"], ["storm hits", "robots walk"])


def test_verify_finds_every_flipped_bit(tmp_path: Path) -> None:
    build(tmp_path, titles_like(40), fast_from=30)
    build(tmp_path, titles_like(45), fast_from=30)
    assert verify(tmp_path) == []
    draw = random.Random(0)
    files = [path for path in tmp_path.iterdir() if path.name != ".lock"]
    assert {path.suffix for path in files} == {".json", ".parquet", ".npy", ".faiss", ".csv"}
    for path in files * 5:
        whole = path.read_bytes()
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        assert verify(tmp_path) != [], path.name
        path.write_bytes(whole)
    assert verify(tmp_path) == []


@pytest.mark.parametrize("before", ["damaged", "read_rows"])
def test_verify_beside_a_writer_says_nothing_of_what_that_one_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                      before: str) -> None:
    titles = titles_like(40)
    build(tmp_path, titles)
    build(tmp_path, titles[1:])
    check, waiting = getattr(Generation, before), [titles[2:], titles[3:]]

    def interrupted(generation: Generation, *given: object) -> object:
        writing, waiting[:] = waiting[:], []
        for more in writing:  # two generations, so that the one that is being checked goes
            build(tmp_path, more)
        return check(generation, *given)

    monkeypatch.setattr(Generation, before, interrupted)
    assert verify(tmp_path) == []
    damage = tmp_path / "vectors-4.npy"
    damage.write_bytes(damage.read_bytes()[:-1] + b"x")
    assert verify(tmp_path) == [f"{damage}: damaged, its bytes differ from the manifest's sha256"]


def test_verify_finds_every_damaged_segment(tmp_path: Path) -> None:
    """They are named by hashes, so half of them begin with a letter."""
    build(tmp_path, ["storm hits"])
    folders = []
    for title in titles_like(12):
        hashes = text_hashes([title])
        write_segment(tmp_path, hashes, np.ones((1, 4), dtype=np.float32) / 2, "words")
        folders.append(segment_folder(tmp_path, hashes))
    assert len({folder.name[0].isdigit() for folder in folders}) == 2 and verify(tmp_path) == []
    for folder in folders:
        (folder / "vectors.npy").write_bytes(b"damaged")
    assert len(verify(tmp_path)) == 12
