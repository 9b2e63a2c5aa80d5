"""One process of two, of which the second one stops for good while the first waits for it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch.distributed as dist

from sentence_forge.train.distributed import join, started
from sentence_forge.train.lost import watched

world = started()
join(world, "cpu")
with watched(world, Path("run"), limit=2):
    dist.barrier()
    if world.rank == 1:
        print("stopping", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    dist.barrier()
