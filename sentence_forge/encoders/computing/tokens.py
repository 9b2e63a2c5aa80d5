"""Tokens without padding: every distinct text once, as one flat stream of ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from tokenizers import Tokenizer


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
        lengths = self.offsets[texts + 1] - self.offsets[texts]  # of these alone: there may be millions
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        # position p of the new stream lies (p - its text's new start) behind its text's old start
        source = np.arange(offsets[-1]) + np.repeat(self.offsets[texts] - offsets[:-1], lengths)
        return Tokens(self.ids[source], offsets)


def joined(parts: Iterable[Tokens]) -> Tokens:
    """Return one stream of all the parts' texts, part by part."""
    parts = [Tokens(np.empty(0, dtype=np.int32), np.zeros(1, dtype=np.int64)), *parts]
    offsets = np.concatenate([[0], *(part.lengths for part in parts)]).cumsum()
    return Tokens(np.concatenate([part.ids for part in parts]), offsets, sum(part.truncated for part in parts))


def tokenize(tokenizer: Any, texts: Sequence[str], max_length: int | None) -> Tokens:  # noqa: ANN401
    """Tokenise ``texts`` in parallel (the Rust tokenizer's own threads), cut at ``max_length`` tokens.

    Same ids as sentence-transformers' ``preprocess`` gives, without the padding.

    Args:
        tokenizer: of transformers; or of tokenizers, as static embeddings have it, which then cuts by itself.
        texts: any number of them.
        max_length: special tokens included; None is all of them.
    """
    if isinstance(tokenizer, Tokenizer):
        return flat_tokens(tokenizer.encode_batch_fast(list(texts), add_special_tokens=False), max_length)
    backend = tokenizer.backend_tokenizer
    if max_length is None:
        backend.no_truncation()
    else:
        backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    return flat_tokens(backend.encode_batch_fast(list(texts)), max_length)


def flat_tokens(encodings: Sequence[Any], max_length: int | None) -> Tokens:
    """Return what the Rust tokenizer made of texts, cut at ``max_length``, as one stream."""
    ids = [encoding.ids for encoding in encodings]
    offsets = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum([len(each) for each in ids], out=offsets[1:])
    flat = np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=offsets[-1])
    truncated = sum(len(each) == max_length and bool(encoding.overflowing)
                    for each, encoding in zip(ids, encodings, strict=True))
    return Tokens(flat, offsets, truncated)
