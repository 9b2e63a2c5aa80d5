"""Locks on files, which the system releases when their process dies; and new folders that two processes can't share."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import make_folder

LOCK = ".lock"
_LONGEST = 20  # bytes of a process number


@contextlib.contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the only right to write in ``folder``.

    A lock that was the only file in its folder is removed at the end, and so is a folder that was made for it: a
    command that fails early leaves nothing behind.

    Raises:
        UserError: another process holds it, and the message gives its number; or ``.lock`` is a link or another file.
    """
    path = folder / LOCK
    existed = folder.is_dir()
    while True:
        make_folder(folder)
        handle = _opened(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise UserError(f"{folder}: process {_holder(path)} is writing here; wait for it or stop it") from None
        if _is_still(handle, path):
            break
        os.close(handle)  # the process that held it removed the file in the meantime
    try:
        with contextlib.suppress(OSError):  # on a full disk the lock holds without the number
            os.truncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            if os.listdir(folder) == [LOCK]:
                path.unlink()
                if not existed:
                    folder.rmdir()
        os.close(handle)


@contextlib.contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Wait for the lock on ``path``, a file that may be missing, and hold it."""
    handle = _opened(path)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: at worst two processes do the same work
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def new_folder(path: str) -> str:
    """Make the folder ``path``, or ``path-2``, ``path-3`` and so on if it exists, and return its name.

    Two processes that ask for the same name in the same moment get two folders.
    """
    made, number = Path(path), 1
    make_folder(made.parent)
    while True:
        try:
            made.mkdir()
        except FileExistsError:
            number += 1
            made = Path(f"{path}-{number}")
        else:
            return str(made)


def _opened(path: Path) -> int:
    """Open a lock file for reading and writing; follow no link, and take no file that holds more than a number."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise UserError(f"{path}: is no lock file but a link or a folder; remove it") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode) or os.pread(handle, _LONGEST + 1, 0).strip(b"0123456789"):
        os.close(handle)
        raise UserError(f"{path}: holds more than the number of a process, so it is no lock file; move it away")
    return handle


def _is_still(handle: int, path: Path) -> bool:
    """Whether ``path`` is still the file that was opened."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _holder(lock: Path) -> str:
    """Return the number of the process that holds a lock; it is written a moment after the lock is taken."""
    for _ in range(50):
        with contextlib.suppress(OSError):
            if number := lock.read_text(encoding="ascii").strip():
                return number
        time.sleep(0.01)
    return "?"
