"""The whole path as a user walks it: train, export, re-index, search; and what breaks it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, Done
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import semantic_search

from sentence_forge.search.index import Index

ROOT = Path(__file__).parent.parent
TITLES = ROOT / "data_readers" / "sample" / "en" / "titles.csv"
Command = Callable[..., Done]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained tiny model."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    subprocess.run([sys.executable, "-m", "train", "loss=mnrl", *TINY, "loop.max_steps=5", f"hydra.run.dir={folder}"],
                   cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    """The same, exported with a corpus as people have it."""
    folder = run.parent / "news"
    corpus = run.parent / "新闻 corpus.csv"
    with TITLES.open(encoding="utf-8", newline="") as file:
        titles = [row["title"] for row in csv.DictReader(file)][:100]
    odd = ["NA", "null", "007", "1e5", 'a "quoted", title', "two\nlines", titles[0], "", titles[0], "  "]
    with corpus.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["date", "title", "key"])
        writer.writerows([["2026-01-01", title, f"k{number:03}"] for number, title in enumerate([*titles, *odd])])
        file.write("2026-01-01,one column too many,k200,x\n")
    subprocess.run([sys.executable, "-m", "export", f"model={run}", f"corpus={corpus}", "corpus.id_column=key",
                    f"out={folder}"], cwd=ROOT, check=True, capture_output=True)
    return folder


def test_stock_loads_the_exported_folder_with_the_same_vectors(run: Path, exported: Path) -> None:
    texts = ["a title", "another, longer title about the weather in autumn"]
    stock = SentenceTransformer(str(exported / "model"), device="cpu").encode(texts)
    np.testing.assert_allclose(stock, SentenceTransformer(str(run / "model"), device="cpu").encode(texts), atol=1e-6)
    with Index.open(exported) as index:
        np.testing.assert_allclose(index.encode(texts), stock / np.linalg.norm(stock, axis=1, keepdims=True), atol=1e-6)
    card = (exported / "model" / "README.md").read_text(encoding="utf-8")
    assert "MultipleNegativesRanking" in card and "sample-en-dev" in card


def test_every_row_is_accounted_for(exported: Path) -> None:
    with Index.open(exported) as index:
        assert len(index.ids) == len(index.titles) == len(index.vectors) == 108
        assert [index.ids[row] for row in range(3)] == ["k000", "k001", "k002"]
        assert {"NA", "null", "007", "1e5", "two\nlines"} <= set(index.titles)
        assert list(index.titles).count(index.titles[0]) == 3  # each row is a hit of its own
    with (exported / "index" / "rejected.csv").open(encoding="utf-8", newline="") as file:
        rejected = list(csv.DictReader(file))
    assert [row["row"] for row in rejected] == ["108", "110", "111"]
    assert all(row["reason"] for row in rejected)


def test_the_manifest_says_how_near_onnx_comes(exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["state"] == "finished"
    assert manifest["onnx"]["fp32"]["max_difference"] < 1e-5
    assert manifest["onnx"]["fp32"]["min_cosine"] > 0.9999
    assert manifest["onnx"]["fp32"]["measured_on"] in ("sample-en-dev", "stsb-test")
    assert sorted(path.name for path in exported.iterdir() if path.suffix == ".data") == []  # one file, all inside


def test_search_as_typed_imports_no_torch(exported: Path) -> None:
    code = (f"import sys; sys.argv = ['search', {str(exported)!r}, 'weather in autumn', '-k', '3', '--json']\n"
            "from sentence_forge.search import cli\n"
            "code = cli.main()\n"
            "slow = {'torch', 'transformers', 'sentence_transformers', 'datasets', 'pandas', 'scipy'}\n"
            "heavy = slow & set(sys.modules)\n"
            "assert not heavy, heavy\n"
            "sys.exit(code)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["query"] == "weather in autumn"
    assert found["took_ms"].keys() == {"encode", "search"}
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    assert found["hits"][0].keys() == {"rank", "score", "id", "title"}


def test_exact_is_what_semantic_search_returns(exported: Path) -> None:
    with Index.open(exported) as index:
        ours = index.search(["weather in autumn", "京津冀秋冬"], k=5, exact=True)
        stock = semantic_search(torch.from_numpy(index.encode(["weather in autumn", "京津冀秋冬"])),
                                torch.from_numpy(np.array(index.vectors)), top_k=5)
        for hits, theirs in zip(ours, stock, strict=True):
            np.testing.assert_allclose([hit.score for hit in hits], [hit["score"] for hit in theirs], atol=1e-6)


def test_reindexing_encodes_only_what_is_new(command: Command, exported: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "changed.csv"
    with Index.open(exported) as index:
        rows = list(zip(index.ids, index.titles, strict=True))
    rows = [(name, "a changed title" if name == "k005" else title) for name, title in rows[:-1]]
    rows.append(("new", "a new one"))
    with corpus.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("key", "title"), *rows])
    folder = tmp_path / "news"
    subprocess.run(["cp", "-r", exported, folder], check=True)
    done = command("export", "only=index", f"corpus={corpus}", "corpus.id_column=key", f"out={folder}")
    assert done.code == 0, done.err
    assert "2 titles encoded" in done.err and "1 rows added, 1 changed, 1 removed" in done.err
    with Index.open(folder) as index:
        assert index.search(["a changed title"], k=1)[0][0].id == "k005"
        assert rows[-2][0] in index.ids and "new" in index.ids


def test_an_index_of_another_model_is_refused(command: Command, exported: Path, tmp_path: Path) -> None:
    other, folder = tmp_path / "other", tmp_path / "news"
    assert command("train", *TINY, "seed=5", "loop.max_steps=1", f"hydra.run.dir={tmp_path / 'run'}").code == 0
    assert command("export", f"model={tmp_path / 'run'}", f"corpus={TITLES}", f"out={other}").code == 0
    subprocess.run(["cp", "-r", exported, folder], check=True)
    subprocess.run(["rm", "-r", folder / "index"], check=True)
    subprocess.run(["cp", "-r", other / "index", folder / "index"], check=True)
    done = subprocess.run([sys.executable, "-m", "search", str(folder), "x"], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error:") and "of another model" in done.stderr and done.stderr.count("\n") == 1


def test_a_default_prompt_stands_before_texts_everywhere(command: Command, run: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(str(run / "model"), device="cpu", prompts={"title": "news: "},
                                default_prompt_name="title")
    model.save_pretrained(str(tmp_path / "prompted"), create_model_card=False)
    assert command("export", f"model={tmp_path / 'prompted'}", f"corpus={TITLES}", f"out={tmp_path / 'out'}").code == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert set(manifest["onnx"]["fp32"]["prompts"].values()) == {"news: "}
    with Index.open(tmp_path / "out") as index:
        np.testing.assert_allclose(index.vectors[0], unit(model.encode([index.titles[0]])[0]), atol=1e-6)
        np.testing.assert_allclose(index.encode(["weather"])[0], unit(model.encode(["weather"])[0]), atol=1e-6)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_a_damaged_query_encoder_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "news"
    subprocess.run(["cp", "-r", exported, folder], check=True)
    onnx = bytearray((folder / "model.onnx").read_bytes())
    onnx[len(onnx) // 2] ^= 1
    (folder / "model.onnx").write_bytes(onnx)
    done = subprocess.run([sys.executable, "-m", "search", str(folder), "x"], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error:") and "model.onnx" in done.stderr and done.stderr.count("\n") == 1


def test_without_onnx_search_uses_torch(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "news"
    subprocess.run(["cp", "-r", exported, folder], check=True)
    (folder / "model.onnx").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"onnx": {}}))
    with Index.open(exported) as one, Index.open(folder) as two:
        hits = two.search(["weather in autumn"], k=5)[0]
        assert [hit.id for hit in hits] == [hit.id for hit in one.search(["weather in autumn"], k=5)[0]]


def test_an_unfinished_export_goes_on(command: Command, exported: Path, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "news"
    corpus = run.parent / "新闻 corpus.csv"
    arguments = [f"model={run}", f"corpus={corpus}", "corpus.id_column=key", f"out={folder}"]
    subprocess.run(["cp", "-r", exported, folder], check=True)
    again = command("export", *arguments)
    assert again.code == 2 and "holds a finished export" in again.err
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"state": "unfinished"}))
    done = command("export", *arguments)
    assert done.code == 0 and "going on with the unfinished export" in done.err
    (folder / "manifest.json").write_text(json.dumps(manifest | {"state": "unfinished", "fingerprint": "other"}))
    other = command("export", *arguments)
    assert other.code == 2 and "of another model or corpus; give" in other.err
    (folder / "manifest.json").write_text(json.dumps(manifest | {"state": "unfinished"}))
    other = command("export", *(each for each in arguments if "id_column" not in each))
    assert other.code == 2 and "of another model or corpus (corpus.id_column differs); give" in other.err


def test_a_new_dense_layer_is_saved(command: Command, run: Path, tmp_path: Path) -> None:
    """Without the seed and the saving its vectors would change from load to load."""
    vectors = []
    for name in ("one", "two"):
        done = command("export", f"model={run}", "model.dense=[{out_features: 8}]", f"out={tmp_path / name}")
        assert done.code == 0, done.err
        vectors += [SentenceTransformer(str(tmp_path / name / "model"), device="cpu").encode(["a"]) for _ in range(2)]
    assert vectors[0].shape == (1, 8)
    assert all(np.array_equal(vectors[0], each) for each in vectors)


@pytest.mark.parametrize(("arguments", "said"), [
    (["out=x"], "model: is needed"),
    (["model=RUN"], "out: is needed"),
    (["model=RUN", "out=x", "corpus=missing.csv"], "missing.csv"),
    (["model=RUN", "out=x", "corpus=c.csv", "corpus.column=titel"], "did you mean 'title'"),
    (["model=RUN", "out=x", "corpus=c.csv", "corpus.id_column=key"], "key"),
    (["model=RUN", "out=x", "corpus=empty.csv"], "empty.csv"),
    (["model=RUN", "out=x", "corpus=blank.csv"], "none of its 1 rows"),
    (["model=RUN", "out=full"], "exists and is no export"),
    (["model=RUN", "out=c.csv"], "is a file"),
    (["only=index", "corpus=c.csv", "out=full"], "is no export"),
    (["only=index", "model=RUN", "corpus=c.csv", "out=full"], "only=index takes the model"),
    (["only=model", "out=x"], "only"),
    (["model=full", "out=x"], "is no model"),
])
def test_bad_input_is_one_line(command: Command, run: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "c.csv").write_text("title\na title\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "blank.csv").write_text("id,title\n1,\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("kept")
    done = command("export", *[each.replace("RUN", str(run)) for each in arguments])
    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert done.code == 2 and len(errors) == 1 and said in errors[0], done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "x").exists()
    assert (tmp_path / "full" / "kept.txt").read_text() == "kept"


def test_eval_as_typed(command: Command, run: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    with TITLES.open(encoding="utf-8", newline="") as file:
        titles = [row["title"] for row in csv.DictReader(file)]
    with pairs.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sentence1", "sentence2", "score", "domain"),
                                    *((titles[n], titles[n + 1], n % 6, "ab"[n % 2]) for n in range(40))])
    done = command("eval", f"model={run}", f"suite={pairs}", f"baseline={run}", "output=report")
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["tasks"]["file"]["n"] == 40 and set(report["tasks"]["file"]["domains"]) == {"a", "b"}
    assert report["baseline"]["delta"] == 0
    assert {"report.html", "report.md"} <= {path.name for path in (tmp_path / "report").iterdir()}


@pytest.mark.parametrize(("arguments", "said"), [
    ([], "model: is needed"),
    (["model=RUN", "suite=stss"], "did you mean"),
    (["model=RUN", "suite=file", "file=none.csv"], "none.csv"),
    (["model=RUN", "suite=sts", "data_dir=nowhere"], "nowhere: no such folder"),
    (["model=RUN", "suite=sts", "data_dir=."], "nothing to evaluate"),
    (["model=RUN", "suite=bad.csv"], "line 3 (row 2), column score"),
    (["model=RUN", "resamples=0"], "resamples"),
])
def test_bad_evaluation_is_one_line(command: Command, run: Path, tmp_path: Path, arguments: list[str],
                                    said: str) -> None:
    (tmp_path / "bad.csv").write_text("sentence1,sentence2,score\na,b,1\nc,d,nine\n")
    done = command("eval", *[each.replace("RUN", str(run)) for each in arguments])
    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert done.code == 2 and len(errors) == 1 and said in errors[0], done.err
    assert not list(tmp_path.glob("outputs/eval/*"))
