"""Training beside sentence-transformers' own trainer: the same weights, rows, batches, schedule and loss, in turn.

``python -m bench.train [--losses mnrl,triplet] [--repeats 5] [--quick]``: MiniLM on the CPU, real rows from the folder
$SENTENCE_FORGE_DATA; mnrl at batch 16, 64 and 128 beside the trainer's defaults and beside a tuned one, the other
losses at one batch beside the defaults. Warm figures are medians over the repeats; what a run does once, such as
tokenising, is told with the cold first step. ``--compiled`` measures ``loop.compile=true`` instead, beside ours as it
comes. ``--quick`` is a tiny random model on the sample: it shows that the bench
works, no more.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from sentence_transformers import SentenceTransformer

from bench.arms import Arm, Turn, forget_peak, resident_mib
from bench.lines import line, median, seconds
from bench.ours import Ours
from bench.stock import Stock
from bench.tasks import Task, load, minilm, tiny
from sentence_forge.encoders.computing.tokens import Tokens

UNITS = {"triplet": "triplets/s", "batch_hard": "texts/s"}
TARGET = 2.5


class Case(NamedTuple):
    """A loss at a batch size, how many steps a turn has, and what else is measured."""

    loss: str
    batch_size: int
    steps: int
    tuned: bool = False
    memory: bool = False


class Speed(NamedTuple):
    """A side's rows a second, and what else a line tells of it."""

    rows_per_second: float
    more: dict[str, Any]


CASES = (Case("mnrl", 16, 16, tuned=True), Case("mnrl", 64, 8, tuned=True),
         Case("mnrl", 128, 4, tuned=True, memory=True), Case("triplet", 64, 3), Case("softmax", 64, 4),
         Case("cosine", 64, 4), Case("batch_hard", 64, 4))
QUICK = (Case("mnrl", 4, 2, tuned=True), Case("mnrl", 8, 2, memory=True), Case("triplet", 4, 2),
         Case("softmax", 4, 2), Case("cosine", 4, 2), Case("batch_hard", 8, 2))


def main() -> None:
    """Print a warm and a cold line a case and peer, memory at the largest batch, and mnrl's geometric means."""
    parser = argparse.ArgumentParser(prog="python -m bench.train", description=__doc__)
    parser.add_argument("--losses", help="separated by commas; all by default")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peak-of", nargs=3, help=argparse.SUPPRESS)  # side, loss and batch size, in its own process
    arguments = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    if arguments.peak_of:
        side, loss, batch_size = arguments.peak_of
        sys.stdout.write(f"{_peak(side, loss, int(batch_size), quick=arguments.quick)}\n")
        return
    ratios: dict[str, list[float]] = {}
    for case in QUICK if arguments.quick else CASES:
        if arguments.losses and case.loss not in arguments.losses.split(","):
            continue
        task, model = _load(case.loss, case.batch_size, quick=arguments.quick)
        if arguments.compiled:
            _compiled(f"train {case.loss}, batch {case.batch_size}", model, task, case.steps, arguments.repeats)
            continue
        peers: list[Arm] = [Stock(copy.deepcopy(model), task)]
        if case.tuned:
            peers.append(Stock(copy.deepcopy(model), task, tuned=True))
        name = f"train {case.loss}, batch {case.batch_size}"
        mine, *others = compare(name, Ours(model, task), peers, task, steps=case.steps, repeats=arguments.repeats)
        if case.loss == "mnrl":
            for peer, theirs in zip(peers, others, strict=True):
                ratios.setdefault(peer.name, []).append(mine.rows_per_second / theirs.rows_per_second)
        if case.memory:
            _memory(name, case, quick=arguments.quick)
    for peer_name, each in ratios.items():
        line("train mnrl, geometric mean of the batches", math.prod(each) ** (1 / len(each)), "times", peer=peer_name,
             peer_value=1.0, lowest=round(min(each), 3), target=TARGET)


def compare(name: str, ours: Ours, peers: Sequence[Arm], task: Task, *, steps: int, repeats: int,
            skip: int = 0) -> list[Speed]:
    """Let all sides train in turn, print a cold and a warm line a peer, and return each side's figures, ours first.

    Args:
        name: of the lines.
        ours: our side.
        peers: the others.
        task: what all train on; each turn has other rows, the same for every side.
        steps: timed a turn.
        repeats: turns.
        skip: steps before the timed ones of each turn, where starting takes long (workers, a GPU).
    """
    arms = [ours, *peers]
    once = [seconds(arm.prepare) for arm in arms]
    first = [seconds(lambda arm=arm: arm.turn(task.turn(0, 1))) for arm in arms]
    turns: list[list[Turn]] = [[] for _ in arms]
    for number in range(repeats):
        for arm, kept in zip(arms, turns, strict=True):
            kept.append(arm.turn(task.turn(number, skip + steps), skip=skip))
    mine, *others = [_told(kept, task, ours.tokens, steps, skip) for kept in turns]
    cold = [prepared + step for prepared, step in zip(once, first, strict=True)]
    for peer, kept, theirs, theirs_cold in zip(peers, turns[1:], others, cold[1:], strict=True):
        line(f"{name}, cold: what comes before, and one step", cold[0], "s", peer=peer.name,
             peer_value=theirs_cold, before=round(once[0], 3), texts_tokenised=len(task.texts))
        line(name, mine.rows_per_second, UNITS.get(task.loss, "pairs/s"), peer=peer.name,
             peer_value=theirs.rows_per_second,
             ratio_spread=_ends([b.seconds / a.seconds for a, b in zip(turns[0], kept, strict=True)]),
             **mine.more, **{f"peer_{key}": value for key, value in theirs.more.items()},
             repeats=repeats, steps=steps, rows_of=task.rows_of)
    return [mine, *others]


def _told(turns: Sequence[Turn], task: Task, tokens: Tokens, steps: int, skip: int) -> Speed:
    rows = steps * task.batch_size
    batches = [task.turn(number, skip + steps)[skip:] for number in range(len(turns))]
    real = [task.real_tokens(tokens, each) for each in batches]
    padded = [task.padded_by_column(tokens, each) for each in batches]
    share = turns[-1].padding_share
    peaks = [turn.peak_mib for turn in turns if turn.peak_mib is not None]
    speeds = [rows / turn.seconds for turn in turns]
    return Speed(median(speeds), {
        "spread": _ends(speeds),
        "tokens_per_second": round(median([each / turn.seconds for each, turn in zip(real, turns, strict=True)])),
        "padding_share": round(1 - sum(real) / sum(padded) if share is None else share, 4),
        "cpu_seconds_per_1000_rows": round(1000 * median([turn.cpu_seconds for turn in turns]) / rows, 3),
        **({"peak_mib": round(max(peaks))} if peaks else {})})


def _ends(values: Sequence[float]) -> list[float]:
    return [round(min(values), 3), round(max(values), 3)]


def _load(loss: str, batch_size: int, *, quick: bool) -> tuple[Task, SentenceTransformer]:
    task = load(loss, batch_size, sample=quick)
    return task, tiny(lambda: task.texts) if quick else minilm()


def _compiled(name: str, model: SentenceTransformer, task: Task, steps: int, repeats: int) -> None:
    """Print the speed of ``loop.compile=true`` beside ours as it comes, and the seconds of compiling every shape."""
    arms = [Ours(copy.deepcopy(model), task, compiled=True), Ours(model, task)]
    turns = [task.turn(number, steps) for number in range(repeats)]
    for arm in arms:
        arm.prepare()
    first = [seconds(lambda arm=arm: [arm.turn(each) for each in turns]) for arm in arms]
    compiled, plain = zip(*([arm.turn(each).seconds for arm in arms] for each in turns), strict=True)
    rows = steps * task.batch_size
    line(f"{name}, loop.compile=true", rows / median(compiled), UNITS.get(task.loss, "pairs/s"), peer="ours",
         peer_value=rows / median(plain), compiling=round(first[0] - sum(compiled), 1),
         ratio_spread=_ends([b / a for a, b in zip(compiled, plain, strict=True)]), repeats=repeats, steps=steps)


def _memory(name: str, case: Case, *, quick: bool) -> None:
    """Print how far training raises resident memory above model and rows, each side in a process of its own."""
    command = [sys.executable, "-m", "bench.train", *(["--quick"] if quick else [])]
    ours, stock = (float(subprocess.run([*command, "--peak-of", side, case.loss, str(case.batch_size)], check=True,
                                        capture_output=True, text=True).stdout) for side in ("ours", "stock"))
    line(f"{name}, peak memory over model and rows", ours, "MiB", peer="stock trainer, defaults", peer_value=stock)


def _peak(side: str, loss: str, batch_size: int, *, quick: bool) -> float:
    task, model = _load(loss, batch_size, quick=quick)
    arm = Ours(model, task) if side == "ours" else Stock(model, task)
    arm.prepare()
    forget_peak()
    before = resident_mib()
    arm.turn(task.turn(0, 2))
    return resident_mib(peak=True) - before


if __name__ == "__main__":
    main()
