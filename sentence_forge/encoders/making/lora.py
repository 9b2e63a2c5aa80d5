"""Low-rank adapters (LoRA; Hu et al. 2021) through peft: put into a model, merged into its weights, kept for resuming.

While adapters train, a model folder always holds the merged weights, so that nobody who loads it needs peft.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.runtime.errors import UserError, one_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

log = logging.getLogger(__name__)
FILE = "lora.safetensors"  # of a checkpoint: adapters, and the weights they stand beside


def check(lora: Mapping[str, Any] | None) -> bool:
    """Return whether adapters are asked for; imports nothing heavy.

    Raises:
        UserError: a value no adapter can have, or peft is not installed.
    """
    if lora is None:
        return False
    if not isinstance(lora, Mapping):
        raise UserError(f"model.lora: is {lora!r}; give {{r: 8}}, or model.lora.r=8")
    for name in lora:
        if name not in ("r", "alpha", "targets"):
            raise UserError(f"model.lora.{name}: there is no such key; {one_of(('r', 'alpha', 'targets'), name)}")
    rank, alpha = lora.get("r"), lora.get("alpha", 16)
    if rank is None:
        return False
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise UserError(f"model.lora.r: is {rank}; it must be a whole number above 0 (8 is usual), or null for none")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not alpha > 0:
        raise UserError(f"model.lora.alpha: is {alpha}; it must be above 0 (twice r is usual)")
    if importlib.util.find_spec("peft") is None:
        raise UserError("model.lora: needs the package peft; pip install 'sentence-forge[lora]', or pip install peft")
    return True


def add(model: SentenceTransformer, lora: Mapping[str, Any] | None, seed: int = 0) -> SentenceTransformer:
    """Put adapters, if any are asked for, into a model's transformer and freeze its weights; a Dense goes on training.

    Args:
        model: is changed in place and returned. It gives the same vectors as before: an adapter begins at zero.
        lora: ``r``, the rank, None for no adapters; ``alpha``, whose ratio to ``r`` scales the adapters; ``targets``,
            the names of the linear layers, or one pattern; None are peft's own for the family, or every linear layer.
        seed: of the adapters' weights.

    Raises:
        UserError: the model has no such layers, or is no transformer.
    """
    if lora is None or not check(lora):
        return model
    import torch
    from peft import LoraConfig, inject_adapter_in_model
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL

    transformer: Any = getattr(model[0], "auto_model", None)
    if transformer is None:
        raise UserError(f"model.lora: {type(model[0]).__name__} has no layers to adapt; leave model.lora out")
    targets = lora.get("targets") or USUAL.get(transformer.config.model_type, "all-linear")
    config = LoraConfig(r=lora["r"], lora_alpha=lora.get("alpha", 16),
                        target_modules=targets if isinstance(targets, str) else list(targets))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, transformer)
        except ValueError as error:
            linear = {name.rpartition(".")[2] for name, module in transformer.named_modules()
                      if isinstance(module, torch.nn.Linear)}
            raise UserError(f"model.lora.targets: {targets} can't be adapted in this model "
                            f"({str(error).splitlines()[0]}); {one_of(linear, str(targets))}") from None
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    log.info("lora: rank %d, %s of %s weights train", lora["r"], f"{sum(n for n, trains in counts if trains):,}",
             f"{sum(n for n, _ in counts):,}")
    return model


def adapted(model: SentenceTransformer) -> dict[str, Tensor]:
    """Return the state of a model's adapters and of the weights they stand beside; empty without adapters."""
    state = model.state_dict()
    layers = {name.partition(".lora_A.")[0] for name in state if ".lora_A." in name}
    return {name: tensor.contiguous() for name, tensor in state.items()
            if any(name.startswith(f"{layer}.") for layer in layers)}


def merged(model: SentenceTransformer) -> SentenceTransformer:
    """Return a copy of a model with its adapters merged into its weights; the model itself where it has none."""
    if not adapted(model):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = copy.deepcopy(model)
    for parent in list(plain.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                child.merge()
                setattr(parent, name, child.get_base_layer())
    for module in plain.modules():
        module.__dict__.pop("peft_config", None)
        if module.__dict__.pop("_hf_peft_config_loaded", False):  # would write adapters, under their names
            module.__dict__.pop("_weight_conversions", None)
    return plain.requires_grad_(True)


def resumed(state: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Return the state of a model with adapters: its merged one, and what ``adapted`` kept of it in ``file``."""
    from safetensors.torch import load_file

    kept = load_file(file)
    layers = {name.partition(".lora_A.")[0] for name in kept if ".lora_A." in name}
    return {name: tensor for name, tensor in state.items() if name.rpartition(".")[0] not in layers} | kept
