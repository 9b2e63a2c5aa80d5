"""From a batch's flat tokens to its sentence embeddings, by the fastest way that gives the right ones.

Right is what a text gets that is encoded alone. Before the first batch each way (see ``computing.ways``) is held
against that (``computing.trial``), and before the first one that is trained on so are gradients.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from sentence_forge.encoders.computing.chain import Chain, chains_of
from sentence_forge.encoders.computing.plan import How, Plan, lay_out, shapes_of
from sentence_forge.encoders.computing.tokens import Tokens
from sentence_forge.encoders.computing.trial import TOLERANCE, judge, kernel_agrees, off, trial_of, try_gradients
from sentence_forge.encoders.computing.ways import Ways
from sentence_forge.encoders.protocol import Role
from sentence_forge.runtime.errors import warn_once

log = logging.getLogger(__name__)

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
        self._trained: set[Chain] = set()  # whose gradients have been tried

    def __call__(self, tokens: Tokens, *, role: Role | None = None, queries: int = 0) -> Tensor:
        """Return ``[n, dim]`` embeddings, in the texts' order, on the model's device; cut at its ``truncate_dim``.

        Args:
            tokens: of n texts.
            role: of all texts.
            queries: so many of the first texts are queries and the others documents; 0 where ``role`` says what they
                are.
        """
        made = []
        for chain, texts in self._by_chain(tokens, role, queries):
            self._settle(chain, texts)
            made.append(self._ways[chain].way(self._chosen[chain])(texts))
        return self._joined(made)

    def settle(self, tokens: Tokens, *, queries: int = 0) -> dict[Chain, How]:
        """Choose the ways that such texts take, and return how further batches are planned.

        What is set in this thread now decides: whether gradients are wanted, and the precision of autocast.

        Args:
            tokens: a batch.
            queries: as in a call.
        """
        for chain, texts in self._by_chain(tokens, None, queries):
            self._settle(chain, texts)
        return {chain: self._ways[chain].flat.how() for chain, way in self._chosen.items() if way == "flat"}

    def plan(self, tokens: Tokens, hows: Mapping[Chain, How], *, queries: int = 0) -> list[tuple[Chain, Plan]]:
        """Return what a batch is to go through, and its plans; by NumPy alone, so that a thread may do it."""
        return [(chain, lay_out(texts, hows[chain]) if chain in hows else Plan(texts))
                for chain, texts in self._by_chain(tokens, None, queries)]

    def run(self, plans: Sequence[tuple[Chain, Plan]], given: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """Return what a call returns for the texts of plans; their ``groups`` are given, one behind the other."""
        made, first = [], 0
        for chain, plan in plans:
            self._settle(chain, plan.tokens)
            own = given[first: first + len(plan.groups)]
            first += len(own)
            ways = self._ways[chain]
            made.append(ways.flat.run(plan, own) if plan.streams else ways.way(self._chosen[chain])(plan.tokens))
        return self._joined(made)

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
        return self._ways[self.chains["document"]].flat.kernel

    @kernel.setter
    def kernel(self, used: bool) -> None:
        for ways in self._ways.values():
            ways.flat.kernel = used

    @property
    def compiled(self) -> bool:
        """Whether what documents go through is compiled where gradients are wanted."""
        return self._ways[self.chains["document"]].flat.compiled

    @compiled.setter
    def compiled(self, used: bool) -> None:
        for ways in self._ways.values():
            ways.flat.compiled = used

    def fix_shapes(self, plans: Sequence[tuple[Chain, Plan]]) -> None:
        """Compile the shapes that most of these plans' streams have, and no other."""
        for chain, ways in self._ways.items():
            own = [plan for each, plan in plans if each == chain and plan.streams]
            ways.flat.shapes = shapes_of(own) if own else None

    def _count(self, texts: int, real: int, padded: int) -> None:
        self.work.texts += texts
        self.work.real += real
        self.work.padded += padded

    def _joined(self, made: list[Tensor]) -> Tensor:
        return (made[0] if len(made) == 1 else torch.cat(made))[:, : self.model.truncate_dim]

    def _by_chain(self, tokens: Tokens, role: Role | None, queries: int) -> list[tuple[Chain, Tokens]]:
        if not (queries and self.asymmetric):
            return [(self.chains["document" if queries else role], tokens)]
        parts = [(self.chains["query"], np.arange(queries)), (self.chains["document"], np.arange(queries, len(tokens)))]
        return [(chain, tokens.take(texts)) for chain, texts in parts if len(texts)]

    def _settle(self, chain: Chain, tokens: Tokens) -> None:
        """Choose the way of a chain, and try its gradients if they are wanted, where that isn't done."""
        if chain not in self._chosen:
            self._chosen[chain] = self._choose(self._ways[chain], tokens)
        if torch.is_grad_enabled() and chain not in self._trained:
            self._trained.add(chain)
            with self._trying(chain):
                try_gradients(self._ways[chain], trial_of(chain, tokens), self._chosen[chain])

    def _choose(self, ways: Ways, tokens: Tokens) -> str:
        """Return the fastest way that gives each text what it gets alone."""
        possible = ways.possible
        if len(possible) == 1:
            return possible[0]
        if not self.fast:
            possible = ["padded", "equal", "alone"]
        trial = trial_of(ways.chain, tokens)
        with self._trying(ways.chain), torch.no_grad(), torch.autocast(self.model.device.type, enabled=False):
            alone = judge(ways, trial)
            padded = off(ways, "padded", trial, alone)
            way = next(way for way in possible if way == "alone" or self._fits(
                padded if way == "padded" else off(ways, way, trial, alone), way))
            if not self._fits(padded):
                log.info("the padded way is off by %.1e from texts encoded alone", padded)
                warn_once("model: in a padded batch its vectors depend on the other texts there, and so they do in "
                          "stock sentence-transformers; here each text gets the vector that it has alone: texts "
                          f"are encoded {_SAID[way]}")
            if way == "flat" and self.model.device.type == "cuda":
                ways.flat.kernel = kernel_agrees(ways, trial, alone, HALF_TOLERANCE)
        return way

    @contextlib.contextmanager
    def _trying(self, chain: Chain) -> Iterator[None]:
        """Without dropout, and not counted as work."""
        was_training = [module.training for module in chain.modules]
        work, self.work = self.work, Work()
        for module in chain.modules:
            module.eval()
        try:
            yield
        finally:
            for module, training in zip(chain.modules, was_training, strict=True):
                module.train(training)
            self.work = work

    def _fits(self, off: float, way: str = "") -> bool:
        # half-precision weights round differently in every shape
        fits = off <= (TOLERANCE if self.model.dtype == torch.float32 else HALF_TOLERANCE)
        if way and not fits:
            log.info("the %s way isn't taken: it is off by %.1e from texts encoded alone", way, off)
        return fits
