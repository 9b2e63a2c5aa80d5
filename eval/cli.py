"""``python -m eval``: a model on a suite of tasks, beside a baseline and other models where they are given."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentence_forge.runtime.cli import entry
from sentence_forge.runtime.errors import UserError

log = logging.getLogger(__name__)

ABOUT = """
Measure a model; writes report.json, report.md and report.html.

  python -m eval model=outputs/train/<run> suite=sts data_dir=<folder>
  python -m eval model=./my-model suite=file file=pairs.csv          your scored pairs
  python -m eval model=outputs/train/<run> baseline=minilm           by how much it is better, and how sure
  python -m eval model=<a> baseline=<b> models=[<c>,<d>]             several in one table; seeds as mean and sd
  python -m eval model=<a> 'dims=[384,192,96]'                       what cutting the vectors loses (matryoshka)
  python -m eval.compare outputs/*/*                                 a leaderboard of what was measured before

A folder, a run or a hub id is a model. suite=[sts,retrieval] measures several; score_range=[0,5] is the file's.
"""


def main() -> None:
    """Evaluate; see ``configs/eval.yaml``."""
    entry("eval", _job, ABOUT, ("model", "suite"))


def _job(config: Any) -> None:  # noqa: ANN401 - a DictConfig
    from omegaconf import OmegaConf

    from sentence_forge.configs.schema import Eval
    from sentence_forge.eval.evaluate import evaluate
    from sentence_forge.runtime import targets

    output = Path(config.output)
    made = output if output.is_dir() and not any(output.iterdir()) else None
    try:
        settings: Eval = OmegaConf.to_object(config)  # type: ignore[assignment]
        if settings.model is None:
            raise UserError("model: is needed; give model=<name, folder, run or hub id>")
        if settings.resamples < 1:
            raise UserError(f"resamples: is {settings.resamples}; it must be at least 1 (2000 is usual)")
        tasks = {name: targets.build(node, f"suite.{name}", plugins=settings.plugins)
                 for name, node in settings.suite.items() if node is not None}
        data_dir = None if settings.data_dir is None else Path(settings.data_dir).expanduser()
        if data_dir is not None and not data_dir.is_dir():
            raise UserError(f"data_dir={settings.data_dir}: no such folder")
        for task in tasks.values():
            task.locate(data_dir)  # a file that is missing shows before the model is loaded
        others = [_node(name) for name in settings.models]
        abouts = [_about(node) for node in [settings.model, *others]]  # a folder that is no model shows now, too
        from sentence_forge.eval.report.models import with_models
        from sentence_forge.eval.report.terminal import terminal
        from sentence_forge.eval.report.writing import write_report

        def measured(node: Mapping[str, Any], key: str, baseline: Any = None, *, deep: bool = False) -> Any:  # noqa: ANN401
            encoder, head, seen = _loaded(node, settings, key)
            dims = _dims(settings.dims, abouts[0], encoder.dim) if deep else ()
            return evaluate(encoder, tasks, data_dir, resamples=settings.resamples, seed=settings.seed,
                            baseline=baseline, head=head, seen=seen, deep=deep, dims=dims)

        baseline = None if settings.baseline is None else measured(settings.baseline, "baseline")
        report = measured(settings.model, "model", baseline, deep=True)
        further = [measured(node, "models", baseline) for node in others]
        report = with_models(report, further, abouts)
        write_report(report, output)
        log.info("%s\nreport: %s", terminal(report), output / "report.html")
    finally:
        if made is not None and made.is_dir() and not any(made.iterdir()):
            made.rmdir()


def _node(name: str) -> dict[str, Any]:
    """Return the config of a further model: the name of an option of ``model=``, else a folder, a run or a hub id."""
    from hydra import compose
    from omegaconf import OmegaConf

    from sentence_forge.runtime.overrides import options

    option = name if name in options("model") and name != "folder" else "folder"
    node: Any = OmegaConf.to_container(compose("eval", [f"model={option}"]).model, resolve=True)
    return node | {"path": name} if option == "folder" else node


def _loaded(node: Mapping[str, Any], settings: Any, key: str) -> tuple[Any, Any, Any]:  # noqa: ANN401
    """Return a model's encoder, and what its folder keeps of its training: its head and the hashes of its texts."""
    from sentence_forge.data_readers.training_hashes import Seen
    from sentence_forge.encoders.computing.device import pick_device
    from sentence_forge.encoders.encoder import Encoder
    from sentence_forge.encoders.making.weights import source_folder
    from sentence_forge.eval.tasks.nli import load_head
    from sentence_forge.runtime import targets

    model = targets.build(node, key, plugins=settings.plugins, texts=lambda: [])
    model.to(pick_device(settings.device.value))
    encoder = Encoder(model, name=str(node.get("path") or node[targets.TARGET]))
    folder = source_folder(node)
    return encoder, load_head(folder, encoder.dim), Seen.of(folder)


def _dims(given: list[int] | None, about: Mapping[str, Any], dim: int) -> Sequence[int]:
    """Return the dimensions to measure at: those given, else those the model was trained for."""
    from sentence_forge.runtime.values import check_dims

    if given:
        return check_dims(given, dim, "dims")
    return () if given is not None else [each for each in about.get("dims", ()) if each <= dim]


def _about(node: Mapping[str, Any]) -> dict[str, Any]:
    from sentence_forge.encoders.card import read_about
    from sentence_forge.encoders.making.weights import source_folder

    folder = source_folder(node)
    return {} if folder is None else read_about(folder)
