"""Models that differ from one another in a single thing that moves a vector."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling
from tokenizers import normalizers

from sentence_forge.encoders.making.build import from_scratch

TEXTS = ["storm hits the coast", "Markets fall again", "opera opens"] * 3


def small() -> SentenceTransformer:
    return from_scratch(lambda: TEXTS, hidden=32, layers=1, heads=2, vocabulary=80)


def others() -> Iterator[tuple[str, SentenceTransformer]]:
    """Yield what is different and the model."""
    base = small()
    for name in sorted(base.state_dict())[::4]:
        model = copy.deepcopy(base)
        values = model.state_dict()[name].view(-1)
        values[0] = torch.nextafter(values[0], torch.tensor(9.0))
        yield f"one bit of {name}", model
    for mode in ("cls", "max", "lasttoken"):
        model = copy.deepcopy(base)
        model[1] = Pooling(32, pooling_mode=mode)
        yield f"pooling {mode}", model
    for prompt in ("query: ", "passage: "):
        model = copy.deepcopy(base)
        model.prompts, model.default_prompt_name = {"text": prompt}, "text"
        yield f"prompt {prompt!r}", model
    for name, layer in (("normalisation", Normalize()), ("tanh", Dense(32, 32, activation_function=torch.nn.Tanh())),
                        ("relu", Dense(32, 32, activation_function=torch.nn.ReLU()))):
        yield name, SentenceTransformer(modules=[*copy.deepcopy(base).children(), layer], device="cpu")
    model = copy.deepcopy(base)
    model.tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    yield "tokenizer that keeps case", model
    model = copy.deepcopy(base)
    model.tokenizer.add_tokens(["markets"])
    yield "tokenizer with a token more", model
    model = copy.deepcopy(base)
    model.max_seq_length = 5
    yield "length", model
    for key, value in (("num_attention_heads", 4), ("hidden_act", "relu"), ("layer_norm_eps", 1e-3)):
        model = copy.deepcopy(base)
        setattr(model[0].auto_model.config, key, value)
        yield f"{key} {value}", model
    yield "half precision", copy.deepcopy(base).bfloat16()
