"""From the composed config of ``python -m train`` to the run that it asks for."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.overrides import options
from sentence_forge.runtime.torchrun import again, check_restarts
from sentence_forge.train.sources import parts_of
from sentence_forge.train.spelling import spell_out

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig

    from sentence_forge.configs.schema import Train

log = logging.getLogger(__name__)
# folders of a run that may be links, to keep them on another disk, and the names of the files in them
PARTS = {"checkpoints": r"(replaced-)?step-\d+", "report": r"report\..*",
         "mined": r"step-\d+\.npz", "tensorboard": r"events\.out\.tfevents\..*|projector_config\.pbtxt|\d+"}
_ABSENT = object()


def run_config(config: DictConfig) -> Path:
    """Train as a config says, or go on with the run that it names; return the run's folder.

    Raises:
        UserError: an error of the user's.
        Interrupted: a signal stopped the run; a checkpoint was written.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    folder = own_folder = Path(hydra.runtime.output_dir)
    with _removed_if_empty(folder), _quiet_progress_bars():
        restarted = _begun_before()
        config.resume = restarted or config.resume
        if config.resume is not None:
            # train.sweep goes on with a job, and torchrun with this very run, whose overrides are those it had
            same = hydra.mode is RunMode.MULTIRUN or restarted is not None
            folder, config = _resumed(config, list(hydra.overrides.task), keep=same)
            own_folder = folder if is_first() else own_folder
        elif (folder / "config.yaml").exists():
            raise UserError(f"{folder}: holds a run already; resume={folder} goes on with it, or give another "
                            "hydra.run.dir=")
        _train(config, hydra, folder, own_folder)
    return folder


def _train(config: DictConfig, hydra: HydraConf, folder: Path, own_folder: Path) -> None:
    """Check what can be checked before torch is imported, then train with the only right to write in the folder."""
    from omegaconf import OmegaConf

    from sentence_forge.runtime.files import check_link, clear_leftovers
    from sentence_forge.runtime.locks import writer_lock

    spell_out(config)
    typed: Train = OmegaConf.to_object(config)  # type: ignore[assignment]
    parts, shares = parts_of(typed, hydra.runtime.choices.get("loss") or "this loss")
    _check_before_torch(typed)
    from sentence_forge.encoders.computing.device import pick_device
    from sentence_forge.train.distributed import started
    from sentence_forge.train.interrupt import Interrupted
    from sentence_forge.train.run import Run, train

    given = [each.partition("=")[0] for each in hydra.overrides.task]
    run = Run(folder, own_folder, typed, OmegaConf.to_yaml(config, resolve=True), parts, shares,
              pick_device(typed.device.value), started(), sys.argv, given)
    with writer_lock(own_folder):
        for name, ours in PARTS.items():
            check_link(own_folder / name, ours)
        for each in (own_folder, *(own_folder / name for name in ("checkpoints", "mined", "report"))):
            clear_leftovers(each)
        try:
            train(run)
        except Interrupted as stopped:
            log.info("checkpoint: %s\ngo on with: %s", stopped.folder, again(folder))
            raise
        except KeyboardInterrupt:  # outside the loop, which has its own way to stop
            if (folder / "config.yaml").exists():
                log.info("stopped; go on with: %s", again(folder))
            raise


def _begun_before() -> str | None:
    """Return the run that this command has begun, if ``torchrun`` starts it again after a death."""
    check_restarts()
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return None  # without importing torch
    from sentence_forge.train.distributed import started
    from sentence_forge.train.lost import run_before_the_restart

    return run_before_the_restart(started())


def is_first() -> bool:
    """Whether this is the only process, or the first that ``torchrun`` started."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def _removed_if_empty(folder: Path) -> Iterator[None]:
    """Remove a folder that was made for the run and stayed empty, since the run failed early or is another's."""
    made = folder.is_dir() and not any(folder.iterdir())
    try:
        yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # it isn't empty, or another process has removed it
                folder.rmdir()


@contextlib.contextmanager
def _quiet_progress_bars() -> Iterator[None]:
    """Show no bars of other libraries where nobody watches a terminal."""
    before = os.environ.get("TQDM_DISABLE")
    if before is not None or sys.stderr.isatty():
        yield
        return
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        os.environ.pop("TQDM_DISABLE", None)


def _check_before_torch(config: Train) -> None:
    """Refuse a model that is nowhere and a suite whose files are missing, before anything slow or written."""
    from sentence_forge.encoders.making.lora import check
    from sentence_forge.encoders.making.weights import source_folder
    from sentence_forge.runtime import targets

    check(config.model.get("lora"))
    if config.resume is None:
        source_folder(config.model)
    data_dir = None if config.data_dir is None else Path(config.data_dir).expanduser()
    if config.suite and data_dir is not None and not data_dir.is_dir():
        raise UserError(f"data_dir={config.data_dir}: no such folder")
    tasks = [targets.build(node, f"suite.{name}", plugins=config.plugins)
             for name, node in config.suite.items() if node is not None]
    if tasks and all(task.locate(data_dir) is None for task in tasks):
        raise UserError(f"suite=: none of {', '.join(config.suite)} is in data_dir={config.data_dir}")


def _resumed(config: DictConfig, overrides: list[str], *, keep: bool) -> tuple[Path, DictConfig]:
    """Return the run to go on with, and its config with this command line's overrides over it unless ``keep``."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf, open_dict
    from yaml import YAMLError

    from sentence_forge.configs.schema import Train
    from sentence_forge.runtime.trust import check_trust
    from sentence_forge.train.resume import check_config, find_run, log_changes

    run, checkpoint = find_run(str(config.resume))
    try:
        saved: Any = OmegaConf.merge(OmegaConf.structured(Train), OmegaConf.load(run / "config.yaml"))
    except (OSError, ValueError, YAMLError) as error:
        raise UserError(f"{run / 'config.yaml'}: is damaged ({type(error).__name__}); put back what was there, or "
                        f"start a run with model={run}") from None
    before: Any = OmegaConf.to_container(saved, resolve=True, enum_to_str=True)
    check_trust(before, overrides, str(run / "config.yaml"))
    check_config(run, before, anyway=config.resume_anyway)
    for override in OverridesParser.create().parse_overrides([] if keep else overrides):
        key = override.key_or_group
        if key in ("resume", "resume_anyway"):
            continue
        if options(key):
            raise UserError(f"{key}=: a resumed run keeps its {key}, so leave {key}= out; to train another way from "
                            f"here, start a run with model={run}")
        if OmegaConf.select(saved, key, default=_ABSENT) is _ABSENT:
            raise UserError(f"{key}: there is no such key in {run / 'config.yaml'}")
        OmegaConf.update(saved, key, override.value())
    log_changes(before, OmegaConf.to_container(saved, resolve=True, enum_to_str=True))
    with open_dict(saved):
        saved.resume = str(checkpoint or run)
        saved.resume_anyway = config.resume_anyway
    return run, saved
