"""Measure how a model's vectors lie: alignment, uniformity, anisotropy, and thresholds on the cosine.

Alignment and uniformity are Wang and Isola's (2020, https://arxiv.org/abs/2005.10242), on vectors of length 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sentence_forge.data_readers.sample import sample_path
from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.eval.schema import Geometry, Spread
from sentence_forge.eval.stats import Floats
from sentence_forge.eval.tasks.base import EncodedTexts, TaskResult, unit_vectors
from sentence_forge.eval.tasks.sts import Pairs, ScoredPairs
from sentence_forge.eval.thresholds import best_threshold

MOST = 3000  # texts whose pairs are all compared
POSITIVE = 0.8  # of the score range: 4 of 5, "mostly equivalent", as SimCSE takes STS benchmark's positives
NEGATIVE = 0.2
MARKS = {"same": 0.8, "related": 0.6}  # of the score range: 4 is "mostly", 3 "roughly equivalent" in STS's own words


def geometry(result: TaskResult, unit: Floats, low: float, high: float) -> Geometry:
    """Return what report.json says of the vectors of a task of scored pairs.

    Args:
        result: the task's; its cosines and scores.
        unit: the vectors of its distinct texts at length 1 [texts, dim]; of more than ``MOST``, so many are drawn.
        low: the lowest score there may be.
        high: the highest.

    Returns:
        ``alignment`` of the pairs that score at least 0.8 of the range (None without any), ``uniformity`` and
        ``anisotropy`` (the mean cosine of two different texts), quartiles of the cosines of positives and negatives,
        and ``threshold``, the cosine that best (F1) tells positives from the rest.
    """
    assert result.cosine is not None and result.gold is not None
    share = (result.gold - low) / (high - low)
    cosine = np.clip(result.cosine, -1, 1)
    positive = share >= POSITIVE - 1e-9
    drawn = unit if len(unit) <= MOST else unit[np.sort(np.random.default_rng(0).permutation(len(unit))[:MOST])]
    found: Geometry = {
        "alignment": float((2 - 2 * cosine[positive]).mean()) if positive.any() else None,
        "uniformity": uniformity(drawn), "anisotropy": anisotropy(unit),
        "positives": _quartiles(cosine[positive]), "negatives": _quartiles(cosine[share <= NEGATIVE + 1e-9]),
    }
    if positive.any() and not positive.all():
        found["threshold"] = best_threshold(cosine, positive)
    return found


def uniformity(unit: Floats) -> float:
    """Return log mean exp(-2 |x - y|^2) over all pairs of different rows of ``unit`` [n, dim]; lower is more spread."""
    total, n = 0.0, len(unit)
    for start in range(0, n, 512):
        total += float(np.exp(-2 * np.maximum(2 - 2 * unit[start:start + 512] @ unit.T, 0)).sum())
    own = float(np.exp(-2 * np.maximum(2 - 2 * (unit * unit).sum(axis=1), 0)).sum())
    return float(np.log(max(total - own, 1e-300) / (n * (n - 1))))


def anisotropy(unit: Floats) -> float:
    """Return the mean cosine of two different rows of ``unit`` [n, dim]: 0 where directions are spread evenly."""
    n = len(unit)
    return float(((unit.sum(axis=0) ** 2).sum() - (unit * unit).sum()) / (n * (n - 1)))


def calibrate(encoder: TextEncoder, data_dir: Path | None, language: str = "en") -> dict[str, Any]:
    """Return the cosines from which two texts are the ``same`` and ``related``, with precision and recall.

    Calibrated on STS benchmark's dev pairs in ``data_dir`` (in Chinese, its translation), else on the sample's;
    ``measured_on`` says which, ``n`` how many.
    ``same`` means a score of 4 of 5 or more, ``related`` of 3 or more. The first text of a pair is taken as a query and
    the second as a document, as in a search.
    """
    name, pairs = calibration_pairs(data_dir, language)
    encoded = EncodedTexts(encoder, (), texts_by_role={"query": pairs.sentence1, "document": pairs.sentence2})
    left, right = encoded.encode(pairs.sentence1, role="query"), encoded.encode(pairs.sentence2, role="document")
    cosine = np.einsum("nd,nd->n", unit_vectors(left), unit_vectors(right))
    return {"measured_on": name, "n": len(pairs.gold)} | {
        mark: best_threshold(cosine, pairs.gold >= 5 * share - 1e-9) for mark, share in MARKS.items()}


def language_of(texts: Sequence[str]) -> str:
    """Return ``zh`` for texts of which many characters are Chinese, else ``en``; looks at the first 1,000."""
    head = "".join(texts[:1000])
    return "zh" if sum("\u4e00" <= character <= "\u9fff" for character in head) > 0.3 * len(head) else "en"


def calibration_pairs(data_dir: Path | None, language: str) -> tuple[str, Pairs]:
    """Return the pairs that ``calibrate`` measures on, after their name."""
    folder = {"en": "stsb", "zh": "stsb_zh_deepl"}[language]
    task = ScoredPairs(folder=folder, split="dev")
    if data_dir is not None and task.locate(data_dir) is not None:
        return f"{folder}-dev", task.read(data_dir)
    return f"sample-{language}-dev", ScoredPairs(path=str(sample_path(language, "sts_dev"))).read(None)


def _quartiles(cosine: Floats) -> Spread | None:
    if not len(cosine):
        return None
    low, middle, high = np.quantile(cosine, [0.25, 0.5, 0.75])
    return {"n": len(cosine), "mean": float(cosine.mean()), "quartiles": [float(low), float(middle), float(high)]}
