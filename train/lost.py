"""When one of several processes dies: the others end with one line, and a restart finds the run again."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch.distributed as dist

from sentence_forge.runtime.errors import UserError, printable
from sentence_forge.runtime.process import Stopped
from sentence_forge.train.checkpoint import steps
from sentence_forge.train.distributed import BEGINNING, World, by_torchrun, meet, starts_before, store
from sentence_forge.train.interrupt import Interrupted

LIMIT = 45.0  # seconds without a sign of life
_LEFT = 1 << 40  # beats of a process that came to the end, or stopped with the others; one that failed is missed


@contextlib.contextmanager
def watched(world: World, run: Path, limit: float = LIMIT) -> Iterator[None]:
    """End this process with one line when another one dies in what follows.

    A connection that breaks off is seen by torch, which raises. What it sees after half an hour only, a process that
    hangs or a machine that is gone, shows here: each process counts up in a store, and one that doesn't for ``limit``
    seconds is lost. A slow one isn't, since a thread counts.

    Args:
        world: the processes; they needn't have joined.
        run: the run's folder, for the message; the first process's counts.
        limit: in seconds.

    Raises:
        UserError: another process hasn't begun, or the connection to it broke off, or ``torchrun`` ends this one.
    """
    if world.size == 1:
        yield
        return
    over, beats = threading.Event(), store(world, f"alive-{starts_before()}", limit)
    thread, leaves = None, False
    try:
        if world.first:
            beats.set("run", str(run))  # the others' own folders are thrown away
        beats.add(str(world.rank), 1)
        meet(world, beats, BEGINNING)
        run = Path(beats.get("run").decode())
        thread = threading.Thread(target=_listen, args=(world, run, limit, beats, over), name="lost", daemon=True)
        thread.start()
        yield
        leaves = True
    except Interrupted:
        leaves = True
        raise
    except Stopped as stopped:  # once the training has begun a signal is a checkpoint and an Interrupted
        if isinstance(stopped.__context__, UserError):  # its own, that is on its way out
            raise
        raise UserError(f"{stopped} ended this process before its training began, as torchrun does when another one "
                        f"dies, or when it is stopped itself; {_remedy(run)}") from None
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise UserError(_line(run)) from None
    finally:
        over.set()
        if thread is not None:
            thread.join(limit)
        if leaves:
            with contextlib.suppress(RuntimeError):  # the store is gone, and nobody asks it any more
                beats.add(str(world.rank), _LEFT)


def remember(world: World, run: Path) -> None:
    """Let ``run_before_the_restart`` find this run, should ``torchrun`` start its processes again."""
    if by_torchrun():
        store(world, "run").set("run", str(run))


def run_before_the_restart(world: World) -> str | None:
    """Return the run that this command has begun, if ``torchrun --max-restarts`` starts it once more."""
    if not by_torchrun() or not starts_before():
        return None
    kept = store(world, "run")
    return kept.get("run").decode() if kept.check(["run"]) else None


def _listen(world: World, run: Path, limit: float, counts: dist.Store, over: threading.Event) -> None:
    """Count up, and leave the process when another has stopped counting."""
    last = {rank: (0, time.monotonic()) for rank in range(world.size) if rank != world.rank}
    try:
        while not over.wait(limit / 10):
            counts.add(str(world.rank), 1)
            for rank, (before, since) in last.items():
                beats = counts.add(str(rank), 0)
                if beats != before:
                    last[rank] = (beats, time.monotonic())
                elif beats < _LEFT and time.monotonic() - since > limit:
                    _end(_line(run, f"process {rank}"))
    except RuntimeError:  # the store is gone, and with it torchrun or the process that held it
        if not over.wait(limit / 10):
            _end(_line(run))


def _end(line: str) -> None:
    """Leave at once: the main thread waits for the lost process and hears nothing."""
    sys.stderr.write(printable(f"error: {line}\n"))
    sys.stderr.flush()
    os._exit(2)


def _line(run: Path, who: str = "another process") -> str:
    return f"{who} of this run is lost, so this one can't go on; {_remedy(run)}"


def _remedy(run: Path) -> str:
    if not steps(run):
        return "the run has no checkpoint yet, so begin it again, in another folder (hydra.run.dir=)"
    return (f"its last checkpoint is whole: the same torchrun with -m train resume={run} goes on from there (torchrun "
            "--max-restarts=3 does so by itself)")
