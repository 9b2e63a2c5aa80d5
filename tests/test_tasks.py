"""The tasks beyond STS against sentence-transformers' own evaluators, scikit-learn, brute force and bad files."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from test_eval import WordSum

from sentence_forge.encoders.encoder import Encoder
from sentence_forge.encoders.making.build import from_scratch
from sentence_forge.eval.evaluate import evaluate
from sentence_forge.eval.report.page import page
from sentence_forge.eval.report.report import Report
from sentence_forge.eval.tasks.base import EncodedTexts
from sentence_forge.eval.tasks.binary import BinaryPairs, average_precision
from sentence_forge.eval.tasks.mteb import MTEB
from sentence_forge.eval.tasks.nli import NLI, load_head
from sentence_forge.eval.tasks.retrieval import KnownItem, LabelledRetrieval
from sentence_forge.eval.tasks.sts import ScoredPairs
from sentence_forge.eval.tasks.triplets import TripletAccuracy
from sentence_forge.eval.thresholds import best_accuracy, best_threshold
from sentence_forge.losses.loss_set import LossSet
from sentence_forge.runtime.errors import UserError
from sentence_forge.train.checkpoint import save_model

WORDS = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "eel", "ip", "ond", "ut")]


def sentences(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, int(rng.integers(3, 9)))) for _ in range(count)]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    model = from_scratch(lambda: sentences(300, 0), vocabulary=300, hidden=32, layers=1, heads=2, max_length=8)
    return Encoder(model, name="tiny")


def write(path: Path, columns: str, rows: list[tuple]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns.split(), *rows])
    return str(path)


def run(task: object, encoder: Encoder, head: object = None) -> dict:
    rows = task.read(None)
    return dict(task.score(rows, EncodedTexts(encoder, rows.texts, head), resamples=50, seed=0).row)


def stock(evaluator: object, encoder: Encoder) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return evaluator(encoder.model.eval())


def test_scored_pairs_are_those_of_sentence_transformers(encoder: Encoder, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    left, right = sentences(80, 1), sentences(80, 2)
    gold = np.random.default_rng(0).integers(0, 6, 80).tolist()
    found = run(ScoredPairs(path=write(tmp_path / "a.csv", "sentence1 sentence2 score",
                                       list(zip(left, right, gold, strict=True)))), encoder)
    names = ["cosine", "dot", "euclidean", "manhattan"]
    theirs = stock(EmbeddingSimilarityEvaluator(left, right, gold, similarity_fn_names=names), encoder)
    for name in names:
        for statistic in ("pearson", "spearman"):
            assert found[f"{statistic}_{name}"] == pytest.approx(theirs[f"{statistic}_{name}"], abs=1e-6)


def test_binary_pairs_are_those_of_sentence_transformers(encoder: Encoder, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.evaluation import BinaryClassificationEvaluator

    left, right = sentences(90, 3), sentences(90, 4)
    right[:20] = left[:20]  # ties at cosine 1
    gold = (np.random.default_rng(1).random(90) < 0.4).astype(int).tolist()
    found = run(BinaryPairs(path=write(tmp_path / "a.csv", "sentence1 sentence2 score",
                                       list(zip(left, right, gold, strict=True)))), encoder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = stock(BinaryClassificationEvaluator(left, right, gold, similarity_fn_names=["cosine"]), encoder)
    # Equal texts are exactly 1 here; there, rounding ranks them among themselves.
    assert found["average_precision"] == pytest.approx(theirs["cosine_ap"], abs=0.05)
    assert found["best_accuracy"]["accuracy"] == pytest.approx(theirs["cosine_accuracy"], abs=0.05)
    apart = run(BinaryPairs(path=write(tmp_path / "b.csv", "sentence1 sentence2 score",
                                       list(zip(left[20:], right[20:], gold[20:], strict=True)))), encoder)
    theirs = stock(BinaryClassificationEvaluator(left[20:], right[20:], gold[20:], similarity_fn_names=["cosine"]),
                   encoder)
    assert apart["average_precision"] == pytest.approx(theirs["cosine_ap"], abs=1e-6)
    assert apart["best_f1"]["f1"] == pytest.approx(theirs["cosine_f1"], abs=1e-6)
    assert apart["best_f1"]["precision"] == pytest.approx(theirs["cosine_precision"], abs=1e-6)
    assert apart["best_f1"]["recall"] == pytest.approx(theirs["cosine_recall"], abs=1e-6)
    assert apart["best_f1"]["cosine"] == pytest.approx(theirs["cosine_f1_threshold"], abs=1e-5)
    assert apart["best_accuracy"]["accuracy"] == pytest.approx(theirs["cosine_accuracy"], abs=1e-6)


def test_average_precision_is_scikit_learns_ties_and_all() -> None:
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    for _ in range(30):
        score, positive = np.round(rng.random(40), 1), rng.random(40) < 0.3
        positive[0] = True
        assert average_precision(score, positive) == pytest.approx(average_precision_score(positive, score), abs=1e-12)


def test_thresholds_against_every_threshold() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        score, positive = np.round(rng.random(25), 1), rng.random(25) < 0.5
        positive[:2] = True, False
        best = {"f1": 0.0, "accuracy": 0.0}
        for threshold in [*np.unique(score), 2.0]:
            said = score >= threshold
            right = (said & positive).sum()
            best["f1"] = max(best["f1"], 2 * right / (said.sum() + positive.sum()))
            best["accuracy"] = max(best["accuracy"], (said == positive).mean())
        found = best_threshold(score, positive)
        said = score >= found["cosine"]
        assert found["f1"] == pytest.approx(best["f1"])
        assert found["precision"] == pytest.approx((said & positive).sum() / said.sum())
        assert found["recall"] == pytest.approx((said & positive).sum() / positive.sum())
        found = best_accuracy(score, positive)
        assert found["accuracy"] == pytest.approx(best["accuracy"])
        assert ((score >= found["cosine"]) == positive).mean() == pytest.approx(best["accuracy"])


def test_triplets_are_those_of_sentence_transformers(encoder: Encoder, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.evaluation import TripletEvaluator

    columns = [sentences(70, seed) for seed in (5, 6, 7)]
    found = run(TripletAccuracy(path=write(tmp_path / "a.csv", "anchor positive negative",
                                           list(zip(*columns, strict=True)))), encoder)
    theirs = stock(TripletEvaluator(*columns), encoder)
    assert found["triplet_accuracy"] == pytest.approx(theirs["cosine_accuracy"], abs=1e-6)
    low, high = found["triplet_accuracy_ci95"]
    assert low < found["triplet_accuracy"] < high
    assert all(each["margin"] <= 0 for each in found["lost"])


def test_triplets_come_from_nli_rows_and_from_several_negatives(encoder: Encoder, tmp_path: Path) -> None:
    left, right = sentences(20, 8), sentences(60, 9)
    rows = [(premise, right[3 * number + turn], label) for number, premise in enumerate(left)
            for turn, label in enumerate(("entailment", "neutral", "contradiction"))]
    found = run(TripletAccuracy(path=write(tmp_path / "nli.csv", "premise hypothesis label", rows)), encoder)
    assert found["n"] == 20
    three = [(anchor, right[number], right[number + 20], right[number + 40]) for number, anchor in enumerate(left)]
    both = run(TripletAccuracy(path=write(tmp_path / "t.csv", "anchor positive negative negative_2", three)), encoder)
    one = [run(TripletAccuracy(path=write(tmp_path / "t.csv", "anchor positive negative",
                                          [(a, p, (n, m)[which]) for a, p, n, m in three])), encoder)
           for which in (0, 1)]
    assert both["triplet_accuracy"] <= min(each["triplet_accuracy"] for each in one)


def test_a_collapsed_model_finds_nothing(tmp_path: Path) -> None:
    class Collapsed(WordSum):
        def encode(self, texts: list[str]) -> np.ndarray:
            return np.ones((len(texts), 8), np.float32)

    titles = sentences(60, 13)
    path = write(tmp_path / "a.csv", "title label description",
                 [(title, "first" if number < 30 else "second", f"{title} x") for number, title in enumerate(titles)])
    for task, measure in ((LabelledRetrieval(path=path), "precision@10"), (KnownItem(path=path), "mrr@10")):
        assert run(task, Collapsed())[measure] == 0
    path = write(tmp_path / "t.csv", "anchor positive negative", list(zip(titles, titles[1:] + titles[:1], titles[2:]
                                                                          + titles[:2], strict=True)))
    assert run(TripletAccuracy(path=path), Collapsed())["triplet_accuracy"] == 0


def softmax_head(*labels: str) -> LossSet:
    return LossSet({"": {"_target_": "losses.softmax.Softmax", "dim": 32, "labels": list(labels)}})


def test_a_saved_head_is_loaded_and_its_confusion_counted(encoder: Encoder, tmp_path: Path) -> None:
    torch.manual_seed(0)
    losses = softmax_head("contradiction", "entailment", "neutral")
    loss = losses[""]
    save_model(tmp_path / "model", encoder.model, losses)
    head = load_head(tmp_path / "model", 32)
    left, right = sentences(60, 14), sentences(60, 15)
    gold = [("contradiction", "entailment", "neutral")[number % 3] for number in range(60)]
    path = write(tmp_path / "nli.csv", "premise hypothesis label", list(zip(left, right, gold, strict=True)))
    found = run(NLI(path=path), encoder, head)
    u, v = (torch.from_numpy(encoder.encode(texts)) for texts in (left, right))
    with torch.no_grad():
        logits = torch.nn.functional.linear(torch.cat([u, v, (u - v).abs()], dim=1), loss.classifier.weight,
                                            loss.classifier.bias)
    expected = [loss.labels[number] for number in logits.argmax(dim=1)]
    assert found["accuracy"] == pytest.approx(np.mean([a == b for a, b in zip(gold, expected, strict=True)]))
    names, matrix = found["confusion"]["labels"], np.array(found["confusion"]["gold_by_predicted"])
    for row, name in enumerate(names):
        for column, other in enumerate(names):
            assert matrix[row, column] == sum(a == name and b == other for a, b in zip(gold, expected, strict=True))
    assert load_head(tmp_path, 32) is None and load_head(None, 32) is None
    with pytest.raises(UserError, match="is not the head"):
        load_head(tmp_path / "model", 16)


def test_a_heads_accuracy_is_that_of_sentence_transformers(encoder: Encoder, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.evaluation import LabelAccuracyEvaluator
    from sentence_transformers.sentence_transformer.losses import SoftmaxLoss
    from sentence_transformers.sentence_transformer.readers import InputExample
    from torch.utils.data import DataLoader

    torch.manual_seed(1)
    names = ["contradiction", "entailment", "neutral"]
    ours = softmax_head(*names)
    theirs = SoftmaxLoss(encoder.model, embedding_dimension=32, num_labels=3)
    theirs.classifier.load_state_dict(ours[""].classifier.state_dict())
    left, right = sentences(60, 18), sentences(60, 19)
    gold = [names[number % 3] for number in range(60)]
    path = write(tmp_path / "nli.csv", "premise hypothesis label", list(zip(left, right, gold, strict=True)))
    save_model(tmp_path / "model", encoder.model, ours)
    found = run(NLI(path=path), encoder, load_head(tmp_path / "model", 32))["accuracy"]
    rows = [InputExample(texts=[u, v], label=names.index(name)) for u, v, name in zip(left, right, gold, strict=True)]
    loader = DataLoader(rows, batch_size=16)
    stock_accuracy = LabelAccuracyEvaluator(loader, softmax_model=theirs, write_csv=False)(encoder.model)["accuracy"]
    assert found == pytest.approx(stock_accuracy, abs=1e-6)


def test_a_task_without_its_head_is_skipped_and_named(encoder: Encoder) -> None:
    tasks = {"nli": NLI(sample="en"), "titles": LabelledRetrieval(sample="en")}
    report = evaluate(encoder, tasks, None, resamples=20, deep=False)
    assert list(report.json["tasks"]) == ["titles"] and "no head" in report.json["skipped"]["nli"]
    with pytest.raises(UserError, match=r"nli: .*no head.*loss=softmax"):
        evaluate(encoder, {"nli": tasks["nli"]}, None)
    # What the baseline can't do is not compared; what both can, is.
    with_head = evaluate(encoder, tasks, None, resamples=20, deep=False, baseline=report,
                         head=lambda u, v: ["neutral"] * len(u))
    assert list(with_head.json["tasks"]) == ["nli", "titles"]
    assert list(with_head.json["baseline"]["tasks"]) == ["titles"]
    assert set(with_head.json["averages"]) == {"accuracy", "precision@10"}


@pytest.mark.parametrize(("task", "columns", "rows", "says"), [
    (BinaryPairs, "sentence1 sentence2 score", [("a", "b", "0.5")], r"row 1, column score: 0.5 is not 0 or 1; .*="),
    (BinaryPairs, "sentence1 sentence2 score", [("a", "b", "3")], r"row 1, column score: 3 is not 0 or 1; .*suite="),
    (BinaryPairs, "sentence1 sentence2 score", [("a", "b", "1")] * 12, r"'score' holds 1 in every row"),
    (BinaryPairs, "sentence1 sentence2 score", [("a", "b", "1")] * 4, r"has 4 rows"),
    (BinaryPairs, "sentence1 sentence2 score", [("a", " ", "1")] * 12, r"line 2 .*column sentence2: is empty"),
    (TripletAccuracy, "anchor positive", [("a", "b")] * 12, r"no column 'negative'"),
    (TripletAccuracy, "anchor positive negative", [("a", "b", "c")] * 4, r"has 4 triplets"),
    (NLI, "premise hypothesis label", [("a", "b", "neutral")] * 4, r"has 4 rows"),
    (LabelledRetrieval, "title label", [(f"a {number}", "x") for number in range(12)], r"'label' holds 'x'"),
    (LabelledRetrieval, "title label", [("a", "x"), ("a", "x")] * 12, r"has 1 titles"),
    (KnownItem, "title label", [("a", "x")] * 12, r"no column 'description'"),
])
def test_bad_files_are_named(tmp_path: Path, task: type, columns: str, rows: list[tuple], says: str) -> None:
    with pytest.raises(UserError, match=r"a\.csv.*" + says):
        task(path=write(tmp_path / "a.csv", columns, rows)).read(None)


@pytest.mark.parametrize("task", ["binary", "triplets", "titles", "nli"])
def test_vectors_that_are_no_numbers_are_refused(tmp_path: Path, task: str) -> None:
    class Diverged(WordSum):
        def encode(self, texts: list[str]) -> np.ndarray:
            return np.full((len(texts), 8), np.nan, np.float32)

    pairs = list(zip(sentences(12, 16), sentences(12, 17), [0, 1] * 6, strict=True))
    made = {"binary": lambda: BinaryPairs(path=write(tmp_path / "a.csv", "sentence1 sentence2 score", pairs)),
            "triplets": lambda: TripletAccuracy(sample="en"), "titles": lambda: LabelledRetrieval(sample="zh"),
            "nli": lambda: NLI(sample="zh")}[task]()
    with pytest.raises(UserError, match="NaN or infinite vectors"):
        run(made, Diverged(), lambda u, v: ["neutral"] * len(u))


def test_suites_compose_and_one_page_holds_every_kind_of_task(command: Callable, tmp_path: Path, encoder: Encoder,
                                                              real_data: Path) -> None:
    save_model(tmp_path / "m", encoder.model, softmax_head("contradiction", "entailment", "neutral"))
    without = [f"suite.{name}-match=null" for name in ("bq-test", "lcqmc-dev", "afqmc-dev")]
    done = command("eval", f"model={tmp_path / 'm'}", "suite=[sample_all,pairs_zh]", f"data_dir={real_data}", *without,
                   "resamples=50", "output=out")
    assert done.code == 0, done.err
    about = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert list(about["tasks"]) == ["sample-en-dev", "sample-en-nli", "sample-en-triplets", "sample-en-titles",
                                    "pawsx-zh-test-match"]
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for said in ("Confusion", "Lost by the most", "By category", "Best thresholds", "How far to trust it", "Geometry"):
        assert said in html
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    for row in about["tasks"].values():
        assert f"{100 * row[row['measure']]:.2f}" in text and f"{100 * row[row['measure']]:.2f}" in html


def test_mteb_is_asked_for_by_name(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    mteb = pytest.importorskip("mteb", reason="mteb is not installed; its tasks were not run")
    from mteb.mocks import mock_tasks

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match="MTEB has no task 'NoSuchTask'"):
            MTEB(name="NoSuchTask").locate(None)
        # Its data is on the hub: a task that carries its own stands in for one.
        monkeypatch.setattr(mteb, "get_task", lambda name: getattr(mock_tasks, name)())
        tasks = {"sts": MTEB(name="MockSTSTask"), "titles": LabelledRetrieval(sample="en")}
        before = evaluate(encoder, tasks, None, resamples=20)
        report = evaluate(encoder, tasks, None, resamples=20, baseline=before)
    row = report.json["tasks"]["sts"]
    assert -1 <= row["mteb_main_score"] <= 1 and row["mteb_main_score_ci95"] is None
    assert report.json["baseline"]["tasks"]["sts"]["delta"] == 0
    assert all("MTEB" in form for form in (page(report), Report(report).markdown(), str(Report(report))))


def test_mteb_is_named_where_it_is_missing() -> None:
    if find_spec("mteb"):
        pytest.skip("mteb is installed")
    with pytest.raises(UserError, match="STSBenchmark needs the package mteb; pip install mteb"):
        MTEB(name="STSBenchmark").locate(None)
