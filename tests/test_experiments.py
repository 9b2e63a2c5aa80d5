"""The recipes by name: what each comes to, and that each takes its first step, on tiny parts."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Done
from hydra import compose, initialize_config_module
from sentence_transformers import SentenceTransformer

from sentence_forge.configs import schema
from sentence_forge.encoders.making.build import from_scratch
from sentence_forge.runtime.overrides import options

Command = Callable[..., Done]

# what the papers say: model, loss, data, batch, epochs, learning rate, longest text, the loss's class
RECIPES = {
    "sbert_nli": ("google-bert/bert-base-uncased", "allnli", 16, 1, 2e-5, 128, "Softmax"),
    "sbert_nli_mnrl": ("google-bert/bert-base-uncased", "allnli", 128, 1, 2e-5, 75, "MultipleNegativesRanking"),
    "sbert_stsb": ("google-bert/bert-base-uncased", "stsb", 16, 4, 2e-5, 128, "Cosine"),
    "sbert_nli_stsb": ("???", "stsb", 16, 4, 2e-5, None, "Cosine"),
    "simcse": ("google-bert/bert-base-uncased", "allnli", 512, 3, 5e-5, 32, "MultipleNegativesRanking"),
    **{f"news_zh{name}": ("intfloat/multilingual-e5-small", None, 64, 3, 2e-5, None, loss) for name, loss in (
        ("", "MultipleNegativesRanking"), ("_nli", "MultipleNegativesRanking"), ("_match", "CoSENT"),
        ("_labels", "SupervisedContrastive"), ("_mined", "MultipleNegativesRanking"),
        ("_titles", "MultipleNegativesRanking"))},
    "news_zh_static": (None, None, 256, 3, 0.2, None, "Distill"),
    "news_zh_three_layers": ("intfloat/multilingual-e5-small", None, 64, 3, 1e-4, None, "Distill"),
    "matryoshka": ("google-bert/bert-base-uncased", "allnli", 128, 1, 2e-5, 75, "MultipleNegativesRanking"),
    "minilm_nli": ("sentence-transformers/all-MiniLM-L6-v2", None, 128, 3, 2e-5, None, "MultipleNegativesRanking"),
    "minilm_stsb": ("sentence-transformers/all-MiniLM-L6-v2", None, 16, 2, 2e-5, None, "Cosine"),
    "budget": ("sentence-transformers/all-MiniLM-L6-v2", None, 32, 3, 2e-5, None, "MultipleNegativesRanking"),
    "quick": ("sentence-transformers/all-MiniLM-L6-v2", None, 32, 3, 5e-5, None, "MultipleNegativesRanking"),
}
WORDS = ("the", "a", "dog", "cat", "man", "woman", "child", "runs", "eats", "sings", "in", "on", "house", "red")


def text(number: int) -> str:
    return " ".join(WORDS[(number * 7 + step * step * 3) % len(WORDS)] for step in range(4 + number % 5)) + f" {number}"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and each data set in the form in which it was released."""
    folder = tmp_path_factory.mktemp("parts")
    texts = [text(number) for number in range(300)]
    from_scratch(lambda: texts, vocabulary=200, hidden=16, layers=1, heads=2, max_length=128).save_pretrained(
        str(folder / "tiny"), create_model_card=False)
    nli = ["split\tdataset\tfilename\tsentence1\tsentence2\tlabel"]
    for number in range(60):
        split = "dev" if number % 5 == 0 else "train"
        for place, label in enumerate(("entailment", "contradiction", "neutral")):
            nli.append(f"{split}\tSNLI\tx\t{text(number)}\t{text(100 + 3 * number + place)}\t{label}")
    (folder / "AllNLI.tsv").write_text("\n".join(nli) + "\n")
    sts = ["split\tgenre\tdataset\tyear\tsid\tscore\tsentence1\tsentence2"]
    for number in range(60):
        split = "dev" if number % 4 == 0 else "train"
        sts.append(f"{split}\tx\tx\t2012\t{number}\t{number % 6}\t{text(number)}\t{text(number * 2 + 1)}")
    (folder / "stsbenchmark.tsv").write_text("\n".join(sts) + "\n")
    (folder / "stsb").mkdir()
    for name in ("train", "dev"):
        (folder / "stsb" / f"{name}.csv").write_text("sentence1,sentence2,score\n" + "".join(
            f"{text(number)},{text(number * 3 + 1)},{number % 6}\n" for number in range(30)))
    titles = [f"京津冀秋冬 {text(number)}" for number in range(400)]
    labelled = ["title,label", *(f"{title},{'财经' if number % 3 else '体育'}" for number, title in enumerate(titles))]
    scored = ["sentence1,sentence2,score", *(f"{text(row)},{text(row * 3 + 1)},{row % 2}" for row in range(300))]
    triples = ["premise,hypothesis,label", *(f"{text(row)},{text(100 + 2 * row + place)},{label}" for row in range(150)
                                             for place, label in enumerate(("entailment", "contradiction")))]
    for name in ("nlpcc2017/test", "thucnews/train_part45k", "thucnews/dev", "tnews/train",
                 "tnews/test_unlabeled"):
        write(folder / f"news_zh_{name}.csv.gz", labelled)
    for name in ("afqmc/train", "lcqmc/dev", "bq/dev", "stsb_zh_cnsd/dev"):
        write(folder / f"{name}.csv.gz", scored)
    for name in ("zh_csnli/dev", "zh_ocnli/train_10k", "zh_cmnli/dev", "en_snli/train_sample20k", "en_mnli/dev_matched",
                 "en_lingnli/train", "en_newprotocols/train"):
        write(folder / f"nli_{name}.csv.gz", triples)
    return folder


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress("\n".join(lines).encode()))


def test_every_recipe_is_held_against_its_paper() -> None:
    assert set(options("experiment")) == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_to_what_its_paper_says(name: str) -> None:
    schema.register()
    with initialize_config_module("sentence_forge.configs", version_base="1.3"):
        config = compose("train", [f"experiment={name}"])
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(config, resolve=False)
    path, data, batch, epochs, rate, longest, loss = RECIPES[name]
    loop = plain["loop"]
    assert plain["model"].get("path") == path and plain["model"]["max_length"] == longest
    assert plain["data"].get("name") == data and plain["loss"]["_target_"].endswith(f".{loss}")
    assert (loop["batch_size"], loop["epochs"], loop["learning_rate"]) == (batch, epochs, rate)
    assert loop["max_steps"] == (1000 if loss == "Distill" else
                                 200 if name.startswith("news_zh") or name in ("budget", "minilm_nli") else None)
    assert (loop["warmup"], loop["weight_decay"]) == ((0, 0) if name == "simcse" else (0.1, 0.01))
    if name in ("sbert_nli_mnrl", "matryoshka"):
        assert plain["data"]["reverse"] is True
    assert plain["dims"] == ("auto" if name == "matryoshka" else None)
    if name == "simcse":
        assert plain["model"]["pooling"] == "cls" and loop["evaluate_every"] == 125 and "stsb-dev" in plain["suite"]
        assert plain["loss"]["scale"] == 1 / 0.05
    if name.startswith("news_zh"):
        assert len(plain["suite"]) == 2 and (path is None or plain["model"]["prompts"]["default"] == "query: ")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_its_first_step(command: Command, parts: Path, tmp_path: Path, name: str) -> None:
    data = {"allnli": ["data.path=" + str(parts / "AllNLI.tsv")], "stsb": [f"data.path={parts / 'stsbenchmark.tsv'}"],
            None: []}[RECIPES[name][1]]
    tiny = [f"model={parts / 'tiny'}"] if name != "news_zh_static" else [f"model.tokenizer={parts / 'tiny'}",
                                                                         "model.dim=16"]
    if RECIPES[name][-1] == "Distill":
        tiny += [f"loss.teacher={parts / 'tiny'}", *(["model.keep_layers=null"] if "layers" in name else [])]
    done = command("train", f"experiment={name}", *tiny, *data, f"data_dir={parts}",
                   "loop.max_steps=1", "loop.batch_size=8", "loop.projector=0", "hydra.run.dir=run")
    assert done.code == 0, done.err
    training = json.loads((tmp_path / "run" / "model" / "sentence_forge.json").read_text())["training"]
    assert training["steps"] == 1 and RECIPES[name][-1] in training["loss"]
    model = SentenceTransformer(str(tmp_path / "run" / "model"), device="cpu", local_files_only=True)
    assert model.encode(["a dog"]).shape == (1, 768 if name == "simcse" else 16)
    if name == "simcse":
        assert training["measure"] == "suite_spearman_cosine"


def test_the_second_stage_goes_on_from_the_first(command: Command, parts: Path, tmp_path: Path) -> None:
    small = ["loop.max_steps=1", "loop.batch_size=8", "loop.projector=0"]
    assert command("train", "experiment=sbert_nli", f"model={parts / 'tiny'}", f"data.path={parts / 'AllNLI.tsv'}",
                   *small, "hydra.run.dir=first").code == 0
    forgotten = command("train", "experiment=sbert_nli_stsb", *small)
    assert forgotten.code == 2 and "model: is needed; give model=" in forgotten.err
    assert "Error executing" not in forgotten.err
    done = command("train", "experiment=sbert_nli_stsb", "model=first", f"data.path={parts / 'stsbenchmark.tsv'}",
                   *small, "hydra.run.dir=second")
    assert done.code == 0, done.err
    about = json.loads((tmp_path / "second" / "model" / "sentence_forge.json").read_text())
    assert about["training"]["base"] == "first" and about["earlier"][0]["loss"] == "Softmax"
