"""The dev measures of each shape of rows, against loops. Few words, so that equal texts occur by chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference
from test_eval import WordSum

from sentence_forge.data_readers.shapes import SHAPES
from sentence_forge.eval.dev import MEASURES, dev_measure, similarity_histograms
from sentence_forge.runtime.errors import UserError


def words(n: int, vocabulary: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{word}" for word in rng.integers(0, vocabulary, 2)) for _ in range(n)]


def cosine_of(encode: WordSum) -> dict[tuple[str, str], float]:
    class Cosines(dict):
        def __missing__(self, key: tuple[str, str]) -> float:
            u, v = encode.encode(key).astype(np.float64)
            self[key] = u @ v / np.sqrt((u @ u) * (v @ v))
            return self[key]

    return Cosines()


def brute_mrr(rows: list[tuple[str, ...]], cosine: dict[tuple[str, str], float]) -> float:
    found = []
    for start in range(0, len(rows), 64):
        batch = rows[start:start + 64]
        for anchor, positive, *_ in batch:
            others = [text for row in batch for text in row[1:] if text not in (positive, anchor)]
            found.append(1 / (1 + sum(cosine[anchor, text] >= cosine[anchor, positive] for text in others)))
    return float(np.mean(found))


def test_pair_and_triplet_measures_against_loops() -> None:
    columns = {"anchor": words(90, 9, 0), "positive": words(90, 9, 1), "negative": words(90, 9, 2),
               "negative_2": words(90, 9, 3)}
    cosine = cosine_of(WordSum())
    pairs = list(zip(columns["anchor"], columns["positive"], strict=True))
    two = {name: columns[name] for name in ("anchor", "positive")}
    assert dev_measure("pair", two, WordSum().encode) == {"mrr": pytest.approx(brute_mrr(pairs, cosine))}
    rows = list(zip(*columns.values(), strict=True))
    won = [all(cosine[a, p] > cosine[a, n] + 1e-7 for n in negatives) for a, p, *negatives in rows]
    found = dev_measure("triplet", columns, WordSum().encode)
    assert found == {"triplet_accuracy": pytest.approx(np.mean(won)), "mrr": pytest.approx(brute_mrr(rows, cosine))}
    assert next(iter(found)) == MEASURES["triplet"]


def test_precision_by_label_against_loops() -> None:
    texts, labels = words(150, 12, 4), [f"label {number % 7}" for number in range(150)]
    cosine, found = cosine_of(WordSum()), []
    for text, label in zip(texts, labels, strict=True):
        others = sorted(((cosine[text, other], of_other == label) for other, of_other in zip(texts, labels, strict=True)
                         if other != text), key=lambda pair: -pair[0])
        last = others[9][0]
        inside = [right for value, right in others if value > last + 1e-7]
        tied = [right for value, right in others if abs(value - last) <= 1e-7]
        found.append((sum(inside) + np.mean(tied) * (10 - len(inside))) / 10)
    measured = dev_measure("labelled_text", {"text": texts, "label": labels}, WordSum().encode)
    assert measured == {"precision@10": pytest.approx(np.mean(found))}
    # Fewer texts than ten: as many as there are; a repeated text is no neighbour of itself.
    few = {"text": ["a", "a", "b", "c"], "label": ["x", "x", "x", "y"]}
    assert dev_measure("labelled_text", few, WordSum().encode) == {"precision@10": pytest.approx((3 * 0.5 + 0) / 4 + (
        2 / 3 - 0.5) / 4)}


def test_a_collapsed_model_looks_bad_by_every_measure() -> None:
    def one_vector(texts: list[str]) -> np.ndarray:
        return np.random.default_rng(0).normal(0.5, 1e-9, size=(len(texts), 8)).astype(np.float32)

    columns = {"anchor": words(64, 99, 0), "positive": words(64, 99, 1), "negative": words(64, 99, 2)}
    assert dev_measure("triplet", columns, one_vector)["triplet_accuracy"] == 0
    assert dev_measure("triplet", columns, one_vector)["mrr"] < 0.02
    by_label = {"text": words(100, 99, 0), "label": sorted([0, 1] * 50)}
    assert dev_measure("labelled_text", by_label, one_vector)["precision@10"] == pytest.approx(0.5, abs=0.02)
    with pytest.raises(UserError, match="collapsed"):
        dev_measure("pair_score", {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [1, 2]},
                    lambda texts: np.ones((len(texts), 8), np.float32))


def test_scores_and_classes() -> None:
    left, right = words(50, 30, 5), words(50, 30, 6)
    score = np.random.default_rng(0).integers(0, 4, 50)
    cosine = cosine_of(WordSum())
    expected = [cosine[pair] for pair in zip(left, right, strict=True)]
    found = dev_measure("pair_score", {"sentence1": left, "sentence2": right, "score": score}, WordSum().encode)
    assert found == {"spearman_cosine": pytest.approx(reference.spearmanr(expected, score).statistic),
                     "pearson_cosine": pytest.approx(reference.pearsonr(expected, score).statistic)}
    names = np.where(score > 1, "entailment", "neutral").tolist()
    columns = {"premise": left, "hypothesis": right, "label": names}

    def head(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.where((u * v).sum(axis=1) > 0, "entailment", "neutral")

    raw = WordSum()
    guess = head(raw.encode(left), raw.encode(right))
    assert dev_measure("pair_class", columns, WordSum().encode, head) == {"accuracy": np.mean(guess == names)}
    with pytest.raises(ValueError, match="predict"):
        dev_measure("pair_class", columns, WordSum().encode)
    with pytest.raises(ValueError, match="predict gave"):
        dev_measure("pair_class", columns, WordSum().encode, lambda u, v: np.array(["neutral"]))
    for call in (dev_measure, similarity_histograms):
        with pytest.raises(ValueError, match="titles"):
            call("titles", {"title": left}, WordSum().encode)
    assert set(MEASURES) == set(SHAPES) - {"titles"}


def test_histograms_hold_who_belongs_together() -> None:
    left, right, third = words(70, 30, 5), words(70, 30, 6), words(70, 30, 7)
    cosine = cosine_of(WordSum())
    own = [cosine[pair] for pair in zip(left, right, strict=True)]
    score = np.linspace(0, 1, 70)
    together, apart = similarity_histograms("pair_score", {"sentence1": left, "sentence2": right, "score": score},
                                            WordSum().encode)
    np.testing.assert_allclose(together, own[-len(together):])
    assert len(together) == 24 and len(apart) == 46
    rare = {"sentence1": left, "sentence2": right, "score": [0] * 60 + [1] * 10}
    assert [len(part) for part in similarity_histograms("pair_score", rare, WordSum().encode)] == [10, 60]
    together, apart = similarity_histograms("triplet", {"anchor": left, "positive": right, "negative": third},
                                            WordSum().encode)
    np.testing.assert_allclose(together, own)
    np.testing.assert_allclose(apart, [cosine[pair] for pair in zip(left, third, strict=True)])
    together, apart = similarity_histograms("pair", {"anchor": left, "positive": right}, WordSum().encode)
    batches = [range(64), range(64, 70)]
    others = [cosine[left[i], right[j]] for batch in batches for i in batch for j in batch
              if right[j] not in (left[i], right[i])]
    np.testing.assert_allclose(np.sort(apart), np.sort(others))
    labels = [number % 3 for number in range(70)]
    together, apart = similarity_histograms("labelled_text", {"text": left, "label": labels}, WordSum().encode)
    same = [cosine[left[i], left[j]] for i in range(70) for j in range(i)
            if labels[i] == labels[j] and left[i] != left[j]]
    np.testing.assert_allclose(np.sort(together), np.sort(same))
    classes = {"premise": left, "hypothesis": right, "label": ["entailment", "contradiction"] * 35}
    together, apart = similarity_histograms("pair_class", classes, WordSum().encode)
    np.testing.assert_allclose(together, own[::2])
    np.testing.assert_allclose(apart, own[1::2])
