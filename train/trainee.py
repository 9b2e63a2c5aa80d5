"""What is trained: the model, the losses with their weights, the optimizer, and how far they have come."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from sentence_forge.encoders.card import ABOUT
from sentence_forge.encoders.computing.forward import Forward
from sentence_forge.encoders.encoder import Encoder, load_encoder
from sentence_forge.encoders.making import lora
from sentence_forge.losses.base import Loss
from sentence_forge.losses.loss_set import LossSet
from sentence_forge.runtime import targets
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import staged_folder, write_json
from sentence_forge.train import checkpoint
from sentence_forge.train.batches import Batches
from sentence_forge.train.distributed import join
from sentence_forge.train.loop import State
from sentence_forge.train.mixing import Batch, in_turn
from sentence_forge.train.optim import Plan, adamw, make_plan
from sentence_forge.train.parts import Data, make_losses, make_parts, make_samplers
from sentence_forge.train.rows import Part
from sentence_forge.train.teachers import Teachers

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from sentence_forge.configs.schema import Loop
    from sentence_forge.train.run import Run

log = logging.getLogger(__name__)
LEAST_STATIC_RATE = 1e-3
LENGTH = {"loop.epochs", "loop.max_steps", "loop.batch_size", "loop.accumulate"}  # keys that say how many steps


@dataclass
class Trainee:
    """A run's model with everything that its training changes or takes batches from.

    Args:
        encoder: the model, on the run's device.
        losses: of the run.
        loss_of_part: which of them each part is trained by.
        parts: the rows of each part.
        epochs: gives the batches of an epoch by its number.
        optimizer: over model and losses.
        teachers: the fingerprint of each model that the losses learn from, by its name.
        state: how far the training has come.
    """

    encoder: Encoder
    losses: LossSet
    loss_of_part: list[Loss]
    parts: list[Part]
    epochs: Callable[[int], list[Batch]]
    optimizer: torch.optim.Optimizer
    teachers: Mapping[str, str]
    state: State

    def restore(self, run: Run, folder: Path | None) -> State:
        """Take the state of a checkpoint, where there is one, and return it.

        Raises:
            UserError: this command line's plan ends before the checkpoint.
        """
        if folder is None:
            return self.state
        self._check_plan_goes_on(run, folder)
        self.state = State(**checkpoint.load(folder, model=self.encoder.model, losses=self.losses,
                                             optimizer=self.optimizer, trust_remote_code=run.trusts_code))
        if run.world.first:
            checkpoint.set_aside_later(run.folder, self.state.step)
            checkpoint.restore_best(folder, run.folder / "model")
        log.info("going on from %s, step %d", folder, self.state.step)
        return self.state

    def _check_plan_goes_on(self, run: Run, folder: Path) -> None:
        """Refuse a plan that was made shorter than what is done: nothing would train, and the record would be wrong."""
        if LENGTH.isdisjoint(run.given):
            return
        loop = run.config.loop
        done = json.loads((folder / "state.json").read_text(encoding="utf-8"))["loop"]["step"]
        total = make_plan(loop, len(self.epochs(0)), self.encoder.model.device).total
        if total < done:
            length = f"loop.epochs={loop.epochs:g}" if loop.max_steps is None else f"loop.max_steps={loop.max_steps}"
            raise UserError(f"{length} is {total} step{'s' * (total > 1)}, but {run.config.resume} has done {done}; "
                            f"give more, or start a run with model={run.folder}")

    def plan_from(self, loop: Loop) -> tuple[Plan, Batches[Batch]]:
        """Return how long and how often, and the batches from where the state is."""
        batches = Batches(self.epochs, self.state.epoch, self.state.position)
        per_epoch = len(self.epochs(0)) if batches.epoch else batches.per_epoch  # a later one may have fewer batches
        return make_plan(loop, per_epoch, self.encoder.model.device), batches

    def save(self, folder: Path) -> None:
        """Write the model as it is now, with the losses' weights."""
        with staged_folder(folder, replace=True) as staged:
            checkpoint.save_model(staged, self.encoder.model, self.losses)

    def save_best(self, folder: Path, step: int) -> None:
        """Write the model as the best so far."""
        with staged_folder(folder, replace=True) as staged:
            checkpoint.save_model(staged, self.encoder.model, self.losses)
            write_json(staged / ABOUT, {"training": {"best_step": step}})


def build_trainee(run: Run, data: Data, dev: Data, resumed: Path | None) -> Trainee:
    """Build the model, its losses and its optimizer, and tokenise the texts.

    Raises:
        UserError: the model is not there or not float32, a loss doesn't take its labels, or there is no batch.
    """
    config, loop = run.config, run.config.loop
    encoder = Encoder(_model(run, data, resumed), name="step 0")
    encoder.forward = Forward(encoder.model, fast=loop.fast, tokens_at_once=loop.tokens_at_once)
    join(run.world, run.device)
    encoder.model.to(run.device)
    teachers = Teachers(run.device, config.plugins)
    losses, loss_of_part = make_losses(data, encoder.dim, config.plugins, teachers)
    losses.to(encoder.model.device)
    parts = make_parts(data, dev, loss_of_part, encoder, teachers)
    if loop.remine_every is not None:
        from sentence_forge.train.remining import with_room

        parts = with_room(parts)
    samplers = make_samplers(data, batch_size=loop.batch_size, seed=config.seed, plugins=config.plugins)
    epochs = in_turn(samplers, seed=config.seed, **run.shares)
    optimizer = adamw([encoder.model, losses], learning_rate=loop.learning_rate, weight_decay=loop.weight_decay)
    return Trainee(encoder, losses, loss_of_part, parts, epochs, optimizer, teachers.fingerprints, State())


def _model(run: Run, data: Data, resumed: Path | None) -> SentenceTransformer:
    config = run.config
    if resumed is not None:  # the checkpoint's folder has the architecture, a learnt tokenizer too
        return lora.add(load_encoder(resumed / "model", device="cpu", trust_remote_code=run.trusts_code).model,
                        config.model.get("lora"))
    model: SentenceTransformer = targets.build(config.model, "model", plugins=config.plugins,
                                               texts=lambda: data.texts, seed=config.seed)
    if model.dtype != torch.float32:
        raise UserError("model.dtype: training wants float32 weights; loop.precision=bf16 computes in bf16")
    if isinstance(model[0], StaticEmbedding) and config.loop.learning_rate < LEAST_STATIC_RATE:
        log.warning("loop.learning_rate=%g hardly moves static embeddings; 0.2 is usual", config.loop.learning_rate)
    return model
