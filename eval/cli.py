"""``python -m eval``: a model on a suite of tasks, beside a baseline and other models where they are given."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sentence_forge.runtime.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)

ABOUT = """
Measure a model; writes report.json, report.md and report.html.

  python -m eval model=outputs/train/<run> suite=sts data_dir=<folder>
  python -m eval model=./my-model suite=file file=pairs.csv          your scored pairs
  python -m eval model=outputs/train/<run> baseline=minilm           by how much it is better, and how sure
  python -m eval model=<run> baseline=minilm suite=mine file=judged.csv   on your own queries (query,title,grade)
  python -m eval model=<a> baseline=<b> models=[<c>,<d>]             several in one table; seeds as mean and sd
  python -m eval model=<a> 'dims=[384,192,96]'                       what cutting the vectors loses
  python -m eval model=<run> 'blend=[0.25,0.5,0.75]' suite=[stsb,sts]     what was gained and lost on the way
  python -m eval.compare outputs/*/*                                 a leaderboard of what was measured before

A folder, a run or a hub id is a model. suite=[sts,retrieval] measures several; score_range=[0,5] is the file's.
"""


def main() -> None:
    """Evaluate; see ``configs/eval.yaml``."""
    entry("eval", _job, ABOUT, ("model", "suite"))


def _job(config: DictConfig) -> None:
    from sentence_forge.eval.api import measured
    from sentence_forge.eval.report.report import Report

    output = Path(config.output)
    made = output if output.is_dir() and not any(output.iterdir()) else None
    try:
        report = Report(measured(config))
        page = report.save(output)
        log.info("%s\nreport: %s", report, page)
    finally:
        if made is not None and made.is_dir() and not any(made.iterdir()):
            made.rmdir()
