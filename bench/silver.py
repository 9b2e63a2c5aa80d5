"""More scored pairs from the sentences of a file of them: each with its nearest others, scored by tuned models.

``python -m bench.silver pairs.csv.gz OUT.csv RUN...`` writes the pairs of the file and, for each of its sentences,
those with its nearest others (``--near``) and with some that are drawn (``--drawn``). The score of such a silver pair
is the mean of the runs' cosines, from 0 to 5 like STS. ``python -m train loss=cosine data=OUT.csv`` trains on both
(augmented SBERT, Thakur et al. 2021, here with models of the same kind as teachers, not a cross-encoder). Sentences
are those of the file alone, so nothing of a test set comes in by this.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sentence_forge.api import load
from sentence_forge.data_readers.csv_writer import write_csv
from sentence_forge.data_readers.table import read_table
from sentence_forge.encoders.similarity import FloatArray, cosine_top_k
from sentence_forge.runtime.process import run

COLUMNS = ("sentence1", "sentence2", "score")
HIGHEST = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.silver", description=__doc__)
    parser.add_argument("pairs", type=Path, help="columns sentence1, sentence2, score (0 to 5)")
    parser.add_argument("out", type=Path, metavar="OUT.csv")
    parser.add_argument("runs", nargs="+", help="the teachers")
    parser.add_argument("--near", type=int, default=2, help="nearest others of a sentence (default %(default)s)")
    parser.add_argument("--drawn", type=int, default=1, help="others of a sentence at random (default %(default)s)")
    parser.add_argument("--gold", type=int, default=1, help="how often the file's own pairs are written")
    arguments = parser.parse_args(argv)
    return run(lambda: _write(arguments))


def _write(arguments: argparse.Namespace) -> None:
    table = read_table(arguments.pairs, {name: name for name in COLUMNS}, score_range=(0, HIGHEST))
    gold = list(zip(*(table[name] for name in COLUMNS), strict=True))
    sentences = list(dict.fromkeys(text for one, other, _ in gold for text in (one, other)))
    vectors = _vectors(sentences, arguments.runs)
    known = {frozenset((one, other)) for one, other, _ in gold}
    silver = [(sentences[one], sentences[other], f"{HIGHEST * max(0.0, float(vectors[one] @ vectors[other])):.3f}")
              for one, other in chosen(vectors, arguments.near, arguments.drawn)
              if frozenset((sentences[one], sentences[other])) not in known]
    write_csv(arguments.out, COLUMNS, [*gold * arguments.gold, *silver])
    sys.stdout.write(f"{len(gold)} pairs, {len(silver)} silver ones, of {len(sentences)} sentences\n")


def _vectors(sentences: Sequence[str], runs: Sequence[str]) -> FloatArray:
    """Return vectors, float32 [n, sum of the dims], whose products are the mean of the runs' cosines."""
    parts = [load(each).encode(sentences, role="query") for each in runs]
    return np.hstack([part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts]) / len(parts) ** 0.5


def chosen(vectors: FloatArray, near: int, drawn: int) -> list[tuple[int, int]]:
    """Return each pair once, lower row first: every row with its ``near`` nearest others and ``drawn`` random ones."""
    _, nearest = cosine_top_k(vectors, vectors, near + 1)
    draw = np.random.default_rng(0)
    pairs = {(min(row, other), max(row, other)) for row, others in enumerate(nearest)
             for other in map(int, [*others, *draw.integers(0, len(vectors), drawn)]) if other != row}
    return sorted(pairs)


if __name__ == "__main__":
    raise SystemExit(main())
