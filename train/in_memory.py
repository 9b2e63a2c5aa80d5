"""Write rows given from Python to a Parquet file in the run's folder, from where a resumed run reads them again."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    import pyarrow as pa

Table: TypeAlias = Union["pa.Table", "pd.DataFrame", "datasets.Dataset", Sequence[Mapping[str, Any]]]
Rows: TypeAlias = Table | Mapping[str, Table]
_TABLES = {("pyarrow", "Table"), ("pandas", "DataFrame"), ("datasets", "Dataset")}
_SPLITS = {"train": "train", "dev": "dev", "validation": "dev"}


def is_rows(data: Any) -> bool:  # noqa: ANN401 - whatever a caller gives
    """Whether data are rows in memory, rather than a path, a name or keys of a config.

    >>> is_rows([{"title": "a"}]), is_rows({"train": [{"title": "a"}]}), is_rows("pairs.csv"), is_rows({"path": "x"})
    (True, True, False, False)
    """
    if isinstance(data, Mapping):
        return bool(data) and all(is_rows(each) for each in data.values())
    return _kind(data) in _TABLES or (isinstance(data, Sequence) and not isinstance(data, str | bytes))


def write_rows(rows: Rows, folder: Path) -> Path:
    """Write rows to Parquet, and return the path for ``data.path``.

    Args:
        rows: of one table; or of ``train`` and ``dev`` (also called ``validation``), one table each.
        folder: made for them.

    Raises:
        UserError: there are none, they have different columns, or a column holds values of different types.
    """
    import pyarrow.parquet as pq

    from sentence_forge.runtime.files import make_folder

    if isinstance(rows, Mapping):
        if unknown := [name for name in rows if name not in _SPLITS]:
            raise UserError(f"data: there is no split {unknown[0]!r}; give train and dev")
        tables = {_SPLITS[name]: _table(each, f"data[{name!r}]") for name, each in rows.items()}
    else:
        tables = {"rows": _table(rows, "data")}
    make_folder(folder)
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return folder.absolute() if isinstance(rows, Mapping) else folder.absolute() / "rows.parquet"


@contextlib.contextmanager
def naming_rows_of(rows: Rows, folder: Path) -> Iterator[None]:
    """Let errors about the files of ``write_rows`` name the rows as the caller knows them: ``data: row 4, ...``."""
    splits = rows if isinstance(rows, Mapping) else {}
    names = {_SPLITS.get(name, name): f"data[{name!r}]" for name in splits} or {"rows": "data"}
    try:
        yield
    except UserError as error:
        said = str(error)
        for stem, name in names.items():
            file = re.escape(str(folder.absolute() / f"{stem}.parquet"))
            said = re.sub(rf"{file}, line \d+ \((row \d+)\):? (?=column )", rf"{name}: \1, ", said)
            said = re.sub(rf"{file}, line \d+ \((row \d+)\)", rf"{name}: \1", said)
            said = re.sub(file, name, said)
        raise UserError(said.replace("is null, not a string or number", "is empty")) from None


def _table(rows: Table, name: str) -> pa.Table:
    import pyarrow as pa

    kind = _kind(rows)
    try:
        if kind == ("datasets", "Dataset"):
            table = _named_classes(rows)
        elif kind == ("pandas", "DataFrame"):
            table = pa.Table.from_pandas(rows, preserve_index=False)
        elif kind == ("pyarrow", "Table"):
            table = rows
        else:
            table = _of_mappings(rows, name)
    except pa.ArrowException as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"{name}: the rows make no table ({first}); give each column values of one type") from None
    if not len(table):
        raise UserError(f"{name}: has no rows")
    return table


def _of_mappings(rows: Sequence[Mapping[str, Any]], name: str) -> pa.Table:
    import pyarrow as pa

    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise UserError(f"{name}: row {number} is a {type(row).__name__}; give mappings of columns to values")
        if differ := set(row) ^ set(rows[0]):
            raise UserError(f"{name}: row {number} has other columns than row 1: {', '.join(sorted(map(str, differ)))}")
    return pa.table({key: [row[key] for row in rows] for key in rows[0]}) if rows else pa.table({})


def _named_classes(dataset: Any) -> pa.Table:  # noqa: ANN401 - a datasets.Dataset
    """Return a dataset's table, numbers of classes as the classes' names."""
    import pyarrow as pa
    from datasets import ClassLabel

    table = dataset.with_format("arrow")[:]
    for name, feature in dataset.features.items():
        if isinstance(feature, ClassLabel):
            names = [None if number is None or number < 0 else feature.names[number]
                     for number in table[name].to_pylist()]
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(names, pa.string()))
    return table


def _kind(data: object) -> tuple[str, str]:
    """Return the package and the name of a value's class; compared as names so that no package is imported."""
    return type(data).__module__.partition(".")[0], type(data).__name__
