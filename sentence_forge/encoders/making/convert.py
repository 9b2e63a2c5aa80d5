"""Convert weights from pickles (``pytorch_model.bin``) to safetensors, once, by torch's restricted unpickler."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from sentence_forge.encoders.making.weights import PICKLE, Weights, modules_of
from sentence_forge.runtime.cache import cached, folder_of
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import sha256_file

log = logging.getLogger(__name__)
_LEFT_OUT = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".ot", ".msgpack", ".onnx")


def as_safetensors(weights: Weights, name: str) -> Weights:
    """Return weights in safetensors: the given ones, or of a folder with only pickles a converted copy in the cache.

    Pickles beside safetensors are ignored.

    Args:
        weights: of a folder that ``making.safety.vet`` has let pass.
        name: what the user called it.

    Raises:
        UserError: there are no weights, or a pickle holds more than tensors.
    """
    lack = [part for part in weights.parts if not any(part.glob("*.safetensors"))]
    for part in lack:
        shards = any(part.glob(f"{PICKLE}.index.json"))
        if not (part / PICKLE).is_file() and (shards or any(part.glob("*.bin")) or weights.origin.startswith("hub ")):
            raise UserError(f"{name}: has neither model.safetensors nor {PICKLE}{' in one piece' if shards else ''}; "
                            "other weights are not read")
    pickles = [part / PICKLE for part in lack if (part / PICKLE).is_file()]
    if not pickles:
        return weights
    files = {file.relative_to(weights.folder).as_posix(): file for folder in _folders(weights.folder)
             for file in sorted(folder.iterdir())
             if file.is_file() and (file in pickles or file.suffix not in _LEFT_OUT)}
    key = hashlib.sha256(json.dumps([[each, sha256_file(file)] for each, file in sorted(files.items())]).encode())

    def make(staged: Path) -> dict[str, Any]:
        log.info("model: %s is converted to safetensors, once, below %s", PICKLE, folder_of("weights"))
        for relative, file in files.items():
            target = staged / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            if file in pickles:
                _convert(file, target.with_name("model.safetensors"))
            else:
                shutil.copyfile(file, target)
        return {"from": weights.origin}

    try:
        size = sum(file.stat().st_size for file in files.values())
        return replace(weights, folder=cached("weights", key.hexdigest(), make, needs=size))
    except OSError as error:
        raise UserError(f"{name}: its {PICKLE} can't be made safetensors below {folder_of('weights')} ({error}); "
                        "set SENTENCE_FORGE_CACHE to a folder that can be written") from None


def _folders(folder: Path) -> list[Path]:
    """Return a model's folder and those of its modules."""
    paths = {folder, *(part for part, _ in modules_of(folder))} if (folder / "modules.json").is_file() else {folder}
    return sorted(path for path in paths if path.is_dir())


def _convert(file: Path, target: Path) -> None:
    import torch
    from safetensors.torch import save_file

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # as many kinds as there are ways to damage a pickle; their texts are advice on trust
        raise UserError(f"{file}: can't be read as weights alone ({type(error).__name__}), so it is refused: it is "
                        "damaged, or would run code; give a model with model.safetensors") from None
    if not isinstance(state, dict) or not state or not all(
            isinstance(each, torch.Tensor) and each.layout == torch.strided for each in state.values()):
        raise UserError(f"{file}: holds something else than named tensors; give a model with model.safetensors")
    whole = {str(each): tensor.detach().clone().contiguous() for each, tensor in state.items()}  # none shared
    save_file(whole, target, metadata={"format": "pt"})
