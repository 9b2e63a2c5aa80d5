"""A sweep, ``python -m train -m``: jobs one after another, one failing without the others, and a table of them."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import write_atomic, write_json

log = logging.getLogger(__name__)


class Sweep:
    """Runs ``train`` on a command's config, or on those of a sweep's jobs, and keeps the table of the jobs.

    A job's folder gets a ``job.json``, before and after; the sweep's folder ``table.md`` and ``table.csv``, after each
    job, so that a killed sweep has the table of what it did. Typed again with the same ``hydra.sweep.dir``, a sweep
    leaves the jobs that are done as they are and goes on with the others; a job of other settings is not written over.

    Args:
        train: a run.
    """

    def __init__(self, train: Callable[[Any], None]) -> None:
        self.train = train
        self.table = ""  # Markdown; empty where nothing was swept

    def __call__(self, config: Any) -> None:  # noqa: ANN401 - a DictConfig
        """Run a command's only job, or one of a sweep."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from sentence_forge.eval.jobs import FILE, is_done

        hydra = HydraConfig.get()
        if hydra.mode is not RunMode.MULTIRUN:
            self.train(config)
            return
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # said once, not a job
            sys.stderr.write("error: a sweep runs in one process; leave torchrun out, or -m\n")
            sys.exit(2)
        if config.resume is not None:
            raise UserError("resume: goes on with one run; leave -m out")
        run = Path(hydra.runtime.output_dir)
        about: dict[str, Any] = {"overrides": _values(config, hydra.overrides.task), "error": None, "seconds": None}
        if (run / "config.yaml").exists():
            before = _same_job(run, about["overrides"])
            if is_done(run):
                log.info("%s: was done before, and stays", run)
                self._write(run.parent)
                return
            config.resume = str(run)
            about |= {name: before.get(name) for name in ("error", "seconds")}  # until it gets further
        free_memory()
        write_json(run / FILE, about)
        begun = time.monotonic()
        try:
            self.train(config)
            about["error"] = None
        except Exception as error:
            about["error"] = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            raise
        finally:
            about["seconds"] = round((about["seconds"] or 0) + time.monotonic() - begun, 1)
            write_json(run / FILE, about)
            self._write(run.parent)

    def _write(self, folder: Path) -> None:
        from sentence_forge.data_readers.csv_writer import write_csv
        from sentence_forge.eval.report.board import csv_rows, markdown
        from sentence_forge.eval.report.leaderboard import leaderboard

        try:
            board = leaderboard([folder])
            self.table = markdown(board)
            write_atomic(folder / "table.md", self.table)
            write_csv(folder / "table.csv", *csv_rows(board))
        except Exception as error:  # a damaged folder nearby doesn't change how the job ended
            log.warning("%s: no new table of the jobs: %s", folder, error)


def _same_job(run: Path, overrides: dict[str, str]) -> dict[str, Any]:
    """Return what the job in a folder tells of itself.

    Raises:
        UserError: it had other settings.
    """
    from sentence_forge.eval.jobs import read_job

    before = read_job(run)
    if before is None:
        raise UserError(f"{run}: holds a run already that is no job of a sweep; give another hydra.sweep.dir=")
    old = before["overrides"]
    if differ := [f"{key}={old.get(key, '(not given)')}" for key in sorted({*old, *overrides})
                  if old.get(key) != overrides.get(key)]:
        raise UserError(f"{run}: holds a run with other settings ({', '.join(differ)}); give another hydra.sweep.dir=")
    return before


def free_memory() -> None:
    """Give back what the job before left: a model in a reference cycle, and what a GPU's allocator keeps of it."""
    gc.collect()
    if "torch" in sys.modules and (torch := sys.modules["torch"]).cuda.is_available():
        torch.cuda.empty_cache()


def _values(config: Any, overrides: list[str]) -> dict[str, str]:  # noqa: ANN401 - a DictConfig
    """Return a job's overrides: the option of a group, the value of a key, for a random search the value drawn."""
    from omegaconf import OmegaConf

    values = {}
    for override in overrides:
        key, _, text = override.lstrip("+").partition("=")
        if key == "resume_anyway":  # typed to go on, it makes no other job
            continue
        value = OmegaConf.select(config, key)
        values[key] = text if value is None or OmegaConf.is_config(value) else str(value)
    return values
