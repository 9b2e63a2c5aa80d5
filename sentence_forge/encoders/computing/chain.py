"""A chain: the modules that a text passes from its token ids to its vector, and what they need to know.

A plain model is one chain. An asymmetric model (a ``Router`` of sentence-transformers: two towers, or one transformer
with a layer for each side) is a chain for queries and one for documents, which may share modules.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router
from sentence_transformers.sentence_transformer.modules import (
    BoW,
    Dropout,
    LayerNorm,
    Pooling,
    StaticEmbedding,
    Transformer,
    WordEmbeddings,
)
from torch import Tensor, nn

from sentence_forge.encoders.computing.tokens import Tokens, tokenize
from sentence_forge.encoders.protocol import Role
from sentence_forge.runtime.errors import UserError

ENDLESS = 1_000_000  # tokens; libraries write this number or a larger one where there is no limit
_FLAT_POOLINGS = ("mean", "max", "cls", "lasttoken")
_POSITIONS = ("position_embeddings", "position_embedding", "embed_positions", "wpe")


@dataclass(frozen=True)
class Chain:
    """The modules of a model in the order in which texts of one role pass them.

    Args:
        modules: of sentence-transformers; the first one takes token ids.
    """

    modules: tuple[nn.Module, ...]

    @property
    def first(self) -> Any:  # noqa: ANN401 - one of several classes of sentence-transformers
        """The module with the tokenizer."""
        return self.modules[0]

    @property
    def static(self) -> bool:
        """Whether the first module is a table of static embeddings, which takes a flat stream of ids."""
        return isinstance(self.first, StaticEmbedding)

    @property
    def bag(self) -> bool:
        """Whether the first module is a bag of words: it gives a vector at once."""
        return isinstance(self.first, BoW)

    @property
    def words(self) -> bool:
        """Whether the first module is a table of word embeddings."""
        return isinstance(self.first, WordEmbeddings)

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401 - of transformers, tokenizers or sentence-transformers
        """What makes token ids of texts."""
        return self.first.tokenizer

    @property
    def transformer(self) -> Any:  # noqa: ANN401 - a transformers model
        """The transformers model of the first module; None where that is none."""
        return self.first.auto_model if isinstance(self.first, Transformer) else None

    @property
    def config(self) -> Any:  # noqa: ANN401 - a transformers config
        """The transformers model's config, or None."""
        return None if self.transformer is None else self.transformer.config

    @property
    def max_length(self) -> int | None:
        """Tokens a text keeps, special tokens included; None keeps all of them."""
        if self.static:
            return (self.tokenizer.truncation or {}).get("max_length")
        length = getattr(self.first, "max_seq_length", None) or getattr(self.tokenizer, "model_max_length", None)
        return None if length is None or length >= ENDLESS else int(length)

    def cut_at(self, length: int | None) -> None:
        """Keep at most ``length`` tokens of a text; the saved model does so too."""
        if not self.static:
            self.first.max_seq_length = length
        elif length is None:
            self.tokenizer.no_truncation()
        else:
            self.tokenizer.enable_truncation(length)

    @property
    def pad_id(self) -> int:
        """The id that fills up a rectangle of ids; attention masks hide it."""
        found = int(getattr(self.tokenizer, "pad_token_id", None) or 0)
        return found if self.vocabulary is None or found < self.vocabulary else 0

    @property
    def left_padding(self) -> bool:
        """Whether the model is used to padding before a text."""
        return getattr(self.tokenizer, "padding_side", "right") == "left"

    @functools.cached_property
    def vocabulary(self) -> int | None:
        """How many token ids the weights have embeddings for; None for bags of words."""
        table = self.first if self.static or self.words else self.transformer
        if table is None:
            return None
        if table is self.transformer:
            return len(table.get_input_embeddings().weight)
        return next(len(each.weight) for each in table.modules() if isinstance(each, nn.Embedding | nn.EmbeddingBag))

    @functools.cached_property
    def _learnt_positions(self) -> nn.Embedding | None:
        for name, module in () if self.transformer is None else self.transformer.named_modules():
            if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in _POSITIONS:
                return module
        return None

    @property
    def first_position(self) -> int:
        """The position id of a text's first token: families such as RoBERTa's begin behind that of the padding."""
        table = self._learnt_positions
        return 0 if table is None or table.padding_idx is None else table.padding_idx + 1

    @property
    def positions(self) -> int | None:
        """How many tokens the weights have positions for; None where positions are computed or relative."""
        table = self._learnt_positions
        # BART's table counts from an offset of its own
        return None if table is None else len(table.weight) - self.first_position - getattr(table, "offset", 0)

    @property
    def pooling(self) -> str | None:
        """``mean``, ``max``, ``cls`` or ``lasttoken``, if all behind the transformer is that and modules for vectors.

        None where a module behind it wants the texts' tokens as a rectangle.
        """
        pooling, rest = self.modules[1:2], self.modules[2:]
        if not (pooling and type(pooling[0]) is Pooling and pooling[0].pooling_mode in _FLAT_POOLINGS):
            return None
        known = all(type(module) in (Dense, Normalize, LayerNorm, Dropout)
                    and getattr(module, "module_input_name", "sentence_embedding") == "sentence_embedding"
                    for module in rest)
        return str(pooling[0].pooling_mode) if known else None

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters; float32 where there are none."""
        return next((p.dtype for module in self.modules for p in module.parameters()), torch.float32)

    def through(self, first: int, features: dict[str, Tensor]) -> Tensor:
        """Return the embeddings that the modules from number ``first`` on make of features, as they call them."""
        for module in self.modules[first:]:
            features = module(features)
        return features["sentence_embedding"]

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Return the texts' tokens, cut at the model's length.

        Raises:
            UserError: a text that the tokenizer doesn't take, or a token that the weights have no embedding for.
        """
        tokens = tokenize(self.tokenizer, texts, self.max_length, in_words=self.words or self.bag)
        if self.vocabulary is not None and len(tokens.ids) and int(tokens.ids.max()) >= self.vocabulary:
            place = int((tokens.ids >= self.vocabulary).argmax())
            text = int((tokens.offsets[1:] > place).argmax())
            raise UserError(f"model: {texts[text][:60]!r} holds a token of id {tokens.ids[place]}, and the weights "
                            f"have embeddings for {self.vocabulary} ids only; give the tokenizer that belongs to them, "
                            "or resize the model (resize_token_embeddings)")
        return tokens


def chains_of(model: SentenceTransformer) -> dict[Role | None, Chain]:
    """Return the chain of each role; without a role it is the one that stock ``encode`` takes.

    Raises:
        UserError: the model chooses a chain by something else than the roles of a search.
    """
    roles: tuple[Role | None, ...] = (None, "query", "document")
    return {role: Chain(tuple(_flattened(model.children(), role))) for role in roles}


def _flattened(modules: Any, role: Role | None) -> list[nn.Module]:  # noqa: ANN401 - an iterable of modules
    made: list[nn.Module] = []
    for module in modules:
        if not isinstance(module, Router):
            made.append(module)
            continue
        try:
            route = module._resolve_route(task=role, modality="text")
        except ValueError:
            routes = ", ".join(module.sub_modules)
            raise UserError(f"model: its Router has the routes {routes}, and none for "
                            f"{role or 'texts without a role'}; it must have query and document") from None
        assert route is not None
        made += _flattened(module.sub_modules[route], role)
    return made
