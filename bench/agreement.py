"""Is it the same training? Losses and gradients beside the stock trainer's, dropout off, float32.

``python -m bench.agreement [--losses mnrl] [--steps 100] [--quick]``: the first three losses and the gradients behind
them (clipped, the learning rate at its peak from the first step), for each loss; then mnrl's loss over ``--steps``
steps of 16 pairs, with warm-up. On a CPU, MiniLM and the rows of $SENTENCE_FORGE_DATA.

Two things are rounding, not training: a loss near 0, as mnrl's is in small batches, has few digits; and |u-v| in
softmax has a kink, so an entry of u-v that is 0 but for rounding may send its gradient the other way.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
from collections.abc import Sequence

import numpy as np
from sentence_transformers import SentenceTransformer

from bench.arms import Arm, Watch
from bench.lines import line
from bench.ours import Ours
from bench.stock import Stock
from bench.tasks import SHAPE, Task, load, minilm, tiny, without_dropout

ALIKE = 1e-5
BATCH = {"mnrl": 64}  # of the first steps; 16 for the others
NOISE = 1e-4
"""Share of the whole gradient's norm below which a parameter's own is rounding error, as a key's bias is by nature."""


def main() -> int:
    """Print two lines a loss, and the curves; return 1 where a loss or gradient is off."""
    parser = argparse.ArgumentParser(prog="python -m bench.agreement", description=__doc__)
    parser.add_argument("--losses", default=",".join(SHAPE))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="a tiny random model on the sample")
    arguments = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    alike = []
    for loss in arguments.losses.split(","):
        task = load(loss, BATCH.get(loss, 16), sample=arguments.quick)
        model = without_dropout(tiny(lambda task=task: task.texts) if arguments.quick else minilm())
        alike.append(first_steps(f"agreement {loss}", *sides(task, model), task))
        if loss == "mnrl" and arguments.steps:
            task = load(loss, 16, sample=arguments.quick)
            curve(f"agreement {loss}", *sides(task, model), task, arguments.steps)
    return 0 if all(alike) else 1


def sides(task: Task, model: SentenceTransformer) -> tuple[Ours, Stock]:
    """Return both sides on copies of the model, ready to train."""
    ours, stock = Ours(copy.deepcopy(model), task), Stock(copy.deepcopy(model), task)
    ours.prepare()
    stock.prepare()
    return ours, stock


def first_steps(name: str, ours: Arm, stock: Arm, task: Task, *, alike: float = ALIKE) -> bool:
    """Print how far the first three losses and gradients are apart; return whether both stay below ``alike``.

    Losses: the largest relative difference. Gradients: the norm of the difference over the norm, of all parameters
    together and of the worst single one that is above ``NOISE``.
    """
    mine, theirs = (_watched(arm, task, 3, gradients=3) for arm in (ours, stock))
    losses = apart(mine.losses, theirs.losses)
    overall, worst, parameter = 0.0, 0.0, ""
    for own, other in zip(mine.kept, theirs.kept, strict=True):
        assert own.keys() == other.keys(), own.keys() ^ other.keys()
        norm = {key: float(other[key].norm()) for key in other}
        difference = {key: float((own[key] - other[key]).norm()) for key in other}
        whole = float(np.linalg.norm(list(norm.values())))
        overall = max(overall, float(np.linalg.norm(list(difference.values()))) / whole)
        for key in (key for key in other if norm[key] > NOISE * whole):
            if difference[key] / norm[key] >= worst:
                worst, parameter = difference[key] / norm[key], key
    line(f"{name}, first three losses", losses, "relative difference", limit=alike, within=losses <= alike,
         ours=mine.losses, stock=theirs.losses)
    line(f"{name}, first three gradients", overall, "relative difference", limit=alike, within=overall <= alike,
         worst_parameter=parameter, worst=worst)
    return losses <= alike and overall <= alike


def curve(name: str, ours: Arm, stock: Arm, task: Task, steps: int) -> float:
    """Print the largest relative difference of the losses of ``steps`` steps, with both curves, and return it."""
    mine, theirs = (_watched(arm, task, steps) for arm in (ours, stock))
    found = apart(mine.losses, theirs.losses)
    line(f"{name}, loss over {steps} steps", found, "relative difference", last_ten=apart(mine.losses[-10:],
         theirs.losses[-10:]), ours=_short(mine.losses), stock=_short(theirs.losses))
    return found


def apart(ours: Sequence[float], stock: Sequence[float]) -> float:
    """Return the largest relative difference of two rows of losses."""
    assert len(ours) == len(stock), (len(ours), len(stock))
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(ours, stock, strict=True))


def _watched(arm: Arm, task: Task, steps: int, gradients: int = 0) -> Watch:
    watch = Watch(gradients)
    arm.turn(task.turn(0, steps), watch=watch)
    return watch


def _short(losses: Sequence[float]) -> list[float]:
    return [round(loss, 6) for loss in losses]


if __name__ == "__main__":
    sys.exit(main())
