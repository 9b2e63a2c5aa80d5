"""Files that are whole or absent: atomic writes, checksummed manifests, one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runtime.errors import UserError

MANIFEST = "manifest.json"
_STAGED = ".tmp-"


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Flush a file's, or a folder's own, bytes to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Flush every file and folder below and including ``folder`` to the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            fsync(Path(root, name))
        fsync(Path(root))


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write ``data`` so that ``path`` holds either what it held before or all of ``data``, on the disk."""
    staged = path.with_name(f"{_STAGED}{path.name}-{os.getpid()}")
    try:
        with staged.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Write ``value`` as readable JSON, atomically; NaN is refused."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def staged_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes ``path`` when the block ends well, and vanishes when it does not.

    Everything in it is fsynced before the rename. With ``replace`` a folder that is there is moved aside, and removed
    only after the new one stands in its place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f"{_STAGED}{path.name}-{os.getpid()}")
    old = path.with_name(f"{_STAGED}{path.name}-{os.getpid()}-old")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    try:
        yield staged
        fsync_tree(staged)
        if replace and path.exists():
            path.rename(old)
        staged.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(staged, ignore_errors=True)
        raise
    fsync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def files_below(folder: Path) -> list[str]:
    """Return the relative POSIX paths of all files below ``folder``, sorted, its manifest left out."""
    found = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return sorted(name for name in found if name != MANIFEST)


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Write ``manifest.json``: ``about`` plus size and sha256 of every file in ``folder``. Write it last."""
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
             for name in files_below(folder)}
    write_json(folder / MANIFEST, {**about, "files": files})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a folder's manifest after holding every file against it.

    Raises:
        UserError: the manifest is missing or unreadable, or a file is missing or differs.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
    except FileNotFoundError:
        raise UserError(f"{folder}: has no {MANIFEST}, so it was never finished") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{folder / MANIFEST}: unreadable ({type(error).__name__})") from None
    for name, expected in files.items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file}: missing, though the manifest names it")
        if file.stat().st_size != expected["bytes"] or sha256_file(file) != expected["sha256"]:
            raise UserError(f"{file}: damaged, its bytes differ from the manifest's sha256")
    return manifest


@contextlib.contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the one right to write in ``folder``; the lock dies with the process.

    Raises:
        UserError: another process holds it; the message gives its process id.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise UserError(f"{folder}: process {file.read().strip() or '?'} is writing here; wait for it or stop it"
                            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
