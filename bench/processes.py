"""What several processes save on one machine: ``python -m bench.processes``.

Two measurements, in turn and with one thread a process. ``scores`` is how long one process of W takes for its share
of mnrl's scores of a large batch, forward and backward, without the model. ``train`` is the pairs a second of
``torchrun -m train`` (MiniLM, mnrl, the embedded sample) by one process and by two, as the run itself logs them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from bench.lines import interleaved, line, median
from bench.results import Results, results_of_this_kind
from sentence_forge.losses.mnrl import MultipleNegativesRanking

PROCESSES = (1, 2, 4, 8)


def main() -> None:
    """Measure, print and keep the lines."""
    parser = argparse.ArgumentParser(prog="python -m bench.processes", description=__doc__)
    parser.add_argument("--batch", type=int, default=64, help="rows a step of the training")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rows", type=int, default=8192, help="rows of the batch of scores")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", type=Path, help="folder; bench/results/<kind of machine>")
    given = parser.parse_args()
    results = Results((given.results or results_of_this_kind()) / "processes.json", "python -m bench.processes")
    torch.set_num_threads(1)
    taken = interleaved([_scores(given.rows, processes) for processes in PROCESSES], given.repeats)
    whole = median(taken[0])
    for processes, times in zip(PROCESSES, taken, strict=True):
        results.add(line("scores", median(times) * 1000, "ms", peer="one process", peer_value=whole * 1000,
                         processes=processes, rows=given.rows))
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(given.repeats):
        for processes, found in speeds.items():
            found.append(_trained(processes, given.batch, given.steps))
    results.add(line("train", median(speeds[2]), "pairs/s", peer="one process", peer_value=median(speeds[1]),
                     ratios=sorted(round(two / one, 3) for one, two in zip(speeds[1], speeds[2], strict=True)),
                     processes=2, batch=given.batch))


def _scores(rows: int, processes: int, dim: int = 384) -> Callable[[], object]:
    """Return what one of so many processes does for its rows' scores."""
    generator = torch.Generator().manual_seed(1)
    embeddings = [torch.randn(rows, dim, generator=generator, requires_grad=True) for _ in range(2)]
    loss, own = MultipleNegativesRanking(), slice(0, rows // processes)
    return lambda: loss.of_rows(own, embeddings, None, None).backward()  # type: ignore[no-untyped-call]


def _trained(processes: int, batch: int, steps: int) -> float:
    """Return the pairs a second of a training's last logged steps."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
                   "-m", "train", "loss=mnrl", "model=minilm", f"loop.batch_size={batch}", f"loop.max_steps={steps}",
                   f"loop.log_every={steps // 2}", f"loop.evaluate_every={steps}", "loop.projector=0",
                   f"hydra.run.dir={folder}/run"]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
                       stderr=subprocess.PIPE)
        kept = (Path(folder) / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return float([json.loads(each)["speed/pairs_per_second"] for each in kept if "speed/pairs_per_second" in each][-1])


if __name__ == "__main__":
    main()
