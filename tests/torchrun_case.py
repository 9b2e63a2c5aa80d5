"""One process of two: trains a tiny model on its share, and writes what came of it; started by ``torchrun``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from test_distributed import LOSSES, a_batch, gradients_of

from sentence_forge.data_readers.sample import SampleSource
from sentence_forge.losses.cosine import Cosine
from sentence_forge.train.distributed import SharedEncoder, join, leave, started
from sentence_forge.train.parts import Data, measure
from sentence_forge.train.sources import PartConfig

world = started()
out = Path(sys.argv[1])
cases = {name: a_batch(name) for name in LOSSES}
join(world, "cpu")
found: dict[str, torch.Tensor] = {}
for name, case in cases.items():
    loss, gradient, encoder = gradients_of(*case, world)
    found |= {f"{name}/loss": loss, f"{name}/gradient": gradient}
vectors = SharedEncoder(encoder, world).encode(["rates rise", "storm hits", "a", "opera opens in winter", "coast"])
found["vectors"] = torch.from_numpy(np.ascontiguousarray(vectors))
dev = Data([PartConfig("", SampleSource(), "pair_score", {})], "dev")
found["dev"] = torch.tensor(list(measure(dev, [Cosine()], SharedEncoder(encoder, world), 0)[0].values()))
found["largest"] = torch.tensor(world.largest(3 if world.rank == 1 else 0))
torch.save(found, out / f"{world.rank}.pt")
leave(world)
