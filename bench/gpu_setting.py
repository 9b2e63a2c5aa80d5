"""What the parts of the GPU set share: how much of everything, the model, its texts, and the stock sides."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from sentence_transformers import SentenceTransformer

from bench import generated
from bench.compare import Length
from bench.ours import Ours
from bench.stock import Stock
from bench.tasks import Task

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
    curve: int  # steps whose losses are compared
    titles: int
    matmul: int
    launches: tuple[int, int]  # steps of the two turns whose difference tells


FULL = Scale(30_517, {}, (128, 512), 131_072, Length(5, 1.5, skip=10), repeats=5, curve=50, titles=TITLES,
             matmul=8192, launches=(2, 6))
QUICK = Scale(500, {"hidden": 32, "layers": 2, "heads": 2}, (8, 16), 256, Length(2, 0.1, skip=1), repeats=2, curve=8,
              titles=300, matmul=128, launches=(1, 2))


class Setting:
    """One device and one scale.

    Args:
        folder: for the model; must not be there.
        device: ``cuda``, or ``cpu`` to show that everything works.
        scale: how much.
    """

    def __init__(self, folder: Path, device: str, scale: Scale) -> None:
        self.device, self.scale = torch.device(device), scale
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

    def ours(self, task: Task, *, compiled: bool = False) -> Ours:
        """Return our side, as a short run has it or compiled, as a long one."""
        return Ours(self.model(), task, bf16=self.bf16, compiled=compiled,
                    name="ours, compiled" if compiled else "ours")

    def stock(self, task: Task) -> Stock:
        """Return the stock trainer as it comes."""
        return Stock(self.model(), task)

    def tuned(self, task: Task, *, compiled: bool = False) -> Stock:
        """Return the tuned stock trainer; its name says whether it pads."""
        flash = self.flash()
        return Stock(self.model(**flash), task, tuned=True, unpadded=bool(flash), compiled=compiled)

    def flash(self) -> dict[str, str]:
        """Return how a stock model is loaded with flash attention, which lets it leave out the padding."""
        return {"attn_implementation": "flash_attention_2"} if self.bf16 and find_spec("flash_attn") else {}

    def wait(self) -> None:
        """Return when the device has nothing to do."""
        if self.bf16:
            torch.cuda.synchronize()
