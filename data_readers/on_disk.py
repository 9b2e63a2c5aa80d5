"""Read training rows from files larger than memory: once, in blocks, into an Arrow file that is then memory-mapped.

The Arrow file is kept in the cache (see ``runtime.cache``), so another run on the same file, or a resumed one, does not
read it again. Without a dev file the dev rows are those whose first text hashes lowest, so one pass decides.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.data_readers.checks import normalise
from sentence_forge.data_readers.formats.packed import PACKINGS
from sentence_forge.data_readers.formats.rows import BadRow, Row
from sentence_forge.data_readers.table import ROW, NoRows, Table, features, rows_at
from sentence_forge.runtime.cache import ROOT, cached
from sentence_forge.runtime.disk import size
from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

FROM = 1 << 30
"""Bytes from which on a file is read this way by default; those of packed files count four times."""

MOST_DEV = 10_000
"""Dev rows: they are held in memory and encoded at each evaluation."""

_BLOCK = 4096  # rows
_FORM = 3  # of the files that are kept: those of another one are made anew


def applies(wanted: bool | None, files: Sequence[Path]) -> bool:
    """Whether the training rows in ``files`` are to be read this way; where ``wanted`` is None their size decides."""
    if wanted is not None or not all(file.is_file() for file in files):
        return bool(wanted) and all(file.is_file() for file in files)
    packed = (*PACKINGS, ".parquet", ".xlsx")
    return sum(file.stat().st_size * (4 if file.suffix in packed else 1) for file in files) > FROM


def tables_of(rows: Iterable[Row | BadRow], parse: Callable[[Iterator[Row | BadRow]], Table]) -> Iterator[Table]:
    """Yield the rows as tables of a block each, as ``parse`` makes them of rows; one that is left empty is passed over.

    What ``parse`` logs, it logs for the first block alone.
    """
    left, logged = iter(rows), False
    while block := list(islice(left, _BLOCK)):
        try:
            with quiet(logged):
                table = parse(iter(block))
        except NoRows:
            continue
        logged = True
        yield table


@contextlib.contextmanager
def quiet(quiet: bool) -> Iterator[None]:
    """Log nothing but errors about reading data, if ``quiet``: what is read again was logged before."""
    readers = logging.getLogger(__package__)
    level = readers.level
    try:
        if quiet:
            readers.setLevel(logging.ERROR)
        yield
    finally:
        readers.setLevel(level)


def first_rows(rows: Iterator[Row | BadRow], path: Path) -> Iterator[Row | BadRow]:
    """Yield the first ``MOST_DEV`` rows of a dev file, and log it if there are more."""
    yield from islice(rows, MOST_DEV)
    if next(rows, None) is not None:
        logger.info("%s: only its first %d rows are used", path, MOST_DEV)


class HeldOut:
    """Takes the dev rows out of a stream of rows: a share by the hash of the first text, but ``MOST_DEV`` at most.

    Rows with the same first text stay together, and a row that is not kept for dev is a train row.

    Args:
        fraction: share for dev.
        seed: of the hash.
        text: the first text's column.
    """

    def __init__(self, fraction: float, seed: int, text: str) -> None:
        self._limit, self._seed, self._text = fraction * 2.0**64, seed, text
        self.dev: Table = {}
        self._keys: list[int] = []

    def train_of(self, table: Table) -> Table:
        """Return the block's train rows, with those that were kept for dev and now are too many."""
        keys = [self._key(text) for text in table[self._text]]
        taken = [position for position, key in enumerate(keys) if key < self._limit]
        train = rows_at(table, [position for position, key in enumerate(keys) if key >= self._limit])
        both = {name: [*self.dev.get(name, []), *cells] for name, cells in rows_at(table, taken).items()}
        self._keys += [keys[position] for position in taken]
        if len(self._keys) > MOST_DEV:
            self._limit = sorted(self._keys)[MOST_DEV]
            again = rows_at(both, [place for place, key in enumerate(self._keys) if key >= self._limit])
            train = {name: [*cells, *again[name]] for name, cells in train.items()}
            both = rows_at(both, [place for place, key in enumerate(self._keys) if key < self._limit])
            self._keys = [key for key in self._keys if key < self._limit]
        self.dev = both
        return train

    def _key(self, text: str) -> int:
        spelled = f"{self._seed} {normalise(text)}".encode()
        return int.from_bytes(hashlib.blake2b(spelled, digest_size=8).digest(), "little")


class Named:
    """Divides a stream of rows into train and dev by a column that names it; keeps the first ``MOST_DEV`` of dev.

    Args:
        part: gives a table's rows of a split, or raises ``NoRows``.
    """

    def __init__(self, part: Callable[[Table, str], Table]) -> None:
        self._part = part
        self.dev: Table = {}

    def train_of(self, table: Table) -> Table:
        """Return the block's train rows."""
        found = {}
        for split in ("train", "dev"):
            try:
                found[split] = self._part(table, split)
            except NoRows:
                found[split] = rows_at(table, [])
        self.dev = {name: [*self.dev.get(name, []), *cells][:MOST_DEV] for name, cells in found["dev"].items()}
        return found["train"]


def kept(file: Path, files: Sequence[Path], about: Mapping[str, Any], shape: str, tables: Callable[[], Iterator[Table]],
         parts: HeldOut | Named | None, finish: Callable[[Table, str], Table],
         rejected: list[BadRow] | None) -> dict[str, Dataset]:
    """Return the rows of a file from an Arrow file in the cache, which is written first if it isn't there.

    Args:
        file: where the rows come from, as errors call it.
        files: that hold them.
        about: everything besides the files that decides what the rows are, JSON-ready.
        shape: of the rows that are returned.
        tables: reads the file.
        parts: takes out the dev rows; None where they lie elsewhere.
        finish: makes of a table of a split one of ``shape``, or raises ``NoRows``.
        rejected: takes the rows that were left out.

    Returns:
        ``train``, memory-mapped, and with ``parts`` ``dev``, in memory.

    Raises:
        UserError: no row is left for a split; the folder can't be written.
    """
    from datasets import Dataset

    def make(folder: Path) -> dict[str, Any]:
        logger.info("%s (%s): is read from disk, not into memory; the first time its rows are written below %s", file,
                    size(sum(stat.st_size for stat in stats)), folder.parent)
        count = _write(folder / "train.arrow", _finished(tables(), parts, finish), shape)
        if not count:
            raise UserError(f"{file}: has no train rows")
        if parts is not None:
            if not parts.dev or not parts.dev[ROW]:
                raise UserError(f"{file}: no dev row was found in it; give a dev file as data.dev_path=")
            _write(folder / "dev.arrow", iter([finish(parts.dev, "dev")]), shape)
        (folder / "rejected.json").write_text(json.dumps(rejected or []), encoding="utf-8")
        return {"rows": count}

    stats = [each.stat() for each in files]
    decides = [_FORM, *((str(each.resolve()), stat.st_size, stat.st_mtime_ns)
                         for each, stat in zip(files, stats, strict=True)), shape, dict(about)]
    key = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()
    try:
        folder = cached("rows", key, make)
        found = {"train": Dataset.from_file(str(folder / "train.arrow"))}
        if parts is not None:
            found["dev"] = Dataset.from_file(str(folder / "dev.arrow"), in_memory=True)
        if rejected is not None:
            rejected[:] = [BadRow(*row) for row in json.loads((folder / "rejected.json").read_text("utf-8"))]
    except OSError as error:
        raise UserError(f"{file}: its rows can't be kept on disk ({error}); name a folder in {ROOT}") from None
    left_out = f", {len(rejected)} left out" if rejected else ""
    logger.info("%s: %d training rows on disk%s", file, len(found["train"]), left_out)
    return found


def _finished(tables: Iterator[Table], parts: HeldOut | Named | None,
              finish: Callable[[Table, str], Table]) -> Iterator[Table]:
    for table in tables:
        train = table if parts is None else parts.train_of(table)
        try:
            yield finish(train, "train")
        except NoRows:
            continue


def _write(path: Path, tables: Iterator[Table], shape: str) -> int:
    import pyarrow

    first = next((table for table in tables if table[ROW]), None)
    if first is None:
        return 0
    kinds = features(first, shape)
    count = 0
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, kinds.arrow_schema) as writer:
        for table in chain([first], tables):
            cells = {name: table[name] for name in kinds}
            writer.write_batch(pyarrow.RecordBatch.from_pydict(cells, schema=kinds.arrow_schema))
            count += len(table[ROW])
    return count
