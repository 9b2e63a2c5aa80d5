"""Find the file of a task's rows: in the data folder, at a path, or in the sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sentence_forge.data_readers.sample import sample_path
from sentence_forge.eval.schema import DataFile
from sentence_forge.eval.tasks.base import FEWEST, Task, TaskRows
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import sha256_file

_ENDINGS = (".csv.gz", ".csv", ".tsv.gz", ".tsv", ".jsonl.gz", ".jsonl", ".parquet")


@dataclass(kw_only=True)
class FileTask(Task, ABC):
    """A task over a file; one of ``folder``, ``path`` and ``sample`` says which.

    Args:
        folder: where the file lies in the data folder, ``<data_dir>/<folder>/<split>`` with an ending.
        split: the file's name without its ending.
        path: a file anywhere.
        sample: a language of the sample.
        label: the task's name in headings.
    """

    folder: str | None = None
    split: str = "test"
    path: str | None = None
    sample: str | None = None
    label: str | None = None
    sample_file: ClassVar[str] = ""  # of the sample; empty where it has none for the task

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.folder, self.path, self.sample)) != 1:
            raise UserError("a task needs one of folder= (in data_dir=), path= (a file; with suite=file that is "
                            "file=) and sample=")
        if self.sample is not None and not self.sample_file:
            raise UserError(f"sample={self.sample}: the sample holds no rows for {type(self).__name__}; give path=")

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

    def existing_file(self, data_dir: Path | None) -> Path:
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
    def read(self, data_dir: Path | None) -> TaskRows:
        """Return the file's rows."""

    def source(self, path: Path) -> DataFile:
        """Return a file's name for reports, without where on this machine the data folder lies, and its hash."""
        if self.sample is not None:
            name = self.where(None)
        elif self.path is not None:
            name = path.name if path.is_absolute() else Path(self.path).as_posix()
        else:
            name = f"{self.folder}/{path.name}"
        return DataFile(path=name, sha256=sha256_file(path))


def check_enough(path: Path, count: int, what: str, needs: str) -> None:
    """Refuse a file with too few rows.

    Raises:
        UserError: it has fewer than ``FEWEST``.
    """
    if count < FEWEST:
        raise UserError(f"{path}: has {count} {what}; {needs} needs at least {FEWEST}")
