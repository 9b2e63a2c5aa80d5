"""Models between the beginning of a training and its end: each weight the same share of the way (WiSE-FT).

Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (https://arxiv.org/abs/2109.01903); of sentence
embeddings Xiao et al. 2023, "LM-Cocktail" (https://arxiv.org/abs/2311.13534).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.encoders.fingerprint import fingerprint
from sentence_forge.encoders.making.lora import merged
from sentence_forge.encoders.making.weights import source_folder
from sentence_forge.runtime import targets
from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class Between:
    """A run's model as it began, as it ended, and each one between.

    Args:
        run: the run's folder, for messages.
        start: the model as it began; its weights have the names and shapes of the end's.
        end: the model as it ended.

    Raises:
        UserError: a weight is in one of them alone, or has another shape in the other.
    """

    def __init__(self, run: Path, start: SentenceTransformer, end: SentenceTransformer) -> None:
        self.run, self.start, self.end = run, start, end
        self._start, self._end = start.state_dict(), end.state_dict()
        shapes = [{name: tuple(tensor.shape) for name, tensor in each.items()} for each in (self._start, self._end)]
        differ = sorted(name for name in {*shapes[0], *shapes[1]} if shapes[0].get(name) != shapes[1].get(name))
        if differ:
            one, other = (shape.get(differ[0], "nothing") for shape in shapes)
            raise UserError(f"blend: {run} ends with other weights than it began with ({differ[0]} was {one} and is "
                            f"{other}), so there is nothing between them; leave blend= out")

    def at(self, share: float) -> SentenceTransformer:
        """Return a new model, each weight ``start + share * (end - start)``: 0 is the start and 1 the end, exactly."""
        made = copy.deepcopy(self.end)
        made.load_state_dict({name: self._start[name].lerp(after, share) if after.is_floating_point() else after
                              for name, after in self._end.items()})
        return made

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Those of the two, as ``start`` and ``end``."""
        return {"start": fingerprint(self.start), "end": fingerprint(self.end)}


def between(node: Mapping[str, Any], end: SentenceTransformer, plugins: Collection[str] = ()) -> Between:
    """Return what lies between the beginning of a run and its end.

    The beginning is the run's ``untouched/``. Where that was removed it is made again as the run made it, and refused
    if its fingerprint is not the one in the run's report.

    Args:
        node: a model's config, whose path is a run or one of its checkpoints.
        end: the model that was built of it, on the CPU, with float32 weights.
        plugins: the user's packages.

    Raises:
        UserError: the path is no run's, or its beginning can't be had or has other weights.
    """
    run = run_of(node)
    untouched = run / "untouched"
    if (untouched / "modules.json").is_file():
        return Between(run, merged(targets.build({**node, "path": str(untouched)}, "model", plugins=plugins,
                                                 texts=lambda: [])), end)
    config = saved_config(run)
    recipe = {**config["model"], **{key: node.get(key) for key in ("trust_remote_code",) if key in config["model"]}}
    if source_folder(recipe) is None:
        raise UserError(f"blend: {run} began from weights made by chance, and its untouched/ is gone; leave blend= out")
    start = merged(targets.build(recipe, "model", plugins=plugins, texts=lambda: [], seed=config.get("seed", 0)))
    found = Between(run, start, end)
    began = _began_with(run)
    if began not in (None, found.fingerprints["start"]):
        raise UserError(f"blend: {recipe['path']} is another model than {run} began with, whose untouched/ is gone "
                        f"(fingerprint {found.fingerprints['start'][:12]}, not {began[:12]}); put back what it began "
                        "with, or leave blend= out")
    return found


def run_of(node: Mapping[str, Any]) -> Path:
    """Return the run that a model's config names.

    Raises:
        UserError: it names another model, of which nobody knows what it began from.
    """
    folder = source_folder(node)
    if folder is not None:
        above = folder.absolute().parents
        run = above[2] if len(above) > 2 and above[1].name == "checkpoints" else above[0]
        of_a_run = (run / "config.yaml").is_file() and (run / "environment.json").is_file()
        if of_a_run and folder.name in ("model", "best"):
            return run
    raise UserError(f"blend: {node.get('path', 'this model')} is no run of python -m train, so what it began from "
                    "isn't known; give model=<run>")


def saved_config(run: Path) -> dict[str, Any]:
    """Return the config that a run was trained with.

    Raises:
        UserError: it can't be read.
    """
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        found: Any = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
        return {**found, "model": dict(found["model"]), "suite": dict(found.get("suite") or {})}
    except (OSError, ValueError, TypeError, KeyError, YAMLError) as error:
        raise UserError(f"{run / 'config.yaml'}: is damaged ({type(error).__name__}); put back what was "
                        "there") from None


def _began_with(run: Path) -> str | None:
    """Return the fingerprint of the model before its training, as the run's report tells it; None without one."""
    try:
        return str(json.loads((run / "report" / "report.json").read_text(encoding="utf-8"))["baseline"]["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
