"""One's own training data: a file, or a folder with train and dev files, of any of the six shapes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from sentence_forge.data_readers import derive, on_disk
from sentence_forge.data_readers.checks import normalise
from sentence_forge.data_readers.delimited import header, read_rows
from sentence_forge.data_readers.recognise import DEV_NAMES, TRAIN_NAMES, find_files, shapes_of
from sentence_forge.data_readers.rejected import Rejected
from sentence_forge.data_readers.rows import BadRow, Row, check_columns
from sentence_forge.data_readers.shapes import NLI_LABELS, PAIR_SCORE, SHAPES, TRIPLET
from sentence_forge.data_readers.source import check_request
from sentence_forge.data_readers.split import hold_out
from sentence_forge.data_readers.table import ROW, NoRows, Table, read_table, rows_at, to_dataset
from sentence_forge.runtime.errors import UserError, one_of

if TYPE_CHECKING:
    from datasets import Dataset

_ON_BAD_ROW = ("stop", "skip")
_SPLIT = "split"  # the table's column of it

logger = logging.getLogger(__name__)


class FileSource:
    """Rows of a file (csv, tsv, jsonl, parquet; see ``data_readers.delimited``), recognised by its columns.

    ======================================  =============  ======================
    columns                                 own shape      also gives
    ======================================  =============  ======================
    premise, hypothesis, label              pair_class     triplet, pair
    sentence1, sentence2, score             pair_score
    anchor, positive, negative[_2, ...]     triplet
    anchor, positive                        pair
    text or title, label                    labelled_text  titles, pair
    text or title                           titles         pair
    ======================================  =============  ======================

    Rows of a labelled_text file whose label is blank are left out, with a count in the log, and kept for its other
    shapes.

    Args:
        path: a file, or a folder with ``train.*`` and perhaps ``dev.*``.
        dev_path: the dev file, if it lies elsewhere.
        dev_fraction: without a dev file, the share of the rows that is held out. Rows with the same first text stay
            together, and labelled texts are held out evenly over the labels.
        columns: the file's column for a shape's column where the names differ, such as ``{"premise": "text_a"}``, or
            several of which the first that is there counts; None is the same name. Columns for a second shape (a label
            and a score) give that too.
        score_range: lowest and highest score of the file. [-1, 1] is kept, any other is mapped to [0, 1].
        labels: the allowed labels; None means entailment, neutral, contradiction for pair_class (or 0, 1, 2 in that
            order) and anything for labelled_text. A mapping, such as ``{"0": "different", "1": "same", "-": None}``,
            gives the file's labels their names; the rows of one mapped to None are left out.
        seed: of the held-out rows.
        on_bad_row: ``stop`` at the first one, or ``skip`` them and go on; see ``rejected``.
        pair_label: of a pair_class file, the label of the rows that are also an anchor and its positive.
        reverse: of triplets for training also (positive, anchor, negative), as in SBERT's NLI recipe, version 2.
        split_column: of a lone file, the column that says which split a row belongs to: train, or dev (also valid,
            validation, val, trial), whatever the case; other rows are left out. None: dev rows are held out.
        files: what the files are called in a folder of this set; see ``data_readers.recognise.find_files``.
        on_disk: whether the training file is read into an Arrow file instead of into memory; None decides by its size.
            See ``data_readers.on_disk``.

    Raises:
        UserError: an argument is out of its range. Files are looked at later.
    """

    def __init__(
        self,
        path: str | Path,
        dev_path: str | Path | None = None,
        dev_fraction: float = 0.1,
        columns: Mapping[str, str | None] | None = None,
        score_range: Sequence[float] = (0, 5),
        labels: Sequence[str] | Mapping[str, str | None] | None = None,
        seed: int = 0,
        on_bad_row: str = "stop",
        pair_label: str = "entailment",
        reverse: bool = False,
        split_column: str | None = None,
        files: Mapping[str, Sequence[str]] | None = None,
        on_disk: bool | None = None,
    ) -> None:
        if on_bad_row not in _ON_BAD_ROW:
            raise UserError(f"data.on_bad_row: there is no {on_bad_row!r}; {one_of(_ON_BAD_ROW, on_bad_row)}")
        self._rejected: dict[Path, list[Rejected]] | None = {} if on_bad_row == "skip" else None
        if not 0 < dev_fraction < 1:
            raise UserError(f"data.dev_fraction is {dev_fraction}; give a share between 0 and 1")
        if len(score_range) != 2 or not (all(map(math.isfinite, score_range)) and score_range[0] < score_range[1]):
            raise UserError(f"data.score_range is {list(score_range)}; give the lowest and the highest score, as [0,5]")
        self._path = Path(path).expanduser()
        self._dev_path = None if dev_path is None else Path(dev_path).expanduser()
        self._dev_fraction = dev_fraction
        self._columns = {name: column for name, column in (columns or {}).items() if column is not None}
        self._score_range = (float(score_range[0]), float(score_range[1]))
        if isinstance(labels, str):
            raise UserError(f"data.labels is {labels!r}; give a list, as [same,other], or names, as {{0: no, 1: yes}}")
        self._labels: Sequence[str] | Mapping[str, str | None] | None = None
        if labels is not None:
            self._labels = ({str(label): name for label, name in labels.items()} if isinstance(labels, Mapping)
                            else [str(label) for label in labels])
        self._seed, self._pair_label, self._reverse = seed, pair_label, reverse
        self._split_column, self._names, self._on_disk = split_column, files, on_disk
        self._kept: dict[str, dict[str, Dataset]] = {}  # by shape, what lies on disk

    def shapes(self) -> list[str]:
        """Return the shape of the file, then those that follow from it without loss.

        Raises:
            UserError: the file is missing, or its columns make no shape.
        """
        return list(self._origins(self._files()[0]))

    def rejected(self) -> dict[Path, list[Rejected]]:
        """Return the bad rows that were skipped in each file read so far."""
        return {file: rows for file, rows in (self._rejected or {}).items() if rows}

    def files(self) -> list[Path]:
        """Return the train file and, if there is one, the dev file."""
        train, dev = self._files()
        return [train] if dev is None else [train, dev]

    def read(self, shape: str, split: str) -> Dataset:
        """Return the rows of a split (``train`` or ``dev``) in a shape; see ``data_readers.source.Source``.

        Raises:
            UserError: at the first bad row, with file, line, row and column; or the shape or split can't be given.
        """
        check_request(str(self._path), self.shapes(), shape, split)
        if self._reverse and shape != TRIPLET.name:
            raise UserError(f"data.reverse: is for triplets, and these rows are read as {shape}; leave it out, or use "
                            "a loss that takes triplets")
        train, dev = self._files()
        file = dev if split == "dev" and dev is not None else train
        origins = self._origins(file)
        if shape not in origins:
            raise UserError(f"{dev}: has the columns of {', '.join(origins)}, but {train} those of {shape}")
        own, columns = origins[shape]
        large = on_disk.applies(self._on_disk, self._stored(train))
        if large and file is train:
            if shape not in self._kept:
                self._kept[shape] = self._from_disk(file, own, columns, shape, alone=dev is None)
            return self._kept[shape][split]
        table = self._read(file, own, columns, alone=dev is None, most=on_disk.MOST_DEV if large else None)
        try:
            if dev is None:
                table = self._part(file, table, own, split)
            return to_dataset(self._finished(table, split, own=own, shape=shape), shape)
        except UserError as error:
            raise UserError(f"{file} ({split}): {error}") from None

    def _finished(self, table: Table, split: str, *, own: str, shape: str) -> Table:
        """Return the rows of a split in the shape asked for."""
        table = _derive(table, own, shape, self._pair_label)
        if shape == PAIR_SCORE.name:
            table = table | {"score": self._mapped(table["score"])}
        return derive.reversed_too(table) if self._reverse and split == "train" else table

    def _from_disk(self, file: Path, own: str, columns: dict[str, str], shape: str, *,
                   alone: bool) -> dict[str, Dataset]:
        if own == "pair_class" and shape == TRIPLET.name:
            raise UserError(f"{file}: is too large for triplets to be made of its premises and hypotheses, which may "
                            "lie far apart; use a loss that takes pairs or classes, a file of triplets, or, where "
                            "memory allows, data.on_disk=false")
        rejected = self._rejected_of(file)
        parts: on_disk.HeldOut | on_disk.Named | None = None
        if alone:
            parts = on_disk.HeldOut(self._dev_fraction, self._seed, SHAPES[own].texts[0])
            if self._split_column is not None:
                parts = on_disk.Named(partial(_named, column=self._split_column))
        about = {"own": own, "columns": columns, "alone": alone, "split_column": self._split_column,
                 "dev_fraction": self._dev_fraction, "seed": self._seed, "score_range": self._score_range,
                 "labels": self._labels, "pair_label": self._pair_label, "reverse": self._reverse,
                 "skip": rejected is not None}
        wanted = self._wanted(file, columns, alone=alone)
        return on_disk.kept(
            file, self._stored(file), about, shape,
            lambda: on_disk.tables_of(self._rows(file, list(wanted.values())), lambda rows: self._table(
                file, own, wanted, rejected, lambda *_: rows)),
            parts, partial(self._finished, own=own, shape=shape), rejected)

    def _mapped(self, scores: list[float]) -> list[float]:
        low, high = self._score_range
        return scores if (low, high) == (-1.0, 1.0) else [(score - low) / (high - low) for score in scores]

    def _files(self) -> tuple[Path, Path | None]:
        return find_files(self._path, self._dev_path, self._names)

    def _stored(self, file: Path) -> list[Path]:
        """Return the files that hold the rows of one of ``_files``."""
        return [file]

    def _header(self, file: Path) -> list[str]:
        return header(file)

    def _rows(self, file: Path, columns: Sequence[str]) -> Iterator[Row | BadRow]:
        return read_rows(file, columns)

    def _origins(self, file: Path) -> dict[str, tuple[str, dict[str, str]]]:
        """Return for each shape that a file gives the one it follows from, and that one's columns."""
        found: dict[str, tuple[str, dict[str, str]]] = {}
        for own, columns in shapes_of(file, self._header(file), self._columns).items():
            for shape in (own, *(shape for shape in derive.FOLLOWS.get(own, ()) if self._follows(own, shape))):
                found.setdefault(shape, (own, columns))
        return found

    def _follows(self, own: str, shape: str) -> bool:
        if own != "pair_class":
            return True
        names = self._labels.values() if isinstance(self._labels, Mapping) else self._labels or NLI_LABELS
        return {"triplet": {"entailment", "contradiction"}, "pair": {self._pair_label}}[shape] <= set(names)

    def _read(self, file: Path, own: str, columns: dict[str, str], *, alone: bool, most: int | None) -> Table:
        def rows(path: Path, names: Sequence[str]) -> Iterator[Row | BadRow]:
            found = self._rows(path, names)
            yield from islice(found, most)
            if next(found, None) is not None:
                logger.info("%s: only its first %d rows are used", path, most)

        return self._table(file, own, self._wanted(file, columns, alone=alone), self._rejected_of(file),
                           self._rows if most is None else rows)

    def _rejected_of(self, file: Path) -> list[Rejected] | None:
        """Return the list that takes the file's bad rows; None where the first one stops."""
        if self._rejected is None:
            return None
        self._rejected[file] = []
        return self._rejected[file]

    def _wanted(self, file: Path, columns: dict[str, str], *, alone: bool) -> dict[str, str]:
        if not alone or self._split_column is None:
            return columns
        check_columns(file, self._header(file), [self._split_column])
        return columns | {_SPLIT: self._split_column}

    def _table(self, file: Path, own: str, columns: dict[str, str], rejected: list[Rejected] | None,
               read: Callable[[Path, Sequence[str]], Iterator[Row | BadRow]]) -> Table:
        labels = self._labels or (NLI_LABELS if own == "pair_class" else None)
        may_be_empty = ("label",) if own == "labelled_text" else ()
        return read_table(file, columns, score_range=self._score_range, labels=labels, may_be_empty=may_be_empty,
                          rejected=rejected, read=read)

    def _part(self, file: Path, table: Table, own: str, split: str) -> Table:
        """Return the part of a lone file that is train, or the part that is dev: said so by a column, or held out."""
        if self._split_column is not None:
            return _named(table, split, self._split_column)
        keys = [normalise(text) for text in table[SHAPES[own].texts[0]]]
        strata = table["label"] if own == "labelled_text" else None
        train, dev = hold_out(keys, self._dev_fraction, self._seed, strata)
        if split == "train":
            return rows_at(table, train)
        logger.info("%s: no dev file; %d of %d rows are held out for dev (seed %d)", file, len(dev), len(keys),
                    self._seed)
        return rows_at(table, dev)


def _named(table: Table, split: str, column: str) -> Table:
    """Return the rows whose split column says that they are of a split."""
    names = TRAIN_NAMES if split == "train" else DEV_NAMES
    kept = [position for position, name in enumerate(table[_SPLIT]) if name.lower() in names]
    if not kept:
        raise NoRows(f"column {column}: no row is {' or '.join(names)}; it holds "
                        f"{', '.join(sorted(set(table[_SPLIT]))[:10])}")
    return rows_at(table, kept)


def _derive(table: Table, own: str, shape: str, pair_label: str) -> Table:
    """Return a table in the shape asked for, which is the own one or follows from it."""
    if own == "pair_class" and shape != own:
        return derive.triplets(table) if shape == "triplet" else derive.pairs(table, pair_label)
    if own == "labelled_text":
        if shape == own:
            return _labelled(table)
        table = derive.titles(table)
    return derive.self_pairs(table) if shape == "pair" and own != "pair" else table


def _labelled(table: Table) -> Table:
    """Leave out the rows without a label, and say how many."""
    kept = [position for position, label in enumerate(table["label"]) if label.strip()]
    if not kept:
        raise NoRows("column label: every label is empty; use a loss that takes titles or pairs")
    if len(kept) < len(table[ROW]):
        logger.info("%d of %d rows have no label and are left out", len(table[ROW]) - len(kept), len(table[ROW]))
    return rows_at(table, kept)
