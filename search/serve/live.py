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
from sentence_forge.search.places import is_address, open_index
from sentence_forge.search.text_search import TextSearch

log = logging.getLogger(__name__)


class _Opened:
    """An open index and how many readers it has."""

    def __init__(self, index: TextSearch) -> None:
        self.index = index
        self.readers = 0


class LiveIndex:
    """One index that follows its folder or database.

    A thread looks once in ``seconds`` whether a newer generation is there, opens it, and puts it in the old one's
    place. Who reads the old one then goes on with it; it is closed when its last reader has finished. Where the newer
    one can't be opened, its model missing on this machine, say, the thread looks less and less often, at last once a
    minute. A link to an export is followed once, at the start: a link that leads to another model's export later would
    otherwise be taken for a newer generation, or not, as the two numbers happen to be.

    Args:
        place: an export's output folder, the ``index`` folder in it, or a database's address.
        encoder: of the queries; by default the export's own.
        model: see `open_index`.
        seconds: between two looks.

    Raises:
        UserError: there is no index, or no encoder for it.
    """

    def __init__(self, place: str | Path, encoder: TextEncoder | None = None, model: str | None = None,
                 seconds: float = 1.0) -> None:
        self._place, self._model = place if is_address(place) else _itself(Path(place)), model
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._damaged = -1
        self._reason = ""  # why a newer generation couldn't be opened; a warning is printed once
        self._current = _Opened(open_index(self._place, encoder, model=model))
        self._current.index.prepare()
        self._watcher = threading.Thread(target=self._watch, args=(seconds,), name="generations", daemon=True)
        self._watcher.start()

    @contextlib.contextmanager
    def reading(self) -> Iterator[TextSearch]:
        """Yield the newest generation; it stays open, and its rows the same, until the block ends."""
        with self._lock:
            opened = self._current
            opened.readers += 1
        try:
            with opened.index.reading() as index:
                yield index
        finally:
            self._leave(opened)

    def refresh(self) -> bool:
        """Take up a newer generation if there is one, and return whether there was."""
        try:
            now = self._current.index
            number = now.newest()
            if number in (now.generation, self._damaged):
                self._reason = ""
                return False
            index = open_index(self._place, model=self._model)
            if index.generation == now.generation:  # the newest is damaged, and the one before it is open already
                index.close()
                self._damaged = number
                return False
            opened = _Opened(index)
            try:
                if query_fingerprint(index.fingerprint) == now.encoder.fingerprint:
                    index.use(now.encoder)
                index.prepare()
            except BaseException:
                index.close()
                raise
        except (UserError, OSError) as error:  # such as one that was replaced meanwhile: the next look finds it
            if str(error) != self._reason:
                log.warning("a newer generation could not be opened: %s", error)
            self._reason = str(error)
            return False
        self._reason = ""
        with self._lock:
            old, self._current = self._current, opened
            old.readers += 1
        self._leave(old)
        log.info("generation %d, %d rows", opened.index.generation, len(opened.index))
        return True

    def close(self) -> None:
        """Stop looking, and close the index."""
        self._ended.set()
        self._watcher.join()
        self._current.index.close()

    def _leave(self, opened: _Opened) -> None:
        with self._lock:
            opened.readers -= 1
            unused = opened is not self._current and not opened.readers
        if unused:
            opened.index.close()

    def _watch(self, seconds: float) -> None:
        pause = seconds
        while not self._ended.wait(pause):
            try:
                self.refresh()
            except Exception:  # a watcher that died would leave the server with an old index for good
                log.exception("looking for a newer generation failed")
            pause = min(2 * pause, max(seconds, 60.0)) if self._reason else seconds


def _itself(folder: Path) -> Path:
    """Return an export's folder without links; ``index`` in it may be one to another disk, and the model stays here."""
    return folder.resolve() if (folder / "index").is_dir() else folder.parent.resolve() / folder.name
