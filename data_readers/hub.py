"""Read a data set of the Hugging Face hub, or a local folder in the hub's layout, by ``datasets``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sentence_forge.data_readers.formats.parquet import BATCH, check_types, list_columns, rows_of
from sentence_forge.data_readers.formats.rows import BadRow, Row, RowFile
from sentence_forge.data_readers.recognise import DEV_NAMES, TRAIN_NAMES
from sentence_forge.data_readers.row_source import RowSource
from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_TRUE = {"1", "ON", "YES", "TRUE"}


class Unreadable(UserError):
    """A data set that ``datasets`` can't read."""


class HubSplit(RowFile):
    """A split of a data set that ``datasets`` has loaded."""

    def __init__(self, path: Path, split: Dataset) -> None:
        super().__init__(path, [Path(part["filename"]) for part in split.cache_files])
        self._split, self.columns, self.lists = split, split.column_names, list_columns(split.data.schema)

    def rows(self, columns: Sequence[str]) -> Iterator[Row | BadRow]:
        """Yield the rows; what the set declares as a class label comes by its name, - where it has none."""
        split = self._split.select_columns(list(columns))
        check_types(self.path, split.data.schema, columns)
        classes = {position: list(feature.names) for position, column in enumerate(columns)
                   if hasattr(feature := split.features[column], "names")}
        for row in rows_of(split.data.to_batches(BATCH), columns):
            if isinstance(row, Row):
                for position, names in classes.items():
                    number = int(row.values[position])
                    row.values[position] = names[number] if 0 <= number < len(names) else "-"  # -1 is unlabelled
            yield row


@dataclass(eq=False, repr=False)
class HubSource(RowSource):
    """Rows of a data set of the hub, recognised by their columns as those of a file are.

    Of its splits those called train and dev (valid, validation, val, trial) are read; without a dev split rows are held
    out. It is fetched once and then lies in the cache of ``datasets``; with HF_HUB_OFFLINE set nothing is fetched. The
    set's own code is never run. Further arguments are those of `RowSource`.

    Args:
        path: ``owner/name`` of the hub, or a folder in the hub's layout.
        subset: its configuration, where it has several.
        revision: a commit, tag or branch; None is the newest.
    """

    path: str | Path
    subset: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        """The name of the data set, for errors."""
        return str(Path(self.path).expanduser())

    def open(self) -> tuple[RowFile, RowFile | None]:
        """Open the train and the dev split, which errors call ``owner/name/subset/train``."""
        splits = _load(self.name, self.subset, self.revision)
        name = Path(self.name, *([self.subset] if self.subset else []))
        train, dev = (next((split for split in names if split in splits), None) for names in (TRAIN_NAMES, DEV_NAMES))
        if train is None:
            raise UserError(f"{name}: has no split train; it has {', '.join(splits)}")
        return HubSplit(name / train, splits[train]), None if dev is None else HubSplit(name / dev, splits[dev])


def _load(path: str, subset: str | None, revision: str | None) -> DatasetDict:
    if not Path(path).is_dir():
        refuse_if_unreachable(path)
    from datasets import load_dataset

    try:
        return load_dataset(path, subset, revision=revision)
    except Exception as error:  # of many kinds, from as many libraries; what they say is what there is to say
        if subset is None and (subsets := _subsets(path, revision)):
            raise Unreadable(f"{path}: has several subsets, so data.subset= is needed; there are: {', '.join(subsets)}"
                             ) from None
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise Unreadable(f"{path}: can't be read through datasets ({said})") from None


def _subsets(path: str, revision: str | None) -> list[str]:
    """Return the subsets of a data set that has several and none by default, where ``datasets`` can list them."""
    from datasets import get_dataset_config_names, get_dataset_default_config_name

    try:
        default = get_dataset_default_config_name(path, revision=revision)
        return [] if default is not None else get_dataset_config_names(path, revision=revision)
    except Exception:  # the error that led here is the one to tell
        return []


def refuse_if_unreachable(name: str) -> None:
    """Refuse a data set of the hub that is not in the cache of ``datasets`` when nothing may be fetched.

    Raises:
        UserError: says so, before anything heavy is imported.
    """
    offline = {os.environ.get(key, "").upper() for key in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")} & _TRUE
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets").expanduser()
    if offline and not (cache / name.replace("/", "___")).is_dir():
        raise UserError(f"{name}: is not in the cache of datasets, and HF_HUB_OFFLINE forbids to fetch it; unset that")
