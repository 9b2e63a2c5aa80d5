"""Multiple negatives ranking: a softmax of each row's own positive among those of the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from sentence_forge.losses.base import Loss
from sentence_forge.runtime.errors import UserError


class MultipleNegativesRanking(Loss):
    """Cross-entropy of each anchor's own positive against all candidates of the batch (InfoNCE, in-batch negatives).

    Henderson et al. 2017 (https://arxiv.org/abs/1705.00652), section 4.4; van den Oord et al. 2018
    (https://arxiv.org/abs/1807.03748). Candidates are every row's positive and every row's hard negatives, any number
    of columns. sentence-transformers' ``MultipleNegativesRankingLoss`` computes the same but can't leave out false
    negatives; here a candidate whose text equals the row's anchor or its positive leaves the denominator. Where a
    margin is given, so does one that is nearer than the positive (as in Zhang et al. 2025, "Qwen3 Embedding",
    https://arxiv.org/abs/2506.05176).

    Args:
        scale: factor on the cosines, the inverse of the temperature; 20 is temperature 0.05.
        symmetric: also rank the batch's anchors for each positive, and average the two
            (``directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"`` there).
        false_negative_margin: a candidate whose cosine with the anchor is above the positive's by more than this is
            likely to be true, too, and leaves the denominator; 2 keeps all.

    >>> anchors = positives = torch.eye(2)
    >>> MultipleNegativesRanking(scale=1.0)([anchors, positives], None, None)  # log(e^1 + e^0) - 1
    tensor(0.3133)
    """

    def __init__(self, scale: float = 20.0, symmetric: bool = False,
                 false_negative_margin: float = 2.0) -> None:
        super().__init__()
        if not 0 <= false_negative_margin <= 2:
            raise UserError(f"loss.false_negative_margin: is {false_negative_margin}; it is added to a cosine, so give "
                            "0 to 2, which keeps all candidates")
        self.scale = scale
        self.symmetric = symmetric
        self.false_negative_margin = false_negative_margin

    def forward(self, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """Return the mean cross-entropy; ``embeddings`` are anchor, positive and any number of negatives."""
        every = slice(0, len(embeddings[0]))
        return MultipleNegativesRanking.of_rows(self, every, embeddings, labels, text_ids)

    def of_rows(self, rows: slice, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """Return some rows' cross-entropy over the number of all; the scores computed are ``[rows, candidates]``."""
        anchors_ND = normalize(embeddings[0], dim=-1)
        candidates_MD = normalize(torch.cat(embeddings[1:]), dim=-1)
        count = len(anchors_ND)
        own_R = torch.arange(count, device=anchors_ND.device)[rows]
        scores_RM = anchors_ND[rows] @ candidates_MD.T * self.scale
        if text_ids is not None:
            anchor_ids, positive_ids = text_ids[:, 0], text_ids[:, 1]
            candidate_ids = text_ids[:, 1:].T.reshape(-1)
            scores_RM = _without_equals(scores_RM, own_R, candidate_ids, positive_ids, anchor_ids)
        loss = self._ranked(scores_RM, own_R, count)
        if not self.symmetric:
            return loss
        scores_RN = candidates_MD[:count][rows] @ anchors_ND.T * self.scale
        if text_ids is not None:
            scores_RN = _without_equals(scores_RN, own_R, anchor_ids, anchor_ids, positive_ids)
        return (loss + self._ranked(scores_RN, own_R, count)) / 2

    def _ranked(self, scores_RM: Tensor, own_R: Tensor, count: int) -> Tensor:
        """Return the rows' cross-entropy over ``count``, without candidates nearer than the own one by the margin."""
        if self.false_negative_margin < 2:
            most_R1 = scores_RM.detach().gather(1, own_R[:, None]) + self.false_negative_margin * self.scale
            scores_RM = scores_RM.masked_fill(scores_RM.detach() > most_R1, float("-inf"))
        return cross_entropy(scores_RM, own_R, reduction="sum") / count


def _without_equals(scores_RM: Tensor, own_R: Tensor, candidate_ids: Tensor, *texts: Tensor) -> Tensor:
    """Set to -inf every candidate, save a row's own, whose text is one of the row's own texts."""
    equal_RM = torch.zeros_like(scores_RM, dtype=torch.bool)
    for ids in texts:
        equal_RM |= ids[own_R, None] == candidate_ids
    equal_RM.scatter_(1, own_R[:, None], False)  # the first N candidates are the rows' own
    return scores_RM.masked_fill(equal_RM, float("-inf"))
