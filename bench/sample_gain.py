"""Does training on the sample's graded pairs help on its dev pairs? Three seeds, each with a paired interval.

``python -m bench.sample_gain [--language en] [overrides]`` runs ``python -m train loss=cosine <overrides>`` a seed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.lines import line


def main() -> None:
    """Print a line a seed: dev Spearman after and before, and the paired bootstrap interval of the difference."""
    parser = argparse.ArgumentParser(prog="python -m bench.sample_gain", description=__doc__)
    parser.add_argument("--language", default="en")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    for seed in range(1, arguments.seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder, "run")
            subprocess.run([sys.executable, "-m", "train", "loss=cosine", f"data.language={arguments.language}",
                            f"seed={seed}", "loop.projector=0", f"hydra.run.dir={run}", *arguments.overrides],
                           check=True, capture_output=True)
            report = json.loads((run / "report" / "report.json").read_text(encoding="utf-8"))
        task = f"sample-{arguments.language}-dev"
        before = report["baseline"]["tasks"][task]
        line(f"{task} spearman, seed {seed}", 100 * report["tasks"][task]["spearman_cosine"], "x100", peer="untouched",
             peer_value=100 * before["spearman_cosine"], delta=round(100 * before["delta"], 2),
             ci95=[round(100 * end, 2) for end in before["delta_ci95"]], p=before["p"])


if __name__ == "__main__":
    main()
