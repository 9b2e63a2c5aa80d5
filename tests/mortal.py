"""Processes that are killed, in a training by two: the first at its third step, or the second while it reads."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from sentence_forge.data_readers.sample import SampleSource
from sentence_forge.losses.mnrl import MultipleNegativesRanking
from sentence_forge.runtime.errors import UserError


def die() -> None:
    """Die, and leave the time."""
    Path(os.environ.get("DIED", os.devnull)).write_text(str(time.time()))
    os.kill(os.getpid(), signal.SIGKILL)


class Mortal(MultipleNegativesRanking):
    """Multiple negatives ranking, in a process that dies unless ``torchrun`` has started it again."""

    calls = 0

    def of_rows(self, *given: Any) -> Tensor:
        self.calls += 1
        runs = os.environ.get("DIES")  # the folder that the run's lies in
        if runs and self.calls == 3 and os.environ["RANK"] == "0" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            while not any(Path(runs).glob("*/checkpoints/step-2")):
                time.sleep(0.02)
            die()
        return super().of_rows(*given)


class MortalRows(SampleSource):
    """The sample, which kills the second process that reads it, or ends it by a mistake."""

    def read(self, *given: Any, **how: Any) -> Any:
        if os.environ["RANK"] == "1":
            if "MISTAKE" in os.environ:
                raise UserError(os.environ["MISTAKE"])
            die()
        return super().read(*given, **how)
