"""Learn a WordPiece tokenizer from texts; the same texts always give the same tokenizer."""

from __future__ import annotations

from typing import Any

from sentence_forge.runtime.errors import UserError


def learn_wordpiece(texts: list[str], vocabulary: int, *, by: str) -> Any:  # noqa: ANN401 - tokenizers.Tokenizer
    """Learn at most ``vocabulary`` entries, as BERT's tokenizer splits: Chinese characters are words of their own.

    Args:
        texts: to learn from.
        vocabulary: special tokens and single characters included, which may exceed it.
        by: the model that learns, for the error.

    Raises:
        UserError: there are no texts.
    """
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
    from tokenizers.models import WordPiece

    if not texts:
        raise UserError(f"model={by} learns its tokenizer from the training texts; use it with python -m train")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    # The trainer numbers continuing characters in the random order of a hash map, and breaks ties by number: the same
    # texts would learn another vocabulary each time. As special tokens of a throw-away tokenizer they are ordered.
    inner = sorted({f"##{character}" for word in words for character in word[1:]})
    scratch = Tokenizer(WordPiece(unk_token="[UNK]"))
    scratch.normalizer, scratch.pre_tokenizer = normalizer, splitter
    scratch.train_from_iterator(texts, trainers.WordPieceTrainer(
        vocab_size=max(vocabulary, len(special) + len(inner)), special_tokens=special + inner, show_progress=False))
    tokenizer = Tokenizer(WordPiece(scratch.get_vocab(with_added_tokens=False), unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")])
    return tokenizer
