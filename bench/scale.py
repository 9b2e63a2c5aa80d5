"""How build, re-index, query, memory, disk and cold start grow from 100,000 rows to ten million, beside HNSW.

``python -m bench.scale DIR`` where DIR is what ``python -m export corpus=... out=DIR`` wrote. Its titles come first;
beyond them each row is one of them again: the text with the row's number, so that all texts differ, and the vector
multiplied by ``1 + 0.3 x normal noise``, seeded by the row, and brought to length 1. So two copies of a title have a
cosine of about 0.92, and neighbourhoods are denser than those of as many real titles. Times of building leave out the
making of these vectors, as they would the encoding. Vectors are read from disk, memory-mapped.

Each size of ``--sizes`` is built in ``--work`` (three times the size of its vectors, for a while), measured and
removed. Lines go to ``scale.json`` as a step ends (building, searching, the peer), and a step that is there is not done
again: a run that was cut goes on. Take 50 GB of disk and 24 GiB of memory for ten million. The peers are FAISS's graph
and, in the server of ``--postgres URL``, pgvector's (or its IVFFlat), each at our recall and at a recall of 0.995. All
queries have been searched once before they are timed; ``from disk`` is what a new process takes for them once the
system has dropped the index's files from memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from bench.lines import line, median, own_memory, seconds, slope
from bench.results import Results, read_lines, results_of_this_kind
from sentence_forge.encoders.protocol import Role, TextEncoder
from sentence_forge.encoders.similarity import FloatArray, cosine_top_k, normalise
from sentence_forge.search.generation import read_generation
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import FAST_FROM, index_corpus

SIZES = "100000,300000,1000000,3000000,10000000"
NOISE, SHARE = 0.3, 0.01
FAST, EXACT, COLD = 400, 20, 5
SEARCH = """
import sys, time
from pathlib import Path
import numpy as np
from sentence_forge.search.index import Index
index, queries = Index.open(sys.argv[1]), np.load(sys.argv[2])
times = []
for query in queries[:int(sys.argv[3])]:
    begun = time.perf_counter()
    index.hits(*index.search_vectors(query[None], 10))
    times.append(time.perf_counter() - begun)
fields = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text().splitlines())
print(*(int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon")), 1000 * np.median(times))
"""


class Made(TextEncoder):
    """An encoder of texts that end in ``[row.version]``: their vectors are made from the source's, not encoded.

    Args:
        source: float32 [n, dim], unit length; may be a memory map.
        fingerprint: of the encoder that made them.
    """

    name = "made"

    def __init__(self, source: FloatArray, fingerprint: str) -> None:
        self.fingerprint, self._source, self.seconds = fingerprint, source, 0.0

    def encode(self, texts: Sequence[str], *, role: Role | None = None) -> FloatArray:
        """Return the vectors; the seconds that it took are added to ``seconds``."""
        begun = time.perf_counter()
        keys = [tuple(map(int, text[text.rindex("[") + 1:-1].split("."))) for text in texts]
        vectors = np.array(self._source[[row % len(self._source) for row, _ in keys]])
        for vector, key in zip(vectors, keys, strict=True):
            if key[0] >= len(self._source) or key[1]:
                vector *= 1 + NOISE * np.random.default_rng(key).standard_normal(len(vector), np.float32)
        vectors = normalise(vectors)
        self.seconds += time.perf_counter() - begun
        return vectors


class Computed(Sequence[str]):
    """Strings that are made as they are asked for, so that ten million of them are never in memory.

    Args:
        of: makes the string of a row.
        rows: how many there are.
    """

    def __init__(self, of: Callable[[int], str], rows: int) -> None:
        self._of, self._rows = of, range(rows)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        rows = self._rows[index]
        return self._of(rows) if isinstance(rows, int) else list(map(self._of, rows))


def main() -> None:
    """Measure the sizes that are missing, and print and keep their lines."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("export", type=Path)
    parser.add_argument("--sizes", default=SIZES, help=f"rows, with commas between ({SIZES})")
    parser.add_argument("--work", type=Path, default=Path("outputs", "bench", "scale"))
    parser.add_argument("--results", type=Path, help="folder; bench/results/<kind of machine>")
    parser.add_argument("--no-peer", action="store_true", help="leave FAISS's HNSW out")
    parser.add_argument("--postgres", metavar="URL", help="a server with pgvector, measured beside it")
    parser.add_argument("--ivfflat", action="store_true", help="there by pgvector's IVFFlat in place of its graph, "
                        "whose building takes hours at ten million")
    parser.add_argument("--shard-rows", type=int, help="rows of a shard, kept as scale_shards.json (default all)")
    parser.add_argument("--half", action="store_true", help="vectors as float16, kept as scale_half.json")
    parser.add_argument("--fast-from", type=int, default=FAST_FROM, help=argparse.SUPPRESS)
    given = parser.parse_args()
    name = "scale" + "_shards" * (given.shard_rows is not None) + "_half" * given.half
    file = (given.results or results_of_this_kind()) / f"{name}.json"
    results = Results(file, "python -m bench.scale <export>", read_lines(file))
    laid = Laid(given.fast_from, given.shard_rows, given.half)
    for rows in sorted(map(int, given.sizes.split(","))):
        peers = {} if given.no_peer else {"hnsw": []}
        if given.postgres is not None:
            peers |= {"ivfflat": [given.postgres, "ivfflat"]} if given.ivfflat else {"pgvector": [given.postgres]}
        measure(given.export, given.work / str(rows), rows, laid, peers, results)
    found = {each["rows"]: each["value"] for each in results.lines if each["name"] == "fast_query"}
    if len(found) > 1:
        line("fast_query, slope", slope(found), "log time / log rows", sizes=len(found))


class Laid(NamedTuple):
    """How an index is laid: arguments of ``index_corpus``."""

    fast_from: int
    shard_rows: int | None
    half: bool


def measure(export: Path, work: Path, rows: int, laid: Laid, peers: Mapping[str, list[str]],
            results: Results) -> None:
    """Build an index of ``rows`` rows in ``work``, measure it and remove it; keep each step's lines as it ends."""
    steps = {each["name"] for each in results.lines if each["rows"] == rows}
    missing = [name for name in peers if f"fast_query, {name}" not in steps]
    if "cold_start" in steps and not missing:
        return
    with Index.open(export) as source:
        generator = np.random.default_rng(rows)
        queries = np.array(source.vectors[generator.integers(0, min(rows, len(source)), FAST)])
        queries = normalise(queries + generator.normal(scale=0.01, size=queries.shape).astype(np.float32))
        changed = set(generator.choice(rows, max(1, round(SHARE * rows)), replace=False).tolist())
        if "reindex" not in steps or not (work / "queries.npy").is_file():
            shutil.rmtree(work, ignore_errors=True)  # a run that was killed left it: its build can't be timed any more
            lines = _built(work, source, rows, changed, laid, measured="cold_start" not in steps)
            with Index.open(work) as index:
                np.save(work / "tenth.npy", cosine_top_k(index.vectors, queries, 10)[0][:, -1])
            np.save(work / "queries.npy", queries)
            results.add(*(each for each in lines if each["name"] not in steps))
    if "cold_start" not in steps:
        results.add(*_searched(work, queries, rows))
    ours = {each["name"]: each for each in results.lines if each["rows"] == rows}
    for name in missing:
        results.add(*_peer(name, peers[name], work, rows, ours))
    shutil.rmtree(work)


def _built(work: Path, source: Index, rows: int, changed: set[int], laid: Laid,
           measured: bool) -> list[dict[str, Any]]:
    """Return the lines of building the index and of bringing it up to date once ``changed`` rows have changed.

    Unless it is to be ``measured`` the vectors alone are written, for a peer, and there is no line.
    """
    made = Made(np.asarray(source.vectors), source.fingerprint)
    titles, ids = list(source.titles), Computed(str, rows)

    def indexed(changed: Set[int], fast_from: int = laid.fast_from) -> float:
        made.seconds = 0
        texts = Computed(lambda row: f"{titles[row % len(titles)]} [{row}.{int(row in changed)}]", rows)
        return seconds(lambda: index_corpus(work / "index", ids, texts, made, fast_from=fast_from,
                                            shard_rows=laid.shard_rows, half=laid.half)) - made.seconds

    if not measured:
        indexed(changed, fast_from=rows + 1)
        return []
    with _most_memory() as peak:
        built, again = indexed(frozenset()), indexed(changed)
    return [line("build", built, "s", rows=rows), line("reindex", again, "s", rows=rows, changed=len(changed)),
            line("build_memory", peak[0], "MiB", rows=rows)]


@contextlib.contextmanager
def _most_memory() -> Iterator[list[float]]:
    """Yield the most MiB that this process has for itself (not mapped) in the block, as seen twice a second."""
    peak, ended = [own_memory()], threading.Event()

    def look() -> None:
        while not ended.wait(0.5):
            peak[0] = max(peak[0], own_memory())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _searched(work: Path, queries: FloatArray, rows: int) -> list[dict[str, Any]]:
    """Return the lines of what an index costs that is there: queries, recall, memory, disk, cold start."""
    with Index.open(work) as index:
        tenth = np.load(work / "tenth.npy")
        scores = np.concatenate([index.search_vectors(query[None], 10)[0] for query in queries])
        recall = float((scores >= tenth[:, None] - 1e-6).mean())
        fast = [seconds(lambda query=query: index.hits(*index.search_vectors(query[None], 10))) for query in queries]
        exact = [seconds(lambda query=query: index.search_vectors(query[None], 10, exact=True))
                 for query in queries[:EXACT]]
        shards = read_generation(work / "index", index.generation).shards
        files = {"vectors": [shard.vectors for shard in shards], "rows": [shard.rows for shard in shards],
                 "index": [shard.fast for shard in shards if shard.about is not None]}
        parts = {kind: sum(file.stat().st_size for file in each) for kind, each in files.items()}

    def search(count: int) -> list[float]:
        return list(map(float, _run("-c", SEARCH, str(work), str(work / "queries.npy"), str(count)).split()))

    searching, own, _ = search(FAST)
    cold = [seconds(lambda: search(1)) for _ in range(COLD)]
    from_disk = []
    for _ in range(COLD):
        _forget(work)
        from_disk.append(seconds(lambda: search(1)))
    _forget(work)
    return [
        line("fast_query", 1000 * median(fast), "ms", rows=rows, p95=_p95(fast), recall=recall,
             shards=[shard.about for shard in shards]),
        line("exact_query", 1000 * median(exact), "ms", rows=rows, p95=_p95(exact)),
        line("resident_memory", searching, "MiB", rows=rows, not_mapped=own),
        line("disk", sum(parts.values()) / 2**20, "MiB", rows=rows, parts=parts),
        line("fast_query, from disk", search(FAST)[2], "ms", rows=rows),
        line("cold_start, from disk", median(from_disk), "s", rows=rows, slowest=max(from_disk)),
        line("cold_start", median(cold), "s", rows=rows, slowest=max(cold)),
    ]


def _forget(folder: Path) -> None:
    """Have the system drop what it keeps in memory of a folder's files."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _peer(name: str, arguments: list[str], work: Path, rows: int,
          ours: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of a peer's HNSW on the same vectors, beside those of ours, by name."""
    told = json.loads(_run("-m", "bench.scale_peer", str(work), str(ours["fast_query"]["recall"]), *arguments))
    size, of_ours, which = (("resident_memory", "not_mapped", "ours, not mapped") if name == "hnsw" else
                            ("disk", "value", "ours"))
    return [
        *(line(f"fast_query, {name}{label}", found["median"], "ms", peer="ours", peer_value=ours["fast_query"]["value"],
               rows=rows, p95=found["p95"], recall=found["recall"], ef_search=found["ef_search"])
          for label, found in (("", told["ours"]), (", goal", told["goal"]))),
        line(f"build, {name}", told["build"], "s", rows=rows),
        line(f"{size}, {name}", told["size"], "MiB", peer=which, peer_value=ours[size][of_ours], rows=rows),
    ]


def _p95(times: Sequence[float]) -> float:
    """Return the 95th percentile of seconds, in milliseconds."""
    return round(1000 * sorted(times)[math.ceil(0.95 * len(times)) - 1], 4)


def _run(*arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True,
                          env=environment).stdout


if __name__ == "__main__":
    main()
