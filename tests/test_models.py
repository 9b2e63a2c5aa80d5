"""Models: each family from weights to export, static embeddings, prompts by role, folders as the hub has them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from conftest import Done
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, StaticEmbedding, Transformer
from transformers import AutoModel, AutoTokenizer
from yaml import safe_load

from sentence_forge.encoders.encoder import Encoder, load_encoder
from sentence_forge.encoders.making.build import pretrained
from sentence_forge.encoders.making.static import static
from sentence_forge.eval.evaluate import evaluate
from sentence_forge.eval.tasks.retrieval import KnownItem
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.index import Index

Command = Callable[..., Done]
ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "data_readers" / "sample" / "en"
SHORT = ["loss=mnrl", "loop.max_steps=3", "loop.batch_size=8", "loop.projector=0", "hydra.run.dir=run"]
FAMILIES = ["bert", "distilbert", "mpnet", "roberta", "xlmr", "albert", "xlnet", "modernbert"]
HUB_IDS = {
    "bge_m3": "BAAI/bge-m3", "bge_small_zh": "BAAI/bge-small-zh-v1.5", "e5_small": "intfloat/multilingual-e5-small",
    "gte_multilingual": "Alibaba-NLP/gte-multilingual-base",
    "text2vec_base_chinese": "shibing624/text2vec-base-chinese", "albert": "albert/albert-base-v2",
    "bert": "google-bert/bert-base-uncased", "bert_large": "google-bert/bert-large-uncased",
    "distilbert": "distilbert/distilbert-base-uncased",
    "minilm": "sentence-transformers/all-MiniLM-L6-v2", "modernbert": "answerdotai/ModernBERT-base",
    "mpnet": "microsoft/mpnet-base", "roberta": "FacebookAI/roberta-base",
    "roberta_wwm": "hfl/chinese-roberta-wwm-ext", "xlmr": "FacebookAI/xlm-roberta-base",
    "xlnet": "xlnet/xlnet-base-cased", "folder": "???", "mini": None, "static": None,
}
QUERIES = ["Storm hits the coast", "京津冀 winter air", "a"]


@pytest.fixture(scope="module")
def titles() -> list[str]:
    with (SAMPLE / "titles.csv").open(encoding="utf-8", newline="") as file:
        return [row["title"] for row in csv.DictReader(file)][:120]


@pytest.fixture(scope="module")
def files(titles: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pairs.csv to train on and titles.csv to index."""
    folder = tmp_path_factory.mktemp("data")
    for name, columns in (("pairs", [("anchor", "positive"), *zip(titles[:60], titles[60:], strict=True)]),
                          ("titles", [("title",), *((title,) for title in titles[:30])])):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(columns)
    return folder


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_models_name_stands_for_its_hub_id() -> None:
    """A mistyped one would only show where the hub can be reached."""
    named = {file.stem: safe_load(file.read_text()).get("path") for file in (ROOT / "configs" / "model").glob("*.yaml")}
    assert named == HUB_IDS


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_saves_exports_and_is_loaded_by_stock(family: str, command: Command, files: Path,
                                                              titles: list[str], tmp_path: Path) -> None:
    folder = tiny_models.make(family, tmp_path / family, titles)
    done = command("train", *SHORT, f"data={files / 'pairs.csv'}", f"model={family}", f"model.path={folder}",
                   "model.max_length=24",
                   "model.dense=[{out_features: 16, activation: tanh}]")
    assert done.code == 0, done.err
    before, after = load_encoder(tmp_path / "run" / "untouched"), load_encoder(tmp_path / "run" / "model")
    assert after.dim == 16 and after.max_length == 24 and before.fingerprint != after.fingerprint
    stock = SentenceTransformer(str(tmp_path / "run" / "model"), device="cpu")
    texts = [*titles, *QUERIES, "storm " * 60]
    np.testing.assert_allclose(after.encode(texts), stock.encode(texts), atol=1e-5)

    done = command("export", "model=run", f"corpus={files / 'titles.csv'}", "out=news")
    assert done.code == 0, done.err
    made = json.loads((tmp_path / "news" / "manifest.json").read_text())["onnx"]
    if family == "xlnet":
        assert not made and "no model.onnx: torch's exporter can't write XLNet" in done.err, done.err
    else:
        assert made["fp32"]["max_difference"] < 1e-5
    with Index.open(tmp_path / "news") as index:
        np.testing.assert_allclose(index.encode(QUERIES), unit(stock.encode(QUERIES)), atol=1e-5)
        assert index.search([titles[3]], k=1)[0][0].title == titles[3]


def test_static_embeddings_train_resume_and_are_exported(command: Command, files: Path, titles: list[str],
                                                         tmp_path: Path) -> None:
    given = ["loss=mnrl", "model=static", "model.dim=24", "loop.learning_rate=0.05", "loop.batch_size=8",
             "loop.projector=0", f"data={files / 'pairs.csv'}", "loop.max_steps=6", "loop.checkpoint_every=3"]
    done = command("train", *given, "hydra.run.dir=run")
    assert done.code == 0 and "hardly moves" not in done.err, done.err
    trained = load_encoder(tmp_path / "run" / "model")
    assert (trained.dim, trained.max_length) == (24, None)
    stock = SentenceTransformer(str(tmp_path / "run" / "model"), device="cpu")
    assert isinstance(stock[0], StaticEmbedding)
    texts = [*titles, *QUERIES, ""]
    np.testing.assert_allclose(trained.encode(texts), stock.encode(texts), atol=1e-6)

    done = command("train", "resume=run/checkpoints/step-3")  # with the tokenizer it had learnt
    assert done.code == 0, done.err
    assert load_encoder(tmp_path / "run" / "model").fingerprint == trained.fingerprint

    done = command("export", "model=run", f"corpus={files / 'titles.csv'}", "out=news")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "news" / "manifest.json").read_text())["onnx"]["fp32"]["max_difference"] < 1e-6
    with Index.open(tmp_path / "news") as index:
        np.testing.assert_allclose(index.encode(QUERIES), unit(stock.encode(QUERIES)), atol=1e-6)
    assert "hardly moves static embeddings" in command(
        "train", *given[:4], *given[5:], "loop.learning_rate=5e-5", "hydra.run.dir=slow").err


def test_static_takes_a_models_tokenizer_and_cuts_as_stock_does(titles: list[str], tmp_path: Path) -> None:
    folder = tiny_models.make("roberta", tmp_path / "roberta", titles)
    model = static(lambda: [], dim=8, tokenizer=str(folder), max_length=5)
    assert model.tokenizer.get_vocab() == AutoTokenizer.from_pretrained(folder).get_vocab()
    encoder = Encoder(model)
    assert encoder.max_length == 5 and encoder.tokenize(titles).truncated > 100
    np.testing.assert_allclose(encoder.encode(titles), model.encode(titles), atol=1e-6)
    assert Encoder(static(lambda: [], dim=8, tokenizer=str(folder))).fingerprint != encoder.fingerprint
    with pytest.raises(UserError, match="nowhere: no such model folder"):
        static(lambda: [], tokenizer="nowhere")


def test_prompts_stand_before_queries_and_documents_everywhere(command: Command, titles: list[str],
                                                               tmp_path: Path) -> None:
    for name, rows in (("train", zip(titles[:8], titles[8:16], strict=True)),
                       ("dev", zip(titles[20:40], titles[40:60], strict=True)), ("corpus", None)):
        with (tmp_path / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("title",), *((title,) for title in titles[:9])] if rows is None
                                       else [("anchor", "positive"), *rows])
    done = command("train", *SHORT, "model=static", "data=train.csv", "data.dev_path=dev.csv", "loop.max_steps=1",
                   "model.prompts={query: 'find: ', document: 'storm '}", "model.dim=24")
    assert done.code == 0, done.err
    stock = SentenceTransformer(str(tmp_path / "run" / "untouched"), device="cpu")
    assert stock.prompts == {"query": "find: ", "document": "storm "}
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]

    def cosines(rows: slice, others: slice) -> np.ndarray:
        return unit(stock.encode_query(titles[rows])) @ unit(stock.encode_document(titles[others])).T

    scores = torch.from_numpy(20 * cosines(slice(0, 8), slice(8, 16)))
    loss = torch.nn.functional.cross_entropy(scores, torch.arange(8))
    assert next(line["train/loss"] for line in logged if "train/loss" in line) == pytest.approx(float(loss), abs=1e-4)
    of_dev = cosines(slice(20, 40), slice(40, 60))
    ranks = (of_dev >= np.diag(of_dev)[:, None]).sum(axis=1)
    assert next(line["dev/mrr"] for line in logged if "dev/mrr" in line) == pytest.approx((1 / ranks).mean())

    done = command("export", "model=run", "corpus=corpus.csv", "out=news")
    assert done.code == 0, done.err
    stock = SentenceTransformer(str(tmp_path / "news" / "model"), device="cpu")
    for encoder in (None, load_encoder(tmp_path / "news" / "model")):  # by ONNX, by torch
        with Index.open(tmp_path / "news", encoder) as index:
            np.testing.assert_allclose(index.vectors, unit(stock.encode_document(titles[:9])), atol=1e-5)
            np.testing.assert_allclose(index.encode(QUERIES), unit(stock.encode_query(QUERIES)), atol=1e-5)
    encoder = load_encoder(tmp_path / "news" / "model")
    np.testing.assert_allclose(encoder.encode(QUERIES), stock.encode(QUERIES), atol=1e-5)  # no role, no prompt
    assert np.abs(encoder.encode(QUERIES) - encoder.encode(QUERIES, role="query")).max() > 1e-3


def test_retrieval_is_measured_with_the_prompts(titles: list[str], tmp_path: Path) -> None:
    model = pretrained(str(tiny_models.make("bert", tmp_path / "bert", titles)),
                       prompts={"query": "find: ", "document": "storm "})
    with (tmp_path / "items.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("title", "label", "description"), *(
            (titles[row], f"c{row % 2}", titles[row + 60]) for row in range(60))])
    report = evaluate(Encoder(model), {"items": KnownItem(path=str(tmp_path / "items.csv"))}, None, resamples=2)
    cosine = unit(model.encode_query(titles[60:])) @ unit(model.encode_document(titles[:60])).T
    ranks = (cosine >= np.diag(cosine)[:, None]).sum(axis=1)
    assert report.json["average"] == pytest.approx(np.where(ranks > 10, 0, 1 / ranks).mean(), abs=1e-3)


@pytest.mark.parametrize(("name", "pooled"), [
    ("mean", lambda tokens: tokens.mean(axis=0)), ("cls", lambda tokens: tokens[0]),
    ("max", lambda tokens: tokens.max(axis=0)), ("last_token", lambda tokens: tokens[-1]),
    ("mean_sqrt_len", lambda tokens: tokens.sum(axis=0) / np.sqrt(len(tokens))),
    ("weighted_mean", lambda tokens: np.average(tokens, axis=0, weights=np.arange(1, len(tokens) + 1))),
])
def test_pooling_by_the_fields_names(name: str, pooled: Callable[[np.ndarray], np.ndarray], titles: list[str],
                                     tmp_path: Path) -> None:
    folder = tiny_models.make("bert", tmp_path / "bert", titles)
    made = Encoder(pretrained(str(folder), pooling=name)).encode(titles[:9])
    bert, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        expected = [pooled(bert(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy())
                    for text in titles[:9]]
    np.testing.assert_allclose(made, expected, atol=1e-5)


def test_half_precision_is_for_evaluation(command: Command, files: Path, titles: list[str], tmp_path: Path) -> None:
    folder = tiny_models.make("bert", tmp_path / "bert", titles)
    half, whole = (Encoder(pretrained(str(folder), dtype=dtype)).encode(titles) for dtype in ("bfloat16", "float32"))
    assert half.dtype == np.float32 and 0 < np.abs(half - whole).max() < 0.05
    assert command("eval", f"model={folder}", "model.dtype=bfloat16", "suite=sample", "resamples=2").code == 0
    done = command("train", *SHORT, f"data={files / 'pairs.csv'}", f"model={folder}", "model.dtype=float16")
    assert done.code == 2 and "error: model.dtype: training wants float32" in done.err, done.err
    done = command("export", f"model={folder}", "model.dtype=bfloat16", "out=news")
    assert done.code == 2 and "an export holds float32" in done.err and not (tmp_path / "news").exists()


@pytest.fixture
def hub(titles: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with an old sentence-transformers model ``org/old``; returns its snapshot."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    repository, revision = cache / "models--org--old", "0123456789abcdef0123456789abcdef01234567"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / revision
    tiny_models.make("bert", tmp_path / "old" / "0_Transformer", titles)
    modes = {"pooling_mode_cls_token": False, "pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}
    for name, about in (("0_Transformer/sentence_bert_config.json", {"max_seq_length": 24}),
                        ("1_Pooling/config.json", {"word_embedding_dimension": 32, **modes}),
                        ("modules.json", [{"idx": number, "name": str(number), "path": f"{number}_{kind}",
                                           "type": f"sentence_transformers.models.{kind}"}
                                          for number, kind in enumerate(("Transformer", "Pooling"))])):
        (tmp_path / "old" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "old" / name).write_text(json.dumps(about))
    blobs.mkdir(parents=True)
    for number, file in enumerate(sorted(path for path in (tmp_path / "old").rglob("*") if path.is_file())):
        link = snapshot / file.relative_to(tmp_path / "old")
        link.parent.mkdir(parents=True, exist_ok=True)
        file.rename(blobs / str(number))
        link.symlink_to(blobs / str(number))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    return snapshot


def test_an_old_model_of_the_hub_by_its_id(command: Command, hub: Path, titles: list[str]) -> None:
    encoder = load_encoder("org/old")
    assert encoder.max_length == 24
    np.testing.assert_allclose(encoder.encode(titles), SentenceTransformer(str(hub), device="cpu").encode(titles),
                               atol=1e-6)
    done = command("eval", "model=org/old", "suite=sample", "resamples=2")
    assert done.code == 0, done.err
    (hub / "0_Transformer" / "model.safetensors").unlink()
    done = command("eval", "model=org/old", "suite=sample")
    assert done.code == 2 and "org/old: has neither model.safetensors nor pytorch_model.bin" in done.err
    assert done.err.count("error:") == 1


def pickle_weights(part: Path) -> None:
    """Make a folder's weights what older ones are; tied ones share their memory in such a file."""
    state = load_file(part / "model.safetensors")
    tied = {} if "linear.weight" in state else {"tied": next(iter(state.values()))}
    torch.save(state | tied, part / "pytorch_model.bin")
    (part / "model.safetensors").unlink()


def test_pickled_weights_are_converted_once(titles: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    cache = tmp_path / "cache"
    monkeypatch.setenv("SENTENCE_FORGE_CACHE", str(cache))
    plain = tiny_models.make("bert", tmp_path / "plain", titles)
    old = tmp_path / "old"
    SentenceTransformer(modules=[Transformer(str(plain)), Pooling(32), Dense(32, 8), Normalize()],
                        device="cpu").save_pretrained(str(old), create_model_card=False)
    for folder, parts in ((plain, [plain]), (old, [old, old / "2_Dense"])):
        expected = Encoder(pretrained(str(folder))).encode(titles)
        for part in parts:
            pickle_weights(part)
        (folder / "training_args.bin").write_bytes(b"stays where it is")
        caplog.clear()
        for _ in range(2):
            np.testing.assert_array_equal(Encoder(pretrained(str(folder))).encode(titles), expected)
        assert caplog.text.count("is converted to safetensors") == 1
    assert len(list((cache / "weights").glob("*/config.json"))) == 2 and not list(cache.rglob("*.bin"))
    # what stands beside the weights counts, too
    about = json.loads((plain / "tokenizer_config.json").read_text())
    (plain / "tokenizer_config.json").write_text(json.dumps({**about, "model_max_length": 7}))
    assert load_encoder(str(plain)).max_length == 7

    torch.save({}, plain / "pytorch_model.bin")
    with pytest.raises(UserError, match="holds something else than named tensors"):
        pretrained(str(plain))
    (plain / "pytorch_model.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UserError, match=r"pytorch_model.bin: can't be read as weights alone"):
        pretrained(str(plain))
    assert len(list((cache / "weights").glob("*/config.json"))) == 3


def test_pickles_are_fetched_where_the_hub_has_nothing_else(titles: list[str], tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is a folder here; what is asked of it counts."""
    there, here = tiny_models.make("bert", tmp_path / "there", titles), tmp_path / "here"
    pickle_weights(there)
    here.mkdir()  # as a download that was broken off leaves it
    asked = []

    def snapshot(name: str, *, allow_patterns: object = "*", ignore_patterns: object = (),
                 local_files_only: bool = False) -> str:
        if not local_files_only:
            asked.append(name)
            files = [file.name for file in there.iterdir()]
            for file in filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
                (here / file).write_bytes((there / file).read_bytes())
        return str(here)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    expected = Encoder(pretrained(str(there))).encode(titles)
    for _ in range(2):
        np.testing.assert_array_equal(Encoder(pretrained("org/pickled")).encode(titles), expected)
    assert asked == ["org/pickled"] * 2  # without pickles, then them; and not again


def test_what_a_model_says_of_its_vectors_stays(titles: list[str], tmp_path: Path) -> None:
    plain = tiny_models.make("bert", tmp_path / "plain", titles)
    stock = SentenceTransformer(modules=[Transformer(str(plain)), Pooling(32, include_prompt=False)], device="cpu",
                                similarity_fn_name="dot", prompts={"query": "find: "})
    stock.save_pretrained(str(tmp_path / "own"), create_model_card=False)
    with pytest.raises(UserError, match="include_prompt"):
        pretrained(str(tmp_path / "own"), pooling="cls")
    stock[1].include_prompt = True
    stock.save_pretrained(str(tmp_path / "dot"), create_model_card=False)
    assert pretrained(str(tmp_path / "dot"), pooling="cls").similarity_fn_name == "dot"


def test_further_models_by_name_are_whole(command: Command, titles: list[str], tmp_path: Path) -> None:
    tiny_models.make("bert", tmp_path / "google-bert" / "bert-base-uncased", titles)
    done = command("eval", "model=google-bert/bert-base-uncased", "models=[bert]", "suite=sample", "resamples=2",
                   "output=out")
    assert done.code == 0, done.err
    about = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [row["model"] for row in about["models"]] == ["google-bert/bert-base-uncased"] * 2
