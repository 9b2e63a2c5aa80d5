"""A data set of the hub, or a local folder in the hub's layout, read through ``datasets``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sentence_forge.data_readers.file import FileSource
from sentence_forge.data_readers.parquet import BATCH, check_types, rows_of
from sentence_forge.data_readers.recognise import DEV_NAMES, TRAIN_NAMES
from sentence_forge.data_readers.rows import BadRow, Row
from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_TRUE = {"1", "ON", "YES", "TRUE"}


class Unreadable(UserError):
    """A data set that ``datasets`` can't read."""


class HubSource(FileSource):
    """Rows of a data set of the hub, recognised by their columns as ``FileSource`` does.

    What the set declares as a class label comes by its name. Of its splits those called train and dev (valid,
    validation, val, trial) are read; without a dev split rows are held out. It is fetched once and then lies in the
    cache of ``datasets``; with HF_HUB_OFFLINE set nothing is fetched. The set's own code is never run.

    Args:
        path: ``owner/name`` of the hub, or a folder in the hub's layout.
        subset: its configuration, where it has several.
        revision: a commit, tag or branch; None is the newest.
        dev_fraction: see ``FileSource``, as for all that follows.
        columns: see there.
        score_range: see there.
        labels: see there.
        seed: see there.
        on_bad_row: see there.
        pair_label: see there.
        reverse: see there.
        on_disk: see there.
    """

    def __init__(
        self,
        path: str | Path,
        subset: str | None = None,
        revision: str | None = None,
        dev_fraction: float = 0.1,
        columns: Mapping[str, str | None] | None = None,
        score_range: Sequence[float] = (0, 1),
        labels: Sequence[str] | Mapping[str, str | None] | None = None,
        seed: int = 0,
        on_bad_row: str = "stop",
        pair_label: str = "entailment",
        reverse: bool = False,
        on_disk: bool | None = None,
    ) -> None:
        super().__init__(path, dev_fraction=dev_fraction, columns=columns, score_range=score_range, labels=labels,
                         seed=seed, on_bad_row=on_bad_row, pair_label=pair_label, reverse=reverse, on_disk=on_disk)
        self._subset, self._revision = subset, revision
        self._loaded: DatasetDict | None = None

    def files(self) -> list[Path]:
        """Return the files that ``datasets`` keeps of the splits that are read."""
        return [file for name in self._files() if name is not None for file in self._stored(name)]

    def _stored(self, file: Path) -> list[Path]:
        return [Path(part["filename"]) for part in self._split(file).cache_files]

    def _files(self) -> tuple[Path, Path | None]:
        """Return a name for each split, as errors call it: ``owner/name/subset/train``."""
        splits = self._splits()
        name = Path(str(self._path), *([self._subset] if self._subset else []))
        train, dev = (next((split for split in names if split in splits), None) for names in (TRAIN_NAMES, DEV_NAMES))
        if train is None:
            raise UserError(f"{name}: has no split train; it has {', '.join(splits)}")
        return name / train, None if dev is None else name / dev

    def _header(self, file: Path) -> list[str]:
        return self._split(file).column_names

    def _rows(self, file: Path, columns: Sequence[str]) -> Iterator[Row | BadRow]:
        split = self._split(file).select_columns(list(columns))
        check_types(file, split.data.schema, columns)
        classes = {position: list(split.features[column].names) for position, column in enumerate(columns)
                   if hasattr(split.features[column], "names")}
        for row in rows_of(split.data.to_batches(BATCH), columns):
            if isinstance(row, Row):
                for position, names in classes.items():
                    number = int(row.values[position])
                    row.values[position] = names[number] if 0 <= number < len(names) else "-"  # -1 is unlabelled
            yield row

    def _split(self, file: Path) -> Dataset:
        return self._splits()[file.name]

    def _splits(self) -> DatasetDict:
        if self._loaded is None:
            self._loaded = _load(str(self._path), self._subset, self._revision)
        return self._loaded


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
    """Return the subsets of a data set that has several and none by default, as far as they can be told."""
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
