"""What a linear layer's float32 matrix products reach on this processor: torch's own way and oneDNN's, in turn.

``python -m bench.products``: MiniLM's shapes, 1,024 tokens; forward, and the gradients of input and weights. Then the
memory that 300 different numbers of tokens leave behind, beside what they would if each went as it is.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from bench.lines import interleaved, line, median
from sentence_forge.encoders.computing.matmul import ROWS, _multiply

MEMORY = """
import sys
import torch
from sentence_forge.encoders.computing import matmul
matmul.ROWS = int(sys.argv[1])
matmul._suits = lambda: True
layers = torch.nn.Sequential(torch.nn.Linear(384, 1536), torch.nn.Linear(1536, 384))
def resident():
    return int(next(row for row in open("/proc/self/status") if row.startswith("VmRSS")).split()[1]) / 1024
def step(rows):
    with matmul.quick_products(torch.device("cpu")):
        layers(torch.ones(rows, 384)).sum().backward()
step(1024)
before = resident()
for rows in range(1000, 700, -1):
    step(rows)
print(resident() - before)
"""


def main() -> None:
    """Print GFLOP/s of each product and its ratio, and the memory."""
    for inputs, outputs in ((384, 384), (384, 1536), (1536, 384)):
        tokens, weight = torch.randn(1024, inputs), torch.randn(outputs, inputs)
        gradient = torch.randn(1024, outputs)
        work = 2 * 1024 * inputs * outputs * 20 / 1e9
        pairs = {"forward": (lambda t=tokens, w=weight: _multiply(t, w, None), lambda t=tokens, w=weight: t @ w.t()),
                 "input's gradient": (lambda g=gradient, w=weight: _multiply(g, w.t(), None),
                                      lambda g=gradient, w=weight: g @ w),
                 "weight's gradient": (lambda g=gradient, t=tokens: _multiply(g.t(), t.t(), None),
                                       lambda g=gradient, t=tokens: g.t() @ t)}
        for name, calls in pairs.items():
            many = [lambda call=call: [call() for _ in range(20)] for call in calls]
            interleaved(many, 1)
            ours, plain = interleaved(many, 7)
            line(f"linear {inputs} to {outputs}, {name}", work / median(ours), "GFLOP/s", peer="torch's own way",
                 peer_value=work / median(plain))
    line("memory kept after 300 numbers of tokens", memory_kept(), "MiB", peer="each as it is",
         peer_value=memory_kept(1))


def memory_kept(multiple: int = ROWS) -> float:
    """Return the MiB by which 300 shapes raise a process's memory, filled up to a multiple."""
    command = [sys.executable, "-c", MEMORY, str(multiple)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True,
                                cwd=Path(__file__).parent.parent).stdout)


if __name__ == "__main__":
    main()
