"""Tokens without padding: every distinct text once, as one flat stream of ids."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from sentence_forge.runtime.errors import UserError


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


def tokenize(tokenizer: Any, texts: Sequence[str], max_length: int | None, *,  # noqa: ANN401
             in_words: bool = False) -> Tokens:
    """Tokenise texts, cut at ``max_length`` tokens: the ids of sentence-transformers' ``preprocess``, without padding.

    Args:
        tokenizer: of transformers, written in Rust (which uses all cores) or in Python; or of tokenizers, as static
            embeddings have it, which then cuts by itself.
        texts: any number of them.
        max_length: special tokens included; None keeps all of them.
        in_words: the tokenizer is one of sentence-transformers', of word embeddings and bags of words.

    Raises:
        UserError: something that is no text, or no valid one, such as half of a surrogate pair.
    """
    try:
        if isinstance(tokenizer, Tokenizer):
            return flat_tokens(tokenizer.encode_batch_fast(list(texts), add_special_tokens=False), max_length)
        if in_words:
            ids = [tokenizer.tokenize(text) for text in texts]
            kept = [each[:max_length] for each in ids]
            return _stream(kept, [*map(len, kept)], sum(map(operator.gt, map(len, ids), map(len, kept))))
        if not tokenizer.is_fast:
            return _in_python(tokenizer, texts, max_length)
        backend = tokenizer.backend_tokenizer
        if max_length is None:
            backend.no_truncation()
        else:
            backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
        backend.no_padding()
        backend.encode_special_tokens = tokenizer.split_special_tokens
        return flat_tokens(backend.encode_batch_fast(list(texts)), max_length)
    except (TypeError, ValueError, AttributeError) as error:
        refuse_what_is_no_text(texts)
        raise error


def refuse_what_is_no_text(texts: Sequence[str]) -> None:
    """Raise a UserError that names the first text that no tokenizer takes, if there is one."""
    for number, text in enumerate(texts, start=1):
        try:
            text.encode("utf-8")
        except (AttributeError, UnicodeEncodeError):
            raise UserError(f"text {number} of {len(texts)}, {text!r:.80}, is no valid text; give a str without "
                            "surrogates (read the file as UTF-8)") from None


def flat_tokens(encodings: Sequence[Any], max_length: int | None) -> Tokens:
    """Return what the Rust tokenizer made of texts, cut at ``max_length``, as one stream."""
    lengths = [*map(len, encodings)]
    truncated = sum(length == max_length and bool(encoding.overflowing)
                    for length, encoding in zip(lengths, encodings, strict=True))
    # a list of lists would wake the garbage collector, which looks through all that torch has imported
    return _stream((encoding.ids for encoding in encodings), lengths, truncated)


def _in_python(tokenizer: Any, texts: Sequence[str], max_length: int | None) -> Tokens:  # noqa: ANN401
    ids = tokenizer(list(texts), truncation=max_length is not None, max_length=max_length)["input_ids"] if texts else []
    at_the_limit = [text for text, each in zip(texts, ids, strict=True) if len(each) == max_length]
    whole = tokenizer(at_the_limit, verbose=False)["input_ids"] if at_the_limit else []
    return _stream(ids, [*map(len, ids)], sum(len(each) > (max_length or 0) for each in whole))


def _stream(ids: Iterable[list[int]], lengths: Sequence[int], truncated: int) -> Tokens:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return Tokens(np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=offsets[-1]), offsets, truncated)
