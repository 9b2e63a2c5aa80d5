"""Which files a path means, and which shape a file's columns make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from sentence_forge.data_readers.delimited import SUFFIXES
from sentence_forge.data_readers.rows import check_columns
from sentence_forge.data_readers.shapes import LABELLED_TEXT, PAIR, PAIR_CLASS, PAIR_SCORE, SHAPES, TITLES, TRIPLET
from sentence_forge.runtime.errors import UserError, one_of

_MOST_TELLING_FIRST = (PAIR_CLASS, PAIR_SCORE, TRIPLET, PAIR, LABELLED_TEXT, TITLES)
SAME = {"text": "title", "title": "text"}
TRAIN_NAMES = ("train",)
DEV_NAMES = ("dev", "valid", "validation", "val", "trial")
"""What a split is called, in the order in which it is looked for."""


Columns = Mapping[str, str | Sequence[str]]


def shapes_of(path: Path, header: Sequence[str], columns: Columns) -> dict[str, dict[str, str]]:
    """Return the shapes that a file's columns make, and for each its columns with the file's column for each.

    The most telling shape wins: premise, hypothesis, label before anchor, positive before a lone title. ``title`` and
    ``text`` stand for each other. Where ``columns`` has more than that shape uses, the next that uses more of them is
    given too (SICK has a label and a score).

    Args:
        path: for errors.
        header: the file's column names.
        columns: for shape columns the file's column where its name is another, or several of which the first that is
            there counts; the shapes must use all of them.

    Raises:
        UserError: an unknown shape column, a file column that is missing, or columns that make no shape.
    """
    known = {name for shape in SHAPES.values() for name in shape.columns}
    for name in columns:
        if name not in known and not name.startswith("negative_"):
            raise UserError(f"data.columns.{name}: no such column in any shape; {one_of(known, name)}")
    chosen = {name: _first(header, column) for name, column in columns.items()}
    check_columns(path, header, list(chosen.values()))
    present = {**{name: name for name in header if name not in chosen}, **chosen}
    for name, same in SAME.items():
        if name not in present and same in present:
            present[name] = present[same]
    left, found = set(chosen), {}  # which of the given columns no shape has used yet
    for shape in _MOST_TELLING_FIRST:
        names = [*shape.text_columns(list(present)), *([shape.label] if shape.label else [])]
        uses = {name for name in left
                if name in names or (SAME.get(name) in names and present[SAME[name]] == chosen[name])}
        if all(name in present for name in names) and (uses or not chosen):
            found[shape.name] = {name: present[name] for name in names}
            left -= uses
            if not left:
                return found
    shapes = "; ".join(", ".join(shape.columns) for shape in _MOST_TELLING_FIRST)
    raise UserError(f"{path}: its columns ({', '.join(header)}) make no known shape ({shapes}); say which is which, as "
                    "data.columns.premise=<column> data.columns.hypothesis=<column> data.columns.label=<column>")


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
    """Return the files of the first name that any has, with or without ``.gz`` behind."""
    matching = ([file for file in files if fnmatchcase(file.name.removesuffix(".gz"), name)] for name in names)
    return next(filter(None, matching), [])


def _stem(file: Path) -> str | None:
    name = file.name.removesuffix(".gz")
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), None)


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
