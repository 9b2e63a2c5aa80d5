"""Searching an exported index beside ``sentence_transformers.util.semantic_search`` on the same vectors.

``python -m bench.search DIR``: DIR is what ``python -m export corpus=... out=DIR`` wrote. Queries are vectors of
titles, drawn with a seed and moved a little, so that no query is its own answer to the last bit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.lines import interleaved, line, median

MEMORY = """
import sys
from pathlib import Path
import numpy as np
from sentence_forge.search.index import Index
index = Index.open(sys.argv[1])
index.search(["a first query"], k=10)
def resident():
    fields = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024
queries = np.array(index.vectors[:: max(1, len(index.vectors) // 300)])
most = resident()
for query in queries:
    index.search_vectors(query[None], 10)
    most = max(most, resident())
for query in queries[:3]:
    index.search_vectors(query[None], 10, exact=True)
    most = max(most, resident())
heavy = {"torch", "sentence_transformers", "transformers"} & set(sys.modules)
assert not heavy, heavy
print(most)
"""


def main() -> None:
    """Print recall, latencies, memory and the cold start as JSON lines."""
    parser = argparse.ArgumentParser(prog="python -m bench.search", description=__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("--queries", type=int, default=1000)
    arguments = parser.parse_args()
    cold(arguments.index)
    memory(arguments.index)
    warm(arguments.index, arguments.queries)


def warm(folder: Path, count: int) -> None:
    """Recall of the fast search and the median time of a query, ours and the peer's in turn."""
    import torch
    from sentence_transformers.util import semantic_search

    from sentence_forge.search.index import Index

    index = Index.open(folder)
    generator = np.random.default_rng(0)
    rows = generator.choice(len(index.vectors), count, replace=False)
    queries = np.array(index.vectors[np.sort(rows)], dtype=np.float32)
    queries += generator.normal(scale=0.01, size=queries.shape).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    corpus = torch.from_numpy(np.array(index.vectors))

    exact_scores, exact_rows = index.search_vectors(queries, 10, exact=True)
    _, fast_rows = index.search_vectors(queries, 10)
    hit = [len(set(a) & set(b)) for a, b in zip(exact_rows.tolist(), fast_rows.tolist(), strict=True)]
    line("recall@10", float(np.mean(hit)) / 10, "fraction", queries=count, rows=len(corpus))
    stock = semantic_search(torch.from_numpy(queries[:50]), corpus, top_k=10)
    differs = max(abs(found["score"] - score) for hits, scores in zip(stock, exact_scores[:50].tolist(), strict=True)
                  for found, score in zip(hits, scores, strict=True))
    line("exact_score_difference", differs, "cosine", peer="semantic_search", peer_value=None)

    turn = iter(range(10**9))

    def fast() -> None:
        index.hits(*index.search_vectors(queries[next(turn) % count][None], 10))

    def exact() -> None:
        index.hits(*index.search_vectors(queries[next(turn) % count][None], 10, exact=True))

    def peer() -> None:
        semantic_search(torch.from_numpy(queries[next(turn) % count][None]), corpus, top_k=10)

    interleaved([fast, exact, peer], 3)
    fasts, exacts, peers = interleaved([lambda: [fast() for _ in range(20)], exact, peer], 25)
    base = 1000 * median(peers)
    line("fast_query", 1000 * median(fasts) / 20, "ms", peer="semantic_search", peer_value=base)
    line("exact_query", 1000 * median(exacts), "ms", peer="semantic_search", peer_value=base)


def memory(folder: Path) -> None:
    """Most resident memory of a process that searches, fast and exact, beside the vectors' size."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", MEMORY, str(folder)], capture_output=True, text=True, check=True,
                          env=environment)
    from sentence_forge.search.index import Index

    with Index.open(folder) as index:
        size = index.vectors.nbytes
    line("resident_memory", int(done.stdout) / 2**20, "MiB", peer="vectors", peer_value=size / 2**20)


def cold(folder: Path) -> None:
    """Seconds from typing ``python -m search DIR query`` to the answer."""
    command = [sys.executable, "-m", "search", str(folder), "winter air pollution in Beijing", "-k", "3"]

    def search() -> None:
        subprocess.run(command, check=True, capture_output=True)

    (taken,) = interleaved([search], 5)
    line("cold_search", median(taken), "s", slowest=round(max(taken), 3))


if __name__ == "__main__":
    main()
