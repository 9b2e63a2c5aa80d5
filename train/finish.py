"""The last stage of a run: measure the best model, write the report, and describe the model in its folder."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.data_readers.lazy import rows_of
from sentence_forge.data_readers.sample import sample_path
from sentence_forge.data_readers.shapes import SHAPES
from sentence_forge.data_readers.training_hashes import Seen, remember
from sentence_forge.encoders.card import ABOUT, model_card, read_about
from sentence_forge.encoders.encoder import Encoder, load_encoder
from sentence_forge.encoders.making.weights import source_folder
from sentence_forge.eval.evaluate import Evaluation, evaluate
from sentence_forge.eval.geometry import language_of
from sentence_forge.eval.jobs import read_job
from sentence_forge.eval.report.report import Report
from sentence_forge.eval.report.training import Training
from sentence_forge.eval.schema import value
from sentence_forge.eval.tasks.nli import load_head
from sentence_forge.eval.tasks.sts import ScoredPairs
from sentence_forge.runtime import targets
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import sha256_file, write_atomic, write_json
from sentence_forge.train.loop import State
from sentence_forge.train.parts import Data, trained_dims
from sentence_forge.train.tracking import Tracker
from sentence_forge.train.trainee import Trainee

if TYPE_CHECKING:
    from sentence_forge.configs.schema import Train
    from sentence_forge.train.run import Run

log = logging.getLogger(__name__)


def report(run: Run, trainee: Trainee, data: Data, dev: Data, tracker: Tracker) -> None:
    """Report on the best model, and write into its folder the facts that other commands ask it for.

    Raises:
        UserError: there is no best model, since no measure was finite.
    """
    state, folder = trainee.state, run.folder / "model"
    if state.best_step is None:
        raise UserError(f"no evaluation gave a finite {next(iter(state.baseline))}, so no model is the best; "
                        f"the last weights are in {run.folder / 'checkpoints'}")
    best = load_encoder(folder, device=str(trainee.encoder.model.device), trust_remote_code=run.trusts_code)
    best.name = run.folder.name
    rows = (rows_of(split.dataset, SHAPES[part.shape].text_columns(split.dataset.column_names))
            for part, split in data.parts)
    remember(folder, chain.from_iterable(rows), source_folder(run.config.model))
    dims = trained_dims(trainee.losses)
    measured = _measured(run, best, data, dims)
    training = _training(run.config, state, data)
    about = _about(best, training, measured, source_folder(run.config.model)) | ({"dims": list(dims)} if dims else {})
    write_json(folder / ABOUT, about)
    write_atomic(folder / "README.md", model_card(about))
    Report(measured, _story(run.folder, training)).save(run.folder / "report")
    if run.config.loop.projector:
        texts = dev.texts[: run.config.loop.projector]
        tracker.projector(state.step, best.encode(texts), texts)
    _log_hparams(run, tracker, training, measured)
    _say(run, state, measured)


def _measured(run: Run, best: Encoder, data: Data, dims: tuple[int, ...]) -> Evaluation:
    """Return the best model's evaluation beside that of the model before its training."""
    tasks, plugins = run.tasks, run.config.plugins
    if not tasks:  # the sample's dev pairs, in the language of the training texts
        language = language_of(data.texts)
        tasks = {f"sample-{language}-dev": ScoredPairs(path=str(sample_path(language, "sts_dev")))}
    untouched, model = run.folder / "untouched", run.folder / "model"
    before = load_encoder(untouched, device=str(best.model.device), trust_remote_code=run.trusts_code)
    before.name = "step 0"
    baseline = evaluate(before, tasks, run.data_dir, head=load_head(untouched, before.dim, plugins), deep=False)
    return evaluate(best, tasks, run.data_dir, baseline=baseline, head=load_head(model, best.dim, plugins),
                    seen=Seen.of(model), dims=dims)


def _training(config: Train, state: State, data: Data) -> dict[str, Any]:
    """Return the facts about the training that a model's card and report tell."""
    name = next(iter(state.baseline))
    files = [file for part, _ in data.parts for file in part.source.paths()]
    return {
        "loss": _together(_loss_name(part.loss) for part, _ in data.parts),
        "shape": _together(part.shape for part, _ in data.parts), "rows": len(data),
        "steps": state.step, "batch_size": config.loop.batch_size * config.loop.accumulate,
        "learning_rate": config.loop.learning_rate, "seed": config.seed, "base": _base(config),
        "measure": name, "before": state.baseline.get(name), "after": state.best, "best_step": state.best_step,
        "data": [{"name": file.name, "sha256": sha256_file(file)} for file in files],
    }


def _about(best: Encoder, training: Mapping[str, Any], measured: Evaluation, base: Path | None) -> dict[str, Any]:
    """Return what is written into the model's folder for other commands and for the model card."""
    earlier = {} if base is None else read_about(base)
    return {"dim": best.dim, "max_length": best.max_length, "prompts": best.prompts,
            "fingerprint": best.fingerprint, "training": training,
            "earlier": [*earlier.get("earlier", []), *([earlier["training"]] if "training" in earlier else [])],
            "measured": {task: {"measure": row["measure"], "value": value(row)}
                         for task, row in measured.json["tasks"].items()}}


def _log_hparams(run: Run, tracker: Tracker, training: Mapping[str, Any], measured: Evaluation) -> None:
    """Log the settings and the results for TensorBoard's comparison of runs."""
    files = training["data"] or [{"name": type(run.parts[0].source).__name__}]  # rows that come from no file
    settings = {"loss": training["loss"], "data": files[0]["name"] if len(run.parts) == 1 else "mix",
                "base": training["base"], "seed": training["seed"], "batch_size": training["batch_size"],
                "learning_rate": training["learning_rate"], "epochs": run.config.loop.epochs}
    tracker.hparams(_swept(run.folder, settings) | settings,
                    {"best/dev": float(training["after"] or 0.0), "best/report": measured.json["average"]})


def _swept(run: Path, but: Mapping[str, Any]) -> dict[str, Any]:
    """Return the further overrides of a sweep's job, beside the settings ``but``; numbers as numbers."""
    job = read_job(run)
    further = {} if job is None else {key: text for key, text in job["overrides"].items()
                                      if key.rpartition(".")[2] not in but}
    return {key: float(text) if re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", text) else text
            for key, text in further.items()}


def _say(run: Run, state: State, measured: Evaluation) -> None:
    name = next(iter(state.baseline))
    before = state.baseline.get(name)
    assert measured.baseline is not None
    log.info("best: step %d, dev %s %.4f (untouched %s)", state.best_step, name, state.best,
             "?" if before is None else f"{before:.4f}")
    what = "" if run.tasks else " (the embedded sample, not your data; suite=<file> measures on yours)"
    log.info("%s%s: %.2f (untouched %.2f)", ", ".join(measured.json["tasks"]), what, 100 * measured.json["average"],
             100 * measured.baseline.json["average"])
    log.info("model:  %s\nreport: %s\ncurves: tensorboard --logdir %s", run.folder / "model",
             run.folder / "report" / "report.html", run.folder / "tensorboard")
    if before is not None and state.best is not None and state.best < before:
        log.warning("the training made the model worse: dev %s is %.4f at best and was %.4f untouched; try a smaller "
                    "loop.learning_rate, another loss= or other data", name, state.best, before)


def _story(run: Path, training: Mapping[str, Any]) -> Training:
    """Return what the report shows of the training: its facts and its curves."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [(line["step"], line["train/loss"]) for line in lines if "train/loss" in line]
    key = f"dev/{training['measure']}"
    return {
        "title": run.name,
        "rows": [(name.replace("_", " "), value) for name, value in training.items()
                 if isinstance(value, str | int | float) and name not in ("before", "after", "measure")],
        "baseline": {"measure": training["measure"], "before": training["before"], "after": training["after"]},
        "curve": {"step": [step for step, _ in losses], "loss": [value for _, value in losses],
                  "dev": [(line["step"], line[key]) for line in lines if key in line],
                  "measure": training["measure"], "kept": training["best_step"]},
    }


def _together(names: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(names))


def _loss_name(node: Mapping[str, Any]) -> str:
    name = str(node[targets.TARGET]).rpartition(".")[2]
    return f"Matryoshka({name})" if node.get("dims") else name


def _base(config: Train) -> str:
    return str(config.model.get("path") or str(config.model[targets.TARGET]).rpartition(".")[2])
