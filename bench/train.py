"""Training beside sentence-transformers' own trainer: the same weights, rows, batches, schedule and loss, in turn.

``python -m bench.train [--losses mnrl,triplet] [--quick]``: MiniLM on the CPU, real rows from the folder
$SENTENCE_FORGE_DATA. mnrl at batch 16, 32, 64 and 128, a minute a side and batch: ours in float32 beside the trainer
as it comes, and, where the processor multiplies in bf16, ours in bf16 beside the trainer tuned and in bf16; elsewhere
the tuned one is in float32. One line tells what oneDNN alone gives. The other losses beside the trainer as it comes,
for a quarter of a minute. Ratios have 95 % intervals over the turns; what a run does once, such as tokenising, is told
with the cold first step of mnrl, which each side takes in processes of its own, so that neither warms up for the
other. ``--results FOLDER`` keeps every finished case, and a run that was cut goes on behind them, as ``python -m
bench.all train`` does. ``--e5`` measures multilingual-e5-small instead, whose vocabulary is larger than MiniLM's (the
hub's eight times, the trimmed copy of RESULTS.md twice), by mnrl at batch 64 on Chinese NLI. ``--quick`` is a tiny
random model on the sample: it shows that the bench works, no more. About 30 minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sentence_transformers import SentenceTransformer

from bench.arms import Arm, forget_peak, resident_mib
from bench.compare import Length, Speed, measure, told, told_cold
from bench.lines import line, median, seconds
from bench.machine import commit
from bench.ours import Ours
from bench.results import Results, read_lines
from bench.stock import Stock
from bench.tasks import Task, e5_small, load, minilm, tiny
from sentence_forge.encoders.computing.device import multiplies_in_bf16
from sentence_forge.encoders.computing.matmul import processor

CPU = torch.device("cpu")


class Case(NamedTuple):
    """A loss at a batch size, and what else is measured."""

    loss: str
    batch_size: int
    products: bool = False  # also ours without oneDNN
    alone: int = 0  # so many processes a side, for the first step and the memory
    e5: bool = False  # instead of MiniLM

    @property
    def name(self) -> str:
        """As lines are called."""
        return f"train {self.loss}, batch {self.batch_size}{', e5' if self.e5 else ''}"

    @property
    def key(self) -> list[str | int]:
        """As results call it."""
        return [self.loss, self.batch_size, *(["e5"] if self.e5 else [])]


CASES = (Case("mnrl", 16, alone=3), Case("mnrl", 32, products=True, alone=3), Case("mnrl", 64, alone=3),
         Case("mnrl", 128, alone=3), Case("triplet", 64), Case("softmax", 64), Case("cosine", 64),
         Case("batch_hard", 64))
E5 = (Case("mnrl", 64, e5=True),)
QUICK = (Case("mnrl", 4, products=True), Case("mnrl", 8, alone=1), Case("triplet", 4), Case("softmax", 4),
         Case("cosine", 4), Case("batch_hard", 8))


def main() -> None:
    """Print each case's lines, and mnrl's geometric means over the batches."""
    parser = argparse.ArgumentParser(prog="python -m bench.train", description=__doc__)
    parser.add_argument("--losses", help="separated by commas; all by default")
    parser.add_argument("--results", type=Path, help="folder; keeps train.json there")
    parser.add_argument("--e5", action="store_true", help="multilingual-e5-small on Chinese NLI instead")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)  # side, loss and batch size, in its own process
    arguments = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    if arguments.alone:
        side, loss, batch_size = arguments.alone
        sys.stdout.write(f"{json.dumps(_alone(side, loss, int(batch_size), quick=arguments.quick))}\n")
        return
    results, lines, now = None, [], commit()
    if arguments.results is not None:
        file = arguments.results / "train.json"
        lines = [each for each in read_lines(file) if now is not None and each.get("commit") == now and "case" in each]
        results = Results(file, "python -m bench.train", lines)
    for case in QUICK if arguments.quick else E5 if arguments.e5 else CASES:
        chosen = not arguments.losses or case.loss in arguments.losses.split(",")
        if not chosen or any(each["case"] == case.key for each in lines):
            continue
        made = [{**each, "case": case.key, "commit": now} for each in run(case, quick=arguments.quick)]
        lines += made
        if results is not None:
            results.add(*made)
    for mean in means(lines):
        if results is not None:
            results.add(mean)


def run(case: Case, *, quick: bool) -> Iterator[dict[str, Any]]:
    """Measure one case and yield its lines."""
    task, model = _load(case.loss, case.batch_size, quick=quick, e5=case.e5)
    peers: list[Arm] = [Stock(copy.deepcopy(model), task)]
    half = multiplies_in_bf16(CPU)
    if case.loss == "mnrl":
        peers.append(Stock(copy.deepcopy(model), task, tuned=True, bf16=half))
        if half:
            peers.append(Ours(copy.deepcopy(model), task, bf16=True, name="ours, bf16"))
    own = case.products and processor(CPU).endswith("oneDNN")
    if own:
        peers.append(Ours(copy.deepcopy(model), task, onednn=False, name="ours, MKL instead of oneDNN"))
    turns, long = (12, 5.0) if case.loss == "mnrl" else (4, 3.5)
    length = Length(2, 0.1) if quick else Length(turns, long)
    mine, stock, *others = measure(Ours(copy.deepcopy(model), task), peers, task, length)
    yield told(case.name, mine, stock, task)
    if case.loss == "mnrl":
        yield told(f"{case.name}{', bf16' if half else ''}", others[1] if half else mine, others[0], task)
    if own:
        yield told(f"{case.name}, what oneDNN alone gives", mine, others[-1], task)
    if case.alone:
        yield from _beginnings(case, mine, stock, task, quick=quick)


def means(lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Print and yield the geometric mean of mnrl's ratios over the batches, for each pair of sides."""
    pairs = {(each["ours"], each["peer"]): f", {each['ours'].partition(', ')[2]}".rstrip(", ") for each in lines
             if each["case"][0] == "mnrl" and len(each["case"]) == 2 and "ratio_ci95" in each
             and each["peer"].startswith("stock")}
    for (ours, peer), more in pairs.items():
        ratios = [each["ratio"] for each in lines if (each.get("ours"), each["peer"]) == (ours, peer)
                  and "ratio_ci95" in each and each["case"][0] == "mnrl" and len(each["case"]) == 2]
        yield line(f"train mnrl{more}, geometric mean of the batches", math.prod(ratios) ** (1 / len(ratios)), "times",
                   peer=peer, peer_value=1.0, lowest=min(ratios), batches=len(ratios),
                   target=3.0 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 2.5)


def _load(loss: str, batch_size: int, *, quick: bool, e5: bool = False) -> tuple[Task, SentenceTransformer]:
    task = load(loss, batch_size, sample=quick, chinese=e5)
    return task, tiny(lambda: task.texts) if quick else e5_small() if e5 else minilm()


def _beginnings(case: Case, mine: Speed, stock: Speed, task: Task, *, quick: bool) -> Iterator[dict[str, Any]]:
    """Print when the first step is done, and how far training raises resident memory above model and rows.

    Each is the median over processes that do nothing else, ours and the stock trainer's in turn.
    """
    command = [sys.executable, "-m", "bench.train", *(["--quick"] if quick else []), "--alone"]
    found: dict[str, list[tuple[float, float, float]]] = {"ours": [], "stock": []}
    for _ in range(case.alone):
        for side, kept in found.items():
            done = subprocess.run([*command, side, case.loss, str(case.batch_size)], check=True, capture_output=True,
                                  text=True)
            kept.append(json.loads(done.stdout))
    (*ours, our_peak), (*theirs, their_peak) = (map(median, zip(*kept, strict=True)) for kept in found.values())
    yield told_cold(case.name, mine._replace(cold=tuple(ours)), stock._replace(cold=tuple(theirs)), task)
    yield line(f"{case.name}, peak memory over model and rows", our_peak, "MiB", peer=stock.name, peer_value=their_peak)


def _alone(side: str, loss: str, batch_size: int, *, quick: bool) -> tuple[float, float, float]:
    """Return the seconds of what comes before the first step, those of that step, and the peak of memory in MiB."""
    task, model = _load(loss, batch_size, quick=quick)
    arm = Ours(model, task) if side == "ours" else Stock(model, task)
    before = seconds(arm.prepare)
    forget_peak()
    held = resident_mib()
    first = seconds(lambda: arm.turn(task.turn(0, 1)))
    arm.turn(task.turn(0, 2))
    return before, first, resident_mib(peak=True) - held


if __name__ == "__main__":
    main()
