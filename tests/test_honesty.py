"""What a report says beside its numbers: failures, slices, overlap with the training, geometry, significance."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from scipy import stats as reference
from test_eval import WordSum, write_pairs

from sentence_forge.data_readers.training_hashes import FILE, Seen, hashes_of, remember
from sentence_forge.eval.evaluate import evaluate
from sentence_forge.eval.failures import negation_flips, number_flips, overlap, rank_errors
from sentence_forge.eval.geometry import anisotropy, calibrate, uniformity
from sentence_forge.eval.report.formatting import change
from sentence_forge.eval.report.sentences import story
from sentence_forge.eval.significance import steiger, williams
from sentence_forge.eval.tasks.sts import ScoredPairs


# Published worked examples of the two tests.
def test_williams_is_howells_example() -> None:
    # Howell, Statistical Methods for Psychology, 6th ed., p. 262, as computed by B. Weaver's Williams1959.sps
    # (https://imaging.mrc-cbu.cam.ac.uk/statswiki/FAQ/Will): t = 1.361, 23 degrees of freedom, p = .187.
    found = williams(0.80, 0.72, 0.89, 26)
    assert (round(found.statistic, 3), found.df, round(found.p, 3)) == (1.361, 23, 0.187)


def test_williams_and_steiger_are_those_of_cocor() -> None:
    # The vignette of the R package rmcorr prints cocor (Diedenhofen and Musch, 2015) for r.jk = 0.8066, r.jh = 0.2383,
    # r.kh = 0.2255, n = 177: Williams' t = 9.3823 with df = 174; Steiger's z = 8.5460. Inputs are rounded there.
    t, z = williams(0.8066, 0.2383, 0.2255, 177), steiger(0.8066, 0.2383, 0.2255, 177)
    assert t.statistic == pytest.approx(9.3823, abs=2e-3) and t.df == 174
    assert z.statistic == pytest.approx(8.5460, abs=2e-3)


def test_the_tests_hold_their_level_and_see_what_is_there() -> None:
    rng = np.random.default_rng(0)
    rejected = {"t": 0, "z": 0}
    for _ in range(400):
        gold = rng.normal(size=80)
        common = gold + rng.normal(size=80)
        a, b = common + rng.normal(size=80), common + rng.normal(size=80)
        three = (np.corrcoef(a, gold)[0, 1], np.corrcoef(b, gold)[0, 1], np.corrcoef(a, b)[0, 1], 80)
        rejected["t"] += williams(*three).p < 0.05
        rejected["z"] += steiger(*three).p < 0.05
    assert all(0.02 <= count / 400 <= 0.08 for count in rejected.values())
    assert williams(0.9, 0.5, 0.4, 200).p < 1e-6 > steiger(0.9, 0.5, 0.4, 200).p
    for same in (williams(0.7, 0.7, 1.0, 50), steiger(0.7, 0.7, 1.0, 50), steiger(1.0, 0.7, 0.7, 50)):
        assert (same.statistic, same.p) == (0.0, 1.0)


# Where it fails.
@pytest.fixture
def failing(tmp_path: Path) -> dict:
    """A model that sees words alone, on pairs where words lead astray."""
    rows = [(f"the {word} sat on the mat today", f"the {word} sat on a mat again", 4) for word in "abcdefghij"]
    rows += [(f"a {word} ran far over there now", f"{word}{word} dogs bark", number / 10)
             for number, word in enumerate("klmnopqrst")]
    rows += [("the bill was passed by the house", "the bill was not passed by the house", 0.4),
             ("three men sat in the big red car", "seven men sat in the big red car", 1.2),
             ("prices climbed steeply", "everything became dearer", 4.6)]
    path = tmp_path / "pairs.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("sentence1", "sentence2", "score"), *rows])
    tasks = {"mine": ScoredPairs(path=str(path))}
    baseline = evaluate(WordSum(seed=3), tasks, None, resamples=50, deep=False)
    return dict(evaluate(WordSum(), tasks, None, resamples=50, baseline=baseline).json)


def test_the_worst_pairs_are_named_in_both_directions(failing: dict) -> None:
    found = failing["tasks"]["mine"]["failures"]
    sizes = [abs(pair["error"]) for pair in found]
    assert sizes == sorted(sizes, reverse=True)
    assert {pair["error"] > 0 for pair in found} == {True, False}
    too_low = next(pair for pair in found if pair["error"] < 0)
    assert (too_low["row"], too_low["text1"], too_low["gold"]) == (23, "prices climbed steeply", 4.6)
    assert {pair["row"] for pair in found if pair["error"] > 0} >= {21, 22}


def test_a_pair_that_repeats_is_shown_once(tmp_path: Path) -> None:
    rows = [("prices climbed", "all was dearer", 5)] * 15 + [(f"a {word} b", f"a {word} b c", number / 10)
                                                              for number, word in enumerate("klmnopqrst")]
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("sentence1", "sentence2", "score"), *rows])
    found = evaluate(WordSum(), {"a": ScoredPairs(path=str(path))}, None, resamples=20).json["tasks"]["a"]["failures"]
    assert len(found) == len({pair["text1"] for pair in found}) > 3


def test_rank_errors_and_changes_are_those_of_scipys_ranks(tmp_path: Path) -> None:
    tasks = {"a": ScoredPairs(path=str(write_pairs(tmp_path / "a.csv", rows=150)))}
    before = evaluate(WordSum(seed=7), tasks, None, resamples=20, deep=False)
    report = evaluate(WordSum(), tasks, None, resamples=20, baseline=before)
    now, then = (((reference.rankdata(each.cosine) - reference.rankdata(each.gold)) / 150)
                 for each in (report.results["a"], before.results["a"]))
    np.testing.assert_allclose(rank_errors(report.results["a"]), now, atol=1e-12)
    changed = report.json["baseline"]["tasks"]["a"]["changes"]
    gain = np.abs(then) - np.abs(now)
    assert changed[0]["change"] == pytest.approx(gain[np.argmax(np.abs(gain))], abs=1e-6)
    for pair in changed:
        assert pair["change"] == pytest.approx(gain[pair["row"] - 1], abs=1e-6)
        assert pair["error_before"] == pytest.approx(then[pair["row"] - 1], abs=1e-6)


def test_slices_tell_words_from_meaning(failing: dict) -> None:
    slices = failing["tasks"]["mine"]["slices"]
    assert slices["many words shared, not the meaning"]["bias"] > 0.2
    assert slices["few words shared, the same meaning"] == {"n": 1, "value": None,
                                                            "bias": pytest.approx(slices["few words shared, the same "
                                                                                         "meaning"]["bias"])}
    assert slices["few words shared, the same meaning"]["bias"] < -0.2
    assert slices["one side negated"]["n"] == 1 and slices["numbers differ"]["n"] == 1
    assert failing["baseline"]["tasks"]["mine"]["slices"]["one side negated"]["n"] == 1


@pytest.mark.parametrize(("left", "right", "negated", "numbers"), [
    ("He isn't here", "He is here", True, False), ("议会未批准预算", "议会批准了预算", True, False),
    ("天气非常特别", "天气很好", False, False), ("别去那里", "去那里", True, False),
    ("No one came", "Nobody came", False, False), ("Notable men", "Able men", False, False),
    ("It rose 3.5 percent", "It rose 3 percent", False, True), ("三人受伤", "五人受伤", False, True),
    ("It rose 3 percent", "It rose", False, False), ("two men", "two men", False, False),
])
def test_negation_and_numbers(left: str, right: str, negated: bool, numbers: bool) -> None:
    assert negation_flips((left, right)) == negation_flips((right, left)) == negated
    assert number_flips((left, right)) == number_flips((right, left)) == numbers


def test_overlap_is_of_words_and_of_chinese_characters() -> None:
    assert overlap(("The cat sat.", "the CAT ran")) == pytest.approx(2 / 4)
    assert overlap(("天气很好", "天气不好")) == pytest.approx(3 / 5)
    assert overlap(("...", "!!!")) <= 1


# Overlap with the training.
def test_training_rows_are_found_again_in_any_order_and_case() -> None:
    seen = Seen(hashes_of([("A cat.", "A dog!"), ("x", "y", "z"), ("a title alone",)]))
    units = [("A cat.", "A dog!"), ("a dog", "A CAT"), ("x", "z"), ("y", "z"), ("a title alone",), ("A title, alone",),
             ("A cat.", "z")]
    assert seen.exact(units).tolist() == [True, False, True, False, True, False, False]
    assert seen.normalised(units).tolist() == [True, True, True, False, True, True, False]
    assert seen.texts(["a cat", "Y", "never"]).tolist() == [True, True, False]
    assert len(np.unique(seen.hashes)) == len(seen.hashes)


def test_stages_add_up(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    remember(tmp_path / "one", [("a", "b")], None)
    remember(tmp_path / "two", [("c", "d")], tmp_path / "one")
    both = Seen.of(tmp_path / "two")
    assert both is not None and both.exact([("a", "b"), ("d", "c"), ("a", "d")]).tolist() == [True, True, False]
    assert Seen.of(tmp_path) is None and Seen.of(None) is None


def test_a_score_without_what_was_trained_on(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "a.csv", rows=60)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    trained = [(row["sentence2"].upper(), row["sentence1"]) for row in rows[:20]] + [(rows[20]["sentence1"],
                                                                                     rows[20]["sentence2"])]
    task = ScoredPairs(path=str(path))
    report = evaluate(WordSum(), {"a": task}, None, resamples=20, seen=Seen(hashes_of(trained)))
    row, result = report.json["tasks"]["a"], report.results["a"]
    known = row["honesty"]["trained_on"]
    texts = {text for each in rows for text in (each["sentence1"], each["sentence2"])}
    trained_on = {text for each in rows[:21] for text in (each["sentence1"], each["sentence2"])}
    assert (known["exact"], known["normalised"], known["texts"], known["of_texts"]) == (1, 21, len(texts & trained_on),
                                                                                             len(texts))
    assert known["without"]["n"] == 39
    assert known["without"]["value"] == pytest.approx(
        reference.spearmanr(result.cosine[21:], result.gold[21:]).statistic, abs=1e-12)
    assert row["honesty"]["duplicates"] == 0
    before = evaluate(WordSum(seed=4), {"a": task}, None, resamples=50, deep=False)
    held = evaluate(WordSum(), {"a": task}, None, resamples=50, seen=Seen(hashes_of(trained)), baseline=before)
    without = held.json["tasks"]["a"]["honesty"]["trained_on"]["without"]
    assert without["before"] == pytest.approx(
        reference.spearmanr(before.results["a"].cosine[21:], result.gold[21:]).statistic, abs=1e-12)
    assert without["delta_ci95"][0] <= without["delta"] == without["value"] - without["before"]
    assert f"trained on 21 of the test rows; without them: {change(without['delta'])} Spearman" in story(held.json)
    plain = evaluate(WordSum(), {"a": task}, None, resamples=20).json
    assert plain["tasks"]["a"]["honesty"]["trained_on"] is None and plain["trained_on"] is None


def test_two_stages_train_export_and_are_found_in_a_test(command: Callable, tmp_path: Path) -> None:
    sample = Path("data_readers/sample/en")
    root = Path(__file__).parent.parent / sample
    assert command("train", "loss=mnrl", *TINY, "loop.max_steps=2", "hydra.run.dir=one").code == 0
    done = command("train", "loss=cosine", "model=one", "loop.projector=0", "loop.max_steps=2", "hydra.run.dir=two")
    assert done.code == 0, done.err
    about = json.loads((tmp_path / "two" / "model" / "sentence_forge.json").read_text(encoding="utf-8"))
    stages = [*about["earlier"], about["training"]]
    assert [stage["loss"] for stage in stages] == ["MultipleNegativesRanking", "Cosine"]
    # Stage two was trained on the sample's scored train pairs, stage one on its NLI: both are found.
    shutil.copy(root / "sts_train.csv", tmp_path / "train_pairs.csv")
    done = command("eval", "model=two", "suite=file", "file=train_pairs.csv", "resamples=50", "output=out")
    assert done.code == 0, done.err
    row = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["tasks"]["file"]
    assert row["honesty"]["trained_on"]["exact"] == row["n"]
    assert row["honesty"]["trained_on"]["without"] == {"n": 0, "value": None}
    with (root / "nli_train.csv").open(newline="", encoding="utf-8") as file:
        entailed = [each for each in csv.DictReader(file) if each["label"] == "entailment"][:20]
    with (tmp_path / "nli_pairs.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("sentence1", "sentence2", "score"), *(
            (each["hypothesis"], each["premise"], number % 6) for number, each in enumerate(entailed))])
    assert command("eval", "model=two", "suite=file", "file=nli_pairs.csv", "resamples=50", "output=nli").code == 0
    row = json.loads((tmp_path / "nli" / "report.json").read_text(encoding="utf-8"))["tasks"]["file"]
    assert row["honesty"]["trained_on"]["exact"] == 20
    done = command("export", "model=two", "out=exported")
    assert done.code == 0, done.err
    assert (tmp_path / "exported" / "model" / FILE).read_bytes() == (tmp_path / "two" / "model" / FILE).read_bytes()
    marks = json.loads((tmp_path / "exported" / "manifest.json").read_text(encoding="utf-8"))["marks"]
    assert marks["measured_on"] in ("sample-en-dev", "stsb-dev") and 0 < marks["same"]["precision"] <= 1


# Geometry.
def test_uniformity_and_anisotropy_against_loops() -> None:
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(40, 6)) + 0.5
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    pairs = [(unit[i], unit[j]) for i in range(40) for j in range(40) if i != j]
    assert anisotropy(unit) == pytest.approx(np.mean([a @ b for a, b in pairs]))
    assert uniformity(unit) == pytest.approx(np.log(np.mean([np.exp(-2 * ((a - b) ** 2).sum()) for a, b in pairs])))


def test_alignment_and_positives_of_a_task(tmp_path: Path) -> None:
    report = evaluate(WordSum(), {"a": ScoredPairs(path=str(write_pairs(tmp_path / "a.csv", rows=120)))}, None,
                      resamples=20)
    found, result = report.json["tasks"]["a"]["geometry"], report.results["a"]
    positive = result.gold >= 4
    assert found["alignment"] == pytest.approx(np.mean(2 - 2 * result.cosine[positive]))
    assert found["positives"]["n"] == positive.sum() and found["negatives"]["n"] == (result.gold <= 1).sum()
    said = result.cosine >= found["threshold"]["cosine"]
    assert found["threshold"]["precision"] == pytest.approx((said & positive).sum() / said.sum())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_marks_are_calibrated_on_the_sample_where_there_is_no_other(language: str, tmp_path: Path) -> None:
    marks = calibrate(WordSum(), tmp_path, language)
    assert marks["measured_on"] == f"sample-{language}-dev" and marks["n"] >= 50
    assert -1 <= marks["related"]["cosine"] <= marks["same"]["cosine"] <= 1


# Several models, several seeds.
def test_models_and_seeds_in_one_table(command: Callable, tmp_path: Path) -> None:
    for seed in (1, 2):
        assert command("train", "loss=cosine", *TINY, "loop.max_steps=2", f"seed={seed}",
                       f"hydra.run.dir=s{seed}").code == 0
    done = command("eval", "model=s1", "baseline=s2", "models=[s2,minilm]", "suite=sample", "resamples=50",
                   "+suite.titles={_target_: eval.tasks.retrieval.LabelledRetrieval, sample: en}", "output=out")
    assert done.code == 0, done.err
    about = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert [row["model"] for row in about["models"]] == ["s2", "s1", "s2", "sentence-transformers/all-MiniLM-L6-v2"]
    values = [row["tasks"]["sample-en-dev"]["value"] for row in about["models"][1:3]]
    (seeds,) = about["seeds"]
    assert seeds["seeds"] == [1, 2]
    assert seeds["tasks"]["sample-en-dev"] == {"mean": pytest.approx(np.mean(values)),
                                               "sd": pytest.approx(np.std(values, ddof=1))}
    assert about["models"][2]["tasks"]["sample-en-dev"]["delta"] == 0
    also = [row["tasks"]["titles"].get("also") for row in about["models"]]
    assert also[1] == {name: about["tasks"]["titles"][name] for name in ("ndcg@10", "mrr@10")} != also[3]
    assert not any("also" in row["tasks"]["sample-en-dev"] for row in about["models"])
    assert "2 seeds" in done.err and "2 seeds" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "s1" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    done = command("eval", "model=s1", "models=[nowhere]", "output=bad")
    assert done.code == 2 and "nowhere" in done.err and not (tmp_path / "bad").exists()
    (tmp_path / "empty").mkdir()
    done = command("eval", "model=empty", "output=bad")
    assert done.code == 2 and "empty: is no model" in done.err
