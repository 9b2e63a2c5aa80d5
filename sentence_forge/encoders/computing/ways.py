"""The ways from a batch's flat tokens to its embeddings; ``Forward`` tries them and takes the fastest right one.

- ``flat``: texts one behind the other, see ``computing.flat_way``; padding only fills up a stream or a last row. For
  every model whose attention transformers lets a caller bring.
- ``groups``: texts of nearly equal length, each group padded to its own longest (MPNet, XLNet).
- ``equal``: texts of equal length only, so no text sees padding.
- ``alone``: one text after the other. Slow, and what all others are compared with: nothing can disturb it.
- ``padded``: the whole batch as one padded rectangle, as other libraries do it.
- ``static`` and ``bag``: for static embeddings and bags of words, which have no positions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from sentence_transformers.sentence_transformer.modules import WordWeights
from torch import Tensor

from sentence_forge.encoders.computing.batching import plan_groups
from sentence_forge.encoders.computing.chain import Chain
from sentence_forge.encoders.computing.device import host_memory
from sentence_forge.encoders.computing.flat_way import FlatWay, recomputed
from sentence_forge.encoders.computing.matmul import quick_products
from sentence_forge.encoders.computing.plan import CPU_TOKENS
from sentence_forge.encoders.computing.tokens import Tokens


class Ways:
    """A chain of modules with the ways to compute it.

    Args:
        chain: the modules.
        device: gives where they are now.
        rows: see ``Forward``, as for the two that follow.
        tokens_at_once: likewise.
        compiled: likewise.
        count: is told each batch's number of texts, of tokens, and of positions computed, padding included.
    """

    def __init__(self, chain: Chain, device: Callable[[], torch.device], *, rows: bool | None,
                 tokens_at_once: int | None, compiled: bool, count: Callable[[int, int, int], None]) -> None:
        self.chain = chain
        self._tokens_at_once, self._device_now, self._count = tokens_at_once, device, count
        self.flat = FlatWay(chain, device, rows=rows, compiled=compiled, limit=self._limit, count=count)

    def way(self, name: str) -> Callable[[Tokens], Tensor]:
        """Return the way of this name: flat tokens to ``[n, dim]`` embeddings in the texts' order."""
        ways: dict[str, Callable[[Tokens], Tensor]] = {
            "static": self._static, "flat": self.flat, "groups": functools.partial(self._grouped, slack=0.3),
            "equal": functools.partial(self._grouped, slack=0.0), "alone": self._alone,
            "padded": self._padded, "bag": self._padded}
        return ways[name]

    @property
    def possible(self) -> list[str]:
        """The ways that this chain may take, the fastest first; whether they are right remains to be tried."""
        if self.chain.static:
            return ["static"]
        if self.chain.bag:
            return ["bag"]
        model = self.chain.transformer
        flat = (model is not None and bool(getattr(model, "_supports_attention_backend", False))
                and not self.chain.config.output_hidden_states
                and not any(isinstance(module, WordWeights) for module in self.chain.modules))  # they ask for the ids
        return [*(["flat"] if flat else []), "groups", "equal", "alone"]

    def to_device(self, values: np.ndarray) -> Tensor:
        """Copy to the model's device, without making a GPU wait."""
        made = torch.from_numpy(np.ascontiguousarray(values))
        return made.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else \
            made.to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the modules are now."""
        return self._device_now()

    def _static(self, tokens: Tokens) -> Tensor:
        self._count(len(tokens), len(tokens.ids), len(tokens.ids))
        return self.chain.through(0, {"input_ids": torch.from_numpy(tokens.ids).long().to(self.device),
                                      "offsets": torch.from_numpy(tokens.offsets[:-1]).to(self.device)})

    def _grouped(self, tokens: Tokens, *, slack: float) -> Tensor:
        budget = CPU_TOKENS if self.device.type == "cpu" else 32 * CPU_TOKENS
        limit = self._limit()
        return self._in_groups(tokens, plan_groups(tokens.lengths, min(budget, limit), slack), limit)

    def _alone(self, tokens: Tokens) -> Tensor:
        return self._in_groups(tokens, [np.array([text]) for text in range(len(tokens))], self._limit())

    def _in_groups(self, tokens: Tokens, groups: list[np.ndarray], limit: int) -> Tensor:
        again = torch.is_grad_enabled() and len(tokens.ids) > limit
        made = []
        for group in groups:
            texts = tokens.take(group)
            self._count(len(texts), len(texts.ids), len(texts) * int(texts.lengths.max()))
            made.append(recomputed(self._group, texts, self.device) if again else self._group(texts))
        return torch.cat(made)[self.to_device(_inverse(np.concatenate(groups)))]

    def _group(self, texts: Tokens) -> Tensor:
        with quick_products(self.device):
            return self._rectangle(texts)

    def _padded(self, tokens: Tokens) -> Tensor:
        self._count(len(tokens), len(tokens.ids), len(tokens) * int(tokens.lengths.max()))
        return self._rectangle(tokens)

    def _rectangle(self, tokens: Tokens) -> Tensor:
        if self.chain.bag:
            ids_of_texts = [each.tolist() for each in np.split(tokens.ids, tokens.offsets[1:-1])]
            features = self.chain.first.get_sentence_features(ids_of_texts)
            return self.chain.through(0, {name: each.to(self.device) for name, each in features.items()})
        rectangle = (len(tokens), max(1, int(tokens.lengths.max())))
        real = np.arange(rectangle[1])[None, :] < tokens.lengths[:, None]
        if self.chain.left_padding:
            real = real[:, ::-1]
        ids = np.full(rectangle, self.chain.pad_id, dtype=np.int64)
        ids[real] = tokens.ids
        features = {"input_ids": self.to_device(ids), "attention_mask": self.to_device(real.astype(np.int64))}
        if self.chain.words:
            features["sentence_lengths"] = torch.from_numpy(tokens.lengths)
        return self.chain.through(0, features)

    def _limit(self) -> int:
        """Return how many tokens' activations are kept: as set, or about what fits half of the memory.

        34 bytes a token, layer and unit of width in half precision, twice that in single (Korthikanti et al. 2022,
        https://arxiv.org/abs/2205.05198, without attention's own, small for sentences).
        """
        if self._tokens_at_once is not None:
            return self._tokens_at_once
        if self.device.type == "cuda":
            memory = torch.cuda.get_device_properties(self.device).total_memory
        else:
            memory = host_memory()
        width = int(getattr(self.chain.config, "hidden_size", 0) or 768)
        layers = int(getattr(self.chain.config, "num_hidden_layers", 0) or 12)
        return max(CPU_TOKENS, int(memory / 2 / (68 * layers * width)))


def _inverse(order: np.ndarray) -> np.ndarray:
    """Return the permutation that undoes ``order``."""
    return np.argsort(order, kind="stable")
