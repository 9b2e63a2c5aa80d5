"""A loss of one's own with a head: one class in a package of one's own, and a config that names it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copy

import numpy as np
import pytest
import torch
from conftest import TINY, Done
from safetensors.torch import load_file

from sentence_forge.eval.tasks.nli import load_head
from sentence_forge.losses.loss_set import LossSet, read_losses
from sentence_forge.runtime.errors import UserError

Command = Callable[..., Done]
ROOT = Path(__file__).parent.parent
OWN = """
import torch
from sentence_forge.losses.base import Loss

class Bilinear(Loss):
    def __init__(self, sharpness: float = 1.0, *, dim: int, labels: list):
        super().__init__()
        self.sharpness, self.classes = sharpness, tuple(labels)
        self.head = torch.nn.Bilinear(dim, dim, len(labels))

    def encode_labels(self, labels):
        return torch.tensor([self.classes.index(label) for label in labels])

    def scores(self, u, v):
        return self.sharpness * self.head(u, v)

    def forward(self, embeddings, labels, text_ids):
        return torch.nn.functional.cross_entropy(self.scores(*embeddings), labels)

    def predict(self, u, v):
        return [self.classes[number] for number in self.scores(u, v).argmax(dim=1).tolist()]
"""
LOSS = ["loss._target_=my_losses.Bilinear", "~loss.scale", "~loss.symmetric",
        "~loss.false_negative_margin", "+loss.sharpness=2.0",
        "loss.shapes=[pair_class]", "loss.sampler._target_=train.batches.Shuffled"]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "my_losses.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path / "package")
    monkeypatch.delitem(sys.modules, "my_losses", raising=False)
    (tmp_path / "data" / "nli_en_snli").mkdir(parents=True)
    copy(ROOT / "data_readers" / "sample" / "en" / "nli_dev.csv", tmp_path / "data" / "nli_en_snli" / "test.csv")
    return "plugins=[my_losses]"


@pytest.mark.parametrize("dims", [[], ["dims=[32,8]"]], ids=["whole", "cut"])
def test_it_trains_resumes_bit_for_bit_and_is_evaluated_with_its_head(command: Command, tmp_path: Path, mine: str,
                                                                      dims: list[str]) -> None:
    done = command("train", *LOSS, *dims, mine, *TINY, "loop.checkpoint_every=2", "loop.max_steps=4",
                   "loop.learning_rate=0.01", "loop.warmup=0", "hydra.run.dir=run")
    assert done.code == 0, done.err
    about = json.loads((tmp_path / "run" / "model" / "loss.json").read_text())
    assert about["_target_"] == "my_losses.Bilinear" and about["sharpness"] == 2.0 and about["dim"] == 32
    last = tmp_path / "run" / "checkpoints" / "step-4" / "model"
    whole = {name: load_file(last / f"{name}.safetensors") for name in ("model", "loss")}
    assert len(whole["loss"]) == (4 if dims else 2)
    done = command("train", f"resume={tmp_path / 'run' / 'checkpoints' / 'step-2'}", mine)
    assert done.code == 0, done.err
    for name, tensors in whole.items():
        again = load_file(last / f"{name}.safetensors")
        assert tensors.keys() == again.keys() and all(torch.equal(tensors[key], again[key]) for key in tensors)
    measure = ["model=run", "suite=nli", "data_dir=data", "resamples=20"]
    done = command("eval", *measure, mine, "output=out")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "out" / "report.json").read_text())["tasks"]["snli-test"]
    trained = json.loads((tmp_path / "run" / "model" / "sentence_forge.json").read_text())["training"]
    assert found["accuracy"] == pytest.approx(trained["after"])  # of the same rows, here
    done = command("eval", *measure, "output=without")
    assert done.code == 2 and "'my_losses.Bilinear' is not in losses" in done.err  # a model doesn't import a package


def test_a_loss_of_classes_that_tells_none_apart_is_one_line(command: Command, tmp_path: Path, mine: str) -> None:
    (tmp_path / "package" / "my_losses.py").write_text(OWN.replace("self.sharpness, self.classes =",
                                                                   "self.sharpness, self.known =")
                                                       .replace("self.classes.index", "self.known.index"))
    done = command("train", *LOSS, mine, *TINY, "loop.max_steps=1", "hydra.run.dir=run")
    assert done.code == 2 and "error: loss=Bilinear: takes rows of classes" in done.err, done.err
    (tmp_path / "package" / "my_losses.py").write_text(OWN.replace("def encode_labels", "def encode"))
    sys.modules.pop("my_losses", None)
    done = command("train", *LOSS, mine, *TINY, "loop.max_steps=1", "hydra.run.dir=run")
    assert done.code == 2 and "error: loss=Bilinear: takes rows with a label" in done.err, done.err


def test_a_source_of_ones_own_trains_without_a_file(command: Command, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_data.py").write_text(
        "class Tickets:\n"
        "    def __init__(self, most: int) -> None:\n        self.most = most\n"
        "    def shapes(self):\n        return ['pair_score']\n"
        "    def read(self, shape, split):\n"
        "        from datasets import Dataset\n"
        "        rows = [('printer on fire', 'it burns', 1.0), ('no network', 'printer on fire', 0.0)] * self.most\n"
        "        first, second, scores = zip(*rows) if rows else ((), (), ())\n"
        "        return Dataset.from_dict({'sentence1': first, 'sentence2': second, 'score': scores,\n"
        "                                  'row': range(1, len(rows) + 1)})\n"
        "    def rejected(self):\n        return {}\n"
        "    def paths(self):\n        return []\n")
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "tickets.yaml").write_text("_target_: my_data.Tickets\nmost: 30\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--config-dir", str(tmp_path / "conf"), "loss=cosine", "data=tickets", "plugins=[my_data]", *TINY,
             "loop.max_steps=2", "hydra.run.dir=run"]
    done = command("train", *words)
    assert done.code == 0 and (tmp_path / "run" / "report" / "report.html").is_file(), done.err
    done = command("train", *words[:-1], "data.most=0", "hydra.run.dir=empty")
    assert done.code == 2 and "error: data: has no train rows" in done.err, done.err


def test_a_head_of_version_0_1_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = {"labels": ["no", "yes"], "concatenation": ["u", "v"]}
    new = LossSet({"": {"_target_": "losses.softmax.Softmax", "dim": 8, **made}})
    vectors = np.random.default_rng(0).standard_normal((2, 20, 8)).astype(np.float32)
    expected = new[""].predict(*map(torch.from_numpy, vectors))
    new.save(tmp_path)
    tensors = new.weights()
    (tmp_path / "loss.json").write_text(json.dumps(made))
    head = load_head(tmp_path, 8)
    assert head is not None and head(*vectors) == expected and len(set(expected)) == 2
    from safetensors.torch import save_file
    save_file({f"losses.1.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "loss.safetensors")
    (tmp_path / "loss.json").write_text(json.dumps({"sources": {"sts": {}, "nli": made}}))
    head = load_head(tmp_path, 8)
    assert head is not None and head(*vectors) == expected


@pytest.mark.parametrize("about", [{"_target_": "train.batches.Shuffled", "rows": 1, "batch_size": 1, "seed": 1},
                                   {"_target_": "os.system", "command": "touch owned"}])
def test_a_folder_s_loss_json_builds_losses_alone(tmp_path: Path, about: dict) -> None:
    LossSet({"": {"_target_": "losses.softmax.Softmax", "dim": 8, "labels": ["no", "yes"]}}).save(tmp_path)
    (tmp_path / "loss.json").write_text(json.dumps(about))
    assert read_losses(tmp_path, 8) == []


def test_a_head_of_a_model_of_another_length_is_refused(tmp_path: Path) -> None:
    LossSet({"": {"_target_": "losses.softmax.Softmax", "dim": 8, "labels": ["no", "yes"]}}).save(tmp_path)
    with pytest.raises(UserError, match="is not the head"):
        read_losses(tmp_path, 16)
