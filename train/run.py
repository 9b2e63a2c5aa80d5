"""A run from its data to its report: what ``python -m train`` assembles."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from configs.schema import Loop, Precision, Train
from data_readers import checks
from data_readers.rejected import write_rejected_by_file
from data_readers.sample import sample_path
from data_readers.source import Source
from encoders.card import ABOUT
from encoders.encoder import Encoder, load_encoder, pick_device
from eval.dev import dev_measure, similarity_histograms
from eval.evaluate import evaluate
from eval.geometry import language_of
from eval.sts import ScoredPairs
from losses.base import Classifies, Loss
from runtime import targets
from runtime.errors import UserError
from runtime.files import sha256_file, staged_folder, write_atomic, write_json
from runtime.seed import seed_everything
from runtime.shapes import SHAPES
from train import checkpoint
from train.batches import Batches
from train.finish import finish, untouched_report
from train.loop import Interrupted, Rows, Settings, State, Training
from train.optim import adamw
from train.resume import check_environment, has_checkpoints, read_environment, same_threads
from train.split import Split
from train.tracking import Tracker

log = logging.getLogger(__name__)


def start(run: Path, settings: Train, config_yaml: str, source: Source, shape: str, *, resume: str | None,
          command: Sequence[str], told: Collection[str] = ()) -> None:
    """Train, evaluate and report in the folder ``run``.

    Args:
        run: exists; holds the run.
        settings: the typed config.
        config_yaml: the same, resolved, as text to keep.
        source: of the rows.
        shape: of the rows.
        resume: the run or the checkpoint to go on from; None starts anew.
        command: as typed, for the record.
        told: config keys given on this command line.
    """
    seed_everything(settings.seed)
    if not sys.stderr.isatty():
        _quiet_progress_bars()
    loop = settings.loop
    folder = None if resume is None else _checkpoint(run, Path(resume))
    before = {} if folder is None else read_environment(run)
    same_threads(before)
    split = Split(source, shape, "train")
    dev = Split(source, shape, "dev")
    log.info("data: %d training rows (%s), %d for dev", len(split.numbers), shape, len(dev.numbers))
    checks.leakage(split.dataset, dev.dataset, shape)

    encoder = Encoder(_model(settings, split, folder), name="step 0", fast=loop.fast)
    encoder.model.to(pick_device(settings.device.value))
    labels = _labels(split, shape)
    loss: Loss = targets.build(settings.loss, "loss", plugins=settings.plugins, omit=("shapes", "sampler"),
                               dim=encoder.dim, labels=labels)
    loss.to(encoder.model.device)
    rows = Rows(tokens=_tokens(encoder, split.texts), text_ids=split.text_ids, numbers=split.numbers,
                labels=_encoded_labels(loss, split, source))
    if isinstance(loss, Classifies):
        _encoded_labels(loss, dev, source)  # a class the head can't name shows now, not at the first evaluation
    sampler = targets.build(settings.loss["sampler"], "loss.sampler", plugins=settings.plugins,
                            rows=len(split.numbers), text_ids=split.text_ids, labels=split.labels,
                            batch_size=loop.batch_size, seed=settings.seed)
    optimizer = adamw([encoder.model, loss], learning_rate=loop.learning_rate, weight_decay=loop.weight_decay)
    environment = _environment(settings, source, command, encoder, config_yaml, before)
    check_environment(run, before, environment, told=told, anyway=settings.resume_anyway)
    state = State() if folder is None else _restore(run, folder, encoder, loss, optimizer)
    plan = _plan(loop, len(sampler.epoch(0)), encoder.model.device)  # of epoch 0: a later one may have fewer batches
    batches = Batches(sampler, state.epoch, state.position)
    tasks = {name: targets.build(node, f"suite.{name}", plugins=settings.plugins)
             for name, node in settings.suite.items() if node is not None}
    data_dir = None if settings.data_dir is None else Path(settings.data_dir).expanduser()
    report_tasks = tasks or _sample_task(split.texts)
    if rejected := source.rejected():
        write_rejected_by_file(run / "rejected.csv", rejected)
        log.info("rows left out, each with its reason: %s", run / "rejected.csv")
    write_json(run / "environment.json", environment)
    write_atomic(run / "config.yaml", config_yaml)
    untouched = untouched_report(run, encoder, loss, report_tasks, data_dir, fresh=folder is None)

    with Tracker(run, state.step) as tracker:
        if folder is None:
            tracker.text("config", f"```yaml\n{config_yaml}```")

        def measure() -> dict[str, float]:
            vectors = encoder.encode(dev.texts)
            if not np.isfinite(vectors).all():
                raise UserError(f"after step {state.step} the model gives vectors that are no numbers; a smaller "
                                "loop.learning_rate may help, the last checkpoint is whole")
            at = {text: number for number, text in enumerate(dev.texts)}

            def look_up(texts: list[str]) -> np.ndarray:
                return vectors[[at[text] for text in texts]]

            measured = dev_measure(shape, dev.columns, look_up, _predictor(loss, encoder.model.device))
            positive, negative = similarity_histograms(shape, dev.columns, look_up)
            tracker.histograms(state.step, {"dev/positive_cosines": positive, "dev/negative_cosines": negative})
            if tasks:
                found = evaluate(encoder, tasks, data_dir, resamples=1, deep=False,
                                 head=_predictor(loss, encoder.model.device))
                return {f"suite_{next(iter(found.json['averages']))}": found.json["average"], **measured}
            return measured

        def on_better(step: int) -> None:
            with staged_folder(run / "model", replace=True) as staged:
                checkpoint.save_model(staged, encoder.model, loss)
                write_json(staged / ABOUT, {"training": {"best_step": step}})

        if folder is not None:
            checkpoint.restore_generators(folder)
        log.info("training: %d steps of %d rows on %s; %s", plan.total, loop.batch_size * loop.accumulate,
                 encoder.model.device, run)
        try:
            Training(run=run, encoder=encoder, loss=loss, rows=rows, batches=batches, optimizer=optimizer,
                     settings=plan, state=state, evaluate=measure, on_better=on_better, tracker=tracker).train()
        except Interrupted as stopped:
            log.info("checkpoint: %s\ngo on with: python -m train resume=%s", stopped.folder, run)
            sys.exit(128 + stopped.number)
        finish(run, settings, state, dev, encoder, tracker, untouched, report_tasks, data_dir, source, shape, split)


def _model(settings: Train, split: Split, folder: Path | None) -> Any:  # noqa: ANN401 - SentenceTransformer
    if folder is not None:  # the checkpoint's folder has the architecture, a learnt tokenizer too
        return load_encoder(folder / "model", device="cpu").model
    return targets.build(settings.model, "model", plugins=settings.plugins, texts=lambda: split.texts)


def _checkpoint(run: Path, resume: Path) -> Path | None:
    """Return the checkpoint to go on from; None where the run stopped before its first, and so starts again."""
    if has_checkpoints(run):
        return checkpoint.verified(run, resume)
    log.info("%s: stopped before its first checkpoint; it starts again", run)
    _start_over(run)
    return None


def _restore(run: Path, folder: Path, encoder: Encoder, loss: Loss, optimizer: torch.optim.Optimizer) -> State:
    state = State(**checkpoint.load(folder, model=encoder.model, loss=loss, optimizer=optimizer))
    checkpoint.set_aside_later(run, state.step)
    checkpoint.restore_best(folder, run / "model")
    log.info("going on from %s, step %d", folder, state.step)
    return state


def _start_over(run: Path) -> None:
    """Remove what a run without checkpoints has logged, which comes again."""
    (run / "metrics.jsonl").unlink(missing_ok=True)
    for name in ("tensorboard", "model"):
        shutil.rmtree(run / name, ignore_errors=True)


def _labels(split: Split, shape: str) -> list[str]:
    if SHAPES[shape].label != "label":
        return []
    return sorted(set(map(str, split.labels or ())))


def _encoded_labels(loss: Loss, split: Split, source: Source) -> torch.Tensor | None:
    if split.labels is None:
        return None
    try:
        return loss.encode_labels(split.labels)
    except ValueError as error:
        position, _, reason = str(error).partition(": ")
        row = split.numbers[int(position)] if position.isdigit() else "?"
        raise UserError(f"{source.files()[0]}: row {row}: {reason or error}") from None


def _tokens(encoder: Encoder, texts: Sequence[str]) -> Any:  # noqa: ANN401 - encoders.tokens.Tokens
    tokens = encoder.tokenize(texts)
    cut = f", {tokens.truncated} cut at {encoder.max_length}" if tokens.truncated else ""
    log.info("texts: %d distinct, %.1f tokens each%s", len(tokens), float(tokens.lengths.mean()), cut)
    return tokens


def _plan(loop: Loop, batches_per_epoch: int, device: torch.device) -> Settings:
    steps_per_epoch = max(1, batches_per_epoch // loop.accumulate)
    total = loop.max_steps or max(1, round(loop.epochs * steps_per_epoch))

    def steps(value: float) -> int:
        return max(1, round(value * total) if value < 1 else round(value))

    bf16_here = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if loop.precision is Precision.bf16 and not bf16_here:
        raise UserError(f"loop.precision=bf16: {device} has no bf16 to gain from; use auto or fp32")
    return Settings(
        total=total, warmup=round(loop.warmup * total) if loop.warmup < 1 else round(loop.warmup),
        accumulate=loop.accumulate, learning_rate=loop.learning_rate, schedule=loop.schedule.value,
        max_grad_norm=loop.max_grad_norm, log_every=loop.log_every, evaluate_every=steps(loop.evaluate_every),
        checkpoint_every=steps(loop.checkpoint_every), keep=loop.keep, patience=loop.patience,
        bf16=bf16_here and loop.precision is not Precision.fp32)


def _predictor(loss: Loss, device: torch.device) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """Return the loss's head as a function of arrays, if it has one."""
    if not isinstance(loss, Classifies):
        return None

    @torch.inference_mode()
    def predict(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.array(loss.predict(torch.from_numpy(u).to(device), torch.from_numpy(v).to(device)))

    return predict


def _sample_task(texts: Sequence[str]) -> dict[str, Any]:
    """Return the sample's dev pairs in the language of the training texts, for a run that names no suite."""
    language = language_of(texts)
    return {f"sample-{language}-dev": ScoredPairs(path=str(sample_path(language, "sts_dev")))}


def _environment(settings: Train, source: Source, command: Sequence[str], encoder: Encoder, config_yaml: str,
                 before: Mapping[str, Any]) -> dict[str, Any]:
    packages = ("torch", "sentence-transformers", "transformers", "datasets", "hydra-core", "tokenizers", "numpy")
    return {
        "command": list(command), "python": sys.version.split()[0],
        "versions": {package: metadata.version(package) for package in packages}, "git": _git_commit(),
        "device": str(encoder.model.device), "threads": torch.get_num_threads(), "seed": settings.seed,
        "data": {str(file): sha256_file(file) for file in source.files()},
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
