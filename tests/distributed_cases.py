"""Batches of every loss, for one process or several to compute loss and gradients of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sentence_forge.encoders.computing.forward import Forward
from sentence_forge.encoders.encoder import Encoder
from sentence_forge.encoders.making import lora
from sentence_forge.encoders.making.build import from_scratch
from sentence_forge.losses.angle import AnglE
from sentence_forge.losses.base import Loss
from sentence_forge.losses.batch_hard import BatchHard
from sentence_forge.losses.cosent import CoSENT
from sentence_forge.losses.cosine import Cosine
from sentence_forge.losses.distill import Distill
from sentence_forge.losses.matryoshka import Matryoshka
from sentence_forge.losses.mnrl import MultipleNegativesRanking
from sentence_forge.losses.online_contrastive import OnlineContrastive
from sentence_forge.losses.softmax import Softmax
from sentence_forge.losses.supcon import SupervisedContrastive
from sentence_forge.losses.triplet import Triplet
from sentence_forge.train.distributed import World
from sentence_forge.train.mixing import Batch
from sentence_forge.train.rows import BatchLoss, Part, Rows

WORDS = ["storm", "coast", "markets", "fall", "rates", "rise", "opera", "winter", "air", "north", "city", "sea"]
CLASSES = ["0", "1", "2"]
SCORES = ("cosine", "cosent", "angle", "online_contrastive")


class Twice(MultipleNegativesRanking):
    """Somebody's own loss, which knows nothing of parts."""

    def forward(self, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        return 2 * super().forward(embeddings, labels, text_ids)


MAKE: dict[str, Callable[[], Loss]] = {
    "mnrl": MultipleNegativesRanking, "mnrl symmetric": lambda: MultipleNegativesRanking(scale=7, symmetric=True),
    "mnrl margin": lambda: MultipleNegativesRanking(false_negative_margin=0.01, symmetric=True),
    "mnrl extended": Twice, "softmax": lambda: Softmax(dim=32, labels=CLASSES), "cosine": Cosine, "cosent": CoSENT,
    "angle": AnglE, "triplet": Triplet, "batch_hard": lambda: BatchHard(labels=CLASSES),
    "online_contrastive": OnlineContrastive, "supcon": lambda: SupervisedContrastive(labels=CLASSES),
    "distill": lambda: Distill(dim=32, teacher_dim=16),
    "matryoshka": lambda: Matryoshka({32: MultipleNegativesRanking(), 8: MultipleNegativesRanking()}, [1.0, 0.5]),
    "matryoshka softmax": lambda: Matryoshka({d: Softmax(dim=d, labels=CLASSES) for d in (32, 8)})}
ONE_LOSS = {**{name: name for name in MAKE}, "mnrl equal texts": "mnrl symmetric", "mnrl one row each": "mnrl",
            "mnrl one row": "mnrl", "cosine one row": "cosine", "recomputed": "mnrl", "lora": "mnrl", "frozen": "mnrl",
            "head alone": "softmax"}
MIX = ("softmax", "mnrl", "matryoshka softmax", "cosine")  # in this order; several heads, most batches without them
CASES = (*ONE_LOSS, "mix", "mix of one head at a time")


class Case(NamedTuple):
    """A model, its losses, and the batches of one step."""

    encoder: Encoder
    losses: nn.ModuleList
    parts: list[Part]
    batches: list[Batch]


class Found(NamedTuple):
    """A step's loss and gradients by name, those of weights that have none left out."""

    loss: Tensor
    gradients: dict[str, Tensor]


def a_case(name: str) -> Case:
    generator = np.random.default_rng(1)
    texts = [" ".join(generator.choice(WORDS, generator.integers(1, 12))) for _ in range(22)]
    torch.manual_seed(0)
    model = from_scratch(lambda: texts, hidden=32, layers=2, heads=2, vocabulary=90, dropout=0.0)
    encoder = Encoder(lora.add(model, {"r": 2} if name == "lora" else None))
    if name == "recomputed":
        encoder.forward = Forward(model, tokens_at_once=20)
    if name == "frozen":
        model[0].auto_model.embeddings.requires_grad_(False)
    if name == "head alone":
        model.requires_grad_(False)
    rows = {"mnrl one row each": 2, "mnrl one row": 1, "cosine one row": 1}.get(name, 7)  # 7: shares of 4 and 3
    kinds = [ONE_LOSS[name]] if name in ONE_LOSS else list(MIX)
    parts = [Part(_rows(encoder, texts, rows, kind, loss, equal="equal" in name), loss)
             for kind in kinds for loss in [MAKE[kind]()]]
    order = [2, 1] if name == "mix of one head at a time" else range(len(parts))
    return Case(encoder, nn.ModuleList(part.loss for part in parts), parts, [Batch(n, np.arange(rows)) for n in order])


def _rows(encoder: Encoder, texts: list[str], rows: int, kind: str, loss: Loss, *, equal: bool) -> Rows:
    columns = {**dict.fromkeys(("batch_hard", "supcon"), 1), **dict.fromkeys((*SCORES, "softmax", "matryoshka softmax"),
                                                                             2)}.get(kind, 3)
    ids = np.arange(columns * rows).reshape(columns, rows).T
    if equal:
        ids[5, 1] = ids[0, 1]  # of the other process: a false negative unless it is masked
        ids[6, 2] = ids[1, 0]
    if isinstance(loss, Distill):
        labels = torch.randn(rows, columns, 16, generator=torch.Generator().manual_seed(3))
        return Rows(encoder.tokenize(texts), ids, labels, np.arange(rows))
    labels = loss.encode_labels([0.1 * (row + 1) for row in range(rows)] if kind in SCORES else
                                [CLASSES[row % 3] for row in range(rows)])
    return Rows(encoder.tokenize(texts), ids, labels, np.arange(rows))


def step(case: Case, world: World) -> Found:
    """Compute a step's loss and gradients, its batches one after the other, as the loop does."""
    case.encoder.model.train()
    module = BatchLoss(case.encoder, case.losses, case.parts, world)
    wrapped = world.together(module)
    total = torch.zeros(())
    for number, batch in enumerate(case.batches):
        with world.reducing(wrapped, number == len(case.batches) - 1):
            value = wrapped(module.plan(batch))
            value.backward()
        total += value.detach()
    trained = [(name, p.grad) for name, p in module.named_parameters()]
    return Found(world.mean(total), {name: gradient.clone() for name, gradient in trained if gradient is not None})


class _Forgetful(Softmax):
    """A head with dropout of its own, which each process draws for itself."""

    def logits(self, u: Tensor, v: Tensor) -> Tensor:
        return super().logits(nn.functional.dropout(u), v)


def a_head_of_its_own(rank: int) -> Case:
    """A case whose head begins otherwise in each process, and has other gradients there."""
    case = a_case("softmax")
    torch.manual_seed(rank)
    loss = _Forgetful(dim=32, labels=CLASSES)
    return case._replace(losses=nn.ModuleList([loss]), parts=[Part(case.parts[0].rows, loss)])
