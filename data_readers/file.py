"""Read your own training data: a file, or a folder with train and dev files, of any of the six shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from sentence_forge.data_readers.formats.files import file_of, open_rows
from sentence_forge.data_readers.formats.reading import Reading
from sentence_forge.data_readers.formats.rows import RowFile
from sentence_forge.data_readers.recognise import find_files
from sentence_forge.data_readers.retrieval import judged_folder
from sentence_forge.data_readers.row_source import RowSource


@dataclass(eq=False, repr=False)
class FileSource(RowSource):
    """Rows of a file (csv, tsv, txt, jsonl, json, parquet, xlsx; see ``formats.files``), recognised by its columns.

    | columns | own shape | also gives |
    |---|---|---|
    | premise, hypothesis, label | pair_class | triplet, pair |
    | sentence1, sentence2, score | pair_score | |
    | anchor, positive, negative[_2, ...] | triplet | |
    | anchor, positive | pair | |
    | text or title, label | labelled_text | titles, pair |
    | text or title | titles | pair |

    Rows of a labelled_text file whose label is blank are left out, with a count in the log, and kept for its other
    shapes. Further arguments are those of `RowSource`.

    Args:
        path: a file, a folder with ``train.*`` and perhaps ``dev.*``, a folder of corpus, queries and qrels (see
            ``retrieval.Judged``), or ``-`` for the standard input.
        dev_path: the dev file, if it lies elsewhere.
        files: what the files are called in a folder of this set; see ``data_readers.recognise.find_files``.
        encoding: of text files; None detects it, see ``formats.encoding``.
        separator: of the cells, where it is detected wrongly: a character, or comma, semicolon, tab, pipe.
        sheet: of a workbook; None is the first.
        header: names for the columns of a file that has none.

    Raises:
        UserError: an argument is out of its range. Files are looked at later.
    """

    path: str | Path
    dev_path: str | Path | None = None
    _: KW_ONLY
    files: Mapping[str, Sequence[str]] | None = None
    encoding: str | None = None
    separator: str | None = None
    sheet: str | None = None
    header: Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._path, self._dev_path = file_of(self.path), None if self.dev_path is None else file_of(self.dev_path)
        self._reading = Reading(self.encoding, self.separator, self.sheet, self.header, key="data")

    @property
    def name(self) -> str:
        """The path, for errors."""
        return str(self._path)

    def open(self) -> tuple[RowFile, RowFile | None]:
        """Open the train file and, if there is one, the dev file; reads their headers."""
        judged = judged_folder(self._path, self._reading) if self._path.is_dir() else None
        if judged is not None:
            return judged
        train, dev = find_files(self._path, self._dev_path, self.files)
        return open_rows(train, self._reading), None if dev is None else open_rows(dev, self._reading)
