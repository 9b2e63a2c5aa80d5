"""A run from its data to its report: what ``python -m train`` assembles."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from sentence_forge.configs.schema import Train
from sentence_forge.data_readers.rejected import write_rejected_by_file
from sentence_forge.data_readers.sample import sample_path
from sentence_forge.data_readers.source import FindsOut
from sentence_forge.encoders.card import ABOUT
from sentence_forge.encoders.computing.device import pick_device, use_what_is_allowed
from sentence_forge.encoders.computing.forward import Forward
from sentence_forge.encoders.encoder import Encoder, load_encoder
from sentence_forge.encoders.making import lora
from sentence_forge.eval.evaluate import evaluate
from sentence_forge.eval.geometry import language_of
from sentence_forge.eval.tasks.sts import ScoredPairs
from sentence_forge.losses.loss_set import LossSet
from sentence_forge.runtime import targets
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import remove, sha256_file, staged_folder, write_atomic, write_json
from sentence_forge.runtime.seed import seed_everything
from sentence_forge.train import checkpoint
from sentence_forge.train.batches import Batches
from sentence_forge.train.distributed import SharedEncoder, World, join, leave, started
from sentence_forge.train.finish import finish, keep_untouched
from sentence_forge.train.interrupt import Interrupted
from sentence_forge.train.loop import State, Training
from sentence_forge.train.mixing import in_turn
from sentence_forge.train.optim import adamw, make_plan
from sentence_forge.train.parts import (
    Data,
    lone_head,
    make_losses,
    make_parts,
    make_samplers,
    measure,
    trained_dims,
)
from sentence_forge.train.resume import check_environment, has_checkpoints, read_environment, same_threads
from sentence_forge.train.sources import PartConfig, rejected_of
from sentence_forge.train.tracking import Tracker

log = logging.getLogger(__name__)
LEAST_STATIC_RATE = 1e-3


def start(run: Path, settings: Train, config_yaml: str, parts: Sequence[PartConfig], shares: Mapping[str, Any], *,
          resume: str | None, command: Sequence[str], told: Collection[str] = (), home: Path | None = None) -> None:
    """Train, evaluate and report in the folder ``run``.

    Args:
        run: exists; holds the run.
        settings: the typed config.
        config_yaml: the same, resolved, as text to keep.
        parts: the sources of the rows, each with its shape and loss.
        shares: of several parts, how often it is each one's turn; see ``train.mixing.in_turn``.
        resume: the run or the checkpoint to go on from; None starts anew.
        command: as typed, for the record.
        told: config keys given on this command line.
        home: where this process writes what it writes; all but the first of several have a folder of their own.
    """
    device = pick_device(settings.device.value)
    world = started()
    try:
        _start(run, settings, config_yaml, parts, shares, world=world, home=home or run, device=device, resume=resume,
               command=command, told=told)
    finally:
        leave(world)


def _start(run: Path, settings: Train, config_yaml: str, parts: Sequence[PartConfig], shares: Mapping[str, Any], *,
           world: World, home: Path, device: str, resume: str | None, command: Sequence[str],
           told: Collection[str]) -> None:
    seed_everything(settings.seed)
    if not sys.stderr.isatty():
        _quiet_progress_bars()
    loop = settings.loop
    folder = None if resume is None else _checkpoint(run, Path(resume), world)
    before = {} if folder is None else read_environment(run)
    use_what_is_allowed(device)
    same_threads(before)
    split, dev = Data(parts, "train"), Data(parts, "dev")
    split.report_overlap(dev)
    dev.warn_if_uninformative(suite=bool(settings.suite))

    encoder = Encoder(_model(settings, split, folder), name="step 0")
    encoder.forward = Forward(encoder.model, fast=loop.fast, tokens_at_once=loop.tokens_at_once, compiled=loop.compile)
    join(world, device)
    encoder.model.to(device)
    losses, loss_of_part = make_losses(split, encoder.dim, settings.plugins)
    losses.to(encoder.model.device)
    batched = make_parts(split, dev, loss_of_part, encoder)
    samplers = make_samplers(split, batch_size=loop.batch_size, seed=settings.seed, plugins=settings.plugins)
    epochs = in_turn(samplers, seed=settings.seed, **shares)
    optimizer = adamw([encoder.model, losses], learning_rate=loop.learning_rate, weight_decay=loop.weight_decay)
    world.same_everywhere([encoder.model, losses])
    environment = _environment(settings, parts, command, encoder, config_yaml, before, world)
    check_environment(run, before, environment, told=told, anyway=settings.resume_anyway)
    state = State() if folder is None else _restore(run, folder, encoder, losses, optimizer, world)
    batches = Batches(epochs, state.epoch, state.position)
    # of epoch 0: a later one may have fewer batches
    plan = make_plan(loop, len(epochs(0)) if batches.epoch else batches.per_epoch, encoder.model.device)
    tasks = {name: targets.build(node, f"suite.{name}", plugins=settings.plugins)
             for name, node in settings.suite.items() if node is not None}
    data_dir = None if settings.data_dir is None else Path(settings.data_dir).expanduser()
    report_tasks = tasks or _sample_task(split.texts)
    if rejected := rejected_of(parts):
        write_rejected_by_file(home / "rejected.csv", rejected)
        log.info("rows left out, each with its reason: %s", home / "rejected.csv")
    write_json(home / "environment.json", environment)
    write_atomic(home / "config.yaml", config_yaml)
    shared = SharedEncoder(encoder, world) if world.size > 1 else encoder

    with Tracker(home, state.step) as tracker:
        if folder is None:
            if world.first:
                keep_untouched(run, encoder, losses)
            tracker.text("config", f"```yaml\n{config_yaml}```")

        def evaluated() -> dict[str, float]:
            measured, histograms = measure(dev, loss_of_part, shared, state.step)
            tracker.histograms(state.step, histograms)
            if tasks:
                head = lone_head(loss_of_part, encoder.model.device)
                found = evaluate(shared, tasks, data_dir, resamples=1, deep=False, head=head)
                return {f"suite_{next(iter(found.json['averages']))}": found.json["average"], **measured}
            return measured

        def on_better(step: int) -> None:
            with staged_folder(run / "model", replace=True) as staged:
                checkpoint.save_model(staged, encoder.model, losses)
                write_json(staged / ABOUT, {"training": {"best_step": step}})

        if not world.first:
            torch.manual_seed(settings.seed + world.rank)  # each draws its own dropout
        if folder is not None:
            checkpoint.restore_generators(folder, world.rank)
        log.info("training: %d steps of %d rows on %s%s; %s", plan.total, loop.batch_size * loop.accumulate,
                 encoder.model.device, f", {world.size} processes" if world.size > 1 else "", run)
        try:
            Training(run=home, world=world, encoder=encoder, losses=losses, parts=batched, batches=batches,
                     optimizer=optimizer, plan=plan, state=state, evaluate=evaluated, on_better=on_better,
                     tracker=tracker).train()
        except Interrupted as stopped:
            log.info("checkpoint: %s\ngo on with: python -m train resume=%s", stopped.folder, run)
            sys.exit(128 + stopped.number)
        leave(world)  # together, before the first one's report
        if world.first:
            finish(run, settings, state, dev, encoder, tracker, report_tasks, data_dir, split, trained_dims(losses))


def _model(settings: Train, split: Data, folder: Path | None) -> Any:  # noqa: ANN401 - SentenceTransformer
    if folder is not None:  # the checkpoint's folder has the architecture, a learnt tokenizer too
        return lora.add(load_encoder(folder / "model", device="cpu").model, settings.model.get("lora"))
    model = targets.build(settings.model, "model", plugins=settings.plugins, texts=lambda: split.texts,
                          seed=settings.seed)
    if model.dtype != torch.float32:
        raise UserError("model.dtype: training wants float32 weights; loop.precision=bf16 computes in bf16 on a GPU")
    if isinstance(model[0], StaticEmbedding) and settings.loop.learning_rate < LEAST_STATIC_RATE:
        log.warning("loop.learning_rate=%g hardly moves static embeddings; 0.2 is usual", settings.loop.learning_rate)
    return model


def _checkpoint(run: Path, resume: Path, world: World) -> Path | None:
    """Return the checkpoint to go on from; None where the run stopped before its first, and so starts again."""
    if has_checkpoints(run):
        return checkpoint.verified(run, resume)
    log.info("%s: stopped before its first checkpoint; it starts again", run)
    if world.first:
        _start_over(run)
    return None


def _restore(run: Path, folder: Path, encoder: Encoder, losses: LossSet, optimizer: torch.optim.Optimizer,
             world: World) -> State:
    state = State(**checkpoint.load(folder, model=encoder.model, losses=losses, optimizer=optimizer))
    if world.first:
        checkpoint.set_aside_later(run, state.step)
        checkpoint.restore_best(folder, run / "model")
    log.info("going on from %s, step %d", folder, state.step)
    return state


def _start_over(run: Path) -> None:
    """Remove what a run without checkpoints has logged, which comes again."""
    for name in ("metrics.jsonl", "tensorboard", "model"):
        remove(run / name)


def _sample_task(texts: Sequence[str]) -> dict[str, Any]:
    """Return the sample's dev pairs in the language of the training texts, for a run that names no suite."""
    language = language_of(texts)
    return {f"sample-{language}-dev": ScoredPairs(path=str(sample_path(language, "sts_dev")))}


def _environment(settings: Train, parts: Sequence[PartConfig], command: Sequence[str], encoder: Encoder,
                 config_yaml: str, before: Mapping[str, Any], world: World) -> dict[str, Any]:
    packages = ("torch", "sentence-transformers", "transformers", "datasets", "hydra-core", "tokenizers", "numpy")
    return {
        "command": list(command), "python": sys.version.split()[0],
        "versions": {package: metadata.version(package) for package in packages}, "git": _git_commit(),
        "device": encoder.model.device.type, "threads": torch.get_num_threads(), "seed": settings.seed,
        "processes": world.size,
        "data": {str(file): sha256_file(file) for part in parts for file in part.source.files()},
        "data_found": {file: dict(about) for part in parts if isinstance(part.source, FindsOut)
                       for file, about in part.source.found().items()},
        "config": OmegaConf.to_container(OmegaConf.create(config_yaml)),
        "config_before": before.get("config"),  # a kill between this file and config.yaml leaves that one's older
    }


def _git_commit() -> str | None:
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True,
                              check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def _quiet_progress_bars() -> None:
    os.environ["TQDM_DISABLE"] = "1"
