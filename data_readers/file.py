"""One's own training data: a file, or a folder with train and dev files, of any of the six shapes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_readers import derive
from data_readers.checks import normalise
from data_readers.delimited import header
from data_readers.recognise import find_files, shape_of
from data_readers.rejected import Rejected
from data_readers.source import check_request
from data_readers.split import hold_out
from data_readers.table import ROW, Table, read_table, rows_at, to_dataset
from runtime.errors import UserError, one_of
from runtime.shapes import NLI_LABELS, PAIR_SCORE, SHAPES

if TYPE_CHECKING:
    from datasets import Dataset

_ON_BAD_ROW = ("stop", "skip")

logger = logging.getLogger(__name__)


class FileSource:
    """Rows of a file (csv, tsv, jsonl, parquet; see :mod:`data_readers.delimited`), recognised by its columns.

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
        columns: the file's column for a shape's column where the names differ, such as ``{"premise": "text_a"}``;
            None is the same name.
        score_range: lowest and highest score of the file. [-1, 1] is kept, any other is mapped to [0, 1].
        labels: the allowed labels; None means entailment, neutral, contradiction for pair_class (or 0, 1, 2 in that
            order) and anything for labelled_text.
        seed: of the held-out rows.
        on_bad_row: ``stop`` at the first one, or ``skip`` them and go on; see ``rejected``.

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
        labels: Sequence[str] | None = None,
        seed: int = 0,
        on_bad_row: str = "stop",
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
        self._labels = None if labels is None else [str(label) for label in labels]
        self._seed = seed

    def shapes(self) -> list[str]:
        """Return the shape of the file, then those that follow from it without loss.

        Raises:
            UserError: the file is missing, or its columns make no shape.
        """
        own, _ = self._recognise(self._files()[0])
        follows = derive.FOLLOWS.get(own, ())
        if own == "pair_class":
            needed = {"triplet": {"entailment", "contradiction"}, "pair": {"entailment"}}
            follows = tuple(shape for shape in follows if needed[shape] <= set(self._labels or NLI_LABELS))
        return [own, *follows]

    def rejected(self) -> dict[Path, list[Rejected]]:
        """Return the bad rows that were skipped in each file read so far."""
        return {file: rows for file, rows in (self._rejected or {}).items() if rows}

    def files(self) -> list[Path]:
        """Return the train file and, if there is one, the dev file."""
        train, dev = self._files()
        return [train] if dev is None else [train, dev]

    def read(self, shape: str, split: str) -> Dataset:
        """Return the rows of a split (``train`` or ``dev``) in a shape; see :class:`data_readers.source.Source`.

        Raises:
            UserError: at the first bad row, with file, line, row and column; or the shape or split can't be given.
        """
        check_request(str(self._path), self.shapes(), shape, split)
        train, dev = self._files()
        file = dev if split == "dev" and dev is not None else train
        own, columns = self._recognise(file)
        if file is dev and own != self._recognise(train)[0]:
            raise UserError(f"{dev}: has the columns of {own}, but {train} those of {self._recognise(train)[0]}")
        table = self._read(file, own, columns)
        try:
            if dev is None:
                table = self._part(file, table, own, split)
            table = _derive(table, own, shape)
        except UserError as error:
            raise UserError(f"{file} ({split}): {error}") from None
        if shape == PAIR_SCORE.name:
            table = table | {"score": self._mapped(table["score"])}
        return to_dataset(table, shape)

    def _mapped(self, scores: list[float]) -> list[float]:
        low, high = self._score_range
        return scores if (low, high) == (-1.0, 1.0) else [(score - low) / (high - low) for score in scores]

    def _files(self) -> tuple[Path, Path | None]:
        return find_files(self._path, self._dev_path)

    def _recognise(self, file: Path) -> tuple[str, dict[str, str]]:
        return shape_of(file, header(file), self._columns)

    def _read(self, file: Path, own: str, columns: dict[str, str]) -> Table:
        labels = self._labels or (NLI_LABELS if own == "pair_class" else None)
        may_be_empty = ("label",) if own == "labelled_text" else ()
        rejected: list[Rejected] | None = None
        if self._rejected is not None:
            rejected = self._rejected[file] = []
        return read_table(file, columns, score_range=self._score_range, labels=labels, may_be_empty=may_be_empty,
                          rejected=rejected)

    def _part(self, file: Path, table: Table, own: str, split: str) -> Table:
        """Return the part of a lone file that is train, or the part that is held out for dev."""
        keys = [normalise(text) for text in table[SHAPES[own].texts[0]]]
        strata = table["label"] if own == "labelled_text" else None
        train, dev = hold_out(keys, self._dev_fraction, self._seed, strata)
        if split == "train":
            return rows_at(table, train)
        logger.info("%s: no dev file; %d of %d rows are held out for dev (seed %d)", file, len(dev), len(keys),
                    self._seed)
        return rows_at(table, dev)


def _derive(table: Table, own: str, shape: str) -> Table:
    """Return a table in the shape asked for, which is the own one or follows from it."""
    if own == "pair_class" and shape != own:
        return derive.triplets(table) if shape == "triplet" else derive.entailments(table)
    if own == "labelled_text":
        if shape == own:
            return _labelled(table)
        table = derive.titles(table)
    return derive.self_pairs(table) if shape == "pair" and own != "pair" else table


def _labelled(table: Table) -> Table:
    """Leave out the rows without a label, and say how many."""
    kept = [position for position, label in enumerate(table["label"]) if label.strip()]
    if not kept:
        raise UserError("column label: every label is empty; use a loss that takes titles or pairs")
    if len(kept) < len(table[ROW]):
        logger.info("%d of %d rows have no label and are left out", len(table[ROW]) - len(kept), len(table[ROW]))
    return rows_at(table, kept)
