"""Vectors that can be cut: the loss against NumPy and the stock one, then trained, evaluated, exported and searched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copy

import numpy as np
import pytest
import torch
from conftest import TINY, Done
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from test_losses import DIM, ROWS, agrees, columns, cross_entropy, numpy_mnrl, unit  # noqa: F401 - columns is a fixture

from sentence_forge.configs import schema
from sentence_forge.data_readers.shapes import SHAPES
from sentence_forge.encoders.encoder import load_encoder
from sentence_forge.eval.stats import spearman
from sentence_forge.losses.loss_set import OF_THE_RUN, LossSet
from sentence_forge.losses.matryoshka import Matryoshka
from sentence_forge.losses.mnrl import MultipleNegativesRanking
from sentence_forge.losses.triplet import Triplet
from sentence_forge.runtime import targets
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.overrides import options
from sentence_forge.search.index import Index

Command = Callable[..., Done]
ROOT = Path(__file__).parent.parent


def test_the_loss_is_the_weighted_sum_of_cut_vectors_losses(columns: list[np.ndarray]) -> None:  # noqa: F811
    loss = Matryoshka({dim: MultipleNegativesRanking(7.0) for dim in (5, 3, 2)}, [1.0, 2.0, 0.5])

    def reference(pair: list[np.ndarray]) -> float:
        return sum(weight * numpy_mnrl([unit(column[:, :dim]) for column in pair], 7.0)
                   for dim, weight in ((5, 1.0), (3, 2.0), (2, 0.5)))

    agrees(loss, reference, columns[:3])
    assert not loss.classes


def test_the_inner_loss_sees_vectors_of_length_1_as_in_the_stock_loss(columns: list[np.ndarray]) -> None:  # noqa: F811
    """Manhattan triplets are not scale-free, so this fails where cut vectors keep their length."""
    def reference(triplet: list[np.ndarray]) -> float:
        total = 0.0
        for dim in (5, 2):
            a, p, n = (unit(column[:, :dim]) for column in triplet)
            near, far = (np.abs(a - other).sum(axis=1) for other in (p, n))
            total += np.maximum(near - far + 0.7, 0).mean()
        return total

    agrees(Matryoshka({dim: Triplet("manhattan", 0.7) for dim in (5, 2)}), reference, columns[:3])


def test_a_loss_with_a_head_has_one_a_dimension(columns: list[np.ndarray]) -> None:  # noqa: F811
    loss = LossSet({"": {"_target_": "losses.softmax.Softmax", "dim": DIM, "labels": ["no", "yes"],
                         "dims": [5, 2]}}).double()[""]
    heads = [part.classifier for part in loss.losses]
    assert [head.weight.shape for head in heads] == [(2, 15), (2, 6)]
    labels = loss.encode_labels(["yes", "no"] * 3)

    def logits(pair: list[np.ndarray], dim: int, head: torch.nn.Linear) -> np.ndarray:
        u, v = (unit(column[:, :dim]) for column in pair)
        weight, bias = (each.detach().numpy() for each in head.parameters())
        return np.concatenate([u, v, np.abs(u - v)], axis=1) @ weight.T + bias

    agrees(loss, lambda pair: sum(cross_entropy(logits(pair, dim, head), labels.numpy())
                                  for dim, head in zip((5, 2), heads, strict=True)), columns[:2], labels)
    assert loss.classes == ("no", "yes")
    expected = [["no", "yes"][row] for row in logits(columns[:2], 5, heads[0]).argmax(axis=1)]
    assert loss.predict(*(torch.tensor(column) for column in columns[:2])) == expected


# --- by the commands ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained at three lengths."""
    import sys

    from sentence_forge.train.cli import main

    folder = tmp_path_factory.mktemp("matryoshka") / "run"
    before = sys.argv
    sys.argv = ["python -m train", "loss=cosine", "dims=[32,16,8]", *TINY,
                "model.normalize=true", "loop.max_steps=8", "loop.learning_rate=0.002", f"hydra.run.dir={folder}"]
    try:
        main()
    except SystemExit as leaving:
        assert not leaving.code
    finally:
        sys.argv = before
    return folder


def test_a_run_says_what_it_was_trained_for_and_reports_every_dimension(run: Path) -> None:
    about = json.loads((run / "model" / "sentence_forge.json").read_text())
    assert about["dims"] == [32, 16, 8] and about["training"]["loss"] == "Matryoshka(Cosine)"
    assert "truncate_dim=8" in (run / "model" / "README.md").read_text()
    report = json.loads((run / "report" / "report.json").read_text())
    assert [entry["dim"] for entry in report["dims"]] == [32, 16, 8]


def test_eval_reports_each_dimension_as_numpy_finds_it(command: Command, run: Path, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    from sentence_forge.data_readers.sample import sample_path
    from sentence_forge.encoders.encoder import Encoder
    from sentence_forge.eval.tasks.sts import ScoredPairs

    encoded: list[int] = []
    encode = Encoder.encode
    monkeypatch.setattr(Encoder, "encode", lambda self, texts, **more: encoded.append(len(texts)) or encode(
        self, texts, **more))  # the real one, counted
    done = command("eval", f"model={run}", "dims=[16,4]", f"output={tmp_path / 'out'}", "resamples=50")
    assert done.code == 0, done.err
    assert len(encoded) == 1  # every dimension is cut from the same vectors
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [entry["dim"] for entry in report["dims"]] == [32, 16, 4]
    pairs = ScoredPairs(path=str(sample_path("en", "sts_dev"))).read(None)
    stock = SentenceTransformer(str(run / "model"), device="cpu")
    u, v = stock.encode(pairs.sentence1), stock.encode(pairs.sentence2)
    for entry in report["dims"]:
        cosine = (unit(u[:, : entry["dim"]]) * unit(v[:, : entry["dim"]])).sum(axis=1)
        row = entry["tasks"]["sample-en-dev"]
        assert row["value"] == pytest.approx(spearman(cosine, pairs.gold), abs=2e-4)
        assert ("delta_ci95" in row) == (entry["dim"] < 32)
    assert report["dims"][0]["tasks"]["sample-en-dev"]["value"] == report["tasks"]["sample-en-dev"]["spearman_cosine"]
    shown = [(tmp_path / "out" / name).read_text() for name in ("report.md", "report.html")] + [done.err]
    for entry in report["dims"]:
        value = f"{100 * entry['tasks']['sample-en-dev']['value']:.2f}".replace("-", "−")
        assert all(str(entry["dim"]) in text and value in text for text in shown)
    assert "| 4 |" in shown[0] and "Cut to fewer dimensions" in shown[1]

    done = command("eval", f"model={run}", f"output={tmp_path / 'own'}", "resamples=20")
    report = json.loads((tmp_path / "own" / "report.json").read_text())
    assert [entry["dim"] for entry in report["dims"]] == [32, 16, 8]  # those it was trained for
    done = command("eval", f"model={run}", "dims=[33]", f"output={tmp_path / 'none'}")
    assert done.code == 2 and "error: dims: 33 is more than the model's 32 dimensions" in done.err


def test_an_export_at_a_dimension_is_searched_and_trained_at_it(command: Command, run: Path, tmp_path: Path) -> None:
    titles, small = ROOT / "data_readers" / "sample" / "en" / "titles.csv", tmp_path / "small"
    done = command("export", f"model={run}", f"corpus={titles}", "corpus.limit=60", f"out={small}", "dim=7")
    assert done.code == 0 and "not trained to be cut there, but to 32, 16, 8" in done.err, done.err
    texts = ["rain over the coast", "a second, longer text about the markets"]
    whole = SentenceTransformer(str(run / "model"), device="cpu")
    cut = SentenceTransformer(str(small / "model"), device="cpu").encode(texts)
    np.testing.assert_allclose(cut, whole.encode(texts)[:, :7], atol=1e-6)  # stock finds truncate_dim in the folder
    with Index.open(small) as index:
        np.testing.assert_allclose(index.vectors, unit(whole.encode(list(index.titles))[:, :7]), atol=1e-5)
        np.testing.assert_allclose(index.encode(texts), unit(cut), atol=1e-5)  # both at length 1 again
        assert type(index.encoder).__name__ == "OnnxEncoder"
    with pytest.raises(UserError, match="is of another model"):
        Index.open(small, load_encoder(run, device="cpu"))
    assert json.loads((small / "manifest.json").read_text())["dim"] == 7
    assert "first 7 of 32 numbers" in (small / "model" / "README.md").read_text()
    done = command("export", "only=index", f"corpus={titles}", "corpus.limit=70", f"out={small}")
    assert done.code == 0, done.err
    with Index.open(small) as index:
        assert index.vectors.shape == (70, 7)
    done = command("train", "loss=mnrl", f"model={small}", "loop.max_steps=2", "loop.projector=0",
                   f"hydra.run.dir={tmp_path / 'next'}")
    assert done.code == 0, done.err  # a cut model trains as what it is
    assert json.loads((tmp_path / "next" / "model" / "sentence_forge.json").read_text())["dim"] == 7


def test_an_export_at_no_dimension_of_the_model_is_refused(command: Command, run: Path, tmp_path: Path) -> None:
    for more, expected in [([f"model={run}", "dim=64"], "error: dim: 64 is more than the model's 32 dimensions"),
                           ([f"model={run}", "dim=0"], "error: dim: 0 is no number of dimensions"),
                           (["only=index", "dim=4"], "leave model=, dim= and blend= out")]:
        done = command("export", *more, f"out={tmp_path / 'out'}")
        assert done.code == 2 and expected in done.err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [name for name in options("loss") if name != "matryoshka"])
def test_every_loss_is_trained_at_several_lengths(name: str) -> None:
    schema.register()
    with initialize_config_module("sentence_forge.configs", version_base="1.3"):
        node = OmegaConf.to_container(compose("train", [f"loss={name}"]).loss, resolve=True)
    shape = SHAPES[node["shapes"][0]]
    given = {None: None, "label": ["a", "b"] * 4, "score": [0.0, 1.0] * 4}[shape.label]
    bound = targets.bound(node, "loss", omit=OF_THE_RUN, offers={"dim": 8, "labels": ["a", "b"], "teacher_dim": 6})
    loss = LossSet({"": {**bound, "dims": [8, 4]}})[""]
    vectors = [torch.randn(8, 8, requires_grad=True) for _ in shape.texts]
    labels = torch.randn(8, len(shape.texts), 6) if "teacher" in node else given and loss.encode_labels(given)
    loss(vectors, labels, None).backward()
    gradients = torch.stack([each.grad.abs().sum(dim=0) for each in vectors]).sum(dim=0)
    assert (gradients > 0).all()


def test_a_head_a_dimension_goes_on_bit_for_bit_and_is_found_again(command: Command, tmp_path: Path) -> None:
    done = command("train", "loss=softmax", "dims=[32,8]", *TINY,
                   "loop.checkpoint_every=1", "loop.max_steps=2", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "run" / "model" / "loss.json").read_text())["dims"] == [32, 8]
    whole = load_file(tmp_path / "run" / "checkpoints" / "step-2" / "model" / "loss.safetensors")
    assert {tuple(tensor.shape) for tensor in whole.values()} == {(3, 96), (3, 24), (3,)}
    done = command("train", f"resume={tmp_path / 'run' / 'checkpoints' / 'step-1'}")
    assert done.code == 0, done.err
    again = load_file(tmp_path / "run" / "checkpoints" / "step-2" / "model" / "loss.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    done = command("eval", f"model={tmp_path / 'run'}", "suite=nli", f"data_dir={_nli(tmp_path)}",
                   f"output={tmp_path / 'out'}", "resamples=20")
    assert done.code == 0, done.err  # the head is found again, and takes whole vectors
    trained = json.loads((tmp_path / "run" / "model" / "sentence_forge.json").read_text())["training"]
    found = json.loads((tmp_path / "out" / "report.json").read_text())["tasks"]["snli-test"]
    assert found["accuracy"] == pytest.approx(trained["after"])  # of the same rows, here


def _nli(folder: Path) -> Path:
    (folder / "data" / "nli_en_snli").mkdir(parents=True)
    copy(ROOT / "data_readers" / "sample" / "en" / "nli_dev.csv", folder / "data" / "nli_en_snli" / "test.csv")
    return folder / "data"


def test_the_old_form_says_what_it_is_called_now_and_trains_the_same(command: Command, tmp_path: Path) -> None:
    short = [*TINY, "loop.max_steps=2"]
    for name, typed in (("new", ["loss=cosine", "dims=[16,32]", "dim_weights=[0.5,1]"]),
                        ("old", ["loss=matryoshka", "loss.inner=cosine", "loss.dims=[16,32]", "loss.weights=[0.5,1]"])):
        done = command("train", *typed, *short, f"hydra.run.dir={name}")
        assert done.code == 0, done.err
        assert ("loss=cosine 'dims=[16, 32]'" in done.err) == (name == "old")
    new, old = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("new", "old"))
    assert new == old
    done = command("train", "-m", "loss=matryoshka", "loss.inner=cosine,mnrl", *short, "hydra.sweep.dir=sweep")
    assert done.code == 0, done.err
    about = [json.loads((tmp_path / "sweep" / job / "model" / "sentence_forge.json").read_text()) for job in "01"]
    assert [each["training"]["loss"] for each in about] == ["Matryoshka(Cosine)",
                                                            "Matryoshka(MultipleNegativesRanking)"]
    assert [each["dims"] for each in about] == [[32, 16, 8, 4]] * 2


@pytest.mark.parametrize(("typed", "expected"), [
    (["loss=matryoshka", "loss.inner=matryoshka"], "loss.inner: matryoshka can't wrap itself"),
    (["loss=matryoshka", "loss.inner=cosin"], "loss.inner: there is no loss 'cosin'; did you mean 'cosine'"),
    (["loss=cosine", "loss.inner=mnrl"], "loss.inner: there is no such key"),
    (["dims=[64,8]", *TINY], "dims: 64 is more than the model's 32"),
    (["dims=[0]", *TINY], "whole numbers from 1 to 32"),
    (["dims=[8,8]", *TINY], "none twice"),
    (["dims=[]", *TINY], "at least one"),
    (["dims=[2.5]", *TINY], "2.5 is no number of dimensions"),
    (["dims=auto", "dim_weights=[1]", *TINY], "dim_weights: has 1 entries for 4 dims"),
])
def test_lengths_that_no_model_has_are_refused_in_one_line(command: Command, typed: list[str], expected: str) -> None:
    done = command("train", *typed)
    assert done.code == 2 and done.err.count("error: ") == 1 and expected in done.err, done.err


def test_lengths_without_the_whole_are_trained_with_a_warning(command: Command) -> None:
    done = command("train", "dims=[8]", *TINY, "loop.max_steps=1")
    assert done.code == 0 and "the model's own 32 is not among [8], so whole vectors are not trained" in done.err
