"""Intermediate results of a long computation, kept on disk, so that a killed run goes on from the last one."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sentence_forge.runtime.files import write_atomic

log = logging.getLogger(__name__)

_DIGEST = 32  # bytes of sha256 at a file's end


class Steps:
    """Arrays by name in a folder; each file is the array's bytes and their sha256, there completely or not at all.

    Several processes, on several machines, may make and keep the same array: it is the same to each.

    Args:
        folder: made when the first array is kept, inside one that is there; None keeps none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._made = self._told = False

    def array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike, make: Callable[[], npt.NDArray],
              below: int | None = None) -> npt.NDArray:
        """Return the array ``name``: what is kept of an earlier run, else what ``make`` returns, which is kept.

        Args:
            name: of the file.
            shape: of the array.
            dtype: likewise.
            make: called where nothing is kept, or something else than such an array: the folder may be somebody
                else's. Numbers must be finite.
            below: integers must lie in [0, below).

        Raises:
            UserError: the disk is full.
        """
        dtype = np.dtype(dtype)
        if self._folder is None:
            return make().astype(dtype, copy=False)
        path = self._folder / name
        kept = _read(path, math.prod(shape) * dtype.itemsize)
        if kept is not None:
            found = np.frombuffer(kept, dtype).reshape(shape)
            if np.isfinite(found).all() and (below is None or ((found >= 0).all() and (found < below).all())):
                self._tell()
                return found
            log.warning("%s: holds numbers that can't be; it will be made anew", path)
        made = np.ascontiguousarray(make(), dtype)
        with contextlib.suppress(FileNotFoundError):  # another process has finished meanwhile, and removed them all
            _keep(path, made)
            self._made = True
        return made

    def _tell(self) -> None:
        """Log once that an earlier run's work is taken up."""
        if not (self._made or self._told):
            log.info("going on where a run before this one was stopped (%s)", self._folder)
        self._told = True


def _read(path: Path, size: int) -> bytes | None:
    """Return so many bytes of a file; None where there is none, or it isn't as it was written."""
    try:
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_size == size + _DIGEST:
            data = path.read_bytes()
            if hashlib.sha256(data[:-_DIGEST]).digest() == data[-_DIGEST:]:
                return data[:-_DIGEST]
    except FileNotFoundError:
        return None
    except OSError as error:  # such as a network's, of a file that another machine replaces
        log.warning("%s: can't be read (%s); it will be made anew", path, error)
        return None
    log.warning("%s: damaged, it isn't what was written; it will be made anew", path)
    return None


def _keep(path: Path, made: npt.NDArray) -> None:
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, made.tobytes() + hashlib.sha256(made.data).digest())
