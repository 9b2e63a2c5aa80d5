"""What training files mean: the range of their scores, labels without a gold label, lists of passages, BEIR folders."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TINY, Done

from sentence_forge.data_readers.file import FileSource
from sentence_forge.data_readers.hub import HubSource
from sentence_forge.runtime.errors import UserError

Command = Callable[..., Done]


def scored(path: Path, scores: Sequence[object]) -> Path:
    path.write_text(
        "sentence1,sentence2,score\n" + "".join(f"red boat {at},a boat {at},{each}\n" for at, each in enumerate(scores))
    )
    return path


@pytest.mark.parametrize(
    ("scores", "found"),
    [
        ([0.0, 0.2, 0.55, 0.8, 1.0], (0, 1)),
        ([0, 1], (0, 1)),
        ([0.12, 0.3, 0.93], (0, 1)),
        ([-1, 0, 1], (-1, 1)),
        ([-0.3, 0.2, 0.9], (-1, 1)),
        ([0, 1.25, 3.4, 5], (0, 5)),
        ([0.4, 2, 4.8], (0, 5)),
        ([1, 2, 3, 4, 5], (1, 5)),
        ([1.0, 3.5, 4.9], (1, 5)),
    ],
)
def test_the_range_of_scores_is_found_said_and_used(
    scores: list[float], found: tuple[float, float], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = scored(tmp_path / "a.csv", scores * 8)
    source = FileSource(path)
    low, high = found
    rows = [*source.read("pair_score", "train"), *source.read("pair_score", "dev")]
    expected = [score if low < 0 else (score - low) / (high - low) for score in scores * 8]
    assert [row["score"] for row in sorted(rows, key=lambda row: row["row"])] == pytest.approx(expected)
    assert caplog.text.count(f"are read as {low} to {high} (data.score_range= overrides it)") == 1
    assert source.detected() == {str(path): {"score_range": [low, high]}}


@pytest.mark.parametrize(
    ("scores", "types"),
    [
        ([0, 1, 2, 3, 4], "score_range=[0,4] or data.score_range=[0,5]"),
        ([0, 0.1, 0.4], "score_range=[0,1] or data.score_range=[0,5]"),
        ([0, 20, 100], "score_range=[0,100]"),
        ([1, 5, 10], "score_range=[1,10]"),
        ([2.2, 4.8], "score_range=[0,5] or data.score_range=[1,5]"),
        ([-5, 5], "score_range=[-5,5]"),
        ([1, 1], "score_range=[0,1]"),
    ],
)
def test_a_range_that_cannot_be_told_is_refused_and_the_advice_works(
    scores: list[float], types: str, tmp_path: Path
) -> None:
    path = scored(tmp_path / "a.csv", scores * 8)
    with pytest.raises(UserError) as caught:
        FileSource(path).read("pair_score", "train")
    assert f"data.{types}" in str(caught.value) and "\n" not in str(caught.value)
    for typed in types.split(" or "):
        given = json.loads(typed.rpartition("=")[2])
        made = FileSource(path, score_range=given).read("pair_score", "train")["score"][:]
        assert 0 <= min(made) <= max(made) <= 1


def test_dev_has_the_range_of_train(tmp_path: Path) -> None:
    train = scored(tmp_path / "train.csv", [0, 1, 5] * 4)
    dev = scored(tmp_path / "dev.csv", [0, 4, 2] * 4)
    assert max(FileSource(train, dev_path=dev).read("pair_score", "dev")["score"]) == 0.8
    for other in ([0, 0.5, 1], [0, 50, 100]):
        scored(dev, other * 4)
        with pytest.raises(
            UserError, match=r"dev\.csv: its scores go from 0 to .* but those of .*train\.csv from 0 to 5"
        ):
            FileSource(train, dev_path=dev).read("pair_score", "dev")


def test_a_given_range_that_the_scores_do_not_reach_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = scored(tmp_path / "a.csv", [0, 0.5, 1] * 8)
    assert max(FileSource(path, score_range=(0, 5)).read("pair_score", "train")["score"]) == 0.2
    assert "its highest score is 1, though data.score_range is 0 to 5" in caplog.text
    caplog.clear()
    scored(path, [0, 2, 4] * 8)
    FileSource(path, score_range=(0, 5)).read("pair_score", "train")
    assert not caplog.text


def test_a_large_file_has_the_range_of_all_its_rows(tmp_path: Path) -> None:
    path = scored(tmp_path / "a.csv", [*([0.25, 0.75] * 3000), 5])
    source = FileSource(path, on_disk=True)
    assert max(source.read("pair_score", "train")["score"]) in (0.15, 1.0)
    assert source.detected()[str(path)]["score_range"] == [0.0, 5.0]
    assert {round(score, 6) for score in source.read("pair_score", "train")["score"]} <= {0.05, 0.15, 1.0}


def test_the_hubs_scores_and_lists_are_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "sts").mkdir()
    datasets.Dataset.from_dict(
        {"sentence1": ["a", "b", "c"], "sentence2": ["d", "e", "f"], "score": [0.0, 2.5, 5.0]}
    ).to_parquet(str(tmp_path / "sts" / "train.parquet"))
    rows = HubSource(tmp_path / "sts").read("pair_score", "train")
    assert set(rows["score"]) <= {0.0, 0.5, 1.0}
    (tmp_path / "bge").mkdir()
    datasets.Dataset.from_dict({"query": ["q1", "q2"], "pos": [["p"], ["r", "s"]], "neg": [["n"], ["m"]]}).to_parquet(
        str(tmp_path / "bge" / "train.parquet")
    )
    source = HubSource(tmp_path / "bge", negatives=0)
    rows = [*source.read("pair", "train"), *source.read("pair", "dev")]
    assert sorted((row["anchor"], row["positive"]) for row in rows) == [("q1", "p"), ("q2", "r"), ("q2", "s")]


# --- labels ---

NLI = "premise,hypothesis,label\n"


@pytest.mark.parametrize(
    "labels", [("0", "1", "2", "-1"), ("0.0", "1.0", "2.0", "-1.0"), ("entailment", "neutral", "contradiction", "-")]
)
def test_rows_without_a_gold_label_are_left_out_and_said(
    labels: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(NLI + "".join(f"premise {at},text {at},{labels[at % 4]}\n" for at in range(12)))
    rows = FileSource(path, dev_path=path).read("pair_class", "train")
    assert rows["label"][:] == ["entailment", "neutral", "contradiction"] * 3
    assert rows["row"][:] == [1, 2, 3, 5, 6, 7, 9, 10, 11]
    label = labels[3].removesuffix(".0")
    assert f"3 of 12 rows are labelled {label} (no gold label) and are left out; the first, line 5" in caplog.text


def test_the_advice_of_an_unknown_label_works_when_typed(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        NLI + "".join(f"premise {at // 3},text {at},{(0, 1, 2)[at % 3]}\n" for at in range(60)) + "p,q,3\nr,s,7\n"
    )
    run = ["train", "loss=softmax", "data=a.csv", *TINY, "loop.max_steps=1"]
    refused = command(*run)
    assert refused.code == 2
    assert "a.csv, line 62 (row 61), column label: label '3' is not one of 0, 1, 2" in refused.err
    skipped = command(*run, "data.on_bad_row=skip", "hydra.run.dir=one")
    assert skipped.code == 0 and skipped.err.count("2 of 62 rows are left out") == 1
    assert skipped.err.count("labels 0, 1, 2 are read as") == 1
    typed = refused.err.partition("as 'data.labels=")[2].partition("'")[0]
    named = command(*run, f"data.labels={typed}", "hydra.run.dir=two")
    assert named.code == 0, named.err
    assert named.err.count("2 of 62 rows are labelled 3, 7 and are left out") == 1


# --- lists of passages ---

LISTS = [
    {"query": "q1", "pos": ["p1", "p2"], "neg": ["n1", "n2", "n3"]},
    {"query": "q2", "pos": ["p3"], "neg": ["n4"]},
    {"query": "q3", "pos": ["p4"], "neg": []},
]
TEVATRON = [
    {
        "query_id": str(at),
        "query": each["query"],
        "positive_passages": [{"docid": "d", "title": "", "text": text} for text in each["pos"]],
        "negative_passages": [{"docid": "e", "title": "T", "text": text} for text in each["neg"]],
    }
    for at, each in enumerate(LISTS)
]


def lines(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def found(source: FileSource, shape: str) -> list[tuple[str, ...]]:
    rows = source.read(shape, "train")
    return [tuple(row[name] for name in rows.column_names) for row in rows]


def test_each_positive_of_a_list_is_a_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = lines(tmp_path / "a.jsonl", LISTS)
    source = FileSource(path, dev_path=path)
    assert source.shapes() == ["triplet"]
    assert found(source, "triplet") == [
        ("q1", "p1", "n1", 1),
        ("q1", "p2", "n2", 1),
        ("q2", "p3", "n4", 2),
        ("q3", "p4", "p3", 3),
    ]
    assert "1 queries have no negative of their own; each takes a positive of another query" in caplog.text
    two = FileSource(path, dev_path=path, negatives=2)
    assert found(two, "triplet")[:3] == [
        ("q1", "p1", "n1", "n2", 1),
        ("q1", "p2", "n3", "n1", 1),
        ("q2", "p3", "n4", "n4", 2),
    ]
    pairs = FileSource(path, dev_path=path, negatives=0)
    assert found(pairs, "pair") == [("q1", "p1", 1), ("q1", "p2", 1), ("q2", "p3", 2), ("q3", "p4", 3)]


def test_tevatron_parquet_and_other_names_give_the_same(tmp_path: Path) -> None:
    expected = [("q1", "p1", "n1", 1), ("q1", "p2", "n2", 1), ("q2", "p3", "n4", 2), ("q3", "p4", "p3", 3)]
    pq.write_table(pa.Table.from_pylist(LISTS), tmp_path / "a.parquet")
    others = [{"anchor": row["query"], "positive": row["pos"][0], "negatives": row["neg"]} for row in LISTS]
    named = [{"frage": row["query"], "gut": row["pos"], "schlecht": row["neg"]} for row in LISTS]
    assert found(FileSource(tmp_path / "a.parquet", dev_path=tmp_path / "a.parquet"), "triplet") == expected
    path = lines(tmp_path / "t.jsonl", TEVATRON)
    assert found(FileSource(path, dev_path=path), "triplet") == [
        (query, positive, negative if negative == "p3" else f"T {negative}", row)
        for query, positive, negative, row in expected
    ]
    path = lines(tmp_path / "o.json", others)
    assert found(FileSource(path, dev_path=path), "triplet") == [expected[0], *expected[2:]]
    path = lines(tmp_path / "n.jsonl", named)
    columns = {"anchor": "frage", "positive": "gut", "negative": "schlecht"}
    assert found(FileSource(path, dev_path=path, columns=columns), "triplet") == expected


def test_a_bad_list_is_a_bad_row(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "a.jsonl",
        [LISTS[0], {"query": "q", "pos": [], "neg": []}, {"query": "q", "pos": [3.5, None], "neg": []}],
    )
    with pytest.raises(UserError, match=r"line 2 \(row 2\): has no text in pos"):
        FileSource(path, dev_path=path).read("triplet", "train")
    source = FileSource(path, dev_path=path, on_bad_row="skip")
    assert len(source.read("triplet", "train")) == 2
    assert [bad.number for bad in source.rejected()[path]] == [2, 3]
    with pytest.raises(UserError, match=r"has no text|has no negative"):
        alone = lines(tmp_path / "b.jsonl", [LISTS[2]])
        FileSource(alone, dev_path=alone).read("triplet", "train")


def test_lists_train_as_typed(command: Command, tmp_path: Path) -> None:
    rows = [
        {"query": f"question {at}", "pos": [f"answer {at}", f"reply {at}"], "neg": [f"other {at}"] * (at % 3)}
        for at in range(40)
    ]
    lines(tmp_path / "a.jsonl", rows)
    done = command(
        "train", "loss=mnrl", "data=a.jsonl", "data.negatives=2", *TINY, "loop.max_steps=2", "hydra.run.dir=run"
    )
    assert done.code == 0, done.err
    assert "72 training rows (triplet), 8 for dev" in done.err


def test_a_folder_of_corpus_queries_and_judgements(tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    lines(
        folder / "corpus.jsonl",
        [{"_id": f"d{at}", "title": "T" if at == 1 else "", "text": f"text {at}"} for at in range(40)],
    )
    lines(folder / "queries.jsonl", [{"_id": f"q{at}", "text": f"query {at}"} for at in range(40)])
    (folder / "qrels" / "train.tsv").write_text(
        "query-id\tcorpus-id\tscore\n"
        + "".join(f"q{at}\td{at}\t{1 + at % 2}\nq{at}\td{(at + 7) % 40}\t0\n" for at in range(30))
        + "q1\td5\t1\n"
    )
    (folder / "qrels" / "dev.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{at}\td{at}\t1\n" for at in range(30, 40))
    )
    source = FileSource(folder, negatives=0)
    pairs = found(source, "pair")
    assert len(pairs) == 31 and ("query 1", "T text 1", 2) in pairs and ("query 1", "text 5", 2) in pairs
    assert len(source.read("pair", "dev")) == 10
    assert found(FileSource(folder), "triplet")[0] == ("query 0", "text 0", "text 7", 1)
    done = command("train", "loss=mnrl", "data=beir", *TINY, "loop.max_steps=1", "hydra.run.dir=run")
    assert done.code == 0, done.err
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq0\tgone\t1\nq1\td1\t1\n")
    with pytest.raises(UserError, match=r"corpus\.jsonl has no 'gone'"):
        FileSource(folder, negatives=0).read("pair", "train")


def test_a_dev_file_of_other_columns_is_one_line(tmp_path: Path) -> None:
    train, dev = scored(tmp_path / "train.csv", [0, 5] * 4), tmp_path / "dev.csv"
    dev.write_text("anchor,positive\na,b\n")
    source = FileSource(train, dev_path=dev)
    assert len(source.read("pair_score", "train")) == 8
    with pytest.raises(UserError, match=r"dev\.csv: has the columns of pair, but .*train\.csv those of pair_score"):
        source.read("pair_score", "dev")


def test_a_list_that_the_first_row_lacks_is_one_all_the_same(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{"query": "q1", "pos": ["p1"]}, LISTS[1]])
    assert found(FileSource(path, dev_path=path), "triplet") == [("q2", "p3", "n4", 2), ("q1", "p1", "p3", 1)][::-1]
    with pytest.raises(UserError, match=r"data\.negatives is -1"):
        FileSource(path, negatives=-1).shapes()
