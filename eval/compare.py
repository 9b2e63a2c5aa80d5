"""``python -m eval.compare outputs/*/*``: a leaderboard of runs, with what differs between their configs.

A run of ``python -m train`` is a row, and so is a sweep's job, whatever became of it; what ``python -m eval`` measured
of the same weights later (by fingerprint) joins it, and of other models is a row of its own.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from sentence_forge.data_readers.csv_writer import write_csv
from sentence_forge.eval.report.board import csv_rows, markdown, page
from sentence_forge.eval.report.leaderboard import leaderboard
from sentence_forge.runtime.files import make_folder, write_atomic
from sentence_forge.runtime.process import Parser, run

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 for Ctrl-C."""
    return run(lambda: _compare(_parser().parse_args(argv)))


def _compare(arguments: argparse.Namespace) -> None:
    board = leaderboard([Path(name) for name in arguments.runs])
    out = Path(arguments.out)
    make_folder(out)
    text = markdown(board)
    write_atomic(out / "leaderboard.md", text)
    write_atomic(out / "leaderboard.html", page(board))
    write_csv(out / "leaderboard.csv", *csv_rows(board))
    sys.stdout.write(text)
    log.info("leaderboard: %s (and .md, .csv)", out / "leaderboard.html")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m eval.compare", description="A leaderboard of runs, with what differs between "
                    "their configs, as Markdown (also printed), HTML and CSV.")
    parser.add_argument("runs", nargs="+", metavar="FOLDER", help="folders of python -m train (-m, too) and "
                        "python -m eval")
    parser.add_argument("--out", default="outputs/compare", metavar="DIR", help="where to write (default %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
