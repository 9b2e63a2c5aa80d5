"""Hard negatives from an index: titles near an anchor that are not, by a margin, another positive."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sentence_forge.data_readers import derive
from sentence_forge.data_readers.csv_writer import write_csv
from sentence_forge.data_readers.formats.files import open_rows
from sentence_forge.data_readers.recognise import shapes_of
from sentence_forge.data_readers.shapes import NLI_LABELS, SHAPES
from sentence_forge.data_readers.table import read_table, rows_at
from sentence_forge.encoders.protocol import Role
from sentence_forge.encoders.similarity import FloatArray
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.text_search import TextSearch

log = logging.getLogger(__name__)

_BATCH = 256


class Mined(NamedTuple):
    """The result of `mine`.

    Args:
        rows: anchor, positive and as many negatives as were asked for, the nearest first.
        false_negatives: candidates left out because they are as near to the anchor as its positive, by the margin.
        without: how many pairs had too few candidates left, and gave no row.
    """

    rows: list[tuple[str, ...]]
    false_negatives: int
    without: int


def mine(index: TextSearch, pairs: Sequence[tuple[str, str]], *, negatives: int = 1, margin: float = 0.05,
         range_min: int = 0, range_max: int = 100, exact: bool = False) -> Mined:
    """Return a triplet for each pair, its negatives the nearest titles of the index that are not likely positives.

    Of the ``range_max`` titles nearest to an anchor, without its own text and its positives, those are dropped whose
    cosine is above ``(1 - margin)`` times that of its positive, or of the least similar of several: they are likely to
    be true, too (TopK-PercPos of Moreira et al. 2024, "NV-Retriever", https://arxiv.org/abs/2407.15831; the
    ``relative_margin`` of sentence-transformers' ``mine_hard_negatives``). Then the ``range_min`` nearest are passed
    over.

    Args:
        index: where the negatives come from; its encoder embeds the texts that are not among its titles, and every
            anchor where a query has another prompt than a document.
        pairs: anchor and positive; an anchor may come several times, and what it is paired with, either way round, is
            never its negative.
        negatives: to find for each pair; a pair with fewer gives no row.
        margin: a fraction of the positive's cosine; with 0 only titles nearer than the positive are dropped.
        range_min: how many of the remaining nearest to skip, the likeliest false negatives.
        range_max: titles looked at an anchor.
        exact: scan every vector instead of asking the fast index.

    Raises:
        UserError: a number is out of its range, or the model can't encode a text.
    """
    _check(negatives, margin, range_min, range_max)
    positives: dict[str, dict[str, None]] = {}  # in the pairs' order
    backwards: dict[str, set[str]] = {}
    for anchor, positive in pairs:
        positives.setdefault(anchor, {})[positive] = None
        backwards.setdefault(positive, set()).add(anchor)
    queries = _vectors(index, list(positives), "query")
    documents = _vectors(index, list(backwards), "document")
    rows: list[tuple[str, ...]] = []
    false, without = 0, 0
    anchors = list(positives)
    for start in range(0, len(anchors), _BATCH):
        batch = anchors[start:start + _BATCH]
        own = [{anchor, *positives[anchor], *backwards.get(anchor, ())} for anchor in batch]
        near = _nearest(index, np.stack([queries[anchor] for anchor in batch]), own, range_max, exact)
        for anchor, (titles, cosines) in zip(batch, near, strict=True):
            least = min(float(queries[anchor] @ documents[positive]) for positive in positives[anchor])
            allowed = [title for title, cosine in zip(titles, cosines, strict=True)
                       if cosine <= least - margin * abs(least)]
            false += len(titles) - len(allowed)
            chosen = allowed[range_min:range_min + negatives]
            if len(chosen) < negatives:
                without += len(positives[anchor])
                continue
            rows += [(anchor, positive, *chosen) for positive in positives[anchor]]
    return Mined(rows, false, without)


def _check(negatives: int, margin: float, range_min: int, range_max: int) -> None:
    if negatives < 1:
        raise UserError(f"--negatives {negatives}: must be 1 or more")
    if not 0 <= margin < 1:
        raise UserError(f"--margin {margin:g}: is a fraction of the positive's cosine, from 0 to below 1")
    if range_min < 0 or range_max < range_min + negatives:
        raise UserError(f"--range-min {range_min} --range-max {range_max}: leave no room for {negatives} "
                        f"negative{'s' * (negatives > 1)} between them")


def _vectors(index: TextSearch, texts: Sequence[str], role: Role) -> dict[str, FloatArray]:
    """Return each text's unit vector: the index's where it is one of its titles, else from its encoder.

    Where queries have a prompt of their own, their vectors are none of the index's.
    """
    at = np.full(len(texts), -1) if role == "query" and index.asymmetric else index.rows_of(texts)
    there = np.flatnonzero(at >= 0)
    found = dict(zip((texts[place] for place in there.tolist()), index.vectors_of(at[there]), strict=True))
    missing = [text for text in texts if text not in found]
    for start in range(0, len(missing), 4096):
        some = missing[start:start + 4096]
        found |= dict(zip(some, index.encode(some, role), strict=True))
    return found


def _nearest(index: TextSearch, anchors: FloatArray, own: Sequence[set[str]], range_max: int,
             exact: bool) -> list[tuple[list[str], list[float]]]:
    """Return the ``range_max`` nearest different titles of each anchor, save its ``own`` texts, and their cosines."""
    found: list[tuple[list[str], list[float]]] = [([], []) for _ in own]
    left = list(range(len(own)))
    k = range_max + max(map(len, own))
    while left:
        scores, rows = index.search_vectors(anchors[left], k, exact=exact)
        for number, row_scores, row_places in zip(list(left), scores, rows, strict=True):
            first: dict[str, float] = {}
            for score, title in zip(row_scores, index.titles_of(row_places), strict=True):
                first.setdefault(title, float(score))
            titles = [title for title in first if title not in own[number]][:range_max]
            if len(titles) == range_max or k >= len(index):  # else titles that repeat took the places
                found[number] = (titles, [first[title] for title in titles])
                left.remove(number)
        k *= 4
    return found


def near_duplicates(index: TextSearch, k: int) -> list[tuple[str, str]]:
    """Return the index's ``k`` most similar pairs of different titles; only those that mean the same, where it knows.

    Raises:
        UserError: there is none.
    """
    found = index.pairs(k)
    if (thresholds := index.thresholds) is not None:
        found = [pair for pair in found if thresholds.of(pair.score) == "same"]
    else:
        log.warning("this index doesn't know from which cosine titles mean the same, so each of its %d most similar "
                    "pairs counts as a positive; give fewer as -k N, or pairs you know as --pairs-from FILE",
                    len(found))
    if not found:
        raise UserError("the index has no two titles that mean the same; give pairs to mine for as --pairs-from FILE")
    return [(pair.title1, pair.title2) for pair in found]


def read_pairs(path: Path, least_score: float | None = None) -> list[tuple[str, str]]:
    """Return the pairs of a file: anchor and positive, NLI's entailments, or scored pairs from ``least_score`` on.

    Raises:
        UserError: the file can't be read, holds other columns or a bad row, or no pair is left.
    """
    file = open_rows(path)
    names = file.columns
    try:
        shape, columns = next(iter(shapes_of(path, names, {}).items()))
    except UserError:
        shape, columns = "", {}
    if shape not in ("pair", "triplet", "pair_score", "pair_class"):
        raise UserError(f"{path}: its columns are {', '.join(names)}; pairs to mine for have anchor, positive (or "
                        "sentence1, sentence2, score, or premise, hypothesis, label)")
    if (shape == "pair_score") != (least_score is not None):
        raise UserError(f"{path}: holds scores; --least-score says from which on a pair is a positive"
                        if least_score is None else f"{path}: holds no scores; leave --least-score out")
    table = read_table(file, columns, labels=NLI_LABELS if shape == "pair_class" else None)
    if shape == "pair_class":
        table, shape = derive.pairs(table), "pair"
    if least_score is not None:
        table = rows_at(table, [row for row, score in enumerate(table["score"]) if score >= least_score])
    first, second = (table[name] for name in SHAPES[shape].texts[:2])
    pairs = [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]]
    if not pairs:
        raise UserError(f"{path}: holds no pair of two different texts to mine for"
                        + ("" if least_score is None else f" with a score of at least {least_score:g}"))
    return pairs


def write_triplets(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write a CSV file of anchor, positive, negative, negative_2, ...: rows for ``loss=mnrl`` and ``triplet``."""
    more = [f"negative_{number}" for number in range(2, len(rows[0]) - 1)]
    write_csv(path, ["anchor", "positive", "negative", *more], rows)
