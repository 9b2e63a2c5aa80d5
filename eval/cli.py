"""``python -m eval``: a model on a suite of tasks, beside a baseline where one is given."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from runtime.cli import entry
from runtime.errors import UserError

log = logging.getLogger(__name__)

ABOUT = """
Measure a model on semantic textual similarity; writes report.json, report.md and report.html.

  python -m eval model=outputs/train/<run> suite=sts data_dir=<folder>
  python -m eval model=./my-model suite=file file=pairs.csv          your scored pairs
  python -m eval model=outputs/train/<run> baseline=minilm           by how much it is better, and how sure

A folder, a run or a hub id is a model. suite=[sts,file] measures several; score_range=[0,5] is the file's.
"""


def main() -> None:
    """Evaluate; see ``configs/eval.yaml``."""
    entry("eval", _job, ABOUT, ("model", "suite"))


def _job(config: Any) -> None:  # noqa: ANN401 - a DictConfig
    from omegaconf import OmegaConf

    from configs.schema import Eval
    from eval.evaluate import evaluate
    from runtime import targets

    output = Path(config.output)
    made = output if output.is_dir() and not any(output.iterdir()) else None
    try:
        settings: Eval = OmegaConf.to_object(config)  # type: ignore[assignment]
        if settings.model is None:
            raise UserError("model: is needed; give model=<name, folder, run or hub id>")
        if settings.resamples < 1:
            raise UserError(f"resamples: is {settings.resamples}; it must be at least 1 (2000 is usual)")
        tasks = {name: targets.build(node, f"suite.{name}", plugins=settings.plugins)
                 for name, node in settings.suite.items()}
        data_dir = None if settings.data_dir is None else Path(settings.data_dir).expanduser()
        if data_dir is not None and not data_dir.is_dir():
            raise UserError(f"data_dir={settings.data_dir}: no such folder")
        for task in tasks.values():
            task.locate(data_dir)  # a file that is missing shows before the model is loaded
        from eval.report import write_report
        from eval.terminal import terminal

        baseline = None
        if settings.baseline is not None:
            baseline = evaluate(_encoder(settings.baseline, settings, "baseline"), tasks, data_dir,
                                resamples=settings.resamples, seed=settings.seed)
        report = evaluate(_encoder(settings.model, settings, "model"), tasks, data_dir, resamples=settings.resamples,
                          seed=settings.seed, baseline=baseline)
        write_report(report, output)
        log.info("%s\nreport: %s", terminal(report), output / "report.html")
    finally:
        if made is not None and made.is_dir() and not any(made.iterdir()):
            made.rmdir()


def _encoder(node: dict[str, Any], settings: Any, key: str) -> Any:  # noqa: ANN401 - encoders.encoder.Encoder
    from encoders.encoder import Encoder, best_device
    from runtime import targets

    model = targets.build(node, key, plugins=settings.plugins, texts=lambda: [])
    model.to(best_device() if settings.device.value == "auto" else settings.device.value)
    return Encoder(model, name=str(node.get("path") or node[targets.TARGET]))
