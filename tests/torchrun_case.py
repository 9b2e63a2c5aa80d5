"""One process of two: trains tiny models on its share, and writes what came of it; started by ``torchrun``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distributed_cases import CASES, a_case, a_head_of_its_own, step
from torch import Tensor

from sentence_forge.data_readers.sample import SampleSource
from sentence_forge.losses import mnrl
from sentence_forge.losses.cosine import Cosine
from sentence_forge.train.distributed import SharedEncoder, join, leave, started
from sentence_forge.train.parts import Data, measure
from sentence_forge.train.sources import PartConfig

world = started()
out = Path(sys.argv[1])
cases = {name: a_case(name) for name in CASES}
scored, drifting = a_case("mnrl symmetric"), a_head_of_its_own(world.rank)
join(world, "cpu")
found: dict[str, Any] = {name: tuple(step(case, world)) for name, case in cases.items()}
found["own head"] = step(drifting, world).gradients, dict(drifting.losses.state_dict())

scores: list[tuple[int, ...]] = []
whole = mnrl.cross_entropy


def noted(given: Tensor, *arguments: Any, **more: Any) -> Tensor:
    scores.append(tuple(given.shape))
    return whole(given, *arguments, **more)


mnrl.cross_entropy = noted
step(scored, world)
found["scores"] = scores
encoder = cases["mnrl"].encoder
vectors = SharedEncoder(encoder, world).encode(["rates rise", "storm hits", "a", "opera opens in winter", "coast"])
found["vectors"] = torch.from_numpy(np.ascontiguousarray(vectors))
dev = Data([PartConfig("", SampleSource(), "pair_score", {})], "dev")
found["dev"] = torch.tensor(list(measure(dev, [Cosine()], SharedEncoder(encoder, world), 0)[0].values()))
found["largest"] = torch.tensor(world.largest(3 if world.rank == 1 else 0))
torch.save(found, out / f"{world.rank}.pt")
leave(world)
