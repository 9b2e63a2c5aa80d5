"""Stop a run after the step it is at: SIGINT, SIGTERM and SIGHUP end it with a checkpoint."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from sentence_forge.runtime.process import silence_a_closed_terminal

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """A signal asked the run to end; a checkpoint was written."""

    def __init__(self, number: int, folder: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number, self.folder = number, folder


class Signals:
    """Remembers a SIGINT, SIGTERM or SIGHUP instead of dying by it; a second one dies.

    Python delivers signals to the main thread alone, so in another one nothing is changed, and nothing is received.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            ours = threading.current_thread() is threading.main_thread()
            if ours and signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self._before[number])
        silence_a_closed_terminal(number)
        log.info("%s: finishing this step, then a checkpoint", signal.Signals(number).name)
