"""From a batch's flat tokens to its sentence embeddings, however the device does that best.

Padding exists only here. Today: groups of nearly equal length, each padded to its own longest text, which wastes few
tokens, and on a CPU small enough that a group's activations stay in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from encoders.tokens import Tokens


@dataclass
class Work:
    """What forwards have computed on: texts, their tokens, and tokens with the padding."""

    texts: int = 0
    real: int = 0
    padded: int = 0

    @property
    def padding_share(self) -> float:
        """Fraction of the computed positions that were padding."""
        return 1 - self.real / self.padded if self.padded else 0.0


def plan_groups(lengths: np.ndarray, tokens_a_group: int, slack: float = 0.3) -> list[np.ndarray]:
    """Cut a batch into groups of nearly equal length.

    Args:
        lengths: tokens a text, int64 ``[n]``.
        tokens_a_group: most positions, padding included, a group may have (one text may exceed it).
        slack: how much longer than its shortest text a group's longest may be, as a fraction.

    Returns:
        Positions in ``lengths``; every text is in just one group.
    """
    order = np.argsort(lengths, kind="stable")
    groups = []
    start = 0
    for end in range(1, len(order) + 1):
        if end < len(order):
            longest = lengths[order[end]]
            if longest <= (1 + slack) * lengths[order[start]] and longest * (end + 1 - start) <= tokens_a_group:
                continue
        groups.append(order[start:end])
        start = end
    return groups


class Forward:
    """Runs a SentenceTransformer on flat tokens.

    Args:
        model: any sentence-transformers model whose first module takes ``input_ids`` and ``attention_mask``.
        fast: groups of equal length; False runs the whole batch as one padded rectangle, which tests compare with.
    """

    def __init__(self, model: SentenceTransformer, *, fast: bool = True) -> None:
        self.model = model
        self.fast = fast
        self.pad_id = int(getattr(model.tokenizer, "pad_token_id", 0) or 0)
        self.left_padding = getattr(model.tokenizer, "padding_side", "right") == "left"
        self.work = Work()

    def __call__(self, tokens: Tokens) -> Tensor:
        """Return ``[n, dim]`` embeddings, in the texts' order, on the model's device."""
        lengths = tokens.lengths
        # on a CPU what a group needs should stay in the cache; a GPU wants much work at once
        budget = 1024 if self.model.device.type == "cpu" else 32768
        groups = plan_groups(lengths, budget) if self.fast else [np.arange(len(lengths))]
        made = [self._padded(tokens, group) for group in groups]
        back = np.empty(len(lengths), dtype=np.int64)
        back[np.concatenate(groups)] = np.arange(len(lengths))
        return torch.cat(made)[torch.from_numpy(back).to(made[0].device)]

    def _padded(self, tokens: Tokens, group: np.ndarray) -> Tensor:
        lengths = tokens.lengths[group]
        rectangle = (len(group), int(lengths.max()))
        columns = np.arange(rectangle[1])
        real = columns[None, :] < lengths[:, None]
        if self.left_padding:
            real = real[:, ::-1]
        ids = np.full(rectangle, self.pad_id, dtype=np.int64)
        ids[real] = tokens.take(group).ids
        self.work.texts += len(group)
        self.work.real += int(lengths.sum())
        self.work.padded += ids.size
        device = self.model.device
        features = {"input_ids": torch.from_numpy(ids).to(device, non_blocking=True),
                    "attention_mask": torch.from_numpy(real.astype(np.int64)).to(device, non_blocking=True)}
        return self.model(features)["sentence_embedding"]
