"""The GPU set: checks first, then times, on one GPU, without data, network or hub.

``python -m bench.gpu [--minutes 8]``: bert-base with random weights on made-up texts with SNLI's lengths, bf16, as a
short run is and compiled as a long one, beside the stock trainer as it comes (float32), tuned
(``bench.stock.tuned_arguments``; flash attention where it is installed, else it is called padded) and with
``torch_compile``; where a step's milliseconds go; and beside the stock ``encode``. Lines come as they are measured, so
that a run that is cut still tells; what the time is too short for is left out and said. ``--device cpu --quick`` goes
the whole way with a tiny model but for compiling, which ``--compile`` adds.

Targets, by a model of a bert-base step that is not yet measured: at batch 512 40 % of the bf16 rate, an epoch of
942,069 pairs within 60 s there and at 128, and at both 2.5 times the tuned stock trainer.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from bench.gpu_checks import checks
from bench.gpu_encoding import encode
from bench.gpu_setting import FULL, QUICK, Setting
from bench.gpu_training import compiled, launches, train
from bench.lines import interleaved, line, median
from bench.machine import facts


def main() -> int:
    """Run the sections in the order of what matters most; return 1 where one failed, or a check is off."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--compile", action="store_true", help="compile on a CPU, too, which takes minutes")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("error: there is no CUDA device here; --device cpu --quick only shows that this works\n")
        return 2
    os.environ["TQDM_DISABLE"] = "1"
    end = time.monotonic() + 60 * arguments.minutes
    line("machine", os.cpu_count() or 0, "cores", **facts())
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(Path(folder, "bert"), arguments.device, QUICK if arguments.quick else FULL)
        small, large = setting.scale.batches
        _section(setting, end, "matrix products", 5, matmul)
        _section(setting, end, "checks", 60, checks)
        for size in (large, small):
            _section(setting, end, f"training at batch {size}", 60, functools.partial(train, batch_size=size))
        if setting.bf16 or arguments.compile:
            _section(setting, end, f"compiled at batch {large}", 120, functools.partial(compiled, batch_size=large))
        _section(setting, end, "encoding", 40, encode)
        if setting.bf16 or arguments.compile:
            _section(setting, end, f"compiled at batch {small}", 100, functools.partial(compiled, batch_size=small))
        _section(setting, end, "launches", 20, launches)
    return 1 if setting.failed else 0


def matmul(setting: Setting) -> None:
    """Measure the bf16 matrix product rate."""
    size = setting.scale.matmul
    a, b = (torch.randn(size, size, device=setting.device, dtype=torch.bfloat16) for _ in range(2))

    def products() -> None:
        for _ in range(20):
            a @ b
        setting.wait()

    taken = interleaved([products], 6)[0][1:]
    setting.rate = 20 * 2 * size**3 / median(taken)
    line("bf16 matrix products", setting.rate / 1e12, "TFLOP/s", size=size)


def _section(setting: Setting, end: float, name: str, needs: float, run: Callable[[Setting], None]) -> None:
    """Run a section if ``needs`` seconds are left; one that fails is told, and the next begins."""
    left = end - time.monotonic()
    if left < needs:
        line(f"left out: {name}", left, "s left", needs=needs)
        return
    begun = time.monotonic()
    try:
        run(setting)
    except Exception as error:
        traceback.print_exc()
        setting.failed += 1
        line(f"failed: {name}", 0, "-", error=f"{type(error).__name__}: {str(error)[:300]}")
    if setting.bf16:
        torch.cuda.empty_cache()
    line(f"took: {name}", time.monotonic() - begun, "s")


if __name__ == "__main__":
    sys.exit(main())
