"""One split of a run's data, held in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_readers.source import Source
from runtime.errors import UserError
from runtime.shapes import SHAPES


class Split:
    """One split of the data in memory: texts once each, rows as positions among them."""

    def __init__(self, source: Source, shape: str, split: str) -> None:
        dataset = source.read(shape, split)
        if not len(dataset):
            raise UserError(f"{', '.join(map(str, source.files()))}: has no {split} rows")
        names = SHAPES[shape].text_columns(dataset.column_names)
        self.shape = shape
        self.dataset = dataset
        self.columns: dict[str, list[Any]] = {name: list(dataset[name]) for name in dataset.column_names}
        index: dict[str, int] = {}
        ids = [[index.setdefault(text, len(index)) for text in self.columns[name]] for name in names]
        self.texts = list(index)
        self.text_ids = np.array(ids, dtype=np.int64).T
        label = SHAPES[shape].label
        self.labels: list[Any] | None = None if label is None else self.columns[label]
        self.numbers = np.array(self.columns["row"], dtype=np.int64)
