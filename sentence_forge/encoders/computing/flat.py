"""Run a transformers model on several texts without padding: all layers but attention see one long row of tokens.

Linear layers, norms and embeddings treat each token by itself; only attention must know which tokens are of one text.
transformers lets a caller bring the attention (``AttentionInterface``), so its own models run unchanged, and this
module defines which tokens attend to which. There are three forms:

- ``spans``: the texts lie sorted by length, and those of one length are one batch without any mask. Best on a CPU.
- ``rows``: the stream is cut into rows of one length, several texts a row, and a block mask keeps them apart. Few
  shapes, so a GPU can compile it; keeps attention dropout.
- ``bounds``: where each text begins, for the kernel of ``torch.nn.attention.varlen`` (CUDA, half precision, no
  dropout), which is taken over ``rows`` where it can be.

A 4-D attention mask, which every model accepts, is not used: with one ModernBERT's sliding layers and MPNet compute
something else, without an error.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "sentence_forge_flat"


@contextmanager
def flat_attention(model: Any) -> Iterator[None]:  # noqa: ANN401 - a transformers model
    """Let ``model`` use the attention of this module inside the ``with`` block only."""
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _no_mask(**_: Any) -> None:  # noqa: ANN401
    """Return no mask: without this function transformers would make one over the whole stream."""


def rows_mask(segments: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to the scores of texts in rows: 0 within a text, else minus infinity.

    Once for all layers: of a mask of booleans torch would make this one in every layer.

    Args:
        segments: the number of each position's text, int64 ``[rows, row]``.
        dtype: that attention is computed in.

    Returns:
        ``[rows, 1, row, row]``.
    """
    apart = segments[:, None, :, None] != segments[:, None, None, :]
    return torch.zeros(apart.shape, dtype=dtype, device=segments.device).masked_fill_(apart, -torch.inf)


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, *,
            spans: tuple[tuple[int, int], ...] = (), rows: Tensor | None = None,
            bounds: tuple[Tensor, int] | None = None, sliding_window: int | None = None, dropout: float = 0.0,
            scaling: float | None = None, is_causal: bool | None = None, **more: Any,  # noqa: ANN401
            ) -> tuple[Tensor, None]:
    """Attend within each text; ``[1, heads, tokens, width]`` in, ``[1, tokens, heads, width]`` out."""
    causal = bool(getattr(module, "is_causal", False)) if is_causal is None else is_causal
    q, k, v = (each.transpose(1, 2).squeeze(0) for each in (query, key, value))  # [tokens, heads, width]
    half = q.dtype in (torch.bfloat16, torch.float16)
    if bounds is not None and half and not dropout and q.shape == k.shape:
        return _by_kernel(q, k, v, bounds, sliding_window, scaling, causal), None

    if rows is not None and rows.dtype != q.dtype and not torch.is_autocast_enabled(q.device.type):
        rows = rows.to(q.dtype)  # a model that computes in another precision than its weights have

    def attend(q: Tensor, k: Tensor, v: Tensor, shape: tuple[int, int], mask: Tensor | None) -> Tensor:
        batch = [each.unflatten(0, shape).transpose(1, 2) for each in (q, k, v)]
        done, _ = sdpa_attention_forward(module, batch[0], batch[1], batch[2], mask, dropout=dropout, scaling=scaling,
                                         is_causal=causal and mask is None, **more)
        return done.flatten(0, 1)

    if rows is not None:
        shape = (rows.shape[0], rows.shape[-1])
        return attend(q, k, v, shape, _limited(rows, sliding_window, causal=causal))[None], None
    sizes = [texts * length for texts, length in spans]
    done = []
    for span, *parts in zip(spans, q.split(sizes), k.split(sizes), v.split(sizes), strict=True):
        mask = None
        if sliding_window is not None and span[1] > sliding_window:
            mask = _near(span[1], sliding_window, causal, q.device)[None, None]
        done.append(attend(parts[0], parts[1], parts[2], span, mask))
    return torch.cat(done)[None], None


def _limited(mask: Tensor, window: int | None, *, causal: bool) -> Tensor:
    """Return a mask ``[..., length, length]`` without pairs ``window`` or more positions apart or, causal, ahead."""
    if window is None and not causal:
        return mask
    return mask.masked_fill(~_near(mask.shape[-1], window, causal, mask.device), -torch.inf)


@functools.lru_cache(maxsize=8)
def _near(length: int, window: int | None, causal: bool, device: torch.device) -> Tensor:
    position = torch.arange(length, device=device)
    off = position[:, None] - position[None, :]
    near = torch.ones_like(off, dtype=torch.bool) if window is None else off.abs() < window
    return near & (off >= 0) if causal else near


def _by_kernel(q: Tensor, k: Tensor, v: Tensor, bounds: tuple[Tensor, int], window: int | None,
               scaling: float | None, causal: bool) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    starts, longest = bounds
    behind = -1 if window is None else window - 1
    ahead = 0 if causal else behind
    done = varlen_attn(q, k, v, starts, starts, longest, longest, scale=scaling, window_size=(behind, ahead))
    assert isinstance(done, Tensor)
    return done[None]


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _no_mask)
