"""Where the processes of a run find each other: torchrun's variables, its store, and waiting until all are there."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import torch.distributed as dist

from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    from sentence_forge.train.distributed import World

BEGINNING = 1800.0  # seconds until all must have begun: one may have to download its model first


def by_torchrun() -> bool:
    """Whether ``torchrun`` has started this process, and keeps a store for it."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def starts_before() -> int:
    """Return how often ``torchrun --max-restarts`` has started these processes again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def store(world: World, name: str) -> dist.Store:
    """Return a key-value store that all processes of the run share.

    ``torchrun`` holds it, also over a restart; without torchrun the first process does.

    Args:
        world: the processes.
        name: of the store; each has keys of its own.

    Raises:
        UserError: nothing says where the store is, or it isn't there.
    """
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT", "")
    if host is None or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"WORLD_SIZE={world.size}, but MASTER_ADDR and MASTER_PORT don't say where the processes meet; "
                        "start them by torchrun")
    holds = world.first and not by_torchrun()
    if not holds and not by_torchrun():
        _await(host, int(port))
    try:
        kept = dist.TCPStore(host, int(port), is_master=holds, wait_for_workers=False, multi_tenant=True,
                             timeout=timedelta(seconds=BEGINNING))
    except dist.DistNetworkError as error:
        raise UserError(f"MASTER_ADDR={host} MASTER_PORT={port}: the processes can't meet there "
                        f"({str(error).splitlines()[0]})") from None
    return dist.PrefixStore(f"sentence_forge/{name}", kept)


def _await(host: str, port: int) -> None:
    """Wait until somebody listens there; torch's own wait would hear no signal.

    Raises:
        UserError: nobody does within ``BEGINNING`` seconds.
    """
    until = time.monotonic() + BEGINNING
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise UserError(f"MASTER_ADDR={host} MASTER_PORT={port}: nobody answers there ({error}); the first "
                                "process has not begun, so see what it says") from None
        time.sleep(0.5)


def meet(world: World, where: dist.Store, limit: float) -> None:
    """Wait until every process has put a value under its number in ``where``.

    It asks again and again, since torch's own wait would hear no signal.

    Raises:
        UserError: one hasn't within ``limit`` seconds.
    """
    until = time.monotonic() + limit
    while not where.check([str(rank) for rank in range(world.size)]):
        if time.monotonic() > until:
            missing = next(rank for rank in range(world.size) if not where.check([str(rank)]))
            raise UserError(f"process {missing} of this run has not begun within {limit:.0f} seconds; see what it "
                            "says, and start all of them again")
        time.sleep(0.1)
