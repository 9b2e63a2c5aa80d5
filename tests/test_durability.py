"""Nothing lost: exact resume, files that are whole after any kill, damage that shows, input that means harm."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hostile_models
import pytest
from conftest import TINY, Done
from corpora import WordEncoder, answers_equal_brute_force
from faults import DAMAGES, damage, forked, largest_file
from kills import Corpus, Parts, kill_while_indexing, kill_while_saving, seconds_to_index, write
from other_models import others, small
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sentence_forge.encoders.encoder import Encoder
from sentence_forge.encoders.fingerprint import fingerprint
from sentence_forge.encoders.making.build import from_scratch, pretrained
from sentence_forge.runtime import files as runtime_files
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import clear_leftovers, staged_folder, write_atomic
from sentence_forge.runtime.locks import writer_lock
from sentence_forge.runtime.manifests import read_manifest
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import index_corpus
from sentence_forge.train import checkpoint

ROOT = Path(__file__).parent.parent
Command = Callable[..., Done]


@pytest.fixture(scope="module")
def parts() -> Parts:
    return Parts()


# --- resuming -----------------------------------------------------------------------------------------------------


def cut_at(whole: Path, broken: Path, step: int) -> None:
    """Copy a finished run as it was when it had just saved ``step``, with what it logged since left in."""
    shutil.copytree(whole, broken)
    shutil.rmtree(broken / "report")
    for folder in checkpoint.steps(broken):
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)


def without_times(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("speed/")} for line in lines]


def same_end(one: Path, other: Path, step: int) -> None:
    """Bit for bit: weights, loss head, optimizer, generators, the loop's state, the best model, and all metrics."""
    left, right = (run / "checkpoints" / f"step-{step}" for run in (one, other))
    names = sorted(file.relative_to(left).as_posix() for file in left.rglob("*.safetensors"))
    assert names == sorted(file.relative_to(right).as_posix() for file in right.rglob("*.safetensors"))
    for name in names:
        a, b = load_file(left / name), load_file(right / name)
        assert a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a), name
    a, b = (json.loads((folder / "state.json").read_text()) for folder in (left, right))
    a["loop"]["seconds"] = b["loop"]["seconds"] = 0
    assert a == b
    assert without_times(one) == without_times(other)
    best = [load_file(run / "model" / "model.safetensors") for run in (one, other)]
    assert all(best[0][key].equal(best[1][key]) for key in best[0])


def test_resume_is_exact_in_the_middle_of_an_epoch_and_at_its_end(command: Command, tmp_path: Path) -> None:
    """With what the plain runs lack: epochs of unequal length, a new layer, a patience, a log that spans the stop."""
    rows = "".join(f"text {i % 9},words {i},other {i % 7}\n" for i in range(44))
    (tmp_path / "t.csv").write_text("anchor,positive,negative\n" + rows)
    assert command("train", "loss=mnrl", "data=t.csv", *TINY, "loop.max_steps=1", "hydra.run.dir=base").code == 0
    shape = ["model=base", "model.dense=[{out_features: 16}]", "loss=mnrl", "data=t.csv", "loop.batch_size=8",
             "loop.epochs=3", "loop.log_every=4", "loop.evaluate_every=3", "loop.checkpoint_every=1", "loop.keep=99",
             "loop.learning_rate=1e-3", "loop.patience=9", "loop.projector=0"]
    assert command("train", *shape, "hydra.run.dir=whole").code == 0
    whole = tmp_path / "whole"
    saved = checkpoint.steps(whole)
    states = [json.loads((folder / "state.json").read_text())["loop"] for folder in saved]
    ends = [state["step"] for state, later in itertools.pairwise(states) if later["epoch"] > state["epoch"]]
    assert len(ends) >= 2 and ends[1] - ends[0] != ends[0]
    for step in (2, ends[0], ends[0] + 2):
        broken = tmp_path / f"broken-{step}"
        cut_at(whole, broken, step)
        done = command("train", f"resume={broken}")
        assert done.code == 0, done.err
        assert f"step {step}" in done.err
        same_end(whole, broken, states[-1]["step"])
    board = EventAccumulator(str(broken / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    for tag in ("train/loss", "dev/triplet_accuracy"):
        seen = [event.step for event in board.Scalars(tag)] if tag in board.Tags()["scalars"] else [0]
        assert len(seen) == len(set(seen)), tag


def test_early_stopping_outlives_a_stop(command: Command, tmp_path: Path) -> None:
    shape = ["loss=cosine", *TINY, "loop.max_steps=40", "loop.evaluate_every=2", "loop.checkpoint_every=1",
             "loop.keep=99", "loop.learning_rate=1e-12", "loop.patience=3"]
    assert command("train", *shape, "hydra.run.dir=whole").code == 0
    last = without_times(tmp_path / "whole")[-1]["step"]
    assert last < 40
    for step in (last - 3, last):
        cut_at(tmp_path / "whole", tmp_path / f"broken-{step}", step)
        done = command("train", f"resume=broken-{step}")
        assert done.code == 0, done.err
        same_end(tmp_path / "whole", tmp_path / f"broken-{step}", last)


def test_going_back_takes_the_best_of_then_and_sets_the_rest_aside(command: Command, tmp_path: Path) -> None:
    shape = ["loss=cosine", *TINY, "loop.max_steps=6", "loop.evaluate_every=1", "loop.checkpoint_every=2",
             "loop.keep=9", "loop.learning_rate=1e-3"]
    assert command("train", *shape, "hydra.run.dir=run").code == 0
    run = tmp_path / "run"
    best_then = json.loads((run / "checkpoints" / "step-2" / "state.json").read_text())["loop"]["best_step"]
    done = command("train", "resume=run/checkpoints/step-2", "loop.max_steps=2")
    assert done.code == 0, done.err
    assert "loop.max_steps 6 -> 2" in done.err
    about = json.loads((run / "model" / "sentence_forge.json").read_text())
    assert about["training"]["best_step"] == best_then
    best, then = (load_file(run / place / "model.safetensors") for place in ("model", "checkpoints/step-2/best"))
    assert all(best[key].equal(then[key]) for key in best)
    read_manifest(run / "checkpoints" / "replaced-step-6")


def test_a_run_killed_before_its_first_checkpoint_starts_again(command: Command, tmp_path: Path) -> None:
    shape = ["loss=softmax", *TINY, "loop.max_steps=3", "loop.log_every=1"]
    assert command("train", *shape, "hydra.run.dir=run").code == 0
    run = tmp_path / "run"
    shutil.copytree(run, tmp_path / "whole")
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "report")
    done = command("train", "resume=run")
    assert done.code == 0 and "starts again" in done.err, done.err
    same_end(tmp_path / "whole", run, 3)
    board = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("train/loss")] == [1, 2, 3]


def test_auto_is_the_newest_unfinished_run(command: Command, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        done = command("train", "loss=cosine", *TINY, "loop.max_steps=1", f"hydra.run.dir=outputs/train/{name}")
        assert done.code == 0, done.err
    for name in ("a", "b"):  # c is finished, and newer
        (tmp_path / "outputs" / "train" / name / "report" / "report.json").unlink()
    done = command("train", "resume=auto", "loop.max_steps=2")
    assert done.code == 0 and "going on from outputs/train/b/checkpoints/step-1" in done.err, done.err


def test_what_differs_is_said_and_refused_where_the_result_would(command: Command, tmp_path: Path) -> None:
    rows = "".join(f"a {i},b {i},{i % 6}\n" for i in range(40))
    (tmp_path / "p.csv").write_text("sentence1,sentence2,score\n" + rows)
    shape = ["loss=cosine", "data=p.csv", *TINY, "loop.max_steps=2"]
    assert command("train", *shape, "hydra.run.dir=run").code == 0
    run = tmp_path / "run"

    def refused(said: str) -> None:
        done = command("train", "resume=run", "loop.max_steps=3")
        assert done.code == 2 and said in done.err and "resume_anyway=true" in done.err, done.err

    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(environment | {"versions": environment["versions"] | {
        "torch": "1.0"}}))
    refused("versions.torch 1.0 -> ")
    (run / "environment.json").write_text(json.dumps(environment))
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("warmup: 0.1", "warmup: 0.2"))
    refused("loop.warmup 0.1 -> 0.2")
    (run / "config.yaml").write_text(config.replace("log_every: 10", "log_every: 9"))
    (tmp_path / "p.csv").write_text("sentence1,sentence2,score\n" + rows.replace("a 3,", "c 3,"))
    refused("p.csv")
    done = command("train", "resume=run", "loop.max_steps=3", "resume_anyway=true")
    assert done.code == 0, done.err
    assert "p.csv" in done.err and "loop.log_every 10 -> 9" in done.err
    (run / "config.yaml").write_text("{a: [")
    assert "config.yaml: is damaged" in command("train", "resume=run").err
    with writer_lock(run):
        (run / "config.yaml").write_text(config)
        assert "is writing here" in command("train", "resume=run", "resume_anyway=true").err


# --- checkpoints --------------------------------------------------------------------------------------------------


def test_sixteen_kinds_of_damage_are_found(parts: Parts, tmp_path: Path) -> None:
    draw = random.Random(3)
    older, newer = parts.save(tmp_path, 1), parts.save(tmp_path, 2)
    whole = tmp_path / "whole"
    shutil.copytree(newer, whole)
    files = ["model/model.safetensors", "model/loss.safetensors", "optimizer.safetensors", "generators.safetensors",
             "state.json", "model/tokenizer.json", "model/modules.json", "manifest.json"]
    for name in files:
        for how in DAMAGES:
            shutil.rmtree(newer)
            shutil.copytree(whole, newer)
            damage(newer / name, how, draw)
            with pytest.raises(UserError, match=Path(name).name):
                read_manifest(newer)
            assert checkpoint.newest_good(tmp_path) == older
            with pytest.raises(UserError):
                checkpoint.verified(tmp_path, newer)


def test_kill_9_while_saving_leaves_whole_checkpoints_only(parts: Parts, tmp_path: Path) -> None:
    draw = random.Random(5)
    for number in range(10):
        kill_while_saving(tmp_path / str(number), parts, draw)


def test_optimizer_and_generators_come_back_bit_for_bit(parts: Parts, tmp_path: Path) -> None:
    import numpy as np
    import torch

    before = {key: value.clone() for key, value in parts.optimizer.state_dict()["state"][0].items()}
    folder = parts.save(tmp_path, 1)
    drawn = [torch.rand(3), np.random.rand(3), random.random()]
    parts.optimizer.step()
    parts.load(folder)
    checkpoint.restore_generators(folder)
    again = [torch.rand(3), np.random.rand(3), random.random()]
    assert all(np.array_equal(one, two) for one, two in zip(drawn, again, strict=True))
    after = parts.optimizer.state_dict()["state"][0]
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_full_disk_leaves_what_was_there_and_no_temporary_files(parts: Parts, tmp_path: Path) -> None:
    parts.save(tmp_path, 1)
    write_atomic(tmp_path / "notes", "old")
    with largest_file(20_000):
        with pytest.raises(UserError, match=r"step-1: can't be written: [\d.]+ kB are needed, [\d.]+ .B were free"):
            parts.save(tmp_path, 1)
        with pytest.raises(UserError, match=r"notes: can't be written"):
            write_atomic(tmp_path / "notes", "x" * 30_000)
    write(tmp_path / "index", Corpus("index", 50, 1).after)
    many = [str(row) for row in range(3000)], [f"title {row}" for row in range(3000)]
    for size in (100_000, 200_000, 300_000):  # too small for the segments' files, for the rows', for the vectors'
        with largest_file(size), pytest.raises(UserError, match=r"can't be written"):
            index_corpus(tmp_path / "index", *many, WordEncoder(), segment_rows=1000)
    answers_equal_brute_force(tmp_path / "index", *Corpus("index", 50, 1).after)
    assert not list((tmp_path / "index").glob("*-2.*"))
    with pytest.raises(UserError, match=r"999.0 TB are needed"), staged_folder(tmp_path / "big", needs=999 * 10**12):
        pass
    read_manifest(tmp_path / "checkpoints" / "step-1")
    assert (tmp_path / "notes").read_text() == "old"
    assert not list(tmp_path.rglob(".tmp-*")) and not (tmp_path / "big").exists()


def test_training_on_a_full_disk_ends_in_one_line(command: Command, tmp_path: Path) -> None:
    shape = ["loss=cosine", *TINY, "loop.evaluate_every=99", "hydra.run.dir=run"]
    assert command("train", *shape, "loop.max_steps=2").code == 0
    with largest_file(60_000):
        done = command("train", "resume=run", "loop.max_steps=4")
    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert done.code == 2 and len(errors) == 1 and "can't be written" in errors[0], done.err
    assert "Traceback" not in done.err
    assert not list((tmp_path / "run").rglob(".tmp-*"))
    read_manifest(tmp_path / "run" / "checkpoints" / "step-2")


def test_new_parents_are_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut could take a finished folder with the parent that was made for it."""
    flushed, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (flushed.append(Path(f"/proc/self/fd/{handle}").readlink()),
                                                     fsync(handle)))
    with staged_folder(tmp_path / "a" / "b" / "c"):
        pass
    with writer_lock(tmp_path / "d" / "e"):
        pass
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b", tmp_path / "d"} <= set(flushed)
    del flushed[:]
    with writer_lock(tmp_path / "d" / "f"):
        pass
    assert flushed == [tmp_path / "d"]


@pytest.mark.parametrize("atomic_exchange", [True, False])
def test_a_folder_is_replaced_without_a_moment_of_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       atomic_exchange: bool) -> None:
    if not atomic_exchange:  # a system without renameat2
        monkeypatch.setattr(runtime_files, "exchange", lambda one, other: False)
    path, draw = tmp_path / "model", random.Random(2)

    def replace(acknowledge: Callable[[object], None]) -> None:
        for number in range(10_000):
            with staged_folder(path, replace=True) as folder:
                for name in "ab":
                    (folder / name).write_text(str(number))
            acknowledge(number)

    for _ in range(8):
        ended = forked(replace, kill_after=draw.uniform(0.02, 0.1))
        if not atomic_exchange:
            clear_leftovers(tmp_path)
        if ended.acknowledged:
            assert (path / "a").read_text() == (path / "b").read_text()
            assert int((path / "a").read_text()) >= int(ended.acknowledged[-1])
        clear_leftovers(tmp_path)
        assert not list(tmp_path.glob(".tmp-*"))


# --- the index ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Corpus.KINDS)
def test_kill_9_leaves_the_old_index_or_the_new_one(tmp_path: Path, kind: str) -> None:
    corpus, draw = Corpus(kind, 60, seed=1), random.Random(kind)
    seconds = seconds_to_index(tmp_path / "dry", corpus)
    for number in range(5):
        kill_while_indexing(tmp_path / str(number), corpus, draw, 1.1 * seconds)


def test_two_writers_lose_and_double_nothing(tmp_path: Path) -> None:
    import multiprocessing

    corpora = [Corpus("index", 30, seed).after for seed in (1, 2)]
    context = multiprocessing.get_context("fork")
    for number in range(4):
        folder = tmp_path / str(number)
        writers = [context.Process(target=_write_quietly, args=(folder, rows)) for rows in corpora]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        codes = sorted(writer.exitcode for writer in writers)
        assert codes in ([0, 0], [0, 2])
        with Index.open(folder) as index:
            found = list(index.ids), list(index.titles)
        assert found in corpora
        answers_equal_brute_force(folder, *found)


def _write_quietly(folder: Path, rows: tuple[list[str], list[str]]) -> None:
    try:
        write(folder, rows)
    except UserError as error:
        assert re.search(r"process \d+ is writing here", str(error)), error
        sys.exit(2)


def test_an_index_is_of_one_model(tmp_path: Path) -> None:
    ids, titles = ["1", "2"], ["storm hits the coast", "Markets fall"]
    index_corpus(tmp_path / "index", ids, titles, Encoder(small()))
    seen = 0
    for _, model in others():
        encoder = Encoder(model)
        with pytest.raises(UserError, match="of another model"):
            Index.open(tmp_path / "index", encoder)
        with pytest.raises(UserError, match="of another model"):
            index_corpus(tmp_path / "index", ids, titles, encoder)
        seen += 1
    assert seen >= 20
    small().save_pretrained(str(tmp_path / "here"), create_model_card=False)
    (tmp_path / "here").rename(tmp_path / "there")
    with Index.open(tmp_path / "index", Encoder(pretrained(str(tmp_path / "there")))) as index:
        assert index.search(["storm hits the coast"])[0][0].id == "1"


# --- what means harm ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "model"
    texts = ["one two three", "four five six"] * 4
    model = from_scratch(lambda: texts, hidden=32, layers=1, heads=2, vocabulary=60)
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_hostile_model_folder_runs_nothing(good_model: Path, tmp_path: Path) -> None:
    assert len(hostile_models.CASES) >= 30
    of_good = fingerprint(pretrained(str(good_model)))
    for number, name in enumerate(hostile_models.CASES):
        folder = tmp_path / str(number) / "model"
        folder.parent.mkdir()
        canary = hostile_models.make(name, good_model, folder)
        try:
            model = pretrained(str(folder))
        except UserError as error:
            assert str(folder) in str(error), name
            assert "path" not in name or "outside the model's folder" in str(error), error
            assert "from the hub" not in name or "kernel from the hub" in str(error), error
        else:  # the hostile part was not looked at, or it was put aside
            assert "path" not in name and "from the hub" not in name, name
            assert "Dense" in name or fingerprint(model) == of_good, name
        assert not canary.exists(), name


@pytest.mark.parametrize("where", ["model", "experiment"])
def test_trust_comes_from_the_command_line_alone(command: Command, tmp_path: Path, where: str) -> None:
    (tmp_path / "conf" / where).mkdir(parents=True)
    text = {"model": "_target_: encoders.making.build.pretrained\npath: nowhere\ntrust_remote_code: true\n",
            "experiment": "# @package _global_\nmodel:\n  trust_remote_code: true\n"}[where]
    (tmp_path / "conf" / where / "evil.yaml").write_text(text)
    given = ["--config-dir", str(tmp_path / "conf"), f"{where}=evil", "model.path=nowhere", "++model.package=null"]
    done = command("train", *given)
    assert done.code == 2 and "model.trust_remote_code: runs code" in done.err, done.err
    done = command("train", *given, "model.trust_remote_code=true")
    assert done.code == 2 and "nowhere: no such model folder" in done.err, done.err


@pytest.mark.parametrize(("text", "key"), [
    ("loop:\n  batchsize: 3\n", "loop.batchsize"), ("losses: 3\n", "losses"), ("loss:\n  scal: 3\n", "loss.scal"),
    ("loss:\n  sampler:\n    shuffle: 1\n", "loss.sampler.shuffle"), ("data:\n  lang: zh\n", "data.lang"),
    ("model:\n  hiden: 3\n", "model.hiden"),
    ("suite:\n  mine:\n    _target_: eval.sts.ScoredPairs\n    pth: x\n", "suite.mine.pth"),
    ("model:\n  dropot: 0\n", "model.dropot"),
    ("loss:\n  _target_: os.system\n", "loss._target_"), ("resume:\n  deep: 1\n", "resume"),
])
def test_an_unknown_key_in_an_experiment_is_an_error(command: Command, tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\n" + text)
    done = command("train", "--config-dir", str(tmp_path / "conf"), "experiment=mine", *TINY, "loop.max_steps=1")
    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert done.code == 2 and len(errors) == 1 and key in errors[0], done.err
    assert "Traceback" not in done.err


def test_bad_rows_are_skipped_and_listed(command: Command, tmp_path: Path) -> None:
    rows = [f"text {i},words {i},{i % 6}" for i in range(40)]
    rows[3:6] = ["x,y,7", 'x,"y,1', "x,,1"]
    (tmp_path / "p.csv").write_text("sentence1,sentence2,score\n" + "\n".join([*rows, "x,y,z,1"]) + "\n")
    arguments = ["loss=cosine", "data=p.csv", *TINY, "loop.max_steps=1", "hydra.run.dir=run"]
    assert "line 5 (row 4)" in command("train", *arguments).err
    done = command("train", *arguments, "data.on_bad_row=skip")
    assert done.code == 0, done.err
    listed = (tmp_path / "run" / "rejected.csv").read_text().splitlines()
    assert listed[0] == "file,line,row,reason,text" and len(listed) == 5
    for line, part in zip(listed[1:], ("outside 0 to 5", "never closed", "is empty", "4 cells"), strict=True):
        assert part in line
    assert "did you mean 'skip'" in command("train", *arguments, "data.on_bad_row=skp", "hydra.run.dir=other").err


def test_a_bomb_of_many_lines_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    from sentence_forge.data_readers import parquet, rows
    from sentence_forge.data_readers.delimited import read_rows

    monkeypatch.setattr(rows, "MOST_UNPACKED", 1 << 20)
    monkeypatch.setattr(parquet, "MOST_UNPACKED", 1 << 20)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"title\n" + b"the same\n" * 3_000_000))
    pq.write_table(pa.table({"title": pa.array(["the same"] * 3_000_000)}), tmp_path / "a.parquet")
    for name in ("a.csv.gz", "a.parquet"):
        with pytest.raises(UserError, match="zip bomb"):
            sum(1 for _ in read_rows(tmp_path / name, ["title"]))


# --- what leaves the machine --------------------------------------------------------------------------------------

LISTEN = """
import json, os, sys
sys.path[:0] = [{tests!r}]
from faults import listen
heard = listen()
from importlib import import_module
def run(name, *arguments):
    sys.argv = [name, *arguments]
    try:
        code = import_module("sentence_forge." + name + ".cli").main()
    except SystemExit as leaving:
        code = leaving.code
    assert not code, (name, code)
tiny = {tiny!r}
run("train", "loss=softmax", *tiny, "loop.max_steps=2", "loop.checkpoint_every=1", "hydra.run.dir=run")
run("train", "resume=run", "loop.max_steps=3")
run("export", "model=run", "corpus=titles.csv", "out=news")
open("titles.csv", "a").write("one more title\\n")
run("export", "only=index", "corpus=titles.csv", "out=news")
run("search", "news", "a title", "--json")
run("search", "news", "--verify")
json.dump(heard, open("heard.json", "w"))
"""


def test_nothing_is_fetched_and_nothing_unpickled(tmp_path: Path) -> None:
    """Training, resuming, exporting, indexing and searching with local paths, every socket and pickle listened to."""
    (tmp_path / "titles.csv").write_text("title\n" + "".join(f"title number {i}\n" for i in range(30)))
    script = LISTEN.format(tests=str(Path(__file__).parent), tiny=TINY)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env=_environment())
    assert done.returncode == 0, done.stderr[-3000:]
    heard = json.loads((tmp_path / "heard.json").read_text())
    assert not [each for each in heard if each.startswith("socket")]
    assert not heard, sorted(set(heard))


def _environment() -> dict[str, str]:
    import os

    kept = {key: value for key, value in os.environ.items() if key not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    return kept | {"PYTHONPATH": str(ROOT)}
