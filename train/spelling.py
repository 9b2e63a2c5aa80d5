"""Expand a run's config: names of sources and losses become their configs, and old forms today's."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sentence_forge.runtime.errors import UserError, brief, one_of
from sentence_forge.runtime.overrides import PATH_OPTIONS, friendly, looks_like_path, no_such, options

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)
AUTO = "auto"  # dims=auto: the model's own length, its half, quarter and eighth
_WRAPPER = "losses.matryoshka.Matryoshka"  # the target of loss=matryoshka in runs of version 0.1


def spell_out(config: DictConfig) -> None:
    """Write ``data`` and ``loss`` of a run's config in full, in place. What is in full already stays as it is.

    Raises:
        UserError: a source is no name of ``data=`` and no path, or a loss no name of ``loss=``.
    """
    from omegaconf import OmegaConf

    def plain(node: Any) -> Any:  # noqa: ANN401 - what YAML holds
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if OmegaConf.is_config(node) else node

    loss, data = plain(config.loss), plain(config.data)
    wraps = _wraps(loss)
    if wraps:
        loss = _unwrapped(loss, "loss")
        given = loss.pop("dims"), loss.pop("dim_weights")
        config.dims, config.dim_weights = (config.dims, config.dim_weights) if config.dims is not None else given
        config.loss = loss
    if _spell_teacher(loss, "loss"):
        config.loss = loss
    if isinstance(data, dict) and "sources" in data:
        data = _mix(data)
        if wraps:  # in the old form the losses of single sources were not wrapped
            data["losses"] = {name: {"dims": None, **own} for name, own in data["losses"].items()}
        config.data = data


def _mix(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of ``data=mix`` with every source and loss as a config of its own."""
    made = dict(node)
    for key, group in (("sources", "data"), ("losses", "loss")):
        given = _mapping(node.get(key), f"data.{key}")
        made[key] = {str(name): _in_full(value, group, f"data.{key}.{name}") for name, value in given.items()}
        for name, member in made[key].items():
            if key == "losses" and (lacks := {"shapes", "sampler"} - set(member)):
                raise UserError(f"data.losses.{name}: has no {' and no '.join(sorted(lacks))}, which a loss by its "
                                "_target_ needs beside it; give both, as a YAML of loss= does, or keys over a name of "
                                "loss=: {loss: cosine, ...}")
            if key == "losses":
                _spell_teacher(member, f"data.losses.{name}")
            if missing := [below for below, value in member.items() if value == "???"]:
                raise UserError(f"data.{key}.{name}.{missing[0]}: is needed; give it, as '{{{group}: {given[name]}, "
                                f"{missing[0]}: ...}}'")
    return made


def _spell_teacher(loss: Any, key: str) -> bool:  # noqa: ANN401 - what YAML holds
    """Write a loss's ``teacher``, a name as ``model=`` takes it, as that model's config; return whether it was one."""
    if not isinstance(loss, dict) or not isinstance(loss.get("teacher"), str):
        return False
    try:
        loss["teacher"] = _composed("model", loss["teacher"])
    except UserError as error:
        raise UserError(str(error).replace("model=", f"{key}.teacher=", 1)) from None
    return True


def _mapping(value: Any, key: str) -> dict[str, Any]:  # noqa: ANN401 - what YAML holds
    if isinstance(value, str):  # Hydra's lexer rejected it, as it does file names in Chinese
        from yaml import YAMLError, safe_load

        with contextlib.suppress(YAMLError):
            value = safe_load(value)
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{key}: is {brief(repr(value))}; give names of your own, as '{key}={{a: ..., b: ...}}'")
    return value or {}


def _in_full(value: Any, group: str, key: str) -> dict[str, Any]:  # noqa: ANN401 - what YAML holds
    """Return the config of a member of a group, given by its name, by a path, or as keys over either."""
    if isinstance(value, dict):
        if group == "loss" and (_wraps(value) or value.get("loss") == "matryoshka"):
            return _unwrapped(value, key)
        if "_target_" in value:
            return value
        more = {name: given for name, given in value.items() if name != group}
        if group not in value and group == "data" and "path" in value:
            return _merged(_composed("data", "file"), more)
        if group not in value:
            raise UserError(f"{key}.{group}: is needed; give {{{group}: <as {group}= takes it>, ...}}")
        return _merged(_in_full(value[group], group, key), more)
    if group == "loss" and value == "matryoshka":
        return _unwrapped({}, key)
    names = [name for name in options(group) if name not in ("mix", "matryoshka")]
    if value in names:
        return _composed(group, value)
    if group in PATH_OPTIONS and isinstance(value, str) and os.path.exists(os.path.expanduser(value)):
        return _composed(group, PATH_OPTIONS[group][0]) | {"path": value}
    option = PATH_OPTIONS[group][0] if group in PATH_OPTIONS else ""
    if option and looks_like_path(str(value), option):
        raise UserError(f"{key}: {no_such(str(value), option)}")
    also = f" and no such {option}" if option else ""
    raise UserError(f"{key}: there is no {group} {brief(str(value))!r}{also}; {one_of(names, str(value))}")


def _wraps(loss: Any) -> bool:  # noqa: ANN401 - what YAML holds
    return isinstance(loss, dict) and "inner" in loss and loss.get("_target_") in (None, _WRAPPER)


def _unwrapped(node: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the config of ``loss=matryoshka``'s inner loss, with ``dims`` and ``dim_weights`` beside it.

    The old form goes with the next release, and with it ``configs/loss/matryoshka.yaml`` and this function.
    """
    inner = node.get("inner", "mnrl")
    if node.get("loss", "matryoshka") != "matryoshka":
        raise UserError(f"{key}.inner: is of loss=matryoshka alone; to train vectors that can be cut, give dims= "
                        "beside any loss")
    if inner == "matryoshka" or (isinstance(inner, dict) and inner.get("loss") == "matryoshka"):
        raise UserError(f"{key}.inner: matryoshka can't wrap itself; give another loss")
    dims, weights = node.get("dims"), node.get("weights")
    log.info("%s: loss=matryoshka is called dims= now, beside any loss: loss=%s 'dims=%s'; the old form goes with the "
             "next release", key, inner if isinstance(inner, str) else inner.get("loss", "..."), dims or AUTO)
    return {**_in_full(inner, "loss", f"{key}.inner"), "dims": AUTO if dims is None else dims, "dim_weights": weights}


def _composed(group: str, name: str) -> dict[str, Any]:
    """Return an option of a group as ``<group>=<name>`` gives it, with ``???`` for what must be given."""
    from hydra import compose
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(compose("train", friendly([f"{group}={name}"]))[group], resolve=True)
    return dict(found)


def _merged(node: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(OmegaConf.merge(node, more))
    return dict(found)
