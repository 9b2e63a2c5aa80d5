"""Train from Python: what ``python -m train`` does, with rows in memory as well, and an object as the answer."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.runtime.call import call, check_path, words_of
from sentence_forge.runtime.errors import UserError
from sentence_forge.train.in_memory import Rows, is_rows, naming_rows_of, write_rows

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sentence_forge.encoders.encoder import Encoder
    from sentence_forge.eval.report.report import Report


class TrainedRun:
    """A finished training.

    Args:
        folder: holds the run: ``model/``, ``report/``, ``checkpoints/``, ``config.yaml``, ``metrics.jsonl``.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @cached_property
    def model(self) -> Encoder:
        """The best model, loaded when first asked for."""
        from sentence_forge.encoders.encoder import load_encoder

        return load_encoder(self.folder)

    @cached_property
    def report(self) -> Report:
        """The report that compares the best model with the one before the training; a notebook shows it."""
        from sentence_forge.eval.report.report import Report

        return Report.open(self.folder / "report")

    def __repr__(self) -> str:
        return f"TrainedRun({str(self.folder)!r})"


def train(*overrides: str, data: str | Path | Mapping[str, Any] | Rows | None = None, out: str | Path | None = None,
          **keywords: Any) -> TrainedRun:  # noqa: ANN401 - what YAML can hold
    """Fine-tune a model, evaluate it beside the one it was, and write the run's folder.

    >>> pairs = [{"anchor": f"a cat number {n}", "positive": f"cat {n}"} for n in range(40)]
    >>> run = train("loss=mnrl", "model=mini", data=pairs, loop={"max_steps": 2}, out="runs/cats")
    >>> run.model.encode(["a cat"]).shape
    (1, 256)

    Args:
        *overrides: as on the command line, such as ``"loss=mnrl"`` and ``"loop.epochs=1"``.
        data: what ``data=`` takes; or rows: a list of mappings, a pandas or pyarrow table, a ``datasets.Dataset``, or a
            mapping of ``train`` and ``dev`` to such. Rows are written to ``data/`` in the run's folder, from where a
            resumed run reads them, and are checked as those of a file are. A mapping of anything else are keys below
            ``data=``.
        out: the run's folder, ``hydra.run.dir=``; None is a new one below ``outputs/train``.
        **keywords: further keys of ``configs/train.yaml``, such as ``loss="mnrl"``, ``model="minilm"``, ``seed=1`` and
            ``loop={"epochs": 1}``.

    Returns:
        The run: ``.folder``, ``.model`` and ``.report``.

    Raises:
        UserError: the line that the command would print after ``error:``.
        KeyboardInterrupt: the run was interrupted; a checkpoint was written, and ``resume=`` goes on from there.
    """
    from sentence_forge.train.interrupt import Interrupted
    from sentence_forge.train.job import run_config

    words = [*overrides, *words_of(keywords)]
    rows = data if is_rows(data) else None
    if rows is not None:
        words += ["data=file", "data.path=data"]  # the path is known when the run's folder is
    elif isinstance(data, Mapping):
        words += words_of({"data": data})
    elif data is not None:
        check_path(data, "data", ", or rows: a list of mappings, a table or a data set")
        words.append(f"data={data}")
    if out is not None:
        words.append(f"hydra.run.dir={Path(out)}")

    def job(config: DictConfig) -> Path:
        if rows is None:
            return run_config(config)
        from hydra.core.hydra_config import HydraConfig

        folder = Path(HydraConfig.get().runtime.output_dir)
        if (folder / "config.yaml").exists():
            raise UserError(f"{folder}: holds a run already; resume={folder} goes on with it, or give another out=")
        with _removed_on_error(folder), naming_rows_of(rows, folder / "data"):
            config.data.path = str(write_rows(rows, folder / "data"))
            return run_config(config)

    try:
        with _threads_kept():
            return TrainedRun(call("train", job, words))
    except Interrupted as stopped:
        signal.raise_signal(stopped.number)  # for the caller's own handler, which is back in its place
        raise KeyboardInterrupt(f"{stopped}; checkpoint: {stopped.folder}") from None


@contextlib.contextmanager
def _removed_on_error(folder: Path) -> Iterator[None]:
    """Remove the rows of a run that came to nothing."""
    from sentence_forge.runtime.files import remove
    from sentence_forge.runtime.locks import writer_lock

    try:
        yield
    except BaseException:
        if not (folder / "config.yaml").exists():
            with contextlib.suppress(OSError, UserError):  # another process writes there
                with writer_lock(folder):
                    remove(folder / "data")
                folder.rmdir()
        raise


@contextlib.contextmanager
def _threads_kept() -> Iterator[None]:
    """Give torch back the number of threads that the caller had."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
