"""How many searches a second the server answers, beside a minimal one of FastAPI, the stock encode and semantic_search.

``python -m bench.serve INDEX`` asks both on loopback, in turn, by a closed loop: each connection sends its next query
when it has the answer to the last one; no query comes twice while the cache could hold it. Then the
server's memory is watched over 50,000 queries. About seven minutes for 269,089 titles; the lines are kept in
``bench/results/<kind>/serve.json``.
"""

from __future__ import annotations

import argparse
import http.client
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np

from bench.lines import line, median
from bench.results import Results, results_of_this_kind
from sentence_forge.search.index import Index

CONNECTIONS = (1, 8, 32)
REPEATS = 3
PEER = "FastAPI + encode + semantic_search"
_MINIMAL = """
import sys
import uvicorn
from fastapi import FastAPI
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import semantic_search
import torch
from sentence_forge.search.index import Index

model = SentenceTransformer(sys.argv[1] + "/model", device="cpu")
index = Index.open(sys.argv[1])
vectors, titles = torch.from_numpy(index.vectors[:]), list(index.titles)
app = FastAPI()

@app.get("/api/search")
def search(q: str, k: int = 10):
    hits = semantic_search(model.encode([q], convert_to_tensor=True), vectors, top_k=k)[0]
    return [{"score": hit["score"], "title": titles[hit["corpus_id"]]} for hit in hits]

@app.get("/healthz")
def health():
    return {}

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
"""


@contextmanager
def server(command: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server, and yield its process when it answers."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), "/healthz")
                break
            except OSError:
                assert process.poll() is None, f"{command} ended"
                time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait()


def ask(connection: http.client.HTTPConnection, path: str) -> None:
    """Ask once and read the answer."""
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, answer.status


def closed_loop(port: int, queries: Iterator[str], connections: int, *, seconds: float = 1e9,
                most: int = 10**9) -> tuple[float, list[float]]:
    """Return answers/s, and the ms that each took, of ``connections`` that ask one query after the other.

    None is asked after ``seconds``, nor after ``most`` queries; what is under way then is waited for.
    """
    took: list[float] = []
    begun, lock = time.perf_counter(), threading.Lock()
    left = iter(range(most))

    def run() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while True:
            with lock:
                query = next(queries) if next(left, None) is not None else None
            now = time.perf_counter()
            if query is None or now - begun > seconds:
                break
            ask(connection, f"/api/search?k=10&q={quote(query)}")
            took.append((time.perf_counter() - now) * 1000)
        connection.close()

    with ThreadPoolExecutor(connections) as pool:
        for running in [pool.submit(run) for _ in range(connections)]:
            running.result()
    return len(took) / (time.perf_counter() - begun), took


def queries_of(index: Index) -> list[str]:
    """Return the beginnings of titles, drawn with a seed, each once."""
    rows = np.random.default_rng(0).permutation(len(index.titles))[:50_000]
    return list(dict.fromkeys(" ".join(index.titles[int(row)].split()[:6]) for row in rows))


def speed(peer: int, ours: int, queries: Sequence[str], seconds: float) -> Iterator[dict[str, Any]]:
    """Ask both servers in turn; yield searches/s and the times of an answer by the number of connections."""
    asked = {peer: cycle(queries), ours: cycle(queries)}
    for connections in CONNECTIONS:
        rates: dict[int, list[float]] = {peer: [], ours: []}
        took: dict[int, list[float]] = {peer: [], ours: []}
        for port in rates:
            closed_loop(port, asked[port], connections, most=2 * connections)
        for _ in range(REPEATS):
            for port in rates:
                rate, each = closed_loop(port, asked[port], connections, seconds=seconds)
                rates[port].append(rate)
                took[port] += each
        yield line(f"{connections} connections", median(rates[ours]), "searches/s", peer=PEER,
                   peer_value=median(rates[peer]), **_spread("", rates[ours], took[ours]),
                   **_spread("peer_", rates[peer], took[peer]))
    yield line("8 connections, 100 queries again and again",
               closed_loop(ours, cycle(queries[:100]), 8, seconds=seconds)[0], "searches/s")


def _spread(before: str, rates: Sequence[float], took: Sequence[float]) -> dict[str, list[float]]:
    return {f"{before}lowest_highest": [round(min(rates), 1), round(max(rates), 1)],
            f"{before}p50_p95_p99_ms": [round(float(ms), 2) for ms in np.percentile(took, (50, 95, 99))]}


def memory(process: subprocess.Popen[bytes], port: int, queries: Sequence[str], most: int) -> Iterator[dict[str, Any]]:
    """Ask ``most`` queries, after a fifth as many that fill the cache; yield by how much the server's memory grew.

    ``mb`` is the resident memory after each fifth, ``from_cache`` how many of the texts its cache had.
    """
    asked, before = cycle(queries[::-1]), from_cache(port)  # the first are in the cache still
    sizes = []
    for _ in range(6):  # the first fills the cache
        closed_loop(port, asked, CONNECTIONS[-1], most=most // 5)
        sizes.append(rss(process))
    yield line("memory growth", sizes[-1] - sizes[0], "MB", queries=most, mb=[round(size, 1) for size in sizes],
               from_cache=from_cache(port) - before)


def from_cache(port: int) -> int:
    """Return how many texts the server has had in its cache so far."""
    counters = urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    found = re.search(r'texts_total{from="cache"} (\d+)', counters)
    return int(found[1]) if found else 0


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def rss(process: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of a process in MB."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    """Measure, print and keep."""
    parse = argparse.ArgumentParser(prog="python -m bench.serve", description=(__doc__ or "").splitlines()[0])
    parse.add_argument("index", help="an export's folder")
    parse.add_argument("--seconds", type=float, default=6, help=f"of each of {REPEATS} measurements")
    parse.add_argument("--memory", type=int, default=50_000, help="queries over which memory is watched")
    parse.add_argument("--results", type=Path, help="folder; bench/results/<kind of machine>")
    args = parse.parse_args()
    results = Results((args.results or results_of_this_kind()) / "serve.json", "python -m bench.serve <export>")
    with Index.open(args.index) as index:
        results.add(line("titles", len(index.ids), "rows"))
        queries = queries_of(index)
    ours, peer = free_port(), free_port()
    command = [sys.executable, "-m", "sentence_forge.search", "serve", args.index, "--port", str(ours), "--rate", "0"]
    with server(command, ours) as process:
        with server([sys.executable, "-c", _MINIMAL, args.index, str(peer)], peer):
            for found in speed(peer, ours, queries, args.seconds):
                results.add(found)
        for found in memory(process, ours, queries, args.memory):
            results.add(found)


if __name__ == "__main__":
    main()
