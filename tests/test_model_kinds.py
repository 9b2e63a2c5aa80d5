"""Kinds of models beyond a transformer with a fast tokenizer: each text gets the vector that it has alone, or one line.

Stock sentence-transformers, one text at a time, says what is right.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
import transformers
from conftest import Done
from faults import forked
from other_models import small
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.modules import (
    CNN,
    LSTM,
    BoW,
    Dense,
    Pooling,
    Transformer,
    WordEmbeddings,
)
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from sentence_forge.encoders.computing.forward import Forward
from sentence_forge.encoders.computing.tokens import joined
from sentence_forge.encoders.encoder import Encoder, load_encoder
from sentence_forge.encoders.making.build import pretrained
from sentence_forge.encoders.making.families import prompts_of_family
from sentence_forge.encoders.onnx import OnnxEncoder
from sentence_forge.export.onnx_file import plain_reason
from sentence_forge.runtime.errors import UserError, warn_once
from sentence_forge.runtime.overrides import friendly
from sentence_forge.search.index import Index

TEXTS = ["storm hits the coast", "a", "markets fall again as rates rise", "opera opens", "the storm " * 9,
         "winter air is bad in the north of the country this year", "rates rise", "coast " * 40, "Ärger, 京津冀?!"]
WORDS = sorted({word for text in TEXTS for word in text.split()})


@pytest.fixture(autouse=True)
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is said, from the level of information on; warnings come again in each test."""
    warn_once.cache_clear()
    caplog.set_level("INFO")
    return caplog


def bert(folder: Path) -> Transformer:
    return Transformer(str(tiny_models.make("bert", folder, TEXTS)))


def gpt2(folder: Path, *, side: str = "left", pad: bool = True) -> Transformer:
    """A decoder with learnt positions, whose tokenizer adds nothing to a text."""
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learnt.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<end>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=learnt, model_max_length=64, padding_side=side, eos_token="<end>",
        **({"pad_token": "<end>"} if pad else {}))
    torch.manual_seed(0)
    transformers.GPT2Model(transformers.GPT2Config(
        vocab_size=learnt.get_vocab_size(), n_embd=32, n_layer=2, n_head=2, n_positions=64)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Transformer(str(folder))


def model(*modules: torch.nn.Module) -> SentenceTransformer:
    torch.manual_seed(1)
    return SentenceTransformer(modules=list(modules), device="cpu")


def word_embeddings() -> WordEmbeddings:
    torch.manual_seed(0)
    return WordEmbeddings(WhitespaceTokenizer(["<pad>", *WORDS], stop_words=set()),
                          torch.randn(len(WORDS) + 1, 24).numpy())


def in_python(folder: Path) -> Transformer:
    """A BERT whose tokenizer is one written in Python, as Japanese ones have it."""
    tiny_models.make("bert", folder, TEXTS)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({letter for text in TEXTS for letter in text})]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    transformers.BertJapaneseTokenizer(str(folder / "vocab.txt"), word_tokenizer_type="basic", model_max_length=40,
                                       subword_tokenizer_type="character").save_pretrained(folder)
    return Transformer(str(folder))


KINDS: dict[str, tuple[Callable[[Path], SentenceTransformer], str]] = {
    "learnt positions, left padding": (lambda f: model(gpt2(f), Pooling(32, "mean")), "flat"),
    "last token, left padding": (lambda f: model(gpt2(f), Pooling(32, "lasttoken")), "flat"),
    "convolution": (lambda f: model(bert(f), CNN(32, out_channels=16, kernel_sizes=[1, 3, 5]), Pooling(48, "mean")),
                    "flat"),
    "tokenizer in Python": (lambda f: model(in_python(f), Pooling(32, "mean")), "flat"),
    "word embeddings": (lambda f: model(word_embeddings(), Pooling(24, "mean")), "groups"),
    "word embeddings, LSTM": (lambda f: model(word_embeddings(), LSTM(24, hidden_dim=8), Pooling(16, "max")), "groups"),
    "bag of words": (lambda f: model(BoW(WORDS), Dense(len(WORDS), 8)), "bag"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_gets_the_vector_that_it_has_alone(kind: str, tmp_path: Path) -> None:
    make, way = KINDS[kind]
    stock = make(tmp_path).eval()
    alone = np.concatenate([stock.encode([text]) for text in TEXTS])
    stock.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    encoder = load_encoder(tmp_path / "saved", device="cpu")
    np.testing.assert_allclose(encoder.encode(TEXTS), alone, atol=3e-6)
    assert encoder.forward.way == way
    assert encoder.fingerprint == Encoder(stock).fingerprint
    padded = Encoder(stock, fast=False)
    np.testing.assert_allclose(padded.encode(TEXTS), alone, atol=3e-6)


def test_where_padding_disturbs_it_is_said_and_rows_are_right_too(tmp_path: Path,
                                                                  said: pytest.LogCaptureFixture) -> None:
    encoder = Encoder(model(gpt2(tmp_path), Pooling(32, "mean")).eval())
    tokens = encoder.tokenize(TEXTS)
    with torch.no_grad():
        right = torch.cat([Forward(encoder.model, fast=False)(encoder.tokenize([text])) for text in TEXTS])
        for how in ({}, {"rows": True}, {"fast": False}):
            torch.testing.assert_close(Forward(encoder.model, **how)(tokens), right, atol=3e-6, rtol=1e-5)
    assert "so they do in stock sentence-transformers" in said.text and "of equal length" in said.text


def towers(folder: Path) -> SentenceTransformer:
    query, document = bert(folder / "query"), gpt2(folder / "document", side="right")
    return model(Router.for_query_document([query, Pooling(32, "mean")], [document, Pooling(32, "lasttoken")]))


def shared(folder: Path) -> SentenceTransformer:
    return model(bert(folder), Pooling(32, "mean"), Router.for_query_document([Dense(32, 8)], [Dense(32, 8)]))


@pytest.mark.parametrize("make", [towers, shared])
def test_queries_go_through_their_own_half_with_gradients_in_both(make: Callable[[Path], SentenceTransformer],
                                                                  tmp_path: Path) -> None:
    stock = make(tmp_path).eval()
    encoder = Encoder(stock)
    np.testing.assert_allclose(encoder.encode(TEXTS, role="query"), stock.encode_query(TEXTS, batch_size=1), atol=3e-6)
    np.testing.assert_allclose(encoder.encode(TEXTS, role="document"), stock.encode_document(TEXTS, batch_size=1),
                               atol=3e-6)
    np.testing.assert_allclose(encoder.encode(TEXTS), stock.encode(TEXTS, batch_size=1), atol=3e-6)
    assert encoder.role_key("query") != encoder.role_key("document") == encoder.role_key(None)
    before = encoder.fingerprint
    with torch.no_grad():
        next(p for name, p in stock.named_parameters() if ".query." in name and ".bias" in name).view(-1)[0] += 1
    assert Encoder(stock).fingerprint != before
    tokens = encoder.tokenize(TEXTS[:2], "query"), encoder.tokenize(TEXTS[2:4], "document")
    encoder.forward(joined(tokens), queries=2).square().sum().backward()
    for half in (".query.", ".document."):
        assert any(p.grad is not None and p.grad.any() for name, p in stock.named_parameters() if half in name)


def test_a_router_of_other_routes_and_halves_of_other_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="routes left, right, and none for query"):
        Encoder(model(bert(tmp_path), Pooling(32), Router({"left": [Dense(32, 8)], "right": [Dense(32, 8)]})))
    with pytest.raises(UserError, match="different sizes"):
        Encoder(model(bert(tmp_path), Pooling(32), Router.for_query_document([Dense(32, 8)], [Dense(32, 4)])))


def test_a_length_is_limited_by_the_weights(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    for family, most in (("roberta", 128), ("bert", 512)):
        folder = tiny_models.make(family, tmp_path / family, TEXTS)
        about = json.loads((folder / "tokenizer_config.json").read_text())
        for value in (None, int(1e30), most + 1):
            (folder / "tokenizer_config.json").write_text(json.dumps({**about, "model_max_length": value}))
            encoder = load_encoder(folder, device="cpu")
            assert encoder.max_length == most and (family == "bert" or f"cut at {most} tokens" in said.text)
            assert np.isfinite(encoder.encode(["storm " * 700])).all()
        said.clear()


def test_a_padding_token_is_given_to_a_tokenizer_without(tmp_path: Path) -> None:
    encoder = Encoder(model(gpt2(tmp_path / "base", side="right", pad=False), Pooling(32, "mean")))
    encoder.model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    stock = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(stock.encode(TEXTS), encoder.encode(TEXTS), atol=3e-6)
    assert load_encoder(tmp_path / "saved").fingerprint == encoder.fingerprint


def test_what_can_not_be_encoded_is_one_line(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="LSTM behind Transformer"):
        Encoder(model(bert(tmp_path), LSTM(32, hidden_dim=8), Pooling(16)))
    with pytest.raises(UserError, match="include_prompt"):
        Encoder(SentenceTransformer(modules=[bert(tmp_path), Pooling(32, include_prompt=False)], device="cpu",
                                    prompts={"query": "find: "}))
    with pytest.raises(UserError, match=r"its modules \(Transformer, Pooling, Dense\) can't encode a text"):
        Encoder(model(bert(tmp_path), Pooling(32), Dense(16, 8))).encode(TEXTS)
    grown = bert(tmp_path)
    grown.tokenizer.add_tokens(["zzbrand"])
    encoder = Encoder(model(grown, Pooling(32)))
    assert "texts that hold one of the others are refused" in said.text
    assert encoder.encode(["storm"]).shape == (1, 32)
    with pytest.raises(UserError, match="'a zzbrand' holds a token of id"):
        encoder.encode(["storm", "a zzbrand"])
    for wrong in ("half \ud83d", b"bytes", None):
        with pytest.raises(UserError, match=r"text 2 of 2, .* is no valid text"):
            encoder.encode(["storm", wrong])


def test_the_layout_of_the_first_versions_is_read(tmp_path: Path) -> None:
    made = model(bert(tmp_path / "base"), Pooling(32, "max"))
    made.save_pretrained(str(tmp_path / "old"), create_model_card=False)
    old = tmp_path / "old"
    (old / "0_BERT").mkdir()
    for file in [each for each in old.iterdir() if each.is_file() and each.name not in ("modules.json", "README.md")]:
        file.rename(old / "0_BERT" / file.name)
    before = [{"idx": 0, "name": "0", "path": "0_BERT", "type": "sentence_transformers.models.BERT"},
              {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    (old / "modules.json").write_text(json.dumps(before))
    np.testing.assert_allclose(load_encoder(old).encode(TEXTS), Encoder(made).encode(TEXTS), atol=1e-6)
    assert json.loads((old / "modules.json").read_text()) == before


def test_prompts_of_a_family_are_missed(tmp_path: Path, said: pytest.LogCaptureFixture,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_models.make("bert", tmp_path / "multilingual-e5-small", TEXTS)
    monkeypatch.setenv("SENTENCE_FORGE_MODELS", str(tmp_path))
    pretrained("intfloat/multilingual-e5-small")
    assert "type 'model.prompts={query: \"query: \", document: \"passage: \"}'" in said.text
    assert friendly(["model=multilingual-e5-small"]) == ["model=folder", "model.path='multilingual-e5-small'"]
    said.clear()
    for given in ({"query": "query: ", "document": "passage: "}, {"query": ""}):
        pretrained("intfloat/multilingual-e5-small", prompts=given)
    assert "was trained with" not in said.text
    assert prompts_of_family("BAAI/bge-m3") is None and prompts_of_family("models/minilm") is None
    assert prompts_of_family("/x/bge-base-zh-v1.5")[1]["query"].startswith("为这个句子")
    assert prompts_of_family("Snowflake/snowflake-arctic-embed-l-v2.0")[1] == {"query": "query: ", "document": ""}
    tiny_models.make("bert", tmp_path / "mine", TEXTS)
    (tmp_path / "mine" / "README.md").write_text("---\nbase_model: nomic-ai/nomic-embed-text-v1.5\n---\n")
    pretrained(str(tmp_path / "mine"))
    assert "search_document: " in said.text


def test_an_asymmetric_model_trains_both_halves_and_searches_by_them(command: Callable[..., Done],
                                                                     tmp_path: Path) -> None:
    stock = towers(tmp_path)
    stock.save_pretrained(str(tmp_path / "towers"), create_model_card=False)
    lines = [f"storm number {number},the coast number {number},{number % 6}" for number in range(24)]
    (tmp_path / "pairs.csv").write_text("\n".join(["anchor,positive", *(line.rpartition(",")[0] for line in lines)]))
    (tmp_path / "scored.csv").write_text("\n".join(["sentence1,sentence2,score", *lines]))
    (tmp_path / "titles.csv").write_text("\n".join(["title", *TEXTS[:8]]))
    short = ["loop.max_steps=2", "loop.batch_size=8", "loop.projector=0", "loop.warmup=0", "loop.learning_rate=0.01"]
    for loss, file in (("mnrl", "pairs.csv"), ("cosine", "scored.csv")):
        done = command("train", *short, f"loss={loss}", f"data={file}", "model=towers", f"hydra.run.dir={loss}")
        assert done.code == 0, done.err
        now = SentenceTransformer(str(tmp_path / loss / "model"), device="cpu").state_dict()
        moved = {half for name, before in stock.state_dict().items() for half in ("query", "document")
                 if f".{half}." in name and not torch.equal(now[name], before)}
        assert moved == {"query", "document"}, loss
    done = command("export", "model=mnrl", "corpus=titles.csv", "out=news", "precision=int8")
    assert done.code == 2 and "precision=int8: news has no int8 model, since its queries go through other" in done.err
    assert not (tmp_path / "news").exists()
    done = command("export", "model=mnrl", "corpus=titles.csv", "out=news")
    assert done.code == 0 and "search will use torch" in done.err, done.err
    stock = SentenceTransformer(str(tmp_path / "news" / "model"), device="cpu")

    def unit(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    with Index.open(tmp_path / "news") as index:
        assert index.asymmetric
        np.testing.assert_allclose(index.vectors, unit(stock.encode_document(TEXTS[:8], batch_size=1)), atol=1e-5)
        np.testing.assert_allclose(index.encode(TEXTS), unit(stock.encode_query(TEXTS, batch_size=1)), atol=1e-5)


@pytest.mark.parametrize(("kind", "equal"), [("learnt positions, left padding", True), ("truncation side", False)])
def test_onnx_gives_each_text_what_it_has_alone(kind: str, equal: bool, command: Callable[..., Done],
                                                tmp_path: Path) -> None:
    if kind == "truncation side":
        bert(tmp_path)
        about = json.loads((tmp_path / "tokenizer_config.json").read_text())
        left = about | {"truncation_side": "left", "model_max_length": 6}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(left))
        stock = model(Transformer(str(tmp_path)), Pooling(32, "mean")).eval()
    else:
        stock = KINDS[kind][0](tmp_path).eval()
    stock.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    done = command("export", "model=saved", "out=made")
    assert done.code == 0, done.err
    about = json.loads((tmp_path / "made" / "manifest.json").read_text())["onnx"]["fp32"]
    assert about["equal_lengths"] == equal
    alone = np.concatenate([stock.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(OnnxEncoder(tmp_path / "made").encode(TEXTS), alone, atol=1e-5)


def test_a_reason_is_said_without_colours_and_advice() -> None:
    error = RuntimeError("\x1b[96mFailed\x1b[0m to decompose\n\n\x1b[31mNext steps:\x1b[0m look at the graph")
    assert plain_reason(error) == "Failed to decompose"


def test_weights_that_one_may_not_read_are_named() -> None:
    """safetensors says that there is no such file."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name, "model")
        small().save_pretrained(str(folder), create_model_card=False)
        pretrained(str(folder))  # what is imported late is imported now
        folder.parent.chmod(0o755)
        (folder / "model.safetensors").chmod(0)

        def load(acknowledge: Callable[[str], None]) -> None:
            if not os.geteuid():
                os.setresuid(65534, 65534, 65534)
            with pytest.raises(UserError, match=r"model.safetensors: may not be read by you; change its rights"):
                pretrained(str(folder))

        assert forked(load).status == 0
