"""Start ``torchrun`` as a person would, on processes that meet over loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
               "CUDA_VISIBLE_DEVICES": ""}

TRAIN = ["-m", "train", "loss=mnrl", "model=mini", "model.hidden=32", "model.layers=1", "model.heads=2",
         "model.vocabulary=600", "loop.projector=0", "loop.batch_size=16", "hydra.run.dir=run"]


def torchrun(*arguments: str, processes: int = 2, cwd: Path, wait: bool = True, restarts: int = 0,
             **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
               f"--max-restarts={restarts}", *arguments]
    process = subprocess.Popen(command, cwd=cwd, env=os.environ | ENVIRONMENT | environment,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    if wait:
        said, _ = process.communicate(timeout=300)
        process.said = said  # type: ignore[attr-defined]
    return process
