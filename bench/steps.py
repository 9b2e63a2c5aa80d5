"""A training step beside the same one with a single thing changed: step by step in turn, in one process.

``python -m bench.steps table``: AdamW passes over a whole vocabulary, as torch's does, and not over its rows with
moments alone. ``python -m bench.steps dropout``: dropout draws 16 bits a place, not a number, which was tried
and left. MiniLM by mnrl on SNLI, of the folder $SENTENCE_FORGE_DATA: ``--batch 16``, ``--precision fp32`` or ``bf16``,
``--seconds 60`` of steps. A ratio above 1 is a change that makes a step longer. ``--quick`` is a tiny model on the
sample.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bench.arms import LEARNING_RATE, WEIGHT_DECAY
from bench.compare import ratio_interval
from bench.lines import line, median, seconds
from bench.ours import Ours
from bench.tasks import Task, load, minilm, tiny
from sentence_forge.encoders.computing.device import keep_freed_memory
from sentence_forge.train import table
from sentence_forge.train.batches import Batches
from sentence_forge.train.loop import State, Training
from sentence_forge.train.mixing import Batch
from sentence_forge.train.optim import Plan, adamw
from sentence_forge.train.rows import Part

_STEPS = 2**16


def main() -> None:
    """Print the milliseconds of a step with the change and without, and their ratio with its 95 % interval."""
    parser = argparse.ArgumentParser(prog="python -m bench.steps", description=__doc__)
    parser.add_argument("change", choices=CHANGES)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    keep_freed_memory()  # as a run does
    task = load("mnrl", arguments.batch, sample=arguments.quick)
    model = tiny(lambda: task.texts) if arguments.quick else minilm()
    changes = contextlib.nullcontext, CHANGES[arguments.change]
    with tempfile.TemporaryDirectory() as folder:
        sides = []
        for change in changes:
            with change():
                sides.append(training(copy.deepcopy(model), task, Path(folder), bf16=arguments.precision == "bf16"))
        asis, changed = in_turn(sides, changes, arguments.seconds)
    line(f"{arguments.change}, batch {arguments.batch}, {arguments.precision}: a step, changed", 1000 * median(changed),
         "ms", peer="as it is", peer_value=1000 * median(asis), ratio_ci95=ratio_interval(changed, asis),
         steps=len(asis), threads=torch.get_num_threads())


def training(model: SentenceTransformer, task: Task, folder: Path, *, bf16: bool) -> Training:
    """Return a training that is ready for its first step."""
    side = Ours(model, task)
    side.prepare()
    never = 10**6
    plan = Plan(total=never, warmup=10, accumulate=1, learning_rate=LEARNING_RATE, schedule="linear", max_grad_norm=1.0,
                log_every=never, evaluate_every=never, checkpoint_every=never, keep=1, patience=None, bf16=bf16)
    made = Training(run=folder, encoder=side.encoder, losses=side.losses, parts=[Part(side.rows, side.loss)],
                    batches=Batches(lambda epoch: [Batch(0, rows) for rows in task.batches]), plan=plan, state=State(),
                    optimizer=adamw([model, side.losses], learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY),
                    evaluate=dict, on_better=lambda step: None, tracker=None)  # type: ignore[arg-type] # nothing is logged
    model.train()
    made._ahead.__enter__()
    return made


def in_turn(sides: list[Training], changes: tuple[Callable[[], AbstractContextManager[object]], ...],
            long: float) -> list[list[float]]:
    """Return the seconds of each side's steps, the first three of each left out."""
    taken: list[list[float]] = [[] for _ in sides]
    end = time.monotonic() + long
    while time.monotonic() < end or len(taken[0]) < 5:
        for number in (0, 1) if len(taken[0]) % 2 else (1, 0):
            with changes[number]():
                taken[number].append(seconds(sides[number]._step))
    return [each[3:] for each in taken]


@contextlib.contextmanager
def whole_table() -> Iterator[None]:
    """Let no table be large enough for AdamW to go by its rows."""
    with mock.patch.object(table, "LEAST", 10**9):
        yield


class SixteenBits(TorchFunctionMode):
    """Draws hidden states' dropout from torch's generator, four places of a mask from one number of 64 bits."""

    def __torch_function__(self, function: Callable[..., Any], types: Collection[type], args: tuple[Any, ...] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - what the function gives
        return (_dropout if function is F.dropout else function)(*args, **(kwargs or {}))


def _dropout(given: Tensor, p: float, training: bool, inplace: bool = False) -> Tensor:
    """Return what ``torch.nn.functional.dropout`` returns, by another draw; 0.1 becomes 0.100006."""
    if not training or not p:
        return given
    dropped, places = round(p * _STEPS), given.numel()
    bits = torch.empty(-(-places // 4), dtype=torch.int64).random_(-2**63, None).view(torch.int16)[:places]
    kept = (bits >= dropped - _STEPS // 2).view(given.shape)
    return given * kept.to(given.dtype).mul_(_STEPS / (_STEPS - dropped))


CHANGES: dict[str, Callable[[], AbstractContextManager[object]]] = {"table": whole_table, "dropout": SixteenBits}

if __name__ == "__main__":
    main()
