"""Tokens without padding: every distinct text once, as one flat stream of ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Tokens:
    """Token ids of n texts, one behind the other.

    Args:
        ids: int32 ``[tokens]``, special tokens included.
        offsets: int64 ``[n + 1]``; text ``i`` is ``ids[offsets[i]:offsets[i + 1]]``.
        truncated: how many texts were longer than the model takes, and were cut.
    """

    ids: np.ndarray
    offsets: np.ndarray
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens a text, int64 ``[n]``."""
        return np.diff(self.offsets)

    def take(self, texts: np.ndarray) -> Tokens:
        """Return the stream of the given texts, in the given order: one batch, without padding."""
        lengths = self.lengths[texts]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        # position p of the new stream lies (p - its text's new start) behind its text's old start
        source = np.arange(offsets[-1]) + np.repeat(self.offsets[texts] - offsets[:-1], lengths)
        return Tokens(self.ids[source], offsets)


def tokenize(tokenizer: Any, texts: Sequence[str], max_length: int) -> Tokens:  # noqa: ANN401 - a transformers one
    """Tokenise ``texts`` in parallel (the Rust tokenizer's own threads), cut at ``max_length`` tokens.

    Same ids as sentence-transformers' ``preprocess`` gives, without the padding.
    """
    cut = encode_ids(tokenizer, texts, max_length)
    full = [number for number, ids in enumerate(cut) if len(ids) == max_length]
    truncated = 0
    if full:
        whole = encode_ids(tokenizer, [texts[number] for number in full], None)
        truncated = sum(len(ids) > max_length for ids in whole)
    offsets = np.zeros(len(cut) + 1, dtype=np.int64)
    np.cumsum([len(ids) for ids in cut], out=offsets[1:])
    flat = np.fromiter((number for ids in cut for number in ids), dtype=np.int32, count=offsets[-1])
    return Tokens(flat, offsets, truncated)


def encode_ids(tokenizer: Any, texts: Sequence[str], max_length: int | None) -> list[list[int]]:  # noqa: ANN401
    """Return each text's token ids."""
    if not len(texts):
        return []
    cutting = {"truncation": True, "max_length": max_length} if max_length is not None else {"verbose": False}
    return tokenizer(list(texts), padding=False, return_attention_mask=False, return_token_type_ids=False,
                     **cutting)["input_ids"]
