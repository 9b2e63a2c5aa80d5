"""Say in one line what Hydra or OmegaConf found wrong with a command."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sentence_forge.runtime.disk import shortage
from sentence_forge.runtime.errors import UserError, brief, one_of
from sentence_forge.runtime.overrides import options


def in_a_line(error: Exception, config_name: str, arguments: list[str]) -> str:
    """Return the line that says what went wrong: a user's mistake, a full disk or, of ours, the exception's name."""
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OmegaConfBaseException):
        return str(explained(error, config_name, arguments))
    return shortage(error) or f"{type(error).__name__}: {error}"


def explained(error: Exception, config_name: str, arguments: Sequence[str]) -> UserError:
    """Turn what Hydra or OmegaConf raised into one line that names the key and what to do."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__
    said = " ".join(str(each) for each in chain)
    if match := re.search(r"[Cc]ould not override '([^']+)'", said):
        inner = re.search(r"Key '([^']+)' is not in struct", said)
        key = match[1] if inner is None or inner[1] in match[1].split(".") else f"{match[1]}.{inner[1]}"
        return UserError(f"{key}: there is no such key; {one_of(_keys(config_name, arguments), key)}")
    if match := re.search(r"Missing mandatory value: (\S+)", said):
        full = re.search(rf"full_key: (\S*{re.escape(match[1])})", said)
        key = (full[1] if full else match[1]).removesuffix(".path")  # model=<folder> is short for model.path=
        return UserError(f"{key}: is needed; give {key}=")
    if match := re.search(r"Error parsing override '([^'=]+)'", said):
        name = match[1]
        if (group := bool(options(name))) or name in (known := _keys(config_name, arguments)):
            return UserError(f"{name}: has no value; give {name}=<{'name' if group else 'value'}>")
        return UserError(f"{name}: is no key=value; {one_of(known, name)}")
    full_key = re.search(r"full_key: (\S+)", said)
    first = _as_we_say_it(str(chain[-1]).strip().splitlines()[0])
    return UserError(f"{full_key[1]}: {first}" if full_key else first)


def _as_we_say_it(line: str) -> str:
    """Say OmegaConf's line about a value of the wrong type as our own checks do; others stay as they are."""
    if match := re.fullmatch(r"Value '(.*)' of type '(\w+)' could not be converted to (Float|Integer)", line):
        value = repr(match[1]) if match[2] == "str" else match[1]
        return f"is {brief(value)}; give a {'whole ' if match[3] == 'Integer' else ''}number"
    if match := re.fullmatch(r"Value '(.*)' is not a valid bool \(type (\w+)\)", line):
        return f"is {brief(repr(match[1]) if match[2] == 'str' else match[1])}; give true or false"
    return line


def _keys(config_name: str, arguments: Sequence[str]) -> list[str]:
    """Return every dotted key of the config that the arguments' groups select, and the groups' names."""
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from hydra.initialize import initialize_config_module
    from omegaconf import OmegaConf

    GlobalHydra.instance().clear()
    chosen = [argument for argument in arguments if "=" in argument and options(argument.partition("=")[0])]
    try:
        with initialize_config_module("sentence_forge.configs", version_base="1.3"):
            config = OmegaConf.to_container(compose(config_name, overrides=chosen), resolve=False)
    except HydraException:  # a group of a --config-dir
        return []

    def walk(node: Any, path: str) -> list[str]:  # noqa: ANN401
        if not isinstance(node, Mapping):
            return [path]
        below = [key for name, value in node.items() for key in walk(value, f"{path}.{name}" if path else str(name))]
        return [*below, path] if path else below

    return walk(config, "")
