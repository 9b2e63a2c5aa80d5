"""Which files a path means, and which shape a file's columns make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from data_readers.delimited import SUFFIXES
from data_readers.rows import check_columns
from runtime.errors import UserError, one_of
from runtime.shapes import LABELLED_TEXT, PAIR, PAIR_CLASS, PAIR_SCORE, SHAPES, TITLES, TRIPLET

_MOST_TELLING_FIRST = (PAIR_CLASS, PAIR_SCORE, TRIPLET, PAIR, LABELLED_TEXT, TITLES)
_SAME = {"text": "title", "title": "text"}
_DEV_NAMES = ("dev", "valid", "validation", "val", "trial")


def shape_of(path: Path, header: Sequence[str], columns: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the name of the shape that a file's columns make, and the file's column for each of the shape's.

    The most telling shape wins: premise, hypothesis, label before anchor, positive before a lone title. ``title`` and
    ``text`` stand for each other.

    Args:
        path: for errors.
        header: the file's column names.
        columns: for shape columns the file's column where its name is another; the shape must use all of them.

    Raises:
        UserError: an unknown shape column, a file column that is missing, or columns that make no shape.
    """
    known = {name for shape in SHAPES.values() for name in shape.columns}
    for name in columns:
        if name not in known and not name.startswith("negative_"):
            raise UserError(f"data.columns.{name}: no such column in any shape; {one_of(known, name)}")
    check_columns(path, header, list(columns.values()))
    present = {**{name: name for name in header if name not in columns}, **columns}
    for name, same in _SAME.items():
        if name not in present and same in present:
            present[name] = present[same]
    for shape in _MOST_TELLING_FIRST:
        names = [*shape.text_columns(list(present)), *([shape.label] if shape.label else [])]
        used = {present[name] for name in names if name in present}
        if all(name in present for name in names) and set(columns.values()) <= used:
            return shape.name, {name: present[name] for name in names}
    shapes = "; ".join(", ".join(shape.columns) for shape in _MOST_TELLING_FIRST)
    raise UserError(f"{path}: its columns ({', '.join(header)}) make no known shape ({shapes}); say which is which, as "
                    "data.columns.premise=<column> data.columns.hypothesis=<column> data.columns.label=<column>")


def find_files(path: Path, dev_path: Path | None = None) -> tuple[Path, Path | None]:
    """Return the train file and the dev file, if there is one, that ``path``, a file or a folder, means.

    In a folder these are ``train.*`` and ``dev.*`` (or valid, validation, val, trial), else the only file whose name
    begins so. ``dev_path`` goes before a dev file that is found.

    Raises:
        UserError: there is no such path, or no train file or several in the folder, or several dev files.
    """
    if path.is_file():
        return path, dev_path
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    files = sorted(file for file in path.iterdir() if file.is_file() and _stem(file) is not None)
    train = _pick(path, files, ("train",), "data.path")
    if train is None:
        names = ", ".join(file.name for file in files) or "none that can be read"
        raise UserError(f"{path}: no file train.*; the folder's files: {names}; give one as data.path=")
    return train, dev_path or _pick(path, files, _DEV_NAMES, "data.dev_path")


def _stem(file: Path) -> str | None:
    name = file.name.removesuffix(".gz")
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), None)


def _pick(folder: Path, files: Sequence[Path], names: Sequence[str], key: str) -> Path | None:
    found: list[Path] = []
    for name in names:
        found = found or [file for file in files if _stem(file) == name]
    found = found or [file for file in files if str(_stem(file)).startswith(tuple(names))]
    if len(found) > 1:
        several = ", ".join(file.name for file in found)
        raise UserError(f"{folder}: {several} could each be the {names[0]} file; give one as {key}=")
    return found[0] if found else None
