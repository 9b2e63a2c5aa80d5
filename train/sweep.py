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

from runtime.errors import UserError
from runtime.files import write_atomic, write_json

log = logging.getLogger(__name__)


class Sweep:
    """Runs ``train`` on a command's config, or on those of a sweep's jobs, and keeps the table of the jobs.

    A job's folder gets a ``job.json``, before and after; the sweep's folder ``table.md`` and ``table.csv``, after each
    job, so that a killed sweep has the table of what it did. Typed again with the same ``hydra.sweep.dir``, a sweep
    leaves the jobs that are done as they are.

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

        from eval.jobs import FILE, is_done, read_job

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
        if is_done(run) and (read_job(run) or {}).get("overrides") == about["overrides"]:
            log.info("%s: was done before, and stays", run)
            self._write(run.parent)
            return
        free_memory()
        write_json(run / FILE, about)
        begun = time.monotonic()
        try:
            self.train(config)
        except Exception as error:
            about["error"] = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            raise
        finally:
            write_json(run / FILE, about | {"seconds": round(time.monotonic() - begun, 1)})
            self._write(run.parent)

    def _write(self, folder: Path) -> None:
        from eval.compare import leaderboard, markdown, table

        board = leaderboard([folder])
        self.table = markdown(board)
        write_atomic(folder / "table.md", self.table)
        write_atomic(folder / "table.csv", table(board))


def free_memory() -> None:
    """Give back what the job before left: a model in a reference cycle, and what a GPU's allocator keeps of it."""
    gc.collect()
    if "torch" in sys.modules and (torch := sys.modules["torch"]).cuda.is_available():
        torch.cuda.empty_cache()


def _values(config: Any, overrides: list[str]) -> dict[str, str]:  # noqa: ANN401 - a DictConfig
    """Return what a job was told: the option of a group, the value of a key, drawn ones as they fell."""
    from omegaconf import OmegaConf

    told = {}
    for override in overrides:
        key, _, text = override.lstrip("+").partition("=")
        value = OmegaConf.select(config, key)
        told[key] = text if value is None or OmegaConf.is_config(value) else str(value)
    return told
