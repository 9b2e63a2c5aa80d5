"""A run, stage by stage: its data, its model, the loop, and the report."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import OmegaConf

from sentence_forge.data_readers.csv_writer import write_rejected_by_file
from sentence_forge.data_readers.formats.files import as_named
from sentence_forge.data_readers.source import DetectsFormat
from sentence_forge.encoders.computing.device import use_what_is_allowed
from sentence_forge.encoders.computing.matmul import processor
from sentence_forge.eval.evaluate import evaluate
from sentence_forge.runtime import targets
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import sha256_file, write_atomic, write_json
from sentence_forge.train import checkpoint, finish
from sentence_forge.train.batches import Batches
from sentence_forge.train.compiling import compiles
from sentence_forge.train.distributed import SharedEncoder, World, leave, own_gpu
from sentence_forge.train.generators import restore_generators, seed_everything
from sentence_forge.train.loop import Training
from sentence_forge.train.lost import remember, watched
from sentence_forge.train.mixing import Batch
from sentence_forge.train.optim import Plan
from sentence_forge.train.parts import Data, lone_head, measure
from sentence_forge.train.resume import check_environment, read_environment, same_threads
from sentence_forge.train.sources import PartConfig, rejected_of
from sentence_forge.train.tracking import Tracker
from sentence_forge.train.trainee import Trainee, build_trainee

if TYPE_CHECKING:
    from sentence_forge.configs.schema import Train
    from sentence_forge.eval.tasks.base import Task

log = logging.getLogger(__name__)
PACKAGES = ("torch", "sentence-transformers", "transformers", "datasets", "hydra-core", "tokenizers", "numpy")


@dataclass(frozen=True)
class Run:
    """What a run was asked for, where it lies, and the processes that compute it.

    Args:
        folder: exists; holds the run.
        own_folder: where this process writes; all but the first of several processes have one of their own.
        config: the typed config; its ``resume`` is the run or the checkpoint to go on from.
        config_yaml: the same, resolved, as text to keep.
        parts: the sources of the rows, each with its shape and its loss.
        shares: of several parts, how often it is each one's turn; see ``train.mixing.in_turn``.
        device: what to compute on, as torch calls it.
        world: the processes that train together.
        command: as typed, for the record.
        given: config keys given on this command line.
    """

    folder: Path
    own_folder: Path
    config: Train
    config_yaml: str
    parts: Sequence[PartConfig]
    shares: Mapping[str, Any]
    device: str
    world: World
    command: Sequence[str]
    given: Collection[str] = ()

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The tasks of ``suite=`` by their names; none where the data's own measure decides."""
        return {name: targets.build(node, f"suite.{name}", plugins=self.config.plugins)
                for name, node in self.config.suite.items() if node is not None}

    @property
    def trusts_code(self) -> bool:
        """Whether code in the run's own folders may run, where it is that of the model it began with."""
        return bool(self.config.model.get("trust_remote_code"))

    @cached_property
    def data_dir(self) -> Path | None:
        """The folder that holds the files of the tasks."""
        return None if self.config.data_dir is None else Path(self.config.data_dir).expanduser()


def train(run: Run) -> None:
    """Train, evaluate and report.

    Raises:
        UserError: data, model, settings or the run to go on with are not as they should be.
        Interrupted: a signal stopped it; a checkpoint was written.
    """
    try:
        _train(run)
    finally:
        leave(run.world)


def _train(run: Run) -> None:
    with ExitStack() as open_ones:
        with watched(run.world, run.folder):
            seed_everything(run.config.seed)
            resumed = checkpoint.resumed(run.folder, run.config.resume, first=run.world.first)
            before = {} if resumed is None else read_environment(run.folder)
            use_what_is_allowed(run.device)
            same_threads(before)
            _check_remining(run)
            if run.device == "cuda" and run.world.size > 1:
                own_gpu(run.world)  # before anything slow
            data, dev = _load_data(run)
            trainee = build_trainee(run, data, dev, resumed)
            environment = _environment(run, before) | {"teachers": trainee.teachers}
            check_environment(run.folder, before, environment, given=run.given, anyway=run.config.resume_anyway)
            state = trainee.restore(run, resumed)
            plan, batches = trainee.plan_from(run.config.loop)
            trainee.encoder.forward.compiled = environment["compiled"] = compiles(
                run.config.loop.compile, device=environment["device"], left=plan.total - state.step, before=before)
            _write_records(run, environment)
            if run.world.first:
                remember(run.world, run.folder)
            tracker = open_ones.enter_context(Tracker(run.own_folder, state.step))
            if resumed is None:
                if run.world.first:
                    trainee.save(run.folder / "untouched")
                tracker.text("config", f"```yaml\n{run.config_yaml}```")
            _loop(run, trainee, plan, batches, data, dev, tracker, resumed)
        leave(run.world)  # together, before the first one's report
        if run.world.first:
            finish.report(run, trainee, data, dev, tracker)


def _check_remining(run: Run) -> None:
    """Refuse to mine where there is nothing to mine for, or where several processes would have to agree.

    Raises:
        UserError: says which.
    """
    if run.config.loop.remine_every is None:
        return
    for part in run.parts:
        if part.shape not in ("pair", "triplet") or "triplet" not in part.loss["shapes"] or part.loss.get("teacher"):
            raise UserError("loop.remine_every: finds hard negatives for pairs and triplets, and "
                            f"{part.loss_key} takes {part.shape} without any; leave it out, or train by loss=mnrl")
    if run.world.size > 1:
        raise UserError("loop.remine_every: is for a training of one process; mine beforehand instead, by python -m "
                        "search.mine")


def _load_data(run: Run) -> tuple[Data, Data]:
    """Read the rows for training and for dev; warn where dev can't tell models apart."""
    data, dev = Data(run.parts, "train"), Data(run.parts, "dev")
    data.report_overlap(dev)
    dev.warn_if_uninformative(suite=bool(run.config.suite))
    return data, dev


def _loop(run: Run, trainee: Trainee, plan: Plan, batches: Batches[Batch], data: Data, dev: Data, tracker: Tracker,
          resumed: Path | None) -> None:
    """Train to the end, measuring on dev and keeping the best model."""
    encoder, state, world = trainee.encoder, trainee.state, run.world
    shared = SharedEncoder(encoder, world) if world.size > 1 else encoder

    def measured_now() -> dict[str, float]:
        # as it is trained: in float32 a GPU would be many times slower; the report is in float32
        with torch.autocast(encoder.model.device.type, dtype=torch.bfloat16, enabled=plan.bf16):
            measured, histograms = measure(dev, trainee.loss_of_part, shared, state.step)
            tracker.histograms(state.step, histograms)
            if not run.tasks:
                return measured
            head = lone_head(trainee.loss_of_part, encoder.model.device)
            found = evaluate(shared, run.tasks, run.data_dir, resamples=1, deep=False, head=head)
        return {f"suite_{next(iter(found.json['averages']))}": found.json["average"], **measured}

    changes: dict[str, Any] = {}
    if plan.remine_every is not None:
        from sentence_forge.train.remining import MARGIN, Remining

        margin = run.config.loop.remine_margin
        changes["renew"] = Remining(run.folder, trainee.parts, data, encoder, every=plan.remine_every, bf16=plan.bf16,
                                    margin=MARGIN if margin is None else margin, seed=run.config.seed).renew
    training = Training(run=run.own_folder, world=world, encoder=encoder, losses=trainee.losses, parts=trainee.parts,
                        batches=batches, optimizer=trainee.optimizer, plan=plan, state=state, evaluate=measured_now,
                        on_better=lambda step: trainee.save_best(run.folder / "model", step), tracker=tracker,
                        **changes)
    if not world.first:
        torch.manual_seed(run.config.seed + world.rank)  # each draws its own dropout
    if resumed is not None:
        restore_generators(resumed, world.rank)
    log.info("training: %d steps of %d rows on %s%s; %s", plan.total,
             run.config.loop.batch_size * run.config.loop.accumulate, encoder.model.device,
             f", {world.size} processes" if world.size > 1 else "", run.folder)
    training.train()


def _write_records(run: Run, environment: Mapping[str, Any]) -> None:
    """Write what the run is made of: its config, its environment, and the rows that were left out."""
    if rejected := rejected_of(run.parts):
        write_rejected_by_file(run.own_folder / "rejected.csv", rejected)
        log.info("rows left out, each with its reason: %s", run.own_folder / "rejected.csv")
    write_json(run.own_folder / "environment.json", environment)
    write_atomic(run.own_folder / "config.yaml", run.config_yaml)


def _environment(run: Run, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a resumed run is compared with."""
    return {
        "command": list(run.command), "python": sys.version.split()[0],
        "versions": {package: metadata.version(package) for package in PACKAGES}, "git": _git_commit(),
        "device": torch.device(run.device).type, "processor": processor(torch.device(run.device)),
        "threads": torch.get_num_threads(), "seed": run.config.seed, "processes": run.world.size,
        "data": {as_named(file): sha256_file(file) for part in run.parts for file in part.source.paths()},
        "data_found": {file: dict(about) for part in run.parts if isinstance(part.source, DetectsFormat)
                       for file, about in part.source.detected().items()},
        "config": OmegaConf.to_container(OmegaConf.create(run.config_yaml)),
        "config_before": before.get("config"),  # a kill between this file and config.yaml leaves that one's older
    }


def _git_commit() -> str | None:
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True,
                              check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
