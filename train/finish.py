"""What a run reports: on the model before its training, and at the end on the best one, whose folder it completes."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from sentence_forge.configs.schema import Train
from sentence_forge.data_readers.columns import rows_of
from sentence_forge.data_readers.shapes import SHAPES
from sentence_forge.data_readers.training_hashes import Seen, remember
from sentence_forge.encoders.card import ABOUT, model_card, read_about
from sentence_forge.encoders.encoder import Encoder, load_encoder
from sentence_forge.encoders.making.weights import source_folder
from sentence_forge.eval.evaluate import Evaluation, evaluate
from sentence_forge.eval.jobs import read_job
from sentence_forge.eval.report.report import Report
from sentence_forge.eval.report.training import Training
from sentence_forge.eval.schema import value
from sentence_forge.eval.tasks.nli import load_head
from sentence_forge.losses.loss_set import LossSet
from sentence_forge.runtime import targets
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import sha256_file, staged_folder, write_atomic, write_json
from sentence_forge.train import checkpoint
from sentence_forge.train.loop import State
from sentence_forge.train.parts import Data
from sentence_forge.train.tracking import Tracker

log = logging.getLogger(__name__)


def keep_untouched(run: Path, encoder: Encoder, losses: LossSet) -> None:
    """Write the model as it is before its training, which the report at the end is held against."""
    with staged_folder(run / "untouched", replace=True) as staged:
        checkpoint.save_model(staged, encoder.model, losses)


def _untouched_report(run: Path, device: str, tasks: Mapping[str, Any], data_dir: Path | None,
                      plugins: Collection[str]) -> Evaluation:
    before = load_encoder(run / "untouched", device=device)
    before.name = "step 0"
    return evaluate(before, tasks, data_dir, head=load_head(run / "untouched", before.dim, plugins), deep=False)


def finish(run: Path, settings: Train, state: State, dev: Data, encoder: Encoder, tracker: Tracker,
           tasks: Mapping[str, Any], data_dir: Path | None, split: Data,
           dims: Sequence[int] = ()) -> None:
    """Report on the best model, and give its folder the facts it will be asked for; ``dims`` as in the loss."""
    if state.best_step is None:
        raise UserError(f"no evaluation gave a finite {next(iter(state.baseline))}, so no model is the best; "
                        f"the last weights are in {run / 'checkpoints'}")
    best = load_encoder(run / "model", device=str(encoder.model.device))
    best.name = run.name
    base = source_folder(settings.model)
    files = [file for part, _ in split.parts for file in part.source.files()]
    rows = (rows_of(each.dataset, SHAPES[part.shape].text_columns(each.dataset.column_names))
            for part, each in split.parts)
    remember(run / "model", chain.from_iterable(rows), base)
    untouched = _untouched_report(run, str(encoder.model.device), tasks, data_dir, settings.plugins)
    head = load_head(run / "model", best.dim, settings.plugins)
    report = evaluate(best, tasks, data_dir, baseline=untouched, head=head, seen=Seen.of(run / "model"), dims=dims)
    name = next(iter(state.baseline))
    training = {
        "loss": _together(_loss_name(part.loss) for part, _ in split.parts),
        "shape": _together(part.shape for part, _ in split.parts), "rows": len(split),
        "steps": state.step, "batch_size": settings.loop.batch_size * settings.loop.accumulate,
        "learning_rate": settings.loop.learning_rate, "seed": settings.seed, "base": _base(settings),
        "measure": name, "before": state.baseline.get(name), "after": state.best, "best_step": state.best_step,
        "data": [{"name": file.name, "sha256": sha256_file(file)} for file in files],
    }
    earlier = {} if base is None else read_about(base)
    about = {"dim": best.dim, "max_length": best.max_length, "prompts": best.prompts,
             "fingerprint": best.fingerprint, "training": training,
             "earlier": [*earlier.get("earlier", []), *([earlier["training"]] if "training" in earlier else [])],
             "measured": {task: {"measure": row["measure"], "value": value(row)}
                          for task, row in report.json["tasks"].items()}}
    if dims:
        about["dims"] = list(dims)
    write_json(run / "model" / ABOUT, about)
    write_atomic(run / "model" / "README.md", model_card(about))
    Report(report, _story(run, training)).save(run / "report")
    if settings.loop.projector:
        texts = dev.texts[: settings.loop.projector]
        tracker.projector(state.step, best.encode(texts), texts)
    settled = {"loss": training["loss"], "data": files[0].name if len(split.parts) == 1 else "mix",
               "base": training["base"], "seed": settings.seed, "batch_size": training["batch_size"],
               "learning_rate": settings.loop.learning_rate, "epochs": settings.loop.epochs}
    tracker.hparams(_swept(run, settled) | settled,
                    {"best/dev": float(state.best or 0.0), "best/report": report.json["average"]})
    before = state.baseline.get(name)
    log.info("best: step %d, dev %s %.4f (untouched %s)", state.best_step, name, state.best,
             "?" if before is None else f"{before:.4f}")
    log.info("%s: %.2f (untouched %.2f)", ", ".join(report.json["tasks"]), 100 * report.json["average"],
             100 * untouched.json["average"])
    log.info("model:  %s\nreport: %s\ncurves: tensorboard --logdir %s", run / "model", run / "report" / "report.html",
             run / "tensorboard")


def _swept(run: Path, but: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a sweep told this job besides what stands in ``but``, numbers as numbers."""
    job = read_job(run)
    told = {} if job is None else {key: text for key, text in job["overrides"].items()
                                   if key.rpartition(".")[2] not in but}
    return {key: float(text) if re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", text) else text for key, text in told.items()}


def _story(run: Path, training: Mapping[str, Any]) -> Training:
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


def _together(names: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(names))


def _loss_name(node: Mapping[str, Any]) -> str:
    name = str(node[targets.TARGET]).rpartition(".")[2]
    return f"Matryoshka({name})" if node.get("dims") else name


def _base(settings: Train) -> str:
    return str(settings.model.get("path") or str(settings.model[targets.TARGET]).rpartition(".")[2])
