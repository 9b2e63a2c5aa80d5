"""``python -m train``: from the command line to a run."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sentence_forge.runtime.cli import entry
from sentence_forge.runtime.process import run_command
from sentence_forge.runtime.torchrun import own_folder
from sentence_forge.train.job import is_first, run_config
from sentence_forge.train.starting import leaving_at_once
from sentence_forge.train.sweep import Sweep

if TYPE_CHECKING:
    from omegaconf import DictConfig

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
  python -m train experiment=sbert_nli               a recipe by its name; keys typed beside it override its
  python -m train -m loss=cosine,mnrl seed=1,2,3     one after another, and a table of them
  torchrun --nproc-per-node 2 -m train loss=mnrl     on two GPUs, each row's negatives those of both

A folder or a hub id is a model (model=./my-model), a file or a folder is data (data=pairs.csv).
"""


def main() -> None:
    """Train, go on training, or sweep; see ``configs/train.yaml``."""
    sweep = Sweep(_job)

    def print_table() -> None:
        sys.stdout.write(sweep.table)

    try:
        with _quiet_unless_first(), leaving_at_once():
            entry("train", sweep, ABOUT, ("loss", "data", "model", "suite", "experiment"))
    finally:  # entry leaves the process
        if sweep.table and (code := run_command(print_table)):
            sys.exit(code)


@contextlib.contextmanager
def _quiet_unless_first() -> Iterator[None]:
    """Silence all but the first process that ``torchrun`` starts, and give the others a folder that is thrown away."""
    if "WORLD_SIZE" in os.environ:  # before torch is imported: its advice on reducing gradients is not for users
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if is_first():
        yield
        return
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory(dir=own_folder()) as folder:
        sys.argv.append(f"hydra.run.dir={folder}/run")
        yield


def _job(config: DictConfig) -> None:
    """Run, and leave the process with the signal's code where one stopped the run."""
    from sentence_forge.train.interrupt import Interrupted

    try:
        run_config(config)
    except Interrupted as stopped:
        sys.exit(128 + stopped.number)


if __name__ == "__main__":
    main()
