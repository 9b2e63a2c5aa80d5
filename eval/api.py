"""Evaluate from Python: what ``python -m eval`` does, with an object as the answer."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.runtime.call import HasFolder, call, check_path, model_path, words_of
from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sentence_forge.configs.schema import Eval
    from sentence_forge.data_readers.training_hashes import Seen
    from sentence_forge.encoders.encoder import Encoder
    from sentence_forge.eval.evaluate import Evaluation
    from sentence_forge.eval.report.report import Report
    from sentence_forge.eval.tasks.base import Head, Task


def evaluate(model: str | Path | HasFolder | Encoder, baseline: str | Path | HasFolder | Encoder | None = None,
             suite: str | Path | Sequence[str] = "sample", data_dir: str | Path | None = None,
             **keywords: Any) -> Report:  # noqa: ANN401 - what YAML can hold
    """Measure a model on a suite of tasks, beside a baseline where one is given.

    Nothing is written (see ``Report.save``), the process is never left, and logging is left as it is.

    >>> from sentence_forge.encoders.encoder import Encoder
    >>> from sentence_forge.encoders.making.build import from_scratch
    >>> tiny = Encoder(from_scratch(lambda: ["a cat sat", "a dog ran"], hidden=32, layers=1, heads=2), name="tiny")
    >>> report = evaluate(tiny, suite="sample", resamples=20)
    >>> sorted(report.json["tasks"])
    ['sample-en-dev', 'sample-zh-dev']

    Args:
        model: a run, an ``Encoder``, or what ``model=`` takes: a folder, a run's folder, a name or a hub id. An
            ``Encoder`` brings neither its training's hashes nor its head, so give its run where you have it.
        baseline: likewise; each task then has the paired difference.
        suite: names of ``suite=``, or a file of scored pairs.
        data_dir: where the suite's files lie.
        **keywords: further keys of ``configs/eval.yaml``, such as ``resamples=`` or ``dims=``; a dotted key as
            ``**{"model.hidden": 32}``.

    Returns:
        The report: ``.json``, ``.save(folder)``; ``str()`` is the terminal's table, and a notebook shows it.

    Raises:
        UserError: the line that the command would print after ``error:``.
    """
    from sentence_forge.encoders.encoder import Encoder
    from sentence_forge.eval.report.report import Report

    given = {"model": model, "baseline": baseline}
    encoders = {key: each for key, each in given.items() if isinstance(each, Encoder)}
    words = [f"{key}={model_path(each)}" for key, each in given.items() if each is not None and key not in encoders]
    names = suite if isinstance(suite, list | tuple) else [suite]
    if not names:
        raise UserError("suite: is an empty list; give a name, a path or a list of names")
    for name in names:
        check_path(name, "suite", ", or a list of names")
    words.append(f"suite={suite if names is not suite else '[' + ','.join(map(str, names)) + ']'}")
    if data_dir is not None:
        words.append(f"data_dir={data_dir}")
    with tempfile.TemporaryDirectory() as nowhere:
        words += ["output=" + nowhere, *words_of(keywords)]
        return Report(call("eval", lambda config: measured(config, encoders), words))


def measured(config: DictConfig, encoders: Mapping[str, Encoder] | None = None) -> Evaluation:
    """Return the evaluation that a config of ``python -m eval`` asks for.

    Args:
        config: composed from ``configs/eval.yaml``.
        encoders: models that are loaded already, by ``model`` and ``baseline``.

    Raises:
        UserError: a setting, a file or a model is bad; files and folders are looked for before a model is loaded.
    """
    from omegaconf import OmegaConf

    settings: Eval = OmegaConf.to_object(config)  # type: ignore[assignment]
    encoders = encoders or {}
    if settings.model is None and "model" not in encoders:
        raise UserError("model: is needed; give model=<name, folder, run or hub id>")
    if settings.resamples < 1:
        raise UserError(f"resamples: is {settings.resamples}; it must be at least 1 (2000 is usual)")
    tasks, data_dir = _tasks(settings)
    others = [_node(name) for name in settings.models]
    if settings.blend is not None:
        if "model" in encoders:
            raise UserError("blend: is of a run, whose folder keeps what it began from; give the run as the model")
        from sentence_forge.encoders.making.blend import run_of

        run_of(settings.model)
    abouts = [_about(node) for node in [settings.model, *others]]  # a folder that is no model shows here
    from sentence_forge.encoders.computing.device import pick_device
    from sentence_forge.encoders.making.weights import source_folder
    from sentence_forge.eval.blends import with_blends
    from sentence_forge.eval.evaluate import evaluate
    from sentence_forge.eval.report.models import with_models
    from sentence_forge.eval.tasks.nli import load_head

    def on_tasks(node: Mapping[str, Any] | None, key: str, before: Evaluation | None = None, *,
                 deep: bool = False) -> Evaluation:
        encoder, head, seen = (encoders[key], None, None) if key in encoders else _loaded(node, settings, key)
        dims = _dims(settings.dims, abouts[0], encoder.dim) if deep else ()
        return evaluate(encoder, tasks, data_dir, resamples=settings.resamples, seed=settings.seed, baseline=before,
                        head=head, seen=seen, deep=deep, dims=dims)

    def on_blend(encoder: Encoder) -> Evaluation:
        encoder.model.to(pick_device(settings.device.value))
        head = load_head(source_folder(settings.model), encoder.dim, settings.plugins)
        return evaluate(encoder, tasks, data_dir, resamples=settings.resamples, seed=settings.seed, head=head,
                        deep=False)

    compared = settings.baseline is not None or "baseline" in encoders
    baseline = on_tasks(settings.baseline, "baseline") if compared else None
    first = on_tasks(settings.model, "model", baseline, deep=True)
    if settings.blend is not None:
        first = with_blends(first, settings.model, settings.blend, settings.plugins, on_blend)
    return with_models(first, [on_tasks(node, "models", baseline) for node in others], abouts)


def _tasks(settings: Eval) -> tuple[dict[str, Task], Path | None]:
    """Return the suite's tasks and the data folder, having looked for both."""
    from sentence_forge.runtime import targets

    tasks = {name: targets.build(node, f"suite.{name}", plugins=settings.plugins)
             for name, node in settings.suite.items() if node is not None}
    data_dir = None if settings.data_dir is None else Path(settings.data_dir).expanduser()
    if data_dir is not None and not data_dir.is_dir():
        raise UserError(f"data_dir={settings.data_dir}: no such folder")
    for task in tasks.values():
        task.locate(data_dir)
    return tasks, data_dir


def _node(name: str) -> dict[str, Any]:
    """Return the config of a further model: the name of an option of ``model=``, else a folder, a run or a hub id."""
    from hydra import compose
    from omegaconf import OmegaConf

    from sentence_forge.runtime.overrides import options

    option = name if name in options("model") and name != "folder" else "folder"
    node: Any = OmegaConf.to_container(compose("eval", [f"model={option}"]).model, resolve=True)
    return node | {"path": name} if option == "folder" else node


def _loaded(node: Mapping[str, Any] | None, settings: Eval, key: str) -> tuple[Encoder, Head | None, Seen | None]:
    """Return a model's encoder, and what its folder keeps of its training: its head and the hashes of its texts."""
    from sentence_forge.data_readers.training_hashes import Seen
    from sentence_forge.encoders.computing.device import pick_device
    from sentence_forge.encoders.encoder import Encoder
    from sentence_forge.encoders.making.weights import source_folder
    from sentence_forge.eval.tasks.nli import load_head
    from sentence_forge.runtime import targets

    assert node is not None
    model = targets.build(node, key, plugins=settings.plugins, texts=lambda: [])
    model.to(pick_device(settings.device.value))
    encoder = Encoder(model, name=str(node.get("path") or node[targets.TARGET]))
    folder = source_folder(node)
    return encoder, load_head(folder, encoder.dim, settings.plugins), Seen.of(folder)


def _dims(given: list[int] | None, about: Mapping[str, Any], dim: int) -> Sequence[int]:
    """Return the dimensions to measure at: those given, else those the model was trained for."""
    from sentence_forge.runtime.values import check_dims

    if given:
        return check_dims(given, dim, "dims")
    return () if given is not None else [each for each in about.get("dims", ()) if each <= dim]


def _about(node: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a model's folder says of its training; nothing where there is no folder."""
    from sentence_forge.encoders.card import read_about
    from sentence_forge.encoders.making.weights import source_folder

    folder = None if node is None else source_folder(node)
    return {} if folder is None else read_about(folder)
