"""Make the parts of a run from its config: each has a source of rows and the loss for them. Imports no torch."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.runtime import targets
from sentence_forge.runtime.errors import UserError, brief, one_of
from sentence_forge.runtime.overrides import options

if TYPE_CHECKING:
    from sentence_forge.configs.schema import Train
    from sentence_forge.data_readers.formats.rows import BadRow
    from sentence_forge.data_readers.source import Source


@dataclass(frozen=True)
class PartConfig:
    """A part of a run, before torch is imported: a source of rows, and the config of the loss that trains on them.

    Args:
        name: of the source in ``data.sources``; empty where the run has a single one.
        source: of the rows.
        shape: of the rows.
        loss: its config, with ``sampler`` and, for vectors that can be cut, ``dims`` and ``dim_weights``.
    """

    name: str
    source: Source
    shape: str
    loss: Mapping[str, Any]

    @property
    def loss_key(self) -> str:
        """The key of its loss in the config, for errors."""
        return f"data.losses.{self.name}" if self.name else "loss"

    @contextlib.contextmanager
    def keys_as_typed(self) -> Iterator[None]:
        """Let errors of the source inside the block name its keys as the user typed them."""
        with _keys_as_typed(self.name, type(self.source)):
            yield


class Mix:
    """Several sources; ``data=mix``.

    Args:
        sources: by a name of one's own, each the config of a source.
        losses: of the sources that are not trained by ``loss=``, the config of their loss.
        weights: of each source, how often it is its turn; None goes by size.
        temperature: by size to the power of ``1 / temperature``: 1 is by size, a large one nearly equal.
        plugins: the user's packages (offered by the run).

    Raises:
        UserError: fewer than two sources, a loss or weight of none of them, or an error of a source.
    """

    def __init__(self, sources: Mapping[str, Any], losses: Mapping[str, Any] | None = None,
                 weights: Mapping[str, float] | None = None, temperature: float = 1.0, *,
                 plugins: Sequence[str] = ()) -> None:
        if len(sources) < 2:
            raise UserError("data.sources: a mix has two sources or more; of a single one say data=<it>")
        for key, given in (("losses", losses), ("weights", weights)):
            for name in given or ():
                if name not in sources:
                    raise UserError(f"data.{key}.{name}: is no source; {one_of(sources, str(name))}")
        self.losses, self.weights, self.temperature = dict(losses or {}), weights, temperature
        self.sources: dict[str, Source] = {}
        for name, node in sources.items():
            key = f"data.sources.{name}"
            with _keys_as_typed(name, targets.resolve(str(node.get(targets.TARGET)), key, plugins)):
                self.sources[name] = targets.build(node, key, plugins=plugins)

    def shares(self) -> dict[str, Any]:
        """Return how often it is each source's turn, as keyword arguments of ``train.mixing.in_turn``.

        Raises:
            UserError: names the key.
        """
        if not self.temperature > 0:
            raise UserError(f"data.temperature: is {self.temperature}; it must be above 0 (1 is by size)")
        if self.weights is not None:
            if self.temperature != 1:
                raise UserError("data.temperature: has no effect beside data.weights; leave one of them out")
            for name in self.sources:
                weight = self.weights.get(name)
                if not isinstance(weight, int | float) or not (weight > 0 and math.isfinite(weight)):
                    raise UserError(f"data.weights.{name}: is {weight}; give every source a number above 0")
        return {"weights": self.weights, "temperature": self.temperature}


def parts_of(config: Train, loss_name: str) -> tuple[list[PartConfig], dict[str, Any]]:
    """Return the parts of a run, each with the shape of its rows, and the shares of a mix; a run mostly has one part.

    Args:
        config: of the run; ``data`` and ``loss`` written in full.
        loss_name: what errors call ``loss=``.

    Raises:
        UserError: a source or a loss is not as it should be, or the two don't fit.
    """
    dims = {} if config.dims is None else {"dims": config.dims, "dim_weights": config.dim_weights}
    loss = {**_config(config.loss, "loss"), **dims}
    source = targets.build(_config(config.data, "data"), "data", plugins=config.plugins)
    _check_dims(loss, "")
    if "sources" not in config.data:
        _check_batch_size(loss, config)
        return [PartConfig("", source, matching_shape(loss, source, f"loss={loss_name}"), loss)], {}
    parts = []
    for name, member in source.sources.items():
        own = source.losses.get(name)
        its_loss = loss if own is None else own if "dims" in own else {**own, **dims}
        _check_dims(its_loss, f"data.losses.{name}.")
        _check_batch_size(its_loss, config)
        try:
            with _keys_as_typed(name, type(member)):
                shape = matching_shape(its_loss, member, f"data.losses.{name}" if own else f"loss={loss_name}")
        except UserError as error:
            advice = "" if own else f"; data.losses={{{name}: <loss>}} gives it its own"
            raise UserError(f"data.sources.{name}: {error}{advice}") from None
        parts.append(PartConfig(name, member, shape, its_loss))
    return parts, source.shares()


def matching_shape(loss: Mapping[str, Any], source: Source, name: str) -> str:
    """Return the first shape that the loss takes and the source gives; ``name`` is what errors call the loss.

    Raises:
        UserError: there is none; says which columns would do.
    """
    from sentence_forge.data_readers.shapes import SHAPES

    gives = source.shapes()
    for shape in loss["shapes"]:
        if shape not in SHAPES:
            raise UserError(f"loss.shapes: there is no shape {shape!r}; {one_of(SHAPES, shape)}")
        if shape in gives:
            return str(shape)
    takes = " or ".join(f"{shape} ({', '.join(SHAPES[shape].columns)})" for shape in loss["shapes"])
    fitting = sorted(each for each in options("loss") if set(_shapes_of(each)) & set(gives))
    raise UserError(f"{name} takes {takes}; this data gives {', '.join(gives)}, which is for loss="
                    f"{', '.join(fitting) or 'none'}. Where only the columns' names differ, map them: "
                    f"data.columns.{SHAPES[loss['shapes'][0]].columns[0]}=")


def _check_dims(loss: Mapping[str, Any], key: str) -> None:
    """Refuse ``dims`` that are not a list, whatever the model; see ``train.parts`` for the rest."""
    dims, weights = loss.get("dims"), loss.get("dim_weights")
    if dims not in (None, "auto") and not isinstance(dims, list):
        given = brief(str(dims))
        raise UserError(f"{key}dims: is {given}; give a list of whole numbers, as [384,192,96], or auto, or null")
    if isinstance(dims, list) and weights is not None and len(weights) != len(dims):
        raise UserError(f"{key}dim_weights: has {len(weights)} entries for {len(dims)} dims; give one each")


def _check_batch_size(loss: Mapping[str, Any], config: Train) -> None:
    """Refuse batches of one row where a row's negatives are the others of its batch."""
    if config.loop.batch_size > 1:
        return
    from sentence_forge.train.batches import NoDuplicates

    sampler = targets.resolve(loss["sampler"][targets.TARGET], "loss.sampler", config.plugins)
    if isinstance(sampler, type) and issubclass(sampler, NoDuplicates):
        raise UserError("loop.batch_size: is 1, and this loss takes its negatives from the batch; give 2 or more")


def rejected_of(parts: Sequence[PartConfig]) -> dict[Path, list[BadRow]]:
    """Return the bad rows that were skipped by file, each once; several parts may read one."""
    found: dict[Path, dict[BadRow, None]] = {}
    for part in parts:
        for file, rows in part.source.rejected().items():
            found.setdefault(file, {}).update(dict.fromkeys(rows))
    return {file: list(rows) for file, rows in found.items()}


@contextlib.contextmanager
def _keys_as_typed(name: str, made_by: Callable[..., Any]) -> Iterator[None]:
    """Let errors inside the block say ``data.sources.<name>.<key>`` for each ``data.<key>`` that the source takes."""
    try:
        yield
    except UserError as error:
        said = str(error)
        for key in inspect.signature(made_by).parameters if name else ():
            said = said.replace(f"data.{key}", f"data.sources.{name}.{key}")
        raise UserError(said) from None


def _shapes_of(loss: str) -> Collection[str]:
    from importlib import resources

    from yaml import safe_load

    text = resources.files("sentence_forge.configs").joinpath("loss", f"{loss}.yaml").read_text(encoding="utf-8")
    return safe_load(text).get("shapes", ())


def _config(node: Any, key: str) -> dict[str, Any]:  # noqa: ANN401 - what YAML holds
    if not isinstance(node, dict):
        raise UserError(f"{key}: {brief(repr(node))} is no {key}; {one_of(options(key), str(node))}")
    return node
