"""A corpus indexed by a Ray cluster: two nodes on this machine, and workers of theirs that are killed."""

from __future__ import annotations

import csv
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import TINY, Done
from corpora import WordEncoder, titles_like

from sentence_forge.encoders.onnx import OnnxEncoder
from sentence_forge.export import ray_cluster
from sentence_forge.export.ray_cluster import RayCluster
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import Block
from sentence_forge.search.segments import read_segments, text_hashes
from sentence_forge.search.verify import verify

ROOT = Path(__file__).parent.parent
ROWS = 3 * 4096 - 100  # three segments
Command = Callable[..., Done]

# The command as typed, on two nodes, with two faults. Of the workers that encode and of those that write shards, the
# one that is ready first is stopped before it gets work, and killed when another has finished a part: it dies with work
# in its hands, however fast the machine is.
DRIVER = """
import logging, os, signal, sys, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster
from sentence_forge.export.cli import main
from sentence_forge.search.indexing import index_corpus

index_corpus.__kwdefaults__["fast_from"] = 5000  # so that workers write codes of so small shards
out, stopped = Path(sys.argv.pop(1)), {}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
sys.argv.append(f"cluster.address={cluster.address}")

class Faults(logging.Handler):
    def emit(self, record):
        phase = "shards" if (out / "index" / "rows-1.0.parquet").exists() else "titles"
        said = record.getMessage()
        if said.startswith("worker ready"):
            if phase not in stopped:
                stopped[phase] = int(said.split()[-1])
                os.kill(stopped[phase], signal.SIGSTOP)
                if phase == "titles":
                    threading.Thread(target=self.kill, daemon=True).start()
        elif said.startswith("shard 1 of"):
            os.kill(stopped["shards"], signal.SIGKILL)

    def kill(self):
        while not list(out.glob("index/segments/[0-9a-f]*")):
            time.sleep(0.02)
        os.kill(stopped["titles"], signal.SIGKILL)

logging.getLogger("sentence_forge.export.ray_cluster").addHandler(Faults())
try:
    main()
finally:
    cluster.shutdown()
"""


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (pip install 'sentence-forge[ray]')")
def test_a_killed_workers_titles_are_done_by_another(command: Command, tmp_path: Path) -> None:
    run, out, corpus = tmp_path / "run", tmp_path / "news", tmp_path / "titles.csv"
    assert command("train", *TINY, "loop.max_steps=1", f"hydra.run.dir={run}").code == 0
    assert command("export", f"model={run}", f"out={out}").code == 0
    titles = [f"{title} {number}" for number, title in enumerate(titles_like(ROWS))]  # codes tell these apart
    with corpus.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("title",), *((title,) for title in titles)])
    own = tempfile.mkdtemp(prefix="ray")  # short: sockets lie in it
    try:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, str(out), "only=index", f"corpus={corpus}", f"out={out}", "cluster=ray",
             "cluster.workers=2", "corpus.shard_rows=5000"],
            cwd=ROOT, env={**os.environ, "RAY_TMPDIR": own, "HOME": own}, capture_output=True, text=True, timeout=300,
            check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("worker ready") >= 4 and done.stderr.count("a worker died") == 2, done.stderr
        assert "shard 3 of 3 written" in done.stderr
        assert f"{ROWS} titles encoded" in done.stderr
        assert not left_running(own)
    finally:
        shutil.rmtree(own, ignore_errors=True)
    with Index.open(out) as index:
        assert list(index.titles) == titles
        here = OnnxEncoder(out).encode(titles)
        shards = json.loads((out / "index" / "manifest-1.json").read_text())["shards"]
        assert [shard["rows"] for shard in shards] == [5000, 5000, ROWS - 10_000]
        assert [shard["fast"] is None for shard in shards] == [False, False, True]
        assert index.search(titles[:9], 1) == index.search(titles[:9], 1, exact=True)
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


class UnsteadyRay:
    """A cluster in this process whose machines are taken away all the time, as preemptible ones are.

    Args:
        loading: how many workers die before one is ready, each time.
        lost: how often the way to a worker is lost when it has just written its block.
    """

    class exceptions:
        """Ray's own."""

        class RayError(Exception):
            """What all of them are."""

        class RayActorError(RayError):
            """The worker is dead, or can't be reached."""

        class OutOfMemoryError(RayError):
            """Ray has ended the worker, since its machine was short of memory."""

        class RayTaskError(RayError):
            """The worker raised."""

    def __init__(self, loading: int, lost: int) -> None:
        self.loading, self.lost = loading, lost
        self.loads, self.answers = 0, Counter[str]()
        self.encoder = WordEncoder()

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 1}}]

    def remote(self, **needs: float) -> Callable[[Any], Any]:
        return lambda kind: SimpleNamespace(remote=lambda *given: self.worker(kind(*given)))

    def worker(self, worker: Any) -> Any:
        worker._encoder = self.encoder
        return SimpleNamespace(ready=SimpleNamespace(remote=lambda _: functools.partial(self.load)),
                               encode=SimpleNamespace(remote=functools.partial(functools.partial, self.encode, worker)))

    def load(self) -> str:
        self.loads += 1
        if self.loads % (self.loading + 1):
            raise self.exceptions.RayActorError
        return "here"

    def encode(self, worker: Any, folder: Path, block: Block) -> None:
        worker.encode(folder, block)
        self.answers[block.ids[0]] += 1
        if self.answers[block.ids[0]] <= self.lost:
            raise (self.exceptions.RayActorError, self.exceptions.OutOfMemoryError)[int(block.ids[0]) % 2]

    def wait(self, waited_for: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return waited_for[:num_returns], waited_for[num_returns:]

    def get(self, asked: Callable[[], Any]) -> Any:
        return asked()

    def kill(self, worker: Any) -> None:
        """Nothing is left of it."""


def spread_over(ray: UnsteadyRay, folder: Path) -> list[str]:
    """Encode eight blocks of a title each on a cluster; return the titles."""
    titles = titles_like(8)
    blocks = [Block([str(number)], [title], text_hashes([title])) for number, title in enumerate(titles)]
    calls = [ray_cluster._Call("encode", (folder, block), f"over the titles from id {block.ids[0]!r} on")
             for block in blocks]
    RayCluster(folder, ray.encoder.fingerprint)._run(ray, calls, iter(()), lambda *_: None, loads=True)
    return titles


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (pip install 'sentence-forge[ray]')")
def test_deaths_in_between_do_not_end_a_run_that_gets_on_and_no_title_is_encoded_twice(tmp_path: Path) -> None:
    ray = UnsteadyRay(loading=2, lost=1)
    titles = spread_over(ray, tmp_path)
    assert ray.loads == 27 and sorted(ray.encoder.seen) == sorted(titles)
    assert len(read_segments(tmp_path, ray.encoder.fingerprint)) == 8


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (pip install 'sentence-forge[ray]')")
@pytest.mark.parametrize(("loading", "lost", "said"), [(4, 0, "as they start"), (0, 4, "over the titles from id '7'")])
def test_workers_that_die_again_and_again_end_it(tmp_path: Path, loading: int, lost: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        spread_over(UnsteadyRay(loading, lost), tmp_path)


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (pip install 'sentence-forge[ray]')")
def test_no_workers_is_one_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("title\na title\n")
    done = command("export", "model=minilm", "corpus=c.csv", "out=news", "cluster=ray", "cluster.workers=0")
    assert done.code == 2 and [line for line in done.err.splitlines() if line.startswith("error: cluster")], done.err
    assert not (tmp_path / "news").exists()


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (pip install 'sentence-forge[ray]')")
@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:99999", "no address"])
def test_a_cluster_that_is_not_there_is_said_before_anything_is_done(command: Command, tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch,
                                                                     address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    (tmp_path / "c.csv").write_text("title\na title\n")
    done = command("export", "model=minilm", "corpus=c.csv", "out=news", "cluster=ray")
    assert done.code == 2 and "error: cluster=ray: " in done.err and address in done.err, done.err
    assert "Traceback" not in done.err and not (tmp_path / "news").exists()


@pytest.mark.skipif(find_spec("ray") is not None, reason="ray is installed")
def test_without_ray_is_one_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("title\na title\n")
    done = command("export", "model=minilm", "corpus=c.csv", "out=news", "cluster=ray")
    assert done.code == 2 and "error: cluster=ray: Ray is not installed" in done.err
