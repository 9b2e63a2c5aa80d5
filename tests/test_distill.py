"""Distillation: the loss against NumPy and sentence-transformers, a teacher by its roles, a copy of fewer layers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from conftest import Done
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import EmbedDistillLoss
from transformers import AutoConfig, AutoModel, AutoTokenizer

from sentence_forge.encoders.encoder import load_encoder
from sentence_forge.encoders.making.build import pretrained
from sentence_forge.losses.distill import Distill
from sentence_forge.runtime.errors import UserError

Command = Callable[..., Done]
TEXTS = [f"{one} {two} {number}" for number, (one, two) in enumerate(
    (one, two) for one in ("storm", "markets", "opera", "winter", "京津冀")
    for two in ("coast", "fall", "秋冬", "night"))]


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A BERT of three layers without dropout, with prompts."""
    made = tiny_models.make("bert", tmp_path / "bert", TEXTS)
    config = AutoConfig.from_pretrained(made, num_hidden_layers=3, hidden_dropout_prob=0.0,
                                        attention_probs_dropout_prob=0.0)
    torch.manual_seed(1)
    AutoModel.from_config(config).save_pretrained(made)
    pretrained(str(made), prompts={"query": "query: ", "document": "passage: "}).save_pretrained(
        str(tmp_path / "teacher"), create_model_card=False)
    return tmp_path / "teacher"


@pytest.mark.parametrize("columns", [1, 3])
def test_it_is_the_mean_cosine_distance(columns: int) -> None:
    draw = np.random.default_rng(0)
    students, taught = draw.normal(size=(columns, 5, 6)), draw.normal(size=(5, columns, 4))
    loss = Distill(dim=6, teacher_dim=4).double()
    weight = loss.projection.weight.detach().numpy()
    found = loss([torch.tensor(each) for each in students], torch.tensor(taught), None)
    by_hand = [1 - unit(weight @ students[column, row]) @ unit(taught[row, column])
               for row in range(5) for column in range(columns)]
    assert found.item() == pytest.approx(np.mean(by_hand))
    same = Distill(dim=6, teacher_dim=6)
    assert not list(same.parameters())
    tensors, targets = [torch.tensor(each) for each in students], torch.tensor(draw.normal(size=(5, columns, 6)))
    stock = EmbedDistillLoss(None, distance_metric="cosine").compute_loss_from_embeddings(
        tensors, list(targets.unbind(1)))
    assert float(same(tensors, targets, None)) == pytest.approx(float(stock))


def test_each_text_is_taught_what_the_teacher_gives_its_role(command: Command, tmp_path: Path, teacher: Path) -> None:
    (tmp_path / "titles.csv").write_text("\n".join(["title", *TEXTS]), encoding="utf-8")
    done = command("train", "loss=distill", f"loss.teacher={teacher}", "model=static", "model.dim=32",
                   "data=titles.csv", "data.dev_path=titles.csv", "loop.batch_size=20", "loop.learning_rate=0.2",
                   "loop.max_steps=60", "loop.evaluate_every=60", "loop.log_every=1", "loop.projector=0",
                   "hydra.run.dir=run")
    assert done.code == 0, done.err
    before, after = (SentenceTransformer(str(tmp_path / "run" / name), device="cpu") for name in ("untouched", "model"))
    stock = SentenceTransformer(str(teacher), device="cpu")
    taught = np.stack([unit(stock.encode_query(TEXTS)), unit(stock.encode_document(TEXTS))])
    logged = [line["train/loss"] for line in map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text()
                                                 .splitlines()) if "train/loss" in line]
    assert logged[0] == pytest.approx(1 - np.mean(np.sum(unit(before.encode(TEXTS)) * taught, axis=-1)), abs=1e-5)
    assert 1 - np.mean(np.sum(unit(after.encode(TEXTS)) * taught, axis=-1)) < logged[0] / 2
    assert not (tmp_path / "run" / "model" / "loss.json").exists()
    for name in ("mini", "nowhere/at_all/x"):
        done = command("train", "loss=distill", f"loss.teacher={name}", "model=static", "data=titles.csv")
        assert done.code == 2 and "error: loss.teacher" in done.err and "Traceback" not in done.err, done.err


def test_a_student_begins_from_some_of_the_teachers_layers(tmp_path: Path, teacher: Path) -> None:
    student = pretrained(str(teacher), keep_layers=[0, 2])
    bert, tokenizer = AutoModel.from_pretrained(tmp_path / "bert"), AutoTokenizer.from_pretrained(tmp_path / "bert")
    del bert.encoder.layer[1]
    with torch.inference_mode():
        by_hand = [bert(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0).numpy()
                   for text in TEXTS]
    np.testing.assert_allclose(student.encode(TEXTS), by_hand, atol=1e-5)
    student.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    np.testing.assert_allclose(load_encoder(tmp_path / "saved").encode(TEXTS), by_hand, atol=1e-5)
    for kept, says in (([0, 3], "give some of 0 to 2"), ([], "give some"), ([2, 0], "in their order")):
        with pytest.raises(UserError, match=says):
            pretrained(str(teacher), keep_layers=kept)
    albert = tiny_models.make("albert", tmp_path / "albert", TEXTS)
    with pytest.raises(UserError, match="no list of layers"):
        pretrained(str(albert), keep_layers=[0])


def test_a_run_is_not_gone_on_with_under_another_teacher(command: Command, tmp_path: Path, teacher: Path) -> None:
    (tmp_path / "titles.csv").write_text("\n".join(["title", *TEXTS]), encoding="utf-8")
    done = command("train", "loss=distill", f"loss.teacher={teacher}", "model=static", "model.dim=32",
                   "data=titles.csv", "data.dev_path=titles.csv", "loop.learning_rate=0.2", "loop.max_steps=1",
                   "loop.projector=0", "hydra.run.dir=run")
    assert done.code == 0, done.err
    assert command("train", "resume=run", "loop.max_steps=2").code == 0
    changed = SentenceTransformer(str(teacher), device="cpu")
    next(changed.parameters()).data[0] += 1
    changed.save_pretrained(str(teacher), create_model_card=False)
    done = command("train", "resume=run", "loop.max_steps=3")
    assert done.code == 2 and f"teachers.{teacher}" in done.err, done.err
