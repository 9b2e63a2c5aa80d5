from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from sentence_forge.data_readers.rejected import Rejected
from sentence_forge.encoders.similarity import cosine_top_k, normalise
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import writer_lock
from sentence_forge.search import cli
from sentence_forge.search.engine import Index
from sentence_forge.search.generation import numbers
from sentence_forge.search.index import FastIndex, build_fast, sub_quantisers
from sentence_forge.search.indexing import Part, encode_here, index_corpus
from sentence_forge.search.pairs import most_similar_pairs
from sentence_forge.search.segments import read_segments, segment_folder, text_hashes, write_segment
from sentence_forge.search.table import cut, width_of
from sentence_forge.search.verify import verify

ROOT = Path(__file__).resolve().parents[1]
TOPICS = ["storm", "markets", "election", "football", "vaccine", "robots", "opera", "drought"]


class WordEncoder:
    """A text is the sum of its words' random vectors: deterministic, and alike for texts that share words."""

    def __init__(self, fingerprint: str = "words" * 8, dim: int = 32) -> None:
        self.fingerprint = fingerprint
        self.dim = dim
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str], role: str | None = None) -> np.ndarray:
        self.seen += texts
        return np.stack([sum((self._word(word) for word in text.split()), np.zeros(self.dim, np.float32))
                         for text in texts])

    def _word(self, word: str) -> np.ndarray:
        seed = int.from_bytes(sha256(word.encode()).digest()[:8])
        return np.random.default_rng(seed).standard_normal(self.dim, dtype=np.float32)


def titles_like(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [f"{draw.choice(TOPICS)} {draw.choice(TOPICS)} report {number}" for number in range(count)]


def unit_vectors(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """Vectors in clusters, as texts' are: uniform ones on a sphere have no near neighbours worth finding."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((50, dim))
    return normalise(centres[draw.integers(0, 50, count)] + 0.7 * draw.standard_normal((count, dim)))


def build(folder: Path, titles: list[str], ids: list[str] | None = None, **options: object) -> WordEncoder:
    encoder = WordEncoder()
    index_corpus(folder, ids or [str(row) for row in range(1, len(titles) + 1)], titles, encoder, **options)
    return encoder


def answers_equal_brute_force(folder: Path, ids: list[str], titles: list[str]) -> None:
    with Index.open(folder, WordEncoder()) as index:
        assert list(index.ids) == ids
        assert list(index.titles) == titles
        vectors = normalise(WordEncoder().encode(titles))
        np.testing.assert_allclose(index.vectors, vectors, atol=1e-6)
        query = normalise(WordEncoder().encode(["storm election report"]))
        scores, _ = index.search_vectors(query, 5)
        np.testing.assert_allclose(scores[0], np.sort(vectors @ query[0])[::-1][:5], atol=1e-6)
    assert verify(folder) == []


# --- similarity ---------------------------------------------------------------------------------------------------


def test_exact_top_k_is_semantic_search() -> None:
    torch = pytest.importorskip("torch")
    from sentence_transformers.util import semantic_search

    vectors, queries = unit_vectors(3000, 48), 3.0 * unit_vectors(40, 48, seed=1)
    scores, rows = cosine_top_k(vectors, queries, 10, chunk=256)
    for query, expected in enumerate(semantic_search(torch.tensor(queries), torch.tensor(vectors), top_k=10)):
        assert rows[query].tolist() == [hit["corpus_id"] for hit in expected]
        np.testing.assert_allclose(scores[query], [hit["score"] for hit in expected], atol=1e-6)


def test_top_k_ties_go_to_the_lower_row_across_blocks(tmp_path: Path) -> None:
    vectors = np.repeat(unit_vectors(7, 24), 30, axis=0)[np.random.default_rng(0).permutation(210)]
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    query = vectors[5]
    equal = np.flatnonzero((vectors == query).all(axis=1))
    for chunk in (1, 13, 64, 1000):
        scores, rows = cosine_top_k(mapped, query[None], 20, chunk=chunk)
        assert rows[0].tolist() == equal[:20].tolist()
        assert len(set(scores[0].tolist())) == 1


def test_top_k_with_k_above_rows_returns_all_rows() -> None:
    scores, rows = cosine_top_k(unit_vectors(3, 8), unit_vectors(2, 8), 10)
    assert scores.shape == rows.shape == (2, 3)
    assert sorted(rows[0].tolist()) == [0, 1, 2]
    assert scores.dtype == np.float32 and rows.dtype == np.int64


@pytest.mark.parametrize(("value", "reason"), [(0.0, "all zeros"), (np.nan, "NaN"), (np.inf, "infinite")])
def test_normalise_names_the_row_without_direction(value: float, reason: str) -> None:
    vectors = np.ones((4, 3), np.float32)
    vectors[2] = value
    with pytest.raises(UserError, match=f"row 2 .*{reason}"):
        normalise(vectors)


def test_normalise_survives_values_whose_squares_overflow_float32() -> None:
    np.testing.assert_allclose(normalise(np.array([[3e30, 4e30], [3e-30, 4e-30]], np.float32)), [[0.6, 0.8]] * 2,
                               rtol=1e-6)


# --- fast index ---------------------------------------------------------------------------------------------------


def test_fast_index_keeps_its_promise_and_its_scores_are_exact(tmp_path: Path) -> None:
    vectors = unit_vectors(20_000, 64)
    about = build_fast(vectors, tmp_path / "index.faiss")
    assert about is not None
    assert about["recall_at_10"] >= 0.999
    assert (tmp_path / "index.faiss").stat().st_size < vectors.nbytes / 10
    fast = FastIndex.load(tmp_path / "index.faiss", vectors, about["k_factor"])
    queries = unit_vectors(300, 64)[::3]
    scores, rows = fast.search(queries, 10)
    expected, _ = cosine_top_k(vectors, queries, 10)
    assert (scores >= expected[:, -1:] - 1e-6).mean() >= 0.999
    np.testing.assert_allclose(scores, np.einsum("qkd,qd->qk", vectors[rows], queries), atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_fast_index_gives_way_where_recall_cannot_be_had(tmp_path: Path) -> None:
    assert build_fast(unit_vectors(3000, 16), tmp_path / "index.faiss", promise=1.01) is None
    assert not (tmp_path / "index.faiss").exists()


@pytest.mark.parametrize(("dim", "size"), [(384, 192), (768, 384), (2, 1), (15, 5), (1, 1)])
def test_sub_quantisers_divide_the_dimension(dim: int, size: int) -> None:
    assert sub_quantisers(dim) == size


def test_index_uses_the_fast_index_and_exact_agrees(tmp_path: Path) -> None:
    titles = titles_like(1500)
    build(tmp_path, titles, fast_from=1000)
    with Index.open(tmp_path, WordEncoder()) as index:
        assert index.fast is not None
        fast, exact = index.search(["vaccine report 77"], 5), index.search(["vaccine report 77"], 5, exact=True)
    assert fast == exact
    assert [hit.rank for hit in fast[0]] == [1, 2, 3, 4, 5]
    assert verify(tmp_path) == []


# --- pairs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "dim", "k"), [(2500, 96, 50), (40, 8, 10_000), (2, 4, 1), (300, 3, 700)])
def test_pairs_are_those_of_brute_force(count: int, dim: int, k: int) -> None:
    vectors = unit_vectors(count, dim)
    rows = np.arange(count)
    scores, left, right = most_similar_pairs(vectors, rows, k)
    cosines = (vectors.astype(np.float64) @ vectors.T)[np.triu_indices(count, 1)]
    np.testing.assert_allclose(scores, np.sort(cosines)[::-1][:k], atol=1e-6)
    assert (left < right).all()
    assert len(set(zip(left.tolist(), right.tolist(), strict=True))) == len(scores)
    np.testing.assert_allclose(scores, np.einsum("nd,nd->n", vectors[left], vectors[right]), atol=1e-6)


def test_pairs_of_many_rows_are_found_cell_by_cell() -> None:
    vectors, draw = unit_vectors(4000, 48), np.random.default_rng(5)
    twins = draw.permutation(4000)[:60].reshape(30, 2)
    vectors[twins[:, 1]] = normalise(vectors[twins[:, 0]] + 0.03 * draw.standard_normal((30, 48)))
    scores, left, right = most_similar_pairs(vectors, np.arange(4000), 30, exact_up_to=1000)
    expected = most_similar_pairs(vectors, np.arange(4000), 30)
    assert {frozenset(pair) for pair in zip(left.tolist(), right.tolist(), strict=True)} == {
        frozenset(pair) for pair in twins.tolist()}
    np.testing.assert_array_equal(scores, expected[0])


def test_pairs_leave_word_for_word_repeats_out_unless_asked(tmp_path: Path) -> None:
    build(tmp_path, ["storm hits coast", "opera opens", "storm hits coast", "storm hits the coast"])
    with Index.open(tmp_path, WordEncoder()) as index:
        best = index.pairs(1)[0]
        assert (best.id1, best.id2) == ("1", "4")
        twin = index.pairs(1, repeats=True)[0]
        assert (twin.id1, twin.id2) == ("1", "3") and twin.score == pytest.approx(1)
        assert index.repeated_rows == 1


# --- indexing -----------------------------------------------------------------------------------------------------


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


def test_rejected_rows_are_listed(tmp_path: Path) -> None:
    build(tmp_path, ["storm hits"], rejected=[Rejected(3, 2, "title is empty", "")])
    assert "title is empty" in (tmp_path / "rejected.csv").read_text()
    build(tmp_path, ["storm hits"])
    assert "title is empty" not in (tmp_path / "rejected.csv").read_text()
    assert verify(tmp_path) == []


def test_what_cannot_be_indexed_is_named_and_the_old_index_stays(tmp_path: Path) -> None:
    build(tmp_path, ["storm hits"])
    with pytest.raises(UserError, match="no titles"):
        index_corpus(tmp_path, [], [], WordEncoder())
    with pytest.raises(UserError, match=r"id 'x' stands in rows 1 and 3"):
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
    with pytest.raises(UserError, match=r"in another precision; go on with precision=fp32"):
        read_segments(tmp_path, WordEncoder().fingerprint + "-bf16")
    with pytest.raises(UserError, match="unfinished index of another model"):
        index_corpus(tmp_path, ["1", "2"], ["a", "b"], WordEncoder("other"))
    assert build(tmp_path, ["a", "b"]).seen == ["b"]


# --- crashes ------------------------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from test_search import WordEncoder, index_corpus, titles_like
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
    def then_damaged(folder: Path, parts: Iterator[Part], tell: Callable[[int], None]) -> None:
        encode_here(encoder, folder, parts, tell)
        file = segment_folder(folder, text_hashes(titles[:segment_rows])) / "vectors.npy"
        file.write_bytes(file.read_bytes()[:-1] + b"x")

    encoder, titles = WordEncoder(), titles_like(30)
    ids = [str(row) for row in range(30)]
    with pytest.raises(UserError, match="start again, what is encoded is kept"):
        index_corpus(tmp_path, ids, titles, encoder, segment_rows=segment_rows, spread=then_damaged)
    assert not list(tmp_path.glob("*-1.*"))
    report = index_corpus(tmp_path, ids, titles, encoder, segment_rows=segment_rows)
    assert report.encoded == min(segment_rows, 30)
    answers_equal_brute_force(tmp_path, ids, titles)


def test_a_killed_runs_orphan_that_writes_on_takes_no_other_runs_place(tmp_path: Path) -> None:
    """As a worker on another machine may, which has not heard yet that its run was killed."""
    orphans, titles = titles_like(10, seed=1), titles_like(30)
    ids = [str(row) for row in range(30)]

    def beside_an_orphan(folder: Path, parts: Iterator[Part], tell: Callable[[int], None]) -> None:
        encode_here(encoder, folder, iter([Part(ids[:10], orphans, text_hashes(orphans))]), tell)
        encode_here(encoder, folder, parts, tell)

    encoder = WordEncoder()
    index_corpus(tmp_path, ids, titles, encoder, segment_rows=10, spread=beside_an_orphan)
    answers_equal_brute_force(tmp_path, ids, titles)


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
    with pytest.raises(UserError, match="no manifest is whole"):
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


# --- queries ------------------------------------------------------------------------------------------------------


def test_queries_that_cannot_be_answered_are_refused(tmp_path: Path) -> None:
    build(tmp_path, ["storm hits", "opera opens"])
    with pytest.raises(UserError, match="another model"):
        Index.open(tmp_path, WordEncoder("other"))
    with Index.open(tmp_path, WordEncoder()) as index:
        for bad in (np.zeros(32), np.full(32, np.nan), np.full(32, np.inf)):
            with pytest.raises(UserError, match="row 0"):
                index.search_vectors(bad, 1)
        with pytest.raises(UserError, match="dimensions"):
            index.search_vectors(np.ones(31), 1)
        with pytest.raises(UserError, match="k=0"):
            index.search(["storm"], 0)
        with pytest.raises(UserError, match="is empty"):
            index.search(["storm", " "])
        with pytest.raises(TypeError):
            index.search("storm")
        assert len(index.search(["storm"], 99)[0]) == 2
        assert index.search([]) == []
    with Index.open(tmp_path) as index, pytest.raises(UserError, match="is no export"):
        index.search(["storm"])


def test_a_cut_is_what_brute_force_finds_among_the_first_numbers(tmp_path: Path) -> None:
    titles = titles_like(500)
    build(tmp_path, titles)
    vectors, query = WordEncoder().encode(titles), WordEncoder().encode(["storm election report 7"])[0]
    with Index.open(tmp_path, WordEncoder()) as index:
        for dim in (8, 20, 32):
            cut = normalise(vectors[:, :dim])
            cosines = cut @ (query[:dim] / np.linalg.norm(query[:dim]))
            hits = index.search(["storm election report 7"], 10, dim=dim)[0]
            np.testing.assert_allclose([hit.score for hit in hits], np.sort(cosines)[::-1][:10], atol=1e-6)
            np.testing.assert_allclose([cosines[int(hit.id) - 1] for hit in hits], [hit.score for hit in hits],
                                       atol=1e-6)
        assert index.search(["storm"], 5, dim=8) != index.search(["storm"], 5)
        for dim in (0, 33):
            with pytest.raises(UserError, match=f"dim {dim}: the index's vectors have 32 numbers; give 1 to 32"):
                index.search(["storm"], dim=dim)


def test_open_takes_the_export_folder_too(tmp_path: Path) -> None:
    build(tmp_path / "index", ["storm hits"])
    with Index.open(str(tmp_path), WordEncoder()) as index:
        assert index.search(["storm"])[0][0].id == "1"
        assert index.vectors.dtype == np.float32 and index.vectors.shape == (1, 32)
    with pytest.raises(UserError, match="no such folder"):
        Index.open(tmp_path / "nowhere")


# --- command line -------------------------------------------------------------------------------------------------


def run(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "search", *arguments], capture_output=True, text=True, input=text,
                          cwd=ROOT, check=False)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an export folder's own encoder be the word encoder: the model itself is tested elsewhere."""
    monkeypatch.setattr("sentence_forge.search.engine.load_query_encoder", lambda export, fingerprint: WordEncoder())


@pytest.mark.usefixtures("in_process")
def test_cli_json_gives_one_object_a_query(tmp_path: Path, capfd: pytest.CaptureFixture[str],
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "index", ["storm hits", "京津冀 秋冬", "opera opens"])
    assert cli.main([str(tmp_path), "京津冀", "-k", "2", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert set(answer) == {"query", "took_ms", "hits"} and set(answer["took_ms"]) == {"encode", "search"}
    assert answer["query"] == "京津冀"
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2]
    assert answer["hits"][0]["id"] == "2" and answer["hits"][0]["title"] == "京津冀 秋冬"
    (tmp_path / "queries.txt").write_bytes("\ufeffstorm\n\nopera\r\n".encode())
    assert cli.main([str(tmp_path), "--queries", str(tmp_path / "queries.txt"), "--json", "-k1", "--exact"]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(line["query"], line["hits"][0]["id"]) for line in lines] == [("storm", "1"), ("opera", "3")]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"opera\nstorm\n")))
    assert cli.main([str(tmp_path), "-k1"]) == 0
    shown = capfd.readouterr().out.splitlines()
    assert [line.split("\t")[2:] for line in shown[1::2]] == [["3", "opera opens"], ["1", "storm hits"]]
    assert "encode" in shown[0] and "search" in shown[0] and "3 titles" in shown[0]
    assert cli.main([str(tmp_path), "storm hits", "--dim", "5", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["dim"] == 5 and answer["hits"][0]["id"] == "1"


def test_cli_as_typed(tmp_path: Path) -> None:
    build(tmp_path / "index", ["storm hits coast", "storm hits the coast", "opera opens", "opera opens"])
    pairs = run(str(tmp_path), "--pairs", "-k", "1")
    assert pairs.returncode == 0 and pairs.stdout.split("\t")[1::2] == ["1", "2"]
    assert "1 row repeats" in pairs.stderr
    as_json = json.loads(run(str(tmp_path), "--pairs", "-k", "1", "--json", "--repeats").stdout)
    assert (as_json["id1"], as_json["id2"]) == ("3", "4")
    assert run(str(tmp_path), "--verify").returncode == 0
    cut = run(str(tmp_path), "opera", "--dim", "384")  # refused before an encoder is looked for
    assert (cut.returncode, cut.stderr) == (2, "error: dim 384: the index's vectors have 32 numbers; give 1 to 32\n")
    (tmp_path / "index" / "rejected-1.csv").write_bytes(b"x")
    damaged = run(str(tmp_path), "--verify")
    assert damaged.returncode == 2 and "rejected-1.csv" in damaged.stdout and damaged.stderr.startswith("error: ")


@pytest.mark.parametrize(("arguments", "message"), [
    ((), "required: DIR"),
    (("nowhere", "query"), "nowhere: no such folder"),
    (("tests", "query"), "tests: holds no finished index"),
    (("tests", "-k", "x"), "invalid int value: 'x'"),
    (("tests", "-k", "0"), "-k 0: must be 1 or more"),
    (("tests", "query", "--pairs"), "--pairs takes no query"),
    (("tests", "--pairs", "--dim", "9"), "--dim can't be joined with --pairs"),
    (("tests", "--jsn"), "unrecognized arguments: --jsn"),
])
def test_cli_errors_are_one_line_and_exit_2(arguments: tuple[str, ...], message: str,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_cli_names_the_file_and_line_that_is_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(tmp_path / "index", ["storm hits"])
    (tmp_path / "queries.txt").write_bytes("storm\n京".encode("gbk"))
    assert cli.main([str(tmp_path), "--queries", str(tmp_path / "queries.txt")]) == 2
    assert "queries.txt, line 2: is not UTF-8" in capsys.readouterr().err


def test_a_query_imports_nothing_heavy(tmp_path: Path) -> None:
    build(tmp_path, titles_like(60), fast_from=50)
    script = (f"import sys; sys.path[:0] = [{str(ROOT)!r}]\n"
              "from search import cli\n"
              "assert not {'numpy', 'faiss', 'pyarrow'} & set(sys.modules), 'for --help'\n"
              "import numpy as np\nfrom sentence_forge.search.engine import Index\n"
              f"index = Index.open({str(tmp_path)!r})\n"
              "index.hits(*index.search_vectors(np.ones(32), 3))\n"
              "heavy = {'torch', 'sentence_transformers', 'transformers', 'pandas', 'datasets', 'scipy'}\n"
              "print(sorted(heavy & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_help_is_there() -> None:
    done = run("--help")
    assert done.returncode == 0 and "--exact" in done.stdout and done.stderr == ""


def test_wide_characters_count_as_two_cells() -> None:
    assert width_of("京津冀 PM2.5") == 12
    assert cut("京津冀秋冬大气", 8) == "京津冀…"
    assert width_of(cut("京津冀秋冬大气", 8)) <= 8
    assert cut("short", 8) == "short"
