"""Files that are whole or absent: atomic writes, checksummed manifests, one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sentence_forge.runtime.disk import exchange, naming_a_full_disk
from sentence_forge.runtime.errors import UserError

MANIFEST = "manifest.json"
_STAGED = ".tmp-"
_ASIDE = ".aside"


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


def make_folder(folder: Path) -> None:
    """Make a folder and its parents where they aren't there, and flush each new one's name to the disk."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync(folder.parent)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write ``data`` so that ``path`` holds either what it held before or all of ``data``, on the disk.

    Raises:
        UserError: the disk is full.
    """
    staged = path.with_name(f"{_STAGED}{path.name}-{os.getpid()}")
    content = data.encode() if isinstance(data, str) else data
    with naming_a_full_disk(path, len(content)):
        try:
            with staged.open("wb") as file:
                file.write(content)
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
def staged_folder(path: Path, *, replace: bool = False, needs: int | None = None) -> Iterator[Path]:
    """Yield an empty folder that becomes ``path`` when the block ends well, and vanishes when it does not.

    Everything in it is fsynced before the rename. A kill at any moment leaves the old folder or the new one, whole, and
    perhaps staged leftovers beside it, which ``clear_leftovers`` removes.

    Args:
        path: its parent is made where it isn't there.
        replace: a folder that is there changes places with the new one, and is then removed.
        needs: bytes it will take, where that is known.

    Raises:
        UserError: the disk is full.
    """
    make_folder(path.parent)
    staged = path.with_name(f"{_STAGED}{path.name}-{os.getpid()}")
    aside = path.with_name(f"{_STAGED}{path.name}{_ASIDE}")
    shutil.rmtree(staged, ignore_errors=True)
    with naming_a_full_disk(path, needs):
        try:
            staged.mkdir()
            yield staged
            fsync_tree(staged)
            if not (replace and path.exists()):
                staged.rename(path)
            elif not exchange(staged, path):
                path.rename(aside)  # a kill before the next line is mended by clear_leftovers
                staged.rename(path)
        except BaseException:
            if aside.exists() and not path.exists():
                aside.rename(path)
            shutil.rmtree(staged, ignore_errors=True)
            raise
    fsync(path.parent)
    shutil.rmtree(staged, ignore_errors=True)
    shutil.rmtree(aside, ignore_errors=True)


def clear_leftovers(folder: Path) -> None:
    """Remove what killed writers left staged in ``folder``; give back what one had moved aside and not replaced.

    To be called by whoever holds the right to write there. Only ``folder`` itself is looked at; it may be missing. What
    carries the number of a process that lives is left alone.
    """
    for left in folder.glob(f"{_STAGED}*"):
        if _is_alive(left.name.rpartition("-")[2]):
            continue
        meant = folder / left.name.removeprefix(_STAGED).removesuffix(_ASIDE)
        if left.name.endswith(_ASIDE) and not meant.exists():
            left.rename(meant)
        elif left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


def _is_alive(number: str) -> bool:
    if not number.isdigit() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def files_below(folder: Path) -> list[str]:
    """Return the relative POSIX paths of all files below ``folder``, sorted, its manifest left out."""
    found = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return sorted(name for name in found if name != MANIFEST)


def sealed(value: Mapping[str, Any]) -> str:
    """Return an object's one spelling as JSON with its own sha256 in it, so that any flipped bit shows."""
    content = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    whole = {**value, "sha256": hashlib.sha256(content.encode()).hexdigest()}
    return json.dumps(whole, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def unsealed(path: Path) -> dict[str, Any]:
    """Return what ``sealed`` wrote to ``path``.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it can't be read, or is not as it was written.
    """
    try:
        text = path.read_bytes()
        value = json.loads(text)
        whole = text == sealed({key: item for key, item in value.items() if key != "sha256"}).encode()
    except FileNotFoundError:
        raise
    except (ValueError, AttributeError, OSError, RecursionError) as error:
        raise UserError(f"{path}: unreadable ({type(error).__name__})") from None
    if not whole:
        raise UserError(f"{path}: damaged, it differs from its own checksum")
    return value


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Write ``manifest.json``: ``about`` plus size and sha256 of every file in ``folder``. Write it last."""
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
             for name in files_below(folder)}
    write_atomic(folder / MANIFEST, sealed({**about, "files": files}))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a folder's manifest after holding it, and every file, against it.

    Raises:
        UserError: the manifest is missing or damaged, or a file is missing or differs.
    """
    try:
        manifest = unsealed(folder / MANIFEST)
    except FileNotFoundError:
        raise UserError(f"{folder}: has no {MANIFEST}, so it was never finished") from None
    for name, expected in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file}: missing, though the manifest names it")
        if file.stat().st_size != expected["bytes"] or sha256_file(file) != expected["sha256"]:
            raise UserError(f"{file}: damaged, its bytes differ from the manifest's sha256")
    return manifest


def _holder(lock: Path) -> str:
    """Return the number of the process that holds a lock; it writes it a moment after it has it."""
    for _ in range(50):
        if number := lock.read_text().strip():
            return number
        time.sleep(0.01)
    return "?"


@contextlib.contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the one right to write in ``folder``; the lock dies with the process.

    Raises:
        UserError: another process holds it; the message gives its process id.
    """
    make_folder(folder)
    path = folder / ".lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{folder}: process {_holder(path)} is writing here; wait for it or stop it") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
