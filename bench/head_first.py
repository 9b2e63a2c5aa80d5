"""A softmax head that learns faster than the model under it, and before it: is that what costs a tuned model?

``python -m train experiment=budget loss=softmax 'plugins=[bench.head_first]' loss._target_=bench.head_first.HeadFirst
+loss.factor=50 +loss.steps=100 data=...``
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sentence_forge.losses.softmax import Softmax


class HeadFirst(Softmax):
    """Softmax whose head takes steps ``factor`` times as long, and has the first ``steps`` batches for itself.

    Adam's steps are as long as the learning rate whatever the gradient, so at 2e-5 a head of random weights near 0.03
    hardly moves in 200 steps. Its weights are kept divided by ``factor`` here, which makes each step so much longer.

    Args:
        concatenation: as of ``Softmax``.
        factor: how many times as long the head's steps are.
        steps: batches in which the model under the head gets gradients of zero.
        dim: size of an embedding (offered by the run).
        labels: the label names (offered by the run).
    """

    seen: Tensor

    def __init__(self, concatenation: Sequence[str] = ("u", "v", "|u-v|"), factor: float = 50.0, steps: int = 100, *,
                 dim: int, labels: Sequence[str]) -> None:
        super().__init__(concatenation, dim=dim, labels=labels)
        self.factor, self.steps = factor, steps
        with torch.no_grad():
            for weights in self.classifier.parameters():
                weights /= factor
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def logits(self, u: Tensor, v: Tensor) -> Tensor:
        """Return the ``[batch, labels]`` scores of pairs of ``[batch, dim]`` embeddings."""
        return self.factor * super().logits(u, v)

    def forward(self, embeddings: list[Tensor], labels: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """Return the mean cross-entropy, for the head alone in the first batches."""
        if int(self.seen) < self.steps:
            self.seen += 1
            embeddings = [each.detach() + 0 * each for each in embeddings]
        return super().forward(embeddings, labels, text_ids)
