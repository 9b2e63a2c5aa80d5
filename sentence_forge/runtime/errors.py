"""Errors that a user can mend, each in one line that is safe to print."""

from __future__ import annotations

import difflib
import errno
import functools
import logging
import re
from collections.abc import Iterable
from pathlib import Path

# control characters except tab and newline, marks of writing direction, line separators, lone surrogates
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
                          "\ud800-\udfff]")
# up to the last @ of an address: a password may hold any other character; without @ a colon that begins no port
_USER_PASSWORD = re.compile(r"(\bpostg\w*:/+[^\s:/@'\"]*:)(?:[^\n]*(?=@)|(?!\d+(?:[/?#\s,'\"]|$))[^\s'\"]*)()")
_PASSWORD = re.compile(r"((?:\bpostg\w*:\S*?|\b)password=)(?:'[^']*'|[^\s&'\"]+)")
_TOO_MANY = (errno.EMFILE, errno.ENFILE)
_OF_THE_SYSTEM = (*_TOO_MANY, errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.ETIMEDOUT)


class UserError(Exception):
    r"""Bad input: the message names the file, row, column or key and what to do.

    The command line prints it as ``error: <message>`` and exits with 2, without a traceback.

    >>> str(UserError("a title: \x1b[2J"))
    'a title: \\x1b[2J'
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(message.split("\n"))))


class UnreadableError(UserError):
    """A file that the system doesn't give now: it may be intact, so nobody may remove or replace it for that."""


def damaged(path: Path, error: Exception) -> UserError:
    """Return what to raise for a file that can't be read: that it is damaged, if not for the system alone."""
    reason = (str(error).splitlines() or ["unreadable"])[0]
    if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
        mend = "; allow more open files, by ulimit -n" if error.errno in _TOO_MANY else ""
        return UnreadableError(f"{path}: can't be read now ({reason}){mend}")
    return UserError(f"{path}: damaged ({reason})")


def printable(text: str) -> str:
    r"""Return a text from outside so that a terminal shows it and obeys nothing in it.

    Terminal escapes, other control characters and marks that turn the direction of writing are spelled out; tabs and
    newlines stay. Passwords in addresses of databases are left out.

    >>> printable("a\x1b]0;title\x07b")
    'a\\x1b]0;title\\x07b'
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), without_passwords(text))


def without_passwords(text: str) -> str:
    """Return a text with stars in place of each password in the address of a database, also in one that is mistyped.

    >>> without_passwords("to.url=postgresql://me:secret@host/db: no")
    'to.url=postgresql://me:***@host/db: no'
    >>> without_passwords("postgresql://host:5432/db?password=secret")
    'postgresql://host:5432/db?password=***'
    """
    return _PASSWORD.sub(r"\1***", _USER_PASSWORD.sub(r"\1***\2", text))


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


def brief(text: str) -> str:
    """Return a text cut after 80 characters: an error is one line, whatever value it quotes.

    >>> brief("mnrl"), len(brief(repr(list(range(1000)))))
    ('mnrl', 83)
    """
    return text if len(text) <= 80 else f"{text[:80]}..."


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning, but not the same one twice in a process."""
    logging.getLogger("sentence_forge").warning(message)
