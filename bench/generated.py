"""Texts and a model for a machine that has neither data nor hub: words made up, weights drawn; speed does not care."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from bench.tasks import Task, make

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LENGTHS = {"anchor": (18.0, 8.0), "positive": (10.0, 3.2)}
"""Mean and standard deviation of a text's tokens, special ones included: a gamma distribution on top of 3 tokens, cut
at 75, close to the entailment pairs of SNLI and MultiNLI. A title has 20 +- 6."""
TITLE = (20.0, 6.0)
LONGEST = 75


def words(count: int) -> list[str]:
    """Return ``count`` different made-up words of two to four syllables."""
    generator = np.random.default_rng(0)
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    made: dict[str, None] = {}
    while len(made) < count:
        made["".join(generator.choice(syllables, generator.integers(2, 5)))] = None
    return list(made)


def texts(vocabulary: list[str], count: int, mean: float, deviation: float, seed: int) -> list[str]:
    """Return ``count`` random texts whose words, each one token, are drawn by rank as in language (Zipf)."""
    generator = np.random.default_rng(seed)
    shape = ((mean - 3) / deviation) ** 2
    lengths = 1 + np.rint(generator.gamma(shape, (mean - 3) / shape, count)).astype(int)  # two more are special
    lengths = lengths.clip(1, LONGEST - 2)
    weights = 1 / (10 + np.arange(len(vocabulary)))
    drawn = generator.choice(len(vocabulary), int(lengths.sum()), p=weights / weights.sum())
    parts = np.split(np.array(vocabulary, dtype=object)[drawn], np.cumsum(lengths)[:-1])
    return [" ".join(part) for part in parts]


def pairs(vocabulary: list[str], rows: int, batch_size: int) -> Task:
    """Return a task of anchor and positive with SNLI's lengths."""
    columns = {name: texts(vocabulary, rows, *LENGTHS[name], seed=seed) for seed, name in enumerate(LENGTHS)}
    return make("mnrl", "made-up words, SNLI's lengths", columns, None, batch_size)


def bert(vocabulary: list[str], folder: Path, *, hidden: int = 768, layers: int = 12, heads: int = 12) -> Path:
    """Write a BERT with random weights that knows the words, bert-base's size by default, and return its folder."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    known = [*SPECIAL, *vocabulary]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(known)}, model_max_length=128)
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=len(known), hidden_size=hidden, num_hidden_layers=layers,
                                 num_attention_heads=heads, intermediate_size=4 * hidden))
    with tempfile.TemporaryDirectory() as plain:
        model.save_pretrained(plain)
        tokenizer.save_pretrained(plain)
        modules = [Transformer(plain), Pooling(hidden, pooling_mode="mean")]
        SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder), create_model_card=False)
    return folder
