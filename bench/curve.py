"""How much speed for how much quality? Titles a second beside nDCG@10 of Chinese titles by category, a line a model.

``python -m bench.curve NAME=MODEL...``, such as ``e5=e5_small static=runs/static-1``: a model is a name, a folder, a
run or an export. Titles are THUCNews' and TNEWS' of ``suite=news_zh``, from the folder $SENTENCE_FORGE_DATA. nDCG@10 is
over both, a query weighing as much as any other. Speeds are of the model by torch in float32 on this machine, from raw
strings, all models in turn. BM25 over pairs of characters is the last line; its speed is that of building its index.
Kept in ``bench/results/<kind>/curve.json``; ``python -m bench.plot`` draws it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.bm25 import Bm25, compared, pairs
from bench.gains import with_gain
from bench.lines import interleaved, line, median
from bench.results import Results, results_of_this_kind
from sentence_forge.api import load
from sentence_forge.encoders.encoder import Encoder
from sentence_forge.eval.ranking import rank
from sentence_forge.eval.stats import Floats
from sentence_forge.eval.tasks.base import EncodedTexts
from sentence_forge.eval.tasks.retrieval import LabelledRetrieval, Titles, query_and_document_vectors
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.process import run

FILES = {"news_zh_thucnews": "test", "news_zh_tnews": "dev"}
NDCG, WORDS = "ndcg@10", "bm25"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.curve", description=__doc__)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--every", type=int, default=3, help="only each so-many-th title (default %(default)s)")
    parser.add_argument("--timed", type=int, default=500, help="titles that are encoded to take the time")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, help="folder; bench/results/<kind of machine>")
    arguments = parser.parse_args(argv)
    return run(lambda: _measure(arguments))


def _measure(arguments: argparse.Namespace) -> None:
    given = dict(each.partition("=")[::2] for each in arguments.models)
    if not all(given.values()):
        raise UserError("models: give each as NAME=MODEL, such as e5=e5_small")
    data = os.environ.get("SENTENCE_FORGE_DATA")
    if data is None:
        raise UserError("SENTENCE_FORGE_DATA: is not set; it names the folder of public sets")
    results = Results((arguments.results or results_of_this_kind()) / "curve.json", "python -m bench.curve")
    tasks = [LabelledRetrieval(folder=folder, split=split, every=arguments.every) for folder, split in FILES.items()]
    rows = [task.read(Path(data)) for task in tasks]
    titles = [title for each in rows for title in each.titles]
    encoders = {name: load(model) for name, model in given.items()}
    found = {name: np.concatenate([_ndcg(*each, encoder) for each in zip(tasks, rows, strict=True)])
             for name, encoder in encoders.items()}
    first = next(iter(encoders.values()))
    found[WORDS] = np.concatenate([compared(task, each, first)["bm25_bigrams"][NDCG]
                                   for task, each in zip(tasks, rows, strict=True)])
    speeds = _speeds(encoders, titles, arguments)
    before = found[next(iter(found))]
    results.add(*(line(name, speeds[name], "titles/s", queries=len(values),
                       **with_gain(NDCG, values, None if values is before else before))
                  for name, values in found.items()))


def _ndcg(task: LabelledRetrieval, rows: Titles, encoder: Encoder) -> Floats:
    """Return each query's nDCG@10."""
    encoded = EncodedTexts(encoder, [], texts_by_role=rows.texts_by_role)
    return rank(*query_and_document_vectors(rows, encoded), task.gains(rows)).measures[NDCG]


def _speeds(encoders: dict[str, Encoder], titles: Sequence[str], arguments: argparse.Namespace) -> dict[str, float]:
    """Return the titles a second of each, in the median of some turns."""
    some = list(np.random.default_rng(0).permutation(np.array(titles, object))[:arguments.timed])
    calls: dict[str, Callable[[], Any]] = {name: (lambda encoder=encoder: encoder.encode(some, role="document"))
                                           for name, encoder in encoders.items()}
    calls[WORDS] = lambda: Bm25(some, pairs)
    interleaved(list(calls.values()), 1)
    times = interleaved(list(calls.values()), arguments.repeats)
    return {name: len(some) / median(taken) for name, taken in zip(calls, times, strict=True)}


if __name__ == "__main__":
    raise SystemExit(main())
