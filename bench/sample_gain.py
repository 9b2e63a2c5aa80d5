"""Does training on the sample's graded pairs help on its dev pairs? Three seeds, with a paired interval over all.

``python -m bench.sample_gain [--language en] [overrides]`` runs ``python -m train loss=cosine <overrides>`` a seed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.lines import line
from sentence_forge.eval.evaluate import evaluate
from sentence_forge.eval.stats import Difference, difference
from sentence_forge.eval.tasks.sts import ScoredPairs


def main() -> None:
    """Print a line a seed and one for their mean: dev Spearman after and before, and the interval of the difference."""
    parser = argparse.ArgumentParser(prog="python -m bench.sample_gain", description=__doc__)
    parser.add_argument("--language", default="en")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    from sentence_forge.encoders.encoder import load_encoder

    name = f"sample-{arguments.language}-dev"
    task = {name: ScoredPairs(sample=arguments.language)}
    deltas, samples = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, arguments.seeds + 1):
            run = Path(folder, f"seed-{seed}")
            subprocess.run([sys.executable, "-m", "train", "loss=cosine", f"data.language={arguments.language}",
                            f"seed={seed}", "loop.projector=0", f"hydra.run.dir={run}", *arguments.overrides],
                           check=True, capture_output=True)
            before, after = (evaluate(load_encoder(run / each), task, None, deep=False).results[name]
                             for each in ("untouched", "model"))
            deltas.append(after.row["spearman_cosine"] - before.row["spearman_cosine"])
            samples.append(after.samples - before.samples)  # of the same resamples of the pairs
            _print(f"{name}, seed {seed}", after.row["spearman_cosine"], before.row["spearman_cosine"],
                   difference(deltas[-1], samples[-1]))
    base = before.row["spearman_cosine"]
    _print(f"{name}, mean of {len(deltas)} seeds", base + float(np.mean(deltas)), base,
           difference(float(np.mean(deltas)), np.mean(samples, axis=0)))


def _print(name: str, after: float, before: float, found: Difference) -> None:
    line(name, 100 * after, "Spearman x 100", peer="untouched", peer_value=100 * before,
         delta=round(100 * found.delta, 2), ci95=[round(100 * end, 2) for end in found.ci95], p=round(found.p, 5))


if __name__ == "__main__":
    main()
