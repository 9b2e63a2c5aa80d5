"""The newest generation of an index, kept open: a re-indexing is taken up while requests go on."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from sentence_forge.encoders.fingerprint import query_fingerprint
from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.generation import index_folder, newest, numbers
from sentence_forge.search.index import Index

log = logging.getLogger(__name__)


def marks_folder(index: Path) -> Path:
    """Return where the marks of an index are: in its export's folder, or in its own where it is in none."""
    return index.parent if (index.parent / "manifest.json").is_file() else index


class _Opened:
    """An open index and how many readers it has."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.readers = 0


class LiveIndex:
    """One index that follows its folder.

    A thread looks once in ``seconds`` whether a newer generation is there, opens it, and puts it in the old one's
    place. Who reads the old one then goes on with it; it is closed when its last reader has finished.

    Args:
        folder: an export's output folder, or the ``index`` folder in it.
        encoder: of the queries; by default the export's own.
        seconds: between two looks.

    Raises:
        UserError: there is no index, or no encoder for it.
    """

    def __init__(self, folder: str | Path, encoder: TextEncoder | None = None, seconds: float = 1.0) -> None:
        self.folder = index_folder(folder)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._failed = -1
        self._current = _Opened(self._open(encoder))
        self._watcher = threading.Thread(target=self._watch, args=(seconds,), name="generations", daemon=True)
        self._watcher.start()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Index]:
        """Yield the newest generation; it stays open until the block ends."""
        with self._lock:
            opened = self._current
            opened.readers += 1
        try:
            yield opened.index
        finally:
            self._leave(opened)

    def refresh(self) -> bool:
        """Take up a newer generation if there is one, and return whether there was."""
        number = max(numbers(self.folder), default=0)
        if number in (self._current.index.generation, self._failed):
            return False
        try:
            found = newest(self.folder)  # the newest manifest may be damaged, and the one before it is open already
            if found is None or found.number == self._current.index.generation:
                self._failed = number
                return False
            before = self._current.index.encoder
            same = query_fingerprint(found.manifest["fingerprint"]) == before.fingerprint
            opened = _Opened(self._open(before if same else None))
        except (UserError, OSError) as error:  # such as one that was replaced meanwhile: the next look finds it
            log.warning("a newer generation could not be opened: %s", error)
            return False
        with self._lock:
            old, self._current = self._current, opened
            old.readers += 1
        self._leave(old)
        log.info("generation %d, %d rows", opened.index.generation, len(opened.index.ids))
        return True

    def close(self) -> None:
        """Stop looking, and close the index."""
        self._ended.set()
        self._watcher.join()
        self._current.index.close()

    def _open(self, encoder: TextEncoder | None) -> Index:
        index = Index.open(self.folder, encoder)
        index.prepare()
        return index

    def _leave(self, opened: _Opened) -> None:
        with self._lock:
            opened.readers -= 1
            unused = opened is not self._current and not opened.readers
        if unused:
            opened.index.close()

    def _watch(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            try:
                self.refresh()
            except Exception:  # a watcher that died would leave the server with an old index for good
                log.exception("looking for a newer generation failed")
