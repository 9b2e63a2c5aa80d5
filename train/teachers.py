"""The models that a run's losses learn from: loaded once each, and asked for the vectors of all training texts."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch

from sentence_forge.encoders.encoder import Encoder
from sentence_forge.runtime import targets
from sentence_forge.runtime.errors import UserError

log = logging.getLogger(__name__)


class Teachers:
    """The teachers that the losses of a run name (``loss.teacher=``), loaded when they are first asked for.

    Args:
        device: where they compute.
        plugins: the user's packages.
    """

    def __init__(self, device: str, plugins: Collection[str] = ()) -> None:
        self.device, self.plugins = device, plugins
        self._loaded: dict[str, Encoder] = {}

    @property
    def fingerprints(self) -> dict[str, str]:
        """Those of the teachers that were asked for, by what the config calls them."""
        return {teacher.name: teacher.fingerprint for teacher in self._loaded.values()}

    def of(self, loss: Mapping[str, Any], key: str) -> Encoder | None:
        """Return the teacher of a loss's config; None where it has none.

        Args:
            loss: its ``teacher`` is a model's config, as ``model=`` gives it.
            key: of the loss, for errors.

        Raises:
            UserError: the model can't be had, or is one that is made from a run's texts.
        """
        node = loss.get("teacher")
        if node is None:
            return None
        name = json.dumps(node, sort_keys=True)
        if name not in self._loaded:
            if not node.get("path"):
                raise UserError(f"{key}.teacher: is a model without weights; give a trained one, as model= takes it")
            log.info("teacher: %s", node["path"])
            model = targets.build(node, f"{key}.teacher", plugins=self.plugins, texts=lambda: [])
            self._loaded[name] = Encoder(model.to(self.device), name=str(node["path"]))
        return self._loaded[name]


def checked(vectors: np.ndarray, teacher: str) -> torch.Tensor:
    """Return a teacher's vectors as a tensor.

    Raises:
        UserError: one is not finite.
    """
    if not np.isfinite(vectors).all():
        raise UserError(f"teacher {teacher}: gives vectors that are no numbers; its weights are damaged")
    return torch.from_numpy(vectors)
