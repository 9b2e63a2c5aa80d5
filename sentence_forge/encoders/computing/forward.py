"""From a batch's flat tokens to its sentence embeddings, by the fastest way that gives the right ones.

Right is what a text gets that is encoded alone. Before the first batch each way (see ``computing.ways``) is held
against that, on some of the batch's own texts and on a short and two long ones pieced together from them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from sentence_forge.encoders.computing.chain import Chain, chains_of
from sentence_forge.encoders.computing.tokens import Tokens
from sentence_forge.encoders.computing.ways import Ways
from sentence_forge.encoders.protocol import Role
from sentence_forge.runtime.errors import UserError, warn_once

log = logging.getLogger(__name__)

TOLERANCE = 1e-5
HALF_TOLERANCE = 5e-2
_SAID = {"flat": "without any padding", "equal": "in batches of equal length", "alone": "one by one",
         "groups": "in batches of nearly equal length"}


@dataclass
class Work:
    """Counts of what forwards have computed: texts, their tokens, and positions with the padding."""

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
        model: any sentence-transformers model that ``encoders.making.checks`` lets pass.
        fast: False takes padded rectangles, as others do, where a text's vector doesn't depend on its neighbours there.
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
        self.work = Work()
        self.chains: dict[Role | None, Chain] = chains_of(model)
        self._ways = {chain: Ways(chain, lambda: model.device, rows=rows, tokens_at_once=tokens_at_once,
                                  compiled=compiled, count=self._count) for chain in self.chains.values()}
        self._chosen: dict[Chain, str] = {}

    def __call__(self, tokens: Tokens, *, role: Role | None = None, queries: int = 0) -> Tensor:
        """Return ``[n, dim]`` embeddings, in the texts' order, on the model's device; cut at its ``truncate_dim``.

        Args:
            tokens: of n texts.
            role: of all texts.
            queries: so many of the first texts are queries and the others documents; 0 where ``role`` says what they
                are.
        """
        if queries and self.asymmetric:
            made = [self(tokens.take(np.arange(queries)), role="query")]
            if queries < len(tokens):
                made.append(self(tokens.take(np.arange(queries, len(tokens))), role="document"))
            return torch.cat(made)
        chain = self.chains["document" if queries else role]
        if chain not in self._chosen:
            self._chosen[chain] = self._choose(self._ways[chain], tokens)
        return self._ways[chain].way(self._chosen[chain])(tokens)[:, : self.model.truncate_dim]

    @property
    def asymmetric(self) -> bool:
        """Whether queries go through other modules than documents."""
        return self.chains["query"] != self.chains["document"]

    @property
    def way(self) -> str | None:
        """The way that documents take; known from the first batch on."""
        return self._chosen.get(self.chains["document"])

    @property
    def kernel(self) -> bool:
        """Whether the flat way uses torch's varlen kernel; known from the first batch on."""
        return self._ways[self.chains["document"]].kernel

    @kernel.setter
    def kernel(self, used: bool) -> None:
        for ways in self._ways.values():
            ways.kernel = used

    def to_device(self, values: np.ndarray) -> Tensor:
        """Copy to the model's device, without making a GPU wait."""
        return self._ways[self.chains[None]].to_device(values)

    def _count(self, texts: int, real: int, padded: int) -> None:
        self.work.texts += texts
        self.work.real += real
        self.work.padded += padded

    def _choose(self, ways: Ways, tokens: Tokens) -> str:
        """Return the fastest way that gives each text what it gets alone."""
        possible = ways.possible
        if len(possible) == 1:
            return possible[0]
        if not self.fast:
            possible = ["padded", "equal", "alone"]
        trial = _trial(ways.chain, tokens)
        was_training = [module.training for module in ways.chain.modules]
        work, self.work = self.work, Work()
        for module in ways.chain.modules:
            module.eval()
        try:
            with torch.no_grad(), torch.autocast(self.model.device.type, enabled=False):
                alone = _judge(ways, trial)
                padded = _off(ways, "padded", trial, alone)
                way = next(way for way in possible if way == "alone" or self._fits(
                    padded if way == "padded" else _off(ways, way, trial, alone), way))
                if not self._fits(padded):
                    log.info("the padded way is off by %.1e from texts encoded alone", padded)
                    warn_once("model: in a padded batch its vectors depend on the other texts there, and so they do in "
                              "stock sentence-transformers; here each text gets the vector that it has alone: texts "
                              f"are encoded {_SAID[way]}")
                if way == "flat" and self.model.device.type == "cuda":
                    ways.kernel = _kernel_agrees(ways, trial, alone)
                return way
        finally:
            for module, training in zip(ways.chain.modules, was_training, strict=True):
                module.train(training)
            self.work = work

    def _fits(self, off: float, way: str = "") -> bool:
        # half-precision weights round differently in every shape
        fits = off <= (TOLERANCE if self.model.dtype == torch.float32 else HALF_TOLERANCE)
        if way and not fits:
            log.info("the %s way isn't taken: it is off by %.1e from texts encoded alone", way, off)
        return fits


def _judge(ways: Ways, trial: Tokens) -> Tensor:
    """Return the vectors of the trial's texts, each encoded alone.

    Raises:
        UserError: the modules don't fit together.
    """
    try:
        return ways.way("alone")(trial).float()
    except (KeyError, RuntimeError, TypeError, IndexError, AttributeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        names = ", ".join(type(module).__name__ for module in ways.chain.modules)
        said = (str(error).strip() or "?").splitlines()[0]
        raise UserError(f"model: its modules ({names}) can't encode a text: {type(error).__name__}: {said}") from error


def _off(ways: Ways, name: str, trial: Tokens, alone: Tensor) -> float:
    """Return the largest difference between a way and the texts alone, relative to the largest value."""
    try:
        found = [ways.way(name)(trial)]
        if name == "flat":
            found.append(ways.flat(trial, by_words=True))
    except (KeyError, RuntimeError, TypeError, IndexError, AttributeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        log.info("the %s way can't be taken: %s: %s", name, type(error).__name__, error)
        return float("inf")
    return max(float((each.float() - alone).abs().max() / alone.abs().max()) for each in found)


def _kernel_agrees(ways: Ways, trial: Tokens, alone: Tensor) -> bool:
    """Whether the varlen kernel runs on this GPU and gives in bf16 what texts get alone."""
    ways.kernel = True
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            off = float((ways.flat(trial).float() - ways.way("alone")(trial).float()).abs().max() / alone.abs().max())
    except (RuntimeError, ImportError, TypeError) as error:  # an older card, a head width it doesn't know
        log.info("the varlen kernel can't be used here: %s", str(error).splitlines()[0])
        return False
    if off > HALF_TOLERANCE:
        log.info("the varlen kernel is off by %.1e from texts encoded alone, so it isn't used", off)
    return off <= HALF_TOLERANCE


def _trial(chain: Chain, tokens: Tokens) -> Tokens:
    """Return the shortest and the longest text of the batch, and three pieced together from them.

    One of these is longer than any sliding window, one nearly as long and one short; whatever depends on its neighbours
    shows among texts of so different lengths.
    """
    order = np.argsort(tokens.lengths, kind="stable")
    some = tokens.take(np.unique(order[[0, -1]]))
    if not len(some.ids):
        return some
    window = max((getattr(chain.config, name, None) or 0) for name in ("sliding_window", "local_attention"))
    longest = min(2 * window or 64, chain.max_length or 512)
    pieces = [np.resize(some.ids, max(1, length)) for length in (longest, longest * 7 // 8, longest // 16)]
    ends = some.offsets[-1] + np.cumsum([len(piece) for piece in pieces])
    return Tokens(np.concatenate([some.ids, *pieces]), np.concatenate([some.offsets, ends]))
