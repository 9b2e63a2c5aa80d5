"""Models by name, found in $SENTENCE_FORGE_MODELS: each text gets the prompt of its role everywhere."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from conftest import Done
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

from sentence_forge.runtime.errors import UserError
from sentence_forge.search.index import Index

Command = Callable[..., Done]
ZH = "为这个句子生成表示以用于检索相关文章："
# Of the models' cards: the folder, then what stands before a query, a document and a text that is neither.
MODELS = {"e5_small": ("multilingual-e5-small", "query: ", "passage: ", "query: "),
          "bge_small_zh": ("bge-small-zh-v1.5", ZH, "", ""),
          "text2vec_base_chinese": ("text2vec-base-chinese", "", "", "")}
TEXTS = [f"{place}{what} {number}" for number, (place, what) in enumerate(
    (place, what) for place in ("京津冀", "上海", "广州", "query passage", "西部")
    for what in ("秋冬", "房价", "高考", "油价"))]


def write(path: Path, *rows: Sequence[object]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$SENTENCE_FORGE_MODELS with a tiny model by each name, of weights that no dropout disturbs."""
    made = tiny_models.make("bert", tmp_path / "models" / "tiny", [*TEXTS, ZH])
    about = json.loads((made / "config.json").read_text())
    about |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (made / "config.json").write_text(json.dumps(about))
    for folder, *_ in MODELS.values():
        (made.parent / folder).symlink_to(made)
    monkeypatch.setenv("SENTENCE_FORGE_MODELS", str(made.parent))
    return made


@pytest.mark.parametrize("name", MODELS)
def test_each_text_gets_the_prompt_of_its_role(name: str, places: Path, command: Command, tmp_path: Path) -> None:
    _, query, document, neither = MODELS[name]
    bare = SentenceTransformer(str(places), device="cpu")

    def encode(before: str, texts: Iterable[str], by: SentenceTransformer = bare) -> np.ndarray:
        return unit(by.encode([before + text for text in texts], prompt=""))

    anchors, positives = TEXTS[:8], TEXTS[8:16]
    write(tmp_path / "pairs.csv", ("anchor", "positive"), *zip(anchors, positives, strict=True))
    scores = [row % 6 for row in range(10)]
    write(tmp_path / "scored.csv", ("sentence1", "sentence2", "score"),
          *zip(TEXTS[:10], TEXTS[10:20], scores, strict=True))
    write(tmp_path / "judged.csv", ("query", "title", "grade"), *zip(anchors, positives, [1] * 8, strict=True))
    done = command("train", f"model={name}", "data=pairs.csv", "data.dev_path=pairs.csv", "loss=mnrl", "loop.warmup=0",
                   "loop.max_steps=1", "loop.batch_size=8", "loop.projector=0", "hydra.run.dir=run")
    assert done.code == 0, done.err
    logits = torch.from_numpy(20 * encode(query, anchors) @ encode(document, positives).T)
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    loss = next(line["train/loss"] for line in logged if "train/loss" in line)
    assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, torch.arange(8))), abs=1e-4)

    done = command("eval", f"model={name}", "suite=[file,mine]", "file=judged.csv", "suite.file.path=scored.csv",
                   "score_range=[0,5]", "resamples=2", "output=out")
    assert done.code == 0, done.err
    tasks = json.loads((tmp_path / "out" / "report.json").read_text())["tasks"]
    of_pairs = np.sum(encode(neither, TEXTS[:10]) * encode(neither, TEXTS[10:20]), axis=1)
    assert tasks["file"]["spearman_cosine"] == pytest.approx(spearmanr(of_pairs, scores).statistic, abs=1e-6)
    ranks = np.sum((found := encode(query, anchors) @ encode(document, positives).T) >= np.diag(found)[:, None], axis=1)
    assert tasks["mine"]["mrr@10"] == pytest.approx(np.mean(1 / ranks), abs=1e-6)

    write(tmp_path / "titles.csv", ("title",), *((text,) for text in TEXTS))
    done = command("export", "model=run", "corpus=titles.csv", "out=news")
    assert done.code == 0, done.err
    trained = SentenceTransformer(str(tmp_path / "run" / "model"), device="cpu")
    with Index.open(tmp_path / "news") as index:
        np.testing.assert_allclose(index.vectors, encode(document, TEXTS, trained), atol=1e-5)
        np.testing.assert_allclose(index.encode(anchors), encode(query, anchors, trained), atol=1e-5)
    np.testing.assert_allclose(unit(trained.encode(TEXTS)), encode(neither, TEXTS, trained), atol=1e-5)


def test_a_name_that_is_no_role_is_refused(places: Path) -> None:
    from sentence_forge.encoders.making.build import pretrained

    with pytest.raises(UserError, match="there is no 'title'"):
        pretrained(str(places), prompts={"title": "x"})
