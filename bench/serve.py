"""How many searches a second the server answers, beside a minimal one of FastAPI, the stock encode and semantic_search.

``python -m bench.serve INDEX --queries FILE`` asks both on loopback by a closed loop: each connection sends its next
query when it has the answer to the last one. Prints one JSON object a line: searches/s, and p50, p95 and p99 in ms.
"""

from __future__ import annotations

import argparse
import http.client
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote

import numpy as np

from bench.lines import line
from sentence_forge.search.index import Index

CONNECTIONS = (1, 8, 32)
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
        for _ in range(1200):
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


def closed_loop(port: int, queries: Sequence[str], connections: int, seconds: float) -> np.ndarray:
    """Return the seconds that each answer took, of ``connections`` that ask one query after the other."""
    took: list[float] = []
    number, until = count(), time.perf_counter() + seconds

    def run() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while (begun := time.perf_counter()) < until:
            ask(connection, f"/api/search?k=10&q={quote(queries[next(number) % len(queries)])}")
            took.append(time.perf_counter() - begun)
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.array(took)


def measure(name: str, port: int, queries: Sequence[str], seconds: float) -> dict[int, float]:
    """Return searches/s by the number of connections, and print the times."""
    found = {}
    for connections in CONNECTIONS:
        closed_loop(port, queries[-50:], connections, min(2.0, seconds))
        times = closed_loop(port, queries, connections, seconds)
        found[connections] = len(times) / seconds
        for share in (50, 95, 99):
            line(f"{name}, {connections} connections, p{share}", float(np.percentile(times, share)) * 1000, "ms",
                 answers=len(times))
    return found


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def rss(process: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of a process in MB."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    """Measure and print."""
    parse = argparse.ArgumentParser(prog="python -m bench.serve", description=(__doc__ or "").splitlines()[0])
    parse.add_argument("index", help="an export's folder")
    parse.add_argument("--queries", help="a file of queries, one a line; without it titles of the index, each cut")
    parse.add_argument("--seconds", type=float, default=20, help="of each measurement")
    parse.add_argument("--memory", type=int, default=50_000, help="queries over which memory is watched")
    args = parse.parse_args()
    if args.queries:
        queries = Path(args.queries).read_text(encoding="utf-8").splitlines()
    else:
        with Index.open(args.index) as index:
            rows = np.random.default_rng(0).permutation(len(index.titles))[:50_000]
            queries = [" ".join(index.titles[int(row)].split()[:6]) for row in rows]
    port, other = free_port(), free_port()
    with server([sys.executable, "-c", _MINIMAL, args.index, str(other)], other):
        peer = measure("minimal", other, queries, args.seconds)
    command = [sys.executable, "-m", "sentence_forge.search", "serve", args.index, "--port", str(port), "--rate", "0"]
    with server(command, port) as process:
        ours = measure("serve", port, queries, args.seconds)
        for connections in CONNECTIONS:
            line(f"serve, {connections} connections", ours[connections], "searches/s",
                 peer="FastAPI + encode + semantic_search", peer_value=peer[connections])
        closed_loop(port, queries[:1], 8, args.seconds)
        before = rss(process)
        done = 0
        while done < args.memory:
            done += len(closed_loop(port, queries[done % len(queries):] or queries, 8, min(args.seconds, 10.0)))
        line("memory growth", rss(process) - before, "MB", queries=done, before_mb=round(before, 1))


if __name__ == "__main__":
    main()
