"""Start-up, by the wall clock: help, an error in the config, and the first step of a training after its imports.

``python -m bench.startup [--repeats 5]``: ``python -m train`` as typed, and ``loss=mnrl`` on the sample with MiniLM up
to its first optimiser step, step 0's evaluation included, torch and sentence-transformers imported before.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.lines import line, median, seconds

ROOT = Path(__file__).parent.parent
FIRST_STEP = """
import os, sys, time
import sentence_transformers, torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from sentence_forge.train import batches
from sentence_forge.train import cli

cut = []
whole = batches.NoDuplicates.epoch
batches.NoDuplicates.epoch = lambda sampler, number: cut.append(number) or whole(sampler, number)

def first_step(*_):
    print(f"\\nfirst step after {time.perf_counter() - began} s, {time.process_time() - cpu} of CPU, "
          f"epochs cut {cut}", flush=True)
    os._exit(0)

register_optimizer_step_pre_hook(first_step)
began, cpu = time.perf_counter(), time.process_time()
cli.main()
"""


def main() -> None:
    """Print the seconds of each, the median and the slowest."""
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    for arguments, code in ((["--help"], 0), (["los=mnrl"], 2)):
        taken = [seconds(lambda given=arguments, code=code: _run(code, "-m", "train", *given)) for _ in range(repeats)]
        line(f"python -m train {' '.join(arguments)}", median(taken), "s", slowest=round(max(taken), 3), target=1.0)
    taken = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            taken.append(first_step("loss=mnrl", f"hydra.run.dir={folder}/run"))
    line("python -m train loss=mnrl, imports to first step", median(taken), "s", slowest=round(max(taken), 3),
         target=5.0)


def first_step(*arguments: str) -> float:
    """Return the wall-clock seconds to a training's first optimiser step."""
    said = _run(0, "-c", FIRST_STEP, *arguments).stdout.strip().splitlines()[-1]
    return float(said.split()[3])


def _run(code: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, check=False)
    if done.returncode != code:
        sys.exit(f"error: {' '.join(arguments[1:])[:80]} ended with {done.returncode}: {done.stderr[-500:]}")
    return done


if __name__ == "__main__":
    main()
