"""The losses of a run: built from their configs, saved beside the model, and read again."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sentence_forge.losses.base import Loss
from sentence_forge.losses.matryoshka import Matryoshka
from sentence_forge.runtime import targets
from sentence_forge.runtime.errors import UserError

log = logging.getLogger(__name__)
OF_THE_RUN = ("shapes", "sampler", "dims", "dim_weights", "teacher")
"""Keys of a loss's config that are not its arguments."""
DESCRIBED, WEIGHTS = "loss.json", "loss.safetensors"
_ALONE = "losses.0."


class LossSet(nn.Module):
    """The losses of a run: one, or of a mix of sources several.

    Args:
        configs: of each loss its ``_target_`` with all arguments (see ``runtime.targets.bound``), and ``dims`` and
            ``dim_weights`` where vectors are trained at several lengths; by the name of the first source that is
            trained by it. The only source of a run has the name "".
        plugins: the user's packages.

    >>> head = {"_target_": "losses.softmax.Softmax", "dim": 8, "labels": ["no", "yes"]}
    >>> losses = LossSet({"": {**head, "dims": [8, 4]}})
    >>> {name: tuple(tensor.shape) for name, tensor in losses.weights().items() if name.endswith("weight")}
    {'losses.0.classifier.weight': (2, 24), 'losses.1.classifier.weight': (2, 12)}
    """

    def __init__(self, configs: Mapping[str, Mapping[str, Any]], plugins: Collection[str] = ()) -> None:
        super().__init__()
        self.configs = dict(configs)
        self.losses = nn.ModuleList(_built(config, plugins) for config in configs.values())
        self._prefix = _ALONE if list(configs) == [""] else ""  # the weights of a lone loss have its own names

    def __getitem__(self, name: str) -> Loss:
        """Return the loss of a name in ``configs``."""
        found = self.losses[list(self.configs).index(name)]
        assert isinstance(found, Loss)
        return found

    def weights(self) -> dict[str, Tensor]:
        """Return the losses' own weights by the names under which they are saved."""
        return {name.removeprefix(self._prefix): tensor.contiguous() for name, tensor in self.state_dict().items()}

    def save(self, folder: Path) -> None:
        """Write ``loss.json`` and ``loss.safetensors`` into a model's folder, if a loss has weights or buffers."""
        if not self.weights():
            return
        save_file(self.weights(), folder / WEIGHTS)
        about = self.configs[""] if self._prefix else {"sources": self.configs}
        (folder / DESCRIBED).write_text(json.dumps(about, ensure_ascii=False, indent=2), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Take the weights that ``save`` wrote, if it wrote any."""
        if (folder / WEIGHTS).is_file():
            self.load_state_dict({self._prefix + name: tensor for name, tensor in load_file(folder / WEIGHTS).items()})


def read_losses(folder: Path, dim: int, plugins: Collection[str] = ()) -> list[Loss]:
    """Return the losses with weights that a run left in its model's folder; none where it left none.

    A loss of a package that is not among ``plugins`` is left out, with a warning: a folder may be somebody else's.

    Args:
        folder: of the model.
        dim: numbers of a vector of the model.
        plugins: the user's packages.

    Raises:
        UserError: the weights don't fit ``loss.json`` or the model.
    """
    if not (folder / WEIGHTS).is_file() or not (folder / DESCRIBED).is_file():
        return []
    about = json.loads((folder / DESCRIBED).read_text(encoding="utf-8"))
    configs = ({f"losses.{number}.": each for number, each in enumerate(about["sources"].values())}
               if "sources" in about else {"": about})
    tensors = load_file(folder / WEIGHTS)
    found = []
    for prefix, config in configs.items():
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        if "labels" in config and targets.TARGET not in config:  # as version 0.1 wrote it, which had one with weights
            config = {targets.TARGET: "losses.softmax.Softmax", "dim": dim, **config}
        if not own or not _is_known(config, folder, plugins):
            continue
        try:
            if config.get("dim", dim) != dim:
                raise RuntimeError("of a model of another length")
            loss = _built(config, plugins)
            loss.load_state_dict(own)
        except RuntimeError:
            raise UserError(f"{folder / WEIGHTS}: is not the head that {DESCRIBED} describes; train again") from None
        found.append(loss.eval())
    return found


def _built(config: Mapping[str, Any], plugins: Collection[str]) -> Loss:
    """Build a loss by its config, or one of each length."""
    def at(more: Mapping[str, Any]) -> Loss:
        made = targets.build({**config, **more}, "loss", plugins=plugins, omit=OF_THE_RUN)
        if not isinstance(made, Loss):
            raise UserError(f"loss.{targets.TARGET}: {config[targets.TARGET]!r} is no loss (losses.base.Loss)")
        return made

    if not config.get("dims"):
        return at({})
    takes_dim = "dim" in config
    return Matryoshka({dim: at({"dim": dim} if takes_dim else {}) for dim in config["dims"]}, config.get("dim_weights"))


def _is_known(config: Mapping[str, Any], folder: Path, plugins: Collection[str]) -> bool:
    try:
        made = targets.resolve(str(config.get(targets.TARGET)), "loss", plugins)
    except UserError as error:
        log.warning("%s: its loss is left out: %s", folder / DESCRIBED, error)
        return False
    return isinstance(made, type) and issubclass(made, Loss)
