"""A corpus encoded by a Ray cluster: two workers on this machine, one of them killed."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Done

from encoders.onnx import OnnxEncoder
from search.engine import Index
from search.verify import verify

ROOT = Path(__file__).parent.parent
ROWS = 3 * 4096 - 100  # three segments
Command = Callable[..., Done]

# The command as typed, with two faults. The worker that is ready first is stopped before it gets its titles, and
# killed when the other one has written a segment: it dies with work in its hands, however fast the machine is.
DRIVER = """
import logging, os, signal, sys, threading, time
from pathlib import Path
from export.cli import main

out, workers = Path(sys.argv.pop(1)), []

class Faults(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith("worker ready"):
            workers.append(int(record.getMessage().split()[-1]))
            if len(workers) == 1:
                os.kill(workers[0], signal.SIGSTOP)
                threading.Thread(target=self.kill, daemon=True).start()

    def kill(self):
        while not list(out.glob("index/segments/[0-9]*")):
            time.sleep(0.02)
        os.kill(workers[0], signal.SIGKILL)

logging.getLogger("export.ray_cluster").addHandler(Faults())
main()
"""


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (pip install 'sentence-forge[ray]')")
def test_a_killed_workers_titles_are_done_by_another(command: Command, tmp_path: Path) -> None:
    run, out, corpus = tmp_path / "run", tmp_path / "news", tmp_path / "titles.csv"
    assert command("train", *TINY, "loop.max_steps=1", f"hydra.run.dir={run}").code == 0
    assert command("export", f"model={run}", f"out={out}").code == 0
    titles = [f"storm {number % 89} over the markets, report {number}" for number in range(ROWS)]
    with corpus.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("title",), *((title,) for title in titles)])
    own = tempfile.mkdtemp(prefix="ray")  # short: sockets lie in it
    try:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, str(out), "only=index", f"corpus={corpus}", f"out={out}", "cluster=ray",
             "cluster.workers=2", "cluster.address=local"],
            cwd=ROOT, env={**os.environ, "RAY_TMPDIR": own, "HOME": own}, capture_output=True, text=True, timeout=300,
            check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("worker ready") >= 2 and "a worker died" in done.stderr, done.stderr
        assert f"{ROWS} titles encoded" in done.stderr
        assert not left_running(own)
    finally:
        shutil.rmtree(own, ignore_errors=True)
    with Index.open(out) as index:
        assert list(index.titles) == titles
        here = OnnxEncoder(out).encode(titles)
        np.testing.assert_allclose(index.vectors, here / np.linalg.norm(here, axis=1, keepdims=True), atol=1e-6)
    assert verify(out) == []
    assert not (out / "index" / "segments").exists()


def left_running(folder: str) -> list[str]:
    """Return the command lines of processes that name ``folder``."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if folder in line:
            found.append(line)
    return found


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (pip install 'sentence-forge[ray]')")
def test_no_workers_is_one_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("title\na title\n")
    done = command("export", "model=minilm", "corpus=c.csv", "out=news", "cluster=ray", "cluster.workers=0")
    assert done.code == 2 and [line for line in done.err.splitlines() if line.startswith("error: cluster")], done.err
    assert not (tmp_path / "news").exists()


@pytest.mark.skipif(find_spec("ray") is not None, reason="ray is installed")
def test_without_ray_is_one_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("title\na title\n")
    done = command("export", "model=minilm", "corpus=c.csv", "out=news", "cluster=ray")
    assert done.code == 2 and "error: cluster=ray: Ray is not installed" in done.err
