"""Averages over the end of a training, of its last checkpoints, or over several trainings, of their best weights.

``python -m bench.soups RUN OUT`` reads ``RUN/checkpoints``, of a run with ``loop.keep=10 loop.checkpoint_every=20``,
say, and writes model folders that ``python -m eval`` takes: ``OUT/<recipe>_last3-<seed>``, the mean of the weights of
the last three, ``_last5``, ``_last10``, and ``_ema``, in which each checkpoint weighs ``--decay`` times what the next
one does (an exponential moving average over checkpoints, not over single steps). ``python -m bench.soups RUN RUN RUN
OUT`` writes the mean of the runs' best weights as the model folder OUT. Averages over one training: Izmailov et al.
2018; over several: Wortsman et al. 2022.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.process import run
from sentence_forge.train.checkpoint import steps

LASTS = (3, 5, 10)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.soups", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("out", type=Path)
    parser.add_argument("--decay", type=float, default=0.8)
    arguments = parser.parse_args(argv)
    first, *others = arguments.runs
    if others:
        return run(lambda: average([each / "model" for each in arguments.runs], [1.0] * len(arguments.runs),
                                   arguments.out))
    return run(lambda: _write(first, arguments.out, arguments.decay))


def _write(folder: Path, out: Path, decay: float) -> None:
    models = [each / "model" for each in steps(folder)]
    if len(models) < 2:
        raise UserError(f"{folder}: has {len(models)} checkpoints, an average takes two or more; train with "
                        "loop.keep=10 loop.checkpoint_every=20")
    recipe, _, seed = folder.name.rpartition("-")
    shares = {f"last{last}": [1.0] * last for last in LASTS if last <= len(models)}
    shares["ema"] = [decay ** (len(models) - 1 - number) for number in range(len(models))]
    for name, weights in shares.items():
        target = out / f"{recipe}_{name}-{seed}"
        average(models[-len(weights):], weights, target)
        sys.stdout.write(f"{target}\n")


def average(models: Sequence[Path], weights: Sequence[float], target: Path) -> None:
    """Write a copy of the last of some model folders whose weights are the weighted mean of all of theirs."""
    shutil.copytree(models[-1], target)
    for file in target.rglob("*.safetensors"):
        place = file.relative_to(target)
        mean: dict[str, Tensor] = {}
        for model, weight in zip(models, weights, strict=True):
            for key, value in load_file(model / place).items():
                mean[key] = mean.get(key, torch.zeros(())) + value.double() * (weight / sum(weights))
        kept = load_file(models[-1] / place)
        save_file({key: value.to(kept[key].dtype) for key, value in mean.items()}, file, metadata={"format": "pt"})


if __name__ == "__main__":
    raise SystemExit(main())
