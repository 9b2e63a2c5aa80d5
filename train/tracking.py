"""Log a run's numbers: to TensorBoard for people, to ``metrics.jsonl`` for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard.writer import SummaryWriter

from sentence_forge.runtime.files import remove, write_atomic


class Tracker:
    """Writes a run's scalars, histograms and texts.

    Args:
        run: the run's folder.
        from_step: what an earlier part of the run wrote after this step is dropped, so none appears twice.
    """

    def __init__(self, run: Path, from_step: int = 0) -> None:
        self._metrics = run / "metrics.jsonl"
        if self._metrics.exists():
            lines = self._metrics.read_text(encoding="utf-8", errors="replace").splitlines()
            earlier = [line for line in lines if _step(line) <= from_step]
            write_atomic(self._metrics, "".join(line + "\n" for line in earlier))
        else:
            remove(self._metrics)  # a link to a missing file, which would be made
        self._file = self._metrics.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=from_step + 1 if from_step else None)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers of one step, as one line of ``metrics.jsonl`` and one curve each."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Log distributions."""
        for name, value in values.items():
            if len(value):
                self._board.add_histogram(name, value, step)

    def text(self, name: str, markdown: str) -> None:
        """Log a text, once."""
        self._board.add_text(name, markdown)

    def projector(self, step: int, vectors: np.ndarray, texts: Sequence[str]) -> None:
        """Show vectors with their texts in the projector."""
        self._board.add_embedding(vectors, metadata=[" ".join(text.split()) for text in texts], global_step=step,
                                  tag="dev")

    def hparams(self, settings: Mapping[str, Any], measures: Mapping[str, float]) -> None:
        """Log what the run was set to and what came of it, for TensorBoard's comparison of runs."""
        from torch.utils.tensorboard.summary import hparams

        plain = {name: value if isinstance(value, int | float | bool) else str(value)
                 for name, value in settings.items() if value is not None}
        writer = self._board.file_writer
        assert writer is not None
        for summary in hparams(plain, dict(measures)):
            writer.add_summary(summary)
        for name, value in measures.items():
            self._board.add_scalar(name, value, 0)

    def __enter__(self) -> Tracker:
        """Return the tracker."""
        return self

    def __exit__(self, *_: object) -> None:
        """Flush and close, however the run ended."""
        self._file.close()
        self._board.close()


def _step(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line that a killed process left half-written, or that is none of ours
