"""What a user did wrong, said in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: the message names the file, row, column or key and what to do.

    The command line prints it as ``error: <message>`` and leaves with exit code 2, without a traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split("\n")))


def one_of(names: Iterable[str], wrong: str) -> str:
    """Return the tail of an error message: the nearest of ``names``, or all of them when none is near.

    >>> one_of(["mnrl", "cosine"], "mnlr")
    "did you mean 'mnrl'?"
    >>> one_of(["mnrl", "cosine"], "zzz")
    'there are: cosine, mnrl'
    """
    names = sorted(set(names))
    near = difflib.get_close_matches(wrong, names, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(repr(name) for name in near) + "?"
    return "there are: " + ", ".join(names) if names else "there are none"
