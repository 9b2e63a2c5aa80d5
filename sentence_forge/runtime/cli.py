"""How a command starts: friendly overrides in, one-line errors out.

Hydra composes and runs; here stands what it lacks: a group's value may be a path or a hub id, values its lexer
rejects are quoted, and every user error is one line with exit code 2.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from sentence_forge.runtime.disk import is_full
from sentence_forge.runtime.errors import UserError, one_of
from sentence_forge.runtime.one_name import drop_short_names

# groups whose value may also be a path: the option that takes it, and under which key
PATH_OPTIONS = {"model": ("folder", "model.path"), "baseline": ("folder", "baseline.path"),
                "data": ("file", "data.path"), "suite": ("file", "file"), "corpus": ("file", "corpus.path")}
INNER = "loss.inner"  # a loss in a loss; Hydra wants its group named: loss@loss.inner=
TEXT_KEYS = ("out", "output", "file", "data_dir", "dir", "resume", "path", "dev_path", "column", "id_column")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_OVERRIDE = re.compile(r"(?P<key>[\w./@-]+)=(?P<value>.*)", re.DOTALL)


def entry(config_name: str, job: Callable[[Any], None], about: str, groups: Sequence[str]) -> None:
    """Compose ``configs/<config_name>.yaml`` with the command line's overrides and run ``job`` on it.

    ``--help`` and ``--info`` print ``about`` and what can be chosen in ``groups``.

    Leaves the process: 0, 2 with one ``error:`` line for a user's mistake, 130 after Ctrl-C. Anything else is our
    fault and keeps its traceback.
    """
    drop_short_names()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra's errors reach us unprinted
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.INFO)
    for chatty in ("httpx", "httpx2", "httpcore", "filelock", "datasets", "sentence_transformers", "transformers",
                   "urllib3", "onnx_ir", "onnxscript", "faiss"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if {"--help", "-h"} & set(sys.argv[1:]) or _bare_info(sys.argv[1:]):
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(help_text(config_name, about, groups))
        sys.exit(0)
    try:
        arguments = friendly(sys.argv[1:])
        sys.exit(_run(config_name, job, arguments))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _run(config_name: str, job: Callable[[Any], None], arguments: list[str]) -> int:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf.errors import OmegaConfBaseException

    from sentence_forge.configs import schema

    schema.register()
    sys.argv = [f"python -m {config_name}", *arguments]
    in_job = sweeps = False
    failed: list[str] = []  # not the errors themselves, which hold on to what their job had in memory

    def task(config: Any) -> None:  # noqa: ANN401 - a DictConfig
        nonlocal in_job, sweeps
        in_job, sweeps = True, HydraConfig.get().mode is RunMode.MULTIRUN
        try:
            _check_trust(config)
            job(config)
        except Exception as error:  # kept, since Hydra would print its own lines before it passes it on
            if not isinstance(error, UserError | OmegaConfBaseException) and not is_full(error):
                if not sweeps:
                    raise
                traceback.print_exc()
            failed.append(_in_a_line(error, config_name, arguments))
            if sweeps:  # whose other jobs go on
                sys.stderr.write(f"error: job {HydraConfig.get().job.num}: {failed[-1]}\n")

    try:
        hydra.main(version_base="1.3", config_path="pkg://sentence_forge.configs", config_name=config_name)(task)()
    except (HydraException, OmegaConfBaseException) as error:
        if in_job:
            raise
        raise _explained(error, config_name, arguments) from None
    if failed:
        raise UserError(f"{len(failed)} of the sweep's jobs failed, as said above" if sweeps else failed[0])
    return 0


def _in_a_line(error: Exception, config_name: str, arguments: list[str]) -> str:
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OmegaConfBaseException):
        return str(_explained(error, config_name, arguments))
    if is_full(error):
        return (f"{getattr(error, 'filename', None) or 'the disk'}: can't be written, there is no room left ({error}); "
                "make room and start again")
    return f"{type(error).__name__}: {error}"


def _bare_info(arguments: Sequence[str]) -> bool:
    """Whether ``--info`` stands there without one of Hydra's topics (``--info defaults``), which Hydra answers."""
    topics = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
    return any(argument in ("--info", "-i") and following not in topics
               for argument, following in zip(arguments, [*arguments[1:], ""], strict=False))  # none may be there


def _check_trust(config: Any) -> None:  # noqa: ANN401 - a DictConfig
    """Refuse ``trust_remote_code`` from a YAML, which may be somebody else's: only who types the command may say it."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    typed = {override.partition("=")[0].lstrip("+") for override in HydraConfig.get().overrides.task}

    def look(node: Any, path: str) -> None:  # noqa: ANN401
        for name, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            key = f"{path}{name}"
            if name == "trust_remote_code" and value not in (False, None) and key not in typed:
                raise UserError(f"{key}: runs code that a model brings along, so it is taken from the command line "
                                f"alone; type {key}=true there if you trust it")
            if isinstance(value, Mapping | list):
                look(value, f"{key}.")

    look(OmegaConf.to_container(config, resolve=False), "")


def options(group: str) -> list[str]:
    """Return the names of a config group's options."""
    folder = resources.files("sentence_forge.configs").joinpath(group)
    if not folder.is_dir():
        return []
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def help_text(config_name: str, about: str, groups: Sequence[str]) -> str:
    """Return what ``--help`` prints: each option's line is the comment at the top of its YAML."""
    lines = [about.strip(), ""]
    for group in filter(options, groups):
        lines.append(f"{group}=")
        width = max(12, *map(len, options(group)))
        for name in options(group):
            text = resources.files("sentence_forge.configs").joinpath(group, f"{name}.yaml").read_text(encoding="utf-8")
            first = next((line[1:].strip() for line in text.splitlines() if re.match(r"# (?!@)", line)), "")
            lines.append(f"  {name:<{width}} {first}")
    lines += ["", f"All keys and their defaults: python -m {config_name} --cfg job", ""]
    return "\n".join(lines)


def friendly(arguments: Sequence[str]) -> list[str]:
    """Rewrite what a person types into what Hydra takes.

    >>> friendly(["loss=mnrl", "corpus.path=新闻.csv"])
    ['loss=mnrl', "corpus.path='新闻.csv'"]
    """
    known_only = not any(argument.startswith(("--config-dir", "-cd")) or "searchpath" in argument
                         for argument in arguments)
    several = any(argument in ("-m", "--multirun") for argument in arguments)
    made: list[str] = []
    for argument in arguments:
        match = _OVERRIDE.fullmatch(argument)
        if match is None or argument.startswith(("-", "+", "~")):
            typed = match is not None or argument.startswith(("+", "~"))
            made.append(_quoted_if_needed(argument, several) if typed and not argument.startswith("-") else argument)
        elif options(match["key"]) and known_only:
            made.extend(_group(match["key"], match["value"], several))
        elif match["key"] == INNER and known_only:
            made.extend(_inner_loss(match["value"], several))
        else:
            made.append(_quoted_if_needed(argument, several))
    return made


def _group(group: str, value: str, several: bool) -> list[str]:
    names = options(group)
    listed = re.fullmatch(r"\[(.*)\]", value)
    parts = [part.strip() for part in listed[1].split(",")] if listed else value.split(",") if several else [value]
    if value == "null" or all(part in names for part in parts):
        return [f"{group}={value}"]
    option, key = PATH_OPTIONS.get(group, ("", ""))
    if option and _is_path(value, option):
        return [f"{group}={option}", f"{key}={_quoted(value)}"]
    if option and several and all(_is_path(part, option) for part in parts):
        return [f"{group}={option}", f"{key}={','.join(map(_quoted, parts))}"]
    if option and several and not listed and all(part in names or _is_path(part, option) for part in parts):
        named = ", ".join(part for part in parts if part in names)
        raise UserError(f"{group}={value}: names ({named}) and paths can't be mixed in one sweep; make it two sweeps")
    wrong = next(part for part in parts if part not in names)
    known = [name for name in names if name not in ("folder", "file", "none")]
    if not known:
        raise UserError(f"{group}={value}: no such {option}; give one that is there")
    also = f", and no such {option}" if option else ""
    hub = f" A data set of the hub: data=hub data.path={wrong}" if group == "data" and HUB_ID.fullmatch(wrong) else ""
    raise UserError(f"{group}={value}: there is no {group} {wrong!r}{also}; "
                    f"{one_of(known, wrong)}{hub}")


def _is_path(value: str, option: str) -> bool:
    return Path(value).expanduser().exists() or (option == "folder" and HUB_ID.fullmatch(value) is not None)


def _inner_loss(value: str, several: bool) -> list[str]:
    if value == "matryoshka":
        raise UserError(f"{INNER}=matryoshka: can't wrap itself; give another loss")
    try:
        return [argument.replace("loss=", f"loss@{INNER}=", 1) for argument in _group("loss", value, several)]
    except UserError as error:
        raise UserError(str(error).replace("loss=", f"{INNER}=", 1)) from None


def _quoted_if_needed(argument: str, several: bool) -> str:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, _, value = argument.partition("=")
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return f"{key}={_quoted(value)}"
    parsed = override.value()
    if override.is_sweep_override():  # a comma is a sweep's only with -m
        return argument if several or not value else f"{key}={_quoted(value)}"
    renamed = isinstance(parsed, int | float) and not isinstance(parsed, bool) and str(parsed) != value
    if renamed and key.rpartition(".")[2] in TEXT_KEYS:  # 2024_01 would become 202401
        return f"{key}={_quoted(value)}"
    return argument


def _quoted(value: str) -> str:
    tail = len(value) - len(value.rstrip("\\"))  # a backslash before the closing quote would escape it
    escaped = value.replace("'", "\\'").replace("${", "\\${") + "\\" * tail
    return f"'{escaped}'"


def _explained(error: Exception, config_name: str, arguments: Sequence[str]) -> UserError:
    """Turn what Hydra or OmegaConf raised into one line that names the key and what to do."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__
    said = " ".join(str(each) for each in chain)
    if match := re.search(r"[Cc]ould not override '([^']+)'", said):
        inner = re.search(r"Key '([^']+)' is not in struct", said)
        key = match[1] if inner is None or match[1].endswith(inner[1]) else f"{match[1]}.{inner[1]}"
        if key == f"loss@{INNER}":
            return UserError(f"{INNER}: only a loss that wraps another has one; add loss=matryoshka")
        return UserError(f"{key}: there is no such key; {one_of(_keys(config_name, arguments), key)}")
    if match := re.search(r"Missing mandatory value: (\S+)", said):
        full = re.search(rf"full_key: (\S*{re.escape(match[1])})", said)
        key = (full[1] if full else match[1]).removesuffix(".path")  # model=<folder> is short for model.path=
        return UserError(f"{key}: is needed; give {key}=")
    full_key = re.search(r"full_key: (\S+)", said)
    first = str(chain[-1]).strip().splitlines()[0]
    return UserError(f"{full_key[1]}: {first}" if full_key else first)


def _keys(config_name: str, arguments: Sequence[str]) -> list[str]:
    """Return every dotted key of the config that the arguments' groups select, and the groups' names."""
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra
    from hydra.initialize import initialize_config_module
    from omegaconf import OmegaConf

    GlobalHydra.instance().clear()
    chosen = [argument for argument in arguments if options(argument.partition("=")[0])]
    with initialize_config_module("sentence_forge.configs", version_base="1.3"):
        config = OmegaConf.to_container(compose(config_name, overrides=chosen), resolve=False)

    def walk(node: Any, path: str) -> list[str]:  # noqa: ANN401
        if not isinstance(node, Mapping):
            return [path]
        below = [key for name, value in node.items() for key in walk(value, f"{path}.{name}" if path else str(name))]
        return [*below, path] if path else below

    return walk(config, "")
