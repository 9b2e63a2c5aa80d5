"""A disk that is full, said in one line; and two folders swapped in one step."""

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
# safetensors, pyarrow, NumPy and faiss say it in words alone
_SAID = re.compile(r"os error (28|122|27)\b|No space left|quota exceeded|File too large|requested and \d+ written",
                   re.IGNORECASE)
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_HERE = -100  # AT_FDCWD


@contextlib.contextmanager
def naming_a_full_disk(path: Path, needs: int | None = None) -> Iterator[None]:
    """Turn a write that failed for want of room into one line: how much was needed, and how much was free.

    Args:
        path: what is being written; its folder exists.
        needs: bytes it will take, where that is known. It is then refused before anything is written.

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
        raise _no_room(path, wanted, free) from error


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that the disk is full or a file as large as it may be."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        words = isinstance(error, OSError | RuntimeError) or type(error).__name__ == "SafetensorError"
        if words and _SAID.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


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
    """Swap two names in one step that no kill can halve; False where the system can't."""
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return bool(swap(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)


def _no_room(path: Path, wanted: str, free: int) -> UserError:
    return UserError(f"{path}: can't be written: {wanted}, {size(free)} were free (or a quota or a limit on the size "
                     "of a file was met); what was there is whole. Make room and start again")
