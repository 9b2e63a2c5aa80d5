"""The ways from a batch's flat tokens to its embeddings; ``Forward`` tries them and takes the fastest right one.

- ``flat``: texts one behind the other, see ``computing.flat``; padding only fills up a stream or a last row. For every
  model whose attention transformers lets a caller bring.
- ``groups``: texts of nearly equal length, each group padded to its own longest (MPNet, XLNet).
- ``equal``: texts of equal length only, so no text sees padding.
- ``alone``: one text after the other. Slow, and what all others are compared with: nothing can disturb it.
- ``padded``: the whole batch as one padded rectangle, as other libraries do it.
- ``static`` and ``bag``: for static embeddings and bags of words, which have no positions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from sentence_transformers.sentence_transformer.modules import WordWeights
from torch import Tensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from sentence_forge.encoders.computing.autocast import cast_weights
from sentence_forge.encoders.computing.batching import parts, plan_groups
from sentence_forge.encoders.computing.chain import Chain
from sentence_forge.encoders.computing.device import host_memory
from sentence_forge.encoders.computing.flat import Layout, by_length, flat_attention, in_bins
from sentence_forge.encoders.computing.matmul import quick_products, rows_at_once
from sentence_forge.encoders.computing.tokens import Tokens

CPU_TOKENS = 1024  # computed at a time on a CPU: their activations stay in the cache
ROW = 128  # positions a row on a GPU, where no text is longer


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
        self.tokens_at_once = tokens_at_once
        self.compiled = compiled
        self.kernel = False  # whether the flat way may use torch's varlen kernel
        self._rows, self._device_now, self._count = rows, device, count

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

    def flat(self, tokens: Tokens, *, by_words: bool = False) -> Tensor:
        """Embed without padding: sorted by length, in parts of the size that the device computes best."""
        rows = (self.compiled or self.device.type != "cpu") if self._rows is None else self._rows
        order = np.argsort(tokens.lengths, kind="stable")
        tokens = tokens.take(order)
        limit = self.tokens_at_once or self._fitting()
        again = torch.is_grad_enabled() and len(tokens.ids) > limit
        runs = list(parts(tokens.offsets, limit if rows else min(CPU_TOKENS, limit)))
        words: Tensor | None = None
        if by_words or (len(runs) > 1 and torch.is_grad_enabled()):
            # one look-up for all: the gradient of a vocabulary's embeddings is as large as the vocabulary
            words = self.chain.transformer.get_input_embeddings()(self.to_device(tokens.ids.astype(np.int64)))
        made = []
        for part in runs:
            texts = tokens.take(np.arange(part.start, part.stop))
            layout = self._in_bins(texts.lengths) if rows else by_length(texts.lengths, rows_at_once(self.device))
            ids = texts.ids if words is None else words[tokens.offsets[part.start]:tokens.offsets[part.stop]]
            self._count(len(texts), len(texts.ids), layout.size)
            one = functools.partial(self._stream, layout)
            made.append(self._recomputed(one, ids) if again else one(ids))
        return torch.cat(made)[self.to_device(_inverse(order))]

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
        return self._through(self.chain.modules, {"input_ids": torch.from_numpy(tokens.ids).long().to(self.device),
                                                  "offsets": torch.from_numpy(tokens.offsets[:-1]).to(self.device)})

    def _in_bins(self, lengths: np.ndarray) -> Layout:
        longest = int(lengths.max())
        if not self.compiled:
            return in_bins(lengths, max(ROW, -(-longest // 64) * 64))
        # few shapes: rows of a power of two, and their number to an eighth or a sixteenth of it
        row = max(ROW, 1 << (longest - 1).bit_length())
        return in_bins(lengths, row, max(2, (1 << (int(lengths.sum()) // row).bit_length()) // 16))

    def _stream(self, layout: Layout, content: np.ndarray | Tensor) -> Tensor:
        """Embed the texts of one stream; ``content`` are their ids or word embeddings, ``[tokens]`` text by text."""
        model = self.chain.transformer
        inputs = self._inputs(layout, content)
        # evaluations have a new shape each time, so they are not compiled
        compiled = self.compiled and torch.is_grad_enabled()
        # anew for each part of a batch, so that the parts' gradients add up in float32
        weights = {} if compiled else cast_weights(model)
        with flat_attention(model), nullcontext() if compiled else quick_products(self.device):
            if compiled:
                made = self._compiled(**inputs)
            elif weights:
                made = functional_call(model, weights, (), inputs)
            else:
                made = model(**inputs)
        return self._pooled(made.last_hidden_state[0], layout)

    def _inputs(self, layout: Layout, content: np.ndarray | Tensor) -> dict[str, Any]:
        positions = np.zeros(layout.size, dtype=np.int64)
        positions[layout.places] = layout.within
        positions += self.chain.first_position
        inputs: dict[str, Any] = {"position_ids": self.to_device(positions)[None]}
        if isinstance(content, Tensor):
            if layout.size > len(content):
                content = content.new_zeros(layout.size, content.shape[1]).index_copy(
                    0, self.to_device(layout.places), content)
            inputs["inputs_embeds"] = content[None]
        else:
            ids = np.full(layout.size, self.chain.pad_id, dtype=np.int64)
            ids[layout.places] = content
            inputs["input_ids"] = self.to_device(ids)[None]
        if not layout.row:
            return {**inputs, "spans": layout.spans}
        segments = self.to_device(layout.segments())
        inputs["rows"] = (segments[:, None, :, None] == segments[:, None, None, :])
        if self.kernel:
            inputs["bounds"] = (self.to_device(layout.bounds()), layout.row)
        return inputs

    @functools.cached_property
    def _compiled(self) -> Any:  # noqa: ANN401 - a transformers model
        torch._dynamo.config.recompile_limit = max(32, torch._dynamo.config.recompile_limit)  # shapes of rows
        # without CUDA graphs: they hand out memory that accumulating gradients would still be using
        return torch.compile(self.chain.transformer, dynamic=False)

    def _pooled(self, hidden: Tensor, layout: Layout) -> Tensor:
        """Give ``hidden``, ``[positions, width]``, to the modules after the transformer, which know rectangles only."""
        lengths, width = layout.lengths, hidden.shape[1]
        real = np.arange(int(lengths.max())) < lengths[:, None]
        places = layout.places
        texts = hidden.index_select(0, self.to_device(places)) if layout.row else hidden[: len(places)]
        # a copy of what is there: to gather padding from some position would add up its gradients there, one by one
        cells = hidden.new_zeros(real.size, width).index_copy(0, self.to_device(np.flatnonzero(real)), texts)
        return self._through(self.chain.modules[1:], {"token_embeddings": cells.view(*real.shape, width),
                                                      "attention_mask": self.to_device(real.astype(np.int64))})

    def _grouped(self, tokens: Tokens, *, slack: float) -> Tensor:
        budget = CPU_TOKENS if self.device.type == "cpu" else 32 * CPU_TOKENS
        limit = self.tokens_at_once or self._fitting()
        return self._in_groups(tokens, plan_groups(tokens.lengths, min(budget, limit), slack), limit)

    def _alone(self, tokens: Tokens) -> Tensor:
        return self._in_groups(tokens, [np.array([text]) for text in range(len(tokens))],
                               self.tokens_at_once or self._fitting())

    def _in_groups(self, tokens: Tokens, groups: list[np.ndarray], limit: int) -> Tensor:
        again = torch.is_grad_enabled() and len(tokens.ids) > limit
        made = []
        for group in groups:
            texts = tokens.take(group)
            self._count(len(texts), len(texts.ids), len(texts) * int(texts.lengths.max()))
            made.append(self._recomputed(self._group, texts) if again else self._group(texts))
        return torch.cat(made)[self.to_device(_inverse(np.concatenate(groups)))]

    def _group(self, texts: Tokens) -> Tensor:
        with quick_products(self.device):
            return self._rectangle(texts)

    def _padded(self, tokens: Tokens) -> Tensor:
        self._count(len(tokens), len(tokens.ids), len(tokens) * int(tokens.lengths.max()))
        return self._rectangle(tokens)

    def _recomputed(self, embed: Callable[[Any], Tensor], given: Any) -> Tensor:  # noqa: ANN401 - what embed takes
        # torch draws the same dropout again on the devices of the tensors it is handed, and on the CPU
        return checkpoint(lambda _: embed(given), torch.empty(0, device=self.device), use_reentrant=False)

    def _rectangle(self, tokens: Tokens) -> Tensor:
        if self.chain.bag:
            ids_of_texts = [each.tolist() for each in np.split(tokens.ids, tokens.offsets[1:-1])]
            features = self.chain.first.get_sentence_features(ids_of_texts)
            return self._through(self.chain.modules, {name: each.to(self.device) for name, each in features.items()})
        rectangle = (len(tokens), max(1, int(tokens.lengths.max())))
        real = np.arange(rectangle[1])[None, :] < tokens.lengths[:, None]
        if self.chain.left_padding:
            real = real[:, ::-1]
        ids = np.full(rectangle, self.chain.pad_id, dtype=np.int64)
        ids[real] = tokens.ids
        features = {"input_ids": self.to_device(ids), "attention_mask": self.to_device(real.astype(np.int64))}
        if self.chain.words:
            features["sentence_lengths"] = torch.from_numpy(tokens.lengths)
        return self._through(self.chain.modules, features)

    @staticmethod
    def _through(modules: Iterable[torch.nn.Module], features: dict[str, Tensor]) -> Tensor:
        for module in modules:
            features = module(features)
        return features["sentence_embedding"]

    def _fitting(self) -> int:
        """Return about how many tokens' activations fit half of the memory.

        34 bytes a token, layer and unit of width in half precision, twice that in single (Korthikanti et al. 2022,
        https://arxiv.org/abs/2205.05198, without attention's own, small for sentences).
        """
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
