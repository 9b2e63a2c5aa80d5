"""Static embeddings: a vector for each token, averaged over a text. No transformer, so a CPU trains them in minutes.

As sentence-transformers' ``StaticEmbedding``; special tokens are left out, and texts are cut only where asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from torch import Tensor, nn

from sentence_forge.encoders.computing.chain import chains_of
from sentence_forge.encoders.making.prompts import set_prompts
from sentence_forge.encoders.making.safety import vet
from sentence_forge.encoders.making.weights import locate
from sentence_forge.encoders.making.wordpiece import learn_wordpiece
from sentence_forge.runtime.errors import UserError


def static(
    texts: Callable[[], list[str]],
    *,
    dim: int = 512,
    tokenizer: str | None = None,
    vocabulary: int = 30000,
    max_length: int | None = None,
    normalize: bool = False,
    prompts: Mapping[str, str | None] | None = None,
    seed: int = 0,
) -> SentenceTransformer:
    """Build static embeddings with random weights.

    Args:
        texts: gives the run's texts (offered by the run).
        dim: width of the vectors.
        tokenizer: a model whose tokenizer to take, a folder or hub id; None learns one from the texts.
        vocabulary: most entries a learnt tokenizer has.
        max_length: tokens a text keeps; None is all of them.
        normalize: whether vectors have unit length.
        prompts: put before queries, documents and other texts.
        seed: of the weights.

    Raises:
        UserError: there are no texts to learn from, or that model has no tokenizer.
    """
    backend = learn_wordpiece(texts(), vocabulary, by="static") if tokenizer is None else _tokenizer_of(tokenizer)
    if dim < 1 or (max_length is not None and max_length < 1):
        raise UserError(f"model: dim={dim}, max_length={max_length}; both must be 1 or more")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        embedding = StaticEmbedding(backend, embedding_dim=dim)
    model = SentenceTransformer(modules=[embedding, *([Normalize()] if normalize else [])], device="cpu")
    chains_of(model)[None].cut_at(max_length)
    set_prompts(model, prompts or {})
    return model


class PaddedMean(nn.Module):
    """The same mean over padded rows, which ONNX takes as it takes a transformer's input.

    Args:
        embedding: its weights are used, not copied.
    """

    def __init__(self, embedding: StaticEmbedding) -> None:
        super().__init__()
        self.embedding = embedding.embedding

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add ``sentence_embedding`` ``[batch, dim]`` to ``input_ids`` and ``attention_mask`` ``[batch, length]``."""
        mask = features["attention_mask"].unsqueeze(-1).to(self.embedding.weight.dtype)
        total = (nn.functional.embedding(features["input_ids"], self.embedding.weight) * mask).sum(dim=1)
        return {**features, "sentence_embedding": total / mask.sum(dim=1).clamp(min=1.0)}


def _tokenizer_of(name: str) -> Any:  # noqa: ANN401 - tokenizers.Tokenizer
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    weights = locate(name)
    vet(weights.folder)
    folder = weights.parts[0]
    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        else:  # an older folder's, made from its vocabulary
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"model.tokenizer={name}: has no tokenizer that can be loaded: {said}") from error
    tokenizer.no_truncation()
    return tokenizer
