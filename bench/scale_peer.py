"""FAISS's HNSW on the vectors of an index, in a process of its own, searched until its recall is that of ours.

``python -m bench.scale_peer WORK RECALL`` is called by `bench.scale`. Links are 32 a vector (M); vectors are kept as
float16, which halves the memory, so 20 candidates are scored again in float32 as ours are: float16 alone mixes up the
tenth and the eleventh. efSearch is doubled until recall@10 reaches RECALL.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from bench.lines import median, seconds
from sentence_forge.encoders.similarity import FloatArray, rank
from sentence_forge.search.index import Index

LINKS, BLOCK = 32, 65_536
EF_SEARCH = (16, 32, 64, 128, 256, 512, 1024, 2048)


def main() -> None:
    """Print one JSON object: seconds to build, efSearch, recall@10, milliseconds a query, MiB resident."""
    import faiss

    work, wanted = Path(sys.argv[1]), float(sys.argv[2])
    queries, tenth = np.load(work / "queries.npy"), np.load(work / "tenth.npy")
    with Index.open(work) as index:
        vectors = np.asarray(index.vectors)
        graph = faiss.IndexHNSWSQ(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, LINKS, faiss.METRIC_INNER_PRODUCT)
        graph.train(np.array(vectors[:BLOCK]))
        build = seconds(lambda: [graph.add(np.array(vectors[start:start + BLOCK]))
                                 for start in range(0, len(vectors), BLOCK)])

        def answer(query: FloatArray) -> FloatArray:
            near = graph.search(query[None], 2 * 10)[1][0]
            return rank(vectors, query, near[near >= 0], 10)[0]

        for ef_search in EF_SEARCH:
            graph.hnsw.efSearch = ef_search
            scores = np.array([answer(query) for query in queries])
            recall = float((scores >= tenth[:, None] - 1e-6).mean())
            if recall >= wanted:
                break
        times = [1000 * seconds(lambda query=query: answer(query)) for query in queries]
    fields = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text().splitlines())
    sys.stdout.write(json.dumps({"build": build, "ef_search": ef_search, "recall": recall, "median": median(times),
                                 "p95": float(np.percentile(times, 95)),
                                 "resident": int(fields["RssAnon"].split()[0]) / 1024}))


if __name__ == "__main__":
    main()
