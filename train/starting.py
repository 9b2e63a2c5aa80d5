"""How signals end a process of ``torchrun`` while it starts, before it watches the others (``train.lost``)."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from sentence_forge.runtime.process import failed, stop
from sentence_forge.runtime.torchrun import own_folder, said_why, starts_again


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end a process of ``torchrun`` at once: importing torch swallows exceptions.

    A signal that the caller ignores stays ignored.
    """
    if own_folder() is None:
        yield
        return
    ours = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) != signal.SIG_IGN]
    for number in ours:
        signal.signal(number, _leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def raise_at_signals() -> None:
    """Let these signals raise again, as they do without ``torchrun``; a caller's own handlers stay."""
    for number, handler in ((signal.SIGTERM, stop), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) is _leave:
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT or said_why():
        os._exit(128 + number)
    os._exit(failed("SIGTERM ended this process, as torchrun does when another one dies, or when it is stopped itself; "
                    + ("torchrun starts all of them again" if starts_again() else
                       "nothing was trained yet: type the same command again")))
