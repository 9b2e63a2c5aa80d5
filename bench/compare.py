"""Sides that train in turn: each one's speed, and ratios of speeds with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.arms import Arm, Turn
from bench.lines import line, seconds
from bench.ours import Ours
from bench.tasks import Task
from sentence_forge.encoders.computing.tokens import Tokens

UNITS = {"triplet": "triplets/s", "batch_hard": "texts/s"}


class Length(NamedTuple):
    """How long sides are compared.

    Args:
        turns: of each side, one after the other, so that noise falls on all alike.
        seconds: about so many a turn, on whatever machine; each side takes the steps that fill them.
        skip: steps before the timed ones of each turn, where starting takes long (workers, a GPU).
    """

    turns: int
    seconds: float
    skip: int = 0


class Speed(NamedTuple):
    """A side's rows a second in each turn, and what else a line tells of it."""

    name: str
    turns: list[float]
    more: dict[str, Any]
    cold: tuple[float, float]  # seconds of what comes before the first step, and of that step

    @property
    def rows_per_second(self) -> float:
        """The geometric mean of the turns: ratios of these are means of the turns' ratios."""
        return math.exp(float(np.mean(np.log(self.turns))))


def measure(ours: Ours, peers: Sequence[Arm], task: Task, length: Length) -> list[Speed]:
    """Let all sides train in turn, and return their speeds, ours first.

    Each turn takes other rows, which begin at the same one for every side.
    """
    arms = [ours, *peers]
    cold = [(seconds(arm.prepare), seconds(lambda arm=arm: arm.turn(task.turn(0, 1)))) for arm in arms]
    steps = []
    for arm in arms:
        some = task.turn(0, length.skip + 2)
        arm.turn(some)  # code for new shapes is made
        steps.append(math.ceil(2 * length.seconds / arm.turn(some, skip=length.skip).seconds))
    turns: list[list[Turn]] = [[] for _ in arms]
    for number in range(length.turns):
        for arm, count, kept in zip(arms, steps, turns, strict=True):
            batches = task.turn(number, length.skip + count, apart=length.skip + max(steps))
            kept.append(arm.turn(batches, skip=length.skip))
    return [_told(arm.name, kept, task, ours.tokens, count, max(steps), length, once)
            for arm, kept, count, once in zip(arms, turns, steps, cold, strict=True)]


def told(name: str, mine: Speed, theirs: Speed, task: Task, **more: object) -> dict[str, Any]:
    """Print how much faster one side is than another, with the 95 % interval of the ratio over the turns."""
    return line(name, mine.rows_per_second, UNITS.get(task.loss, "pairs/s"), peer=theirs.name,
                peer_value=theirs.rows_per_second, ratio_ci95=ratio_interval(mine.turns, theirs.turns), ours=mine.name,
                **mine.more, **{f"peer_{key}": value for key, value in theirs.more.items()}, rows_of=task.rows_of,
                **more)


def told_cold(name: str, mine: Speed, theirs: Speed, task: Task) -> dict[str, Any]:
    """Print the seconds to the end of the first step."""
    return line(f"{name}, cold: what comes before, and one step", sum(mine.cold), "s", peer=theirs.name,
                peer_value=sum(theirs.cold), ours=mine.name, before=round(mine.cold[0], 3),
                texts_tokenised=len(task.texts))


def ratio_interval(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the 95 % interval of the mean ratio of speeds, by Student's t over the turns' logarithms."""
    from scipy.stats import t

    logs = np.log(ours) - np.log(theirs)
    if len(logs) < 2:
        return [0.0, math.inf]
    half = float(t.ppf(0.975, len(logs) - 1)) * float(np.std(logs, ddof=1)) / math.sqrt(len(logs))
    return [round(math.exp(float(logs.mean()) + sign * half), 3) for sign in (-1, 1)]


def _told(name: str, turns: Sequence[Turn], task: Task, tokens: Tokens, steps: int, most: int, length: Length,
          cold: tuple[float, float]) -> Speed:
    rows = steps * task.batch_size
    batches = [task.turn(number, length.skip + steps, apart=length.skip + most)[length.skip:]
               for number in range(len(turns))]
    real = sum(task.real_tokens(tokens, each) for each in batches)
    padded = sum(task.padded_by_column(tokens, each) for each in batches)
    share = turns[-1].padding_share
    taken = sum(turn.seconds for turn in turns)
    peaks = [turn.peak_mib for turn in turns if turn.peak_mib is not None]
    return Speed(name, [rows / turn.seconds for turn in turns], {
        "turns": len(turns), "steps": steps, "seconds": round(taken, 1), "tokens_per_second": round(real / taken),
        "padding_share": round(1 - real / padded if share is None else share, 4),
        "cpu_seconds_per_1000_rows": round(1000 * sum(turn.cpu_seconds for turn in turns) / rows / len(turns), 3),
        **({"peak_mib": round(max(peaks))} if peaks else {})}, cold)
