"""Rewrite what a person types into overrides that Hydra takes.

Hydra knows names of options only. Here a group's value may also be a path or a hub id, and values that Hydra's lexer
rejects are quoted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from sentence_forge.runtime.errors import UserError, brief, one_of, without_passwords

# groups whose value may also be a path: the option that takes it, and under which key
PATH_OPTIONS = {"model": ("folder", "model.path"), "baseline": ("folder", "baseline.path"),
                "data": ("file", "data.path"), "suite": ("file", "file"), "corpus": ("file", "corpus.path")}
TEXT_KEYS = ("out", "output", "file", "data_dir", "dir", "resume", "path", "dev_path", "column", "id_column", "sheet",
             "separator", "encoding", "url")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PLAIN_LIST = re.compile(r"""\[([^][{}'"]*)\]""")
_OVERRIDE = re.compile(r"(?P<key>[\w./@-]+)=(?P<value>.*)", re.DOTALL)


def options(group: str) -> list[str]:
    """Return the names of a config group's options."""
    folder = resources.files("sentence_forge.configs").joinpath(group)
    if not folder.is_dir():
        return []
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def friendly(arguments: Sequence[str]) -> list[str]:
    """Rewrite what a person types into what Hydra takes.

    >>> friendly(["loss=mnrl", "corpus.path=新闻.csv", "corpus.keep=[来源, date]"])
    ['loss=mnrl', "corpus.path='新闻.csv'", "corpus.keep=['来源','date']"]
    """
    known_only = not any(argument.startswith(("--config-dir", "-cd")) or "searchpath" in argument
                         for argument in arguments)
    several = any(argument in ("-m", "--multirun") for argument in arguments)
    if several and any(without_passwords(argument) != argument for argument in arguments):
        raise UserError("-m writes the command's words into a file, and with them the password in an address; leave it "
                        "to PGPASSWORD or ~/.pgpass")
    made: list[str] = []
    for argument in arguments:
        match = _OVERRIDE.fullmatch(argument)
        if match is None or argument.startswith(("-", "+", "~")):
            typed = match is not None or argument.startswith(("+", "~"))
            made.append(_quoted_if_needed(argument, several) if typed and not argument.startswith("-") else argument)
        elif options(match["key"]) and known_only:
            made.extend(_group(match["key"], match["value"], several))
        else:
            made.append(_quoted_if_needed(argument, several))
    return made


def _group(group: str, value: str, several: bool) -> list[str]:
    if group == "baseline" and value in _models():
        return [f"+model@baseline={value}"]  # a baseline is called as the model would be
    names = options(group)
    listed = re.fullmatch(r"\[(.*)\]", value)
    parts = [part.strip() for part in listed[1].split(",")] if listed else value.split(",") if several else [value]
    if value == "null" or all(part in names for part in parts):
        return [f"{group}={value}"]
    option, key = PATH_OPTIONS.get(group, ("", ""))
    if option and not value.strip():
        raise UserError(f"{group}=: the path is empty; give a {option} or a name")
    if option and _is_path(value, option):
        return [f"{group}={option}", f"{key}={quoted(value)}"]
    if option and several and all(_is_path(part, option) for part in parts):
        return [f"{group}={option}", f"{key}={','.join(map(quoted, parts))}"]
    if option and several and not listed and all(part in names or _is_path(part, option) for part in parts):
        named = ", ".join(part for part in parts if part in names)
        raise UserError(f"{group}={value}: names ({named}) and paths can't be mixed in one sweep; make it two sweeps")
    wrong = next((part for part in parts if part not in names and not (option and _is_path(part, option))), None)
    if wrong is None:
        path = next(part for part in parts if part not in names)
        raise UserError(f"{group}={brief(value)}: a list takes names alone, and {brief(path)} is a path; give "
                        f"{group}={brief(path)} alone")
    known = _models() if group == "baseline" else [name for name in names if name not in ("folder", "file", "none")]
    hub = f". A data set of the hub: data=hub data.path={wrong}" if group == "data" and HUB_ID.fullmatch(wrong) else ""
    if option and (not known or looks_like_path(wrong, option)):
        raise UserError(f"{group}={brief(value)}: {no_such(wrong, option)}{hub}")
    also = f", and no such {option}" if option else ""
    raise UserError(f"{group}={brief(value)}: there is no {group} {brief(wrong)!r}{also}; {one_of(known, wrong)}")


def looks_like_path(typed: str, option: str) -> bool:
    """Whether a path was meant rather than a name: it has a slash or, where a ``file`` is wanted, a suffix."""
    return "/" in typed or (option == "file" and Path(typed).suffix != "")


def no_such(typed: str, option: str) -> str:
    """Return that there is no such file or folder, with its full path, which shows where it was looked for."""
    return f"no such {option}: {os.path.abspath(os.path.expanduser(typed))}"


def _models() -> list[str]:
    return [name for name in options("model") if name != "folder"]


def _is_path(value: str, option: str) -> bool:
    if option == "file" and value == "-":  # the standard input
        return True
    if os.path.exists(os.path.expanduser(value)):  # pathlib raises for a name too long, and for a ~user who is nobody
        return True
    mine = os.environ.get("SENTENCE_FORGE_MODELS")
    return option == "folder" and (HUB_ID.fullmatch(value) is not None
                                   or bool(mine and value and Path(mine, value).expanduser().is_dir()))


def _quoted_if_needed(argument: str, several: bool) -> str:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, _, value = argument.partition("=")
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        listed = None if key.rpartition(".")[2] in TEXT_KEYS else _PLAIN_LIST.fullmatch(value)
        if listed:  # in quotes as a whole it would be a text
            return f"{key}=[{','.join(quoted(part.strip()) for part in listed[1].split(','))}]"
        return f"{key}={quoted(value)}"
    parsed = override.value()
    if override.is_sweep_override():  # a comma is a sweep's only with -m
        return argument if several or not value else f"{key}={quoted(value)}"
    renamed = isinstance(parsed, int | float) and not isinstance(parsed, bool) and str(parsed) != value
    if renamed and key.rpartition(".")[2] in TEXT_KEYS:  # 2024_01 would become 202401
        return f"{key}={quoted(value)}"
    return argument


def quoted(value: str) -> str:
    """Return a value in quotes, as Hydra reads them."""
    tail = len(value) - len(value.rstrip("\\"))  # a backslash before the closing quote would escape it
    escaped = value.replace("'", "\\'").replace("${", "\\${") + "\\" * tail
    return f"'{escaped}'"
