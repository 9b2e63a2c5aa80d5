"""Checkpoints that hold everything with a state, and can't lie: staged, checksummed, renamed, verified on loading."""

from __future__ import annotations

import json
import logging
import random
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from losses.base import Loss
from runtime.errors import UserError
from runtime.files import read_manifest, staged_folder, write_manifest

log = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d+)")


def save_model(folder: Path, model: SentenceTransformer, loss: Loss) -> None:
    """Write a sentence-transformers folder, with the loss's own weights beside it where it has some."""
    model.save_pretrained(str(folder), create_model_card=False)
    if any(True for _ in loss.parameters()):
        save_file({name: tensor.contiguous() for name, tensor in loss.state_dict().items()},
                  folder / "loss.safetensors")
        (folder / "loss.json").write_text(json.dumps(loss.describe(), ensure_ascii=False, indent=2), encoding="utf-8")


def save(folder: Path, *, model: SentenceTransformer, loss: Loss, optimizer: torch.optim.Optimizer,
         state: Mapping[str, Any]) -> None:
    """Write one checkpoint; ``folder`` appears only when all of it is on the disk.

    Args:
        folder: ``.../step-N``; one that is there is replaced.
        model: saved as a sentence-transformers folder, ``model/``.
        loss: its own weights lie in ``model/`` too.
        optimizer: tensors as safetensors, the rest as JSON.
        state: the loop's own, JSON-ready.
    """
    with staged_folder(folder, replace=True) as staged:
        save_model(staged / "model", model, loss)
        tensors, rest = _split(optimizer.state_dict())
        save_file(tensors, staged / "optimizer.safetensors")
        generators, numbers = _generators()
        save_file(generators, staged / "generators.safetensors")
        (staged / "state.json").write_text(
            json.dumps({"loop": state, "optimizer": rest, "generators": numbers}), encoding="utf-8")
        write_manifest(staged, {"step": state["step"]})


def load(folder: Path, *, model: SentenceTransformer, loss: Loss, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put a verified checkpoint's state into freshly built parts, and return the loop's own state."""
    read_manifest(folder)
    saved = SentenceTransformer(str(folder / "model"), device="cpu", local_files_only=True,
                                model_kwargs={"dtype": "float32"})
    model.load_state_dict(saved.state_dict())
    if (folder / "model" / "loss.safetensors").is_file():
        loss.load_state_dict(load_file(folder / "model" / "loss.safetensors"))
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    optimizer.load_state_dict(_joined(load_file(folder / "optimizer.safetensors"), state["optimizer"]))
    _restore_generators(load_file(folder / "generators.safetensors"), state["generators"])
    return state["loop"]


def newest_good(run: Path) -> Path:
    """Return the newest checkpoint of a run whose files are whole; each damaged one is named in a line.

    Raises:
        UserError: there is none.
    """
    for folder in reversed(steps(run)):
        try:
            read_manifest(folder)
        except UserError as error:
            log.warning("passed over: %s", error)
        else:
            return folder
    raise UserError(f"{run}: has no whole checkpoint to go on from; start the run anew")


def steps(run: Path) -> list[Path]:
    """Return a run's checkpoint folders, oldest first."""
    found = [(int(match[1]), folder) for folder in (run / "checkpoints").glob("step-*")
             if (match := _NAME.fullmatch(folder.name))]
    return [folder for _, folder in sorted(found)]


def prune(run: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints."""
    for folder in steps(run)[: -max(1, keep)]:
        shutil.rmtree(folder)


def _split(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Part an optimizer's state into tensors and JSON."""
    tensors = {f"{number}/{name}": value.contiguous() for number, entry in state["state"].items()
               for name, value in entry.items() if isinstance(value, Tensor)}
    rest = {str(number): {name: value for name, value in entry.items() if not isinstance(value, Tensor)}
            for number, entry in state["state"].items()}
    return tensors, {"state": rest, "param_groups": state["param_groups"]}


def _joined(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(number): dict(entry) for number, entry in rest["state"].items()}
    for key, value in tensors.items():
        number, name = key.split("/", 1)
        state[int(number)][name] = value
    return {"state": state, "param_groups": rest["param_groups"]}


def _generators() -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda{number}": value for number, value in enumerate(torch.cuda.get_rng_state_all())}
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    tensors["numpy"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
    version, words, next_gauss = random.getstate()
    return tensors, {"numpy": [kind, position, has_gauss, gauss], "python": [version, list(words), next_gauss]}


def _restore_generators(tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    torch.set_rng_state(tensors["cpu"])
    if torch.cuda.is_available() and "cuda0" in tensors:
        torch.cuda.set_rng_state_all([tensors[f"cuda{n}"] for n in range(torch.cuda.device_count())
                                      if f"cuda{n}" in tensors])
    kind, position, has_gauss, gauss = numbers["numpy"]
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, gauss))
    version, words, next_gauss = numbers["python"]
    random.setstate((version, tuple(words), next_gauss))


def load_head(folder: Path, loss: nn.Module) -> None:
    """Load a model folder's loss weights into ``loss``."""
    loss.load_state_dict(load_file(folder / "loss.safetensors"))
