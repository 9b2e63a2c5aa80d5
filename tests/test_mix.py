"""Several sources in one run: whose turn it is, whose loss, what is measured, and resuming in the middle."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY, Done
from safetensors.torch import load_file

from sentence_forge.data_readers.lazy import LazyStrings
from sentence_forge.eval.tasks.nli import load_head
from sentence_forge.train.batches import Batches, NoDuplicates, Shuffled
from sentence_forge.train.mixing import Mixed

Command = Callable[..., Done]
RUN = [*TINY, "loop.log_every=1", "hydra.run.dir=run"]
NLI = ("entailment", "neutral", "contradiction")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Four small sources of four shapes."""
    words = ("rain", "trade", "match", "vote", "train", "school", "bridge", "film")
    text = [f"{one} and {two} in {n}" for n, (one, two) in enumerate((a, b) for a in words for b in words)]
    (tmp_path / "nli.csv").write_text("premise,hypothesis,label\n" + "".join(
        f"{premise},{premise} {label},{label}\n" for premise in text for label in NLI))
    (tmp_path / "rte.csv").write_text("premise,hypothesis,label\n" + "".join(
        f"{premise},{premise} {n % 2},{('entailment', 'not_entailment')[n % 2]}\n" for n, premise in enumerate(text)))
    (tmp_path / "sts.csv").write_text("sentence1,sentence2,score\n" + "".join(
        f"{one},{text[n - 1]},{n % 6}\n" for n, one in enumerate(text)))
    (tmp_path / "新闻.csv").write_text("title\n" + "".join(f"title of {one}\n" for one in text), encoding="utf-8")
    return tmp_path


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_by_size_every_row_comes_once_an_epoch_in_batches_of_one_source() -> None:
    samplers = {"a": Shuffled(rows=70, batch_size=8, seed=1), "b": Shuffled(rows=20, batch_size=8, seed=1)}
    mixed = Mixed(samplers, seed=1)
    for epoch in range(3):
        batches = mixed.epoch(epoch)
        order = [batch.part for batch in batches]
        assert Counter(order) == {0: 9, 1: 3}
        assert order != sorted(order)
        for part, rows in enumerate((70, 20)):
            assert sorted(row for batch in batches if batch.part == part for row in batch.rows) == list(range(rows))
    assert [batch.rows.tolist() for batch in mixed.epoch(0)] != [batch.rows.tolist() for batch in mixed.epoch(1)]


def test_weights_and_temperature_decide_the_shares() -> None:
    def shares(**how: object) -> list[int]:
        samplers = {"a": Shuffled(rows=900, batch_size=10, seed=1), "b": Shuffled(rows=100, batch_size=10, seed=1)}
        counted = Counter(batch.part for batch in Mixed(samplers, seed=1, **how).epoch(0))
        return [counted[0], counted[1]]

    assert shares() == [90, 10]
    assert shares(weights={"a": 1, "b": 3}) == [25, 75]
    assert shares(temperature=2) == [75, 25]  # 9 ** 0.5 : 1
    assert shares(temperature=1e9) == [50, 50]
    assert shares(weights={"a": 1, "b": 1e-9}) == [100, 1]  # never none


def test_a_source_goes_on_where_the_epoch_before_left_it() -> None:
    samplers = {"a": Shuffled(rows=100, batch_size=10, seed=1), "b": Shuffled(rows=100, batch_size=10, seed=1)}
    mixed = Mixed(samplers, seed=1, weights={"a": 1, "b": 3})
    small = np.concatenate([batch.rows for number in range(4) for batch in mixed.epoch(number) if batch.part == 0])
    assert sorted(small[:100].tolist()) == sorted(small[100:].tolist()) == list(range(100))
    assert small[:100].tolist() != small[100:].tolist()  # begun anew, in another order


@pytest.mark.parametrize("step", [1, 7, 40, 111])
def test_batches_of_a_mix_go_on_from_any_point(step: int) -> None:
    def mixed() -> Mixed:
        ids = np.random.default_rng(0).integers(0, 60, (90, 2))
        samplers = {"a": NoDuplicates(text_ids=ids, batch_size=8, seed=1), "b": Shuffled(rows=33, batch_size=8, seed=1)}
        return Mixed(samplers, seed=3, weights={"a": 1, "b": 2})

    whole = Batches(mixed().epoch)
    for _ in range(step):
        next(whole)
    again = Batches(mixed().epoch, whole.epoch, whole.position)
    for _ in range(30):
        one, other = next(whole), next(again)
        assert (one.part, one.rows.tolist()) == (other.part, other.rows.tolist())


def test_three_sources_with_three_losses_as_typed(command: Command, files: Path) -> None:
    done = command("train", "loss=mnrl", "data=mix",
                   "data.sources={nli: nli.csv, sts: {path: sts.csv, dev_fraction: 0.2}, news: 新闻.csv}",
                   "data.losses={sts: {loss: cosine}, nli: softmax}", *RUN, "loop.max_steps=8", "loop.evaluate_every=4",
                   "loop.projector=99")
    assert done.code == 0, done.err
    assert "data sts: 51 training rows (pair_score), 13 for dev" in done.err
    assert "data news: 58 training rows (pair), 6 for dev" in done.err
    lines = metrics(files / "run")
    dev = [line for line in lines if "dev/mean" in line]
    assert [line["step"] for line in dev] == [0, 4, 8]
    for line in dev:
        each = [line["dev/nli/accuracy"], line["dev/sts/spearman_cosine"], line["dev/news/mrr"]]
        assert line["dev/mean"] == pytest.approx(sum(each) / 3)
    about = json.loads((files / "run" / "model" / "sentence_forge.json").read_text())["training"]
    assert about["loss"] == "Softmax + Cosine + MultipleNegativesRanking"
    assert about["shape"] == "pair_class + pair_score + pair"
    assert about["measure"] == "mean"
    assert {entry["name"] for entry in about["data"]} == {"nli.csv", "sts.csv", "新闻.csv"}
    shown = next((files / "run" / "tensorboard").rglob("metadata.tsv")).read_text(encoding="utf-8").splitlines()
    assert [line.startswith("title of") for line in shown[-7:]] == [False] + 6 * [True]  # each source's, in turn
    head = load_file(files / "run" / "model" / "loss.safetensors")
    assert {tuple(tensor.shape) for tensor in head.values()} == {(3, 96), (3,)}


def test_equal_label_sets_share_a_head_and_others_have_their_own(command: Command, files: Path) -> None:
    shutil.copy(files / "nli.csv", files / "nli2.csv")
    done = command("train", "loss=softmax", "data=mix", "data.sources={b: {path: rte.csv, "
                   "labels: [entailment, not_entailment]}, a: nli.csv, c: nli2.csv}", *RUN, "loop.max_steps=2")
    assert done.code == 0, done.err
    head = load_file(files / "run" / "model" / "loss.safetensors")
    assert sorted(tensor.shape[0] for name, tensor in head.items() if name.endswith("weight")) == [2, 3]
    described = json.loads((files / "run" / "model" / "loss.json").read_text())["sources"]
    assert {name: each["labels"] for name, each in described.items()} == {
        "a": ["contradiction", "entailment", "neutral"], "b": ["entailment", "not_entailment"]}
    predict = load_head(files / "run" / "model", 32)  # suite=nli takes the one on its labels
    u, v = np.random.default_rng(0).standard_normal((2, 50, 32)).astype(np.float32)
    weight, bias = (head[f"losses.1.classifier.{name}"].numpy() for name in ("weight", "bias"))
    best = (np.concatenate([u, v, np.abs(u - v)], axis=1) @ weight.T + bias).argmax(axis=1)
    assert predict is not None
    assert list(predict(u, v)) == [described["a"]["labels"][number] for number in best]


def test_a_source_has_its_own_lengths_or_those_of_the_run_and_the_old_form_comes_to_the_same(
        command: Command, files: Path) -> None:
    done = command("train", "data=mix", "data.sources={a: nli.csv, b: sts.csv, c: sts.csv, d: sts.csv}", "dims=[32,8]",
                   "data.losses={b: {loss: cosine, dims: [32, 4]}, c: {loss: matryoshka, inner: {loss: cosent, "
                   "scale: 7}}, d: {_target_: losses.cosine.Cosine, shapes: [pair_score], "
                   "sampler: {_target_: train.batches.Shuffled}, dims: null}}", *RUN, "loop.max_steps=2")
    assert done.code == 0, done.err
    assert "data.losses.c: loss=matryoshka is called dims= now, beside any loss: loss=cosent 'dims=auto'" in done.err
    kept = yaml.safe_load((files / "run" / "config.yaml").read_text())
    losses = kept["data"]["losses"]
    assert losses["b"]["shapes"] == losses["c"]["shapes"] == ["pair_score"]
    assert losses["c"]["_target_"] == "losses.cosent.CoSENT" and losses["c"]["scale"] == 7
    assert [kept["dims"], losses["b"]["dims"], losses["c"]["dims"], losses["d"]["dims"]] == [[32, 8], [32, 4], "auto",
                                                                                             None]
    about = json.loads((files / "run" / "model" / "sentence_forge.json").read_text())
    assert about["training"]["loss"] == ("Matryoshka(MultipleNegativesRanking) + Matryoshka(Cosine) + "
                                         "Matryoshka(CoSENT) + Cosine")
    assert "dims" not in about  # the sources have other ones


def test_two_sources_over_a_file_keep_the_rows_that_each_left_out(command: Command, files: Path) -> None:
    with (files / "nli.csv").open("a") as file:
        file.write("x,,neutral\n,y,maybe\nx,y,maybe\n")
    (files / "sts2.csv").write_text("sentence1,sentence2,score,label\n" + "".join(
        f"some {n},other {n},{n % 6},{NLI[n % 3]}\n" for n in range(40)) + "a,b,9,entailment\nc,d,1,maybe\n")
    given = "columns: {premise: sentence1, hypothesis: sentence2, label: label}"
    done = command("train", "data=mix", "data.sources={a: {path: nli.csv, on_bad_row: skip}, b: {path: nli.csv, "
                   "on_bad_row: skip}, c: {path: sts2.csv, score_range: [0, 5], on_bad_row: skip}, "
                   f"d: {{path: sts2.csv, {given}, on_bad_row: skip}}}}", "data.losses={c: cosine, d: softmax}", *RUN,
                   "loop.max_steps=1")
    assert done.code == 0, done.err
    lines = (files / "run" / "rejected.csv").read_text().splitlines()[1:]
    assert [line.split(",")[:3] for line in lines] == [
        *(["nli.csv", str(row + 1), str(row)] for row in (193, 194, 195)),  # each once
        ["sts2.csv", "42", "41"], ["sts2.csv", "43", "42"]]


def test_a_resumed_mix_ends_where_an_unbroken_one_does(command: Command, files: Path) -> None:
    """Bit for bit, over an epoch's end, two heads and accumulation included."""
    arguments = ["loss=mnrl", "data=mix", "data.sources={nli: {path: nli.csv, reverse: true}, sts: sts.csv, "
                 "rte: {path: rte.csv, labels: [entailment, not_entailment]}}",
                 "data.losses={rte: softmax, sts: cosine}", "data.temperature=3", *TINY,
                 "loop.max_steps=16", "loop.accumulate=2", "loop.evaluate_every=8",
                 "loop.checkpoint_every=8", "loop.log_every=2", "loop.keep=9"]
    assert command("train", *arguments, "hydra.run.dir=whole").code == 0
    done = command("train", *arguments, "hydra.run.dir=broken")
    assert done.code == 0, done.err
    broken, whole = files / "broken", files / "whole"
    shutil.rmtree(broken / "report")
    shutil.rmtree(broken / "checkpoints" / "step-16")
    done = command("train", "resume=broken")
    assert done.code == 0, done.err
    assert metrics(whole)[-2]["train/epoch"] > 1
    for name in ("model/model", "model/loss", "optimizer", "generators"):
        left, right = (load_file(run / "checkpoints" / "step-16" / f"{name}.safetensors") for run in (whole, broken))
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left), name
    steady = [[{key: value for key, value in line.items() if not key.startswith("speed/")} for line in metrics(run)]
              for run in (whole, broken)]
    assert steady[0] == steady[1]


BAD = {
    "data=mix": r"data\.sources: is needed",
    "data=mix data.sources=nli.csv": r"data\.sources: is 'nli\.csv'; give names of your own",
    "data=mix data.sources={a:nli.csv}": r"data\.sources: a mix has two sources or more",
    "data=mix data.sources={a:nli.csv,b:nlo.csv}": r"data\.sources\.b: no such file: /.*/nlo\.csv$",
    "data=mix data.sources={a:nli.csv,b:3.5}": r"data\.sources\.b: no such file: /.*/3\.5$",
    "data=mix data.sources={a:nli.csv,b:sampel}": r"data\.sources\.b: there is no data 'sampel' and .* mean 'sample'",
    "data=mix data.sources={a:nli.csv,b:sick}": r"data\.sources\.b\.path: is needed; give it, as '\{data: sick, path: ",
    "data=mix data.sources={a:nli.csv,b:mix}": r"data\.sources\.b: there is no data 'mix'",
    "data=mix data.sources={a:nli.csv,b:{path:sts.csv,score_rang:[0,1]}}":
        r"data\.sources\.b\.score_rang: .* did you mean 'score_range'",
    "data=mix data.sources={a:nli.csv,b:{path:sts.csv,score_range:[1,0]}}":
        r"data\.sources\.b\.score_range is \[1, 0\]",
    "data=mix data.sources={a:nli.csv,b:sts.csv}": r"data\.sources\.b: loss=mnrl takes .* data\.losses=\{b: <loss>\}",
    "data=mix data.sources={a:nli.csv,b:sts.csv} data.losses={b:cosin}":
        r"data\.losses\.b: there is no loss 'cosin'; did you mean 'cosine'",
    "data=mix data.sources={a:nli.csv,b:sts.csv} data.losses={b:{_target_:losses.cosine.Cosine}}":
        r"data\.losses\.b: has no sampler and no shapes, which a loss by its _target_ needs",
    "data=mix data.sources={a:nli.csv,b:sts.csv} data.losses={b:{loss:cosine,inner:mnrl}}":
        r"data\.losses\.b\.inner: is of loss=matryoshka alone",
    "data=mix data.sources={a:nli.csv,b:sts.csv} data.losses={b:{loss:matryoshka,inner:matryoshka}}":
        r"data\.losses\.b\.inner: matryoshka can't wrap itself",
    "data=mix data.sources={a:nli.csv,b:sts.csv} data.losses={b:{loss:matryoshka,inner:cosin}}":
        r"data\.losses\.b\.inner: there is no loss 'cosin'; did you mean 'cosine'",
    "data=mix data.sources={a:nli.csv,b:sts.csv} data.losses={b:triplet}":
        r"data\.sources\.b: data\.losses\.b takes triplet .*data\.sources\.b\.columns\.\w+=$",
    "data=mix data.sources={a:nli.csv,b:sts.csv} data.losses={b:{loss:cosine,dims:[64]}}":
        r"data\.losses\.b\.dims: 64 is more than the model's 32",
    "data=mix data.sources={a:nli.csv,b:sts.csv} data.losses={b:{loss:cosine,dims:8}}":
        r"data\.losses\.b\.dims: is 8; give a list",
    "data=mix data.sources={a:nli.csv,b:sts.csv} data.losses={c:cosine}":
        r"data\.losses\.c: is no source; there are: a, b",
    "data=mix data.sources={a:nli.csv,b:rte.csv} data.weights={a:1}": r"data\.weights\.b: is None; give every source",
    "data=mix data.sources={a:nli.csv,b:nli.csv} data.weights={a:1,b:0}": r"data\.weights\.b: is 0",
    "data=mix data.sources={a:nli.csv,b:nli.csv} data.temperature=0": r"data\.temperature: is 0",
    "data=mix data.sources={a:nli.csv,b:nli.csv} data.temperature=null": r"data\.temperature: is null; give a number",
    "data=mix data.sources={a:nli.csv,b:nli.csv} data.weights=2": r"data\.weights: is 2; give keys and values",
}


@pytest.mark.parametrize("typed", BAD)
def test_bad_input_is_one_line(command: Command, files: Path, typed: str) -> None:
    done = command("train", *typed.split(" "), *RUN)
    assert done.code == 2
    line = [each for each in done.err.splitlines() if each.startswith("error: ")]
    assert len(line) == 1
    assert re.search(BAD[typed], line[0]), line[0]
    assert not (files / "run").exists()


def test_a_bad_row_of_a_mix_names_its_file(command: Command, files: Path) -> None:
    (files / "data.csv").write_text("premise,hypothesis,label\na,b,neutral\nc,d,maybe\n")
    done = command("train", "data=mix", "data.sources={a: nli.csv, b: data.csv}", *RUN)
    assert done.code == 2
    assert "error: data.csv, line 3 (row 2), column label: label 'maybe'" in done.err
    assert "data.sources.b.on_bad_row=skip" in done.err


def test_texts_of_several_parts_are_one_sequence() -> None:
    texts = LazyStrings([["a", "b"], ["c"]])
    assert list(texts) == [texts[number] for number in range(3)] == ["a", "b", "c"]
    assert texts[-1] == "c" and texts[1:] == ["b", "c"] and texts[::-1] == ["c", "b", "a"]
    with pytest.raises(IndexError):
        texts[3]
