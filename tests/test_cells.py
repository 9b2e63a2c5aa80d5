"""The fast index of many rows, in cells: held against brute force, re-indexed, damaged, killed, beside older ones."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from corpora import WordEncoder, answers_equal_brute_force, build, titles_like, unit_vectors
from faults import Acknowledge, forked
from test_hostile_index import fuzz, reseal

from sentence_forge.encoders.similarity import cosine_top_k
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.manifests import unsealed
from sentence_forge.search import fast_build, learning
from sentence_forge.search.cells import Cells
from sentence_forge.search.fast import FastIndex
from sentence_forge.search.fast_build import Before, build_fast
from sentence_forge.search.index import Index
from sentence_forge.search.verify import verify

ROWS, DIM = 6000, 64
TITLES = titles_like(1500)


@pytest.fixture(autouse=True)
def few_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of so few rows all codes are scanned sooner than cells are chosen, which is not what is tested here."""
    monkeypatch.setattr(fast_build, "CELLS_FROM", 1000)
    monkeypatch.setattr(fast_build, "MOST_TIME", float("inf"))


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit_vectors(ROWS, DIM)


def test_cells_find_what_brute_force_finds_and_scores_are_exact(vectors: np.ndarray, tmp_path: Path) -> None:
    about = build_fast(vectors, tmp_path / "file")
    assert about is not None and about["recall_at_10"] >= 0.995 and about["probes"] <= about["cells"] / 2
    assert (tmp_path / "file").stat().st_size < vectors.nbytes / 3
    fast = FastIndex.load(tmp_path / "file", vectors, about)
    queries = vectors[np.random.default_rng(1).integers(0, ROWS, 200)]
    for k in (1, 10, 50):
        scores, rows = fast.search(queries, k)
        expected, _ = cosine_top_k(vectors, queries, k)
        assert (scores >= expected[:, -1:] - 1e-6).mean() >= 0.995
        np.testing.assert_allclose(scores, np.einsum("qkd,qd->qk", vectors[rows], queries), atol=1e-6)
    one_by_one = np.concatenate([fast.search(query[None], 10)[1] for query in queries[:20]])
    assert (one_by_one == fast.search(queries[:20], 10)[1]).all()
    everything, _ = FastIndex.load(tmp_path / "file", vectors, about | {"probes": about["cells"]}).search(queries, 10)
    assert (everything >= cosine_top_k(vectors, queries, 10)[0][:, -1:] - 1e-6).mean() >= 0.999


def test_more_hits_than_the_cells_hold_are_found_by_a_scan(vectors: np.ndarray, tmp_path: Path) -> None:
    about = build_fast(vectors, tmp_path / "file")
    few = FastIndex.load(tmp_path / "file", vectors, about | {"probes": 1, "k_factor": 1})
    scores, rows = few.search(vectors[:3], 400)
    expected = cosine_top_k(vectors, vectors[:3], 400)
    assert (rows == expected[1]).all() and (scores == expected[0]).all()


def test_what_was_learnt_is_kept_and_only_new_rows_get_their_cells_anew(
        vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = build_fast(vectors, tmp_path / "old")
    assert old is not None
    asked: list[int] = []
    nearest = learning.cells_of
    monkeypatch.setattr(learning, "cells_of", lambda some, centres: asked.append(len(some)) or nearest(some, centres))
    new = np.concatenate([unit_vectors(60, DIM, seed=1), vectors[:20:-1]])
    rows = np.concatenate([np.full(60, -1), np.arange(ROWS)[:20:-1]])
    again = build_fast(new, tmp_path / "new", before=Before(FastIndex.load(tmp_path / "old", vectors, old), rows))
    assert again is not None and sum(asked) == 60 and again["recall_at_10"] >= 0.995
    assert {key: again[key] for key in ("cells", "probes", "k_factor")} == {key: old[key] for key in (
        "cells", "probes", "k_factor")}
    codes = FastIndex.load(tmp_path / "new", new, again).codes
    assert isinstance(codes, Cells)
    assert np.array_equal(codes.cell_of_rows(), nearest(new, codes.learnt.centres))


def test_other_vectors_get_cells_of_their_own(vectors: np.ndarray, tmp_path: Path) -> None:
    old = build_fast(vectors, tmp_path / "old")
    assert old is not None
    others = np.roll(unit_vectors(ROWS, DIM, seed=9), 7, axis=1)
    before = Before(FastIndex.load(tmp_path / "old", vectors, old | {"probes": 1}), np.full(ROWS, -1))
    learnt = build_fast(others, tmp_path / "new", before=before)
    assert learnt is not None and learnt["recall_at_10"] >= 0.995 and learnt["probes"] > 1


def test_without_recall_or_without_gain_all_codes_are_scanned(vectors: np.ndarray, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_build, "MOST_TIME", 0.0)
    about = build_fast(vectors, tmp_path / "file")
    assert about is not None and "cells" not in about and about["cells_tried"] == ROWS
    assert not isinstance(FastIndex.load(tmp_path / "file", vectors, about).codes, Cells)
    assert build_fast(vectors, tmp_path / "file", promise=1.01) is None and not (tmp_path / "file").exists()


def test_an_index_grows_into_cells_is_reindexed_and_shrinks_out_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    ids = [str(row) for row in range(1, 3000)]
    for titles, in_cells in ((TITLES[:900], False), (TITLES, True), ([*TITLES[40:], "new storm"], True),
                             (TITLES[:800], False)):
        build(folder, titles, fast_from=100)
        with Index.open(folder, WordEncoder()) as index:
            assert index.fast is not None and isinstance(index.fast.codes, Cells) == in_cells
            fast, exact = (index.search_vectors(index.vectors[::3], exact=each)[0] for each in (False, True))
            assert (fast >= exact[:, -1:] - 1e-6).mean() > 0.99
        answers_equal_brute_force(folder, ids[:len(titles)], titles)


def test_an_index_made_before_cells_were_is_searched_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr(fast_build, "CELLS_FROM", 10**9)
        build(tmp_path / "index", TITLES, fast_from=100)
    assert set(unsealed(tmp_path / "index" / "manifest-1.json")["fast"]) == {"factory", "k_factor", "recall_at_10",
                                                                             "queries"}
    answers_equal_brute_force(tmp_path / "index", [str(row) for row in range(1, 1501)], TITLES)


def test_an_open_index_outlives_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    build(folder, TITLES, fast_from=100)
    with Index.open(folder, WordEncoder()) as index:
        (folder / "index-1.faiss").unlink()
        assert isinstance(index.fast.codes, Cells)  # type: ignore[union-attr]
        assert index.search(["storm opera"], 3) == index.search(["storm opera"], 3, exact=True)


@pytest.mark.parametrize("change", [
    lambda data: data[:-64], lambda data: b"", lambda data: data[:100], lambda data: data + bytes(64),
    lambda data: data[:8] + b"\xff" + data[9:], lambda data: data[:64] + b"\0\0\xc0\x7f" + data[68:],
])
def test_another_file_of_cells_is_named_and_every_vector_scanned(change, tmp_path: Path,  # noqa: ANN001
                                                                 caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "index"
    build(folder, TITLES, fast_from=100)
    file = folder / "index-1.faiss"
    file.write_bytes(change(file.read_bytes()))
    reseal(folder)
    with Index.open(folder, WordEncoder()) as index:
        assert index.search(["storm opera"], 3) == index.search(["storm opera"], 3, exact=True)
    assert "index-1.faiss: is not a fast index of these vectors" in caplog.text
    assert verify(folder)[0].startswith(f"{file}: is not a fast index")


@pytest.mark.parametrize("numbers", [{"cells": 10**9}, {"probes": -1}, {"cells": "9"}, {"probes": 10**9},
                                     {"cells_tried": "9"}])
def test_a_manifest_with_other_numbers_of_cells_harms_nothing(numbers: dict, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    build(folder, TITLES, fast_from=100)
    reseal(folder, fast=unsealed(folder / "manifest-1.json")["fast"] | numbers)
    try:
        with Index.open(folder, WordEncoder()) as index:
            assert index.search(["storm opera"], 3) == index.search(["storm opera"], 3, exact=True)
    except UserError as error:
        assert "is not the manifest of this generation" in str(error)


def test_no_changed_file_of_cells_crashes(tmp_path: Path) -> None:
    build(tmp_path / "index", TITLES, fast_from=100)
    assert 0 < fuzz(tmp_path / "index", 300) < 300


def test_a_kill_at_any_time_leaves_the_old_index_or_the_new_one(tmp_path: Path) -> None:
    folder, ids = tmp_path / "index", [str(row) for row in range(1, 1501)]
    build(folder, TITLES[:1200], fast_from=100)
    draw = random.Random(3)

    def again(acknowledge: Acknowledge) -> None:
        build(folder, TITLES, fast_from=100)
        acknowledge("done")

    for _ in range(6):
        forked(again, kill_after=draw.uniform(0.02, 0.6))
        with Index.open(folder, WordEncoder()) as index:
            titles = list(index.titles)
        assert titles in (TITLES, TITLES[:1200])
        answers_equal_brute_force(folder, ids[:len(titles)], titles)
        build(folder, TITLES[:1200], fast_from=100)
    build(folder, TITLES, fast_from=100)
    answers_equal_brute_force(folder, ids, TITLES)
    assert not list(folder.glob(".tmp-*"))


def test_cells_that_are_too_few_for_the_rows_are_learnt_anew(vectors: np.ndarray, tmp_path: Path) -> None:
    old = build_fast(vectors[:1500], tmp_path / "old")
    assert old is not None
    before = Before(FastIndex.load(tmp_path / "old", vectors[:1500], old), np.r_[:1500, np.full(ROWS - 1500, -1)])
    again = build_fast(vectors, tmp_path / "new", before=before)
    assert again is not None and again["cells"] == 2 * old["cells"]


def test_cells_that_were_not_taken_are_not_tried_at_each_reindexing(vectors: np.ndarray, tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without_gain:
        without_gain.setattr(fast_build, "MOST_TIME", 0.0)
        about = build_fast(vectors[:2000], tmp_path / "old")
    assert about is not None
    for rows, in_cells in ((2500, False), (ROWS, True)):
        before = Before(FastIndex.load(tmp_path / "old", vectors[:2000], about), np.full(rows, -1))
        again = build_fast(vectors[:rows], tmp_path / "new", before=before)
        assert again is not None and ("cells" in again) == in_cells
        assert again.get("cells_tried") == (None if in_cells else 2000)
