"""Write files and folders so that a crash leaves them complete or absent, and delete only inside our own folders."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sentence_forge.runtime.disk import exchange, naming_a_full_disk
from sentence_forge.runtime.errors import UserError

_STAGED = ".tmp-"
_ASIDE = ".aside"


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Flush ``folder`` and every file and folder below it to the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            fsync(Path(root, name))
        fsync(Path(root))


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, and flush the name of each new one to the disk.

    Raises:
        UserError: a file or a link to a missing folder is in the way, or the place takes no folders.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        try:
            folder.mkdir(exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            what = f"a link to {os.readlink(folder)}, which isn't there" if folder.is_symlink() else "no folder"
            raise UserError(f"{folder}: is {what}; remove it, or give another place") from None
        except FileNotFoundError:  # of /proc and its like
            raise UserError(f"{folder}: no folder can be made here; give another place") from None
        fsync(folder.parent)


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content; a link is removed itself, never what it points to.

    A path that doesn't exist is no error.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_link(folder: Path, ours: str) -> None:
    """Check that a link in place of one of our folders leads to a folder that holds only our own files.

    A run or an index may come from somebody else, with a link that points at the user's documents. A link that the
    user made, to keep checkpoints on another disk, leads to an empty folder or to checkpoints.

    Args:
        folder: where we will write and remove files; it may be missing.
        ours: a regular expression for the names that we write there; hidden files of ours (``.lock``) are known.

    Raises:
        UserError: ``folder`` is a link to a folder with another file in it, or to no folder at all.
    """
    if not folder.is_symlink():
        return
    known = re.compile(rf"\.lock|{re.escape(_STAGED)}.*|{ours}")
    to = os.readlink(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: is a link to {to}, which is no folder; remove the link, or make that folder")
    if strange := sorted(name for name in os.listdir(folder) if not known.fullmatch(name)):
        raise UserError(f"{folder}: is a link to {to}, which holds files that are not ours ({strange[0]}); remove the "
                        "link, or let it lead to an empty folder")


def is_own_file(path: Path) -> bool:
    """Whether a file exists in its folder; a link counts where it leads to the same folder or to the hub's cache.

    Use it before copying a file of somebody else's model: a link could lead to a secret of the user's.
    """
    real = Path(os.path.realpath(path))
    at_home = real.parent == Path(os.path.realpath(path.parent)) or real.parent.name == "blobs"
    return path.is_file() and (at_home or not path.is_symlink())


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write ``data`` so that after a crash ``path`` holds either its old content or all of ``data``.

    Several processes, on several machines, may write the same file at a time: one of them has the last word.

    Raises:
        UserError: the disk is full.
    """
    # by chance, too: processes of two machines may have the same number
    staged = path.with_name(f"{_STAGED}{path.name}-{secrets.token_hex(8)}-{os.getpid()}")
    content = data.encode() if isinstance(data, str) else data
    try:
        with naming_a_full_disk(path, len(content)):
            with staged.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def publish(staged: Path, path: Path) -> None:
    """Flush a file that a library has written, and give it its name in the same folder."""
    fsync(staged)
    staged.replace(path)
    fsync(path.parent)


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Write ``value`` as readable JSON, atomically; NaN is refused."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def staged_folder(path: Path, *, replace: bool = False, needs: int | None = None) -> Iterator[Path]:
    """Yield an empty folder that becomes ``path`` when the block succeeds, and is removed when it fails.

    Everything in it is flushed to the disk before it is renamed. A kill at any moment leaves the complete old folder or
    the complete new one, and perhaps staged files beside it, which ``clear_leftovers`` removes.

    Args:
        path: its parent is made if it is missing.
        replace: a folder that exists changes places with the new one, and is then removed; of a link only the link.
        needs: bytes that the folder will take, if known.

    Raises:
        UserError: the disk is full.
    """
    make_folder(path.parent)
    staged = path.with_name(f"{_STAGED}{path.name}-{os.getpid()}")
    aside = path.with_name(f"{_STAGED}{path.name}{_ASIDE}")
    remove(staged)
    try:
        with naming_a_full_disk(path, needs):
            staged.mkdir()
            yield staged
            _let_read(staged)
            fsync_tree(staged)
            if not (replace and os.path.lexists(path)):
                staged.rename(path)
            elif not exchange(staged, path):
                path.rename(aside)  # a kill before the next line is mended by clear_leftovers
                staged.rename(path)
    except BaseException:
        if os.path.lexists(aside) and not os.path.lexists(path):
            aside.rename(path)
        with contextlib.suppress(OSError):  # the error that is under way says more
            remove(staged)
        raise
    fsync(path.parent)
    remove(staged)
    remove(aside)


def _let_read(folder: Path) -> None:
    """Give the files in a folder the rights of any new file: some libraries make theirs for the owner alone."""
    rights = folder.stat().st_mode & 0o666  # what the umask left of the folder's own
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink() and stat.S_IMODE(file.stat().st_mode) == 0o600 != rights:
            file.chmod(rights)


def clear_leftovers(folder: Path) -> None:
    """Remove the staged files that killed writers left in ``folder``; put back a folder that one had moved aside.

    Call it while you hold the right to write there. Only ``folder`` itself is looked at; it may be missing. Files that
    carry the number of a living process are left alone.
    """
    for left in folder.glob(f"{_STAGED}*"):
        if _is_alive(left.name.rpartition("-")[2]):
            continue
        meant = folder / left.name.removeprefix(_STAGED).removesuffix(_ASIDE)
        if left.name.endswith(_ASIDE) and not os.path.lexists(meant):
            left.rename(meant)
        else:
            remove(left)


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
