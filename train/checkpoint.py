"""Write checkpoints so that a crash leaves no half of one, verify them, and load them to go on from."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from sentence_forge.encoders.making import lora
from sentence_forge.losses.loss_set import LossSet
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import fsync, remove, staged_folder
from sentence_forge.runtime.manifests import read_manifest, write_manifest
from sentence_forge.train.generators import python_generators, torch_generators
from sentence_forge.train.resume import has_checkpoints

log = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d+)")


def save_model(folder: Path, model: SentenceTransformer, losses: LossSet) -> None:
    """Write a sentence-transformers folder, with the losses' own weights beside it where they have some."""
    lora.merged(model).save_pretrained(str(folder), create_model_card=False)
    losses.save(folder)


@dataclass(frozen=True)
class Snapshot:
    """All that a checkpoint holds, as of one step; training may go on meanwhile.

    Args:
        model: the model's state, copied, on its own device.
        losses: that of the losses.
        optimizer: the optimizer's tensors.
        generators: the random generators' tensors.
        rest: JSON of the loop's state and of what of the optimizer and the generators is no tensor.
        step: the step.
    """

    model: dict[str, Tensor]
    losses: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    generators: dict[str, Tensor]
    rest: str
    step: int

    @property
    def nbytes(self) -> int:
        """How much there is to write."""
        return sum(tensor.nbytes for part in (self.model, self.losses, self.optimizer) for tensor in part.values())


def snapshot(*, model: nn.Module, losses: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any],
             others: Sequence[Mapping[str, Tensor]] = (), to: str | None = None) -> Snapshot:
    """Copy what a checkpoint holds: device to device, so a GPU is not made to wait.

    Args:
        model: the model.
        losses: their own weights are part of it.
        optimizer: likewise.
        state: the loop's own, JSON-ready, with the key ``step``.
        others: ``torch_generators`` of the other processes, in the order of their numbers.
        to: the device to copy to, where it shall be another.
    """
    def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.detach().to(to or tensor.device, copy=True) for name, tensor in tensors.items()}

    tensors, rest = _split(optimizer.state_dict())
    drawn, numbers = python_generators()
    for rank, each in enumerate([torch_generators(), *others]):
        drawn |= {f"{name}.{rank}": value for name, value in each.items()}
    return Snapshot(copied(model.state_dict()), copied(losses.state_dict()), copied(tensors), drawn,
                    json.dumps({"loop": state, "optimizer": rest, "generators": numbers}), int(state["step"]))


def write(folder: Path, taken: Snapshot, *, model: SentenceTransformer, losses: LossSet,
          best: Path | None = None) -> None:
    """Write a snapshot on the CPU as a checkpoint; ``folder`` appears only when all of it is on the disk.

    Args:
        folder: ``.../step-N``; one that is there is replaced.
        taken: its tensors on the CPU.
        model: built like the one it was taken of; is given the snapshot's state and saved as a folder, ``model/``.
        losses: likewise; their own weights lie in ``model/`` too.
        best: the folder of the best model so far; linked as ``best/``, so that a run resumed from here has it.

    Raises:
        UserError: the disk is full.
    """
    model.load_state_dict(taken.model)
    losses.load_state_dict(taken.losses)
    with staged_folder(folder, replace=True, needs=taken.nbytes) as staged:
        save_model(staged / "model", model, losses)
        if adapters := lora.adapted(model):
            save_file(adapters, staged / lora.FILE)
        save_file(taken.optimizer, staged / "optimizer.safetensors")
        save_file(taken.generators, staged / "generators.safetensors")
        (staged / "state.json").write_text(taken.rest, encoding="utf-8")
        if best is not None and best.is_dir():
            _link(best, staged / "best")
        write_manifest(staged, {"step": taken.step})


def load(folder: Path, *, model: SentenceTransformer, losses: LossSet, optimizer: torch.optim.Optimizer,
         trust_remote_code: bool = False) -> dict[str, Any]:
    """Put the state of a ``verified`` checkpoint into freshly built parts, and return the loop's own state.

    The random generators are left to ``train.generators``, since whatever is built after this may draw from them.
    """
    saved = SentenceTransformer(str(folder / "model"), device="cpu", local_files_only=True,
                                trust_remote_code=trust_remote_code, model_kwargs={"dtype": "float32"})
    weights, adapters = saved.state_dict(), folder / lora.FILE
    model.load_state_dict(lora.resumed(weights, adapters) if adapters.is_file() else weights)
    losses.load(folder / "model")
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    optimizer.load_state_dict(_joined(load_file(folder / "optimizer.safetensors"), state["optimizer"]))
    return state["loop"]


def restore_best(folder: Path, model: Path) -> None:
    """Let ``model`` be the best model as of a checkpoint: a run that went on from there may have had another since."""
    if (folder / "best").is_dir():
        with staged_folder(model, replace=True) as staged:
            _link(folder / "best", staged)
    else:
        remove(model)


def resumed(run: Path, given: str | None, *, first: bool) -> Path | None:
    """Return the checkpoint to go on from; None starts anew, as does a run that stopped before its first one.

    Args:
        run: the run's folder.
        given: the run or one of its checkpoints; None is a run that begins.
        first: whether this process is the one that removes what a run without checkpoints has logged.

    Raises:
        UserError: the checkpoint is damaged or not there, or what else of the run is needed was removed.
    """
    if given is None:
        return None
    if has_checkpoints(run) or Path(given) != run:
        if not (run / "untouched").is_dir():
            raise UserError(f"{run / 'untouched'}: is gone, and the report compares with it; put it back, or start a "
                            f"run with model={run}")
        return verified(run, Path(given))
    if (run / "report" / "report.json").exists():
        raise UserError(f"{run}: is finished and has no checkpoint any more, so it can't be gone on with; start a run "
                        f"with model={run}")
    log.info("%s: stopped before its first checkpoint; it starts again", run)
    for name in ("metrics.jsonl", "tensorboard", "model") if first else ():
        remove(run / name)  # comes again
    return None


def verified(run: Path, given: Path) -> Path:
    """Return the checkpoint to go on from: ``given``, if it is one, else the run's newest good one.

    Raises:
        UserError: it is damaged, or there is none.
    """
    if given == run:
        return newest_good(run)
    if not given.is_dir():
        raise UserError(f"{given}: there is no such checkpoint; the run has "
                        f"{', '.join(folder.name for folder in steps(run)) or 'none'}")
    read_manifest(given)
    return given


def newest_good(run: Path) -> Path:
    """Return the newest undamaged checkpoint of a run; each damaged one is logged.

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
    """Remove all but the newest ``keep`` checkpoints; a kill meanwhile leaves no damaged one."""
    for folder in steps(run)[: -max(1, keep)]:
        going = folder.with_name(f".tmp-{folder.name}-pruned")
        folder.rename(going)
        remove(going)


def set_aside_later(run: Path, step: int) -> None:
    """Rename the checkpoints after ``step``, which a run going on from there would else take for its own."""
    for folder in steps(run):
        if int(folder.name.rpartition("-")[2]) > step:
            aside = folder.with_name(f"replaced-{folder.name}")
            remove(aside)
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
    """Split an optimizer's state into tensors and JSON."""
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
