"""Fault injectors: kill -9 at a random moment, damaged files, a disk that is full, and ears for sockets and pickles."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

Acknowledge = Callable[[object], None]
DAMAGES = ("delete", "truncate", "zero", "flip")
_LONGEST = 600  # seconds


class Ended(NamedTuple):
    """How a child ended: its exit status (negative: the signal), what it had acknowledged, and after how long."""

    status: int
    acknowledged: list[str]
    seconds: float


def forked(work: Callable[[Acknowledge], None], kill_after: float | None = None) -> Ended:
    """Run ``work`` in a fork of this process, imports and all; kill it with SIGKILL after so many seconds.

    What it acknowledges has left it before the call returns, as a line printed to a user would have.
    """
    read, write = os.pipe()
    begun = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that threads don't survive a fork; there are none that count
        child = os.fork()
    if not child:
        status = 1
        try:
            end_at_last()
            one_thread()
            work(lambda what: os.write(write, f"{what}\n".encode()) and None)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    with open(read, encoding="utf-8") as pipe:
        acknowledged = pipe.read().split("\n")[:-1]
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ended(status, acknowledged, time.monotonic() - begun)


def end_at_last() -> None:
    """Have the system end this process, a fork, if it still runs long after: whoever waits for it has no limit."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # pytest-timeout's was inherited
    signal.alarm(_LONGEST)


def one_thread() -> None:
    """Compute with a single thread: OpenMP's others don't survive a fork, and would be waited for."""
    for name, switch in (("torch", "set_num_threads"), ("faiss", "omp_set_num_threads")):
        if name in sys.modules:
            getattr(sys.modules[name], switch)(1)


def damage(path: Path, how: str, draw: random.Random) -> None:
    """Do to a file what a bad disk does."""
    if how == "delete":
        path.unlink()
        return
    data = bytearray(path.read_bytes())
    if how == "truncate":
        del data[draw.randrange(len(data)):]
    elif how == "zero":
        data[:] = bytes(len(data))
    else:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond ``size`` bytes: what a full disk does to a write, anywhere and without root."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def listen() -> list[str]:
    """Return a list that from now on, for good, tells of each socket to elsewhere and each class a pickle finds.

    An audit hook can't be taken out again, so listen in a process of its own.
    """
    heard: list[str] = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("socket.connect", "socket.sendto"):
            address = arguments[1]
            if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1"):
                heard.append(f"{event} {address}")
        elif event in ("socket.getaddrinfo", "socket.gethostbyname") and arguments[0] not in ("localhost", "127.0.0.1"):
            heard.append(f"{event} {arguments[0]}")
        elif event == "pickle.find_class":
            heard.append(f"{event} {arguments[0]}.{arguments[1]}")

    sys.addaudithook(hook)
    return heard
