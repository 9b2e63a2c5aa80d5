"""One process of two, of which one stops for good: before they join, or while the other waits for it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch.distributed as dist

from sentence_forge.runtime.process import run
from sentence_forge.train.distributed import join, started
from sentence_forge.train.lost import watched

world = started()


def stop() -> None:
    if world.rank == int(sys.argv[3]):
        print("stopping", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)


def work() -> None:
    print("begun", flush=True)
    with watched(world, Path("run"), limit=float(sys.argv[2])):
        if sys.argv[1] == "early":
            stop()
        join(world, "cpu")
        dist.barrier()
        stop()
        dist.barrier()


sys.exit(run(work))
