"""Steps: arrays that a long piece of work has come to, kept on disk, so that a killed run goes on from the last one."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sentence_forge.runtime.files import make_folder, write_atomic

log = logging.getLogger(__name__)

_DIGEST = 32  # bytes of sha256 at a file's end


class Steps:
    """Arrays by name in a folder; each file is there completely or not at all, and ends with its sha256.

    Args:
        folder: made when the first array is kept; None keeps none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._made = self._told = False

    def array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike,
              make: Callable[[], npt.NDArray]) -> npt.NDArray:
        """Return the array ``name``: what is kept of an earlier run, else what ``make`` returns, which is kept.

        Args:
            name: of the file.
            shape: what is kept must have it.
            dtype: likewise.
            make: called where nothing is kept, or it is damaged.

        Raises:
            UserError: the disk is full.
        """
        if self._folder is None:
            return make().astype(dtype, copy=False)
        path = self._folder / f"{name}.npy"
        kept = _read(path)
        if kept is not None and kept.shape == shape and kept.dtype == dtype:
            self._tell()
            return kept
        made = np.ascontiguousarray(make(), dtype)
        data = io.BytesIO()
        np.save(data, made, allow_pickle=False)
        make_folder(self._folder)
        write_atomic(path, data.getvalue() + hashlib.sha256(data.getvalue()).digest())
        self._made = True
        return made

    def _tell(self) -> None:
        """Log once that an earlier run's work is taken up."""
        if not (self._made or self._told):
            log.info("fast index: going on where a run before this one was stopped")
        self._told = True


def _read(path: Path) -> npt.NDArray | None:
    """Return the array of a file; None where there is none, or it isn't as it was written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    content = data[:-_DIGEST]
    if hashlib.sha256(content).digest() != data[-_DIGEST:]:
        log.warning("%s: damaged, its bytes differ from their sha256; it will be made anew", path)
        return None
    return np.load(io.BytesIO(content), allow_pickle=False)
