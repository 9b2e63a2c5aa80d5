"""Where a task's rows come from: a file in the data folder, a file anywhere, or the sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sentence_forge.data_readers.delimited import read_rows
from sentence_forge.data_readers.rows import BadRow, place
from sentence_forge.data_readers.sample import sample_path
from sentence_forge.runtime.errors import UserError

_ENDINGS = (".csv.gz", ".csv", ".tsv.gz", ".tsv", ".jsonl.gz", ".jsonl", ".parquet")


class FileTask(ABC):
    """What every task over a file shares; one of ``folder``, ``path`` and ``sample`` says which file.

    Args:
        folder: where the file lies in the data folder, ``<data_dir>/<folder>/<split>`` with an ending.
        split: the file's name without its ending.
        path: a file anywhere.
        sample: a language of the sample.
        sample_file: which of the sample's files.
        label: what a report's heading calls the task.
    """

    def __init__(self, *, folder: str | None, split: str, path: str | None, sample: str | None, sample_file: str,
                 label: str | None) -> None:
        if sum(value is not None for value in (folder, path, sample)) != 1:
            raise UserError("a task needs one of folder= (in data_dir=), path= (a file; with suite=file that is "
                            "file=) and sample=")
        self.folder, self.split, self.path, self.sample, self.label = folder, split, path, sample, label
        self.sample_file = sample_file

    def where(self, data_dir: Path | None) -> str:
        """Say which file is meant, found or not."""
        if self.sample is not None:
            return f"sample/{self.sample}/{self.sample_file}.csv"
        return self.path or f"{data_dir or '<data_dir>'}/{self.folder}/{self.split}.csv.gz"

    def locate(self, data_dir: Path | None) -> Path | None:
        """Return the file, or None where the data folder has none.

        Raises:
            UserError: ``path`` was given and there is no such file, or no sample in the language.
        """
        if self.sample is not None:
            return sample_path(self.sample, self.sample_file)
        if self.path is not None:
            path = Path(self.path).expanduser()
            if not path.is_file():
                raise UserError(f"{self.path}: no such file; give a file of rows to evaluate on")
            return path
        if data_dir is None:
            return None
        stem = data_dir / str(self.folder)
        return next((path for end in _ENDINGS if (path := stem / f"{self.split}{end}").is_file()), None)

    def found(self, data_dir: Path | None) -> Path:
        """Return the file.

        Raises:
            UserError: as ``locate``, or the data folder has none.
        """
        path = self.locate(data_dir)
        if path is None:
            raise UserError(f"{self.where(data_dir)}: no such file; set data_dir= or SENTENCE_FORGE_DATA to the folder "
                            f"that holds {self.folder}/")
        return path

    @abstractmethod
    def read(self, data_dir: Path | None) -> Any:  # noqa: ANN401 - eval.tasks.TaskRows, of the task's own kind
        """Return the file's rows."""

    def shown(self, path: Path) -> str:
        """Return what a report calls the file: nothing of where on this machine the data folder lies."""
        if self.sample is not None:
            return self.where(None)
        if self.path is not None:
            return path.name if path.is_absolute() else Path(self.path).as_posix()
        return f"{self.folder}/{path.name}"


def strict_rows(path: Path, columns: Sequence[str], filled: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield where each row stands, for errors, and its cells of ``columns``.

    Raises:
        UserError: a row is malformed, or a cell of a column in ``filled`` is blank.
    """
    positions = [columns.index(column) for column in filled]
    for row in read_rows(path, columns):
        if isinstance(row, BadRow):
            raise UserError(f"{place(path, row.line, row.number)}: {row.reason}")
        for position in positions:
            if not row.values[position].strip():
                raise UserError(f"{place(path, row.line, row.number, columns[position])}: is empty; fill it or remove "
                                "the row")
        yield place(path, row.line, row.number), row.values
