"""The GPU set: checks first, then times, on one GPU, without data, network or hub.

``python -m bench.gpu [--minutes 8]``: bert-base with random weights on made-up texts with SNLI's lengths, bf16, beside
the stock trainer as it comes (float32) and tuned (``bench.stock.tuned_arguments``; flash attention where it is
installed), and beside its ``encode``. Lines come as they are measured, so that a run that is cut still tells; what the
time is too short for is left out and said. ``--device cpu --quick`` goes the whole way with a tiny model.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from bench import generated
from bench.agreement import curve, first_steps
from bench.arms import Arm
from bench.compare import Length, Speed, measure, told, told_cold
from bench.launches import launches_a_step, waits_a_step
from bench.lines import interleaved, line, median, seconds
from bench.machine import facts
from bench.ours import Ours
from bench.profile import table, where_it_goes
from bench.stock import Stock
from bench.tasks import Task, without_dropout
from sentence_forge.encoders.encoder import Encoder, in_bf16

EPOCH = 942_069  # pairs of SNLI and MultiNLI
TITLES = 307_128


class Scale(NamedTuple):
    """How much of everything; ``QUICK`` only shows that the bench works."""

    words: int
    model: dict[str, int]
    batches: tuple[int, ...]
    rows: int
    length: Length  # of comparing trainings
    repeats: int  # of encoding
    steady: int
    titles: int
    matmul: int
    launches: tuple[int, int]  # steps of the two turns whose difference tells


FULL = Scale(30_517, {}, (128, 512), 131_072, Length(6, 2.0, skip=10), repeats=5, steady=500, titles=TITLES,
             matmul=8192, launches=(2, 6))
QUICK = Scale(500, {"hidden": 32, "layers": 2, "heads": 2}, (8, 16), 256, Length(2, 0.1, skip=1), repeats=2, steady=8,
              titles=300, matmul=128, launches=(1, 2))


class Bench:
    """What the sections share: the model's folder, the words, the scale and the clock."""

    def __init__(self, folder: Path, device: str, scale: Scale, minutes: float) -> None:
        self.device, self.scale, self.end = torch.device(device), scale, time.monotonic() + 60 * minutes
        self.words = generated.words(scale.words)
        self.folder = generated.bert(self.words, folder, **scale.model)
        self.bf16 = device == "cuda"
        self.tasks = {size: generated.pairs(self.words, scale.rows, size) for size in scale.batches}
        self.failed = 0  # sections that raised, and checks that are off
        self.rate = 0.0  # measured bf16 matrix products, FLOP/s

    def model(self, **model_arguments: object) -> SentenceTransformer:
        """Load the model anew."""
        return SentenceTransformer(str(self.folder), device=str(self.device), local_files_only=True,
                                   model_kwargs={"dtype": torch.float32} | model_arguments)

    def section(self, name: str, needs: float, run: Callable[[], object]) -> None:
        """Run a section if ``needs`` seconds are left; one that fails is told, and the next begins."""
        left = self.end - time.monotonic()
        if left < needs:
            line(f"left out: {name}", left, "s left", needs=needs)
            return
        try:
            run()
        except Exception as error:
            traceback.print_exc()
            self.failed += 1
            line(f"failed: {name}", 0, "-", error=f"{type(error).__name__}: {str(error)[:300]}")
        if self.bf16:
            torch.cuda.empty_cache()

    def checks(self) -> None:
        """Print how far the fast path is from float32 beside the padded one, and our training from the stock one.

        Without dropout. In bf16 both round; ours may be off by 1.2 times what padding is.
        """
        task = self.tasks[min(self.tasks)]
        model = without_dropout(self.model())
        batch = np.unique(task.text_ids[task.batches[0]])
        exact = _vectors(Encoder(model, fast=False), task, batch, bf16=False)
        for precision in ("fp32", "bf16", "bf16, without the varlen kernel"):
            fast, padded = Encoder(model), Encoder(model, fast=False)
            bf16 = precision != "fp32"
            if "without" in precision:  # as it is with dropout
                _vectors(fast, task, batch, bf16=bf16)
                fast.forward.kernel = False
            ours, theirs = (_vectors(way, task, batch, bf16=bf16) for way in (fast, padded))
            for what, own, other, right in zip(("vectors", "gradients"), ours, theirs, exact, strict=True):
                off, beside = (float((each - right).norm() / right.norm()) for each in (own, other))
                limit = 1.2 * beside if bf16 else 1e-5
                self.failed += not off <= limit
                line(f"check: {precision}, {what}, off from padded fp32", off, "relative difference", peer="padded",
                     peer_value=beside or None, limit=limit, within=off <= limit)
        ours, stock = Ours(copy.deepcopy(model), task), Stock(copy.deepcopy(model), task)
        _prepared(ours, stock)
        self.failed += not first_steps("check: fp32", ours, stock, task)
        ours, stock = (Ours(copy.deepcopy(model), task, bf16=self.bf16),
                       Stock(copy.deepcopy(model), task, tuned=True))
        _prepared(ours, stock)
        curve(f"check: {'bf16' if self.bf16 else 'fp32'}", ours, stock, task, min(50, self.scale.steady))

    def matmul(self) -> None:
        """Measure the bf16 matrix product rate."""
        size = self.scale.matmul
        a, b = (torch.randn(size, size, device=self.device, dtype=torch.bfloat16) for _ in range(2))

        def products() -> None:
            for _ in range(20):
                a @ b
            self._wait()

        taken = interleaved([products], 6)[0][1:]
        self.rate = 20 * 2 * size**3 / median(taken)
        line("bf16 matrix products", self.rate / 1e12, "TFLOP/s", size=size)

    def train(self, batch_size: int) -> None:
        """Compare training at one batch size, with utilisation and launches a step."""
        task = self.tasks[batch_size]
        ours = Ours(self.model(), task, bf16=self.bf16)
        peers: list[Arm] = [self._tuned(task), Stock(self.model(), task)]
        name = f"gpu train mnrl, batch {batch_size}"
        mine, *others = speeds = measure(ours, peers, task, self.scale.length)
        for theirs in others:
            told_cold(name, mine, theirs, task)
            told(name, mine, theirs, task)
        for speed in speeds:
            self._utilisation(f"{name}, {speed.name}", ours, speed)
        skip, steps = self.scale.length.skip, self.scale.launches[1]
        batches = task.turn(0, skip + 2 * steps)
        table(f"{name}, a step", where_it_goes(lambda: ours.turn(batches), skip=skip, steps=steps))

    def compiled(self) -> None:
        """Compare ``loop.compile=true`` with ours as it comes and the tuned stock trainer's ``torch_compile=True``."""
        task = self.tasks[min(self.tasks)]
        ours = Ours(self.model(), task, bf16=self.bf16, compiled=True, name="ours, compiled")
        peers: list[Arm] = [Ours(self.model(), task, bf16=self.bf16), self._tuned(task, compiled=True)]
        mine, *others = measure(ours, peers, task, self.scale.length)
        for theirs in others:
            told_cold(f"gpu train mnrl, batch {task.batch_size}, compiled", mine, theirs, task)
            told(f"gpu train mnrl, batch {task.batch_size}, compiled", mine, theirs, task)

    def launches(self) -> None:
        """Print the kernel and graph launches of a step, and the waits for the GPU; on a CPU there are none."""
        task = self.tasks[min(self.tasks)]
        arms: list[Arm] = [Ours(self.model(), task, bf16=self.bf16), self._tuned(task), Stock(self.model(), task)]
        _prepared(*arms)
        few, many = self.scale.launches
        counts = [launches_a_step(arm, task, few=few, many=many) for arm in arms]
        for peer, count in zip(arms[1:], counts[1:], strict=True):
            line(f"gpu train mnrl, batch {task.batch_size}, launches a step", counts[0], "launches", peer=peer.name,
                 peer_value=count or None)
        if self.bf16:
            waits = [waits_a_step(arm, task, few=few, many=many) for arm in arms]
            for peer, count in zip(arms[1:], waits[1:], strict=True):
                line(f"gpu train mnrl, batch {task.batch_size}, waits a step", waits[0], "calls that wait for the GPU",
                     peer=peer.name, peer_value=count or None)

    def steady(self) -> None:
        """Print the seconds an epoch takes, from a long run of steps, and beside it those of tokenising its texts."""
        task = self.tasks[min(self.tasks)]
        ours = Ours(self.model(), task, bf16=self.bf16)
        tokenising = seconds(ours.prepare) * EPOCH / len(task.text_ids)
        count = self.scale.steady
        turn = ours.turn(task.turn(0, self.scale.length.skip + count), skip=self.scale.length.skip)
        line("gpu epoch of 942,069 pairs, extrapolated", turn.seconds / count * EPOCH / task.batch_size, "s",
             steps=count, batch=task.batch_size, tokenising_before_it=round(tokenising, 2), target=60)

    def encode(self) -> None:
        """Compare encoding titles from strings to vectors on disk, both with bf16 weights (``precision=bf16``)."""
        titles = generated.texts(self.words, self.scale.titles, *generated.TITLE, seed=2)
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        flash = self._flash()
        encoder, stock = Encoder(self.model()), self.model(dtype=dtype, **flash)
        if self.bf16:
            encoder = in_bf16(encoder)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "vectors.npy")

            def ours(texts: Sequence[str]) -> None:
                out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(len(texts), encoder.dim))
                encoder.encode(texts, out=out)
                out.flush()

            def theirs(texts: Sequence[str]) -> None:
                # NumPy has no bf16: the stock encode gives float32
                np.save(file, stock.encode(list(texts), batch_size=512, show_progress_bar=False))

            ours(titles[:100])
            theirs(titles[:100])
            some = titles[: len(titles) // 10]
            mine, peer = interleaved([lambda: ours(some), lambda: theirs(some)], self.scale.repeats)
            line("gpu encode, titles to vectors on disk", len(some) / median(mine), "titles/s",
                 peer=f"stock encode, {str(dtype)[6:]}, batch 512{', flash attention' if flash else ''}",
                 peer_value=len(some) / median(peer),
                 titles=len(some),
                 spread=[round(len(some) / end) for end in (max(mine), min(mine))],
                 peer_spread=[round(len(some) / end) for end in (max(peer), min(peer))])
            line(f"gpu encode, {len(titles)} titles to vectors on disk", seconds(lambda: ours(titles)), "s", target=15)

    def _flash(self) -> dict[str, str]:
        """Return how a stock model is loaded with flash attention, which lets it leave out the padding."""
        return {"attn_implementation": "flash_attention_2"} if self.bf16 and find_spec("flash_attn") else {}

    def _tuned(self, task: Task, *, compiled: bool = False) -> Stock:
        flash = self._flash()
        return Stock(self.model(**flash), task, tuned=True, unpadded=bool(flash), compiled=compiled)

    def _utilisation(self, name: str, ours: Ours, speed: Speed) -> None:
        """Print the model's own arithmetic a second, on real tokens, against the measured rate."""
        transformer: Any = ours.encoder.model[0]
        config, lengths = transformer.model.config, ours.tokens.lengths.astype(float)
        hidden, layers = config.hidden_size, config.num_hidden_layers
        weights = layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
        # forward and backward: 6 operations a weight and token; attention 12 a layer, dimension, token and length
        flops = 6 * weights + 12 * layers * hidden * float((lengths**2).sum() / lengths.sum())
        done = flops * speed.more["tokens_per_second"]
        line(f"{name}: utilisation", done / self.rate, "of the bf16 rate", tflops=round(done / 1e12, 2), target=0.4)

    def _wait(self) -> None:
        if self.bf16:
            torch.cuda.synchronize()


def main() -> int:
    """Run the sections in the order of what matters most; return 1 where one failed, or a check is off."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("error: there is no CUDA device here; --device cpu --quick only shows that this works\n")
        return 2
    os.environ["TQDM_DISABLE"] = "1"
    line("machine", os.cpu_count() or 0, "cores", **facts())
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder, "bert"), arguments.device, QUICK if arguments.quick else FULL, arguments.minutes)
        bench.section("matrix products", 5, bench.matmul)
        bench.section("checks", 60, bench.checks)
        for size in bench.scale.batches:
            bench.section(f"training at batch {size}", 60, lambda size=size: bench.train(size))
        bench.section("launches", 30, bench.launches)
        bench.section("an epoch", 30, bench.steady)
        bench.section("encoding", 60, bench.encode)
        if bench.bf16:  # on a CPU it compiles for longer than the rest takes
            bench.section("compiled", 120, bench.compiled)
    return 1 if bench.failed else 0


def _prepared(*arms: Arm) -> None:
    for arm in arms:
        arm.prepare()


def _vectors(encoder: Encoder, task: Task, texts: np.ndarray, *, bf16: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the texts' vectors, and the gradient of a fixed function of them, all parameters in one."""
    model = encoder.model.train()
    model.zero_grad()
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
        vectors = encoder.forward(encoder.tokenize([task.texts[number] for number in texts])).float()
    direction = torch.from_numpy(np.random.default_rng(0).normal(size=vectors.shape).astype(np.float32))
    (vectors * direction.to(vectors.device)).sum().backward()
    gradient = torch.cat([p.grad.float().reshape(-1) for p in model.parameters() if p.grad is not None])
    return vectors.detach(), gradient


if __name__ == "__main__":
    sys.exit(main())
