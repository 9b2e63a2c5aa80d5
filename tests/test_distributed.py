"""Two processes train what one would: losses, gradients, whole commands, and a resume on another number."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed_cases import CASES, a_case, step
from resuming import cut_at, same_end

from sentence_forge.runtime.errors import UserError
from sentence_forge.train.distributed import ALONE, World, join, own_gpu
from sentence_forge.train.lost import LIMIT
from sentence_forge.train.meeting import meet

ROOT = Path(__file__).parent.parent


ENVIRONMENT = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
               "CUDA_VISIBLE_DEVICES": ""}


def torchrun(*arguments: str, processes: int = 2, cwd: Path, wait: bool = True, restarts: int = 0,
             **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
               f"--max-restarts={restarts}", *arguments]
    process = subprocess.Popen(command, cwd=cwd, env=os.environ | ENVIRONMENT | environment,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    if wait:
        said, _ = process.communicate(timeout=300)
        process.said = said  # type: ignore[attr-defined]
    return process


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("two")
    done = torchrun(str(ROOT / "tests" / "torchrun_case.py"), str(folder), cwd=folder)
    assert done.returncode == 0, done.said  # type: ignore[attr-defined]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_compute_what_one_does(name: str, two: list[dict[str, Any]]) -> None:
    """Losses, and the gradients of model and heads, also where a head has none, and where one process has no row."""
    case = a_case(name)
    loss, gradients = step(case, ALONE)
    whole = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm()
    assert whole > 0
    for found_loss, found in (each[name] for each in two):
        torch.testing.assert_close(found_loss, loss, rtol=1e-5, atol=1e-7)
        assert found.keys() == gradients.keys()
        for key, gradient in gradients.items():
            assert (found[key] - gradient).norm() <= 1e-5 * whole, key
    assert all(two[0][name][1][key].equal(two[1][name][1][key]) for key in gradients)


def test_heads_never_drift_apart(two: list[dict[str, Any]]) -> None:
    """They begin as the first process's, and get one gradient, though each computes another."""
    (one, head), (other, other_head) = (each["own head"] for each in two)
    assert all(head[key].equal(other_head[key]) for key in head)
    assert any(key.startswith("losses.") for key in one)
    assert all(one[key].equal(other[key]) for key in one)


def test_each_process_scores_its_own_rows_only(two: list[dict[str, Any]]) -> None:
    """Of 7 rows 4 and 3, against 14 candidates, and 7 anchors in the other direction."""
    assert [each["scores"] for each in two] == [[(4, 14), (4, 7)], [(3, 14), (3, 7)]]


def test_each_encodes_its_share_and_all_have_all(two: list[dict[str, Any]]) -> None:
    right = a_case("mnrl").encoder.encode(["rates rise", "storm hits", "a", "opera opens in winter", "coast"])
    for each in two:
        np.testing.assert_allclose(each["vectors"].numpy(), right, atol=1e-6)
        assert int(each["largest"]) == 3


def test_all_measure_the_same_on_dev(two: list[dict[str, Any]]) -> None:
    """Else one would stop early, or take another step for the best."""
    assert len(two[0]["dev"]) >= 2 and two[0]["dev"].isfinite().all()
    assert two[0]["dev"].equal(two[1]["dev"])


TRAIN = ["-m", "train", "loss=mnrl", "model=mini", "model.hidden=32", "model.layers=1", "model.heads=2",
         "model.vocabulary=600", "loop.projector=0", "loop.batch_size=16", "hydra.run.dir=run"]


def test_a_whole_run_by_torchrun_has_one_writer_and_goes_on(tmp_path: Path) -> None:
    process = torchrun(*TRAIN, "loop.max_steps=4000", "model.dropout=0", cwd=tmp_path, wait=False)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.exists() and '"step": 20' in metrics.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(process.communicate()[0])
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=240)
    saved = list((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert len(saved) == 1 and "go on with: python -m train resume=" in said, said
    assert said.count("training: 4000 steps") == 1 and "2 processes" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]

    last = int(saved[0].name.partition("-")[2])
    more = [f"loop.max_steps={last + 3}", "loop.schedule=constant"]
    done = torchrun("-m", "train", "resume=run", *more, processes=1, cwd=tmp_path)
    assert done.returncode != 0 and "processes 2 -> 1" in done.said  # type: ignore[attr-defined]
    done = torchrun("-m", "train", "resume=run", *more, cwd=tmp_path)
    assert done.returncode == 0, done.said  # type: ignore[attr-defined]
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines() if "train/loss" in line]
    assert steps == sorted(set(steps)) and steps[-1] == last + 3
    assert (tmp_path / "run" / "report" / "report.json").exists()


def test_a_resumed_run_of_two_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    """Bit for bit, each process with its own dropout."""
    done = torchrun(*TRAIN, "loop.max_steps=4", "loop.evaluate_every=4", "loop.checkpoint_every=2", "loop.keep=9",
                    cwd=tmp_path)
    assert done.returncode == 0, done.said  # type: ignore[attr-defined]
    cut_at(tmp_path / "run", tmp_path / "broken", 2)
    done = torchrun("-m", "train", "resume=broken", cwd=tmp_path)
    assert done.returncode == 0 and "step 2" in done.said, done.said  # type: ignore[attr-defined]
    same_end(tmp_path / "run", tmp_path / "broken", 4)


def test_a_killed_process_ends_the_others_with_a_line_and_a_restart_goes_on_to_the_same_end(tmp_path: Path) -> None:
    """Bit for bit; the second start finds the run by itself, in a folder named by the first one's time."""
    more = ["loss._target_=mortal.Mortal", "plugins=[mortal]", "loop.max_steps=4", "loop.evaluate_every=4",
            "loop.checkpoint_every=2", "loop.keep=9"]
    done = torchrun(*TRAIN, *more, cwd=tmp_path)
    assert done.returncode == 0, done.said  # type: ignore[attr-defined]
    timed = ["hydra.run.dir=broken/${now:%H%M%S}"]
    done = torchrun(*TRAIN, *more, *timed, cwd=tmp_path, restarts=1, DIES=str(tmp_path / "broken"))
    said = done.said  # type: ignore[attr-defined]
    assert done.returncode == 0, said
    [broken] = (tmp_path / "broken").iterdir()
    assert said.count("error: ") == 1 and "is lost, so this one can't go on; its last checkpoint is whole" in said
    assert f"-m train resume={broken}" in said and "Traceback" not in said and "gloo" not in said
    assert f"going on from {broken / 'checkpoints' / 'step-2'}" in said
    same_end(tmp_path / "run", broken, 4)


def two_by_hand(cwd: Path, *arguments: str, ranks: tuple[str, ...] = ("0", "1")) -> list[subprocess.Popen[str]]:
    """Start ``stopped_case`` twice without torchrun, which would end the one when it sees the other's end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return [subprocess.Popen([sys.executable, str(ROOT / "tests" / "stopped_case.py"), *arguments], cwd=cwd, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                             env=os.environ | ENVIRONMENT | {"RANK": rank, "WORLD_SIZE": "2", "MASTER_PORT": port,
                                                             "MASTER_ADDR": "127.0.0.1"}) for rank in ranks]


def read_to(line: str, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert f"{line}\n" in iter(process.stdout.readline, "")


@pytest.mark.parametrize("hangs", [0, 1])
@pytest.mark.parametrize("when", ["early", "late"])
def test_a_process_that_hangs_ends_the_others(when: str, hangs: int, tmp_path: Path) -> None:
    """As one does whose machine is gone; nothing breaks off, so that torch would wait for half an hour.

    The first one holds the store that all count in. The limit is 5 s here, and the promise is a minute.
    """
    assert LIMIT < 60
    both = two_by_hand(tmp_path, when, "5", str(hangs))
    lost, other = both[hangs], both[1 - hangs]
    try:
        read_to("stopping", lost)
        begun = time.monotonic()
        _, said = other.communicate(timeout=200)
        assert time.monotonic() - begun < 0.6 * LIMIT
        assert other.returncode == 2 and lost.poll() is None
        who = "process 1" if hangs else "another process"  # that no count is heard is all that there is
        assert said.splitlines()[-1].startswith(f"error: {who} of this run is lost"), said
        assert "the run has not begun to train, so begin it again" in said and "whole" not in said
        assert "Traceback" not in said and said.count("error: ") == 1
    finally:
        for each in both:
            each.kill()
            each.communicate()


def test_a_signal_is_heard_while_the_others_are_waited_for(tmp_path: Path) -> None:
    """Torch's own waiting would take no notice of it, and torchrun kills half a minute later, without a word."""
    both = two_by_hand(tmp_path, "early", "60", "1")
    try:
        read_to("stopping", both[1])
        time.sleep(1)  # until it waits
        both[0].terminate()
        _, said = both[0].communicate(timeout=20)
        assert both[0].returncode == 2
        assert said.startswith("error: SIGTERM ended this process, as torchrun does") and said.count("\n") == 1
    finally:
        for each in both:
            each.kill()
            each.communicate()


def test_a_signal_is_heard_while_the_first_one_has_not_begun(tmp_path: Path) -> None:
    only = two_by_hand(tmp_path, "early", "60", "1", ranks=("1",))[0]
    try:
        read_to("begun", only)
        time.sleep(1)  # until it looks for the store
        only.terminate()
        _, said = only.communicate(timeout=20)
        assert only.returncode == 143 and "Traceback" not in said
    finally:
        only.kill()
        only.communicate()


def test_a_process_killed_while_it_reads_ends_the_others_with_a_line(tmp_path: Path) -> None:
    died = tmp_path / "died"
    done = torchrun(*TRAIN, "plugins=[mortal]", "data._target_=mortal.MortalRows", cwd=tmp_path, processes=3,
                    DIED=str(died))
    assert time.time() - float(died.read_text()) < 60
    said = done.said  # type: ignore[attr-defined]
    assert done.returncode != 0 and said.count("error: ") == 1, said
    assert "error: SIGTERM ended this process, as torchrun does when another one dies" in said
    assert "the run has not begun to train, so begin it again" in said
    assert "Signal 9 (SIGKILL)" in said


def test_a_mistake_of_one_process_is_one_line(tmp_path: Path) -> None:
    """The others are ended by torchrun, and have nothing to add."""
    done = torchrun(*TRAIN, "plugins=[mortal]", "data._target_=mortal.MortalRows", cwd=tmp_path, processes=3,
                    MISTAKE="rows.csv: no such file")
    said = done.said  # type: ignore[attr-defined]
    assert done.returncode != 0 and said.count("error: ") == 1 and "error: rows.csv: no such file" in said, said


@pytest.mark.parametrize(("there", "given", "number"), [
    (1, {"SLURM_LOCALID": "3"}, 0), (4, {"SLURM_LOCALID": "3"}, 3), (8, {}, 5),
    (4, {"LOCAL_RANK": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"}, 1), (4, {}, None),
    (1, {"LOCAL_RANK": "1", "TORCHELASTIC_USE_AGENT_STORE": "True", "LOCAL_WORLD_SIZE": "2"}, None)])
def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, there: int, given: dict[str, str],
                                           number: int | None) -> None:
    for name in ("LOCAL_RANK", "SLURM_LOCALID", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    if number is not None:
        assert own_gpu(World(5, 8)) == number
    else:
        with pytest.raises(UserError, match=f"process wants a GPU, and this machine has {there}"):
            own_gpu(World(5, 8))


def test_processes_that_dont_know_where_to_meet_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match="WORLD_SIZE=2, but MASTER_ADDR and MASTER_PORT don't say where"):
        join(World(0, 2), "cpu")


def test_a_process_that_never_begins_is_named() -> None:
    only = torch.distributed.HashStore()
    only.set("0", "")
    with pytest.raises(UserError, match="process 1 of this run has not begun within 0 seconds"):
        meet(World(0, 2), only, 0)


def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = torchrun(*TRAIN, "loop.batch_size=-1", cwd=tmp_path)
    said = done.said  # type: ignore[attr-defined]
    assert done.returncode != 0 and "error: loop.batch_size" in said
    assert not list(tmp_path.iterdir())
