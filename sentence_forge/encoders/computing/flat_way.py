"""The way without padding: runs the streams of a plan (``computing.plan``) through a transformers model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from sentence_forge.encoders.computing.autocast import cast_weights
from sentence_forge.encoders.computing.chain import Chain
from sentence_forge.encoders.computing.flat import flat_attention, rows_mask
from sentence_forge.encoders.computing.matmul import quick_products, rows_at_once
from sentence_forge.encoders.computing.plan import How, Packed, Plan, Shapes, Stream, lay_out
from sentence_forge.encoders.computing.tokens import Tokens


class FlatWay:
    """Texts one behind the other through a chain's transformer.

    Args:
        chain: the modules.
        device: gives where they are now.
        rows: see ``Forward``.
        compiled: likewise.
        limit: gives how many tokens' activations are kept.
        count: is told each stream's number of texts, of tokens, and of positions computed.
    """

    def __init__(self, chain: Chain, device: Callable[[], torch.device], *, rows: bool | None, compiled: bool,
                 limit: Callable[[], int], count: Callable[[int, int, int], None]) -> None:
        self.chain, self.compiled = chain, compiled
        self.shapes: Shapes | None = None  # of streams that are compiled; None compiles all
        self.kernel = False  # whether torch's varlen kernel may be used
        self._device_now, self._rows, self._limit, self._count = device, rows, limit, count

    def how(self) -> How:
        """Return how batches are planned with what is set in this thread now: gradients, autocast."""
        device = self._device_now()
        return How(limit=self._limit(),
                   rows=(self.compiled or device.type != "cpu") if self._rows is None else self._rows,
                   multiple=rows_at_once(device), learning=torch.is_grad_enabled(), compiled=self.compiled,
                   shapes=self.shapes, kernel=self.kernel, pooling=self.chain.pooling,
                   pad_id=self.chain.pad_id, first_position=self.chain.first_position)

    def __call__(self, tokens: Tokens, *, by_words: bool = False) -> Tensor:
        """Plan and run: flat tokens to ``[n, dim]`` embeddings in the texts' order."""
        plan = lay_out(tokens, self.how(), by_words=by_words)
        return self.run(plan, sent(Packed(plan.groups), self._device_now()))

    def run(self, plan: Plan, given: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """Return the ``[n, dim]`` embeddings of a plan's texts, in the order that they were given to it.

        Args:
            plan: made for this model.
            given: its ``groups``, on the device.
        """
        whole, *arrays = given
        words = self.chain.transformer.get_input_embeddings()(whole["words"]) if "words" in whole else None
        made = []
        for stream, own in zip(plan.streams, arrays, strict=True):
            real = stream.tokens.stop - stream.tokens.start
            self._count(len(stream.layout.lengths), real, stream.layout.size)
            one = functools.partial(self._stream, stream, own)
            content = None if words is None else words[stream.tokens]
            made.append(recomputed(one, content, self._device_now()) if plan.again else one(content))
        return torch.cat(made).index_select(0, whole["order"])

    def _stream(self, stream: Stream, given: Mapping[str, Tensor], words: Tensor | None) -> Tensor:
        """Embed the texts of one stream, from their ids or from ``words``, their embeddings ``[tokens, width]``."""
        model = self.chain.transformer
        inputs = self._inputs(stream, given, words)
        # anew for each part of a batch, so that the parts' gradients add up in float32
        weights = {} if stream.compiled else cast_weights(model)
        with flat_attention(model), nullcontext() if stream.compiled else quick_products(self._device_now()):
            if stream.compiled:
                made = self._compiled(**inputs)
            elif weights:
                made = functional_call(model, weights, (), inputs)
            else:
                made = model(**inputs)
        return self._pooled(made.last_hidden_state[0], stream, given)

    def _inputs(self, stream: Stream, given: Mapping[str, Tensor], words: Tensor | None) -> dict[str, Any]:
        layout = stream.layout
        inputs: dict[str, Any] = {"position_ids": given["positions"][None]}
        if words is None:
            inputs["input_ids"] = given["ids"][None]
        else:
            if layout.size > len(words):
                words = words.new_zeros(layout.size, words.shape[1]).index_copy(0, given["places"], words)
            inputs["inputs_embeds"] = words[None]
        if not layout.row:
            return {**inputs, "spans": layout.spans}
        device = given["segments"].device.type
        half = torch.is_autocast_enabled(device)
        inputs["rows"] = rows_mask(given["segments"], torch.get_autocast_dtype(device) if half else self.chain.dtype)
        if "bounds" in given:
            inputs["bounds"] = (given["bounds"], layout.row)
        return inputs

    @functools.cached_property
    def _compiled(self) -> Any:  # noqa: ANN401 - a transformers model
        # DistributedDataParallel would cut the graph into buckets, at other places than the shapes were compiled for
        torch._dynamo.config.optimize_ddp = False
        # never met: each kind of stream has a few shapes, with and without dropout
        torch._dynamo.config.recompile_limit = max(32, torch._dynamo.config.recompile_limit)
        # without CUDA graphs: they hand out memory that accumulating gradients would still be using
        return torch.compile(self.chain.transformer, dynamic=False)

    def _pooled(self, hidden: Tensor, stream: Stream, given: Mapping[str, Tensor]) -> Tensor:
        """Pool ``hidden``, ``[positions, width]``: texts where they lie, or a rectangle for modules that need one."""
        if "one" in given:
            return self.chain.through(2, {"sentence_embedding": hidden.index_select(0, given["one"])})
        texts = hidden.index_select(0, given["places"]) if stream.layout.row else \
            hidden[: stream.tokens.stop - stream.tokens.start]
        if "ends" in given:
            # text by text, so the same bits each time, also on a GPU; in float32, as the rectangle is
            pooled = torch.segment_reduce(texts.float(), str(self.chain.pooling), offsets=given["ends"], unsafe=True)
            return self.chain.through(2, {"sentence_embedding": pooled.to(hidden.dtype)})
        mask, width = given["mask"], hidden.shape[1]
        # a copy of what is there: to gather padding from some position would add up its gradients there, one by one
        cells = hidden.new_zeros(mask.numel(), width).index_copy(0, given["cells"], texts)
        return self.chain.through(1, {"token_embeddings": cells.view(*mask.shape, width), "attention_mask": mask})


def sent(packed: Packed, device: torch.device) -> list[dict[str, Tensor]]:
    """Copy arrays to a device, all in one copy that no GPU waits for."""
    buffer = torch.from_numpy(packed.buffer)
    there = buffer.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else buffer.to(device)
    return [{name: there[start: start + -(-array.nbytes // 8)].view(torch.from_numpy(array[:0]).dtype)[: array.size]
             .view(array.shape) for name, (start, array) in group.items()} for group in packed.places]


def recomputed(embed: Callable[[Any], Tensor], given: Any, device: torch.device) -> Tensor:  # noqa: ANN401 - embed's
    """Return ``embed(given)``, which keeps no activations and is computed again for the backward."""
    # torch draws the same dropout again on the devices of the tensors it is handed, and on the CPU
    return checkpoint(lambda _: embed(given), torch.empty(0, device=device), use_reentrant=False)
