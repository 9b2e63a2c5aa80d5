"""What a kill costs a large index while its fast index is made: the build, and one that is killed and begun again.

``python -m bench.killed_build DIR --rows 3000000`` where DIR is an export, as for ``bench.scale``, whose rows are made
in the same way. First a process is killed as soon as the first round of k-means is kept, so that all titles are
encoded. From there one process goes on to the end, and another one, on a copy, is killed (SIGKILL) once ``--share`` of
the steps that the first has taken are kept, and begun again. Twice the disk of ``bench.scale`` is needed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.lines import line, seconds
from bench.results import Results, results_of_this_kind
from bench.scale import Computed, Made
from sentence_forge.search import fast_build, steps
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import FAST_FROM, index_corpus


def main() -> None:
    """Measure and keep the lines; or, with ``--folder``, index in a process that may die by its own hand."""
    parser = argparse.ArgumentParser(prog="python -m bench.killed_build", description=__doc__)
    parser.add_argument("export", type=Path)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--share", type=float, default=0.9, help="of the steps, after which the process is killed")
    parser.add_argument("--work", type=Path, default=Path("outputs", "bench", "killed_build"))
    parser.add_argument("--results", type=Path, help="folder; bench/results/<kind of machine>")
    parser.add_argument("--cells-from", type=int, default=fast_build.CELLS_FROM, help="rows from which cells are tried")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--dies-after", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    fast_build.CELLS_FROM = given.cells_from
    if given.folder:
        _index(given.export, given.folder, given.rows, given.dies_after)
    else:
        _measure(given, given.work / str(given.rows), given.results or results_of_this_kind())


def _measure(given: argparse.Namespace, work: Path, results: Path) -> None:
    rows = given.rows
    shutil.rmtree(work, ignore_errors=True)
    whole, broken = work / "whole", work / "broken"

    def indexing(folder: Path, dies_after: int = 0) -> int:
        """Index in a new process and return how many steps it kept."""
        process = subprocess.run([sys.executable, "-m", "bench.killed_build", str(given.export), "--rows", str(rows),
                                  "--cells-from", str(given.cells_from), "--folder", str(folder), "--dies-after",
                                  str(dies_after)], check=False, stdout=subprocess.PIPE, text=True)
        if process.returncode != (-signal.SIGKILL if dies_after else 0):
            sys.exit(f"error: a process that indexes ended with {process.returncode}; see what it says above")
        return process.stdout.count("kept")

    indexing(whole, dies_after=1)
    shutil.copytree(whole, broken)
    taken: list[int] = []
    unbroken = seconds(lambda: taken.append(indexing(whole)))
    dies_after = max(1, round(given.share * taken[0]))
    before = seconds(lambda: indexing(broken, dies_after))
    after = seconds(lambda: indexing(broken))
    both = [(folder / "index-1.faiss").read_bytes() for folder in (whole, broken)]
    Results(results / "killed_build.json", "python -m bench.killed_build <export>").add(
        line("unbroken", unbroken, "s", rows=rows, steps=taken[0]),
        line("until it is killed", before, "s", rows=rows, steps=dies_after),
        line("begun again", after, "s", rows=rows, same_file=both[0] == both[1]))
    shutil.rmtree(work)


def _index(export: Path, folder: Path, rows: int, dies_after: int) -> None:
    """Index in this process; print a line for each step that is kept, and die after so many, if that isn't 0."""
    keep, kept = steps._keep, 0

    def counted(path: Path, made: np.ndarray) -> None:
        nonlocal kept
        keep(path, made)
        kept += 1
        sys.stdout.write("kept\n")
        sys.stdout.flush()
        if kept == dies_after:
            os.kill(os.getpid(), signal.SIGKILL)

    steps._keep = counted
    with Index.open(export) as source:
        titles = list(source.titles)
        made = Made(np.asarray(source.vectors), source.fingerprint)
        index_corpus(folder, Computed(str, rows), Computed(lambda row: f"{titles[row % len(titles)]} [{row}.0]", rows),
                     made, fast_from=min(FAST_FROM, fast_build.CELLS_FROM))


if __name__ == "__main__":
    main()
