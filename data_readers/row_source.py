"""Read files as training data: recognise their columns, check the rows, divide them into train and dev, shape them."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from sentence_forge.data_readers import derive, on_disk
from sentence_forge.data_readers.checks import normalise
from sentence_forge.data_readers.formats.files import rows_of
from sentence_forge.data_readers.formats.rows import BadRow, Row, RowFile, check_columns
from sentence_forge.data_readers.hold_out import hold_out
from sentence_forge.data_readers.recognise import SPLIT, named_split, shapes_of
from sentence_forge.data_readers.retrieval import Expanded, expanded
from sentence_forge.data_readers.score_range import checked_range, range_of_files, warn_if_too_wide
from sentence_forge.data_readers.shapes import NLI_LABELS, PAIR_SCORE, SHAPES, TRIPLET
from sentence_forge.data_readers.source import check_request
from sentence_forge.data_readers.table import Table, checked_labels, read_table, rows_at, to_dataset
from sentence_forge.runtime.errors import UserError, one_of

if TYPE_CHECKING:
    from datasets import Dataset

_ON_BAD_ROW = ("stop", "skip")
_WHERE = ("path", "dev_path", "on_disk")  # arguments that say where the rows lie, and not what they are

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False, repr=False)
class RowSource(ABC):
    """The base class of sources of rows: everything but where the train and the dev rows lie.

    Args:
        dev_fraction: without dev rows, the share of the rows that is held out. Rows with the same first text stay
            together, and labelled texts are held out evenly over the labels.
        columns: the data's column for a shape's column where the names differ, such as ``{"premise": "text_a"}``, or
            several of which the first that is there counts; None is the same name. Columns for a second shape (a label
            and a score) give that too.
        score_range: lowest and highest score; None detects it, see ``score_range.range_of``. [-1, 1] is kept, any
            other is mapped to [0, 1].
        labels: the allowed labels; None means entailment, neutral, contradiction for pair_class (or 0, 1, 2 in that
            order) and anything for labelled_text. A mapping, such as ``{"0": "different", "1": "same", "-": None}``,
            gives the data's labels their names; the rows of one mapped to None are left out.
        seed: of the held-out rows.
        on_bad_row: ``stop`` at the first one, or ``skip`` them and go on; see ``rejected``.
        pair_label: of rows with a class, the label of those that are also an anchor and its positive.
        reverse: of triplets for training also (positive, anchor, negative), as in SBERT's NLI recipe, version 2.
        split_column: without dev rows, the column that says which rows are train and which dev (or valid, validation,
            val, trial); others are left out. None holds dev rows out.
        on_disk: whether training rows are read into an Arrow file instead of into memory; None: by their size.
        negatives: how many go into each row where the data has lists of them; 0 reads pairs without negatives.

    Raises:
        UserError: an argument is out of its range. Files are looked at later.
    """

    dev_fraction: float = 0.1
    columns: Mapping[str, str | None] | None = None
    score_range: Sequence[float] | None = None
    labels: Sequence[str] | Mapping[str, str | None] | None = None
    seed: int = 0
    on_bad_row: str = "stop"
    pair_label: str = "entailment"
    reverse: bool = False
    split_column: str | None = None
    on_disk: bool | None = None
    negatives: int = 1

    def __post_init__(self) -> None:
        if self.on_bad_row not in _ON_BAD_ROW:
            raise UserError(f"data.on_bad_row: there is no {self.on_bad_row!r}; {one_of(_ON_BAD_ROW, self.on_bad_row)}")
        if not 0 < self.dev_fraction < 1:
            raise UserError(f"data.dev_fraction is {self.dev_fraction}; give a share between 0 and 1")
        self._labels = None if self.labels is None else checked_labels(self.labels)
        self._range = None if self.score_range is None else checked_range(self.score_range)
        self._columns = {name: column for name, column in (self.columns or {}).items() if column is not None}
        self._rejected: dict[Path, list[BadRow]] | None = {} if self.on_bad_row == "skip" else None
        self._shapes: dict[Path, dict[str, tuple[str, dict[str, str]]]] = {}
        self._detected_range: tuple[float, float] | None = None
        self._logged: set[tuple[Path, str]] = set()  # files and shapes whose reading was logged
        self._from_arrow: dict[str, dict[str, Dataset]] = {}  # by shape, the rows that lie on disk

    @property
    @abstractmethod
    def name(self) -> str:
        """What errors call the source."""

    @abstractmethod
    def open(self) -> tuple[RowFile, RowFile | None]:
        """Open the train rows and, if there are any, the dev rows."""

    @cached_property
    def _opened(self) -> tuple[RowFile, RowFile | None]:
        """The train and the dev rows, opened once, with a row for each positive where they hold lists of passages."""
        named = {name: column for name, column in self._columns.items() if isinstance(column, str)}
        train, dev = self.open()
        return expanded(train, named, self.negatives), dev and expanded(dev, named, self.negatives)

    def shapes(self) -> list[str]:
        """Return the shape of the file, then those that follow from it without loss.

        Raises:
            UserError: the file is missing, or its columns make no shape.
        """
        return list(self._origins(self._opened[0]))

    def rejected(self) -> dict[Path, list[BadRow]]:
        """Return the bad rows that were skipped in each file read so far."""
        return {file: rows for file, rows in (self._rejected or {}).items() if rows}

    def paths(self) -> list[Path]:
        """Return the files that hold the rows for training and, if there are any, for dev."""
        return [path for file in self._opened if file is not None for path in file.stored]

    def detected(self) -> dict[str, dict[str, object]]:
        """Return how each file is read where that isn't usual: its encoding, separator, range of scores; JSON-ready."""
        about = {str(file.path): dict(file.detected) for file in self._opened if file is not None}
        if self._detected_range is not None:
            for each in about.values():
                each["score_range"] = list(self._detected_range)
        return {name: each for name, each in about.items() if each}

    def read(self, shape: str, split: str) -> Dataset:
        """Return the rows of a split (``train`` or ``dev``) in a shape; see ``data_readers.source.Source``.

        Raises:
            UserError: at the first bad row, with file, line, row and column; or the shape or split can't be given.
        """
        check_request(self.name, self.shapes(), shape, split)
        if self.reverse and shape != TRIPLET.name:
            raise UserError(f"data.reverse: is for triplets, and these rows are read as {shape}; leave it out, or use "
                            "a loss that takes triplets")
        train, dev = self._opened
        file = dev if split == "dev" and dev is not None else train
        origins = self._origins(file)
        if shape not in origins:
            raise UserError(f"{file.path}: has the columns of {', '.join(origins)}, but {train.path} those of {shape}")
        own, columns = origins[shape]
        large = on_disk.applies(self.on_disk, train.stored)
        if large and file is train:
            if shape not in self._from_arrow:
                self._from_arrow[shape] = self._kept_on_disk(file, own, columns, shape, alone=dev is None)
            return self._from_arrow[shape][split]
        wanted = self._wanted(file, columns, alone=dev is None)
        rows = rows_of(file, list(wanted.values()))
        table = self._table(file, own, wanted, on_disk.first_rows(rows, file.path) if large else rows,
                            self._rejected_of(file))
        if self._range is not None and self._detected_range is None and file is train and table.get("score"):
            warn_if_too_wide(file.path, self._range, max(table["score"]))
        try:
            if dev is None:
                table = self._part(file.path, table, own, split)
            return to_dataset(self._finished(table, split, own=own, shape=shape), shape)
        except UserError as error:
            raise UserError(f"{file.path} ({split}): {error}") from None

    def _origins(self, file: RowFile) -> dict[str, tuple[str, dict[str, str]]]:
        """Return the shapes that a file can give, each with the shape of the file's own columns that it is made of."""
        if file.path in self._shapes:
            return self._shapes[file.path]
        found: dict[str, tuple[str, dict[str, str]]] = {}
        chosen = {} if isinstance(file, Expanded) else self._columns  # which has the shapes' own names
        for own, columns in shapes_of(file.path, file.columns, chosen).items():
            for shape in (own, *derive.also_given(own, self._labels, self.pair_label)):
                found.setdefault(shape, (own, columns))
        self._shapes[file.path] = found
        return found

    def _wanted(self, file: RowFile, columns: dict[str, str], *, alone: bool) -> dict[str, str]:
        if not alone or self.split_column is None:
            return columns
        check_columns(file.path, file.columns, [self.split_column])
        return columns | {SPLIT: self.split_column}

    def _table(self, file: RowFile, own: str, columns: dict[str, str], rows: Iterator[Row | BadRow],
               rejected: list[BadRow] | None) -> Table:
        labels = self._labels or (NLI_LABELS if own == "pair_class" else None)
        may_be_empty = ("label",) if own == "labelled_text" else ()
        score_range = self._score_range() if own == PAIR_SCORE.name else None
        with on_disk.quiet((file.path, own) in self._logged):  # a lone file is read for train and again for dev
            table = read_table(file, columns, score_range=score_range, labels=labels, may_be_empty=may_be_empty,
                               rejected=rejected, rows=rows, key="data")
        self._logged.add((file.path, own))
        return table

    def _score_range(self) -> tuple[float, float]:
        """Return the range that was given, or else the one that all scores of the train file have; dev has the same."""
        if self._range is None:
            columns = [(file, made[PAIR_SCORE.name][1]["score"]) for file in self._opened
                       if file is not None and PAIR_SCORE.name in (made := self._origins(file))]
            self._range = self._detected_range = range_of_files(columns, stop=self._rejected is None)
        return self._range

    def _finished(self, table: Table, split: str, *, own: str, shape: str) -> Table:
        """Return the rows of a split in the shape asked for, scores between 0 and 1 or -1 and 1."""
        table = derive.in_shape(table, own, shape, self.pair_label)
        if shape == PAIR_SCORE.name:
            low, high = self._score_range()
            if (low, high) != (-1.0, 1.0):
                table = table | {"score": [(score - low) / (high - low) for score in table["score"]]}
        return derive.reversed_too(table) if self.reverse and split == "train" else table

    def _kept_on_disk(self, file: RowFile, own: str, columns: dict[str, str], shape: str, *,
                      alone: bool) -> dict[str, Dataset]:
        if own == "pair_class" and shape == TRIPLET.name:
            raise UserError(f"{file.path}: is too large for triplets to be made of its premises and hypotheses, which "
                            "may lie far apart; use a loss that takes pairs or classes, a file of triplets, or, where "
                            "memory allows, data.on_disk=false")
        rejected = self._rejected_of(file)
        parts: on_disk.HeldOut | on_disk.Named | None = None
        if alone:
            parts = on_disk.HeldOut(self.dev_fraction, self.seed, SHAPES[own].texts[0])
            if self.split_column is not None:
                parts = on_disk.Named(partial(named_split, column=self.split_column))
        asked = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in _WHERE}
        asked["labels"] = self._labels  # whose names are strings; YAML has numbers beside them
        about = {"own": own, "columns": columns, "alone": alone, "asked": asked, "found": file.detected,
                 "score_range": self._score_range() if shape == PAIR_SCORE.name else None}
        wanted = self._wanted(file, columns, alone=alone)
        return on_disk.kept(
            file.path, file.stored, about, shape,
            lambda: on_disk.tables_of(rows_of(file, list(wanted.values())), lambda rows: self._table(
                file, own, wanted, rows, rejected)),
            parts, partial(self._finished, own=own, shape=shape), rejected)

    def _rejected_of(self, file: RowFile) -> list[BadRow] | None:
        """Return the list that takes the file's bad rows; None where the first one stops."""
        if self._rejected is None:
            return None
        self._rejected[file.path] = []
        return self._rejected[file.path]

    def _part(self, path: Path, table: Table, own: str, split: str) -> Table:
        """Return the train or the dev rows of a lone file, as a column says or as they are held out by chance."""
        if self.split_column is not None:
            return named_split(table, split, self.split_column)
        keys = [normalise(text) for text in table[SHAPES[own].texts[0]]]
        strata = table["label"] if own == "labelled_text" else None
        train, dev = hold_out(keys, self.dev_fraction, self.seed, strata)
        if split == "train":
            return rows_at(table, train)
        logger.info("%s: no dev file; %d of %d rows are held out for dev (seed %d)", path, len(dev), len(keys),
                    self.seed)
        return rows_at(table, dev)
