"""Training files larger than memory: the same rows as in memory, without the memory."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Done

from sentence_forge.data_readers import on_disk, training_hashes
from sentence_forge.data_readers.file import FileSource
from sentence_forge.data_readers.hub import HubSource
from sentence_forge.data_readers.lazy import rows_of
from sentence_forge.data_readers.sample import sample_path
from sentence_forge.runtime.cache import ROOT
from sentence_forge.runtime.errors import UserError
from sentence_forge.train import split
from sentence_forge.train.split import Split, distinct

REPOSITORY = Path(__file__).parent.parent
Command = Callable[..., Done]


@pytest.fixture(autouse=True)
def small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOT, str(tmp_path / "cache"))
    monkeypatch.setattr(on_disk, "_BLOCK", 7)


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def both(path: Path, dev: Path) -> tuple[FileSource, FileSource]:
    return FileSource(path, dev, on_disk=True), FileSource(path, dev, on_disk=False)


@pytest.mark.parametrize(("name", "dev", "shapes"), [
    ("nli_train", "nli_dev", ["pair_class", "pair"]),
    ("sts_train", "sts_dev", ["pair_score"]),
    ("titles", "titles", ["labelled_text", "titles", "pair"]),
])
def test_the_rows_are_those_of_memory(name: str, dev: str, shapes: list[str]) -> None:
    for shape in shapes:
        large, small = (Split(source, shape, "train") for source in
                        both(sample_path("en", name), sample_path("en", dev)))
        assert large.dataset.cache_files and not small.dataset.cache_files  # memory-mapped, and not
        assert large.dataset.features == small.dataset.features
        assert large.dataset.to_list() == small.dataset.to_list()
        assert list(large.texts) == list(small.texts) and large.texts[3] == small.texts[3]
        assert large.texts[2:5] == small.texts[2:5] and len(large.texts) == len(small.texts)
        np.testing.assert_array_equal(large.text_ids, small.text_ids)
        np.testing.assert_array_equal(large.numbers, small.numbers)
        assert large.labels == small.labels


def test_the_losses_are_those_of_memory_to_the_bit(command: Command) -> None:
    losses = []
    for large in ("true", "false"):
        done = command("train", "loss=softmax", f"data={sample_path('en', 'nli_train')}", f"data.on_disk={large}",
                       f"data.dev_path={sample_path('en', 'nli_dev')}", *TINY, "loop.max_steps=3", "loop.log_every=1",
                       f"hydra.run.dir=run-{large}")
        assert done.code == 0, done.err
        lines = map(json.loads, Path(f"run-{large}", "metrics.jsonl").read_text().splitlines())
        losses.append([{key: value for key, value in line.items() if not key.startswith("speed/")} for line in lines])
    assert losses[0] == losses[1] and sum("train/loss" in line for line in losses[0]) == 3


def test_dev_rows_are_held_out_by_their_first_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(f"Anchor {number // 3}!", f"positive {number}") for number in range(600)]
    path = write(tmp_path / "pairs.csv", ["anchor", "positive"], rows)
    for most in (10_000, 20):
        monkeypatch.setattr(on_disk, "MOST_DEV", most)
        monkeypatch.setenv(ROOT, str(tmp_path / f"cache {most}"))
        parts = []
        for _ in range(2):
            source = FileSource(path, on_disk=True, dev_fraction=0.2)
            parts.append([[(row["row"], row["anchor"], row["positive"]) for row in source.read("pair", name)]
                          for name in ("train", "dev")])
        assert parts[0] == parts[1]
        train, dev = parts[0]
        assert sorted(train + dev) == [(number, *row) for number, row in enumerate(rows, 1)]
        assert not {row[1] for row in train} & {row[1] for row in dev}
        assert 60 < len(dev) < 180 if most > 20 else 0 < len(dev) <= 20
        assert [row[0] for row in dev] == sorted(row[0] for row in dev)
    other = FileSource(path, on_disk=True, dev_fraction=0.2, seed=1).read("pair", "dev")
    assert {row["row"] for row in other} != {row[0] for row in dev}


def test_a_dev_file_is_used_up_to_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(on_disk, "MOST_DEV", 4)
    caplog.set_level("INFO")
    for name, count in (("train", 9), ("dev", 6)):
        write(tmp_path / f"{name}.csv", ["title"], [[f"{name} {number}"] for number in range(count)])
    source = FileSource(tmp_path, on_disk=True)
    assert (len(source.read("titles", "train")), len(source.read("titles", "dev"))) == (9, 4)
    assert "only its first 4 rows are used" in caplog.text


def test_a_column_says_which_split_a_row_is_of(tmp_path: Path) -> None:
    rows = [(f"text {number}", "dev" if number > 40 else "train" if number > 20 else "test") for number in range(60)]
    path = write(tmp_path / "titles.csv", ["title", "part"], rows)
    source = FileSource(path, on_disk=True, split_column="part")
    assert [row["row"] for row in source.read("titles", "train")] == list(range(22, 42))
    assert [row["row"] for row in source.read("titles", "dev")] == list(range(42, 61))


def test_bad_rows_stop_or_are_listed_though_the_rows_come_from_the_cache(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", ["anchor", "positive"],
                 [(f"a{number}", "" if number in (3, 30) else f"b{number}") for number in range(50)])
    with pytest.raises(UserError, match=r"pairs.csv, line 5 \(row 4\), column positive: is empty"):
        FileSource(path, on_disk=True).read("pair", "train")
    assert not list((tmp_path / "cache" / "rows").glob("[!.]*/*"))
    for _ in range(2):
        source = FileSource(path, on_disk=True, on_bad_row="skip")
        assert len(source.read("pair", "train")) + len(source.read("pair", "dev")) == 48
        assert [bad.number for bad in source.rejected()[path]] == [4, 31]


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "titles.csv"
    for count in (30, 40):
        write(path, ["title"], [[f"text {number}"] for number in range(count)])
        source = FileSource(path, on_disk=True)
        assert len(source.read("titles", "train")) + len(source.read("titles", "dev")) == count


def test_a_file_that_is_to_be_read_otherwise_is_read_anew(tmp_path: Path) -> None:
    lists = tmp_path / "lists.jsonl"
    lists.write_text("".join(json.dumps({"query": f"q{number}", "pos": [f"a{number}"], "other": [f"b{number}"]}) + "\n"
                             for number in range(40)))
    for column, first in (("pos", "a"), ("other", "b")):
        source = FileSource(lists, on_disk=True, columns={"anchor": "query", "positive": column})
        assert {row["positive"][0] for row in source.read("pair", "train")} == {first}
    plain = tmp_path / "plain.csv"
    plain.write_text("".join(f"a{number},b{number}\n" for number in range(40)))
    for header in (["anchor", "positive"], ["positive", "anchor"]):
        source = FileSource(plain, on_disk=True, header=header)
        assert {row["anchor"][0] for row in source.read("pair", "train")} == {"ab"[header.index("anchor")]}


def test_labels_that_yaml_reads_as_numbers_beside_texts_are_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "nli.csv", ["premise", "hypothesis", "label"],
                 [(f"p{number}", f"h{number}", (0, 1, "-")[number % 3]) for number in range(60)])
    labels: dict = {0: "entailment", 1: "contradiction", "-": None}
    source = FileSource(path, on_disk=True, labels=labels)
    assert len(source.read("pair_class", "train")) + len(source.read("pair_class", "dev")) == 40


def test_what_cannot_be_done_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"too large for triplets .* data.on_disk=false"):
        FileSource(sample_path("en", "nli_train"), on_disk=True).read("triplet", "train")
    path = write(tmp_path / "titles.csv", ["title"], [["same"]] * 20)
    with pytest.raises(UserError, match=r"titles.csv: has no train rows|data.dev_path="):
        FileSource(path, on_disk=True).read("titles", "train")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(ROOT, str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=f"can't be kept on disk .* {ROOT}"):
        FileSource(sample_path("en", "titles"), on_disk=True).read("titles", "train")


def test_the_size_of_the_file_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "titles.csv", ["title"], [[f"text {number}"] for number in range(30)])
    monkeypatch.setattr(on_disk, "FROM", path.stat().st_size)
    assert not FileSource(path).read("titles", "train").cache_files
    monkeypatch.setattr(on_disk, "FROM", path.stat().st_size - 1)
    assert FileSource(path).read("titles", "train").cache_files


def test_a_set_of_the_hub_is_read_this_way_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    for name, count in (("train", 40), ("dev", 9)):
        label = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
        columns = {"premise": [f"{name} {n}" for n in range(count)], "hypothesis": [f"said {n}" for n in range(count)],
                   "label": [n % 3 for n in range(count)]}
        text = datasets.Value("string")
        features = datasets.Features({"premise": text, "hypothesis": text, "label": label})
        datasets.Dataset.from_dict(columns, features=features).to_parquet(str(folder / f"{name}-0.parquet"))
    read = {large: [HubSource(tmp_path / "set", on_disk=large).read(shape, name) for shape in ("pair_class", "pair")
                    for name in ("train", "dev")] for large in (True, False)}
    assert [rows.to_list() for rows in read[True]] == [rows.to_list() for rows in read[False]]
    assert [bool(rows.cache_files) for rows in read[True]] == [True, False, True, False]
    assert not any(rows.cache_files for rows in read[False])
    monkeypatch.setattr(on_disk, "FROM", 1)
    assert HubSource(tmp_path / "set").read("pair", "train").cache_files  # by its size


def test_equal_cells_get_equal_numbers_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "_CELLS_AT_A_TIME", 100)
    values = np.random.default_rng(0).integers(0, 300, size=1000)
    hashes = np.stack([values % 7, values], axis=1).astype(np.uint64)  # the first half alone does not tell
    ids, first = distinct(hashes)
    index: dict[int, int] = {}
    assert ids.tolist() == [index.setdefault(value, len(index)) for value in values.tolist()]
    assert values[first].tolist() == list(index)


def test_what_a_model_remembers_does_not_depend_on_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = list(rows_of(FileSource(sample_path("en", "nli_train"), sample_path("en", "nli_dev")).read("pair", "train"),
                        ["anchor", "positive"]))
    monkeypatch.setattr(training_hashes, "_BLOCK", 10)
    monkeypatch.setattr(training_hashes, "_BLOCKS_A_MERGE", 3)
    training_hashes.remember(tmp_path, iter(rows), None)
    np.testing.assert_array_equal(np.load(tmp_path / training_hashes.FILE), training_hashes.hashes_of(rows))


_WATCHED = """
import os, sys, threading, time
import datasets, pyarrow.ipc, torch.utils.tensorboard, sentence_forge.train.run
from torch.optim.optimizer import register_optimizer_step_pre_hook

def held():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024

def watch():
    while True:
        peak[0] = max(peak[0], held())
        time.sleep(0.005)

base = held()
peak = [base]
threading.Thread(target=watch, daemon=True).start()
steps = []

def third_step(*_):
    steps.append(held())
    if len(steps) == 3:
        print(f"grew by {peak[0] - base:.0f} MB", flush=True)
        os._exit(0)

register_optimizer_step_pre_hook(third_step)
from sentence_forge.train import cli
cli.main()
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_memory_stays_below_what_holding_the_file_takes(command: Command, tmp_path: Path) -> None:
    words = ["".join(np.random.default_rng(number).choice(list("abcdefgh"), 110)) for number in range(50)]  # one token
    long = [" ".join(words[(number * step) % 50] for step in (1, 3, 7, 9)) for number in range(50)]
    path = write(tmp_path / "pairs.csv", ["anchor", "positive"],
                 [(f"a{number} {long[number % 50]}", f"b{number} {long[number % 49]}") for number in range(30_000)])
    write(tmp_path / "dev.csv", ["anchor", "positive"], [("one", "two"), ("three", "four")])
    assert command("train", "loss=mnrl", *TINY, "loop.max_steps=1", "hydra.run.dir=first").code == 0
    megabytes = path.stat().st_size / 1e6
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED, "loss=mnrl", f"data={path}", f"data.dev_path={tmp_path / 'dev.csv'}",
         "data.on_disk=true", "model=first", "hydra.run.dir=run"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, check=False)
    assert done.returncode == 0, done.stderr
    grew = int(done.stdout.split()[-2])
    # in memory it is more than six times the file
    assert megabytes > 25 and grew < 4 * megabytes, f"{grew} MB for a file of {megabytes:.0f} MB"
