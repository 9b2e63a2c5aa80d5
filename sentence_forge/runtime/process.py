"""How every command starts and ends: its streams, encodings, signals and exit code.

``run_command`` wraps a command's work. Code that is imported from Python never comes here, so signal handlers and
logging of the caller stay as they are.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import logging
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from sentence_forge.runtime.disk import shortage
from sentence_forge.runtime.errors import UserError, printable
from sentence_forge.runtime.one_name import drop_short_names
from sentence_forge.runtime.torchrun import first_to_say

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_closed: set[str] = set()  # the standard streams that were closed when the process began


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived: clean up and leave, as after Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that raises ``UserError`` where argparse would print its usage and end the process."""

    def error(self, message: str) -> NoReturn:
        """Raise the mistake as a line that names the command's help."""
        raise UserError(f"{message}; see {self.prog} --help")

    def print_help(self, file: Any = None) -> None:  # noqa: ANN401 - whatever can be written to
        """Print the help; that it can't be written is an error here, which argparse would hide."""
        out = file or sys.stdout
        out.write(self.format_help())
        out.flush()


def allow_open_files(most: int = 65_536) -> None:
    """Let this process open ``most`` files, where the system allows it: each file that is mapped counts as one.

    An indexing run maps a segment for every 4,096 titles, and the usual limit is 1,024.
    """
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on Windows; no more than the system's limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run_command(job: Callable[[], int | None]) -> int:
    """Run a command's work and return its exit code.

    A ``UserError``, a full disk and too little memory are one ``error:`` line and 2; Ctrl-C is 130, SIGTERM 143, SIGHUP
    129; a reader that went away (``| head``) is no error. Any other exception is a bug and keeps its traceback.
    """
    open_closed_streams()
    use_utf8()
    allow_open_files()
    with signals_as_exceptions():
        try:
            code = job() or 0
            sys.stdout.flush()
        except UserError as error:
            return failed(str(error))
        except Stopped as stopped:
            if isinstance(stopped.__context__, UserError):  # which was on its way out; torchrun stops what is left
                return failed(str(stopped.__context__))
            return 128 + stopped.number
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            _drop_output()
            return 0
        except Exception as error:
            if (line := shortage(error)) is None:
                raise
            try:
                sys.stdout.flush()
            except OSError:
                _drop_output()
            return failed(line)
    return code


def run(work: Callable[[], int | None], log_level: int = logging.INFO) -> int:
    """Run a command that takes flags and not Hydra's overrides, such as ``python -m search``; return its exit code.

    Args:
        work: the command; parses its arguments, too.
        log_level: from which on log lines are shown on stderr.
    """
    drop_short_names()
    log_to_stderr(log_level)
    return run_command(work)


def log_to_stderr(level: int, form: str = "%(message)s") -> None:
    """Print log lines on stderr, without terminal escapes from file names and titles."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable(form))
    logging.basicConfig(handlers=[handler], level=level)


def open_closed_streams() -> None:
    """Open the null device in place of each standard stream that was closed (``<&-``).

    Otherwise Python has no ``sys.stdout``, and the next file that is opened takes its number, so that a library that
    prints to number 1 writes into it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            _closed.add(name)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def check_stdout() -> None:
    """Refuse to answer where nobody can read it; for commands that print their answer.

    Raises:
        UserError: standard output was closed.
    """
    if "stdout" in _closed:
        raise UserError("standard output is closed, and the answer goes there; open it, or send it to a file or a pipe")


def use_utf8() -> None:
    """Read and write UTF-8 where the locale says ASCII, also for file names and arguments.

    Python decides on the encoding of file names when it starts, so it is started once more, in its UTF-8 mode.
    """
    if codecs.lookup(sys.getfilesystemencoding()).name == "ascii" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)  # pytest and notebooks have streams of their own
        encoding = getattr(stream, "encoding", None)
        if reconfigure is not None and encoding is not None:
            ascii_only = codecs.lookup(encoding).name == "ascii"
            reconfigure(encoding="utf-8" if ascii_only else encoding,
                        errors="surrogateescape" if stream is sys.stdin else "backslashreplace")


@contextlib.contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Raise ``Stopped`` at SIGTERM and SIGHUP, so that locks, staged files and empty folders are removed.

    A signal that the caller ignores (``nohup``) stays ignored, and one that it handles stays the caller's.
    """
    ours = [number for number in _ENDING if signal.getsignal(number) == signal.SIG_DFL]
    try:
        for number in ours:
            signal.signal(number, stop)
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def silence_a_closed_terminal(number: int) -> None:
    """After SIGHUP, let output to the terminal go nowhere: it is gone, and writing to it is an error."""
    if number == signal.SIGHUP:
        for stream in (1, 2):
            with contextlib.suppress(OSError):
                if stat.S_ISCHR(os.fstat(stream).st_mode):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def _drop_output() -> None:
    """Let the interpreter's last flush go nowhere: what it would write can't be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def stop(number: int, frame: FrameType | None) -> None:
    """Raise ``Stopped``; a signal's handler."""
    silence_a_closed_terminal(number)
    raise Stopped(number)


def failed(line: str) -> int:
    """Say in one line why a command fails, and return its exit code; of processes by ``torchrun`` one says it."""
    if first_to_say(line):
        sys.stderr.write(f"error: {printable(line)}\n")
        sys.stderr.flush()
    return 2


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
