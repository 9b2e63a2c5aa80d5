"""Where to compute."""

from __future__ import annotations

import torch

from runtime.errors import UserError


def pick_device(name: str = "auto") -> str:
    """Return the device a user means: ``auto`` is the first of cuda, mps and cpu that is here.

    Raises:
        UserError: the device is not here.
    """
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(each for each, available in here.items() if available)
    if not here[name.partition(":")[0]]:
        raise UserError(f"device={name}: there is no {name} here; use device=auto or device=cpu")
    return name
