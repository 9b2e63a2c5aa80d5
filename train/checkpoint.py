"""Checkpoints that hold everything with a state, and can't lie: staged, checksummed, renamed, verified on loading."""

from __future__ import annotations

import json
import logging
import os
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
from torch import Tensor

from losses.base import Loss
from runtime.errors import UserError
from runtime.files import fsync, read_manifest, staged_folder, write_manifest

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
         state: Mapping[str, Any], best: Path | None = None) -> None:
    """Write one checkpoint; ``folder`` appears only when all of it is on the disk.

    Args:
        folder: ``.../step-N``; one that is there is replaced.
        model: saved as a sentence-transformers folder, ``model/``.
        loss: its own weights lie in ``model/`` too.
        optimizer: tensors as safetensors, the rest as JSON.
        state: the loop's own, JSON-ready.
        best: the folder of the best model so far; kept as ``best/`` by links, so that going back loses neither.

    Raises:
        UserError: the disk is full.
    """
    tensors, rest = _split(optimizer.state_dict())
    needs = sum(tensor.nbytes for part in (model.state_dict(), loss.state_dict(), tensors) for tensor in part.values())
    with staged_folder(folder, replace=True, needs=needs) as staged:
        save_model(staged / "model", model, loss)
        save_file(tensors, staged / "optimizer.safetensors")
        generators, numbers = _generators()
        save_file(generators, staged / "generators.safetensors")
        (staged / "state.json").write_text(
            json.dumps({"loop": state, "optimizer": rest, "generators": numbers}), encoding="utf-8")
        if best is not None and best.is_dir():
            _link(best, staged / "best")
        write_manifest(staged, {"step": state["step"]})


def load(folder: Path, *, model: SentenceTransformer, loss: Loss, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put the state of a ``verified`` checkpoint into freshly built parts, and return the loop's own state.

    The random generators are left to ``restore_generators``, since whatever is built after this may draw from them.
    """
    saved = SentenceTransformer(str(folder / "model"), device="cpu", local_files_only=True,
                                model_kwargs={"dtype": "float32"})
    model.load_state_dict(saved.state_dict())
    if (folder / "model" / "loss.safetensors").is_file():
        loss.load_state_dict(load_file(folder / "model" / "loss.safetensors"))
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    optimizer.load_state_dict(_joined(load_file(folder / "optimizer.safetensors"), state["optimizer"]))
    return state["loop"]


def restore_generators(folder: Path) -> None:
    """Let every random generator go on as it stood in a checkpoint; to be called last before training."""
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    _restore_generators(load_file(folder / "generators.safetensors"), state["generators"])


def restore_best(folder: Path, model: Path) -> None:
    """Let ``model`` be the best model as of a checkpoint: a run that went on from there may have had another since."""
    if (folder / "best").is_dir():
        with staged_folder(model, replace=True) as staged:
            _link(folder / "best", staged)
    elif model.is_dir():
        shutil.rmtree(model)


def verified(run: Path, given: Path) -> Path:
    """Return the checkpoint to go on from: ``given``, if it is one, else the run's newest good one.

    Raises:
        UserError: it is damaged, or there is none.
    """
    if given.parent.name != "checkpoints":
        return newest_good(run)
    read_manifest(given)
    return given


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
    """Remove all but the newest ``keep`` checkpoints; a kill meanwhile leaves whole ones only."""
    for folder in steps(run)[: -max(1, keep)]:
        going = folder.with_name(f".tmp-{folder.name}-pruned")
        folder.rename(going)
        shutil.rmtree(going)


def set_aside_later(run: Path, step: int) -> None:
    """Rename the checkpoints after ``step``, which a run going on from there would else take for its own."""
    for folder in steps(run):
        if int(folder.name.rpartition("-")[2]) > step:
            aside = folder.with_name(f"replaced-{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            log.info("%s: set aside as %s; remove it when you don't need it", folder, aside.name)


def _link(source: Path, target: Path) -> None:
    """Give ``source``'s files a second name in ``target``; copies where the file system has no links."""
    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copy(one, other)
            fsync(Path(other))

    shutil.copytree(source, target, copy_function=link, dirs_exist_ok=True)


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
