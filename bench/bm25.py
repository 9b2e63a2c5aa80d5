"""Do words help the vectors? BM25 alone, and fused with the cosine, beside the vectors alone.

``python -m bench.bm25 hits EXPORT OUT`` searches an export for the sample's Chinese queries and writes a file of each
system into the folder OUT, as ``python -m bench.judge`` reads them. ``python -m bench.bm25 tasks model=e5_small
suite=news_zh`` measures the systems on the suite's tasks of retrieval, with intervals of what each gains over vectors.

BM25 is that of bm25s (Lù 2024), with its defaults (Lucene's form, k1 1.5, b 0.75): over pairs of neighbouring Chinese
characters, and over Chinese words as jieba finds them; other scripts are whole words in both. ``fused`` is the
reciprocal rank fusion of the vectors and BM25 over pairs (k 60, of the first 100 each; Cormack, Clarke and Büttcher
2009), ``fused_words`` that with BM25 over words.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import tempfile
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.gains import with_gain
from bench.lines import line
from sentence_forge.data_readers.sample import sample_path
from sentence_forge.data_readers.table import read_table
from sentence_forge.encoders.computing.device import pick_device
from sentence_forge.encoders.encoder import Encoder
from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.encoders.similarity import FloatArray, IntArray
from sentence_forge.eval.ranking import K, measured, rank
from sentence_forge.eval.stats import Floats
from sentence_forge.eval.tasks.base import EncodedTexts
from sentence_forge.eval.tasks.retrieval import KnownItem, LabelledRetrieval, Titles, query_and_document_vectors
from sentence_forge.runtime import targets
from sentence_forge.runtime.call import call
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.process import run
from sentence_forge.search.index import Index

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sentence_forge.configs.schema import Eval

DEPTH = 100  # of each ranking that is fused
FUSION_K = 60
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_RUN = re.compile(rf"(?P<cjk>[{_CJK}]+)|[^\W_{_CJK}]+")

Splitter = Callable[[str], list[str]]
Rankings = Sequence[Sequence[int]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.bm25", description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    hits = what.add_parser("hits")
    hits.add_argument("export", type=Path)
    hits.add_argument("out", type=Path)
    hits.add_argument("--queries", type=Path, default=sample_path("zh", "queries"), help="with the column query")
    what.add_parser("tasks").add_argument("words", nargs="+", help="of python -m eval, such as model= and suite=")
    arguments = parser.parse_args(argv)
    if arguments.what == "tasks":
        return run(lambda: on_tasks(arguments.words), logging.WARNING)
    return run(lambda: write_hits(arguments.export, arguments.out, arguments.queries), logging.WARNING)


def pairs(text: str) -> list[str]:
    """Return a text's words in lower case; of Chinese, Japanese and Korean the pairs of neighbouring characters."""
    return _split(text, lambda run: [a + b for a, b in pairwise(run)] or [run])


def words(text: str) -> list[str]:
    """Return a text's words in lower case, the Chinese ones as jieba finds them."""
    import jieba

    jieba.setLogLevel(logging.WARNING)
    return _split(text, jieba.lcut)


def _split(text: str, of_cjk: Splitter) -> list[str]:
    found: list[str] = []
    for part in _RUN.finditer(unicodedata.normalize("NFKC", text).lower()):
        found += of_cjk(part[0]) if part["cjk"] else [part[0]]
    return found


class Bm25:
    """BM25 over titles.

    Args:
        titles: what is searched.
        split: a text to its tokens.
    """

    def __init__(self, titles: Sequence[str], split: Splitter) -> None:
        from bm25s import BM25

        self._split, self._size = split, len(titles)
        self._index = BM25()
        self._index.index([split(title) for title in titles], show_progress=False)

    def scores(self, text: str) -> FloatArray:
        """Return each title's score, float32 [titles]; 0 where it has no token of the text."""
        known = [token for token in self._split(text) if token in self._index.vocab_dict]
        return self._index.get_scores(known) if known else np.zeros(self._size, np.float32)


def best(scores: Floats | FloatArray, most: int = DEPTH) -> list[int]:
    """Return the rows of the highest scores above 0, at most ``most``, the highest first; ties go to the lower row."""
    rows: IntArray = np.flatnonzero(scores > 0)
    if len(rows) > most:
        rows = rows[scores[rows] >= np.partition(scores[rows], -most)[-most]]
    return rows[np.argsort(-scores[rows], kind="stable")][:most].tolist()


def fused(*rankings: Sequence[int]) -> list[int]:
    """Return the rows of all rankings by the sum of 1 / (60 + rank), the highest first.

    Equal sums stay in the order of the first ranking, then of the next.
    """
    sums: dict[int, float] = {}
    for ranking in rankings:
        for place, row in enumerate(ranking, start=1):
            sums[row] = sums.get(row, 0.0) + 1 / (FUSION_K + place)
    return sorted(sums, key=lambda row: -sums[row])


def systems(vectors: Rankings, of_pairs: Rankings, of_words: Rankings) -> dict[str, list[Sequence[int]]]:
    """Return each system's rankings, one a query, from those of its parts."""
    return {"vectors": [*vectors], "bm25_bigrams": [*of_pairs], "bm25_words": [*of_words],
            "fused": [fused(*both) for both in zip(vectors, of_pairs, strict=True)],
            "fused_words": [fused(*both) for both in zip(vectors, of_words, strict=True)]}


def write_hits(export: Path, out: Path, queries: Path, encoder: TextEncoder | None = None) -> None:
    """Write what each system finds for each query, best first, as JSON lines: ``<out>/<system>.jsonl``.

    Args:
        export: its folder.
        out: a folder; made where it isn't there.
        queries: a file with the column query.
        encoder: of the queries; by default the export's own.

    Raises:
        UserError: there is no index, or no file of queries.
    """
    asked = list(read_table(queries, {"query": "query"})["query"])
    with Index.open(export, encoder) as index:
        _, near = index.search_vectors(index.encode(asked), DEPTH)
        of_pairs, of_words = ([best(bm25.scores(query)) for query in asked]
                              for bm25 in (Bm25(index.titles, pairs), Bm25(index.titles, words)))
        out.mkdir(parents=True, exist_ok=True)
        for name, rankings in systems(near.tolist(), of_pairs, of_words).items():
            lines = [json.dumps({"query": query, "hits": [{"id": index.ids[row], "title": index.titles[row]}
                                                          for row in ranking[:4 * K]]}, ensure_ascii=False)
                     for query, ranking in zip(asked, rankings, strict=True)]
            (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def on_tasks(typed: Sequence[str]) -> None:
    """Print the measures of each system on each task of retrieval in a suite, and their gain over the vectors.

    Raises:
        UserError: the suite has no such task, or its file is not there.
    """
    with tempfile.TemporaryDirectory() as nowhere:
        call("eval", _measure, [*typed, f"output={nowhere}"])


def _measure(config: DictConfig) -> None:
    from omegaconf import OmegaConf

    settings: Eval = OmegaConf.to_object(config)  # type: ignore[assignment]
    if wrong := next((key for key in ("baseline", "models", "dims", "blend") if getattr(settings, key)), None):
        raise UserError(f"{wrong}: is for python -m eval; here one model is measured, beside BM25")
    tasks = {name: task for name, node in settings.suite.items() if node is not None and isinstance(
        task := targets.build(node, f"suite.{name}", plugins=settings.plugins), LabelledRetrieval | KnownItem)}
    if not tasks:
        raise UserError("suite: has no task of retrieval; give suite=news_zh or suite=retrieval")
    if settings.model is None:
        raise UserError("model: is needed; give model=<name, folder, run or hub id>")
    data_dir = None if settings.data_dir is None else Path(settings.data_dir).expanduser()
    rows = {name: task.read(data_dir) for name, task in tasks.items()}
    built = targets.build(settings.model, "model", plugins=settings.plugins, texts=lambda: [])
    encoder = Encoder(built.to(pick_device(settings.device.value)), name="model")
    encoded = EncodedTexts(encoder, [], texts_by_role={
        role: [text for each in rows.values() for text in each.texts_by_role[role]] for role in ("query", "document")})
    for name, task in tasks.items():
        found = compared(task, rows[name], encoded)
        _print(name, found, ("mrr@10", "ndcg@10", "recall@1") if isinstance(task, KnownItem) else
               ("precision@10", "ndcg@10"))


def compared(task: LabelledRetrieval | KnownItem, rows: Titles, encoder: TextEncoder) -> dict[str, dict[str, Floats]]:
    """Return each query's measures by system, those of the vectors as ``python -m eval`` has them.

    Args:
        task: says which titles are right.
        rows: its titles and the queries for them.
        encoder: encodes both.
    """
    gains, depth = task.gains(rows), min(DEPTH, len(rows.titles) - 1)
    vectors = rank(*query_and_document_vectors(rows, encoder), gains, recalls=(1, K, depth)).top[:, :depth]
    lexical = [Bm25(rows.titles, split) for split in (pairs, words)]
    of_words: list[list[list[int]]] = [[], []]
    for query, text in enumerate(rows.queries):
        grades, competes = gains(np.array([query]))
        for bm25, rankings in zip(lexical, of_words, strict=True):
            scores = np.round(bm25.scores(text).astype(np.float64), 4) * (1 if competes is None else competes[0])
            rankings.append(best(scores - 1e-6 * grades[0], depth))  # a tie counts against it, as in `rank`
    found = systems(vectors.tolist(), *of_words)
    top: dict[str, list[Floats]] = {name: [] for name in found}
    right = []
    for query in range(len(rows.queries)):
        grades = gains(np.array([query]))[0][0]
        right.append(int(grades.sum()))
        for name, rankings in found.items():
            first = grades[np.array(rankings[query][:K], int)]
            top[name].append(np.pad(first, (0, K - len(first))))
    ideal = (np.arange(K) < np.array(right)[:, None]).astype(np.float64)
    return {name: {measure: np.nan_to_num(values) for measure, values in measured(
        np.stack(each), ideal, np.array(right), (1, K)).items()} for name, each in top.items()}


def _print(task: str, found: Mapping[str, Mapping[str, Floats]], shown: Sequence[str]) -> None:
    """Print a line a system: the measures, x 100, each with its interval and its difference from the vectors'."""
    before = found["vectors"]
    for name, measures in found.items():
        more: dict[str, object] = {}
        for measure in shown:
            more |= with_gain(measure, measures[measure], None if name == "vectors" else before[measure])
        values = measures[shown[0]]
        line(f"{task}, {name}", 100 * float(values.mean()), f"{shown[0]} x 100", queries=len(values), **more)


if __name__ == "__main__":
    raise SystemExit(main())
