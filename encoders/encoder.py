"""A model as the rest of the program sees it: texts in, vectors out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from encoders.build import pretrained
from encoders.fingerprint import fingerprint
from encoders.forward import Forward
from encoders.tokens import Tokens, tokenize
from runtime.errors import UserError


class Encoder:
    """A SentenceTransformer with our tokens and forward.

    Args:
        model: is used, not copied; training goes on in it.
        name: what reports call it.
        fast: see ``encoders.forward.Forward``.
    """

    def __init__(self, model: SentenceTransformer, name: str = "model", *, fast: bool = True) -> None:
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
    def max_length(self) -> int:
        """Tokens a text keeps, special tokens included."""
        return int(self.model.max_seq_length or self.model.tokenizer.model_max_length)

    @property
    def prompt(self) -> str:
        """What stands before every text: the model's default prompt, mostly nothing."""
        return self.model.prompts.get(self.model.default_prompt_name or "") or ""

    @functools.cached_property
    def fingerprint(self) -> str:
        """See ``encoders.fingerprint``; taken when first asked for, so ask after the training."""
        return fingerprint(self.model)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Return the texts' tokens, cut at the model's length, with the default prompt before them if it has one."""
        before = self.prompt
        return tokenize(self.model.tokenizer, [before + text for text in texts] if before else texts, self.max_length)

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Return how many texts are longer than the model takes."""
        return self.tokenize(texts).truncated

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None,
               texts_a_block: int = 8192) -> np.ndarray:
        """Return float32 ``[n, dim]`` vectors; the same as stock ``encode`` to 1e-6.

        Texts are taken longest first, a block at a time, so that memory stays steady and an out-of-memory shows at
        once; each block's tokens are one batch for ``Forward``.

        Args:
            texts: any number of them.
            progress: told how many texts were encoded since it was last called.
            texts_a_block: texts tokenised and encoded at a time.
        """
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        order = np.argsort([-len(text) for text in texts], kind="stable")
        was_training = self.model.training
        self.model.eval()
        for start in range(0, len(order), texts_a_block):
            block = order[start : start + texts_a_block]
            tokens = self.tokenize([texts[number] for number in block])
            vectors[block] = self.forward(tokens).float().cpu().numpy()
            if progress:
                progress(len(block))
        self.model.train(was_training)
        return vectors


def load_encoder(path: str | Path, *, package: str | None = None, device: str = "auto") -> Encoder:
    """Load any model (folder, run, export, hub id) as an ``Encoder``."""
    model = pretrained(str(path), package=package)
    model.to(pick_device(device))
    return Encoder(model, name=str(path))


def pick_device(name: str = "auto") -> str:
    """Return the device a user means: ``auto`` is the first of cuda, mps and cpu that is here.

    Raises:
        UserError: the device is not here.
    """
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(each for each, available in here.items() if available)
    if not here[name.partition(":")[0]]:
        raise UserError(f"device={name}: there is no {name} here; use device=auto or device=cpu")
    return name
