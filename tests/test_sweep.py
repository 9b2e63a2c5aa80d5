"""Sweeps: one job after another, a failed one without the others, one table in three forms, random draws."""

from __future__ import annotations

import csv
import gc
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY, Done
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tensorboard.backend.event_processing import plugin_event_multiplexer
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from sentence_forge.configs import draw
from sentence_forge.eval.compare import main as compare
from sentence_forge.runtime.overrides import friendly
from sentence_forge.train.loop import Training

SHORT = [*TINY, "loop.max_steps=2", "hydra.sweep.dir=sweep"]
Command = Callable[..., Done]


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "table.csv").open(newline="", encoding="utf-8") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's losses: one that fails, one that is interrupted once."""
    (tmp_path / "mine.py").write_text(
        "import os, pathlib, signal\n"
        "from sentence_forge.losses.cosine import Cosine\n"
        "class Fault(Cosine):\n"
        "    def forward(self, embeddings, labels, text_ids):\n"
        "        if not pathlib.Path('mended').exists():\n"
        "            raise KeyError('a fault | of ours')\n"
        "        return super().forward(embeddings, labels, text_ids)\n"
        "class Interrupted(Cosine):\n"
        "    def forward(self, embeddings, labels, text_ids):\n"
        "        if not pathlib.Path('interrupted').exists():\n"
        "            pathlib.Path('interrupted').touch()\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "        return super().forward(embeddings, labels, text_ids)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)


@pytest.mark.usefixtures("mine")
def test_a_failed_job_stops_no_other_and_stands_in_the_table(command: Command, tmp_path: Path) -> None:
    typed = ["train", "-m", "loss=cosine", *SHORT, "plugins=[mine]", "seed=5", "loop.learning_rate=1e-4",
             "loss._target_=mine.Fault,losses.cosine.Nothing,losses.cosine.Cosine"]
    done = command(*typed)
    folder = tmp_path / "sweep"
    assert done.code == 2
    gc.collect()
    assert not any(type(each) is Training for each in gc.get_objects())  # whatever became of a job, it is gone
    assert done.err.count("losses.cosine defines no 'Nothing'") == 1 and "2 of the sweep's jobs failed" in done.err
    assert "Traceback" in done.err  # of our fault
    found = rows(folder)
    assert list(found) == ["2", "0", "1"]  # best first
    assert found["2"]["status"] == "done" and found["2"]["steps"] == "2" and float(found["2"]["seconds"]) >= 0
    report = json.loads((folder / "2" / "report" / "report.json").read_text())
    assert float(found["2"]["average"]) == report["average"]
    training = json.loads((folder / "2" / "model" / "sentence_forge.json").read_text())["training"]
    assert found["2"]["dev"] == f"{training['after']:.4f}" and found["2"]["dev measure"] == "spearman cosine"
    assert found["1"]["status"].startswith("failed: loss._target_: losses.cosine defines no 'Nothing'")
    assert found["0"]["status"] == "failed: KeyError: 'a fault | of ours'" and found["0"]["average"] == ""
    assert found["0"]["loss._target_"] == "mine.Fault" and "seed" not in found["0"]  # what differs, no more
    shown = (folder / "table.md").read_text()
    assert done.out == shown and "'a fault \\| of ours'" in shown and "not comparable between losses" in shown
    lines = [line for line in shown.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1 and len(lines) == 5
    # typed again: the failed ones again, and what happened is kept until it goes well
    assert command(*typed).code == 2 and rows(folder)["0"]["status"] == "failed: KeyError: 'a fault | of ours'"
    (tmp_path / "mended").touch()
    done = command(*typed, "resume_anyway=true")
    assert done.code == 2 and "1 of the sweep's jobs failed" in done.err and "was done before" in done.err
    assert [rows(folder)[job]["status"][:6] for job in "012"] == ["done", "failed", "done"]
    assert json.loads((folder / "0" / "job.json").read_text())["error"] is None


def test_losses_and_seeds_end_in_one_table_and_in_tensorboard(command: Command, tmp_path: Path) -> None:
    done = command("train", "-m", "loss=softmax,cosine", "seed=1,2", "loop.warmup=0.5", *SHORT)
    assert done.code == 0, done.err
    folder = tmp_path / "sweep"
    found = rows(folder)
    assert [(found[str(number)]["loss"], found[str(number)]["seed"]) for number in range(4)] == [
        ("softmax", "1"), ("softmax", "2"), ("cosine", "1"), ("cosine", "2")]
    assert done.out.count("mean ± sd of 2 seeds") == 2
    # a job is the run that the same command without -m would have been
    assert command("train", "loss=cosine", "seed=2", *TINY, "loop.max_steps=2", "loop.warmup=0.5",
                   "hydra.run.dir=alone").code == 0
    alone, job = (load_file(each / "model" / "model.safetensors") for each in (tmp_path / "alone", folder / "3"))
    assert all(torch.equal(alone[key], job[key]) for key in alone)
    # TensorBoard's own reading of the folder
    multiplexer = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    context = backend_context.Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(folder))))
    asked = RequestContext()
    request = api_pb2.ListSessionGroupsRequest(slice_size=10, allowed_statuses=[
        api_pb2.STATUS_SUCCESS, api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_RUNNING])
    groups = list_session_groups.Handler(asked, context, str(folder), request).run().session_groups
    assert {(group.hparams["loss"].string_value, group.hparams["seed"].number_value) for group in groups} == {
        ("Softmax", 1), ("Softmax", 2), ("Cosine", 1), ("Cosine", 2)}
    assert all(group.hparams["loop.warmup"].number_value == 0.5 for group in groups)
    # the same table by a command, and the sweep typed again does nothing twice
    assert compare([str(folder), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "leaderboard.md").read_text() == (folder / "table.md").read_text()
    (folder / "table.md").unlink()
    weights = folder / "0" / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    done = command("train", "-m", "loss=softmax,cosine", "seed=1,2", "loop.warmup=0.5", *SHORT)
    assert done.code == 0 and done.err.count("was done before") == 4 and weights.stat().st_mtime_ns == before
    assert (folder / "table.md").read_text() == done.out


@pytest.mark.usefixtures("mine")
def test_an_interrupted_sweep_has_the_table_of_what_it_did(command: Command, tmp_path: Path) -> None:
    typed = ["train", "-m", "loss=cosine", *SHORT, "plugins=[mine]", "loss._target_=losses.cosine.Cosine,"
             "mine.Interrupted,losses.cosine.Cosine"]
    done = command(*typed)
    assert done.code == 130 and "resume=" in done.err
    assert {name: row["status"] for name, row in rows(tmp_path / "sweep").items()} == {"0": "done", "1": "unfinished"}
    assert done.out == (tmp_path / "sweep" / "table.md").read_text()
    spent = json.loads((tmp_path / "sweep" / "1" / "job.json").read_text())["seconds"]
    done = command(*typed)
    assert done.code == 0 and "0: was done before" in done.err and "going on" in done.err, done.err
    assert {name: row["status"] for name, row in rows(tmp_path / "sweep").items()} == dict.fromkeys("012", "done")
    assert json.loads((tmp_path / "sweep" / "1" / "job.json").read_text())["seconds"] > spent


def test_other_settings_into_the_same_folder_are_refused(command: Command, tmp_path: Path) -> None:
    short = [each for each in SHORT if "max_steps" not in each] + ["loop.max_steps=1"]
    assert command("train", "-m", "seed=1,2", *short).code == 0
    before = {file: file.read_bytes() for file in (tmp_path / "sweep").rglob("*.*") if ".hydra" not in file.parts}
    done = command("train", "-m", "seed=3,2", *short)
    assert done.code == 2 and "sweep/0: holds a run with other settings (seed=1); give another hydra.sweep" in done.err
    assert done.err.count("was done before") == 1 and done.err.count("error: job") == 1, done.err
    after = {file: file.read_bytes() for file in before}
    assert [file for file in before if before[file] != after[file] and "multirun" not in file.name] == []
    # a folder that is damaged takes nobody's success away
    (tmp_path / "sweep" / "0" / "config.yaml").write_text("a: [")
    done = command("train", "-m", "seed=1,2,7", *short)
    assert done.code == 0 and "no new table of the jobs" in done.err, done.err
    assert json.loads((tmp_path / "sweep" / "2" / "job.json").read_text())["error"] is None


def test_random_search(command: Command, tmp_path: Path) -> None:
    settings = ["loop.learning_rate=${log_uniform:1e-5,1e-3}", "loop.batch_size=${choice:8,16}", "loss=cosine"]
    done = command("train", "-m", "draw=range(3)", *[each for each in SHORT if "batch_size" not in each], *settings)
    assert done.code == 0, done.err
    found = rows(tmp_path / "sweep")
    rates = [float(found[str(number)]["loop.learning_rate"]) for number in range(3)]
    assert len(set(rates)) == 3 and all(1e-5 <= rate <= 1e-3 for rate in rates)
    kept = OmegaConf.load(tmp_path / "sweep" / "1" / "config.yaml")
    assert kept.loop.learning_rate == rates[1] and kept.loop.batch_size in (8, 16)
    refused = command("train", *settings)
    assert refused.code == 2 and "draw=range(20)" in refused.err and "Traceback" not in refused.err


def test_draws_fall_where_they_should() -> None:
    draw.register()
    rates, picks, even = [], set(), []
    for number in range(400):
        drawn = OmegaConf.create({"draw": number, "rate": "${log_uniform:1e-6,1e-2}", "pick": "${choice:a,b,c}",
                                  "even": "${uniform:2,4}", "also": "${uniform:2,4}"})
        assert drawn.rate == drawn.rate and drawn.even != drawn.also
        rates.append(drawn.rate)
        even.append(drawn.even)
        picks.add(drawn.pick)
    assert picks == {"a", "b", "c"} and 2 <= min(even) < 2.1 and 3.9 < max(even) <= 4
    for low in (1e-6, 1e-5, 1e-4, 1e-3):  # a quarter in each decade
        assert 60 < sum(low <= rate < 10 * low for rate in rates) < 140


def test_a_sweep_refuses_what_it_cant_do_and_takes_paths(command: Command, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("train", *TINY, "loop.max_steps=1", "hydra.run.dir=first").code == 0
    done = command("train", "-m", "resume=first", *SHORT)
    assert done.code == 2 and "leave -m out" in done.err
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = command("train", "-m", "seed=1,2", *SHORT)
    assert done.code == 2 and done.err.count("torchrun") == 1
    monkeypatch.delenv("WORLD_SIZE")
    done = command("train", "-m", "model=first,first", "loop.max_steps=1", "loop.projector=0", "hydra.sweep.dir=paths")
    assert done.code == 0, done.err
    assert set(rows(tmp_path / "paths")) == {"0", "1"}
    for group, value in (("model", "minilm,./first"), ("model", "org/one,minilm"), ("data", "allnli,first")):
        done = command("train", "-m", f"{group}={value}", "hydra.sweep.dir=mixed")
        assert done.code == 2 and f"error: {group}={value}: names (" in done.err and "mixed in one sweep" in done.err
    assert friendly(["-m", "model=org/one,./first"]) == ["-m", "model=folder", "model.path='org/one','./first'"]
    done = command("train", "-m", "data=org/one,org/two", "hydra.sweep.dir=mixed")
    assert done.code == 2 and "data=hub data.path=org/one" in done.err and not (tmp_path / "mixed").exists()


def test_info_and_help_show_what_can_be_chosen(command: Command) -> None:
    helped, informed = command("train", "--help"), command("train", "--info")
    assert helped.code == informed.code == 0 and helped.out == informed.out
    for line in ("loss=", "data=", "model=", "experiment=", "  mnrl ", "  sbert_nli_mnrl "):
        assert line in informed.out
    root = logging.getLogger()
    before = list(root.handlers)
    assert "Defaults" in command("train", "--info", "defaults").out  # Hydra's own, which adds a handler
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)
