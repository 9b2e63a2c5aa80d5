"""The interface of encoders: texts in, vectors out, and the role of a text in a search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Role = Literal["query", "document"]
"""What a text is in a search. Models may put a prompt before each role, or encode the two by different weights."""


class TextEncoder(Protocol):
    """Anything that turns texts into vectors; ``Encoder`` (torch) and ``OnnxEncoder`` do.

    Derive from it to write another one: only ``name``, ``fingerprint`` and ``encode`` have to be given then.
    """

    name: str
    """How reports call the model."""

    fingerprint: str
    """A hash of everything that decides the vectors: weights, tokenizer, pooling, prompts, precision."""

    def encode(self, texts: Sequence[str], *, role: Role | None = None) -> npt.NDArray[np.float32]:
        """Return float32 ``[len(texts), dim]``, one vector a text in the order given.

        Args:
            texts: any number of them.
            role: what they are in a search; None for texts that are compared with their like.
        """
        ...

    def encode_blocks(self, blocks: Iterable[Sequence[str]], *, role: Role | None = None,
                      progress: Callable[[int], None] | None = None) -> Iterator[npt.NDArray[np.float32]]:
        """Encode blocks of texts and yield each block's vectors, float32 ``[len(block), dim]``.

        Args:
            blocks: may be consumed one block ahead of the vectors.
            role: as in ``encode``.
            progress: called with the number of texts encoded since its last call.
        """
        for texts in blocks:
            vectors = self.encode(texts, role=role)
            if progress is not None:
                progress(len(texts))
            yield vectors

    @property
    def max_length(self) -> int | None:
        """Tokens that are read of a text, special tokens included; None is all of them."""
        return None

    def role_key(self, role: Role | None) -> str:
        """Return a key of how texts of this role are encoded: roles with equal keys give equal vectors."""
        return ""

    def count_tokens(self, texts: Sequence[str], *, role: Role | None = None) -> int:
        """Return how many tokens are read of the texts, special tokens and prompts included; 0 if it can't be told."""
        return 0

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Return how many texts are longer than the model reads."""
        return 0
