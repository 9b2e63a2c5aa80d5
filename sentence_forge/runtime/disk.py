"""Report a full disk and other shortages of a machine as one-line errors, and swap two paths in one step."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from sentence_forge.runtime.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# safetensors, pyarrow, NumPy and faiss report a full disk in words alone
_FULL_IN_WORDS = re.compile(r"os error (28|122|27)\b|No space left|quota exceeded|File too large|"
                            r"requested and \d+ written", re.IGNORECASE)
_MEMORY_IN_WORDS = re.compile(r"can't allocate memory|cannot allocate memory|not enough memory|bad_?alloc|"
                              r"failed to map segment|out of memory|can't start new thread", re.IGNORECASE)
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_HERE = -100  # AT_FDCWD


@contextlib.contextmanager
def naming_a_full_disk(path: Path, needs: int | None = None) -> Iterator[None]:
    """Turn a write that failed for lack of room into one line: how much was needed, and how much was free.

    Args:
        path: the file or folder being written; its parent exists.
        needs: bytes it will take, if known. A write that can't fit is then refused before it begins.

    Raises:
        UserError: there is no room, or the process may not write files so large.
    """
    free = shutil.disk_usage(path.parent).free
    if needs is not None and needs > free:
        raise _no_room(path, f"{size(needs)} are needed", free)
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        wanted = f"{size(needs)} are needed" if needs is not None else "it takes more than that"
        raise _no_room(path, wanted, free, error) from error


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or its cause, says that the disk is full or a file as large as it may be."""
    for each in _causes(error):
        if isinstance(each, OSError) and each.errno in _FULL:
            return True
        in_words = isinstance(each, OSError | RuntimeError) or type(each).__name__ == "SafetensorError"
        if in_words and _FULL_IN_WORDS.search(str(each)):
            return True
    return False


def shortage(error: BaseException) -> str | None:
    """Return the line for an error that the machine or the file system causes, not our code; None for any other."""
    if is_full(error):
        where = next((each.filename for each in _causes(error) if isinstance(each, OSError) and each.filename), None)
        why = f"{_lacking(Path(where or '.').parent, error)} ({error})"
        return f"{where or 'the disk'}: can't be written: {why}; make room and start again"
    for each in _causes(error):
        number = each.errno if isinstance(each, OSError) else None
        if isinstance(each, MemoryError) or number == errno.ENOMEM or (
                isinstance(each, RuntimeError | ImportError | OSError) and _MEMORY_IN_WORDS.search(str(each))):
            return f"too little memory ({_short(each)}); free some, or raise the limit (ulimit -v)"
        if number in (errno.EMFILE, errno.ENFILE):
            return f"too many open files ({_short(each)}); raise the limit (ulimit -n)"
        if number == errno.EIO:
            return f"the disk reports an error ({each}); check the disk, then type the same again"
        if isinstance(each, OSError) and number == errno.ENAMETOOLONG and each.filename:
            return f"{each.filename}: {each.strerror}; give a shorter name"
        if isinstance(each, OSError) and number in (errno.EACCES, errno.EPERM, errno.EROFS) and each.filename:
            return f"{each.filename}: {each.strerror}; give a place that you may write to, or change its permissions"
    return None


def size(count: float) -> str:
    """Return a number of bytes as people read it.

    >>> size(1_300_000)
    '1.3 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step that a kill can't interrupt; False where the system has no such call."""
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return bool(swap(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)


def _no_room(path: Path, wanted: str, free: int, error: BaseException | None = None) -> UserError:
    why = "" if error is None else f" ({_lacking(path.parent, error)})"
    return UserError(f"{path}: can't be written: {wanted}, {size(free)} were free{why}; the files that were there are "
                     "intact. Make room and start again")


def _lacking(folder: Path, error: BaseException) -> str:
    """Say what a write lacked: room, inodes, the user's quota, or the right to write files so large."""
    numbers = {each.errno for each in _causes(error) if isinstance(each, OSError)}
    words = " ".join(str(each) for each in _causes(error))
    if errno.EDQUOT in numbers or "os error 122" in words or "quota" in words.lower():
        return "your quota is used up"
    if errno.EFBIG in numbers or "os error 27" in words or "File too large" in words:
        return "a limit on the size of a file was met, see ulimit -f"
    with contextlib.suppress(OSError):
        found = os.statvfs(folder)
        if found.f_files and not found.f_favail:
            return "no inodes left: the file system holds as many files as it can; remove some"
    return "no room left"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what caused it, what caused that, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = next(filter(_MEMORY_IN_WORDS.search, lines), lines[0]).strip()
    return line if len(line) <= 160 else f"{line[:160]} ..."
