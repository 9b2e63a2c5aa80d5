"""What a run reports: on the model before its training, and at the end on the best one, whose folder it completes."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.schema import Train
from data_readers.seen import Seen, remember
from data_readers.source import Source
from encoders.card import ABOUT, model_card, read_about
from encoders.encoder import Encoder, load_encoder
from encoders.weights import source_folder
from eval.dev import MEASURES
from eval.evaluate import Report, evaluate
from eval.nli import load_head
from eval.report import write_report
from losses.base import Loss
from runtime import targets
from runtime.errors import UserError
from runtime.files import sha256_file, staged_folder, write_atomic, write_json
from train import checkpoint
from train.loop import State
from train.split import Split
from train.tracking import Tracker

log = logging.getLogger(__name__)


def untouched_report(run: Path, encoder: Encoder, loss: Loss, tasks: Mapping[str, Any], data_dir: Path | None, *,
                     fresh: bool) -> Report:
    """Return the report on the model before its training; a resumed run reads its own vectors' report again."""
    folder = run / "untouched"
    if fresh:
        with staged_folder(folder, replace=True) as staged:
            checkpoint.save_model(staged, encoder.model, loss)
    before = encoder if fresh else load_encoder(folder, device=str(encoder.model.device))
    before.name = "step 0"
    return evaluate(before, tasks, data_dir, head=load_head(folder, before.dim), deep=False)


def finish(run: Path, settings: Train, state: State, dev: Split, encoder: Encoder, tracker: Tracker, untouched: Report,
           tasks: Mapping[str, Any], data_dir: Path | None, source: Source, shape: str, split: Split) -> None:
    """Report on the best model, and give its folder the facts it will be asked for."""
    if state.best_step is None:
        raise UserError(f"no evaluation gave a finite {MEASURES[shape]}, so no model is the best; "
                        f"the last weights are in {run / 'checkpoints'}")
    best = load_encoder(run / "model", device=str(encoder.model.device))
    best.name = run.name
    base = source_folder(settings.model)
    remember(run / "model", ([split.texts[number] for number in ids] for ids in split.text_ids), base)
    report = evaluate(best, tasks, data_dir, baseline=untouched, head=load_head(run / "model", best.dim),
                      seen=Seen.of(run / "model"))
    name = next(iter(state.baseline))
    training = {
        "loss": str(settings.loss[targets.TARGET]).rpartition(".")[2], "shape": shape, "rows": len(split.numbers),
        "steps": state.step, "batch_size": settings.loop.batch_size * settings.loop.accumulate,
        "learning_rate": settings.loop.learning_rate, "seed": settings.seed, "base": _base(settings),
        "measure": name, "before": state.baseline.get(name), "after": state.best, "best_step": state.best_step,
        "data": [{"name": file.name, "sha256": sha256_file(file)} for file in source.files()],
    }
    earlier = {} if base is None else read_about(base)
    about = {"dim": best.dim, "max_length": best.max_length, "fingerprint": best.fingerprint, "training": training,
             "earlier": [*earlier.get("earlier", []), *([earlier["training"]] if "training" in earlier else [])],
             "measured": {task: {"measure": row["measure"], "value": row[row["measure"]]}
                          for task, row in report.json["tasks"].items()}}
    write_json(run / "model" / ABOUT, about)
    write_atomic(run / "model" / "README.md", model_card(about))
    write_report(report, run / "report", training=_story(run, training))
    if settings.loop.projector:
        texts = dev.texts[: settings.loop.projector]
        tracker.projector(state.step, best.encode(texts), texts)
    tracker.hparams({"loss": training["loss"], "data": source.files()[0].name, "base": training["base"],
                     "seed": settings.seed, "batch_size": training["batch_size"],
                     "learning_rate": settings.loop.learning_rate, "epochs": settings.loop.epochs},
                    {"best/dev": float(state.best or 0.0), "best/report": report.json["average"]})
    before = state.baseline.get(name)
    log.info("best: step %d, dev %s %.4f (untouched %s)", state.best_step, name, state.best,
             "?" if before is None else f"{before:.4f}")
    log.info("%s: %.2f (untouched %.2f)", ", ".join(report.json["tasks"]), 100 * report.json["average"],
             100 * untouched.json["average"])
    log.info("model:  %s\nreport: %s\ncurves: tensorboard --logdir %s", run / "model", run / "report" / "report.html",
             run / "tensorboard")


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
