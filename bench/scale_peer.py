"""A peer's index on the vectors of ours, in a process of its own, searched until its recall is that of ours.

``python -m bench.scale_peer WORK RECALL [URL [ivfflat]]`` is called by `bench.scale`. The peer is FAISS's graph (HNSW),
or pgvector's in the PostgreSQL server at URL, where the table ``bench_scale`` is made and removed. Both keep float16,
which halves the memory, with 32 links a vector (FAISS's default; M), and 20 candidates are scored again in float32 as
ours are: float16 alone mixes up the tenth and the eleventh. efSearch is doubled until recall@10 reaches 0.995, and then
RECALL; pgvector ends at 1,000, the most that it takes, so it may miss both. pgvector is set to build in memory,
on all cores (``maintenance_work_mem`` of the graph's size, ``max_parallel_maintenance_workers``), and queries go over
one connection, prepared. Its other index, IVFFlat, has as many lists as the root of the rows, as its README recommends,
and what is doubled is the number of lists that are searched.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.lines import median, own_memory, seconds
from bench.scale_table import GOAL
from sentence_forge.encoders.similarity import FloatArray, IntArray, rank
from sentence_forge.search.index import Index

LINKS, BLOCK = 32, 65_536
CANDIDATES = 20
EF_SEARCH = (20, 40, 80, 160, 320, 640, 1000, 2000, 4000, 8000)
PROBES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
PGVECTOR_MOST = 1000  # https://github.com/pgvector/pgvector#query-options
Search = Callable[[FloatArray, int], IntArray]


def main() -> None:
    """Print one JSON object: seconds to build, MiB resident or on disk, and of two recalls efSearch, milliseconds."""
    work, wanted, *urls = Path(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:]
    queries, tenth = np.load(work / "queries.npy"), np.load(work / "tenth.npy")
    with Index.open(work) as index:
        vectors = np.asarray(index.vectors)
        build, search, size = pgvector(vectors, *urls) if urls else faiss_graph(vectors)
        tried = PROBES if "ivfflat" in urls else [each for each in EF_SEARCH if not urls or each <= PGVECTOR_MOST]

        def answer(query: FloatArray, ef_search: int) -> FloatArray:
            found = rank(vectors, query, search(query, ef_search), 10)[0]
            return np.pad(found, (0, 10 - len(found)), constant_values=-np.inf)  # a list may hold fewer

        def measured(least: float) -> dict[str, float]:
            for ef_search in tried:
                scores = np.array([answer(query, ef_search) for query in queries])
                recall = float((scores >= tenth[:, None] - 1e-6).mean())
                if recall >= least:
                    break
            times = [1000 * seconds(lambda query=query: answer(query, ef_search)) for query in queries]
            return {"ef_search": ef_search, "recall": recall, "median": median(times),
                    "p95": float(np.percentile(times, 95))}

        sys.stdout.write(json.dumps({"build": build, "goal": measured(GOAL), "ours": measured(wanted),
                                     "size": size() / 2**20}))


def faiss_graph(vectors: FloatArray) -> tuple[float, Search, Callable[[], float]]:
    """Build FAISS's graph; return the seconds it took, its search, and the bytes of this process's own memory."""
    import faiss

    graph = faiss.IndexHNSWSQ(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.train(np.array(vectors[:BLOCK]))
    build = seconds(lambda: [graph.add(np.array(vectors[start:start + BLOCK]))
                             for start in range(0, len(vectors), BLOCK)])

    def search(query: FloatArray, ef_search: int) -> IntArray:
        graph.hnsw.efSearch = ef_search
        near = graph.search(query[None], CANDIDATES)[1][0]
        return near[near >= 0]

    return build, search, lambda: own_memory() * 2**20


def pgvector(vectors: FloatArray, url: str, kind: str = "hnsw") -> tuple[float, Search, Callable[[], float]]:
    """Load the vectors and build pgvector's index; return the seconds of both, its search, and the bytes on disk."""
    import psycopg

    from sentence_forge.search.postgres.binary import HEADER, TRAILER, copied, literal

    connection: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True)
    dim, cores = vectors.shape[1], len(os.sched_getaffinity(0))
    graph = len(vectors) * (2 * dim + 16 * LINKS + 100) // 2**20  # MiB, with its vectors, while it is built
    memory = 64 + graph if kind == "hnsw" else 4096

    def load() -> None:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute("DROP TABLE IF EXISTS bench_scale")
        connection.execute(f"CREATE UNLOGGED TABLE bench_scale (row bytea, embedding halfvec({dim}))")
        connection.execute("ALTER TABLE bench_scale ALTER embedding SET STORAGE PLAIN")
        with connection.cursor().copy("COPY bench_scale FROM STDIN (FORMAT binary)") as copy:
            copy.write(HEADER)
            for start in range(0, len(vectors), BLOCK):
                block = vectors[start:start + BLOCK]
                rows = [b"%015d" % row for row in range(start, start + len(block))]
                copy.write(copied(np.array(rows, "S15"), block, "halfvec"))
            copy.write(TRAILER)
        for setting in (f"maintenance_work_mem = '{memory} MB'", f"max_parallel_maintenance_workers = {cores}"):
            connection.execute(f"SET {setting}")
        shape = f"m = {LINKS}" if kind == "hnsw" else f"lists = {round(len(vectors) ** 0.5)}"
        connection.execute(f"CREATE INDEX ON bench_scale USING {kind} (embedding halfvec_ip_ops) WITH ({shape})")

    told = 0

    def search(query: FloatArray, ef_search: int) -> IntArray:
        nonlocal told
        if told != ef_search:
            connection.execute(f"SET {'hnsw.ef_search' if kind == 'hnsw' else 'ivfflat.probes'} = {ef_search}")
            told = ef_search
        found = connection.execute("SELECT row FROM bench_scale ORDER BY embedding <#> %s::halfvec LIMIT "
                                   f"{CANDIDATES}", [literal(query)], prepare=True).fetchall()
        return np.array([int(row) for row, in found], np.int64)

    def size() -> float:
        bytes_of = connection.execute("SELECT pg_total_relation_size('bench_scale')").fetchone()
        connection.execute("DROP TABLE bench_scale")
        assert bytes_of is not None
        return float(bytes_of[0])

    return seconds(load), search, size


if __name__ == "__main__":
    main()
