"""What a linear layer's float32 matrix products reach on this processor: torch's own way and oneDNN's, in turn.

``python -m bench.products``: MiniLM's shapes, 1,024 tokens; forward, and the gradients of input and weights.
"""

from __future__ import annotations

import torch

from bench.lines import interleaved, line, median
from encoders.products import _multiply


def main() -> None:
    """Print GFLOP/s of each product and its ratio."""
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


if __name__ == "__main__":
    main()
