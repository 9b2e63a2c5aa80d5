"""Any task of MTEB (Muennighoff et al., 2023) by its name, where the package ``mteb`` is installed.

MTEB reads its data from the hub and scores it itself; what it tells is the task's main score, without an interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sentence_forge.eval.stats import Seed
from sentence_forge.eval.tasks.base import EncodedTexts, Task, TaskResult, TaskRows, task_row
from sentence_forge.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Elsewhere(TaskRows):
    """The rows of a task that reads them itself: none are known here."""

    @property
    def units(self) -> list[tuple[str, ...]]:
        """None."""
        return []


@dataclass(kw_only=True)
class MTEB(Task):
    """A task of MTEB.

    Args:
        name: as ``mteb.get_task`` knows it, such as STSBenchmark.
        label: the task's name in headings.
    """

    name: str
    label: str | None = None

    def where(self, data_dir: Path | None) -> str:
        """Say what is meant."""
        return f"MTEB's {self.name}"

    def locate(self, data_dir: Path | None) -> Path | None:
        """Return where the package lies.

        Raises:
            UserError: ``mteb`` is not installed, or has no such task.
        """
        found = find_spec("mteb")
        if found is None or found.origin is None:
            raise UserError(f"the MTEB task {self.name} needs the package mteb; pip install mteb")
        self._task()
        return Path(found.origin)

    def read(self, data_dir: Path | None) -> Elsewhere:
        """Return where the data is: the hub's repository and its revision."""
        dataset = self._task().metadata.dataset
        return Elsewhere(path=f"{dataset.get('path')}@{dataset.get('revision')}", sha256=str(dataset.get("revision")))

    def score(self, rows: Elsewhere, encoder: EncodedTexts, *, resamples: int = 2000, seed: Seed = 0) -> TaskResult:
        """Return the task's main score.

        Raises:
            UserError: the encoder is no sentence-transformers model, or MTEB can't get the data.
        """
        import mteb

        from sentence_forge.encoders.encoder import Encoder

        if not isinstance(encoder.source, Encoder):
            raise UserError(f"MTEB's {self.name}: takes sentence-transformers models only")
        try:
            found = mteb.evaluate(encoder.source.model, self._task(), cache=None, show_progress_bar=False)
        except OSError as error:  # huggingface_hub's errors are OSErrors
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"MTEB's {self.name}: its data can't be had: {first}") from None
        value = float(found.task_results[0].get_score())
        row = task_row(rows, encoder, self.label, "mteb_main_score", None,
                       {"mteb_main_score": value, "mteb_main_score_ci95": None})
        return TaskResult(row, None, lambda some: None)

    def _task(self) -> Any:  # noqa: ANN401 - mteb.AbsTask
        import mteb

        try:
            return mteb.get_task(self.name)
        except KeyError as error:
            raise UserError(f"MTEB has no task {self.name!r}: {str(error)[:200]}") from None
