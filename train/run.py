"""A run from its data to its report: what ``python -m train`` assembles."""

from __future__ import annotations

import json
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
from encoders.card import ABOUT, model_card
from encoders.encoder import Encoder, best_device, load_encoder
from eval.dev import MEASURES, dev_measure, similarity_histograms
from eval.evaluate import Report, evaluate
from eval.report import write_report
from eval.sts import ScoredPairs
from losses.base import Classifies, Loss
from runtime import targets
from runtime.errors import UserError
from runtime.files import sha256_file, staged_folder, write_atomic, write_json
from runtime.seed import seed_everything
from runtime.shapes import SHAPES
from train import checkpoint
from train.batches import Batches
from train.loop import Interrupted, Rows, Settings, State, Training
from train.optim import adamw
from train.resume import check_environment, has_checkpoints, read_environment, same_threads
from train.tracking import Tracker

log = logging.getLogger(__name__)


class Split:
    """One split of the data in memory: texts once each, rows as positions among them."""

    def __init__(self, source: Source, shape: str, split: str) -> None:
        dataset = source.read(shape, split)
        if not len(dataset):
            raise UserError(f"{', '.join(map(str, source.files()))}: has no {split} rows")
        names = SHAPES[shape].text_columns(dataset.column_names)
        self.shape = shape
        self.dataset = dataset
        self.columns: dict[str, list[Any]] = {name: list(dataset[name]) for name in dataset.column_names}
        index: dict[str, int] = {}
        ids = [[index.setdefault(text, len(index)) for text in self.columns[name]] for name in names]
        self.texts = list(index)
        self.text_ids = np.array(ids, dtype=np.int64).T
        label = SHAPES[shape].label
        self.labels: list[Any] | None = None if label is None else self.columns[label]
        self.numbers = np.array(self.columns["row"], dtype=np.int64)


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
    encoder.model.to(best_device() if settings.device.value == "auto" else settings.device.value)
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
             for name, node in settings.suite.items()}
    data_dir = None if settings.data_dir is None else Path(settings.data_dir).expanduser()
    report_tasks = tasks or _sample_task(split.texts)
    if rejected := source.rejected():
        write_rejected_by_file(run / "rejected.csv", rejected)
        log.info("rows left out, each with its reason: %s", run / "rejected.csv")
    write_json(run / "environment.json", environment)
    write_atomic(run / "config.yaml", config_yaml)
    untouched = _untouched(run, encoder, report_tasks, data_dir, fresh=folder is None)

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
                found = evaluate(encoder, tasks, data_dir, resamples=1)
                return {"suite_spearman_cosine": found.json["average"], **measured}
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
        _finish(run, settings, state, dev, encoder, tracker, untouched, report_tasks, data_dir, source, shape,
                split)


def _finish(run: Path, settings: Train, state: State, dev: Split, encoder: Encoder,
            tracker: Tracker, untouched: Report, tasks: Mapping[str, Any], data_dir: Path | None, source: Source,
            shape: str, split: Split) -> None:
    """Report on the best model, and give its folder the facts it will be asked for."""
    if state.best_step is None:
        raise UserError(f"no evaluation gave a finite {MEASURES[shape]}, so no model is the best; "
                        f"the last weights are in {run / 'checkpoints'}")
    best = load_encoder(run / "model", device=str(encoder.model.device))
    best.name = run.name
    report = evaluate(best, tasks, data_dir, baseline=untouched)
    name = next(iter(state.baseline))
    training = {
        "loss": str(settings.loss[targets.TARGET]).rpartition(".")[2], "shape": shape, "rows": len(split.numbers),
        "steps": state.step, "batch_size": settings.loop.batch_size * settings.loop.accumulate, "learning_rate": settings.loop.learning_rate, "seed": settings.seed, "base": _base(settings),
        "measure": name, "before": state.baseline.get(name), "after": state.best, "best_step": state.best_step,
        "data": [{"name": file.name, "sha256": sha256_file(file)} for file in source.files()],
    }
    about = {"dim": best.dim, "max_length": best.max_length, "fingerprint": best.fingerprint, "training": training,
             "measured": {task: row["spearman_cosine"] for task, row in report.json["tasks"].items()}}
    write_json(run / "model" / ABOUT, about)
    write_atomic(run / "model" / "README.md", model_card(about))
    write_report(report, run / "report", training=_story(run, training))
    if settings.loop.projector:
        texts = dev.texts[: settings.loop.projector]
        tracker.projector(state.step, best.encode(texts), texts)
    tracker.hparams({"loss": training["loss"], "data": source.files()[0].name, "base": training["base"],
                     "seed": settings.seed, "batch_size": training["batch_size"],
                     "learning_rate": settings.loop.learning_rate, "epochs": settings.loop.epochs},
                    {"best/dev": float(state.best or 0.0), "best/sts": report.json["average"]})
    before = state.baseline.get(name)
    log.info("best: step %d, dev %s %.4f (untouched %s)", state.best_step, name, state.best,
             "?" if before is None else f"{before:.4f}")
    log.info("STS: %.2f (untouched %.2f)", 100 * report.json["average"], 100 * untouched.json["average"])
    log.info("model:  %s\nreport: %s\ncurves: tensorboard --logdir %s", run / "model", run / "report" / "report.html",
             run / "tensorboard")


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
    head = "".join(texts[:1000])
    chinese = sum("\u4e00" <= character <= "\u9fff" for character in head) > 0.3 * len(head)
    language = "zh" if chinese else "en"
    return {f"sample-{language}-dev": ScoredPairs(path=str(sample_path(language, "sts_dev")))}


def _untouched(run: Path, encoder: Encoder, tasks: Mapping[str, Any], data_dir: Path | None, *, fresh: bool) -> Report:
    """Return the report on the model before its training; a resumed run reads its own vectors' report again."""
    folder = run / "untouched"
    if fresh:
        with staged_folder(folder, replace=True) as staged:
            encoder.model.save_pretrained(str(staged), create_model_card=False)
        return evaluate(encoder, tasks, data_dir)
    before = load_encoder(folder, device=str(encoder.model.device))
    before.name = "step 0"
    return evaluate(before, tasks, data_dir)


def _story(run: Path, training: Mapping[str, Any]) -> dict[str, Any]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [(line["step"], line["train/loss"]) for line in lines if "train/loss" in line]
    key = f"dev/{training['measure']}"
    return {
        "title": run.name,
        "rows": [(name.replace("_", " "), value) for name, value in training.items()
                 if isinstance(value, str | int | float) and name not in ("before", "after", "measure")],
        "baseline": {"measure": training["measure"], "before": training["before"], "after": training["after"]},
        "curve": {"step": [step for step, _ in losses], "loss": [value for _, value in losses],
                  "dev": [(line["step"], line[key]) for line in lines if key in line], "measure": training["measure"]},
    }


def _base(settings: Train) -> str:
    return str(settings.model.get("path") or str(settings.model[targets.TARGET]).rpartition(".")[2])


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
