"""Start a command: compose its config by Hydra, run its job, and turn a user's mistake into one line.

What a person types is rewritten by ``overrides``, what Hydra finds wrong is explained by ``explain``.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, NoReturn

from sentence_forge.runtime.disk import shortage
from sentence_forge.runtime.errors import UserError, printable, without_passwords
from sentence_forge.runtime.explain import explained, in_a_line
from sentence_forge.runtime.one_name import drop_short_names
from sentence_forge.runtime.overrides import friendly, options
from sentence_forge.runtime.process import check_stdout, log_to_stderr, run_command
from sentence_forge.runtime.trust import check_trust, hydra_checked


def entry(config_name: str, job: Callable[[Any], None], about: str, groups: Sequence[str]) -> None:
    """Compose ``configs/<config_name>.yaml`` with the command line's overrides and run ``job`` on it.

    ``--help`` and ``--info`` print ``about`` and what can be chosen in ``groups``.

    Leaves the process: 0, 2 with one ``error:`` line for a user's mistake, 130 after Ctrl-C. Anything else is our
    fault and keeps its traceback.
    """
    drop_short_names()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra's errors reach us unprinted
    asked = sys.argv[1:]
    answers = any(re.match(r"(--cfg|--info)\b|-[ci]", argument) for argument in asked)  # by Hydra, of the config
    if not answers:
        log_to_stderr(logging.INFO)
    for chatty in ("httpx", "httpx2", "httpcore", "filelock", "datasets", "sentence_transformers", "transformers",
                   "urllib3", "onnx_ir", "onnxscript", "faiss"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

    def command() -> None:
        if {"--help", "-h"} & set(asked) or _bare_info(asked):
            sys.stdout.write(help_text(config_name, about, groups))
        elif answers:
            check_stdout()
            with contextlib.redirect_stdout(io.StringIO()) as answer:
                _run(config_name, job, friendly(asked))
            # not by Hydra's logging, which hides that it can't be written
            sys.stdout.write(without_passwords(answer.getvalue()))
        else:
            _run(config_name, job, friendly(asked))

    sys.exit(run_command(command))


def _run(config_name: str, job: Callable[[Any], None], arguments: list[str]) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf.errors import OmegaConfBaseException

    from sentence_forge.configs import schema

    schema.register()
    sys.argv = [f"python -m {config_name}", *arguments]
    _check_flags(config_name)
    in_job = sweeps = False
    failed: list[str] = []  # not the errors themselves, which hold on to what their job had in memory

    def task(config: Any) -> None:  # noqa: ANN401 - a DictConfig
        nonlocal in_job, sweeps
        in_job, sweeps = True, HydraConfig.get().mode is RunMode.MULTIRUN
        try:
            check_trust(config, HydraConfig.get().overrides.task)
            job(config)
        except Exception as error:  # kept, since Hydra would print its own lines before it passes it on
            if not isinstance(error, UserError | OmegaConfBaseException) and shortage(error) is None:
                if not sweeps:
                    raise
                traceback.print_exc()
            failed.append(in_a_line(error, config_name, arguments))
            if sweeps:  # whose other jobs go on
                sys.stderr.write(printable(f"error: job {HydraConfig.get().job.num}: {failed[-1]}\n"))

    try:
        with hydra_checked(config_name):
            hydra.main(version_base="1.3", config_path="pkg://sentence_forge.configs", config_name=config_name)(task)()
    except (HydraException, OmegaConfBaseException) as error:
        if in_job:
            raise
        raise explained(error, config_name, arguments) from None
    except (FileExistsError, NotADirectoryError) as error:  # Hydra makes the folder of the output
        if in_job:
            raise
        raise UserError(f"{error.filename}: can't be made a folder, since a file is there; give another") from None
    if failed:
        raise UserError(f"{len(failed)} of the sweep's jobs failed, as said above" if sweeps else failed[0])


def _check_flags(config_name: str) -> None:
    """Refuse, in one line, the flags that Hydra would answer with its usage text."""
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; see python -m {config_name} --help")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    given = vars(parser.parse_args())
    asked = [f"--{name}" for name in ("multirun", "cfg", "info", "shell_completion", "run") if given[name]]
    if len(asked) > 1:
        refuse(f"{asked[0]} and {asked[1]} can't be joined")


def _bare_info(arguments: Sequence[str]) -> bool:
    """Whether ``--info`` stands there without one of Hydra's topics (``--info defaults``), which Hydra answers."""
    topics = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
    return any(argument in ("--info", "-i") and following not in topics
               for argument, following in zip(arguments, [*arguments[1:], ""], strict=False))  # none may be there


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


