"""A cache on disk: folders under a key, verified when they are read, shared by processes and limited in size."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sentence_forge.runtime.disk import size
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import clear_leftovers, remove, staged_folder
from sentence_forge.runtime.locks import waiting_lock
from sentence_forge.runtime.manifests import MANIFEST, read_manifest, write_manifest

log = logging.getLogger(__name__)

ROOT = "SENTENCE_FORGE_CACHE"
MOST_GIB = "SENTENCE_FORGE_CACHE_GIB"


def cached(kind: str, key: str, make: Callable[[Path], dict[str, Any]], *, needs: int | None = None) -> Path:
    """Return the folder cached under ``key``; it is made if it is missing, damaged or unfinished.

    The cache is ``$SENTENCE_FORGE_CACHE`` (or ``~/.cache/sentence-forge``). Each kind may take
    ``$SENTENCE_FORGE_CACHE_GIB`` GiB (20); beyond that the least recently used folders are removed. Processes that want
    the same key wait for the one that makes it.

    Args:
        kind: the kind's own folder in the cache.
        key: a hash of everything that decides the content.
        make: fills an empty folder, and returns what its manifest will say.
        needs: bytes that it will take, if known.

    Raises:
        UserError: the disk is full.
        OSError: the folder can't be written.
    """
    home = folder_of(kind)
    home.mkdir(parents=True, exist_ok=True)
    folder = home / key
    with waiting_lock(home / f"{key}.lock"):
        if not _is_intact(folder):
            clear_leftovers(home)
            with staged_folder(folder, replace=True, needs=needs) as staged:
                write_manifest(staged, make(staged))
        os.utime(folder)
    with contextlib.suppress(OSError):  # another process removes the same just now
        _bound(home, folder)
    return folder


def folder_of(kind: str) -> Path:
    """Return the cache's folder of a kind, which may be missing."""
    return Path(os.environ.get(ROOT) or "~/.cache/sentence-forge").expanduser() / kind


def _is_intact(folder: Path) -> bool:
    if not folder.exists():
        return False
    try:
        read_manifest(folder)
    except (UserError, OSError) as error:
        log.warning("made anew: %s", error)
        return False
    return True


def _bound(home: Path, kept: Path) -> None:
    """Remove the least recently used folders beyond the limit; processes keep the files they have open."""
    most = float(os.environ.get(MOST_GIB) or 20) * 2**30
    entries = sorted((manifest.parent for manifest in home.glob(f"[!.]*/{MANIFEST}")), reverse=True,
                     key=lambda folder: folder.stat().st_mtime)
    total = 0
    for folder in [kept, *(each for each in entries if each != kept)]:
        takes = sum(file.stat().st_size for file in folder.rglob("*"))
        total += takes
        if total > most and folder != kept:
            log.info("%s: removed to keep the cache below %s", folder, size(most))
            remove(folder)
            folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)
