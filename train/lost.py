"""When one of several processes dies: the others end with one line, and a restart finds the run again."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch.distributed as dist

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.process import Stopped, failed
from sentence_forge.runtime.torchrun import again, said_why, starts_again
from sentence_forge.train.checkpoint import steps
from sentence_forge.train.distributed import World
from sentence_forge.train.interrupt import Interrupted
from sentence_forge.train.meeting import BEGINNING, by_torchrun, meet, starts_before, store
from sentence_forge.train.starting import raise_at_signals

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
        raise_at_signals()
        yield
        return
    beats = store(world, f"alive-{starts_before()}")
    if world.first:
        beats.set("run", str(run))  # the others' own folders are thrown away
    beats.add(str(world.rank), 1)
    try:
        meet(world, beats, BEGINNING)
    except dist.DistError:
        raise UserError("the run's store is gone, and with it torchrun or the first process; see what they said"
                        ) from None
    raise_at_signals()
    watch = _Watch(world, Path(beats.get("run").decode()), beats, limit)
    leaves = False
    try:
        yield
        leaves = True
    except Interrupted:
        leaves = True
        raise
    except Stopped as stopped:
        if isinstance(stopped.__context__, UserError) or said_why():
            raise
        raise UserError(watch.ended_by(stopped)) from None
    except RuntimeError as error:
        if not _is_loss(error):
            raise
        raise UserError(watch.line()) from None
    finally:
        watch.end(leaves)


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


class _Watch:
    """Two threads: one counts up and reads the others' counts; one sees that it still does, since no call times out."""

    def __init__(self, world: World, run: Path, beats: dist.Store, limit: float) -> None:
        self._world, self._run, self._beats, self._limit = world, run, beats, limit
        self._over, self._round = threading.Event(), time.monotonic()
        self._listener = threading.Thread(target=self._listen, name="lost", daemon=True)
        self._listener.start()
        threading.Thread(target=self._see_to_it, name="lost-store", daemon=True).start()

    def line(self, who: str = "another process") -> str:
        """Return what is said when a process is lost."""
        return f"{who} of this run is lost, so this one can't go on; {self._remedy()}"

    def ended_by(self, stopped: Stopped) -> str:
        """Return what is said when a signal ends this process outside the loop, which has its own way to stop."""
        if isinstance(stopped.__context__, RuntimeError) and _is_loss(stopped.__context__):
            return self.line()
        return (f"{stopped} ended this process, as torchrun does when another one dies, or when it is stopped itself; "
                f"{self._remedy()}")

    def end(self, leaves: bool) -> None:
        """Stop watching; the others miss this process from now on, unless it ``leaves``."""
        self._over.set()
        self._listener.join(self._limit)
        if leaves and not self._listener.is_alive():
            with contextlib.suppress(RuntimeError):  # the store is gone, and nobody asks it any more
                self._beats.add(str(self._world.rank), _LEFT)

    def _listen(self) -> None:
        """Count up, and leave the process when another has stopped counting."""
        mine, limit = str(self._world.rank), self._limit
        last = {rank: (0, time.monotonic()) for rank in range(self._world.size) if rank != self._world.rank}
        try:
            while not self._over.wait(limit / 10):
                self._beats.add(mine, 1)
                for rank, (before, since) in last.items():
                    beats = self._beats.add(str(rank), 0)
                    if beats != before:
                        last[rank] = (beats, time.monotonic())
                    elif beats < _LEFT and time.monotonic() - since > limit:
                        self._leave(f"process {rank}")
                self._round = time.monotonic()
        except RuntimeError:  # the store is gone, and with it torchrun or the process that held it
            if not self._over.wait(limit / 10):
                self._leave()

    def _see_to_it(self) -> None:
        """Leave the process when the store doesn't answer: who held it hangs, or its machine is gone."""
        while not self._over.wait(self._limit / 10):
            if time.monotonic() - self._round > self._limit:
                self._leave()

    def _leave(self, who: str = "another process") -> None:
        """Leave at once: the main thread waits for the lost process and hears nothing."""
        os._exit(failed(self.line(who)))

    def _remedy(self) -> str:
        if starts_again():
            where = "from its last checkpoint" if steps(self._run) else "from the beginning"
            return f"torchrun starts all of them again, {where}"
        if steps(self._run):
            return f"its last checkpoint is whole; go on from there with: {again(self._run)}"
        if (self._run / "config.yaml").exists():
            return f"the run has no checkpoint yet; begin it again with: {again(self._run)}"
        return "nothing was trained yet: type the same command again"


def _is_loss(error: RuntimeError) -> bool:
    """Return whether an error is that of a connection to another process."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)
