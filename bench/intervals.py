"""Seconds that the intervals of a report cost: seven tasks of 3,750 pairs, all their correlations, 2,000 resamples.

``python -m bench.intervals``
"""

from __future__ import annotations

import numpy as np

from bench.lines import line, seconds
from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.eval.tasks.base import EncodedTexts
from sentence_forge.eval.tasks.sts import Pairs, ScoredPairs


class _Random(TextEncoder):
    name, fingerprint = "random", "random"

    def encode(self, texts: list[str]) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(len(texts), 384)).astype(np.float32)

    def count_truncated(self, texts: list[str]) -> int:
        return 0


def main() -> None:
    """Print the seconds of scoring, without any encoding."""
    generator = np.random.default_rng(1)
    left, right = ([f"{side} {row}" for row in range(3750)] for side in ("a", "b"))
    pairs = Pairs(sentence1=left, sentence2=right, gold=generator.integers(0, 26, 3750) / 5, path="random", sha256="")
    encoded = EncodedTexts(_Random(), [*left, *right])
    task = ScoredPairs(folder="random")
    taken = seconds(lambda: [task.score(pairs, encoded, seed=number) for number in range(7)])
    line("intervals_of_seven_tasks", taken, "s", pairs=3750, resamples=2000)


if __name__ == "__main__":
    main()
