"""Export a model and index a corpus from Python, as ``python -m export`` does."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.runtime.call import HasFolder, call, check_path, model_path, words_of
from sentence_forge.search.index import Index

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sentence_forge.encoders.encoder import Encoder


@dataclass(frozen=True)
class Exported:
    """An export on disk.

    Args:
        folder: holds ``model/``, ``model.onnx`` and, where a corpus was given, ``index/``.
    """

    folder: Path

    @functools.cached_property
    def index(self) -> Index:
        """The index, opened when first asked for.

        Raises:
            UserError: the export has none, since no corpus was given.
        """
        return Index.open(self.folder)


def export(model: HasFolder | Encoder | str | Path | None = None, corpus: str | Path | None = None, *,
           out: str | Path, **keywords: Any) -> Exported:  # noqa: ANN401 - the command's keys
    """Write a model as a folder and as ONNX, and index a corpus with it.

    Args:
        model: a run that ``train`` returned, a folder, a name (``minilm``), a hub id, or an ``Encoder`` with float32
            weights; None with ``only="index"``.
        corpus: a file of titles; None writes the model alone.
        out: the folder to write.
        **keywords: the command's keys, such as ``dim=96``, ``only="index"`` or ``**{"corpus.column": "headline"}``.

    Raises:
        UserError: the line that the command would print after ``error:``.

    >>> made = export("minilm", corpus="titles.csv", out="news")  # doctest: +SKIP
    >>> made.index.search(["winter air"], k=3)                    # doctest: +SKIP
    """
    given: Encoder | None = None
    if model is not None and not isinstance(model, str | Path | HasFolder):
        from sentence_forge.encoders.encoder import Encoder  # only here, so that other mistakes need no torch

        given = model if isinstance(model, Encoder) else None
    words = [] if model is None or given is not None else [f"model={model_path(model)}"]
    if corpus is not None:
        check_path(corpus, "corpus", " of a file of titles")
        words.append(f"corpus={corpus}")

    def job(config: DictConfig) -> Path:
        from sentence_forge.export.run import run, settings_of

        return run(settings_of(config), given)

    return Exported(call("export", job, [*words, f"out={out}", *words_of(keywords)]))
