"""Check a model before it encodes: refuse what can't work, and set a length or a padding token that is missing.

Every ``Encoder`` passes here, whether its model was loaded or made in Python.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import LSTM, CLIPModel, InputModule, Pooling
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sentence_forge.encoders.computing.chain import Chain, chains_of
from sentence_forge.runtime.errors import UserError, warn_once

log = logging.getLogger(__name__)


def check_loaded(model: nn.Module, folder: Path) -> None:
    """Refuse a model whose folder lacks weights: transformers gives them random values, others at each loading.

    Args:
        model: as its library loaded it; transformers marks each weight that it read from a file. Weights of a pooler
            may lack, since no vector depends on them.
        folder: where it came from.

    Raises:
        UserError: names the first weight that lacks.
    """
    for module in model.modules():
        if isinstance(transformer := getattr(module, "auto_model", None), PreTrainedModel):
            names = [name for name, _ in transformer.named_parameters() if "pooler" not in name]
            lack = [name for name in names if not getattr(transformer.get_parameter(name), "_is_hf_initialized", False)]
            if lack:
                raise UserError(f"{folder}: its files lack {len(lack)} of the model's {len(names)} weights, such as "
                                f"{lack[0]}, which would be random; fetch or make them again")


def make_ready(model: SentenceTransformer) -> None:
    """Refuse what can't be encoded, and give a model what it lacks: a length that its weights take, a padding token.

    Args:
        model: is changed in place; a second call changes nothing.

    Raises:
        UserError: says what isn't supported.
    """
    if not len(model):
        raise UserError("model: has no modules")
    chains = dict.fromkeys(chains_of(model).values())
    for chain in chains:
        _refuse_unknown(chain)
        if any(model.prompts.values()) and any(isinstance(module, Pooling) and not module.include_prompt
                                               for module in chain.modules):
            raise UserError("model: leaves its prompts out of the pooling (include_prompt: false, as INSTRUCTOR does), "
                            "which is not done here; give a model that pools them")
        _limit_length(chain)
        _give_padding(chain)
        size = len(chain.tokenizer) if isinstance(chain.tokenizer, PreTrainedTokenizerBase) else 0
        if chain.vocabulary is not None and size > chain.vocabulary:
            warn_once(f"model: its tokenizer has {size} ids and its weights have embeddings for {chain.vocabulary}; "
                      "texts that hold one of the others are refused")
    if len(chains) > 1 and len(widths := {_width(chain) for chain in chains}) > 1:
        raise UserError(f"model: gives queries and documents vectors of different sizes {sorted(map(str, widths))}, "
                        "which can't be compared")


def _width(chain: Chain) -> int | None:
    """Return the size of the vectors, from the last module that names one."""
    for module in reversed(chain.modules):
        if (size := getattr(module, "get_embedding_dimension", None)) is not None:
            return size()
    return None


def longest(chain: Chain) -> int | None:
    """Return how many tokens of a text the weights take; None where there is no limit."""
    named = getattr(chain.config, "max_position_embeddings", None) or -1  # XLNet says -1: it has no such limit
    return chain.positions or (named if named > 0 else None)


def _refuse_unknown(chain: Chain) -> None:
    name = type(chain.first).__name__
    if isinstance(chain.first, CLIPModel):
        raise UserError(f"model: begins with {name}, which is for images, too; give a model of texts")
    known = chain.static or chain.bag or chain.words or isinstance(getattr(chain.first, "tokenizer", None),
                                                                   PreTrainedTokenizerBase)
    if not known:
        raise UserError(f"model: begins with {name}, which gives no token ids here; supported are Transformer, "
                        "StaticEmbedding, WordEmbeddings and BoW")
    for module in chain.modules[1:]:
        if isinstance(module, InputModule):
            raise UserError(f"model: has a {type(module).__name__} behind its {name}; only the first one takes texts")
    if not chain.words and any(isinstance(module, LSTM) for module in chain.modules):
        raise UserError(f"model: has an LSTM behind {name}, which hands it no lengths, so sentence-transformers can't "
                        "encode with it either; an LSTM needs WordEmbeddings before it")


def _limit_length(chain: Chain) -> None:
    most, said = longest(chain), chain.max_length
    if chain.positions is None and said is not None:
        return  # positions that are computed have no end
    if most is not None and (said is None or said > most):
        why = "its tokenizer names no length" if said is None else f"it names {said}, which is more"
        warn_once(f"model: its texts are cut at {most} tokens, for which its weights have positions; {why}")
        chain.cut_at(most)


def _give_padding(chain: Chain) -> None:
    """Name a padding token, without which sentence-transformers encodes nothing; masks hide it."""
    tokenizer: Any = chain.tokenizer
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or tokenizer.pad_token_id is not None:
        return
    found = next((each for each in (tokenizer.eos_token, tokenizer.unk_token, tokenizer.sep_token, tokenizer.bos_token)
                  if each is not None), None) or tokenizer.convert_ids_to_tokens(0)
    tokenizer.pad_token = found
    log.info("model: its tokenizer has no padding token, which sentence-transformers needs; it gets %r", found)
