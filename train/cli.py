"""``python -m train``: from the command line to a run."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sentence_forge.runtime.cli import entry
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.overrides import options
from sentence_forge.train.sources import parts_of
from sentence_forge.train.spelling import spell_out
from sentence_forge.train.sweep import Sweep

log = logging.getLogger(__name__)

ABOUT = """
Fine-tune sentence embeddings.

  python -m train loss=mnrl                          the sample data, MiniLM
  python -m train loss=cosine data=pairs.csv         your scored pairs (sentence1, sentence2, score)
  python -m train loss=softmax model=bert data=nli   your folder with train and dev files
  python -m train loss=mnrl data=allnli              SNLI and MultiNLI, by name
  python -m train data=mix 'data.sources={nli: allnli, mine: pairs.csv}' 'data.losses={mine: cosine}'   several
  python -m train loss=mnrl data=titles.csv          bare titles, no labels (SimCSE)
  python -m train loss=cosine 'dims=[384,192,96]'    vectors that can be cut, beside any loss
  python -m train resume=outputs/train/<run>         go on where a run stopped
  python -m train experiment=sbert_nli               a recipe by its name; what is typed besides goes over it
  python -m train -m loss=cosine,mnrl seed=1,2,3     one after another, and a table of them
  torchrun --nproc-per-node 2 -m train loss=mnrl     on two GPUs, each row's negatives those of both

A folder or a hub id is a model (model=./my-model), a file or a folder is data (data=pairs.csv).
"""


# folders of a run that may be links, to keep them on another disk, and the names of the files in them
PARTS = {"checkpoints": r"(replaced-)?step-\d+", "report": r"report\..*",
         "tensorboard": r"events\.out\.tfevents\..*|projector_config\.pbtxt|\d+"}


def main() -> None:
    """Train, go on training, or sweep; see ``configs/train.yaml``."""
    sweep = Sweep(_job)
    try:
        with _quiet_unless_first():
            entry("train", sweep, ABOUT, ("loss", "data", "model", "suite", "experiment"))
    finally:  # entry leaves the process
        sys.stdout.write(sweep.table)


@contextlib.contextmanager
def _quiet_unless_first() -> Iterator[None]:
    """Let only the first of the processes that ``torchrun`` starts talk, and write where the user looks."""
    if _first():
        yield
        return
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        sys.argv.append(f"hydra.run.dir={folder}/run")
        yield


def _first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _job(config: Any) -> None:  # noqa: ANN401 - a DictConfig
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from sentence_forge.configs.schema import Train
    from sentence_forge.runtime.files import check_link, clear_leftovers
    from sentence_forge.runtime.locks import writer_lock

    hydra = HydraConfig.get()
    run = home = Path(hydra.runtime.output_dir)
    made = run if run.is_dir() and not any(run.iterdir()) else None
    try:
        if config.resume is not None:
            same = hydra.mode is RunMode.MULTIRUN  # train.sweep goes on with a job, whose overrides are those it had
            run, config = _resumed(config, list(hydra.overrides.task), keep=same)
            home = run if _first() else home
        elif (run / "config.yaml").exists():
            raise UserError(f"{run}: holds a run already; resume={run} goes on with it, or give another hydra.run.dir=")
        spell_out(config)
        settings: Train = OmegaConf.to_object(config)  # type: ignore[assignment]
        parts, shares = parts_of(settings, hydra.runtime.choices.get("loss") or "this loss")
        _check_before_torch(settings)
        from sentence_forge.train.run import start

        with writer_lock(home):
            for name, ours in PARTS.items():
                check_link(home / name, ours)
            for folder in (home, home / "checkpoints", home / "report"):
                clear_leftovers(folder)
            try:
                start(run, settings, OmegaConf.to_yaml(config, resolve=True), parts, shares, resume=settings.resume,
                      command=sys.argv, told=[each.partition("=")[0] for each in hydra.overrides.task], home=home)
            except KeyboardInterrupt:  # outside the loop, which has its own way to stop
                if (run / "config.yaml").exists():
                    log.info("stopped; go on with: python -m train resume=%s", run)
                raise
    finally:
        if made is not None:
            with contextlib.suppress(OSError):  # it isn't empty, or another process has removed it
                made.rmdir()


def _check_before_torch(settings: Any) -> None:  # noqa: ANN401 - configs.schema.Train
    """Refuse a model that is nowhere and a suite whose files are missing, before anything slow or written."""
    from sentence_forge.encoders.making.lora import check
    from sentence_forge.encoders.making.weights import source_folder
    from sentence_forge.runtime import targets

    check(settings.model.get("lora"))
    if settings.resume is None:
        source_folder(settings.model)
    data_dir = None if settings.data_dir is None else Path(settings.data_dir).expanduser()
    if settings.suite and data_dir is not None and not data_dir.is_dir():
        raise UserError(f"data_dir={settings.data_dir}: no such folder")
    tasks = [targets.build(node, f"suite.{name}", plugins=settings.plugins)
             for name, node in settings.suite.items() if node is not None]
    if tasks and all(task.locate(data_dir) is None for task in tasks):
        raise UserError(f"suite=: none of {', '.join(settings.suite)} is in data_dir={settings.data_dir}")


def _resumed(config: Any, overrides: list[str], *, keep: bool) -> tuple[Path, Any]:  # noqa: ANN401 - DictConfigs
    """Return the run to go on with, and its config with this command line's overrides over it unless ``keep``."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf, open_dict
    from yaml import YAMLError

    from sentence_forge.configs.schema import Train
    from sentence_forge.runtime.trust import check_trust
    from sentence_forge.train.resume import check_config, find_run, tell_changes

    run, checkpoint = find_run(str(config.resume))
    try:
        saved = OmegaConf.merge(OmegaConf.structured(Train), OmegaConf.load(run / "config.yaml"))
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
            raise UserError(f"{key}=: a resumed run keeps its {key}; to train another way from here, start a run with "
                            f"model={run}")
        if OmegaConf.select(saved, key, default=_NOTHING) is _NOTHING:
            raise UserError(f"{key}: there is no such key in {run / 'config.yaml'}")
        OmegaConf.update(saved, key, override.value())
    tell_changes(before, OmegaConf.to_container(saved, resolve=True, enum_to_str=True))
    with open_dict(saved):
        saved.resume = str(checkpoint or run)
        saved.resume_anyway = config.resume_anyway
    return run, saved


_NOTHING = object()


if __name__ == "__main__":
    main()
