"""From a batch's flat tokens to its sentence embeddings, however the model and the device do that best.

Padding exists only here. There are three ways, each tried on the batch's own texts before it is believed:

- ``flat``: texts one behind the other, see ``computing.flat``; padding only fills a stream or a last row up. Any
  model whose attention transformers lets a caller bring.
- ``groups``: texts of nearly equal length, each group padded to its own longest (MPNet, XLNet).
- ``padded``: the whole batch as one padded rectangle, what everybody else does; the way others are compared with.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding, Transformer
from torch import Tensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from sentence_forge.encoders.computing.autocast import cast_weights
from sentence_forge.encoders.computing.batching import parts, plan_groups
from sentence_forge.encoders.computing.device import host_memory
from sentence_forge.encoders.computing.flat import ROBERTA_LIKE, Layout, by_length, flat_attention, in_bins
from sentence_forge.encoders.computing.matmul import quick_products, rows_at_once
from sentence_forge.encoders.computing.tokens import Tokens
from sentence_forge.encoders.making.static import static_features

log = logging.getLogger(__name__)

CPU_TOKENS = 1024  # computed at a time on a CPU: what they need stays in the cache
ROW = 128  # positions a row on a GPU, where no text is longer
TOLERANCE = 1e-5
HALF_TOLERANCE = 5e-2


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


class Forward:
    """Runs a SentenceTransformer on flat tokens.

    Args:
        model: any sentence-transformers model whose first module takes ``input_ids`` and ``attention_mask``, or none.
        fast: False always takes the padded way, with which tests compare the others.
        rows: whether the flat way lays texts out in rows of equal length; None is yes on a GPU, and
            where it is compiled.
        tokens_at_once: beyond so many tokens a forward keeps no activations and computes them again for the backward,
            a part of the batch at a time: the gradients of GradCache (Gao et al. 2021,
            https://arxiv.org/abs/2101.06983) without a wall of memory. None is what fits half of the memory.
        compiled: whether the flat way goes through ``torch.compile``, with few shapes of rows; for a GPU.
    """

    def __init__(self, model: SentenceTransformer, *, fast: bool = True, rows: bool | None = None,
                 tokens_at_once: int | None = None, compiled: bool = False) -> None:
        self.model = model
        self.fast = fast
        self.rows = rows
        self.tokens_at_once = tokens_at_once
        self.compiled = compiled
        self.way: str | None = None  # known from the first batch on
        self.kernel = False  # whether the flat way may use torch's varlen kernel; likewise
        self.pad_id = int(getattr(model.tokenizer, "pad_token_id", 0) or 0)
        self.left_padding = getattr(model.tokenizer, "padding_side", "right") == "left"
        self.work = Work()

    def __call__(self, tokens: Tokens) -> Tensor:
        """Return ``[n, dim]`` embeddings, in the texts' order, on the model's device; cut at its ``truncate_dim``."""
        if self.way is None:
            self.way = self._choose(tokens)
        return self._ways()[self.way](tokens)[:, : self.model.truncate_dim]

    def _ways(self) -> dict[str, Callable[[Tokens], Tensor]]:
        return {"static": self._static, "flat": self._flat, "groups": self._grouped, "padded": self._padded}

    @property
    def _device(self) -> torch.device:
        return self.model.device

    def _choose(self, tokens: Tokens) -> str:
        """Return the fastest way that gives what the padded way gives, on some of the batch's own texts."""
        if isinstance(self.model[0], StaticEmbedding):
            return "static"
        if not self.fast:
            return "padded"
        trial = self._trial(tokens)
        was_training, work, self.work = self.model.training, self.work, Work()
        self.model.eval()
        try:
            with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
                right = self._padded(trial).float()
                for way in ("flat", "groups") if self._may_be_flat() else ("groups",):
                    found = [self._ways()[way](trial)]
                    if way == "flat":
                        found.append(self._flat(trial, by_words=True))
                    off = max(_apart(each, right) for each in found)
                    # half-precision weights round differently in every shape
                    if off <= (TOLERANCE if self.model.dtype == torch.float32 else HALF_TOLERANCE):
                        self.kernel = way == "flat" and self._device.type == "cuda" and self._kernel_agrees(trial)
                        return way
                    log.info("the %s way is off by %.1e from the padded one here, so it isn't taken", way, off)
        finally:
            self.model.train(was_training)
            self.work = work
        return "padded"

    def _kernel_agrees(self, trial: Tokens) -> bool:
        """Whether the varlen kernel runs on this GPU and gives what padding gives, in bf16."""
        self.kernel = True
        try:
            with torch.autocast("cuda", dtype=torch.bfloat16):
                off = _apart(self._flat(trial), self._padded(trial))
        except (RuntimeError, ImportError, TypeError) as error:  # an older card, a head width it doesn't know
            log.info("the varlen kernel can't be used here: %s", str(error).splitlines()[0])
            return False
        if off > HALF_TOLERANCE:
            log.info("the varlen kernel is off by %.1e from the padded way here, so it isn't used", off)
        return off <= HALF_TOLERANCE

    def _trial(self, tokens: Tokens) -> Tokens:
        """Return the longest and the shortest texts, and one longer than any sliding window, pieced together."""
        order = np.argsort(tokens.lengths, kind="stable")
        some = tokens.take(np.unique(np.concatenate([order[:8], order[-8:]])))
        window = max((getattr(self._config, name, None) or 0) for name in ("sliding_window", "local_attention"))
        length = min(2 * window or 64, int(self.model.max_seq_length or 512))
        if length <= int(some.lengths.max()):
            return some
        long = np.resize(some.ids, length)
        return Tokens(np.concatenate([some.ids, long]), np.append(some.offsets, some.offsets[-1] + length))

    @property
    def _bare(self) -> Any:  # noqa: ANN401 - a transformers model
        return self.model[0].auto_model

    @property
    def _config(self) -> Any:  # noqa: ANN401 - a transformers config
        return self._bare.config if isinstance(self.model[0], Transformer) else None

    def _may_be_flat(self) -> bool:
        """Whether transformers lets us bring the attention; what it then computes is tried."""
        return (isinstance(self.model[0], Transformer)
                and bool(getattr(self._bare, "_supports_attention_backend", False))
                and not self._config.output_hidden_states)

    def _static(self, tokens: Tokens) -> Tensor:
        self._count(len(tokens), len(tokens.ids), len(tokens.ids))
        features = {name: value.to(self._device) for name, value in static_features(tokens).items()}
        return self.model(features)["sentence_embedding"]

    def _flat(self, tokens: Tokens, *, by_words: bool = False) -> Tensor:
        """Embed without padding: sorted by length, a part at a time that the device does best."""
        rows = (self.compiled or self._device.type != "cpu") if self.rows is None else self.rows
        order = np.argsort(tokens.lengths, kind="stable")
        tokens = tokens.take(order)
        limit = self.tokens_at_once or self._fitting()
        again = torch.is_grad_enabled() and len(tokens.ids) > limit
        runs = list(parts(tokens.offsets, limit if rows else min(CPU_TOKENS, limit)))
        words: Tensor | None = None
        if by_words or (len(runs) > 1 and torch.is_grad_enabled()):
            # one look-up for all: the gradient of a vocabulary's embeddings is as large as the vocabulary
            words = self._bare.get_input_embeddings()(self.to_device(tokens.ids.astype(np.int64)))
        made = []
        for part in runs:
            texts = tokens.take(np.arange(part.start, part.stop))
            layout = self._in_rows(texts.lengths) if rows else by_length(texts.lengths, rows_at_once(self._device))
            ids = texts.ids if words is None else words[tokens.offsets[part.start]:tokens.offsets[part.stop]]
            self._count(len(texts), len(texts.ids), layout.size)
            one = functools.partial(self._stream, layout)
            made.append(self._recomputed(one, ids) if again else one(ids))
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return torch.cat(made)[self.to_device(back)]

    def _in_rows(self, lengths: np.ndarray) -> Layout:
        longest = int(lengths.max())
        if not self.compiled:
            return in_bins(lengths, max(ROW, -(-longest // 64) * 64))
        # few shapes: rows of a power of two, and their number to an eighth or a sixteenth of it
        row = max(ROW, 1 << (longest - 1).bit_length())
        return in_bins(lengths, row, max(2, (1 << (int(lengths.sum()) // row).bit_length()) // 16))

    def _stream(self, layout: Layout, content: np.ndarray | Tensor) -> Tensor:
        """Embed the texts of one stream; ``content`` are their ids or word embeddings, ``[tokens]`` text by text."""
        positions = np.zeros(layout.size, dtype=np.int64)
        positions[layout.places] = layout.within
        if self._config.model_type in ROBERTA_LIKE:
            positions += self._config.pad_token_id + 1
        inputs: dict[str, Any] = {"position_ids": self.to_device(positions)[None]}
        if isinstance(content, Tensor):
            if layout.size > len(content):
                content = content.new_zeros(layout.size, content.shape[1]).index_copy(
                    0, self.to_device(layout.places), content)
            inputs["inputs_embeds"] = content[None]
        else:
            ids = np.full(layout.size, self.pad_id, dtype=np.int64)
            ids[layout.places] = content
            inputs["input_ids"] = self.to_device(ids)[None]
        if layout.row:
            segments = self.to_device(layout.segments())
            inputs["rows"] = (segments[:, None, :, None] == segments[:, None, None, :])
            if self.kernel:
                inputs["bounds"] = (self.to_device(layout.bounds()), layout.row)
        else:
            inputs["spans"] = layout.spans
        # evaluations have a new shape each time, so they are not compiled
        compiled = self.compiled and torch.is_grad_enabled()
        # anew for each part of a batch, so that the parts' gradients add up in float32
        weights = {} if compiled else cast_weights(self._bare)
        with flat_attention(self._bare), nullcontext() if compiled else quick_products(self._device):
            if compiled:
                made = self._compiled(**inputs)
            elif weights:
                made = functional_call(self._bare, weights, (), inputs)
            else:
                made = self._bare(**inputs)
        return self._pooled(made.last_hidden_state[0], layout)

    @functools.cached_property
    def _compiled(self) -> Any:  # noqa: ANN401 - a transformers model
        torch._dynamo.config.recompile_limit = max(32, torch._dynamo.config.recompile_limit)  # shapes of rows
        # without CUDA graphs: they hand out memory that accumulating gradients would still be using
        return torch.compile(self._bare, dynamic=False)

    def _pooled(self, hidden: Tensor, layout: Layout) -> Tensor:
        """Give ``hidden``, ``[positions, width]``, to the modules after the transformer, which know rectangles only."""
        lengths, width = layout.lengths, hidden.shape[1]
        real = np.arange(int(lengths.max())) < lengths[:, None]
        places = layout.places
        texts = hidden.index_select(0, self.to_device(places)) if layout.row else hidden[: len(places)]
        # a copy of what is there: to gather padding from some position would add up its gradients there, one by one
        cells = hidden.new_zeros(real.size, width).index_copy(0, self.to_device(np.flatnonzero(real)), texts)
        features = {"token_embeddings": cells.view(*real.shape, width),
                    "attention_mask": self.to_device(real.astype(np.int64))}
        for module in list(self.model.children())[1:]:
            features = module(features)
        return features["sentence_embedding"]

    def _grouped(self, tokens: Tokens) -> Tensor:
        budget = CPU_TOKENS if self._device.type == "cpu" else 32 * CPU_TOKENS
        limit = self.tokens_at_once or self._fitting()
        again = torch.is_grad_enabled() and len(tokens.ids) > limit
        groups = plan_groups(tokens.lengths, min(budget, limit))
        made = []
        for group in groups:
            texts = tokens.take(group)
            self._count(len(texts), len(texts.ids), len(texts) * int(texts.lengths.max()))
            made.append(self._recomputed(self._group, texts) if again else self._group(texts))
        back = np.empty(len(tokens), dtype=np.int64)
        back[np.concatenate(groups)] = np.arange(len(tokens))
        return torch.cat(made)[self.to_device(back)]

    def _group(self, texts: Tokens) -> Tensor:
        with quick_products(self._device):
            return self._rectangle(texts)

    def _padded(self, tokens: Tokens) -> Tensor:
        self._count(len(tokens), len(tokens.ids), len(tokens) * int(tokens.lengths.max()))
        return self._rectangle(tokens)

    def _recomputed(self, embed: Callable[[Any], Tensor], given: Any) -> Tensor:  # noqa: ANN401 - what embed takes
        # torch draws the same dropout again on the devices of the tensors it is handed, and on the CPU
        return checkpoint(lambda _: embed(given), torch.empty(0, device=self._device), use_reentrant=False)

    def _rectangle(self, tokens: Tokens) -> Tensor:
        rectangle = (len(tokens), int(tokens.lengths.max()))
        columns = np.arange(rectangle[1])
        real = columns[None, :] < tokens.lengths[:, None]
        if self.left_padding:
            real = real[:, ::-1]
        ids = np.full(rectangle, self.pad_id, dtype=np.int64)
        ids[real] = tokens.ids
        features = {"input_ids": self.to_device(ids), "attention_mask": self.to_device(real.astype(np.int64))}
        return self.model(features)["sentence_embedding"]

    def _count(self, texts: int, real: int, padded: int) -> None:
        self.work.texts += texts
        self.work.real += real
        self.work.padded += padded

    def to_device(self, values: np.ndarray) -> Tensor:
        """Copy to the model's device, without making a GPU wait."""
        made = torch.from_numpy(np.ascontiguousarray(values))
        return made.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else \
            made.to(self._device)

    def _fitting(self) -> int:
        """Return about how many tokens' activations fit half of the memory.

        34 bytes a token, layer and unit of width in half precision, twice that in single (Korthikanti et al. 2022,
        https://arxiv.org/abs/2205.05198, without attention's own, small for sentences).
        """
        if self._device.type == "cuda":
            memory = torch.cuda.get_device_properties(self._device).total_memory
        else:
            memory = host_memory()
        width = int(getattr(self._config, "hidden_size", 0) or 768)
        layers = int(getattr(self._config, "num_hidden_layers", 0) or 12)
        return max(CPU_TOKENS, int(memory / 2 / (68 * layers * width)))


def _apart(found: Tensor, right: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return float((found.float() - right.float()).abs().max() / right.abs().max())
