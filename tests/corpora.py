"""Made-up titles, an encoder that needs no model, and an index of theirs held against brute force."""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.encoders.similarity import normalise
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import index_corpus
from sentence_forge.search.verify import verify

ROOT = Path(__file__).resolve().parents[1]
TOPICS = ["storm", "markets", "election", "football", "vaccine", "robots", "opera", "drought"]


class WordEncoder(TextEncoder):
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


