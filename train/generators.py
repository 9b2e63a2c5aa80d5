"""The random generators: seeded, saved with a checkpoint, and put back so that a resumed run draws the same numbers."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators, on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def restore_generators(folder: Path, rank: int = 0) -> None:
    """Set all random generators to their states in a checkpoint; to be called last before training.

    Args:
        folder: the checkpoint.
        rank: of this process; one that was not there begins with a generator of its own.
    """
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    _restore(load_file(folder / "generators.safetensors"), state["generators"], rank)


def torch_generators() -> dict[str, Tensor]:
    """Return this process's torch generators: those that dropout draws from."""
    return {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def python_generators() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the states of NumPy's and Python's generators, as tensors and as JSON."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, words, next_gauss = random.getstate()
    return ({"numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))},
            {"numpy": [kind, position, has_gauss, gauss], "python": [version, list(words), next_gauss]})


def _restore(tensors: Mapping[str, Tensor], numbers: Mapping[str, Any], rank: int) -> None:
    if f"cpu.{rank}" in tensors:
        torch.set_rng_state(tensors[f"cpu.{rank}"])
    if torch.cuda.is_available() and f"cuda.{rank}" in tensors:
        torch.cuda.set_rng_state(tensors[f"cuda.{rank}"])
    kind, position, has_gauss, gauss = numbers["numpy"]
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, gauss))
    version, words, next_gauss = numbers["python"]
    random.setstate((version, tuple(words), next_gauss))
