"""What is made once and kept on disk for the next run: folders under a key, verified, shared, bounded in size."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sentence_forge.runtime.disk import size
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import MANIFEST, clear_leftovers, read_manifest, staged_folder, write_manifest

log = logging.getLogger(__name__)

ROOT = "SENTENCE_FORGE_CACHE"
MOST_GIB = "SENTENCE_FORGE_CACHE_GIB"


def cached(kind: str, key: str, make: Callable[[Path], dict[str, Any]], *, needs: int | None = None) -> Path:
    """Return the folder kept under ``key``, made where it isn't there, is damaged or was never finished.

    It lies in ``$SENTENCE_FORGE_CACHE`` (or ``~/.cache/sentence-forge``), whose kinds may each take
    ``$SENTENCE_FORGE_CACHE_GIB`` GiB (20): beyond that, what was not used for longest goes. Processes that want the
    same key wait for the one that makes it.

    Args:
        kind: a folder of its own.
        key: a hash of everything that decides the content.
        make: fills an empty folder, and returns what its manifest shall say.
        needs: bytes it will take, where that is known.

    Raises:
        UserError: the disk is full.
        OSError: the folder can't be written.
    """
    home = folder_of(kind)
    home.mkdir(parents=True, exist_ok=True)
    folder = home / key
    with _alone(home / f"{key}.lock"):
        if not _is_whole(folder):
            clear_leftovers(home)
            with staged_folder(folder, replace=True, needs=needs) as staged:
                write_manifest(staged, make(staged))
        os.utime(folder)
    with contextlib.suppress(OSError):  # another process removes the same just now
        _bound(home, folder)
    return folder


def folder_of(kind: str) -> Path:
    """Return where a kind of things is kept, there or not."""
    return Path(os.environ.get(ROOT) or "~/.cache/sentence-forge").expanduser() / kind


def _is_whole(folder: Path) -> bool:
    if not folder.exists():
        return False
    try:
        read_manifest(folder)
    except (UserError, OSError) as error:
        log.warning("made anew: %s", error)
        return False
    return True


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        with contextlib.suppress(OSError):  # a file system without locks: at worst two make the same
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _bound(home: Path, kept: Path) -> None:
    """Remove what was not used for longest while there is too much; whoever has such files open keeps them."""
    most = float(os.environ.get(MOST_GIB) or 20) * 2**30
    entries = sorted((manifest.parent for manifest in home.glob(f"[!.]*/{MANIFEST}")), reverse=True,
                     key=lambda folder: folder.stat().st_mtime)
    total = 0
    for folder in [kept, *(each for each in entries if each != kept)]:
        takes = sum(file.stat().st_size for file in folder.rglob("*"))
        total += takes
        if total > most and folder != kept:
            log.info("%s: removed to keep the cache below %s", folder, size(most))
            shutil.rmtree(folder, ignore_errors=True)
            folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)
