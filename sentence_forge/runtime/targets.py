"""The only place that turns a config's ``_target_`` into an object."""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import is_dataclass
from functools import cache
from importlib import resources
from importlib.util import find_spec
from typing import Any

from sentence_forge.runtime.errors import UserError, brief, one_of
from sentence_forge.runtime.one_name import LINKED, PACKAGE
from sentence_forge.runtime.values import check_value

OURS = ("losses", "data_readers", "encoders", "train", "eval")  # their names in YAML need no package's name before
# Modules that saved runs name by their former place (``losses.x``), and where they are now.
MOVED: dict[str, str] = {
    "encoders.build": "encoders.making.build", "encoders.static": "encoders.making.static",
    **{f"eval.{task}": f"eval.tasks.{task}" for task in ("sts", "nli", "binary", "triplets", "retrieval", "mteb")},
}
TARGET = "_target_"


def resolve(target: str, key: str, plugins: Collection[str] = ()) -> Callable[..., Any]:
    """Return the class or function that ``target`` (``package.module.name``) names.

    Only what the YAML of this package names, or what is defined below one of the user's ``plugins``, is taken: a config
    is data. It must not be able to call ``os.system``, nor a function of ours that removes checkpoints.

    Raises:
        UserError: it names something else, or nothing.
    """
    allowed = (*(f"{PACKAGE}.{each}" for each in OURS), *plugins)
    module_name, _, name = _full_name(target, plugins).rpartition(".")
    if not _below(module_name, allowed):
        known = ", ".join((*OURS, *plugins))
        raise UserError(f"{key}.{TARGET}: {brief(target)!r} is not in {known}; add its package to plugins=")
    own = _below(module_name, plugins)
    if not own and module_name not in {each.rpartition(".")[0] for each in known_targets()}:
        raise UserError(f"{key}.{TARGET}: {brief(target)!r} is in no module that a config may name; use plugins= for "
                        "your own")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise  # a dependency of the module is missing, which is another fault
        raise UserError(f"{key}.{TARGET}: there is no module {module_name!r}") from None
    except ImportError as error:
        if error.name not in LINKED:
            raise
        raise UserError(str(error).removeprefix("error: ")) from None
    made = getattr(module, name, None)
    if not callable(made) or not _below(getattr(made, "__module__", ""), allowed):
        ours = [each for each, value in vars(module).items() if getattr(value, "__module__", "") == module_name]
        raise UserError(f"{key}.{TARGET}: {module_name.removeprefix(PACKAGE + '.')} defines no {name!r}; "
                        f"{one_of(ours, name)}")
    if not own and f"{module_name}.{name}" not in known_targets():
        raise UserError(f"{key}.{TARGET}: no YAML of configs/ names {target!r}; name it there, or put it in a "
                        "package of your own and give plugins=")
    return made


@cache
def known_targets() -> frozenset[str]:
    """Return the full names of all targets in the YAML that this package ships."""
    folders, found = [resources.files(f"{PACKAGE}.configs")], set()
    while folders:
        for entry in folders.pop().iterdir():
            if entry.is_dir():
                folders.append(entry)
            elif entry.name.endswith(".yaml"):
                found |= set(re.findall(rf"{TARGET}: *['\"]?([\w.]+)", entry.read_text(encoding="utf-8")))
    return frozenset(f"{PACKAGE}.{name}" for name in found)


def build(node: Mapping[str, Any], key: str, *, plugins: Collection[str] = (), omit: Collection[str] = (),
          **offers: Any) -> Any:  # noqa: ANN401 - whatever the target makes
    """Call a config node's target with the node's other keys.

    Args:
        node: has ``_target_``; everything else, save ``omit``, are its keyword arguments, bound before it is called.
        key: the node's key, for errors.
        plugins: the user's packages, allowed besides ours.
        omit: keys of the node that somebody else reads.
        **offers: what the run knows; an offer is passed if the target names it as a parameter, else not. ``plugins``
            is offered too, to targets that build others.

    Raises:
        UserError: a key the target does not take, one it needs and nobody gave, or a value of the wrong type.
    """
    target = resolve(_named(node, key), key, plugins)
    arguments = bound(node, key, plugins=plugins, omit=omit, offers={**offers, "plugins": plugins})
    return target(**{name: value for name, value in arguments.items() if name != TARGET})


def bound(node: Mapping[str, Any], key: str, *, plugins: Collection[str] = (), omit: Collection[str] = (),
          offers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a node with the offers that its target takes, so that it can be built again without them; see ``build``.

    >>> bound({"_target_": "losses.softmax.Softmax"}, "loss", offers={"dim": 8, "labels": ["a", "b"], "seed": 1})
    {'_target_': 'losses.softmax.Softmax', 'dim': 8, 'labels': ['a', 'b']}
    """
    offers = offers or {}
    target = resolve(_named(node, key), key, plugins)
    given = {name: value for name, value in node.items() if name != TARGET and name not in omit}
    parameters = inspect.signature(target).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in given:
        if name not in parameters and not open_ended:
            takes = one_of(set(parameters) - set(offers), name)
            raise UserError(f"{key}.{name}: {node[TARGET]} takes no such key; {takes}")
    offered = {name: value for name, value in offers.items() if name in parameters and name not in given}
    for name, parameter in parameters.items():
        needed = parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_KEYWORD,
                                                                                 parameter.VAR_POSITIONAL)
        if needed and name not in given and name not in offered:
            raise UserError(f"{key}.{name}: is needed by {node[TARGET]}; give {key}.{name}=")
    hints = _hints(target)
    for name, value in given.items():
        check_value(value, hints.get(name, Any), f"{key}.{name}")
    return {TARGET: node[TARGET], **given, **offered}


def _named(node: Mapping[str, Any], key: str) -> str:
    if TARGET not in node:
        raise UserError(f"{key}: has no {TARGET}")
    return str(node[TARGET])


def _full_name(target: str, plugins: Collection[str]) -> str:
    """Return ``sentence_forge.losses.mnrl.X`` for ``losses.mnrl.X``, unless only a plug-in called ``losses`` has it."""
    module, _, name = target.rpartition(".")
    target = f"{MOVED.get(module, module)}.{name}"
    first, _, rest = target.partition(".")
    if first not in OURS:
        return target
    ours = f"{PACKAGE}.{target}"
    if first in plugins and rest and find_spec(f"{PACKAGE}.{first}.{rest.partition('.')[0]}") is None:
        return target
    return ours


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        if is_dataclass(target) or not inspect.isclass(target):
            return typing.get_type_hints(target)
        return typing.get_type_hints(target.__init__)
    except NameError:  # a user's own, that imports a name for type checkers alone
        return {}


def _below(module: str, packages: Collection[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)
