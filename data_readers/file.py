"""Read your own training data: a file, or a folder with train and dev files, of any of the six shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sentence_forge.data_readers.formats.files import file_of, open_rows
from sentence_forge.data_readers.formats.reading import Reading
from sentence_forge.data_readers.formats.rows import RowFile
from sentence_forge.data_readers.recognise import find_files
from sentence_forge.data_readers.retrieval import expanded, judged_folder
from sentence_forge.data_readers.row_source import RowSource


@dataclass
class LocalFiles:
    """The train and dev files that a path means; see ``FileSource`` for the fields and ``row_source.Files``."""

    path: Path
    dev_path: Path | None
    names: Mapping[str, Sequence[str]] | None
    reading: Reading
    columns: dict[str, str]
    negatives: int

    @property
    def name(self) -> str:
        """The path, for errors."""
        return str(self.path)

    def open(self) -> tuple[RowFile, RowFile | None]:
        """Return the train and the dev file, whose headers are read once."""
        return self._opened

    @cached_property
    def _opened(self) -> tuple[RowFile, RowFile | None]:
        found = judged_folder(self.path, self.reading) if self.path.is_dir() else None
        if found is None:
            train, dev = find_files(self.path, self.dev_path, self.names)
            found = open_rows(train, self.reading), None if dev is None else open_rows(dev, self.reading)
        lists = (None if file is None else expanded(file, self.columns, self.negatives) for file in found)
        return tuple(lists)  # type: ignore[return-value]


class FileSource(RowSource):
    """Rows of a file (csv, tsv, txt, jsonl, json, parquet, xlsx; see ``formats.files``), recognised by its columns.

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
        path: a file, a folder with ``train.*`` and perhaps ``dev.*``, a folder of corpus, queries and qrels (see
            ``retrieval.Judged``), or ``-`` for the standard input.
        dev_path: the dev file, if it lies elsewhere.
        dev_fraction: without a dev file, the share of the rows that is held out. Rows with the same first text stay
            together, and labelled texts are held out evenly over the labels.
        columns: the file's column for a shape's column where the names differ, such as ``{"premise": "text_a"}``, or
            several of which the first that is there counts; None is the same name. Columns for a second shape (a label
            and a score) give that too.
        score_range: lowest and highest score of the file; None finds out, see ``score_range.range_of``. [-1, 1] is
            kept, any other is mapped to [0, 1].
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
        negatives: of each row, where a file has lists of them; 0 takes pairs alone.
        encoding: of text files; None finds out, see ``formats.encoding``.
        separator: of the cells, where it isn't found by itself: a character, or comma, semicolon, tab, pipe.
        sheet: of a workbook; None is the first.
        header: names for the columns of a file that has none.

    Raises:
        UserError: an argument is out of its range. Files are looked at later.
    """

    def __init__(
        self,
        path: str | Path,
        dev_path: str | Path | None = None,
        dev_fraction: float = 0.1,
        columns: Mapping[str, str | None] | None = None,
        score_range: Sequence[float] | None = None,
        labels: Sequence[str] | Mapping[str, str | None] | None = None,
        seed: int = 0,
        on_bad_row: str = "stop",
        pair_label: str = "entailment",
        reverse: bool = False,
        split_column: str | None = None,
        files: Mapping[str, Sequence[str]] | None = None,
        on_disk: bool | None = None,
        negatives: int = 1,
        encoding: str | None = None,
        separator: str | None = None,
        sheet: str | None = None,
        header: Sequence[str] | None = None,
    ) -> None:
        named = {name: column for name, column in (columns or {}).items() if isinstance(column, str)}
        origin = LocalFiles(file_of(path), None if dev_path is None else file_of(dev_path), files,
                            Reading(encoding, separator, sheet, header, key="data"), named, negatives)
        super().__init__(origin, dev_fraction=dev_fraction, columns=columns, score_range=score_range, labels=labels,
                         seed=seed, on_bad_row=on_bad_row, pair_label=pair_label, reverse=reverse, on_disk=on_disk,
                         split_column=split_column)
