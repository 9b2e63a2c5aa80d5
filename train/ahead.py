"""Batches with all that their forward needs, gathered one ahead while a GPU computes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from sentence_forge.train.batches import Batches
from sentence_forge.train.mixing import Batch
from sentence_forge.train.rows import Planned


class _Taken(NamedTuple):
    planned: Planned
    epoch: int  # behind the batch, as the two that follow
    position: int
    done: float


class Ahead:
    """Hands out planned batches; where it stands is behind the last one that was handed out.

    Entered, it plans the first batch; left, its thread ends.

    Args:
        batches: where they come from; nobody else takes any.
        plan: gathers what a batch needs; runs in a thread, so it may not touch torch's state.
        settle: called with the first batch before it is planned, in the caller's thread.
        left: how many batches will be asked for at most; none beyond is planned, as that may cut another epoch.
        threaded: whether ``plan_next`` plans in a thread; else it does nothing, and a batch is planned when it is
            asked for. On a CPU a thread would take its time from what is computed.
    """

    def __init__(self, batches: Batches[Batch], *, plan: Callable[[Batch], Planned], settle: Callable[[Batch], None],
                 left: int, threaded: bool) -> None:
        self._batches, self._plan, self._settle, self._left = batches, plan, settle, left
        self._threaded = threaded
        self.epoch, self.position, self.done = batches.epoch, batches.position, batches.done
        self._next: Future[_Taken] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def __enter__(self) -> Ahead:
        if self._left > 0:
            batch = next(self._batches)
            self._settle(batch)
            self._next = Future()
            self._next.set_result(self._planned(batch))
        if self._threaded:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        return self

    def __exit__(self, *_: Any) -> None:  # noqa: ANN401 - of an exception
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def __next__(self) -> Planned:
        """Return the next batch; what went wrong as it was planned is raised here."""
        coming, self._next = self._next, None
        taken = self._take() if coming is None else coming.result()
        self._left -= 1
        self.epoch, self.position, self.done = taken[1:]
        return taken.planned

    def plan_next(self) -> None:
        """Begin to plan the next batch in the thread; best before a backward, most of which runs without Python."""
        if self._thread is not None and self._left > 0 and self._next is None:
            self._next = self._thread.submit(self._take)

    def _take(self) -> _Taken:
        return self._planned(next(self._batches))

    def _planned(self, batch: Batch) -> _Taken:
        taken = self._batches
        return _Taken(self._plan(batch), taken.epoch, taken.position, taken.done)
