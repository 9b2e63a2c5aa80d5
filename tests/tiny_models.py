"""A tiny random model of each family, with a tokenizer of its kind, as a folder in the hub's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

VOCABULARY = 400
BERT_LIKE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def make(family: str, folder: Path, texts: Sequence[str]) -> Path:
    """Write a model of ``family`` with random weights, its tokenizer learnt from ``texts``; return ``folder``."""
    import transformers as t

    kinds: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
        "bert": (wordpiece, t.BertTokenizer, t.BertConfig, BERT_LIKE),
        "distilbert": (wordpiece, t.DistilBertTokenizer, t.DistilBertConfig,
                       {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64}),
        "mpnet": (mpnet_wordpiece, t.MPNetTokenizer, t.MPNetConfig, BERT_LIKE | {"max_position_embeddings": 130}),
        "roberta": (byte_level, t.RobertaTokenizer, t.RobertaConfig, BERT_LIKE | {"max_position_embeddings": 130}),
        "xlmr": (unigram, t.XLMRobertaTokenizer, t.XLMRobertaConfig, BERT_LIKE | {"max_position_embeddings": 130}),
        "albert": (albert_unigram, t.AlbertTokenizer, t.AlbertConfig, BERT_LIKE | {"embedding_size": 16}),
        "xlnet": (xlnet_unigram, t.XLNetTokenizer, t.XLNetConfig,
                  {"d_model": 32, "n_layer": 1, "n_head": 2, "d_inner": 64}),
        "modernbert": (modern_byte_level, t.PreTrainedTokenizerFast, t.ModernBertConfig,
                       BERT_LIKE | {"num_hidden_layers": 2, "local_attention": 8, "global_attn_every_n_layers": 2}),
    }
    learn, kind, config, sizes = kinds[family]
    learnt, names = learn(list(texts))
    tokenizer = kind(tokenizer_object=learnt, model_max_length=128, **names)
    numbers = {f"{name}_token_id": learnt.token_to_id(names[f"{name}_token"]) for name in ("pad", "cls", "sep")}
    about = config(vocab_size=learnt.get_vocab_size(), **sizes, **numbers,
                   bos_token_id=numbers["cls_token_id"], eos_token_id=numbers["sep_token_id"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = t.AutoModel.from_config(about)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def wordpiece(texts: list[str]) -> tuple[Tokenizer, dict[str, str]]:
    return _wordpiece(texts, "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")


def mpnet_wordpiece(texts: list[str]) -> tuple[Tokenizer, dict[str, str]]:
    return _wordpiece(texts, "<s>", "</s>", "<pad>", "[UNK]", "<mask>")


def _wordpiece(texts: list[str], cls: str, sep: str, pad: str, unk: str,
               mask: str) -> tuple[Tokenizer, dict[str, str]]:
    tokenizer = Tokenizer(models.WordPiece(unk_token=unk))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = [cls, pad, sep, unk, mask]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special,
                                                                   show_progress=False))
    return _framed(tokenizer, cls, sep), _names(cls, sep, pad, unk, mask)


def byte_level(texts: list[str]) -> tuple[Tokenizer, dict[str, str]]:
    return _byte_level(texts, "<s>", "</s>", "<pad>", "<unk>", "<mask>")


def modern_byte_level(texts: list[str]) -> tuple[Tokenizer, dict[str, str]]:
    return _byte_level(texts, "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")


def _byte_level(texts: list[str], cls: str, sep: str, pad: str, unk: str,
                mask: str) -> tuple[Tokenizer, dict[str, str]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[cls, pad, sep, unk, mask], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return _framed(tokenizer, cls, sep), _names(cls, sep, pad, unk, mask)


def unigram(texts: list[str]) -> tuple[Tokenizer, dict[str, str]]:
    return _unigram(texts, "<s>", "</s>", "<mask>")


def albert_unigram(texts: list[str]) -> tuple[Tokenizer, dict[str, str]]:
    return _unigram(texts, "[CLS]", "[SEP]", "[MASK]")


def xlnet_unigram(texts: list[str]) -> tuple[Tokenizer, dict[str, str]]:
    """XLNet's: the special tokens stand behind the text."""
    tokenizer, names = _unigram(texts, "<cls>", "<sep>", "<mask>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A:0 <sep>:0 <cls>:2", pair="$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("<sep>", "<cls>")])
    return tokenizer, names


def _unigram(texts: list[str], cls: str, sep: str, mask: str) -> tuple[Tokenizer, dict[str, str]]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(texts, trainers.UnigramTrainer(
        vocab_size=VOCABULARY, special_tokens=[cls, "<pad>", sep, "<unk>", mask], unk_token="<unk>",
        show_progress=False))
    return _framed(tokenizer, cls, sep), _names(cls, sep, "<pad>", "<unk>", mask)


def _framed(tokenizer: Tokenizer, cls: str, sep: str) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (cls, sep)])
    return tokenizer


def _names(cls: str, sep: str, pad: str, unk: str, mask: str) -> dict[str, str]:
    return {"cls_token": cls, "sep_token": sep, "pad_token": pad, "unk_token": unk, "mask_token": mask,
            "bos_token": cls, "eos_token": sep}
