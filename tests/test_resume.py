"""Going on with a run: exactly as an unbroken one would, or not without a word."""

from __future__ import annotations

import io
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Done
from resuming import cut_at, same_end, without_times
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sentence_forge.data_readers.formats import files
from sentence_forge.runtime.locks import writer_lock
from sentence_forge.runtime.manifests import read_manifest
from sentence_forge.train import checkpoint

Command = Callable[..., Done]


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


def test_a_plan_shorter_than_what_is_done_is_refused(command: Command, tmp_path: Path) -> None:
    shape = ["loss=cosine", *TINY, "loop.max_steps=4", "loop.checkpoint_every=2", "hydra.run.dir=run"]
    assert command("train", *shape).code == 0
    run = tmp_path / "run"

    def files() -> dict[Path, tuple[bytes, int]]:
        return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in run.rglob("*")
                if file.is_file() and "lock" not in file.name}

    before = files()
    for changed, said in ((["loop.max_steps=3"], "loop.max_steps=3 is 3 steps, but run has done 4"),
                          (["loop.max_steps=null", "loop.epochs=0.01"], "loop.epochs=0.01 is 1 step, but run has")):
        done = command("train", "resume=run", *changed)
        assert done.code == 2 and f"error: {said}" in done.err and "model=run" in done.err, done.err
    assert files() == before
    assert command("train", "resume=run").code == 0


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


def test_a_run_that_lacks_what_it_goes_on_from_is_left_as_it_is(command: Command, tmp_path: Path) -> None:
    """Also in a folder that is called ``checkpoints``, as those of a run are."""
    shape = ["loss=cosine", *TINY, "loop.max_steps=1", "hydra.run.dir=checkpoints/a"]
    assert command("train", *shape).code == 0
    run = tmp_path / "checkpoints" / "a"
    assert command("train", "resume=checkpoints/a", "loop.max_steps=2").code == 0
    for gone, given, said in (("", "checkpoints/a/checkpoints/step-9", "there is no such checkpoint; the run has "),
                              ("untouched", "checkpoints/a", "is gone, and the report compares with it"),
                              ("checkpoints", "checkpoints/a", "is finished and has no checkpoint any more")):
        if gone:
            shutil.rmtree(run / gone)
        before = (run / "metrics.jsonl").read_bytes()
        done = command("train", f"resume={given}", "loop.max_steps=3")
        assert done.code == 2 and said in done.err and "Traceback" not in done.err, done.err
        assert (run / "model" / "model.safetensors").exists() and (run / "metrics.jsonl").read_bytes() == before


def test_rows_of_the_standard_input_are_compared_by_what_they_say(command: Command, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "sentence1,sentence2,score\n" + "".join(f"a {number},b {number},{number % 6}\n" for number in range(40))

    def given(rows: str, *arguments: str) -> Done:
        files._standard_input.cache_clear()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(rows.encode())))
        return command("train", *arguments)

    shape = ["loss=cosine", "data=-", *TINY, "loop.max_steps=1"]
    assert given(rows, *shape, "hydra.run.dir=run").code == 0
    again = given(rows, "resume=run", "loop.max_steps=2")
    assert again.code == 0, again.err
    other = given(rows.replace("a 7", "c 7"), "resume=run", "loop.max_steps=3")
    assert other.code == 2 and "data.- " in other.err, other.err
    monkeypatch.setenv("WORLD_SIZE", "2")
    several = given(rows, *shape, "hydra.run.dir=other")
    assert several.code == 2 and "error: -: several processes can't share one standard input" in several.err


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
