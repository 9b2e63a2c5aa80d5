"""The near-duplicates of an index: computed once for each generation, in a thread, however many ask."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from starlette.exceptions import HTTPException

from sentence_forge.search.serve.live import LiveIndex
from sentence_forge.search.text_search import Pair

MOST = 1000


class _EndedError(Exception):
    """The server ends; nobody waits for the pairs any more."""


class Pairs:
    """The most similar pairs of the newest generation.

    Args:
        live: the index.
    """

    def __init__(self, live: LiveIndex) -> None:
        self._live = live
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pairs")
        self._ended = threading.Event()
        self._task: asyncio.Future[list[Pair]] | None = None
        self._state = (-1, 0)

    async def best(self, patience: float) -> tuple[int, list[Pair]]:
        """Return the generation and its `MOST` best pairs, best first.

        Args:
            patience: seconds to wait for them.

        Raises:
            HTTPException: it takes longer; it goes on, and who asks again later gets them.
        """
        generation, state = await asyncio.to_thread(self._now)
        if self._task is None or self._state != state or (
                self._task.done() and self._task.exception() is not None):
            self._state = state
            self._task = asyncio.get_running_loop().run_in_executor(self._thread, self._find)
        try:
            return generation, await asyncio.wait_for(asyncio.shield(self._task), patience)
        except TimeoutError:
            raise HTTPException(503, "the pairs are still being looked for; ask again in a minute") from None

    def close(self) -> None:
        """Stop what is under way, and end the thread."""
        self._ended.set()
        self._thread.shutdown(cancel_futures=True)

    def _now(self) -> tuple[int, tuple[int, int]]:
        with self._live.reading() as index:
            return index.generation, index.state

    def _find(self) -> list[Pair]:
        with suppress(_EndedError), self._live.reading() as index:
            return index.pairs(MOST, check=self._check)
        return []

    def _check(self) -> None:
        if self._ended.is_set():
            raise _EndedError
