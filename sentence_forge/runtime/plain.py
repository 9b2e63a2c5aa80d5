"""Commands with flags, such as ``python -m search``: mistakes in one line, and how such a command ends."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.one_name import drop_short_names


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that raises ``UserError`` where argparse would print its usage and end the process."""

    def error(self, message: str) -> NoReturn:
        """Raise the mistake as a line that names the command's help."""
        raise UserError(f"{message}; see {self.prog} --help")


def run(work: Callable[[], None], log_level: int = logging.INFO) -> int:
    """Run a command and return its exit code: 0, 2 after an ``error:`` line for bad input, 130 for Ctrl-C.

    Args:
        work: the command; parses its arguments, too.
        log_level: from which on log lines are shown on stderr.
    """
    drop_short_names()
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=log_level)
    try:
        work()
        sys.stdout.flush()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has what it wanted (head, less); let the interpreter's last flush go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
