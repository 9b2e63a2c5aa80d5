"""Load a model and read rows from Python, as the commands do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset
    from omegaconf import DictConfig

    from sentence_forge.encoders.encoder import Encoder


def load(model: str | Path, device: str = "auto", **keywords: Any) -> Encoder:  # noqa: ANN401 - keys of the model's YAML
    """Load a model by what ``model=`` takes on the command line.

    Args:
        model: a name (``minilm``), a folder, a run, an export or a hub id.
        device: ``auto``, ``cpu`` or ``cuda``.
        **keywords: keys of the model's YAML, such as ``max_length=64``.

    Returns:
        The encoder; ``encode(texts)`` gives float32 vectors of shape ``[n, dim]``.

    Raises:
        UserError: there is no such model, or its files are damaged.

    >>> load("minilm").encode(["A man eats.", "Somebody is eating."]).shape
    (2, 384)
    """
    from sentence_forge.runtime.call import call, check_path, words_of

    check_path(model, "model")

    def job(config: DictConfig) -> Encoder:
        from omegaconf import OmegaConf

        from sentence_forge.encoders.computing.device import pick_device
        from sentence_forge.encoders.encoder import Encoder
        from sentence_forge.runtime import targets

        node: Any = OmegaConf.to_container(config.model, resolve=True, throw_on_missing=True)
        built = targets.build(node, "model", texts=lambda: [])
        return Encoder(built.to(pick_device(device)), name=str(node.get("path") or model))

    return call("export", job, [f"model={model}", *words_of({"model": keywords})])


def read(path: str | Path, shape: str | None = None, split: str | None = None,
         **keywords: Any) -> Dataset:  # noqa: ANN401 - arguments of FileSource
    """Read the rows of a file strictly: a bad row is an error that names its line and column.

    Args:
        path: a CSV, TSV, JSON lines or Parquet file, or a folder with ``train.*`` and perhaps ``dev.*``.
        shape: what to make of the rows (``pair``, ``triplet``, ``pair_score``, ...); None is what the columns say.
        split: ``train`` or ``dev``, as a training would split them; None gives every row of a lone file, and the
            training rows of a folder.
        **keywords: what ``data=file`` takes, such as ``columns={"premise": "text_a"}`` and ``score_range=[1, 5]``.

    Returns:
        The shape's columns and ``row``, the number of the row in its file from 1.

    Raises:
        UserError: the file is missing, its columns make no shape, or a row is bad.
    """
    import numpy as np
    from datasets import concatenate_datasets

    from sentence_forge.runtime import targets
    from sentence_forge.runtime.call import check_path

    check_path(path, "path")
    source = targets.build({targets.TARGET: "data_readers.file.FileSource", "path": str(path), **keywords}, "data")
    shape = shape or source.shapes()[0]
    if split is not None or len(source.paths()) > 1:
        return source.read(shape, split or "train")
    rows = concatenate_datasets([source.read(shape, "train"), source.read(shape, "dev")])
    return rows.select(np.argsort(rows["row"], kind="stable"))
