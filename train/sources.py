"""What ``data=`` comes to, before torch is imported: one source, or those of ``data=mix``, each with its loss."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.runtime.errors import UserError, one_of
from sentence_forge.runtime.overrides import PATH_OPTIONS, friendly, options

if TYPE_CHECKING:
    from datasets import Dataset

    from sentence_forge.data_readers.rejected import Rejected
    from sentence_forge.data_readers.source import Source


_KEY = re.compile(r"(?<![\w./\\-])data\.(?!(csv|tsv|txt|jsonl?|parquet)\b)(?=[a-z])")  # not a file called data.csv


@dataclass(frozen=True)
class Part:
    """A part of a run: a source of rows with the shape they are read in and the loss they are trained by. Mostly one.

    Args:
        name: of the source in ``data.sources``; empty where the run has a single one.
        source: of the rows.
        shape: of the rows.
        loss: the config of its loss.
    """

    name: str
    source: Source
    shape: str
    loss: Mapping[str, Any]

    @property
    def loss_key(self) -> str:
        """Return the key of its loss in the config, for errors."""
        return f"data.losses.{self.name}" if self.name else "loss"


def rejected_of(parts: Sequence[Part]) -> dict[Path, list[Rejected]]:
    """Return the bad rows that were skipped by file, each once; several parts may read one."""
    found: dict[Path, dict[Rejected, None]] = {}
    for part in parts:
        for file, rows in part.source.rejected().items():
            found.setdefault(file, {}).update(dict.fromkeys(rows))
    return {file: list(rows) for file, rows in found.items()}


class Mix:
    """Several sources; ``data=mix``.

    Args:
        sources: by a name of one's own, each the config of a source.
        losses: of the sources that are not trained by ``loss=``, the config of their loss.
        weights: of each source, how often it is its turn; None goes by size.
        temperature: by size to the power of ``1 / temperature``: 1 is by size, a large one nearly equal.
        plugins: the user's packages (offered by the run).

    Raises:
        UserError: fewer than two sources, a loss or weight of none of them, or what a source has to say.
    """

    def __init__(self, sources: Mapping[str, Any], losses: Mapping[str, Any] | None = None,
                 weights: Mapping[str, float] | None = None, temperature: float = 1.0, *,
                 plugins: Sequence[str] = ()) -> None:
        from sentence_forge.runtime import targets

        if len(sources) < 2:
            raise UserError("data.sources: a mix has two sources or more; of a single one say data=<it>")
        for key, given in (("losses", losses), ("weights", weights)):
            for name in given or ():
                if name not in sources:
                    raise UserError(f"data.{key}.{name}: is no source; {one_of(sources, str(name))}")
        self.losses, self.weights, self.temperature = dict(losses or {}), weights, temperature
        self.sources: dict[str, Source] = {}
        for name, node in sources.items():
            with _of(name):
                self.sources[name] = Member(name, targets.build(node, "data", plugins=plugins))


class Member:
    """A source of a mix: what it says of a key of ``data``, it says of the key that the user gave."""

    def __init__(self, name: str, source: Source) -> None:
        self._name, self._source = name, source
        self.files, self.rejected = source.files, source.rejected

    def shapes(self) -> list[str]:
        """Return the shapes it gives."""
        with _of(self._name):
            return self._source.shapes()

    def read(self, shape: str, split: str) -> Dataset:
        """Return the rows of a split in a shape."""
        with _of(self._name):
            return self._source.read(shape, split)


@contextlib.contextmanager
def _of(name: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(_KEY.sub(f"data.sources.{name}.", str(error))) from None


def check_shares(names: Collection[str], weights: Mapping[str, Any] | None, temperature: float) -> dict[str, Any]:
    """Return the shares of a mix as keyword arguments of ``train.mixing.Mixed``.

    Raises:
        UserError: names the key.
    """
    if not temperature > 0:
        raise UserError(f"data.temperature: is {temperature}; it must be above 0 (1 is by size)")
    if weights is not None:
        if temperature != 1:
            raise UserError("data.temperature: has no effect beside data.weights; leave one of them out")
        for name in names:
            weight = weights.get(name)
            if not isinstance(weight, int | float) or not (weight > 0 and math.isfinite(weight)):
                raise UserError(f"data.weights.{name}: is {weight}; give every source a number above 0")
    return {"weights": weights, "temperature": temperature}


def spelled_out(node: Any) -> dict[str, Any]:  # noqa: ANN401 - what YAML holds
    """Return the config of ``data=mix`` with every source and loss as a config of its own.

    What was spelled out before stays as it is, so the config of a run that is resumed does.

    Raises:
        UserError: a source is no name of ``data=`` and no path, or a loss no name of ``loss=``.
    """
    made = dict(node)
    for key, group in (("sources", "data"), ("losses", "loss")):
        given = _mapping(node.get(key), f"data.{key}")
        made[key] = {str(name): _spelled_out(value, group, f"data.{key}.{name}") for name, value in given.items()}
        for name, member in made[key].items():
            if key == "losses" and (lacks := {"shapes", "sampler"} - set(member)):
                raise UserError(f"data.losses.{name}: has no {' and no '.join(sorted(lacks))}, which a loss by its "
                                "_target_ needs beside it; give both, as a YAML of loss= does, or keys over a name of "
                                "loss=: {loss: cosine, ...}")
            if missing := [below for below, value in member.items() if value == "???"]:
                raise UserError(f"data.{key}.{name}.{missing[0]}: is needed; give it, as '{{{group}: {given[name]}, "
                                f"{missing[0]}: ...}}'")
    return made


def _mapping(value: Any, key: str) -> dict[str, Any]:  # noqa: ANN401 - what YAML holds
    if isinstance(value, str):  # Hydra's lexer rejected it, as it does file names in Chinese
        from yaml import YAMLError, safe_load

        with contextlib.suppress(YAMLError):
            value = safe_load(value)
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{key}: is {value!r}; give names of your own, as '{key}={{a: ..., b: ...}}'")
    return value or {}


def _spelled_out(value: Any, group: str, key: str) -> dict[str, Any]:  # noqa: ANN401 - what YAML holds
    """Return the config of a member of a group, given by its name, by a path, or as keys over either."""
    if isinstance(value, dict):
        if "_target_" in value:
            return value
        more = {name: given for name, given in value.items() if name != group}
        if group not in value and group == "data" and "path" in value:
            return _merged(_composed("data", "file"), more)
        if group not in value:
            raise UserError(f"{key}.{group}: is needed; give {{{group}: <as {group}= takes it>, ...}}")
        if group == "loss" and "inner" in more:
            return _wrapped(value[group], more, key)
        return _merged(_spelled_out(value[group], group, key), more)
    names = [name for name in options(group) if name != "mix"]
    if value in names:
        return _composed(group, value)
    if group in PATH_OPTIONS and isinstance(value, str) and Path(value).expanduser().exists():
        return _composed(group, PATH_OPTIONS[group][0]) | {"path": value}
    also = " and no such file" if group in PATH_OPTIONS else ""
    raise UserError(f"{key}: there is no {group} {str(value)!r}{also}; {one_of(names, str(value))}")


def _wrapped(name: Any, more: Mapping[str, Any], key: str) -> dict[str, Any]:  # noqa: ANN401 - what YAML holds
    """Return the config of a loss around another, given by its name or as keys over it."""
    if "inner" not in _spelled_out(name, "loss", key):
        raise UserError(f"{key}.inner: only a loss that wraps another has one; give {{loss: matryoshka, ...}}")
    inner = more["inner"] if isinstance(more["inner"], dict) else {"loss": more["inner"]}
    if inner.get("loss") == name:
        raise UserError(f"{key}.inner: {name} can't wrap itself; give another loss")
    spelled = _spelled_out(inner, "loss", f"{key}.inner")
    made = _composed("loss", name, f"loss.inner={inner['loss']}") if "loss" in inner else _composed("loss", name)
    return _merged({**made, "inner": spelled}, {given: value for given, value in more.items() if given != "inner"})


def _composed(group: str, name: str, *more: str) -> dict[str, Any]:
    """Return an option of a group as ``<group>=<name>`` gives it, with ``???`` for what must be given."""
    from hydra import compose
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(compose("train", friendly([f"{group}={name}", *more]))[group], resolve=True)
    return dict(found)


def _merged(node: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(OmegaConf.merge(node, more))
    return dict(found)
