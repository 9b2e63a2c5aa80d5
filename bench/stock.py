"""The other side: sentence-transformers' own trainer, as it comes and as somebody who knows it would set it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.losses import (
    BatchHardTripletLoss,
    CosineSimilarityLoss,
    MultipleNegativesRankingLoss,
    SoftmaxLoss,
    TripletLoss,
)
from torch import nn
from transformers import PrinterCallback, TrainerCallback

from bench.arms import LEARNING_RATE, WARMUP, WEIGHT_DECAY, Stopwatch, Turn, Watch
from bench.ours import clip, our_loss
from bench.tasks import Task


def stock_loss(task: Task, model: SentenceTransformer) -> nn.Module:
    """Return sentence-transformers' loss with our settings; the softmax head has the same first weights."""
    if task.loss == "softmax":
        head = our_loss(task, model.get_embedding_dimension() or 0)
        loss = SoftmaxLoss(model, model.get_embedding_dimension() or 0, num_labels=len(set(task.labels or ())))
        loss.classifier.load_state_dict({name.rpartition(".")[2]: value for name, value in head.state_dict().items()})
        return loss
    return {"mnrl": lambda: MultipleNegativesRankingLoss(model, scale=20.0),
            "triplet": lambda: TripletLoss(model, triplet_margin=1.0),
            "cosine": lambda: CosineSimilarityLoss(model),
            "batch_hard": lambda: BatchHardTripletLoss(model, margin=1.0)}[task.loss]()


def tuned_arguments(device: torch.device) -> dict[str, Any]:
    """Return what a user who knows the trainer sets for speed, numbers aside, on this device.

    Batches without duplicates are cut beforehand for both sides, so the hashed sampler costs the stock trainer nothing
    here. On a CPU there is next to nothing to set: the cores are busy, so workers would take from them, and bf16, where
    the processor has it, is told apart, as it is another precision.
    """
    quiet = {"logging_nan_inf_filter": False, "logging_strategy": "no"}
    if device.type != "cuda":
        return quiet
    return {**quiet, "bf16": True, "tf32": True, "dataloader_num_workers": 4, "dataloader_persistent_workers": True,
            "dataloader_prefetch_factor": 4, "dataloader_pin_memory": True,
            "accelerator_config": {"non_blocking": True}}


class Stock:
    """Trains by ``SentenceTransformerTrainer``, without evaluating, saving and reporting.

    Args:
        model: trained in place; every turn begins with the weights it has now.
        task: what on.
        tuned: with ``tuned_arguments``.
        unpadded: the model was loaded with flash attention, so nothing is padded.
        bf16: with ``bf16=True``, which the tuned arguments have on a GPU anyway.
        compiled: with ``torch_compile=True``.
    """

    def __init__(self, model: SentenceTransformer, task: Task, *, tuned: bool = False, unpadded: bool = False,
                 bf16: bool = False, compiled: bool = False) -> None:
        gpu = model.device.type == "cuda"
        said = {"flash attention": unpadded, "padded": gpu and tuned and not unpadded, "bf16": bf16,
                "torch_compile": compiled}
        words = ["tuned" if tuned else "defaults", *(word for word, holds in said.items() if holds)]
        self.name = f"stock trainer, {', '.join(words)}"
        self.task, self.model, self.unpadded = task, model, unpadded
        self.arguments = {**(tuned_arguments(model.device) if tuned else {}), **({"bf16": True} if bf16 else {}),
                          **({"torch_compile": True} if compiled else {})}
        self.loss = stock_loss(task, model).to(model.device)
        self._first = {key: value.clone() for key, value in self.loss.state_dict().items()}  # the model is in it

    def prepare(self) -> None:
        """Make the rows a dataset; tokenising is part of each step."""
        columns: dict[str, list[Any]] = dict(self.task.columns)
        if self.task.labels is not None:
            index = {name: number for number, name in enumerate(sorted(set(map(str, self.task.labels))))}
            scores = isinstance(self.task.labels[0], float)
            columns["label"] = self.task.labels if scores else [index[str(label)] for label in self.task.labels]
        self.dataset = Dataset.from_dict(columns)

    def turn(self, batches: list[np.ndarray], *, skip: int = 0, watch: Watch | None = None) -> Turn:
        """See ``bench.arms.Arm``."""
        self.loss.load_state_dict(self._first)
        clock, total = Stopwatch(self.model.device), len(batches)

        def given(dataset: Dataset, **arguments: Any) -> _Given:  # noqa: ANN401 - what the trainer passes on
            return _Given(batches, dataset, **arguments)

        precision = torch.backends.fp32_precision  # the tuned arguments turn TF32 on for the whole process
        with tempfile.TemporaryDirectory() as folder:
            arguments = SentenceTransformerTrainingArguments(
                output_dir=folder, max_steps=total, per_device_train_batch_size=self.task.batch_size,
                learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, warmup_steps=round(WARMUP * total),
                max_grad_norm=clip(self.task.loss), batch_sampler=given, save_strategy="no", eval_strategy="no",
                report_to="none", disable_tqdm=True, use_cpu=self.model.device.type == "cpu",
                **self.arguments)
            trainer = _Trainer(model=self.model, args=arguments, train_dataset=self.dataset, loss=self.loss,
                               callbacks=[_Clock(clock, skip, total, watch, self.loss)])
            trainer.watch = watch
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        torch.backends.fp32_precision = precision
        return Turn(clock.seconds, clock.cpu_seconds, 0.0 if self.unpadded else None, clock.peak_mib)


class _Given(DefaultBatchSampler):
    """The given batches, in their order."""

    def __init__(self, batches: list[np.ndarray], dataset: Dataset, **arguments: Any) -> None:  # noqa: ANN401
        super().__init__(dataset, **arguments)
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        return iter(batch.tolist() for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Trainer(SentenceTransformerTrainer):
    """The stock trainer; where somebody watches, every loss is copied."""

    watch: Watch | None = None

    def compute_loss(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as the stock one
        loss = super().compute_loss(*arguments, **named)
        if self.watch is not None:
            self.watch.losses.append(float(loss.detach()))
        return loss


class _Clock(TrainerCallback):
    """Times the steps behind the first ``skip``; where somebody watches, the first gradients are copied."""

    def __init__(self, clock: Stopwatch, skip: int, total: int, watch: Watch | None, loss: nn.Module) -> None:
        self.clock, self.skip, self.total, self.watch, self.loss = clock, skip, total, watch, loss

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ANN401
        if not self.skip and not state.global_step:
            self.clock.start()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ANN401
        if self.watch is not None:
            self.watch.keep((name.removeprefix("model.").removeprefix("sentence_embedder."), each)
                            for name, each in self.loss.named_parameters())

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ANN401
        if state.global_step == self.skip:
            self.clock.start()
        if state.global_step == self.total:
            self.clock.stop()
