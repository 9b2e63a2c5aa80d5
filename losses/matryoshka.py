"""Matryoshka: any loss, at several lengths of the vectors, so that they can be cut to any of these later."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sentence_forge.losses.base import Classifies, Loss
from sentence_forge.runtime import targets
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.values import check_dims

log = logging.getLogger(__name__)


class Matryoshka(Loss):
    """``sum_d weight_d * inner(the first d numbers of each vector, at length 1)``.

    Kusupati et al. 2022, "Matryoshka Representation Learning" (https://arxiv.org/abs/2205.13147), as
    sentence-transformers' ``MatryoshkaLoss`` does it for sentence embeddings. Each dimension has an inner loss of its
    own, so that one with a head (softmax) has a head each.

    Args:
        inner: the config of the loss to wrap; any but another Matryoshka.
        dims: how many of a vector's numbers, one entry a length; None is all of them, a half, a quarter, an eighth.
        weights: of each dimension's loss; None is 1 each.
        dim: size of an embedding (offered by the run).
        labels: the distinct labels (offered by the run).
        plugins: the user's packages, one of which may hold the inner loss (offered by the run).

    Raises:
        UserError: a dimension below 1, repeated or above ``dim``; another number of weights than of dimensions.
    """

    def __init__(self, inner: Mapping[str, Any], dims: Sequence[int] | None = None,
                 weights: Sequence[float] | None = None, *, dim: int, labels: Sequence[str],
                 plugins: Collection[str] = ()) -> None:
        super().__init__()
        if dims is None:
            dims = [dim // part for part in (1, 2, 4, 8) if dim // part]
        self.dims = check_dims(dims, dim, "loss.dims")
        if weights is not None and len(weights) != len(dims):
            raise UserError(f"loss.weights: has {len(weights)} entries for {len(dims)} loss.dims; give one each")
        if dim not in dims:
            log.warning("loss.dims: the model's own %d is not among %s, so whole vectors are not trained", dim,
                        list(dims))
        given = dict(zip(dims, weights or [1.0] * len(dims), strict=True))
        self.weights = [float(given[each]) for each in self.dims]
        self.losses = nn.ModuleList(
            targets.build(inner, "loss.inner", plugins=plugins, omit=("shapes", "sampler"), dim=each, labels=labels)
            for each in self.dims)
        longest: Any = self.losses[0]
        if isinstance(longest, Classifies):  # only then is this a loss that classifies, too
            self.predict: Callable[[Tensor, Tensor], list[str]] = lambda u, v: longest.predict(
                *_cut([u, v], self.dims[0]))

    def encode_labels(self, labels: Sequence[Any]) -> Tensor | None:
        """Return what the inner loss makes of the labels."""
        return self._first.encode_labels(labels)

    def forward(self, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """Return the weighted sum of the inner losses; all arguments are the inner loss's."""
        return torch.stack([weight * loss(_cut(embeddings, dim), labels, text_ids)
                            for dim, weight, loss in zip(self.dims, self.weights, self.losses, strict=True)]).sum()

    def describe(self) -> dict[str, Any]:
        """Return the dimensions, and what the inner loss says of itself."""
        return {**self._first.describe(), "dims": list(self.dims)}

    @property
    def _first(self) -> Loss:
        first = self.losses[0]
        assert isinstance(first, Loss)
        return first


def _cut(embeddings: Sequence[Tensor], dim: int) -> list[Tensor]:
    return [normalize(embedding[:, :dim], dim=-1) for embedding in embeddings]
