"""Top-k by cosine and the fast index, against brute force and stock semantic_search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from corpora import WordEncoder, build, titles_like, unit_vectors

from sentence_forge.encoders.similarity import cosine_top_k, normalise
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.codes import sub_quantisers
from sentence_forge.search.fast import FastIndex
from sentence_forge.search.fast_build import build_fast
from sentence_forge.search.index import Index
from sentence_forge.search.verify import verify


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


def test_fast_index_keeps_its_promise_and_its_scores_are_exact(tmp_path: Path) -> None:
    vectors = unit_vectors(20_000, 64)
    about = build_fast(vectors, tmp_path / "index.faiss")
    assert about is not None
    assert about["recall_at_10"] >= 0.999
    assert (tmp_path / "index.faiss").stat().st_size < vectors.nbytes / 10
    fast = FastIndex.load(tmp_path / "index.faiss", vectors, about)
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


def test_fast_hits_have_the_exact_cosines_whatever_the_queries_length(tmp_path: Path) -> None:
    titles = titles_like(1500)
    encoder = build(tmp_path, titles, fast_from=50)
    queries = 3 * encoder.encode(titles[:20])
    with Index.open(tmp_path, encoder) as index:
        assert index.fast is not None and index.fast.candidates(10) < len(titles)
        fast, exact = (index.search_vectors(queries, 10, exact=each)[0] for each in (False, True))
    np.testing.assert_allclose(fast, exact, atol=1e-6)
