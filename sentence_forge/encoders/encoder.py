"""Encoder: a SentenceTransformer with this project's tokenizing and forward, as the rest of the program uses it."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from sentence_forge.encoders.computing.device import pick_device
from sentence_forge.encoders.computing.forward import Forward
from sentence_forge.encoders.computing.token_cache import tokenizer_hash
from sentence_forge.encoders.computing.tokens import Tokens, refuse_what_is_no_text
from sentence_forge.encoders.corpus import encode_blocks, encode_texts, with_rows
from sentence_forge.encoders.fingerprint import BF16, fingerprint
from sentence_forge.encoders.making.build import pretrained
from sentence_forge.encoders.making.checks import make_ready
from sentence_forge.encoders.making.prompts import prompt_of
from sentence_forge.encoders.protocol import Role, TextEncoder

TOKENS_A_BATCH = {"cpu": 16_384, "gpu": 65_536}  # of one forward, which cuts them further


class Encoder(TextEncoder):
    """Texts to vectors by a SentenceTransformer, without padding where the model allows it.

    >>> from sentence_forge.encoders.making.build import from_scratch
    >>> encoder = Encoder(from_scratch(lambda: ["one two three"] * 4, hidden=16, layers=1, heads=1, vocabulary=40))
    >>> encoder.encode(["two", "three one"]).shape
    (2, 16)

    Args:
        model: is used, not copied; training goes on in it.
        name: how reports call it.
        fast: see ``encoders.computing.forward.Forward``.
    """

    def __init__(self, model: SentenceTransformer, name: str = "model", *, fast: bool = True) -> None:
        make_ready(model)
        self.model = model
        self.name = name
        self.forward = Forward(model, fast=fast)

    @property
    def dim(self) -> int:
        """Size of an embedding."""
        width = self.model.get_embedding_dimension()
        assert width is not None
        return width

    @property
    def max_length(self) -> int | None:
        """Tokens a text keeps, special tokens included; None keeps all of them."""
        return self.forward.chains["document"].max_length

    def prompt(self, role: Role | None = None) -> str:
        """Return the prompt that is put before a text of this role, often an empty one; see ``making.prompts``."""
        return prompt_of(self.model, role)

    def role_key(self, role: Role | None) -> str:
        """Return a key of how texts of this role are encoded: roles with equal keys give equal vectors."""
        chains = self.forward.chains
        other = next(each for each in (None, "query", "document") if chains[each] == chains[role])
        return f"{other or ''}\0{self.prompt(role)}"

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts before queries and documents, by role."""
        return {"query": self.prompt("query"), "document": self.prompt("document")}

    @functools.cached_property
    def fingerprint(self) -> str:  # type: ignore[override]  # mypy takes a cached property to be read-only
        """See ``encoders.fingerprint``; computed when first read, so read it after the training."""
        return fingerprint(self.model)

    def tokenize(self, texts: Sequence[str], role: Role | None = None) -> Tokens:
        """Return the texts' tokens, cut at the model's length, each text behind the role's prompt if it has one.

        Raises:
            UserError: a text that no tokenizer takes, or one with a token that the weights don't know.
        """
        before = self.prompt(role)
        if before:
            refuse_what_is_no_text(texts)
        return self.forward.chains[role].tokenize([before + text for text in texts] if before else texts)

    def tokenizer_hash(self, role: Role | None = None) -> str | None:
        """Return a hash of everything that decides ``tokenize``, for caches; None where it can't be hashed."""
        chain = self.forward.chains[role]
        return tokenizer_hash(chain.tokenizer, max_length=chain.max_length, prompt=self.prompt(role))

    def count_tokens(self, texts: Sequence[str], *, role: Role | None = None) -> int:
        """Return how many tokens are read of the texts, special tokens and prompts included."""
        return len(self.tokenize(texts, role).ids)

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Return how many texts are longer than the model takes."""
        return self.tokenize(texts).truncated

    def encode(self, texts: Iterable[str], *, role: Role | None = None, out: np.ndarray | None = None,
               progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Return float32 ``[n, dim]`` vectors; the same as stock ``encode`` to 1e-6.

        Args:
            texts: any number of them.
            role: what they are in a search, for models with prompts; as stock ``encode_query``, ``encode_document``.
            out: where the vectors go; see ``encoders.corpus.encode_texts``.
            progress: called with the number of texts encoded since its last call.

        Raises:
            TypeError: ``texts`` is one string.
            ValueError: ``out`` has not one row a text.
        """
        with self._evaluating():
            return encode_texts(texts, self.dim, functools.partial(self.tokenize, role=role),
                                functools.partial(self._start, role=role),
                                tokens_a_batch=self._tokens_a_batch, out=out, progress=progress)

    def encode_blocks(self, blocks: Iterable[Sequence[str]], *, role: Role | None = None,
                      progress: Callable[[int], None] | None = None) -> Iterator[np.ndarray]:
        """Encode blocks of texts and yield each one's float32 ``[n, dim]``; the next is being encoded meanwhile."""
        with self._evaluating():
            yield from encode_blocks(with_rows(blocks, self.dim), functools.partial(self.tokenize, role=role),
                                     functools.partial(self._start, role=role),
                                     tokens_a_batch=self._tokens_a_batch, progress=progress)

    @property
    def _tokens_a_batch(self) -> int:
        return TOKENS_A_BATCH["cpu" if self.model.device.type == "cpu" else "gpu"]

    @torch.inference_mode()
    def _start(self, tokens: Tokens, role: Role | None = None) -> Callable[[], np.ndarray]:
        vectors = self.forward(tokens, role=role)
        return lambda: vectors.float().cpu().numpy()

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(was_training)


def in_bf16(encoder: Encoder) -> Encoder:
    """Return a copy of an encoder with bf16 weights: half the memory, and on a GPU many times the speed.

    Its vectors differ from fp32's in the third digit, and so does its fingerprint.
    """
    made = Encoder(copy.deepcopy(encoder.model).to(torch.bfloat16), encoder.name, fast=encoder.forward.fast)
    made.fingerprint = encoder.fingerprint + BF16
    return made


def load_encoder(path: str | Path, *, package: str | None = None, device: str = "auto",
                 trust_remote_code: bool = False) -> Encoder:
    """Load any model (folder, run, export, hub id) as an ``Encoder``; its own code runs if it is trusted."""
    model = pretrained(str(path), package=package, trust_remote_code=trust_remote_code)
    model.to(pick_device(device))
    return Encoder(model, name=str(path))
