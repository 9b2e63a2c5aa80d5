"""Commands with flags, such as ``python -m search``: mistakes in one line, and how such a command ends."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from typing import NoReturn

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.one_name import drop_short_names
from sentence_forge.runtime.process import log_to_stderr, run_command


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that raises ``UserError`` where argparse would print its usage and end the process."""

    def error(self, message: str) -> NoReturn:
        """Raise the mistake as a line that names the command's help."""
        raise UserError(f"{message}; see {self.prog} --help")


def run(work: Callable[[], int | None], log_level: int = logging.INFO) -> int:
    """Run a command and return its exit code: 0, or what ``run_command`` says of a mistake or a signal.

    Args:
        work: the command; parses its arguments, too.
        log_level: from which on log lines are shown on stderr.
    """
    drop_short_names()
    log_to_stderr(log_level)
    return run_command(work)
