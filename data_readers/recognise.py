"""Find the train and dev files that a path means, and recognise by its columns which shape a file's rows have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from sentence_forge.data_readers.formats.files import SUFFIXES
from sentence_forge.data_readers.formats.packed import PACKINGS
from sentence_forge.data_readers.formats.rows import check_columns, looks_like_a_row
from sentence_forge.data_readers.known_columns import say, well_known
from sentence_forge.data_readers.shapes import LABELLED_TEXT, PAIR, PAIR_CLASS, PAIR_SCORE, SHAPES, TITLES, TRIPLET
from sentence_forge.data_readers.table import NoRows, Table, rows_at
from sentence_forge.runtime.errors import UserError, one_of

_MOST_TELLING_FIRST = (PAIR_CLASS, PAIR_SCORE, TRIPLET, PAIR, LABELLED_TEXT, TITLES)
_COLUMNS = tuple(dict.fromkeys(name for shape in _MOST_TELLING_FIRST for name in shape.columns))
SAME = {"text": "title", "title": "text"}
TRAIN_NAMES = ("train",)
DEV_NAMES = ("dev", "valid", "validation", "val", "trial")
"""What a split is called, in the order in which it is looked for."""

SPLIT = "split"
"""A table's column that says which split each row is of."""


Columns = Mapping[str, str | Sequence[str]]


def shapes_of(path: Path, header: Sequence[str], columns: Columns) -> dict[str, dict[str, str]]:
    """Return the shapes that a file's columns make, and for each its columns with the file's column for each.

    The most telling shape wins: premise, hypothesis, label before anchor, positive before a lone title. ``title`` and
    ``text`` stand for each other. Where ``columns`` has more than that shape uses, the next that uses more of them is
    given too (SICK has a label and a score). Where the names make no shape, well-known other ones are understood, in
    English and Chinese (``known_columns``), and a lone column is the title.

    Args:
        path: for errors.
        header: the file's column names.
        columns: for shape columns the file's column where its name is another, or several of which the first that is
            there counts; the shapes must use all of them.

    Raises:
        UserError: an unknown shape column, a file column that is missing, or columns that make no shape.
    """
    fields = {name for shape in SHAPES.values() for name in shape.columns}
    for name in columns:
        if name not in fields and not name.startswith("negative_"):
            raise UserError(f"data.columns.{name}: no such column in any shape; {one_of(fields, name)}")
    chosen = {name: _first(header, column) for name, column in columns.items()}
    check_columns(path, header, list(chosen.values()))
    present = {**{name: name for name in header if name not in chosen}, **chosen}
    if found := _made(present, chosen):
        return found
    left = [name for name in header if name not in chosen.values()]
    known = well_known(left, [name for name in _COLUMNS if name not in present])
    if len(header) == 1 and not chosen and not looks_like_a_row(header):
        known = {"title": header[0]}
    if found := _made(known | present, chosen):
        used = {name for columns in found.values() for name in columns}
        say(path, {name: column for name, column in known.items() if name in used}, "data.columns.<name>=")
        return found
    if looks_like_a_row(header):
        raise UserError(f"{path}: its first line ({', '.join(header)[:80]}) looks like a row and not a header; give "
                        "the columns' names, as data.header=[sentence1,sentence2,score] or data.header=[title]")
    if {"sentence1", "sentence2"} <= known.keys() | present.keys() and "label" in header:
        raise UserError(f"{path}: is its column label a class or a score? Give data.columns.score=label for a score, "
                        "such as 0 and 1, or else data.columns.premise=sentence1 data.columns.hypothesis=sentence2 "
                        "data.columns.label=label")
    shapes = "; ".join(", ".join(shape.columns) for shape in _MOST_TELLING_FIRST)
    raise UserError(f"{path}: its columns ({', '.join(header)}) make no known shape ({shapes}); say which is which, as "
                    "data.columns.premise=<column> data.columns.hypothesis=<column> data.columns.label=<column>")


def _made(present: Mapping[str, str], chosen: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the shapes that the columns ``present`` make and that use all those ``chosen``; none if that can't be."""
    left, found = set(chosen), {}  # which of the given columns no shape has used yet
    present = {**{name: present[same] for name, same in SAME.items() if same in present}, **present}
    for shape in _MOST_TELLING_FIRST:
        names = [*shape.text_columns(list(present)), *([shape.label] if shape.label else [])]
        uses = {name for name in left
                if name in names or (SAME.get(name) in names and present[SAME[name]] == chosen[name])}
        if all(name in present for name in names) and (uses or not chosen):
            found[shape.name] = {name: present[name] for name in names}
            left -= uses
            if not left:
                return found
    return {}


def _first(header: Sequence[str], column: str | Sequence[str]) -> str:
    names = [column] if isinstance(column, str) else list(column)
    return next((name for name in names if name in header), names[0])


def find_files(path: Path, dev_path: Path | None = None, files: Mapping[str, Sequence[str]] | None = None
               ) -> tuple[Path, Path | None]:
    """Return the train file and the dev file, if there is one, that ``path``, a file or a folder, means.

    In a folder these are ``train.*`` and ``dev.*`` (or valid, validation, val, trial), else the only file whose name
    begins so. ``dev_path`` goes before a dev file that is found.

    Args:
        path: a file, or a folder.
        dev_path: the dev file.
        files: for ``train`` and ``dev`` the names (``*`` and ``?`` match) that a data set's own folder gives them; the
            first of which there is a file counts. Without any the rule above holds.

    Raises:
        UserError: there is no such path, or no train file or several in the folder, or several dev files.
    """
    if path.is_file():
        return path, dev_path
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    found = sorted(file for file in path.iterdir() if file.is_file() and _stem(file) is not None)
    named = {split: _by_name(found, names) for split, names in (files or {}).items()}
    train = _pick(path, named.get("train") or _of_split(found, TRAIN_NAMES), "train", "data.path")
    if train is None:
        names = ", ".join(file.name for file in found) or "none that can be read"
        raise UserError(f"{path}: no file train.*; the folder's files: {names}; give one as data.path=")
    return train, dev_path or _pick(path, named.get("dev") or _of_split(found, DEV_NAMES), "dev", "data.dev_path")


def _by_name(files: Sequence[Path], names: Sequence[str]) -> list[Path]:
    """Return the files of the first name that any has, packed or not."""
    matching = ([file for file in files if fnmatchcase(_unpacked(file), name)] for name in names)
    return next(filter(None, matching), [])


def _stem(file: Path) -> str | None:
    name = _unpacked(file)
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), None)


def _unpacked(file: Path) -> str:
    return file.stem if file.suffix in PACKINGS else file.name


def _of_split(files: Sequence[Path], names: Sequence[str]) -> list[Path]:
    """Return the files called as a split is, else those whose name begins so."""
    found: list[Path] = []
    for name in names:
        found = found or [file for file in files if _stem(file) == name]
    return found or [file for file in files if str(_stem(file)).startswith(tuple(names))]


def _pick(folder: Path, found: Sequence[Path], split: str, key: str) -> Path | None:
    if len(found) > 1:
        several = ", ".join(file.name for file in found)
        raise UserError(f"{folder}: {several} could each be the {split} file; give one as {key}=")
    return found[0] if found else None


def named_split(table: Table, split: str, column: str) -> Table:
    """Return the rows whose column ``SPLIT``, which the file calls ``column``, says that they are of a split.

    Raises:
        NoRows: there are none; says what the column holds.
    """
    names = TRAIN_NAMES if split == "train" else DEV_NAMES
    kept = [position for position, name in enumerate(table[SPLIT]) if name.lower() in names]
    if not kept:
        raise NoRows(f"column {column}: no row is {' or '.join(names)}; it holds "
                     f"{', '.join(sorted(set(table[SPLIT]))[:10])}")
    return rows_at(table, kept)
